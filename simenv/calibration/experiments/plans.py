"""Plans of experiments: parallel sets of qubits, circuits, and their execution as tasks.

Qubits and pairs of a set are measured at the same time without interaction. Coupled qubits
interact, so qubits of a set have no coupling, and neither have qubits of different pairs of a set.
Sets are found by greedy coloring, the vertices with the most conflicts first (Welsh and Powell,
Comput. J. 10, 85).

A `CircuitRunner` runs planned circuits as ordinary tasks and returns counts by measured point.
`Planner` plans the circuits of each experiment for all qubits and pairs, as few as their couplings
allow.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from simenv.calibration.experiments import programs
from simenv.calibration.experiments.clifford import one_qubit_group, two_qubit_group
from simenv.errors import SimenvError
from simenv.model.program import Program

if TYPE_CHECKING:
    from simenv.client.client import Client
    from simenv.client.tasks.task import Task

Pair = tuple[int, int]
_Vertex = TypeVar("_Vertex", bound=Hashable)


def qubit_sets(qubits: Sequence[int], couplings: Sequence[Pair]) -> list[list[int]]:
    """Partition of the qubits into sets without couplings."""
    near = _neighbours(couplings)
    conflicts = {q: near.get(q, set()) & set(qubits) for q in qubits}
    return _colored(conflicts)


def pair_sets(pairs: Sequence[Pair], couplings: Sequence[Pair]) -> list[list[Pair]]:
    """Partition of the pairs into sets without a common qubit and without a coupling between
    pairs."""
    near = _neighbours(couplings)
    reach = {pair: set(pair).union(*(near.get(q, ()) for q in pair)) for pair in pairs}
    conflicts = {
        pair: {other for other in pairs if other != pair and reach[pair] & set(other)}
        for pair in pairs
    }
    return _colored(conflicts)


def _neighbours(couplings: Sequence[Pair]) -> dict[int, set[int]]:
    entries: dict[int, set[int]] = {}
    for a, b in couplings:
        entries.setdefault(a, set()).add(b)
        entries.setdefault(b, set()).add(a)
    return entries


def _colored(conflicts: dict[_Vertex, set[_Vertex]]) -> list[list[_Vertex]]:
    """Classes of vertices without conflicts, each in the order of `conflicts`."""
    order = sorted(conflicts, key=lambda vertex: -len(conflicts[vertex]))
    classes: list[set[_Vertex]] = []
    for vertex in order:
        free = next((each for each in classes if not each & conflicts[vertex]), None)
        if free is None:
            classes.append({vertex})
        else:
            free.add(vertex)
    return [[vertex for vertex in conflicts if vertex in each] for each in classes]


# Qubits with a measurement inside a circuit: an emulated device has a state for each combination
# of their outcomes.
INSIDE_AT_ONCE = 4


def _parts(places: list[_Vertex], most: int | None) -> Iterator[list[_Vertex]]:
    """Parts of a list with at most so many items."""
    size = most or max(1, len(places))
    return (places[first : first + size] for first in range(0, len(places), size))


TASKS_AT_ONCE = 200  # tasks of one submit


class ExperimentSetting(msgspec.Struct, frozen=True):
    """Setting of one qubit or pair in one circuit."""

    experiment: str
    qubits: tuple[int, ...]
    x: float  # delay in ns, or length of a sequence
    arm: int = 0
    repeat: int = 0  # number of a random sequence
    gates: float = 0.0  # gates under test in the circuit
    records: int = 1  # of each qubit: the last one is bit 0 of its outcome

    @property
    def clbits(self) -> int:
        """Number of clbits of the outcome."""
        return len(self.qubits) * self.records


class PlannedCircuit(msgspec.Struct, frozen=True):
    """Circuit with the points whose qubits its clbits measure, in order."""

    program: Program
    shots: int
    points: tuple[ExperimentSetting, ...]


# Counts of outcomes [2^qubits]; bit 0 is the first qubit.
Counts = dict[ExperimentSetting, NDArray[np.int64]]


class CircuitRunner(Protocol):
    """Interface of objects that run circuits."""

    def run(self, circuits: Sequence[PlannedCircuit]) -> Counts:
        """Run circuits; return the counts of all points."""


class PoolRunner:
    """Runs circuits as tasks of an environment, verbatim on an emulated device."""

    def __init__(self, client: Client, where: dict[str, Any], max_shots: int, seed: int) -> None:
        """Set up. `where`: options of the submit that name the device or pool."""
        self._client = client
        self._where = where
        self._max_shots = max_shots
        self._seed = seed
        self.circuits = 0
        self.shots = 0
        self.device_s = 0.0  # time of all tasks on the device, where it is known

    def run(self, circuits: Sequence[PlannedCircuit]) -> Counts:
        """Run circuits as `CircuitRunner.run`. A circuit with more shots than the device takes is
        submitted several times. Raises SimenvError of a refused or failed task."""
        groups: dict[int, list[PlannedCircuit]] = defaultdict(list)
        for circuit in circuits:
            left = circuit.shots
            while left > 0:
                part = min(left, self._max_shots)
                groups[part].append(circuit)
                left -= part
        waiting: list[tuple[Task, PlannedCircuit]] = []
        for shots, members in groups.items():
            for first in range(0, len(members), TASKS_AT_ONCE):
                chunk = members[first : first + TASKS_AT_ONCE]
                seeds = [self._seed + self.circuits + k for k in range(len(chunk))]
                programs = [each.program for each in chunk]
                tasks = self._client.submit_many(
                    programs, shots=shots, seed=seeds, name="certify", **self._where
                )
                waiting += zip(tasks, chunk, strict=True)
                self.circuits += len(chunk)
                self.shots += shots * len(chunk)
        entries: Counts = {}
        try:
            for task, circuit in waiting:
                result = task.result()
                self.device_s += result.device_time_s or 0.0
                add(entries, circuit.points, result.outcomes, result.outcome_counts)
        except BaseException:  # also an interrupt: no task stays in the queue
            with suppress(SimenvError):
                self._client.cancel([task for task, _ in waiting])
            raise
        return entries


def merge(totals: Counts, more: Counts) -> None:
    """Add `more` to the counts of equal points."""
    for point, tally in more.items():
        totals[point] = totals[point] + tally if point in totals else tally


def add(
    totals: Counts,
    points: Sequence[ExperimentSetting],
    outcomes: NDArray[np.unsignedinteger[Any]],
    counts: NDArray[np.uint32],
) -> None:
    """Add the marginal counts of each point. `outcomes`: integers [k], or bytes [k, width]."""
    weights = counts.astype(np.float64)
    clbit = 0
    for point in points:
        index = np.zeros(len(outcomes), np.int64)
        for k in range(point.clbits):
            index |= _bit(outcomes, clbit + k) << k
        clbit += point.clbits
        size = 1 << point.clbits
        tally = np.bincount(index, weights, size).astype(np.int64)
        totals[point] = totals[point] + tally if point in totals else tally


def _bit(outcomes: NDArray[np.unsignedinteger[Any]], clbit: int) -> NDArray[np.int64]:
    if outcomes.ndim == 2:
        column, shift = outcomes[:, clbit >> 3], clbit & 7
    else:
        column, shift = outcomes, clbit
    return (column.astype(np.uint64) >> np.uint64(shift) & np.uint64(1)).astype(np.int64)


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

    def __init__(self, alphabet: programs.NativeGateRows, tested: TestLayout, seed: int) -> None:
        self._alphabet = alphabet
        self._tested = tested
        self._seed = seed

    def timed(
        self,
        name: str,
        arm: programs.Arm,
        times_ns: Mapping[tuple[int, ...], Sequence[float]],
        arms: int,
        shots: int,
        records: int = 1,
        most: int | None = None,
    ) -> Iterator[PlannedCircuit]:
        """Circuits of every arm at each place's own times. All places have the same size and number
        of times. `records`: of each qubit, 2 with that of a measurement inside the circuit; `most`:
        places of a circuit."""
        for places in self._sets(times_ns, most):
            for k in range(len(times_ns[places[0]])):
                for number in range(arms):
                    yield self._circuit(
                        [
                            (
                                ExperimentSetting(
                                    name, place, times_ns[place][k], number, records=records
                                ),
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

    def layers(
        self,
        name: str,
        numbers: Mapping[int, Sequence[int]],
        durations_ns: Mapping[Pair, float],
        shots: int,
    ) -> Iterator[PlannedCircuit]:
        """Circuits in which qubits wait while a pair of others has entangling gates. `numbers`: of
        gates, for each qubit; all have as many. `durations_ns`: of the gates, by pair under test.
        Arms 0, 1: see `programs.layers`. Qubits without a pair of others are left out."""
        places: dict[tuple[int, ...], tuple[Sequence[int], float]] = {}
        for k, qubit in enumerate(numbers):
            others = [pair for pair in self._tested.pairs if qubit not in pair]
            if others:
                pair = others[k % len(others)]
                places[qubit, *pair] = numbers[qubit], durations_ns[pair]
        yield from self._beside(name, programs.layers, 2, places, shots)

    def waiting(
        self,
        name: str,
        make: Callable[..., programs.CircuitPiece],
        places: Mapping[tuple[int, ...], tuple[Sequence[int], float]],
        shots: int,
    ) -> Iterator[PlannedCircuit]:
        """Circuits in which the first qubit of each place relaxes while the others have gates, and
        during delays. `places`: numbers of gates, all as many, and the duration of one. Settings
        have the number of the place (`place_number`) as `repeat`. Arms 0, 1: see
        `programs.waiting`."""
        yield from self._beside(name, make, 2, places, shots, number=self.place_number)

    def place_number(self, place: tuple[int, ...]) -> int:
        """Number of the qubits after the first one of a place."""
        return sum(qubit * self._tested.num_qubits**k for k, qubit in enumerate(place[1:]))

    def measurements(
        self,
        name: str,
        numbers: Mapping[Pair, Sequence[int]],
        durations_ns: Mapping[int, float],
        shots: int,
    ) -> Iterator[PlannedCircuit]:
        """Circuits in which a qubit waits while another one is measured. `numbers`: of
        measurements, by the measured qubit and the other; all have as many. `durations_ns`: of a
        measurement. Settings have the measured qubit as `repeat`. Arms 0-3: see
        `programs.measured`."""
        places: dict[tuple[int, ...], tuple[Sequence[int], float]] = {
            (other, qubit): (each, durations_ns[qubit]) for (qubit, other), each in numbers.items()
        }
        yield from self._beside(name, programs.measured, 4, places, shots, INSIDE_AT_ONCE)

    def _beside(
        self,
        name: str,
        make: Callable[..., programs.CircuitPiece],
        arms: int,
        places: Mapping[tuple[int, ...], tuple[Sequence[int], float]],
        shots: int,
        most: int | None = None,
        number: Callable[[tuple[int, ...]], int] | None = None,
    ) -> Iterator[PlannedCircuit]:
        """Circuits in which the first qubit of each place waits for operations on the others, by
        numbers and durations of these. Settings have the number of operations as `gates`, 0.0 for a
        delay."""
        conflicts = {
            place: {other for other in places if other != place and set(other) & set(place)}
            for place in places
        }
        for together in itertools.chain(*(_parts(each, most) for each in _colored(conflicts))):
            count = len(places[together[0]][0])
            for k, gates, arm in itertools.product(range(count), (True, False), range(arms)):
                pieces = []
                for place in together:
                    numbers, time_ns = places[place]
                    length = numbers[k]
                    piece = make(self._alphabet, length, time_ns, gates=gates, arm=arm)
                    acting = float(length) if gates else 0.0
                    repeat = place[1] if len(place) == 2 else 0
                    if number is not None:
                        repeat = number(place)
                    setting = ExperimentSetting(name, place[:1], float(length), arm, repeat, acting)
                    pieces.append((setting, programs.PlacedPiece(place, piece, 1)))
                yield self._placed(pieces, shots)

    def _sequence(
        self, name: str, place: tuple[int, ...], length: int, number: int
    ) -> tuple[ExperimentSetting, programs.CircuitPiece]:
        rng = np.random.default_rng([self._seed, *place, length, number])
        alphabet = self._alphabet
        flips = number % (1 << len(place))
        group = one_qubit_group()
        if len(place) == 2:
            assert alphabet.gates.entangler is not None
            group = two_qubit_group(alphabet.gates.entangler)
        if name == SIMULTANEOUS:
            piece = programs.simultaneous(alphabet, group, length, flips, rng)
        else:
            interleaved = name in (IRB1, IRB2)
            piece = programs.sequence(alphabet, group, length, flips, rng, interleaved=interleaved)
        row = {RB2: programs.ENTANGLER, IRB2: programs.ENTANGLER, IRB1: programs.HALF}.get(
            name, programs.QUARTER
        )
        count = np.count_nonzero(piece.rows == row) / (2 if name == SIMULTANEOUS else 1)
        return ExperimentSetting(name, place, float(length), flips, number, float(count)), piece

    def _sets(
        self, settings: Mapping[tuple[int, ...], object], most: int | None = None
    ) -> Iterator[Places]:
        """Sets of these places without interaction, of at most so many."""
        single = len(next(iter(settings), (0,))) == 1
        every: Sequence[Places] = self._tested.qubit_sets if single else self._tested.pair_sets
        for places in every:
            mine = [place for place in places if place in settings]
            yield from _parts(mine, most)
        tested = {place for places in every for place in places}
        yield from ([place] for place in settings if place not in tested)  # of uncoupled qubits

    def _circuit(
        self, pieces: Sequence[tuple[ExperimentSetting, programs.CircuitPiece]], shots: int
    ) -> PlannedCircuit:
        return self._placed(
            [
                (point, programs.PlacedPiece(point.qubits, piece, recorded=point.records > 1))
                for point, piece in pieces
            ],
            shots,
        )

    def _placed(
        self, pieces: Sequence[tuple[ExperimentSetting, programs.PlacedPiece]], shots: int
    ) -> PlannedCircuit:
        placed = [piece for _, piece in pieces]
        program = self._alphabet.program(placed, self._tested.num_qubits)
        return PlannedCircuit(program, shots, tuple(point for point, _ in pieces))
