"""Transpilation by workers: identical to one process, whoever asks, whichever worker answers."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from emulated import DEVICE
from live import Live, environment
from qiskit import QuantumCircuit, transpile
from qiskit.circuit import Parameter

import simenv
from simenv.client.circuits import load
from simenv.client.client import Client
from simenv.client.devices.compiler import Compiler
from simenv.client.keys import issue_key
from simenv.client.submission.prepare import PreparedSubmit
from simenv.client.submission.send import send
from simenv.errors import NotFoundError, OptionError, ProgramError, SimenvError, TaskFailedError
from simenv.model import TaskOptions, TaskSpec
from simenv.model.calls import CALL_FORMAT, TRANSPILER, VALUE, TranspileCall
from simenv.transpiler import qpy
from simenv.transpiler.target import target_of
from simenv.transpiler.transpiler import Transpiler
from simenv.wire import codec

PATIENCE_S = 120.0


@pytest.fixture(scope="module")
def live() -> Iterator[Live]:
    with environment(listen="tcp://127.0.0.1:0") as result:
        yield result


@pytest.fixture(scope="module")
def env(live: Live) -> Iterator[Client]:
    with live.client() as client:
        yield client


def layered(number: int, width: int = 4) -> QuantumCircuit:
    rng = np.random.default_rng(number)
    circuit = QuantumCircuit(width, width, name=f"layered{number}", metadata={"number": number})
    for _ in range(3):
        for qubit in range(width):
            circuit.u(*rng.uniform(0, 6, 3), qubit)
            circuit.ry(rng.uniform(0, 6), qubit)
        first, second = rng.permutation(width)[:2].tolist()
        circuit.cx(first, second)
        circuit.cx(second, (first + 1) % width if (first + 1) % width != second else first)
    circuit.measure(range(width), range(width))
    return circuit


def assert_same(some: list[Any], others: list[Any]) -> None:
    assert some == others
    for value, other in zip(some, others, strict=True):
        assert (value.name, value.metadata) == (other.name, other.metadata)
        assert value.layout.initial_index_layout() == other.layout.initial_index_layout()
        assert value.layout.final_index_layout() == other.layout.final_index_layout()


@pytest.mark.parametrize("level", [0, 1, 2, 3])
def test_circuits_are_those_of_qiskit_in_one_process(env: Client, level: int) -> None:
    circuits = [layered(number) for number in range(11)]
    target = target_of(env.device(DEVICE))
    expected = transpile(
        circuits, target=target, optimization_level=level, seed_transpiler=3, num_processes=1
    )
    result = env.transpile(circuits, DEVICE, level=level, seed=3)
    assert_same(result, expected)
    assert_same(env.transpile(circuits, DEVICE, level=level, seed=3), result)


def test_without_a_level_circuits_are_those_that_submit_runs(env: Client) -> None:
    circuits = [layered(number) for number in range(6)]
    info = env.device(DEVICE)
    assert_same(
        env.transpile(circuits, DEVICE), [Transpiler(info).transpiled(each) for each in circuits]
    )
    submitted = Compiler(info).compiled(load(circuits[0]), "always").loaded.program
    assert load(env.transpile(circuits[0], DEVICE)).program.names == submitted.names
    assert env.transpile([], DEVICE) == []


def test_parameters_control_flow_and_registers_survive_the_way(env: Client) -> None:
    theta = Parameter("theta")
    free = QuantumCircuit(2)
    free.rx(theta, 0)
    free.cx(0, 1)
    branching = QuantumCircuit(2, 2)
    branching.h(0)
    branching.measure(0, 0)
    with branching.if_test((branching.clbits[0], 1)):
        branching.x(1)
    branching.measure(1, 1)
    value, dynamic = env.transpile([free, branching], DEVICE, level=1)
    assert set(value.parameters) == {theta}
    assert "if_else" in dynamic.count_ops()
    target = target_of(env.device(DEVICE))
    assert value == transpile(free, target=target, optimization_level=1, seed_transpiler=7)


def test_owner_of_a_key_transpiles_too(env: Client, tmp_path: Path) -> None:
    file = tmp_path / "ana.simenv"
    issue_key(env.keys, "ana", "client", file)
    circuits = [layered(number) for number in range(3)]
    with simenv.connect(service=file) as far:
        assert_same(far.transpile(circuits, DEVICE), env.transpile(circuits, DEVICE))
        call = TranspileCall(CALL_FORMAT, codec.encode(env.device(DEVICE)), 1, 7, 99, 5, (b"no",))
        terms = TaskOptions(outputs=(VALUE,), engine=TRANSPILER)
        for changed, value in (
            (call, "circuit 5: .*torn"),
            (msgspec.structs.replace(call, circuits=(bomb(),)), "circuit 5: .*operations|QPY"),
        ):
            order = PreparedSubmit(terms, [TaskSpec(codec.encode(changed), 0, 0)], single=True)
            with pytest.raises(TaskFailedError, match=value) as failed:
                send(far.session, order, None)[0].result(PATIENCE_S)
            assert failed.value.reason in ("program", "engine")
        spec = TaskSpec(codec.encode(msgspec.structs.replace(call, device=b"\x00")), 0, 0)
        with pytest.raises(ProgramError, match="the device cannot be read"):
            send(far.session, PreparedSubmit(terms, [spec], single=True), None)
    env.keys.revoke("ana")
    assert all(worker.restarts == 0 for worker in env.workers())


def bomb() -> bytes:
    """A file whose header claims more instructions than there may be."""
    packed = bytearray(qpy.write_qpy(layered(1)))
    at = packed.index(b"layered1")
    packed[at - 20 : at - 12] = (2**40).to_bytes(8, "big")
    return bytes(packed)


def test_what_cannot_be_transpiled_is_refused_by_name(env: Client) -> None:
    with pytest.raises(ProgramError, match=r"circuit 5: the circuit has 40 qubits; device .* has"):
        env.transpile([*[layered(n) for n in range(5)], QuantumCircuit(40)], DEVICE)
    with pytest.raises(OptionError, match="circuit 1 to transpile is of type str"):
        env.transpile([layered(0), "OPENQASM 2.0;"], DEVICE)
    with pytest.raises(OptionError, match="level=4"):
        env.transpile(layered(0), DEVICE, level=4)
    with pytest.raises(OptionError, match="seed=-1"):
        env.transpile(layered(0), DEVICE, seed=-1)
    with pytest.raises(NotFoundError, match="no_such"):
        env.transpile(layered(0), "no_such")
    with pytest.raises(TypeError, match="no option shots"):
        env.transpile(layered(0), DEVICE, shots=3)  # type: ignore[call-arg]
    terms = TaskOptions(outputs=(VALUE,), engine=TRANSPILER)
    call = TranspileCall(CALL_FORMAT, b"", 1, 7, 17, 0, ())
    with pytest.raises(SimenvError, match="0 circuits at level 1"):
        send(env.session, PreparedSubmit(terms, [TaskSpec(codec.encode(call), 0, 0)]), None)


def test_circuit_that_cannot_be_packed_cancels_the_tasks_before_it(env: Client) -> None:
    circuits: list[Any] = [layered(number) for number in range(40)]
    circuits[39] = QuantumCircuit(2, metadata={"what": object()})
    with pytest.raises(ProgramError, match="circuit 39 cannot be written as QPY"):
        env.transpile(circuits, DEVICE, name="packing")
    deadline = time.monotonic() + PATIENCE_S
    while any(info.name == "packing" for info in env.queue()[1]):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_repeat_with_a_key_runs_nothing_again(env: Client) -> None:
    circuits = [layered(number) for number in range(40)]
    first = env.transpile(circuits, DEVICE, idempotency_key="forty")
    tasks = env.queue(done=True)[0]
    assert_same(env.transpile(circuits, DEVICE, idempotency_key="forty"), first)
    assert env.queue(done=True)[0] == tasks


def test_killed_worker_changes_nothing(live: Live) -> None:
    circuits = [layered(number) for number in range(60)]
    with live.client() as client:
        expected = client.transpile(circuits, DEVICE, level=2)
        victims = [worker.pid for worker in client.workers()][:1]
        kill = threading.Timer(0.2, os.kill, (victims[0], signal.SIGKILL))
        kill.start()
        result = client.transpile(circuits, DEVICE, level=2)
        kill.join()
        assert_same(result, expected)
