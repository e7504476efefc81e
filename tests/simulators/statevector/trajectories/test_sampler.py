"""An instance finds what a run of its circuit, with its inserts written in, would find."""

from itertools import pairwise

import msgspec
import numpy as np
import patterned
import pytest
import reference
from arrays import Arrays
from failing import fails
from hypothesis import given, settings, strategies as st
from numpy.typing import NDArray
from random_circuits import unitary_circuits
from scipy.stats import chisquare

from simulators.circuit.ir import Circuit
from simulators.engine import Request, RunControl, RunOptions
from simulators.errors import BadCircuit, Stopped, Unsupported
from simulators.execution.requests import bind
from simulators.statevector.trajectories.walks import TrajectorySampler
from simulators.trajectories.noise_table import PAULI, ErrorPatterns, NoiseTable, operators

KEY = (7, 3)


def _layers(num_qubits: int, layers: int, random: np.random.Generator) -> Arrays:
    arrays = Arrays(num_qubits, 0)
    for layer in range(layers):
        for qubit in range(num_qubits):
            arrays.add("u", [qubit], (), random.uniform(0, 6, 3).tolist())
        for qubit in range(layer % 2, num_qubits - 1, 2):
            name = ("cx", "cz", "swap")[int(random.integers(3))]
            arrays.add(name, [qubit, qubit + 1])
        arrays.add("barrier", range(num_qubits))
        arrays.add("rzz", [0, num_qubits - 1], (), [0.3])
    return arrays


def _agree(circuit: Circuit, seed: int, *, precision: str = "double", count: int = 30) -> None:
    options = RunOptions(precision=precision)
    random = np.random.default_rng(seed)
    inserts, sets = patterned.made(circuit, count, random, drawn=False)
    patterns = patterned.patterns(count, 25, 2.5, random)
    sampler = TrajectorySampler(circuit, inserts, options)
    result = patterned.run(sampler, patterns, seed=KEY[0], binding=KEY[1], first=9)
    for k, (first, last) in enumerate(pairwise(patterns.ends.tolist())):
        members = patterns.entries[first:last].tolist()
        alone = patterned.written(circuit, inserts, sets, members)
        assert result.indices[0, k] == patterned.run_alone(alone, KEY, 9 + k, precision)
    assert result.operations >= result.least


@settings(max_examples=40, deadline=None)
@given(unitary_circuits(1, 6), st.integers(0, 2**32))
def test_small_trajectories_equal_circuits_with_errors(circuit: Circuit, seed: int) -> None:
    _agree(circuit, seed)


@pytest.mark.parametrize("precision", ["double", "single"])
@pytest.mark.parametrize("num_qubits", [13, 15])
def test_large_trajectories_equal_circuits_with_errors(num_qubits: int, precision: str) -> None:
    random = np.random.default_rng(num_qubits)
    _agree(_layers(num_qubits, 4, random).circuit(), 5, precision=precision)


def test_trajectories_apply_large_unitary_matrices() -> None:
    random = np.random.default_rng(2)
    for num_qubits in (6, 13):
        arrays = _layers(num_qubits, 1, random)
        arrays.unitary(patterned.unitary(32, random), [5, 0, 3, 2, 4])
        arrays.unitary(patterned.unitary(4, random), [1, 5])
        arrays.add("h", [3])
        _agree(arrays.circuit(), 4, count=60)


