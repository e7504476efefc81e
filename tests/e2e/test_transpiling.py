"""Transpilation and detectors, through a service."""

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import stim
from emulated import DEVICE
from failing import fails
from live import with_keys
from qiskit import QuantumCircuit, transpile
from qiskit.circuit import Parameter
from waiting import until

import simenv
from simenv.client.circuits import load
from simenv.client.client import Client
from simenv.client.submission import detection
from simenv.client.submission.compiler import Compiler
from simenv.client.submission.prepare import PreparedSubmit
from simenv.client.submission.send import send
from simenv.errors import (
    BatchRefusedError,
    LimitExceededError,
    NotFoundError,
    OptionError,
    ProgramError,
    SimenvError,
    TaskFailedError,
)
from simenv.model import TaskOptions, TaskSpec, TaskState, calls
from simenv.model.options import VALUE
from simenv.transpiler import qpy
from simenv.transpiler.transpiler import Transpiler, target_of
from simenv.wire import codec
from simulators.engine import RunControl
from simulators.stabilizer.decoders import SyndromeDecoder
from simulators.stabilizer.detectors import sampled

PATIENCE_S = 120.0
OPTIONS = {"listen": "tcp://127.0.0.1:0"}


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
    assert_same(env.transpile(circuits, DEVICE), [Transpiler(info).transpiled(c) for c in circuits])
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
    circuits = [layered(number) for number in range(3)]
    with with_keys(env, tmp_path, "ana") as keys:
        far = keys["ana"]
        assert_same(far.transpile(circuits, DEVICE), env.transpile(circuits, DEVICE))
        device = codec.encode(env.device(DEVICE))
        call = calls.TranspileCall(calls.CALL_FORMAT, device, 1, 7, 99, 5, (b"no",))
        terms = TaskOptions(outputs=(VALUE,), engine=calls.TRANSPILER)
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
    fails(OptionError, "level=4", env.transpile, layered(0), DEVICE, level=4)
    fails(OptionError, "seed=-1", env.transpile, layered(0), DEVICE, seed=-1)
    fails(NotFoundError, "no_such", env.transpile, layered(0), "no_such")
    with pytest.raises(TypeError, match="no option shots"):
        env.transpile(layered(0), DEVICE, shots=3)  # type: ignore[call-arg]
    terms = TaskOptions(outputs=(VALUE,), engine=calls.TRANSPILER)
    call = calls.TranspileCall(calls.CALL_FORMAT, b"", 1, 7, 17, 0, ())
    with pytest.raises(SimenvError, match="0 circuits at level 1"):
        send(env.session, PreparedSubmit(terms, [TaskSpec(codec.encode(call), 0, 0)]), None)


def test_circuit_that_cannot_be_packed_cancels_the_tasks_before_it(env: Client) -> None:
    circuits: list[Any] = [layered(number) for number in range(40)]
    circuits[39] = QuantumCircuit(2, metadata={"what": object()})
    with pytest.raises(ProgramError, match="circuit 39 cannot be written as QPY"):
        env.transpile(circuits, DEVICE, name="packing")
    until(lambda: not any(info.name == "packing" for info in env.queue()[1]))


def test_repeat_with_a_key_runs_nothing_again(env: Client) -> None:
    circuits = [layered(number) for number in range(40)]
    first = env.transpile(circuits, DEVICE, idempotency_key="forty")
    tasks = env.queue(done=True)[0]
    assert_same(env.transpile(circuits, DEVICE, idempotency_key="forty"), first)
    assert env.queue(done=True)[0] == tasks


def test_killed_worker_changes_nothing(env: Client) -> None:
    circuits = [layered(number) for number in range(60)]
    expected = env.transpile(circuits, DEVICE, level=2)
    victims = [worker.pid for worker in env.workers()][:1]
    kill = threading.Timer(0.2, os.kill, (victims[0], signal.SIGKILL))
    kill.start()
    result = env.transpile(circuits, DEVICE, level=2)
    kill.join()
    assert_same(result, expected)


def code(distance: int = 3, rate: float = 0.01, rounds: int = 0) -> stim.Circuit:
    return stim.Circuit.generated(
        "surface_code:rotated_memory_z", distance=distance, rounds=rounds or distance,
        after_clifford_depolarization=rate, before_measure_flip_probability=rate,
    )  # fmt: skip


