"""Circuits of each experiment for all qubits and pairs, as few as their couplings allow."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import msgspec
import numpy as np

from simenv.calibration.experiments import benchmarking
from simenv.calibration.experiments.batches import Pair, pair_sets, qubit_sets
from simenv.calibration.experiments.clifford import one_qubit_group, two_qubit_group
from simenv.calibration.experiments.coherence import Arm
from simenv.calibration.experiments.programs import (
    ENTANGLER,
    HALF,
    QUARTER,
    CircuitPiece,
    NativeGateRows,
    PlacedPiece,
)
from simenv.calibration.experiments.runner import ExperimentSetting, PlannedCircuit

Places = Sequence[tuple[int, ...]]  # qubits or pairs that are measured in one circuit
RB1, IRB1, RB2, IRB2, SIMULTANEOUS = "rb1", "irb1", "rb2", "irb2", "simultaneous"


class TestLayout(msgspec.Struct, frozen=True):
    """Qubits and pairs under test, in sets that are measured together."""

    num_qubits: int  # of the device
    qubit_sets: tuple[tuple[tuple[int, ...], ...], ...]
    pair_sets: tuple[tuple[Pair, ...], ...]

    @property
    def qubits(self) -> list[int]:
        """All qubits under test, ascending."""
        return sorted(place[0] for places in self.qubit_sets for place in places)

    @property
    def pairs(self) -> list[Pair]:
        """All pairs under test, ascending."""
        return sorted(pair for pairs in self.pair_sets for pair in pairs)


def layout(
    num_qubits: int, qubits: Sequence[int], pairs: Sequence[Pair], couplings: Sequence[Pair]
) -> TestLayout:
    """Sets of qubits and pairs; `couplings`: pairs that interact if both qubits are used."""
    singles = qubit_sets(qubits, couplings)
    return TestLayout(
        num_qubits,
        tuple(tuple((qubit,) for qubit in each) for each in singles),
        tuple(tuple(each) for each in pair_sets(pairs, couplings)),
    )


class Planner:
    """Planner of circuits on one device. Sequences are a function of the seed and of their
    place."""

    def __init__(self, alphabet: NativeGateRows, tested: TestLayout, seed: int) -> None:
        self._alphabet = alphabet
        self._tested = tested
        self._seed = seed

    def timed(
        self,
        name: str,
        arm: Arm,
        times_ns: Mapping[tuple[int, ...], Sequence[float]],
        arms: int,
        shots: int,
    ) -> Iterator[PlannedCircuit]:
        """Circuits of every arm at each place's own times. All places have the same size and number
        of times."""
        for places in self._sets(times_ns):
            for k in range(len(times_ns[places[0]])):
                for number in range(arms):
                    yield self._circuit(
                        [
                            (
                                ExperimentSetting(name, place, times_ns[place][k], number),
                                arm(self._alphabet, times_ns[place][k], number),
                            )
                            for place in places
                        ],
                        shots,
                    )

    def sequences(
        self,
        name: str,
        lengths: Mapping[tuple[int, ...], Sequence[int]],
        repeats: Iterable[int],
        shots: int,
    ) -> Iterator[PlannedCircuit]:
        """Benchmarking circuits at each place's own lengths; sequence k begins in basis state k mod
        d. Interleaved sequences have the random elements of the standard ones."""
        for places in self._sets(lengths):
            for k in range(len(lengths[places[0]])):
                for number in repeats:
                    pieces = [
                        self._sequence(name, place, lengths[place][k], number) for place in places
                    ]
                    yield self._circuit(pieces, shots)

    def _sequence(
        self, name: str, place: tuple[int, ...], length: int, number: int
    ) -> tuple[ExperimentSetting, CircuitPiece]:
        rng = np.random.default_rng([self._seed, *place, length, number])
        alphabet = self._alphabet
        flips = number % (1 << len(place))
        group = one_qubit_group()
        if len(place) == 2:
            assert alphabet.gates.entangler is not None
            group = two_qubit_group(alphabet.gates.entangler)
        if name == SIMULTANEOUS:
            piece = benchmarking.simultaneous(alphabet, group, length, flips, rng)
        else:
            interleaved = name in (IRB1, IRB2)
            piece = benchmarking.sequence(
                alphabet, group, length, flips, rng, interleaved=interleaved
            )
        row = {RB2: ENTANGLER, IRB2: ENTANGLER, IRB1: HALF}.get(name, QUARTER)
        count = np.count_nonzero(piece.rows == row) / (2 if name == SIMULTANEOUS else 1)
        return ExperimentSetting(name, place, float(length), flips, number, float(count)), piece

    def _sets(self, settings: Mapping[tuple[int, ...], object]) -> Iterator[Places]:
        """Sets of the places that have settings."""
        single = len(next(iter(settings), (0,))) == 1
        every: Sequence[Places] = self._tested.qubit_sets if single else self._tested.pair_sets
        for places in every:
            mine = [place for place in places if place in settings]
            if mine:
                yield mine

    def _circuit(
        self, pieces: Sequence[tuple[ExperimentSetting, CircuitPiece]], shots: int
    ) -> PlannedCircuit:
        placed = [PlacedPiece(point.qubits, piece) for point, piece in pieces]
        program = self._alphabet.program(placed, self._tested.num_qubits)
        return PlannedCircuit(program, shots, tuple(point for point, _ in pieces))