def _mixed(circuit: Circuit, inserts: NoiseTable, sets: list, members: list[int]) -> NDArray:
    """The exact distribution, from a density matrix; channels as sums over their operators."""
    n = circuit.num_qubits
    empty = NoiseTable(inserts.table, inserts.operators)
    rho = np.zeros((2**n, 2**n), complex)
    rho[0, 0] = 1

    def both(matrix: NDArray, qubits: list[int], rho: NDArray) -> NDArray:
        left = np.array([reference.apply(row, matrix, tuple(qubits)) for row in rho.T]).T
        return np.array([reference.apply(row, matrix.conj(), tuple(qubits)) for row in left])

    plain = patterned.written(circuit, empty, sets, [])
    q = p = 0
    for k in range(-1, plain.ops.size):
        if k >= 0:
            row = int(plain.ops[k])
            _, count, _, params = plain.table.rows[row].tolist()
            wires, name = plain.qubits[q : q + count].tolist(), plain.table.names[row]
            if name != "barrier":
                angles = tuple(plain.params[p : p + params].tolist())
                rho = both(reference.matrix(name, angles, count), wires, rho)
            q, p = q + count, p + params
        for member in members:
            after, which, x, z, one, two = inserts.table[member].tolist()
            if after == k and which == PAULI:
                for qubit in range(n):
                    bits = (x >> qubit & 1) + 2 * (z >> qubit & 1)
                    if bits:
                        rho = both(reference.matrix("_xzy"[bits], (), 1), [qubit], rho)
            elif after == k:
                wires = [one] if two < 0 else [one, two]
                rho = sum(both(operator, wires, rho) for operator in sets[which])
    return np.diag(rho).real


def test_trajectory_distribution_matches_density_matrix() -> None:
    """The oracle of the others is the engine; here it is plain numpy."""
    random = np.random.default_rng(4)
    circuit = _layers(4, 2, random).circuit()
    inserts, sets = patterned.made(circuit, 6, random, drawn=False)
    shots = 20_000
    members = [0, 2, 3, 5]
    patterns = ErrorPatterns(np.tile(members, shots), np.arange(shots + 1) * len(members))
    result = patterned.run(TrajectorySampler(circuit, inserts, RunOptions()), patterns, seed=1)
    order = sorted(members, key=lambda m: int(inserts.table[m, 0]))
    counts = np.bincount(result.indices[0], minlength=16)
    probs = _mixed(circuit, inserts, sets, order)
    assert chisquare(counts, shots * probs).pvalue > 1e-3


@pytest.mark.parametrize(("seed", "small"), [(1, True), (2, True), (3, True), (4, False)])
def test_kraus_channel_distribution_matches_density_matrix(seed: int, small: bool) -> None:
    random = np.random.default_rng(seed)
    n = 5 if small else 9
    circuit = _layers(n, 2, random).circuit()
    inserts, sets = patterned.made(circuit, 12, random, drawn=True)
    inserts.table[:4, 1] = 3, 4, 3, 4  # channels on one qubit, whatever chance had
    inserts.table[:4, 5] = -1
    members = list(range(12))
    shots = 20_000 if small else 1_000
    patterns = ErrorPatterns(np.tile(members, shots), np.arange(shots + 1) * 12)
    sampler = TrajectorySampler(circuit, inserts, RunOptions(), small=small)
    result = patterned.run(sampler, patterns, seed=seed)
    order = sorted(members, key=lambda m: int(inserts.table[m, 0]))
    exact = _mixed(circuit, inserts, sets, order)
    value = 5  # qubits that are compared
    probs = exact.reshape(-1, 1 << value).sum(axis=0)
    counts = np.bincount(result.indices[0] & ((1 << value) - 1), minlength=1 << value)
    likely = probs * shots > 5
    rest = [counts[~likely].sum()], [probs[~likely].sum() * shots]
    entries = np.append(counts[likely], rest[0]), np.append(probs[likely] * shots, rest[1])
    used = entries[1] > 1e-9
    assert (
        chisquare(entries[0][used], entries[1][used] * entries[0].sum() / entries[1].sum()).pvalue
        > 1e-3
    )


@pytest.mark.parametrize("num_qubits", [6, 13])
def test_trajectory_outcome_is_independent_of_batch_states_and_threads(num_qubits: int) -> None:
    random = np.random.default_rng(8)
    circuit = _layers(num_qubits, 3, random).circuit()
    inserts, _ = patterned.made(circuit, 20, random, drawn=True)
    value = 700 if num_qubits < 13 else 60
    patterns = patterned.patterns(20, value, 2.0, random)
    every = TrajectorySampler(circuit, inserts, RunOptions())
    outcome = patterned.run(every, patterns, seed=5, first=4)
    for cap in (1, 2, 3):
        again = patterned.run(every, patterns, seed=5, first=4, most_states=cap)
        np.testing.assert_array_equal(again.indices, outcome.indices)
        assert again.states <= cap
    several = TrajectorySampler(circuit, inserts, RunOptions(threads=3))
    threads = patterned.run(several, patterns, seed=5, first=4, threads=3)
    np.testing.assert_array_equal(threads.indices, outcome.indices)
    for first in range(0, value, 23):
        ends = patterns.ends[first : first + 24]
        part = ErrorPatterns(patterns.entries[ends[0] : ends[-1]], ends - ends[0])
        result = patterned.run(every, part, seed=5, first=4 + first)
        np.testing.assert_array_equal(result.indices[0], outcome.indices[0, first : first + 23])


