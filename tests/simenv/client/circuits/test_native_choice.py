"""Compiled packing at the wrong time, for the wrong Qiskit, or at the price of a process."""

import sys
import threading
import time
from typing import Any

import pytest
from circuits import ladder
from interpreter import python
from qiskit import QuantumCircuit
from qiskit.circuit import Parameter

from simenv.client.circuits import PackedCircuit, load, native
from simenv.client.circuits.encoder import pack

PACKER = native.build()
TEXT = """OPENQASM 2.0;
include "qelib1.inc";
qreg q[2];
creg c[2];
rx(0.5) q[1];
cx q[1],q[0];
measure q -> c;
"""


def packed(loaded: PackedCircuit | None) -> bytes:
    assert loaded is not None, "left to the walk"
    return loaded.packed


def branched() -> QuantumCircuit:
    circuit = ladder(2)
    with circuit.if_test((0, True)):
        circuit.x(1)
    return circuit


def free() -> QuantumCircuit:
    circuit = ladder(2)
    circuit.rx(Parameter("a"), 0)
    return circuit


def test_concurrent_threads_pack_correct_bytes() -> None:
    circuits = [ladder(2 + k % 7, 1 + k % 5) for k in range(40)]
    expected = [pack(circuit).program.packed() for circuit in circuits]
    wrong: list[int] = []

    def work() -> None:
        for _ in range(30):
            wrong.extend(
                k for k, c in enumerate(circuits) if packed(PACKER.loaded(c._data)) != expected[k]
            )

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert not wrong


def test_native_packer_holds_interpreter_lock() -> None:
    data = ladder(10, 2000)._data
    scratch = native.Scratch()
    turns, stop = [0], threading.Event()

    def spin() -> None:
        while not stop.is_set():
            turns[0] += 1
            time.sleep(0)  # lets go of the interpreter lock

    interval = sys.getswitchinterval()
    sys.setswitchinterval(100)  # nobody gets the lock unless it is let go
    thread = threading.Thread(target=spin)
    thread.start()
    try:
        before = turns[0]
        for _ in range(50):
            assert PACKER._walk(data, 0.0, scratch.address)
        after = turns[0]
    finally:
        stop.set()
        sys.setswitchinterval(interval)
        thread.join()
    assert after == before


def test_cache_of_shapes_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "_SHAPES", 8)
    packer = native.build()
    for width in range(1, 40):
        circuit = QuantumCircuit(width)
        circuit.barrier()
        assert packed(packer.loaded(circuit._data)) == pack(circuit).program.packed()
    assert len(packer._shapes) <= 8


def test_packer_is_compiled_after_enough_operations_were_packed_in_python() -> None:
    choice = native.EncoderSelector()
    circuit = ladder(5, 10)  # 105 operations
    walked = 0
    while walked <= native.WALKED_FIRST:
        choice.wait()  # for nothing: no thread has begun
        assert choice.loaded(circuit) is None
        walked += len(circuit.data)
    choice.wait()
    assert packed(choice.loaded(circuit)) == pack(circuit).program.packed()


