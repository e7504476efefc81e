"""What is left out of a circuit, and where it is cut: no answer is another."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import msgspec
import numpy as np
import pytest
from arrays import Arrays
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import final_state
from sparse_circuits import sparse, strings, untouched

from simulators.base import BindingResult, Control, PauliSum, Request, RunOptions
from simulators.circuit import reduced
from simulators.circuit import tokens as tk
from simulators.circuit.asked import asked
from simulators.circuit.check import problem
from simulators.circuit.ir import Circuit
from simulators.circuit.reduced import WHOLE, cut, split
from simulators.errors import TooManyBranches, Unsupported
from simulators.philox import uniforms
from simulators.sampling import unpack
from simulators.simulate import counts_of, simulate
from simulators.statevector import apart, run
from simulators.statevector.engine import StatevectorEngine

QUIET = settings(derandomize=True, deadline=None, max_examples=120)
COUNTS = ("counts",)


def distribution(found: BindingResult) -> dict[int, float]:
    keys = unpack(found.probability_outcomes, found.probability_width)
    assert keys == sorted(set(keys))
    return dict(zip(keys, np.frombuffer(found.probabilities).tolist(), strict=True))


def assert_same_odds(one: BindingResult, two: BindingResult) -> None:
    left, right = distribution(one), distribution(two)
    for key in left.keys() | right.keys():
        assert abs(left.get(key, 0.0) - right.get(key, 0.0)) < 1e-12


@contextmanager
def narrow_parts(most: int) -> Iterator[None]:
    """Qubits share a part if it has no more: circuits fall into many."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reduced, "SMALL_QUBITS", most)
        yield


@QUIET
@given(
    seed=st.integers(0, 2**32),
    n=st.integers(13, 15),
    many=st.integers(0, 40),
    dynamic=st.booleans(),
    most=st.sampled_from([1, 3, 12]),
)
def test_another_distribution_without_what_is_left_out(
    seed: int, n: int, many: int, dynamic: bool, most: int
) -> None:
    circuit = sparse(n, many, seed, dynamic=dynamic)
    assert problem(circuit) == ""
    sums = strings(circuit, 6, seed)
    outputs = ("probabilities", "expectation")
    expected = untouched(circuit, Request(0, 0, outputs, sums))
    with narrow_parts(most):
        for part in cut(circuit, split(circuit, asked(COUNTS, (), circuit))):
            assert problem(part.circuit) == ""
        found = simulate(circuit, shots=0, outputs=outputs, observables=sums).row(0)
        alone = simulate(circuit, shots=0, outputs=outputs[:1]).row(0)
        means = simulate(circuit, shots=0, outputs=outputs[1:], observables=sums).row(0)
    assert_same_odds(found, expected)
    assert_same_odds(alone, expected)
    np.testing.assert_allclose(found.expectations, expected.expectations, atol=1e-12)
    np.testing.assert_allclose(means.expectations, expected.expectations, atol=1e-12)


@pytest.mark.parametrize("dynamic", [False, True])
def test_counts_are_of_another_distribution(dynamic: bool) -> None:
    shots = 20_000
    for seed in range(12):
        circuit = sparse(14, 25, seed, dynamic=dynamic)
        odds = distribution(untouched(circuit, Request(0, 0, ("probabilities",))))
        with narrow_parts(3 if seed % 2 else 12):
            seen = counts_of(simulate(circuit, shots=shots, seed=seed).row(0))
        assert sum(seen.values()) == shots
        for key in odds.keys() | seen.keys():
            p = odds.get(key, 0.0)
            sigma = np.sqrt(shots * p * (1 - p)) + 1e-9
            assert abs(seen.get(key, 0) - shots * p) <= 5 * sigma + 1


def two_rings(n: int) -> Arrays:
    """Two times n qubits in turn, which nothing connects: all measured."""
    arrays = Arrays(2 * n, 2 * n)
    for q in range(2 * n):
        arrays.add("ry", [q], (), [0.3 + 0.2 * q])
    for q in range(2 * n):
        arrays.add("cx", [q, (q + 2) % (2 * n)])
        arrays.add("ry", [q], (), [1.1])
    for q in range(2 * n):
        arrays.add("measure", [q], [2 * n - 1 - q])
    return arrays


