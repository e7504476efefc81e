"""Characterization circuits: groups, sequences, sets of qubits, and native gates."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from qiskit.quantum_info import Statevector

from bench.harness.sampled_device import chain
from simenv.calibration.experiments import benchmarking, clifford, native, scouting
from simenv.calibration.experiments.batches import pair_sets, qubit_sets
from simenv.calibration.experiments.procedure import choose
from simenv.calibration.experiments.programs import NativeGateRows, PlacedPiece
from simenv.calibration.experiments.runner import Counts, ExperimentSetting, add
from simenv.client.circuits.decode.to_qiskit import to_qiskit
from simenv.errors import InfeasibleError, OptionError
from simenv.model.views import GateInfo

ENTANGLERS = native._ENTANGLERS
LATTICE = [(0, 1), (1, 2), (1, 4), (2, 3), (3, 5), (4, 7), (5, 8), (6, 7)]


def alphabet(entangler: native.NativeOperation = ENTANGLERS[0]) -> NativeGateRows:
    gates = native.native_set(chain())
    return NativeGateRows(msgspec.structs.replace(gates, entangler=entangler))


def test_one_qubit_group_has_one_quarter_turn_on_average() -> None:
    group = clifford.one_qubit_group()
    assert len({images.tobytes() for images in group.images}) == 24
    assert group.mean_count("quarter") == 1.0


@pytest.mark.parametrize("gate", ENTANGLERS, ids=lambda gate: gate.name)
def test_two_qubit_group_is_complete_with_fewest_entanglers(gate: native.NativeOperation) -> None:
    group = clifford.two_qubit_group(gate)
    assert len({images.tobytes() for images in group.images}) == 11_520
    assert group.mean_count("entangler") == 1.5


@pytest.mark.parametrize("gate", ENTANGLERS, ids=lambda gate: gate.name)
@pytest.mark.parametrize("kind", ["standard", "interleaved", "simultaneous"])
def test_sequences_return_to_their_basis_state(gate: native.NativeOperation, kind: str) -> None:
    spelled, group = alphabet(gate), clifford.two_qubit_group(gate)
    rng = np.random.default_rng(5)
    for flips in range(4):
        if kind == "simultaneous":
            piece = benchmarking.simultaneous(spelled, group, 12, flips, rng)
        else:
            interleaved = kind == "interleaved"
            piece = benchmarking.sequence(spelled, group, 12, flips, rng, interleaved=interleaved)
        circuit = to_qiskit(spelled.program([PlacedPiece((1, 0), piece)], 2))
        circuit.remove_final_measurements()
        odds = Statevector(circuit).probabilities([1, 0])
        assert odds[flips] == pytest.approx(1.0)


def test_sets_do_not_touch_and_cover_everything() -> None:
    singles = qubit_sets(range(9), LATTICE)
    pairs = pair_sets(LATTICE, LATTICE)
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


def test_device_without_a_quarter_turn_is_refused_with_its_gates() -> None:
    info = msgspec.structs.replace(chain(), gates=(GateInfo("rz", 1, 1), GateInfo("t", 1, 0)))
    with pytest.raises(InfeasibleError, match=r"native gates rz, t") as caught:
        native.native_set(info)
    assert "sx" in caught.value.hint


def test_qubits_that_a_device_lacks_are_refused() -> None:
    with pytest.raises(OptionError, match="--qubits: 7"):
        choose(chain(5), [0, 7])


def test_pairs_of_an_all_to_all_device_are_a_ring() -> None:
    info = msgspec.structs.replace(chain(4), all_to_all=True, coupling=())
    tested = choose(info, None)
    assert tested.pairs == [(0, 1), (0, 3), (1, 2), (2, 3)]
    assert [len(each) for each in tested.pair_sets] == [2, 2]


def test_marginal_counts_of_wide_results() -> None:
    points = tuple(ExperimentSetting("t1", (q,), 0.0) for q in range(70))
    outcomes = np.zeros((2, 9), np.uint8)
    outcomes[1, 8] = 1 << 3  # clbit 67
    table: Counts = {}
    add(table, points, outcomes, np.array([30, 12], np.uint32))
    assert table[points[67]].tolist() == [30, 12]
    assert table[points[0]].tolist() == [42, 0]


@pytest.mark.parametrize(
    ("first", "later", "contrast"),
    [(0.0, 0.0, 1.0), (0.25, 0.0, 1.0), (0.9, 0.8, 1.0), (0.14, 0.13, 0.2), (0.0, 0.0, 0.02)],
)
def test_gates_without_a_signal_do_not_work(first: float, later: float, contrast: float) -> None:
    table: Counts = {}
    for length, signal in ((1, first), (4, later), (16, later * later)):
        for arm in range(4):
            odds = np.full(4, (1.0 - signal) / 4.0)
            odds[arm] += signal
            point = ExperimentSetting("rb2", (0, 1), float(length), arm, arm, 1.5 * length)
            table[point] = np.round(10_000 * odds).astype(np.int64)
    _, works = scouting._rates(table, "rb2", {0: contrast, 1: contrast})[0, 1]
    assert works == (first > 0.5 * contrast or contrast < 0.1)