def test_large_circuit_begins_compilation_in_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    release, began = threading.Event(), []

    def build() -> native.NativePacker:
        began.append(threading.current_thread())
        assert release.wait(60.0)
        return PACKER

    monkeypatch.setattr(native, "build", build)
    choice = native.EncoderSelector()
    circuit = ladder(10, native.LARGE_CIRCUIT // 20)
    for _ in range(3):
        assert choice.loaded(circuit) is None  # while it compiles, which is once
    release.set()
    choice.wait()
    assert len(began) == 1
    assert began[0] is not threading.current_thread()
    assert packed(choice.loaded(circuit)) == pack(circuit).program.packed()
    small = native.EncoderSelector()
    assert small.loaded(ladder(3)) is None
    small.wait()
    assert small.packer is None


def test_fork_waits_for_the_thread_that_compiles() -> None:
    done = python("-c", FORK, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


FORK = """
import os, threading
from qiskit import QuantumCircuit
from simenv.client.circuits import load, native

build = native.build
def slow():
    began.set()
    forking.wait(60)
    return build()
native.build = slow
began, forking = threading.Event(), threading.Event()
circuit = QuantumCircuit(2)
for _ in range(native.LARGE_CIRCUIT):
    circuit.h(0)
load(circuit)
assert began.wait(60)
os.register_at_fork(before=forking.set)  # handlers run in reverse order of registration
child = os.fork()
if not child:
    os._exit(0 if native.CHOICE.packer is not None else 1)
assert os.waitpid(child, 0)[1] == 0
"""


def test_prepare_returns_while_another_caller_compiles(monkeypatch: pytest.MonkeyPatch) -> None:
    choice = native.EncoderSelector()
    entries: list[bool] = []

    def build() -> native.NativePacker:
        entries.append(choice.prepare())
        return PACKER

    monkeypatch.setattr(native, "build", build)
    assert choice.prepare()
    assert entries == [False]


@pytest.mark.parametrize("fault", ["no interface", "no function", "other version", "no compiler"])
def test_falls_back_to_python_encoder(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from qiskit import capi

    if fault == "no interface":
        monkeypatch.delattr("qiskit.capi")
        monkeypatch.setitem(sys.modules, "qiskit.capi", None)
    elif fault == "no function":
        monkeypatch.delattr(capi, "qk_circuit_view_instruction")
    elif fault == "other version":
        monkeypatch.setattr(capi, "qk_api_version", lambda: 0x020700F0)
    else:
        monkeypatch.setitem(sys.modules, "llvmlite", None)
        monkeypatch.setitem(sys.modules, "llvmlite.binding", None)
    choice = native.EncoderSelector()
    assert not choice.prepare()
    assert choice.build_error
    assert choice.loaded(ladder(10, 200)) is None
    monkeypatch.setattr(native, "CHOICE", choice)
    assert load(ladder(3)).program == pack(ladder(3)).program


def test_load_gives_bytes_of_before_after_compilation(monkeypatch: pytest.MonkeyPatch) -> None:
    circuits: list[Any] = [ladder(3), branched(), free(), TEXT]
    monkeypatch.setattr(native, "CHOICE", native.EncoderSelector())
    before = [load(circuit) for circuit in circuits]
    assert native.CHOICE.packer is None
    assert native.CHOICE.prepare()
    after = [load(circuit) for circuit in circuits]
    assert [loaded.packed for loaded in after] == [loaded.packed for loaded in before]
    assert [loaded.program for loaded in after] == [loaded.program for loaded in before]
    assert [loaded.parameters for loaded in after] == [(), (), ("a",), ()]
    assert after[0].bind().tolist() == [[]]


PROGRAM = """
import atexit, os, sys, threading
from qiskit import QuantumCircuit
from simenv.client.circuits import load, native

circuit = QuantumCircuit(2, 2)
circuit.h(0)
circuit.measure(0, 1)
expected = load(circuit).packed
assert native.CHOICE.prepare()
assert load(circuit).packed == expected
(scratch,) = native.CHOICE.packer._scratches
before = scratch.written()
child = os.fork()
if not child:
    other = QuantumCircuit(2)
    other.cz(1, 0)
    os._exit(load(other).packed == expected)
assert os.waitpid(child, 0)[1] == 0
assert scratch.written() == before

def forever():
    while True:
        load(circuit)

threading.Thread(target=forever, daemon=True).start()
atexit.register(lambda: print(load(circuit).packed == expected))
"""


def test_process_with_compiled_packer_forks_and_exits_cleanly() -> None:
    run = python("-W", "ignore", "-c", PROGRAM, check=False)
    assert (run.returncode, run.stdout, run.stderr) == (0, "True\n", "")
