"""Experiments of a calibration, their estimators and priors."""

import math
import statistics

import numpy as np
import pytest
from failing import fails
from msgspec.structs import replace
from qiskit.quantum_info import Statevector

from simenv.calibration.experiments import clifford, estimators, plans, procedure, programs
from simenv.calibration.experiments.procedure import choose
from simenv.calibration.experiments.programs import NativeGateRows, PlacedPiece
from simenv.calibration.fit.components import Component
from simenv.calibration.fit.solve import Prior, PriorMatrix
from simenv.client.circuits.decoder import to_qiskit
from simenv.errors import InfeasibleError, OptionError
from simenv.model.devices import GateInfo
from testbed.sampled_device import chain, coverage

ENTANGLERS = clifford._ENTANGLERS
LATTICE = [(0, 1), (1, 2), (1, 4), (2, 3), (3, 5), (4, 7), (5, 8), (6, 7)]


def alphabet(entangler: clifford.NativeOperation = ENTANGLERS[0]) -> NativeGateRows:
    gates = clifford.native_set(chain())
    return NativeGateRows(replace(gates, entangler=entangler))


def mean_count(group: clifford.CliffordGroup, kind: str) -> float:
    """Mean number of steps of one kind in a word."""
    return statistics.mean(sum(step[0] == kind for step in word) for word in group.sequences)


def test_one_qubit_group_has_one_quarter_turn_on_average() -> None:
    group = clifford.one_qubit_group()
    assert len({images.tobytes() for images in group.images}) == 24
    assert mean_count(group, "quarter") == 1.0


@pytest.mark.parametrize("gate", ENTANGLERS, ids=lambda gate: gate.name)
def test_two_qubit_group_is_complete_with_fewest_entanglers(gate: clifford.NativeOperation) -> None:
    group = clifford.two_qubit_group(gate)
    assert len({images.tobytes() for images in group.images}) == 11_520
    assert mean_count(group, "entangler") == 1.5


@pytest.mark.parametrize("gate", ENTANGLERS, ids=lambda gate: gate.name)
@pytest.mark.parametrize("kind", ["standard", "interleaved", "simultaneous"])
def test_sequences_return_to_their_basis_state(gate: clifford.NativeOperation, kind: str) -> None:
    spelled, group = alphabet(gate), clifford.two_qubit_group(gate)
    rng = np.random.default_rng(5)
    for flips in range(4):
        if kind == "simultaneous":
            piece = programs.simultaneous(spelled, group, 12, flips, rng)
        else:
            interleaved = kind == "interleaved"
            piece = programs.sequence(spelled, group, 12, flips, rng, interleaved=interleaved)
        circuit = to_qiskit(spelled.program([PlacedPiece((1, 0), piece)], 2))
        circuit.remove_final_measurements()
        assert Statevector(circuit).probabilities([1, 0])[flips] == pytest.approx(1.0)


def test_sets_do_not_touch_and_cover_everything() -> None:
    singles = plans.qubit_sets(range(9), LATTICE)
    pairs = plans.pair_sets(LATTICE, LATTICE)
    coupled = {frozenset(pair) for pair in LATTICE}
    assert sorted(q for each in singles for q in each) == list(range(9))
    assert sorted(pair for each in pairs for pair in each) == LATTICE
    for each in singles:
        assert not any({a, b} in coupled for a in each for b in each)
    for each in pairs:
        for one in each:
            for two in each:
                if one != two:
                    assert not any({a, b} in coupled or a == b for a in one for b in two)


def test_gates_and_qubits_that_a_device_lacks_are_refused() -> None:
    info = replace(chain(), gates=(GateInfo("rz", 1, 1), GateInfo("t", 1, 0)))
    assert "sx" in fails(InfeasibleError, r"native gates rz, t", clifford.native_set, info).hint
    fails(OptionError, r"qubits=\[7\]", choose, chain(5), [0, 7])
    tested = choose(replace(chain(4), all_to_all=True, coupling=()), None)
    assert tested.pairs == [(0, 1), (0, 3), (1, 2), (2, 3)]
    assert [len(each) for each in tested.pair_sets] == [2, 2]


