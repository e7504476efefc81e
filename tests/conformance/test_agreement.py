"""What holds for every engine, also for one that runs Clifford circuits alone or draws its own
numbers: distributions at five sigma, the same counts for the same seed, a name for what is refused.
"""

from collections.abc import Callable

import numpy as np
import pytest
from arrays import Arrays
from clifford import assert_alike, clifford
from engine_runs import probabilities
from engines import Runner
from qiskit.quantum_info import SparsePauliOp, Statevector
from reference import final_state

from simulators.circuit.ir import Circuit, bell, outcome_width
from simulators.engine import PauliSum
from simulators.simulate import counts_of


@pytest.mark.parametrize("seed", range(6))
def test_clifford_distribution_and_counts_match_reference(every_run: Runner, seed: int) -> None:
    arrays = clifford(5, 40, seed)
    expected = np.abs(final_state(arrays.circuit())) ** 2
    odds = probabilities(every_run(arrays.circuit(), outputs=("probabilities",)))
    for index, p in enumerate(expected.tolist()):
        assert odds.get(index, 0.0) == pytest.approx(p, abs=1e-9)
    measured = clifford(5, 40, seed, 70)
    for qubit, clbit in ((4, 3), (0, 69), (2, 0), (1, 65)):
        measured.add("measure", [qubit], [clbit])
    result = every_run(
        measured.circuit(), shots=3000, seed=seed, outputs=("counts", "probabilities")
    )
    assert result.outcome_width == outcome_width(70)
    exact: dict[int, float] = {}
    for index, p in enumerate(expected.tolist()):
        key = (index >> 4 & 1) << 3 | (index & 1) << 69 | (index >> 2 & 1) | (index >> 1 & 1) << 65
        exact[key] = exact.get(key, 0.0) + p
    exact = {key: p for key, p in exact.items() if p > 1e-9}
    assert probabilities(result) == pytest.approx(exact, abs=1e-9)
    assert_alike(counts_of(result), exact, 3000)


@pytest.mark.parametrize("seed", range(4))
def test_clifford_expectation_values_match_dense_reference(every_run: Runner, seed: int) -> None:
    rng = np.random.default_rng(seed)
    circuit = clifford(4, 30, seed).circuit()
    labels = (*("".join(rng.choice(list("IXYZ"), 4)) for _ in range(60)), "IIII")
    items = tuple(PauliSum((label,), np.ones(1)) for label in labels)
    expectations = every_run(circuit, outputs=("expectation",), observables=items).expectations
    state = Statevector(final_state(circuit))
    for label, (value, error) in zip(labels, expectations, strict=True):
        exact = state.expectation_value(SparsePauliOp(label)).real
        assert value == pytest.approx(exact, abs=every_run.near(1e-9))
        assert error == 0.0


def test_sampled_expectation_uses_documented_draws_after_exact_terms(every_run: Runner) -> None:
    circuit = Arrays(2, 0).add("h", [0]).circuit()
    items = (PauliSum(("IX", "IZ"), np.array([2.0, 1.0])),)
    keywords = {"outputs": ("expectation",), "observables": items}
    ((value, error),) = every_run(circuit, shots=10_000, seed=3, **keywords).expectations
    bits = np.random.Philox(key=[3, 0], counter=[0, 2**32 + 1, 0, 0])
    up = np.random.Generator(bits).random(10_000) < 0.5
    assert value == pytest.approx(2.0 + 2 * up.mean() - 1, abs=1e-6)
    assert error == pytest.approx(0.01, rel=0.01)