def test_samples_are_decoded_where_they_are(env: Client) -> None:
    circuit = code()
    task = env.submit(circuit, shots=20_000, seed=5, decoder="pymatching", name="memory")
    result: Any = task.result(PATIENCE_S)
    outcome = sampled(circuit, SyndromeDecoder("pymatching", circuit), 20_000, 5, RunControl())
    assert result.logical_errors == outcome.errors > 0
    assert result.logical_error_rate == outcome.errors / 20_000
    assert result.observable_errors.tolist() == outcome.observable_errors.tolist()
    assert np.array_equal(result.detection_counts, outcome.detections)
    assert np.array_equal(result.detection_rates, outcome.detections / 20_000)
    assert result.flip_rates.tolist() == [outcome.flips[0] / 20_000]
    assert (result.shots, result.seed, result.num_detectors) == (20_000, 5, circuit.num_detectors)
    assert result.sampler.startswith("stim ")
    assert result.decoder.startswith("pymatching ")
    assert "logical errors" in repr(result)
    with pytest.raises(OptionError, match="bits of each shot"):
        _ = result.detection_events
    value = env.task(task.id).result(PATIENCE_S).value
    assert simenv.DetectionResult(value).logical_errors == outcome.errors
    assert task.details.engine == calls.DETECTORS  # type: ignore[attr-defined]
    assert task.details.shots == 20_000  # type: ignore[attr-defined]
    assert task.name == "memory"


def test_bits_of_each_shot_come_back_where_they_are_asked_for(env: Client) -> None:
    circuit = code()
    result: Any = env.run(circuit, shots=300_000, seed=5, outputs="memory", engine=calls.DETECTORS)
    outcome = sampled(circuit, None, 300_000, 5, RunControl(), keep=True)
    assert np.array_equal(result.detection_events, outcome.events)
    assert np.array_equal(result.observable_flips, outcome.observable_flips)
    for name in ("logical_errors", "predictions", "observable_errors"):
        fails(OptionError, "not decoded", getattr, result, name)
    few: Any = env.run(circuit, shots=10, seed=5, outputs="memory", decoder="pymatching")
    assert np.array_equal(few.detection_events, outcome.events[:10])
    assert few.predictions.shape == (10, 1)


def test_thousands_of_qubits_and_a_million_shots_stay_within_blocks(env: Client) -> None:
    circuit = stim.Circuit.generated(
        "repetition_code:memory", distance=1_001, rounds=20, after_clifford_depolarization=1e-3
    )
    assert circuit.num_qubits == 2_001
    result: Any = env.run(circuit, shots=2_000, seed=1)
    assert result.detection_rates.shape == (20_000 + 1_000,)
    assert 0 < result.detection_rates.mean() < 0.02
    worker = env.workers()[0]
    before = _peak_bytes(worker.pid)
    env.run(code(), shots=1_000_000, seed=1)
    assert _peak_bytes(worker.pid) - before < 100 * 2**20


def _peak_bytes(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith("VmHWM")).split()[1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"decoder": "bposd"}, "no decoder .bposd."),
        ({"shots": None}, "need shots"),
        ({"noise": "off"}, "noise= of a circuit of stim"),
        ({"observables": "ZZ"}, "observables= of a circuit of stim"),
        ({"parameter_values": np.zeros(2)}, "parameter_values= of a circuit of stim"),
        ({"outputs": "statevector"}, "outputs .* of a circuit of stim"),
        ({"engine": "statevector"}, "samples no detectors"),
        ({"precision": "single"}, "precision= of a circuit of stim"),
    ],
)
def test_options_of_others_are_refused(env: Client, options: dict[str, Any], message: str) -> None:
    fails(OptionError, message, env.submit, code(), **options)


def test_other_ways_to_submit_name_this_one(env: Client) -> None:
    fails(BatchRefusedError, "no circuit", env.submit_many, [code()])
    fails(ProgramError, "goes to `submit` or `run`", env.post, code())
    with pytest.raises(OptionError, match="decoder='pymatching'"):
        env.submit("OPENQASM 2.0; qreg q[1];", decoder="pymatching")


