"""Parts of a circuit that nothing connects, run one after the other."""

import msgspec
import numpy as np
import pytest
from arrays import Arrays
from engine_runs import probabilities
from reference import final_state
from sparse_circuits import assert_same_odds, narrow_parts, sparse, two_rings, untouched

from simulators.circuit import ir
from simulators.circuit.passes import components
from simulators.circuit.passes.components import extract, partition
from simulators.circuit.passes.light_cone import output_support
from simulators.circuit.validation.admission import validation_error
from simulators.engine import PauliSum, Request
from simulators.errors import TooManyBranches
from simulators.execution.philox import uniforms
from simulators.simulate import counts_of, simulate
from simulators.statevector import execute
from simulators.statevector.dynamic import branches

COUNTS = ("counts",)


@pytest.mark.parametrize("dynamic", [False, True])
def test_counts_of_components_match_exact_distribution(dynamic: bool) -> None:
    shots = 20_000
    for seed in range(12):
        circuit = sparse(14, 25, seed, dynamic=dynamic)
        probs = probabilities(untouched(circuit, Request(0, 0, ("probabilities",))))
        with narrow_parts(3 if seed % 2 else 12):
            result = counts_of(simulate(circuit, shots=shots, seed=seed).row(0))
        assert sum(result.values()) == shots
        for key in probs.keys() | result.keys():
            p = probs.get(key, 0.0)
            sigma = np.sqrt(shots * p * (1 - p)) + 1e-9
            assert abs(result.get(key, 0) - shots * p) <= 5 * sigma + 1


def test_each_component_uses_documented_draw_number() -> None:
    """Draw 1 + k, of its first measurement k: numpy finds the same counts from the contract."""
    n, shots = 13, 500
    circuit = two_rings(n).circuit()
    result = counts_of(simulate(circuit, shots=shots, seed=7, binding=3).row(0))
    records = np.zeros(shots, np.int64)
    parts = extract(circuit, partition(circuit, output_support(COUNTS, (), circuit)))
    assert [part.qubits.tolist() for part in parts] == [[*range(k, 2 * n, 2)] for k in (0, 1)]
    for k, part in enumerate(parts):
        gates = part.circuit.ops.size - n
        alone = msgspec.structs.replace(
            part.circuit, ops_data=part.circuit.ops[:gates].tobytes(),
            qubits_data=part.circuit.qubits[:-n].tobytes(), clbits_data=b"",
        )  # fmt: skip
        edges = np.cumsum(np.abs(final_state(alone)) ** 2)
        draws = np.empty(shots)
        uniforms(7, 3, 1 + 6 * n + k, np.arange(shots), draws)
        index = np.searchsorted(edges, draws * edges[-1], side="right")
        for place, qubit in enumerate(part.qubits.tolist()):
            records |= (index >> place & 1) << (2 * n - 1 - qubit)
    keys, value = np.unique(records, return_counts=True)
    assert result == dict(zip(keys.tolist(), value.tolist(), strict=True))


