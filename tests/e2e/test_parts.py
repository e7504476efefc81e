"""Circuits in parts: host code between them, in a live environment; restarts, limits, refusals."""

import time

import msgspec
import numpy as np
import pytest
from circuits import layered
from failing import fails
from live import PATIENCE_S, environment
from qiskit import ClassicalRegister, QuantumCircuit, QuantumRegister
from qiskit.circuit import Parameter
from qiskit.circuit.classical import expr, types

from simenv import errors
from simenv.client.client import Client
from simenv.client.submission.prepare import PreparedSubmit, prepare_one
from simenv.client.submission.send import send
from simenv.client.tasks.task import Task
from simenv.model import TaskParts

QUBITS, BITS, LAST = QuantumRegister(3, "q"), ClassicalRegister(2, "c"), ClassicalRegister(3, "m")
POOLS = [
    {"name": "main", "min": 2, "max": 2},
    {"name": "fez", "device": "fez", "min": 0, "max": 1},
    {"name": "qpu", "engine": "hardware", "provider": "machines:ideal"},
]
OPTIONS = {"pools": POOLS}


def first() -> QuantumCircuit:
    circuit = QuantumCircuit(QUBITS, BITS)
    circuit.h(0)
    circuit.cx(0, 1)
    circuit.ry(0.7, 2)
    circuit.measure(0, BITS[0])
    circuit.h(1)
    circuit.measure(1, BITS[1])
    return circuit


def correction(measured: str) -> QuantumCircuit:
    """What host code makes of two bits."""
    circuit = QuantumCircuit(QUBITS)
    circuit.ry(0.5 * int(measured, 2), 2)
    return circuit


def last() -> QuantumCircuit:
    circuit = QuantumCircuit(QUBITS, LAST)
    circuit.h(2)
    circuit.measure(QUBITS, LAST)
    return circuit


def test_program_decides_between_parts_and_state_stays_with_its_worker(env: Client) -> None:
    names = set()
    for seed in range(8):
        part = env.submit_part(first(), seed=seed)
        measured = part.measured["c"]
        names.add(measured)
        result = part.run(correction(measured), observables="ZII", shots=None)
        angle = 0.7 + 0.5 * int(measured, 2)
        assert result.expectation == pytest.approx(np.cos(angle), abs=1e-12)
        assert result.worker == part.result().worker
        assert (result.remark, result.seed) == ("1 of 1 parts from the state kept", seed)
        assert env.submit_part(first(), seed=seed).measured == part.measured
    assert len(names) > 2


def test_chain_of_parts_has_the_registers_of_all_of_them(env: Client) -> None:
    one = env.submit_part(first(), seed=5)
    two = one.submit_part(correction(one.measured["c"]))
    assert two.measured == one.measured
    three = two.submit_part(last())
    assert (three.measured["c"], three.measured["m"][1:]) == (one.measured["c"], one.measured["c"])
    result = two.run(last(), shots=500, outputs=("counts", "memory"))
    assert sum(result.counts.values()) == 500
    assert {key.split(" ")[1] for key in result.counts} == {one.measured["c"]}
    assert len(result.memory_strings()) == 500
    assert result.remark == "2 of 2 parts from the state kept"


def test_same_seed_gives_the_same_counts_from_kept_states_and_anew(env: Client) -> None:
    counts = []
    for keep_s in (60.0, 0.0):
        part = env.submit_part(first(), seed=11, precision="single", keep_s=keep_s)
        result = part.run(last(), shots=300)
        assert result.remark.startswith("1" if keep_s else "0")
        assert result.precision == "single"
        counts.append(result.counts)
    assert counts[0] == counts[1]


def test_state_is_kept_no_longer_than_asked(env: Client) -> None:
    part = env.submit_part(first(), seed=3, keep_s=0.2)
    assert part.measured
    time.sleep(1.0)
    again = part.run(correction("01"), observables="ZII", shots=None)
    assert again.remark == "0 of 1 parts from the state kept"