def test_counts_are_reproducible_and_depend_on_seed_and_binding(counting_run: Runner) -> None:
    built = clifford(6, 60, 1, 6).measure(range(6)).circuit()
    first = counting_run(built, shots=2500, seed=2**64 - 1, binding=2**62)
    assert counting_run(built, shots=2500, seed=2**64 - 1, binding=2**62) == first
    assert counting_run(built, shots=2500, seed=2**64 - 2, binding=2**62) != first
    assert counting_run(built, shots=2500, seed=2**64 - 1, binding=2**62 + 1) != first
    more, fewer = counts_of(first), counts_of(counting_run(built, shots=1500, seed=2**64 - 1,
                                                        binding=2**62))  # fmt: skip
    assert all(fewer[key] <= more[key] for key in fewer)


def test_split_sweep_gives_same_counts_as_whole_sweep(counting_run: Runner) -> None:
    arrays = Arrays(3, 3).add("h", [2]).add("rx", [0], (), [0.0])
    arrays.free(1)
    arrays.add("rz", [2], (), [0.0])
    arrays.free(0)
    arrays.add("h", [2]).add("cx", [0, 1])
    arrays.measure(range(3))
    values = np.array([[0, 1], [1, 2], [2, 0], [3, 1], [1, 1]]) * np.pi / 2
    result = counting_run.all(arrays.circuit(), shots=500, bindings=values, binding=10)
    parts = (
        *counting_run.all(arrays.circuit(), shots=500, bindings=values[:2], binding=10),
        *counting_run.all(arrays.circuit(), shots=500, bindings=values[2:], binding=12),
    )
    assert [counts_of(each) for each in result] == [counts_of(each) for each in parts]
    assert set(counts_of(result[2])) == {4}
    assert len({tuple(counts_of(each).items()) for each in result}) == 5


def test_angle_within_rounding_of_quarter_turn_is_accepted(counting_run: Runner) -> None:
    """An angle that is a quarter turn up to rounding is one for every engine."""
    arrays = Arrays(1, 1).add("h", [0]).add("rz", [0], (), [5 * np.pi / 2 + 3e-13]).add("h", [0])
    circuit = arrays.add("sx", [0]).add("measure", [0], [0]).circuit()
    assert set(counts_of(counting_run(circuit, shots=50))) in ({0}, {1})


def wide() -> Circuit:
    arrays = Arrays(300, 300, [("c", 300)]).add("h", [0])
    for q in range(299):
        arrays.add("cx", [q, q + 1])
    return arrays.measure(range(300)).circuit()


@pytest.mark.parametrize("engine", ["mps", "stabilizer"])
def test_values_of_300_qubits_are_correct(runner_of: Callable[[str], Runner], engine: str) -> None:
    run = runner_of(engine)
    assert_alike(counts_of(run(wide(), shots=3000)), {0: 0.5, 2**300 - 1: 0.5}, 3000)
    pairs = PauliSum(("Z" + "I" * 298 + "Z", "Z" + "I" * 299), np.ones(2))
    ((value, _),) = run(wide(), outputs=("expectation",), observables=(pairs,)).expectations
    assert value == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("bond", [2, 16])
def test_mps_reports_bond_and_truncation(runner_of: Callable[[str], Runner], bond: int) -> None:
    arrays = Arrays(10, 0)
    rng = np.random.default_rng(4)
    for layer in range(8):
        for q in range(10):
            arrays.add("u", [q], (), rng.uniform(0, 6, 3).tolist())
        for q in range(layer % 2, 9, 2):
            arrays.add("cz", [q, q + 1])
    circuit = arrays.circuit()
    result = runner_of("mps")(circuit, outputs=("statevector",), settings=(("bond", bond),))
    assert result.statevector is not None
    fidelity = abs(np.vdot(result.statevector, final_state(circuit))) ** 2
    if bond == 16:
        assert result.truncation < 1e-6
        assert fidelity == pytest.approx(1.0, abs=1e-6)
    else:
        assert result.truncation > 0.1
        assert fidelity < 0.9
    assert result.remark == f"bond {bond}"


def test_bell_counts_match_on_every_engine(any_run: Runner) -> None:
    assert_alike(counts_of(any_run(bell(), shots=1000, seed=5)), {0: 0.5, 3: 0.5}, 1000)
