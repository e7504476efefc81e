"""Shots with values of their own for free parameters: each has the outcome of a run in which all
shots have its values."""

import msgspec
import numpy as np
import pytest
from arrays import Arrays

from noise_models.channel import depolarizing, relaxation
from simulators.circuit.noise import NoiseProgram
from simulators.engine import EngineResult, PauliSum, Request, RunControl, RunOptions, ShotValues
from simulators.statevector.engine import StatevectorEngine

SHOTS, SETS, COLUMNS = 400, 7, 2


def noisy_circuit(num_qubits: int, *, drawn: bool) -> tuple[Arrays, NoiseProgram]:
    """Three layers of rotations with free angles and of CX, with an error after each gate; `drawn`:
    some are drawn from the state."""
    arrays, rows = Arrays(num_qubits, num_qubits), []
    slot = 0
    for layer in range(3):
        for qubit in range(num_qubits):
            for name in ("sx", "rz", "ry"):
                if name == "sx":
                    arrays.add(name, [qubit])
                else:
                    arrays.slots.append((len(arrays.params), slot))
                    arrays.add(name, [qubit], (), [0.0])
                    slot += 1
                rows.append((len(arrays.ops) - 1, 0, qubit, -1))
        for qubit in range(layer % 2, num_qubits - 1, 2):
            arrays.add("cx", [qubit, qubit + 1])
            rows.append((len(arrays.ops) - 1, 1, qubit, qubit + 1))
    arrays.num_slots = slot
    one = depolarizing(0.01, 1)
    if drawn:
        one = one.then(relaxation(50.0, 2.0, 3.0))
    channels = (one, depolarizing(0.02, 2))
    noise = NoiseProgram(b"", frozenset({"kraus", "pauli"}), np.array(rows, np.int64), channels)
    return arrays, noise


def shot_values(num_slots: int) -> ShotValues:
    """Random values of every third slot."""
    random = np.random.default_rng(5)
    slots = np.arange(0, num_slots, 3)
    return ShotValues(
        random.normal(size=(SETS, COLUMNS)), random.integers(0, SETS, SHOTS), slots,
        random.integers(0, COLUMNS, slots.size), random.uniform(0.5, 2.0, slots.size),
    )  # fmt: skip


def memory(result: EngineResult) -> np.ndarray:
    return np.frombuffer(result.memory, np.uint8).reshape(SHOTS, -1)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize(
    ("num_qubits", "small", "drawn"), [(3, True, True), (9, True, False), (9, False, True)]
)
def test_each_shot_has_the_outcome_of_a_run_with_its_values(
    num_qubits: int, small: bool, drawn: bool, threads: int
) -> None:
    arrays, noise = noisy_circuit(num_qubits, drawn=drawn)
    circuit = arrays.measure(range(num_qubits)).circuit()
    values, options = shot_values(circuit.num_slots), RunOptions(threads=threads)
    base = np.random.default_rng(6).normal(size=(1, circuit.num_slots))
    engine = StatevectorEngine(small=small)
    plan = engine.plan(circuit, noise, options)
    request = Request(SHOTS, 3, ("memory",), bindings=base, shot_values=values)
    assert engine.takes_shot_values(plan, circuit, request, options)
    joint = memory(engine.run(plan, circuit, request, options, RunControl()))
    for number in range(SETS):
        bound = base.copy()
        bound[0, values.slots] = values.factors * values.values[number, values.columns]
        own = Request(SHOTS, 3, ("memory",), bindings=bound)
        alone = memory(engine.run(plan, circuit, own, options, RunControl()))
        mine = values.set_of == number
        np.testing.assert_array_equal(joint[mine], alone[mine])
        assert (joint[~mine] != alone[~mine]).any()  # the values matter


def test_means_are_over_shots_with_their_values() -> None:
    """Two assignments of two sets that swap them have the sum of the means of either set alone."""
    arrays, noise = noisy_circuit(3, drawn=True)
    circuit = arrays.circuit()
    values, options = shot_values(circuit.num_slots), RunOptions()
    base = np.random.default_rng(6).normal(size=(1, circuit.num_slots))
    sums = (PauliSum(("ZII", "IXY"), np.array([1.0, 0.5])),)
    engine = StatevectorEngine()
    plan = engine.plan(circuit, noise, options)

    def mean(set_of: np.ndarray) -> float:
        given = msgspec.structs.replace(values, set_of=set_of)
        request = Request(SHOTS, 3, ("expectation",), sums, base, shot_values=given)
        row = engine.run(plan, circuit, request, options, RunControl()).row(0)
        return row.expectations[0][0]

    first = values.set_of % 2
    alone = mean(np.zeros(SHOTS, np.int64)), mean(np.ones(SHOTS, np.int64))
    assert abs(alone[0] - alone[1]) > 0.01
    assert mean(first) + mean(1 - first) == pytest.approx(sum(alone), abs=1e-12)