def test_waiting_task_gets_the_memory_of_a_kept_state(env: Client) -> None:
    """Of 1 GiB, a state of 23 qubits keeps 128 MiB; the other task is granted more than is left."""
    wide = QuantumCircuit(QuantumRegister(23, "w"), ClassicalRegister(1, "b"))
    wide.h(0)
    wide.measure(0, 0)
    large = QuantumCircuit(24)
    large.h(0)
    with environment(pools=POOLS[:1], memory_bytes=2**30) as other, other.client() as client:
        part = client.submit_part(wide, seed=2, keep_s=600.0)
        then = QuantumCircuit(wide.qregs[0])
        table = {"observables": "Z" + "I" * 22, "shots": None}
        assert part.run(then, **table).remark.startswith("1 of 1")
        task = client.submit(large, outputs="probabilities", shots=None, engine="statevector")
        assert task.result(PATIENCE_S).probabilities == pytest.approx(
            {"0" * 24: 0.5, "0" * 23 + "1": 0.5}
        )
        again = part.run(then, **table)
        assert again.remark.startswith("0 of 1")
        assert again.expectations == (1.0,)


def test_parts_without_measurement_prepare_a_state_once(env: Client) -> None:
    prepared = QuantumCircuit(QUBITS)
    prepared.ry(1.1, 2)
    part = env.submit_part(prepared)
    assert part.measured == {}
    vector = part.run(QuantumCircuit(QUBITS), outputs="statevector", shots=None).statevector
    np.testing.assert_allclose(np.abs(vector[[0, 4]]), [np.cos(0.55), np.sin(0.55)], atol=1e-12)
    assert set(part.run(last(), shots=100).counts) <= {"000", "100"}


def test_part_without_operations_changes_nothing(env: Client) -> None:
    result = env.submit_part(first(), seed=6)
    part = env.submit_part(QuantumCircuit(QUBITS), seed=6)
    assert part.measured == {}
    part = part.submit_part(QuantumCircuit(QUBITS)).submit_part(first())
    assert part.measured == result.measured
    nothing = part.submit_part(QuantumCircuit(QUBITS))
    assert nothing.measured == result.measured
    counts = [each.run(last(), shots=300).counts for each in (result, nothing)]
    assert counts[0] == counts[1]


def test_part_that_stores_bits_is_refused_before_any_part_has_measured(env: Client) -> None:
    storing = QuantumCircuit(QUBITS, BITS)
    storing.store(BITS, expr.lift(2, types.Uint(2)))
    fails(errors.ProgramError, "stores .* bits, and measures nothing", env.submit_part, storing)
    with pytest.raises(errors.ProgramError, match="stores classical bits, and measures nothing"):
        env.submit_part(QuantumCircuit(QUBITS)).submit_part(storing)
    part = env.submit_part(last(), seed=1).submit_part(storing)
    assert part.measured["c"] == "10"
    then = QuantumCircuit(QUBITS, BITS)
    with then.if_test((BITS, 2)):
        then.measure(0, BITS[0])
    assert part.submit_part(then).measured["c"][0] == "1"
    variable = QuantumCircuit(QUBITS)
    variable.add_var("own", expr.lift(1, types.Uint(2)))
    assert env.submit_part(variable).measured == {}


def test_variables_of_a_part_are_its_own_and_registers_are_of_all(env: Client) -> None:
    one = QuantumCircuit(QUBITS, BITS)
    own = one.add_var("own", expr.lift(2, types.Uint(2)))
    one.measure(0, BITS[0])
    one.store(BITS, own)
    part = env.submit_part(one)
    two = QuantumCircuit(QUBITS, BITS)
    other = expr.Var.new("own", types.Uint(2))
    two.add_uninitialized_var(other)
    two.store(other, expr.bit_or(BITS, expr.lift(1, types.Uint(2))))
    two.store(BITS, other)
    assert part.submit_part(two).measured["c"] == "11"


def test_service_restart_between_parts_changes_nothing(env: Client) -> None:
    undisturbed = env.submit_part(first(), seed=21)
    expected = undisturbed.run(last(), shots=400).counts
    with environment(pools=POOLS[:1]) as other, other.client() as client:
        part = client.submit_part(first(), seed=21)
        assert part.measured == undisturbed.measured
        other.crash()
        other.up()
        result = part.submit(last(), shots=400).result(PATIENCE_S)
        assert (result.counts, result.remark) == (expected, "0 of 1 parts from the state kept")