@pytest.mark.parametrize("num_qubits", [4, 13])
def test_trajectories_of_each_binding_equal_bound_circuit(num_qubits: int) -> None:
    random = np.random.default_rng(3)
    arrays = _layers(num_qubits, 1, random)
    for qubit in range(num_qubits):
        arrays.add("ry", [qubit], (), [0.0])
        arrays.free(qubit % 3)
    arrays.add("cx", [0, num_qubits - 1])
    circuit = arrays.circuit()
    inserts, sets = patterned.made(circuit, 10, random, drawn=False)
    patterns = patterned.patterns(10, 8, 2.0, random)
    table = random.uniform(0, 3, (3, 3))
    request = Request(1, 2, bindings=table)
    rows = [bind(circuit, request, row) for row in range(len(table))]
    sampler = TrajectorySampler(circuit, inserts, RunOptions())
    result = patterned.run(sampler, patterns, seed=2, binding=40, params=rows)
    for row, params in enumerate(rows):
        bound = msgspec.structs.replace(
            circuit, params_data=params.tobytes(), slots_data=b"", num_slots=0
        )
        for k, (first, last) in enumerate(pairwise(patterns.ends.tolist())):
            alone = patterned.written(bound, inserts, sets, patterns.entries[first:last].tolist())
            assert result.indices[row, k] == patterned.run_alone(alone, (2, 40 + row), k)


def test_trajectory_outcomes_are_written_to_their_clbits() -> None:
    circuit = Arrays(3, 4).add("x", [0]).add("measure", [0], [2]).add("measure", [1], [0]).circuit()
    inserts = NoiseTable(np.array([(0, PAULI, 2, 0, 0, 0)]), operators([]))
    sampler = TrajectorySampler(circuit, inserts, RunOptions())
    result = patterned.run(sampler, ErrorPatterns(np.array([0]), np.array([0, 0, 1])), seed=0)
    assert result.records()[:, 0].tolist() == [0b0100, 0b0101]


def test_invalid_operators_and_circuits_are_refused() -> None:
    measured = Arrays(2, 1).add("h", [0]).add("measure", [0], [0]).circuit()
    with pytest.raises(Unsupported, match="0 threads"):
        TrajectorySampler(
            measured, NoiseTable(np.zeros((0, 6), np.int64), operators([])), RunOptions(threads=0)
        )
    again = Arrays(1, 1).add("measure", [0], [0]).add("h", [0]).circuit()
    with pytest.raises(Unsupported, match="branches"):
        TrajectorySampler(
            again, NoiseTable(np.zeros((0, 6), np.int64), operators([])), RunOptions()
        )
    fails(BadCircuit, "no trace", operators, [[np.eye(2) * 0.9]])
    fails(BadCircuit, "2x2", operators, [[np.eye(8)]])
    fails(BadCircuit, "1025 operators", operators, [[np.eye(2)] * 1025])


@pytest.mark.parametrize("num_qubits", [5, 13])
def test_stop_is_honoured_by_trajectory_sampler(num_qubits: int) -> None:
    circuit = _layers(num_qubits, 2, np.random.default_rng(0)).circuit()
    control = RunControl()
    control.stop()
    instances = TrajectorySampler(
        circuit, NoiseTable(np.zeros((0, 6), np.int64), operators([])), RunOptions()
    )
    with pytest.raises(Stopped):
        patterned.run(
            instances, ErrorPatterns(np.zeros(0, np.int64), np.zeros(4, np.int64)), seed=1,
            control=control,
        )  # fmt: skip