def test_marginal_counts_of_wide_results() -> None:
    points = tuple(plans.ExperimentSetting("t1", (q,), 0.0) for q in range(70))
    outcomes = np.zeros((2, 9), np.uint8)
    outcomes[1, 8] = 1 << 3  # clbit 67
    table: plans.Counts = {}
    plans.add(table, points, outcomes, np.array([30, 12], np.uint32))
    assert (table[points[67]].tolist(), table[points[0]].tolist()) == ([30, 12], [42, 0])


@pytest.mark.parametrize(
    ("first", "later", "contrast"),
    [(0.0, 0.0, 1.0), (0.25, 0.0, 1.0), (0.9, 0.8, 1.0), (0.14, 0.13, 0.2), (0.0, 0.0, 0.02)],
)
def test_gates_without_a_signal_do_not_work(first: float, later: float, contrast: float) -> None:
    table: plans.Counts = {}
    for length, signal in ((1, first), (4, later), (16, later * later)):
        for arm in range(4):
            odds = np.full(4, (1.0 - signal) / 4.0)
            odds[arm] += signal
            point = plans.ExperimentSetting("rb2", (0, 1), float(length), arm, arm, 1.5 * length)
            table[point] = np.round(10_000 * odds).astype(np.int64)
    _, works = procedure._rates(table, "rb2", {0: contrast, 1: contrast})[0, 1]
    assert works == (first > 0.5 * contrast or contrast < 0.1)


def test_decays_and_frequencies_are_fitted_exactly() -> None:
    x = np.array([[0.0, 100.0, 200.0], [1.0, 10.0, 20.0]])
    rates, sizes = np.array([0.01, 0.05]), np.array([0.9, 0.7])
    signal = sizes[:, None] * np.exp(-rates[:, None] * x)
    result = estimators.fit_decay(x, signal, np.full(x.shape, 1e-6))
    np.testing.assert_allclose(result.rate, rates, rtol=1e-8)
    np.testing.assert_allclose(np.exp(result.log_amplitude), sizes, rtol=1e-8)
    assert (result.chi_square < 1e-12).all()
    x = np.array([1.0, 4.0, 16.0, 48.0])
    for frequency in (-0.31, 0.02, 1.1):
        result = estimators.fit_frequency(x, np.exp(1j * frequency * x), np.full(4, 1e-4))
        assert result.frequency == pytest.approx(frequency, abs=1e-9)


def test_intervals_of_estimates_cover_the_truth() -> None:
    low, high = estimators.wilson(0.0, 1000, 2.0)
    assert (low, high) == (0.0, pytest.approx(4.0 / 1004.0))
    low, high = estimators.Estimate("t1_us", (0,), 1e6, 1e-6, "inverse").interval(3.0)
    assert math.isinf(high)
    assert low == pytest.approx(1.0 / (1e-6 + 3e-6))
    assert estimators.simultaneous_z(1, 0.95) == pytest.approx(1.95996, abs=1e-4)
    assert estimators.simultaneous_z(200) == pytest.approx(4.0545, abs=1e-3)
    share, joint, count = coverage(6, 0.95)
    assert abs(share - 0.95) < 5.0 * math.sqrt(0.95 * 0.05 / count)
    assert joint == 1.0


FITTED = tuple(Component("p01", (qubit,)) for qubit in range(4))
OTHERS = (Component("p01", (9,)), Component("p10", (9,)), Component("ZZ", (8, 9), "cz"))
OWN = np.array([0.5, 0.6, 0.4, 0.5])


def carried(prior: Prior, own: np.ndarray) -> list[float]:
    columns = PriorMatrix(prior, FITTED[: len(own)])
    latent = np.array([own[place[0]] if place else 0.0 for _, place in columns.columns])
    return columns.carried_over((*FITTED, *OTHERS), FITTED, latent).tolist()


def test_changes_are_carried_over_as_far_as_fitted_qubits_share_them() -> None:
    result = carried(Prior(0.1, 1.0), OWN)
    assert (result[4], result[:4]) == (pytest.approx(0.5, rel=0.02), [0.0] * 4)
    assert result[5:] == [0.0, 0.0]
    assert 0.1 < carried(Prior(0.1, 1.0), np.array([2.0, 0.5, 0.5, -1.0]))[4] < 0.4
    assert not any(carried(Prior(0.5, 1.0), OWN))
    assert not any(carried(Prior(0.1, 1.0), OWN[:2]))
