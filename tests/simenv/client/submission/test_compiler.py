"""Compilation in a process with bounds gives the same circuits, and ends in time."""

import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from qiskit import QuantumCircuit
from qiskit.circuit import Parameter

from noise_models import library
from simenv.client.circuits import load
from simenv.client.submission import compiler
from simenv.client.submission.compiler import Compilers, compiler_sandbox
from simenv.client.submission.devices import SubmitDevices
from simenv.client.submission.prepare import prepare_one
from simenv.errors import LimitExceededError
from simenv.model.devices import DeviceInfo
from simenv.sandbox.function_process import SandboxProcess
from simenv.service.devices.registry import device_info


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
    with pytest.raises(LimitExceededError, match=r"compiling the circuit .* more than 0\.001 s"):
        compilers.of(lima).compiled(loaded, "always")
    short._own_seconds = 60.0
    assert compilers.of(lima).compiled(loaded, "always").compiler
    short.close()


class Devices:
    """Two devices; `asked` is called, outside of any lock, for each description."""

    def __init__(self, asked: Callable[[str], object] = lambda _: None) -> None:
        self._asked = asked

    def device(self, name: str) -> DeviceInfo:
        self._asked(name)
        return device_info(name, library.load(name), "00")

    def devices(self) -> Mapping[str, DeviceInfo]:
        return {}

    def store(self, document: bytes) -> str:
        return document.hex()


def compiled_for(devices: SubmitDevices, circuit: QuantumCircuit, name: str) -> str:
    return prepare_one(circuit, {"device": name, "compile": "always"}, devices).terms.compiled


def test_circuit_in_the_cache_does_not_wait_for_the_compilation_of_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bell, ghz = QuantumCircuit(2), next(circuits())
    bell.h(0)
    bell.cx(0, 1)
    bell.measure_all()
    devices = SubmitDevices(Devices())
    assert compiled_for(devices, bell, "lima")
    begun, go = threading.Event(), threading.Event()
    transpiled = compiler.Compiler.transpiled

    def slow(self: compiler.Compiler, *of: Any) -> Any:
        begun.set()
        assert go.wait(60)
        return transpiled(self, *of)

    monkeypatch.setattr(compiler.Compiler, "transpiled", slow)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(compiled_for, devices, ghz, "lima")
        assert begun.wait(60)
        assert compiled_for(devices, bell, "lima")
        assert not waiting.done()
        go.set()
        assert waiting.result(60)


def test_description_that_is_slow_to_come_delays_no_other_device() -> None:
    begun, go = threading.Event(), threading.Event()

    def asked(name: str) -> None:
        if name == "quito":
            begun.set()
            assert go.wait(60)

    devices = SubmitDevices(Devices(asked))
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(compiled_for, devices, next(circuits()), "quito")
        assert begun.wait(60)
        assert compiled_for(devices, next(circuits()), "lima")
        go.set()
        assert waiting.result(60)


def test_compiler_that_was_not_used_for_longest_makes_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(compiler, "MAX_TARGETS", 2)
    compilers, find = Compilers(), Devices().device
    first, second, third = (find(name) for name in ("quito", "lima", "belem"))
    used = compilers.of(first)
    unused = compilers.of(second)
    assert compilers.of(first) is used
    compilers.of(third)
    assert compilers.of(first) is used
    assert compilers.of(second) is not unused


def test_structure_that_two_threads_need_is_compiled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    devices, calls, both = SubmitDevices(Devices()), [], threading.Barrier(2)
    transpiled = compiler.Compiler.transpiled
    ghz = next(circuits())

    def counted(self: compiler.Compiler, *of: Any) -> Any:
        calls.append(of)
        return transpiled(self, *of)

    def run() -> str:
        both.wait(60)
        return compiled_for(devices, ghz, "lima")

    monkeypatch.setattr(compiler.Compiler, "transpiled", counted)
    with ThreadPoolExecutor(2) as pool:
        assert all(each.result(60) for each in [pool.submit(run), pool.submit(run)])
    assert len(calls) == 1