def test_components_are_sampled_independently() -> None:
    """Of two fair bits four outcomes are alike; and so they are where parts share random numbers,
    unless these are of the same shot."""
    arrays = Arrays(26, 2)
    for first in (0, 13):
        arrays.add("h", [first])
        for q in range(first, first + 12):
            arrays.add("cx", [q, q + 1])
        arrays.add("measure", [first + 12], [first // 13])
    result = counts_of(simulate(arrays.circuit(), shots=40_000, seed=1).row(0))
    assert all(abs(result[k] - 10_000) < 5 * np.sqrt(7_500) for k in range(4))


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("most", [2, 12])
def test_counts_of_components_are_independent_of_threads_and_shot_groups(
    seed: int, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    circuit = two_rings(9).circuit() if seed == 5 else sparse(16, 40, seed, dynamic=seed > 2)
    monkeypatch.setattr(components, "SMALL_QUBITS", most)
    result = simulate(circuit, shots=3000, seed=seed).row(0)
    assert simulate(circuit, shots=3000, seed=seed, threads=3).row(0).counts == result.counts
    few = counts_of(simulate(circuit, shots=1000, seed=seed).row(0))
    assert all(few[key] <= counts_of(result)[key] for key in few)
    monkeypatch.setattr(execute, "SHOTS_AT_ONCE", 640)
    again = simulate(circuit, shots=3000, seed=seed).row(0)
    assert (again.counts, again.outcomes) == (result.counts, result.outcomes)


def test_free_parameters_are_bound_to_their_components() -> None:
    """Some are left out altogether; a plan is made once and bound to others."""
    arrays = Arrays(30, 4)
    for q in range(30):
        arrays.add("ry", [q], (), [0.0])
        arrays.free(29 - q)
    for q in range(0, 30, 2):
        arrays.add("cx", [q, q + 1])
    for k, q in enumerate((3, 2, 28, 29)):
        arrays.add("measure", [q], [k])
    circuit = arrays.circuit()
    values = np.random.default_rng(2).uniform(-3, 3, (5, 30))
    label = "I" * 26 + "ZI" + "I" * 2
    sums = (PauliSum((label,), np.ones(1)),)
    outputs = ("counts", "probabilities", "expectation")
    every = simulate(circuit, shots=200, seed=3, outputs=outputs, bindings=values, observables=sums)
    for row, own in enumerate(values):
        one, two = np.cos(own[26]), np.cos(own[27])  # of qubits 3 and 2
        assert probabilities(every.row(row))
        exact = simulate(
            circuit, shots=0, outputs=outputs[1:], bindings=values[row : row + 1], observables=sums
        ).row(0)
        assert abs(exact.expectations[0][0] - one * two) < 1e-12
        probs = probabilities(exact)
        ones = sum(p for key, p in probs.items() if key >> 1 & 1)
        assert abs(ones - (1 - two) / 2) < 1e-12
        again = simulate(
            circuit, shots=200, seed=3, outputs=outputs, bindings=values[row : row + 1],
            binding=row, observables=sums,
        )  # fmt: skip
        assert again.row(0).counts == every.row(row).counts
        assert again.row(0).expectations == every.row(row).expectations


def test_too_many_combined_outcomes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    circuit = two_rings(7).circuit()
    result = simulate(circuit, shots=0, outputs=("probabilities",)).row(0)
    assert len(probabilities(result)) == 2**14
    monkeypatch.setattr(branches, "MAX_ROWS", 2**13)
    with pytest.raises(TooManyBranches, match="8192 distinct"):
        simulate(circuit, shots=0, outputs=("probabilities",))


def test_sampled_expectations_of_components_equal_undivided_run() -> None:
    arrays = two_rings(7)
    arrays.add("ry", [0], (), [0.4]).begin((ir.CLBIT, 13, 0))
    arrays.add("rx", [2], (), [0.9]).add("end")
    sums = (PauliSum(("IIIIIIIIIZIZII", "IIIIIIIIIIIIIX"), np.array([1.0, 0.7])),)
    request = Request(500, 4, ("expectation",), sums)
    circuit = arrays.circuit()
    result = simulate(circuit, shots=500, seed=4, outputs=request.outputs, observables=sums).row(0)
    assert result.expectations == untouched(circuit, request).expectations


def test_classical_dependencies_connect_components() -> None:
    """A qubit that is flipped where another was 1: through a bit, a register, a stored bit and a
    variable."""
    for way in range(4):
        arrays = Arrays(13, 3, (("a", 1), ("b", 2)))
        arrays.add("ry", [0], (), [1.0]).add("measure", [0], [0])
        read: tuple[tuple[int, int, int], ...] = ((ir.CLBIT, 0, 0),)
        if way == 1:
            read = arrays.equals(0, 1)
        elif way == 2:
            arrays.begin((ir.CLBIT, 0, 0), (ir.SET_CLBIT, 2, 0), name="store")
            read = ((ir.CLBIT, 2, 0),)
        elif way == 3:
            number = arrays.variable(0)
            arrays.begin((ir.CLBIT, 0, 0), (ir.SET_VARIABLE, number, 0), name="store")
            read = ((ir.VARIABLE, number, 0),)
        arrays.begin(*read).add("x", [9]).add("end").add("measure", [9], [1])
        circuit = arrays.circuit()
        assert validation_error(circuit) == ""
        with narrow_parts(1):
            result = simulate(circuit, shots=0, outputs=("probabilities",)).row(0)
            assert_same_odds(result, untouched(circuit, Request(0, 0, ("probabilities",))))
            assert len(probabilities(result)) == 2