def test_a_part_takes_other_random_numbers_than_it_should() -> None:
    """Draw 1 + k, of its first measurement k: numpy finds the same counts from the contract."""
    n, shots = 13, 500
    circuit = two_rings(n).circuit()
    found = counts_of(simulate(circuit, shots=shots, seed=7, binding=3).row(0))
    records = np.zeros(shots, np.int64)
    parts = cut(circuit, split(circuit, asked(COUNTS, (), circuit)))
    assert [part.qubits.tolist() for part in parts] == [[*range(k, 2 * n, 2)] for k in (0, 1)]
    for k, part in enumerate(parts):
        gates = part.circuit.ops.size - n
        alone = msgspec.structs.replace(
            part.circuit,
            ops_data=part.circuit.ops[:gates].tobytes(),
            qubits_data=part.circuit.qubits[:-n].tobytes(),
            clbits_data=b"",
        )
        edges = np.cumsum(np.abs(final_state(alone)) ** 2)
        draws = np.empty(shots)
        uniforms(7, 3, 1 + 6 * n + k, np.arange(shots), draws)
        index = np.searchsorted(edges, draws * edges[-1], side="right")
        for place, qubit in enumerate(part.qubits.tolist()):
            records |= (index >> place & 1) << (2 * n - 1 - qubit)
    keys, many = np.unique(records, return_counts=True)
    assert found == dict(zip(keys.tolist(), many.tolist(), strict=True))


