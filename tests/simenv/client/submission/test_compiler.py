"""Compilation in a process with bounds gives the same circuits, and ends in time."""

from collections.abc import Iterator

import numpy as np
import pytest
from qiskit import QuantumCircuit
from qiskit.circuit import Parameter

from noise_models import library
from simenv.client.circuits import load
from simenv.client.submission import compiler
from simenv.client.submission.compiler import Compilers, compiler_sandbox
from simenv.errors import LimitExceededError
from simenv.model.views import DeviceInfo
from simenv.service.devices.registry import device_info
from simenv.transpiler.qpy import SandboxProcess


@pytest.fixture(scope="module")
def sandbox() -> Iterator[SandboxProcess]:
    made = compiler_sandbox()
    yield made
    made.close()


@pytest.fixture(scope="module")
def lima() -> DeviceInfo:
    return device_info("lima", library.load("lima"), "00")


def circuits() -> Iterator[QuantumCircuit]:
    ghz = QuantumCircuit(3, global_phase=0.5)
    ghz.h(0)
    ghz.cx(0, 1)
    ghz.cx(0, 2)
    ghz.rx(0.3, 1)
    ghz.measure_all()
    yield ghz
    free = QuantumCircuit(2, 2)
    angle = Parameter("angle")
    free.ry(2 * angle + 0.25, 0)
    free.cp(angle, 0, 1)
    free.measure([0, 1], [1, 0])
    yield free


@pytest.mark.parametrize("circuit", [*circuits()])
@pytest.mark.parametrize("mapping", [(), (2, 0, 1)])
def test_confined_compilation_gives_the_same_circuit(
    circuit: QuantumCircuit, mapping: tuple[int, ...], sandbox: SandboxProcess, lima: DeviceInfo
) -> None:
    loaded, mapping = load(circuit), mapping[: circuit.num_qubits]
    here, there = (
        compilers.of(lima).compiled(loaded, "always", mapping)
        for compilers in (Compilers(), Compilers(lambda: sandbox))
    )
    assert there.loaded.packed == here.loaded.packed
    assert (there.layouts, there.compiler, there.replaced) == (
        here.layouts, here.compiler, here.replaced,
    )  # fmt: skip
    values = [[0.7]] if circuit.num_parameters else np.zeros((1, 0))
    assert np.array_equal(there.loaded.slots.values(values), here.loaded.slots.values(values))


def test_compilation_is_ended_after_its_time(
    lima: DeviceInfo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiler, "SANDBOX_S", 1e-3)
    short = compiler_sandbox()
    compilers = Compilers(lambda: short)
    loaded = load(next(circuits()))
    with pytest.raises(LimitExceededError, match=r"compiling the circuit .* or 0\.001 s"):
        compilers.of(lima).compiled(loaded, "always")
    short._own_seconds = 60.0
    assert compilers.of(lima).compiled(loaded, "always").compiler
    short.close()
