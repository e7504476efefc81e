"""What a machine says of itself, in our units; what it does not say stays unknown."""

from __future__ import annotations

import math
from typing import Any

import machines
import pytest
from qiskit.circuit import Measure, Parameter
from qiskit.circuit.library import CXGate, RZGate, SXGate
from qiskit.providers import QubitProperties
from qiskit.transpiler import InstructionProperties, Target

from simulators.hardware.target import MachineDescription, TargetGate, describe, figures


def lopsided() -> Target:
    """Two qubits, coupled one way, about one of which nothing is known."""
    qubit_properties = QubitProperties(t1=50e-6, t2=70e-6, frequency=5.1e9)
    target = Target(num_qubits=2, dt=2e-9, qubit_properties=[qubit_properties, QubitProperties()])
    angle = Parameter("angle")
    target.add_instruction(RZGate(angle), {(0,): None, (1,): None})
    target.add_instruction(SXGate(), {(0,): InstructionProperties(35e-9, 1e-4), (1,): None})
    target.add_instruction(CXGate(), {(1, 0): InstructionProperties(300e-9, 0.01)})
    target.add_instruction(Measure(), {(0,): InstructionProperties(1e-6, 0.02), (1,): None})
    return target


def said(backend: Any) -> MachineDescription:
    return describe(backend, backend.target)


def test_target_properties_are_converted_and_unknown_ones_are_nan() -> None:
    result = figures(lopsided())
    assert result.num_qubits == 2
    assert result.gates == (
        TargetGate("rz", 1, 1), TargetGate("sx", 1, 0), TargetGate("cx", 2, 0)
    )  # fmt: skip
    assert (result.all_to_all, result.directed, result.coupling) == (False, True, ((1, 0),))
    assert result.dt_ns == pytest.approx(2.0)
    assert not result.dynamic
    first, second = result.qubits
    assert first.t1_us == pytest.approx(50)
    assert first.t2_us == pytest.approx(70)
    assert first.frequency_ghz == pytest.approx(5.1)
    assert (first.readout_error, first.readout_ns) == (0.02, pytest.approx(1000))
    assert all(math.isnan(figure) for figure in (second.t1_us, second.t2_us, second.readout_ns))
    operations = {(each.name, each.qubits): each for each in result.operations}
    assert operations["cx", (1, 0)].error == 0.01
    assert operations["cx", (1, 0)].duration_ns == pytest.approx(300)
    assert operations["measure", (0,)].duration_ns == pytest.approx(1000)
    assert math.isnan(operations["sx", (1,)].error)
    assert ("cx", (0, 1)) not in operations


def test_technology_of_ibm_backends_is_superconducting() -> None:
    provider = pytest.importorskip("qiskit_ibm_runtime.fake_provider")
    assert said(provider.FakeMontrealV2()).technology == "superconducting"
    assert said(machines.ideal()).technology == ""


def test_coupling_is_listed_unless_all_to_all() -> None:
    ideal = said(machines.ideal()).target
    assert (ideal.all_to_all, ideal.coupling, ideal.qubits) == (True, (), ())
    assert ideal.dynamic
    assert {"measure", "reset", "if_else"} <= {each.name for each in ideal.operations}
    assert "if_else" not in {gate.name for gate in ideal.gates}
    line = said(machines.noisy())
    assert line.target.coupling == ((0, 1), (1, 0), (1, 2), (2, 1), (2, 3), (3, 2), (3, 4), (4, 3))
    assert not line.target.directed
    assert (line.model, line.provider, line.calibration_id) == ("generic_backend_5q", "qiskit", "")
    anywhere = said(machines.aer()).target
    assert anywhere.all_to_all
    assert anywhere.coupling == ()


def test_description_has_name_version_and_shot_limit_of_backend() -> None:
    result = said(machines.Faulty(max_shots=4000))
    assert (result.model, result.version, result.max_shots) == ("faulty", "7", 4000)
    assert said(machines.Faulty()).max_shots == 2**31 - 1


def test_description_of_fake_ibm_backend_has_calibration_time() -> None:
    provider = pytest.importorskip("qiskit_ibm_runtime.fake_provider")
    result = said(provider.FakeMontrealV2())
    assert result.model == "fake_montreal"
    assert result.target.num_qubits == 27
    assert result.calibration_id.startswith("20")
    assert 1.5e9 < result.calibrated_s < 2e9
    assert all(figure.t1_us > 1 for figure in result.target.qubits)
    errors = [each.error for each in result.target.operations if each.name == "cx"]
    assert 0 < min(errors) < max(errors) <= 1