def test_failed_parts_say_so(env: Client) -> None:
    good = env.submit_part(first(), seed=1)
    prepared = prepare_one(first(), {"seed": 1, "ranks": 1})
    other = bytes([good.result().memory[0, 0] ^ 1])
    task = send_with(env, prepared, TaskParts((len(first().data),), 0.0, (other,)))
    caught = fails(errors.TaskFailedError, "found other outcomes", task.result, PATIENCE_S)
    assert caught.reason == "other_outcome"


def test_nothing_goes_on_from_a_cancelled_part(env: Client) -> None:
    long = env.submit(layered(24, 400, 1), shots=1)
    part = env.submit_part(first(), after=[long])
    part.cancel()
    for going_on in (part.submit, part.submit_part):
        fails(errors.TaskCancelledError, "", going_on, last())
    long.cancel()


def send_with(env: Client, prepared: PreparedSubmit, parts: TaskParts, **terms: object) -> Task:
    changed = msgspec.structs.replace(prepared.terms, parts=parts, **terms)
    return send(env.session, msgspec.structs.replace(prepared, terms=changed), None)[0]


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"engine": "stabilizer"}, errors.InfeasibleError, "'stabilizer' keeps no state"),
        ({"engine": "densitymatrix"}, errors.InfeasibleError, "'densitymatrix' keeps no state"),
        ({"engine": "mps"}, errors.InfeasibleError, "'mps' keeps no state"),
        ({"pool": "qpu"}, errors.InfeasibleError, "'hardware' keeps no state"),
        ({"pool": "fez"}, errors.OptionError, "on an emulated device or with noise"),
        ({"keep_s": 1e4}, errors.OptionError, "keep_s=10000.0"),
        ({"keep_s": -1.0}, errors.OptionError, "keep_s=-1.0"),
        ({"device": "fez"}, TypeError, "no option device"),
        ({"shots": 3}, TypeError, "no option shots"),
    ],
)
def test_parts_that_cannot_be_kept_are_refused(
    env: Client, options: dict[str, object], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        env.submit_part(first(), **options)  # type: ignore[arg-type]


def test_circuits_that_cannot_go_on_are_refused(env: Client) -> None:
    part = env.submit_part(first(), seed=2)
    fails(errors.ProgramError, "a part of 2 qubits, after one of 3", part.submit, QuantumCircuit(2))
    free = QuantumCircuit(3)
    free.rx(Parameter("x"), 0)
    for submit_part in (env.submit_part, part.submit_part):
        error = fails(errors.ProgramError, "1 parameter without a value: x", submit_part, free)
        assert "assign_parameters" in error.hint
    fails(errors.OptionError, "seed=", part.submit, last(), seed=4)
    fails(errors.OptionError, "device=", part.submit, last(), device="fez")
    with pytest.raises(errors.OptionError, match="precision="):
        part.submit_part(last(), precision="single")  # type: ignore[call-arg]
    fails(errors.SimenvError, "statevector", part.submit, last(), outputs="statevector", shots=None)


@pytest.mark.parametrize(
    ("ends", "terms", "error", "text"),
    [
        ((), {}, errors.ProgramError, "they do not follow each other"),
        ((3, 2), {}, errors.ProgramError, "they do not follow each other"),
        ((99,), {}, errors.ProgramError, "they do not follow each other"),
        ((3,), {"ranks": 2}, errors.OptionError, "over ranks = 2"),
        ((3,), {"engine": "aer"}, errors.InfeasibleError, "keeps no state"),
    ],
)
def test_service_checks_parts_that_clients_made_up(
    env: Client, ends: tuple[int, ...], terms: dict[str, object], error: type[Exception], text: str
) -> None:
    prepared = prepare_one(first(), {"seed": 1, "ranks": 1})
    fails(error, text, send_with, env, prepared, TaskParts(ends, 1.0), **terms)