def test_parts_are_measured_alike_in_each_shot() -> None:
    """Of two fair bits four outcomes are alike; and so they are where parts share random numbers,
    unless these are of the same shot."""
    arrays = Arrays(26, 2)
    for first in (0, 13):
        arrays.add("h", [first])
        for q in range(first, first + 12):
            arrays.add("cx", [q, q + 1])
        arrays.add("measure", [first + 12], [first // 13])
    found = counts_of(simulate(arrays.circuit(), shots=40_000, seed=1).row(0))
    assert all(abs(found[k] - 10_000) < 5 * np.sqrt(7_500) for k in range(4))


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("most", [2, 12])
def test_threads_groups_or_batches_change_counts(
    seed: int, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    circuit = two_rings(9).circuit() if seed == 5 else sparse(16, 40, seed, dynamic=seed > 2)
    monkeypatch.setattr(reduced, "SMALL_QUBITS", most)
    one = simulate(circuit, shots=3000, seed=seed).row(0)
    assert simulate(circuit, shots=3000, seed=seed, threads=3).row(0).counts == one.counts
    few = counts_of(simulate(circuit, shots=1000, seed=seed).row(0))
    assert all(few[key] <= counts_of(one)[key] for key in few)
    monkeypatch.setattr(run, "SHOTS_AT_ONCE", 640)
    again = simulate(circuit, shots=3000, seed=seed).row(0)
    assert (again.counts, again.outcomes) == (one.counts, one.outcomes)


def test_free_parameters_are_those_of_other_parts() -> None:
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
        assert distribution(every.row(row))
        exact = simulate(
            circuit, shots=0, outputs=outputs[1:], bindings=values[row : row + 1], observables=sums
        ).row(0)
        assert abs(exact.expectations[0][0] - one * two) < 1e-12
        odds = distribution(exact)
        ones = sum(p for key, p in odds.items() if key >> 1 & 1)
        assert abs(ones - (1 - two) / 2) < 1e-12
        again = simulate(
            circuit, shots=200, seed=3, outputs=outputs, bindings=values[row : row + 1],
            binding=row, observables=sums,
        )  # fmt: skip
        assert again.row(0).counts == every.row(row).counts
        assert again.row(0).expectations == every.row(row).expectations


def test_a_gradient_is_another_without_what_is_left_out() -> None:
    arrays = Arrays(15, 0)
    for q in range(15):
        arrays.add("ry", [q], (), [0.0])
        arrays.free(q)
    for q in range(3):
        arrays.add("cx", [q, q + 1]).add("rz", [q + 1], (), [0.0])
        arrays.free(15 + q)
    values = np.random.default_rng(1).uniform(-3, 3, (1, 18))
    sums = (PauliSum(("I" * 11 + "ZIII", "I" * 14 + "X"), np.array([1.0, 0.5])),)
    request = Request(0, 0, ("expectation", "gradient"), sums, values)
    engine, options = StatevectorEngine(), RunOptions()
    circuit = arrays.circuit()
    found = engine.run(engine.plan(circuit, None, options), circuit, request, options, Control())
    assert len(cut(circuit, split(circuit, asked(request.outputs, sums[0].labels, circuit)))) == 1
    gradient = found.row(0).gradients
    assert gradient is not None
    step = 1e-5
    for slot in range(18):
        near = []
        for sign in (1, -1):
            moved = values.copy()
            moved[0, slot] += sign * step
            near.append(
                simulate(
                    circuit, shots=0, outputs=("expectation",), observables=sums, bindings=moved
                ).row(0)
            )
        slope = (near[0].expectations[0][0] - near[1].expectations[0][0]) / (2 * step)
        assert abs(gradient[0, slot] - slope) < 1e-8


def ladder(n: int, measured: list[int]) -> Circuit:
    """Layers of turns and of neighbours' phases, so that a bit depends on some near ones."""
    arrays = Arrays(n, len(measured))
    for layer in range(3):
        for q in range(n):
            arrays.add("rx", [q], (), [0.3 + q + layer])
        for q in range(n - 1):
            arrays.add("cz", [q, q + 1])
    for k, q in enumerate(measured):
        arrays.add("measure", [q], [k])
    return arrays.circuit()


def test_a_small_part_of_many_qubits_is_not_run() -> None:
    for n in (40, 500):
        circuit = ladder(n, [20])
        (part,) = cut(circuit, split(circuit, asked(COUNTS, (), circuit)))
        assert part.qubits.tolist() == [18, 19, 20, 21, 22]  # the last phases are not seen
        near = ladder(5, [2])
        angles = circuit.params.reshape(3, n)[:, 18:23]
        near = msgspec.structs.replace(near, params_data=np.ascontiguousarray(angles).tobytes())
        odds = distribution(simulate(near, shots=0, outputs=("probabilities",)).row(0))
        found = distribution(simulate(circuit, shots=0, outputs=("probabilities",)).row(0))
        assert found == pytest.approx(odds, abs=1e-12)
        counts = counts_of(simulate(circuit, shots=100_000, seed=2).row(0))
        assert abs(counts[1] - 100_000 * odds[1]) < 5 * np.sqrt(100_000 * odds[1] * odds[0])


def test_what_is_left_is_still_too_wide() -> None:
    engine = StatevectorEngine()
    circuit = ladder(60, [*range(60)])
    plan = engine.plan(circuit, None, RunOptions())
    with pytest.raises(Unsupported, match="60 qubits"):
        engine.run(plan, circuit, Request(1, 0), RunOptions(), Control())
    request = Request(0, 0, ("statevector",))
    with pytest.raises(Unsupported, match="60 qubits"):
        engine.run(plan, ladder(60, []), request, RunOptions(), Control())


def test_what_has_no_answer_has_one_where_something_is_left_out() -> None:
    circuit = ladder(14, [3])
    for label, text in (("I" * 10 + "XIII", "asks for X or Y on qubit 3"), ("Z", "Pauli string")):
        with pytest.raises(Unsupported, match=text) as caught:
            simulate(
                circuit,
                shots=0,
                outputs=("expectation",),
                observables=(PauliSum((label,), np.ones(1)),),
            )
        assert label in caught.value.message
    with pytest.raises(Unsupported, match="0 shots"):
        simulate(circuit, shots=0)
    with pytest.raises(Unsupported, match="measures nothing"):
        simulate(ladder(14, []), shots=5)
    with pytest.raises(Unsupported, match="0 shots"):
        simulate(two_rings(8).circuit(), shots=0)


def test_too_many_records_of_parts_are_given(monkeypatch: pytest.MonkeyPatch) -> None:
    circuit = two_rings(7).circuit()
    found = simulate(circuit, shots=0, outputs=("probabilities",)).row(0)
    assert len(distribution(found)) == 2**14
    monkeypatch.setattr(apart, "MAX_ROWS", 2**13)
    with pytest.raises(TooManyBranches, match="8192 distinct"):
        simulate(circuit, shots=0, outputs=("probabilities",))


def test_less_is_left_out_than_could_be() -> None:
    twice = Arrays(13, 1)
    for q in (3, 4):
        twice.add("h", [q]).add("cx", [q, q + 4]).add("measure", [q + 4], [0])
    cleared = Arrays(13, 1).add("h", [4]).add("cx", [4, 5]).add("reset", [5]).add("x", [5])
    cleared.add("measure", [5], [0])
    turned = Arrays(13, 2).add("h", [0]).add("cx", [0, 1]).add("cz", [1, 2])
    turned.add("crx", [1, 3], (), [0.3])
    turned.add("swap", [1, 2]).add("t", [2]).add("measure", [2], [0]).add("measure", [0], [1])
    for arrays, qubits, names in (
        (twice, [4, 8], ["h", "cx", "measure"]),
        (cleared, [5], ["reset", "x", "measure"]),
        (turned, [0, 1, 2], ["h", "cx", "swap", "measure", "measure"]),
    ):
        circuit = arrays.circuit()
        (part,) = cut(circuit, split(circuit, asked(COUNTS, (), circuit)))
        assert part.qubits.tolist() == qubits
        assert [part.circuit.table.names[op] for op in part.circuit.ops.tolist()] == names


def test_samples_of_strings_are_drawn_without_the_branches_of_a_shot() -> None:
    arrays = two_rings(7)
    arrays.add("ry", [0], (), [0.4]).begin((tk.CLBIT, 13, 0))
    arrays.add("rx", [2], (), [0.9]).add("end")
    sums = (PauliSum(("IIIIIIIIIZIZII", "IIIIIIIIIIIIIX"), np.array([1.0, 0.7])),)
    request = Request(500, 4, ("expectation",), sums)
    circuit = arrays.circuit()
    found = simulate(circuit, shots=500, seed=4, outputs=request.outputs, observables=sums).row(0)
    assert found.expectations == untouched(circuit, request).expectations


def test_bits_do_not_connect_what_depends_on_them() -> None:
    """A qubit that is flipped where another was 1: through a bit, a register, a stored bit and a
    variable."""
    for way in range(4):
        arrays = Arrays(13, 3, (("a", 1), ("b", 2)))
        arrays.add("ry", [0], (), [1.0]).add("measure", [0], [0])
        read: tuple[tuple[int, int, int], ...] = ((tk.CLBIT, 0, 0),)
        if way == 1:
            read = arrays.equals(0, 1)
        elif way == 2:
            arrays.begin((tk.CLBIT, 0, 0), (tk.SET_CLBIT, 2, 0), name="store")
            read = ((tk.CLBIT, 2, 0),)
        elif way == 3:
            number = arrays.variable(0)
            arrays.begin((tk.CLBIT, 0, 0), (tk.SET_VARIABLE, number, 0), name="store")
            read = ((tk.VARIABLE, number, 0),)
        arrays.begin(*read).add("x", [9]).add("end").add("measure", [9], [1])
        circuit = arrays.circuit()
        assert problem(circuit) == ""
        with narrow_parts(1):
            found = simulate(circuit, shots=0, outputs=("probabilities",)).row(0)
            assert_same_odds(found, untouched(circuit, Request(0, 0, ("probabilities",))))
            assert len(distribution(found)) == 2


def test_something_is_left_out_where_nothing_can_be() -> None:
    whole = two_rings(13)
    whole.add("cx", [0, 1])
    for circuit, outputs in (
        (ladder(12, [0]), COUNTS),  # small ones are as they are
        (ladder(14, [*range(14)]), ("statevector",)),
        (ladder(14, []), ("probabilities",)),
    ):
        assert split(circuit, asked(outputs, (), circuit)) is WHOLE
    measured = ladder(13, [*range(13)])
    assert split(measured, asked(COUNTS, (), measured)).kept.sum() == measured.ops.size - 12