def test_circuits_beyond_a_limit_are_refused(env: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    for text, error, message in (
        ("H 0\nM 0", ProgramError, "no DETECTOR and no OBSERVABLE_INCLUDE"),
        ("M 70000\nDETECTOR rec[-1]", LimitExceededError, "70001 qubits; the limit is 65535"),
        ("REPEAT 2000000 {\nM 0\nDETECTOR rec[-1]\n}", LimitExceededError, "2000000 detectors"),
        ("M 0\nDETECTOR rec[-1]\nREPEAT 900000000 {\nH 0\n}", LimitExceededError, "operations"),
        ("M 0\nOBSERVABLE_INCLUDE(5000) rec[-1]", LimitExceededError, "5001 observables"),
        ("M 0\nDETECTOR rec[-1]\n" + "REPEAT 2 {\nH 0\n}\n" * 1_001, LimitExceededError, "REPEAT"),
    ):
        fails(error, message, env.submit, stim.Circuit(text))
    with pytest.raises(LimitExceededError, match=r"at most .* shots a task"):
        env.submit(code(), shots=100_000_000, outputs="memory")
    monkeypatch.setattr(calls, "MAX_TEXT_BYTES", 100)
    fails(LimitExceededError, "text of the circuit", env.submit, code())
    monkeypatch.undo()
    random = stim.Circuit("H 0\nM 0\nDETECTOR rec[-1]")
    fails(ProgramError, "not deterministic", env.submit, random, decoder="pymatching")
    monkeypatch.setattr(detection, "CHECKED_OPERATIONS", 0)  # as of a large circuit
    with pytest.raises(TaskFailedError, match="not deterministic without noise"):
        env.run(random, decoder="pymatching")


def test_worker_refuses_what_a_client_says_wrongly(env: Client, tmp_path: Path) -> None:
    terms = TaskOptions(outputs=(VALUE,), engine=calls.DETECTORS)
    honest = calls.sizes_of(code())
    fewer = msgspec.structs.replace(honest, operations=1)
    with with_keys(env, tmp_path, "ana") as keys:
        far = keys["ana"]
        assert far.run(code(), shots=10, seed=1).shots == 10
        for text, message in ((str(code()), "it came with"), ("H rec[-1]", "stim cannot read")):
            call = calls.DetectionCall(calls.CALL_FORMAT, text, "", False, fewer)
            order = PreparedSubmit(terms, [TaskSpec(codec.encode(call), 10, 1)], single=True)
            task = send(far.session, order, None)[0]
            assert fails(TaskFailedError, message, task.result, PATIENCE_S).reason == "program"
        huge = calls.DetectionCall(
            calls.CALL_FORMAT, "", "", False, msgspec.structs.replace(honest, qubits=10**6)
        )
        order = PreparedSubmit(terms, [TaskSpec(codec.encode(huge), 10, 1)], single=True)
        fails(LimitExceededError, "1000000 qubits", send, far.session, order, None)


def test_killed_worker_leaves_the_same_answer() -> None:
    circuit = code(5, 0.008)
    shots = 400_000
    with simenv.local(workers=1) as client:
        task = client.submit(circuit, shots=shots, seed=11, decoder="pymatching")
        until(lambda: client.tasks([task])[0].state is TaskState.RUNNING)
        time.sleep(0.3)
        os.kill(client.workers()[0].pid, signal.SIGKILL)
        result: Any = task.result(PATIENCE_S)
        assert task.details.attempts == 2  # type: ignore[attr-defined]
    outcome = sampled(circuit, SyndromeDecoder("pymatching", circuit), shots, 11, RunControl())
    assert result.logical_errors == outcome.errors
    assert np.array_equal(result.detection_counts, outcome.detections)


def test_decoding_is_cancelled_between_blocks(env: Client) -> None:
    task = env.submit(code(7, 0.02), shots=2_000_000_000, seed=1, decoder="pymatching")
    until(lambda: env.tasks([task])[0].state is TaskState.RUNNING)
    pid = env.workers()[0].pid
    task.cancel()
    assert task.wait(timeout_s=PATIENCE_S) is TaskState.CANCELLED
    assert env.run(code(), shots=10, seed=1).shots == 10
    assert env.workers()[0].pid == pid
