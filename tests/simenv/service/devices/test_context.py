"""Forecasts of tasks on a device have the noise that the worker attaches."""

import hashlib

import msgspec
import pytest

from noise_models import document, library
from noise_models.calibration import CalibrationSnapshot, FitScope
from simenv.client.circuits import load
from simenv.model import TaskOptions
from simenv.service.devices.context import DeviceContext
from simenv.service.devices.registry import EmulatedDevice, device_info
from simenv.wire.messages.client import AssignedTask, NoiseDocument
from simenv.worker.noise import Noise
from simulators.circuit.analysis.fit_scope import in_force
from simulators.circuit.analysis.noise_profile import noise_profile
from simulators.circuit.analysis.profiler import profile
from simulators.circuit.ir import Circuit

SCOPE = FitScope("lima", (0, 1), 4, 2, 3, pairs=((0, 1),))  # of four bodies


def narrow_fit() -> CalibrationSnapshot:
    """A fit with other errors and durations than the calibration, for circuits in SCOPE."""
    lima = library.load("lima")
    gates = tuple(
        msgspec.structs.replace(
            each, error=each.error and 3.0 * each.error,
            duration_ns=each.duration_ns and 2.0 * each.duration_ns,
        )
        for each in lima.gates
    )  # fmt: skip
    return msgspec.structs.replace(lima, gates=gates, fitted=SCOPE, outside=lima)


@pytest.mark.parametrize(
    ("pair", "is_fitted"), [((0, 1), True), ((1, 3), False)], ids=["inside", "outside"]
)
def test_a_forecast_has_the_noise_of_the_run(pair: tuple[int, int], is_fitted: bool) -> None:
    fitted = narrow_fit()
    body = document.dump(fitted)
    digest = hashlib.sha256(body).hexdigest()
    terms = TaskOptions(device="lima", snapshot=digest, outputs=("counts",))
    info = device_info("lima", fitted, digest)
    context = DeviceContext(info, EmulatedDevice(digest, body, fitted, info), terms)
    a, b = pair
    text = f'OPENQASM 2.0;include "qelib1.inc";qreg q[5];creg c[2];sx q[{a}];cx q[{a}],q[{b}];'
    program = load(f"{text}measure q[{a}]->c[0];measure q[{b}]->c[1];").program
    circuit = Circuit.from_program(program)
    found = context.examined(circuit, profile(circuit, ("counts",), ()), terms).noise

    worker = Noise()
    worker.receive(NoiseDocument(digest, body))
    attached = worker.program(program, circuit, terms)
    acting = noise_profile(attached, attached.located(circuit), ("counts",))
    assert found.error_weight == acting.error_weight
    task = AssignedTask(1, 1, 0, program.packed(), 100, 1, b"", 0)
    run_ns = worker.device_ns(program, circuit, task, terms)
    assert run_ns == pytest.approx(
        100 * (found.device_shot_ns + found.device_overhead_ns), rel=0.01
    )

    plain = Noise()
    calibrated = document.dump(library.load("lima"))
    plain.receive(NoiseDocument("plain", calibrated))
    before = plain.program(program, circuit, TaskOptions(device="lima", snapshot="plain"))
    weight = noise_profile(before, before.located(circuit), ("counts",)).error_weight
    assert (weight != found.error_weight) is is_fitted


@pytest.mark.parametrize(
    ("lines", "is_fitted"),
    [("sx q[0];" * 4, True), ("sx q[0];" * 600, False), ("rz(0.1) q[0];" * 600, True)],
)
def test_a_narrow_fit_acts_on_circuits_as_deep_as_its_own(lines: str, is_fitted: bool) -> None:
    scope = msgspec.structs.replace(SCOPE, one_qubit_gates=3, delay_ns=0.0)
    fitted = msgspec.structs.replace(narrow_fit(), fitted=scope)
    text = f'OPENQASM 2.0;include "qelib1.inc";qreg q[5];creg c[1];{lines}measure q[0]->c[0];'
    circuit = Circuit.from_program(load(text).program)
    assert (in_force(fitted, circuit) is fitted) == is_fitted
