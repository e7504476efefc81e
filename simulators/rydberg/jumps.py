"""Noise of atoms by trajectories of a state vector: random unitaries and jumps.

A master equation stays the same if a collapse operator L of rate r becomes L + a, and the
Hamiltonian has -i r (conj(a) L - a L^+) / 2 added (Breuer and Petruccione, The Theory of Open
Quantum Systems, 2002, sect. 3.2.2). With the right number a, an operator of an atom acts in one of
two ways (Dalibard, Castin and Molmer, 1992; Plenio and Knight, 1998):

* L + a proportional to a unitary: random events at a fixed rate, as of all diagonal operators.
* (L + a)^+ (L + a) diagonal: the amplitudes of the atom's states decrease, and a jump comes when
  the length of the state, squared, falls below a random number.

An atom that is lost, in a state that nothing drives and that is measured as 0, is left in state 0
without drive and interaction.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from simulators.engine import RunControl
from simulators.errors import Unsupported
from simulators.rydberg.drive import PulseProgram, Reals
from simulators.rydberg.evolution import (
    NANOSECONDS,
    SHORTEST_NS,
    AtomEvolution,
    InteractionTables,
)

_LOST = 2
_EPSILON = 1e-12
_NEAR = 1e-3  # error of the time of a jump, as a part of the probability of jumps in its step
Matrix = NDArray[np.complex128]


class CollapseOperator(msgspec.Struct, frozen=True, eq=False):
    """A collapse operator of every atom: rate in 1/us, matrix [3, 3] over its states 0, 1 and
    lost."""

    rate: float
    matrix: Matrix


class NoiseEvents(msgspec.Struct, frozen=True, eq=False):
    """Jumps by the way in which they act, and the terms that they add to the drive of each atom, in
    rad/us."""

    unitaries: tuple[CollapseOperator, ...]
    decays: tuple[CollapseOperator, ...]
    rabi: complex = 0.0
    detuning: float = 0.0

    @property
    def losses(self) -> tuple[float, float]:
        """Rates at which the amplitudes of the states 0 and 1 of an atom decrease, in 1/us."""
        total = np.zeros(2)
        for jump in self.decays:
            total += jump.rate / 2 * _weights(jump.matrix)
        return float(total[0]), float(total[1])

    def added_to(self, program: PulseProgram) -> PulseProgram:
        """Return a program with these terms."""
        if not self.rabi and not self.detuning:
            return program
        return msgspec.structs.replace(
            program, rabi=program.rabi + self.rabi, detuning=program.detuning + self.detuning
        )


def sorted_jumps(jumps: Sequence[CollapseOperator]) -> NoiseEvents:
    """Sort collapse operators. Raises Unsupported for one that is neither."""
    unitaries, decays = [], []
    rabi, detuning = 0j, 0.0
    for jump in jumps:
        if jump.rate <= 0.0 or not jump.matrix.any():
            continue
        matrix = jump.matrix
        if matrix[:, _LOST].any():
            raise Unsupported("noise that brings lost atoms back", hint="operators that lose atoms")
        if matrix[_LOST].any():
            if not _is_diagonal(matrix.conj().T @ matrix):
                hint = "one operator for each state that is lost"
                raise Unsupported("noise that loses atoms from two states at once", hint=hint)
            decays.append(jump)
            continue
        shift, is_unitary = _shift(matrix[:2, :2])
        shifted = matrix[:2, :2] + shift * np.eye(2)
        if is_unitary:
            size = float(np.linalg.norm(shifted)) / np.sqrt(2)
            if size > _EPSILON:
                unitaries.append(CollapseOperator(jump.rate * size**2, shifted / size))
        else:
            full = np.zeros((3, 3), np.complex128)
            full[:2, :2] = shifted
            decays.append(CollapseOperator(jump.rate, full))
        own = np.conj(shift) * matrix[:2, :2]
        added = -0.5j * jump.rate * (own - own.conj().T)
        rabi += 2 * added[0, 1]
        detuning += float((added[0, 0] - added[1, 1]).real)
    return NoiseEvents(tuple(unitaries), tuple(decays), rabi, detuning)


def _shift(matrix: Matrix) -> tuple[complex, bool]:
    """Return the multiple of the identity with which an operator [2, 2] is proportional to a
    unitary (True), or has a diagonal product with its adjoint. Raises Unsupported."""
    mean = -complex(np.trace(matrix)) / 2
    traceless = matrix + mean * np.eye(2)
    product = traceless.conj().T @ traceless
    if np.allclose(product, product[0, 0] * np.eye(2), atol=_EPSILON):
        return mean, True
    # conj(a) L_01 + a conj(L_10) = -(L^+ L)_01, as equations of real numbers.
    up, down = matrix[0, 1], np.conj(matrix[1, 0])
    columns = np.array([up + down, 1j * (down - up)])
    value = -(matrix.conj().T @ matrix)[0, 1]
    parts = np.linalg.lstsq(
        np.array([columns.real, columns.imag]), np.array([value.real, value.imag]), rcond=None
    )[0]
    shift = complex(parts[0], parts[1])
    shifted = matrix + shift * np.eye(2)
    if not _is_diagonal(shifted.conj().T @ shifted):
        raise Unsupported(
            "noise by an operator whose decay is not diagonal",
            hint="operators between the states of the basis: dephasing, depolarizing, relaxation,"
            " leakage",
        )
    return shift, False


def _is_diagonal(matrix: Matrix) -> bool:
    return bool(np.allclose(matrix, np.diag(np.diag(matrix)), atol=1e-9 * np.abs(matrix).max()))


class NoisyRun(msgspec.Struct, frozen=True, eq=False):
    """Final state [2**n] of one trajectory."""

    state: Matrix
    error: float  # estimated bound on 1 - fidelity of the evolution between the events
    steps: int


class TrajectoryPoint(msgspec.Struct, frozen=True, array_like=True):
    """Place of a trajectory between two windows: with its state, all that it goes on from."""

    now: float  # ns
    distance: float
    steps: int
    pace: tuple[float, float]
    lost: tuple[int, ...]
    since: float
    length: float
    threshold: float
    random: str  # state of its generator, in JSON


class Observer(NamedTuple):
    """Times in ns, ascending, and a function of the number of a time, the normalised state [2**n]
    there, and the atoms that are lost by then. `before_window`: called with the state and the place
    of the trajectory before each window, when all earlier times have been observed."""

    times_ns: Sequence[float]
    observe: Callable[[int, Matrix, Sequence[int]], None]
    before_window: Callable[[Reals, Callable[[], TrajectoryPoint]], None] = lambda *_: None


NO_OBSERVER = Observer((), lambda *_: None)


class TrajectoryRunner:
    """Runner of trajectories with the same noise; those with the same interaction share tables."""

    def __init__(self, events: NoiseEvents, tolerance: float) -> None:
        self._events, self._tolerance = events, tolerance
        self._tables: InteractionTables | None = None

    @property
    def is_random(self) -> bool:
        """Whether there are random events during an evolution."""
        return bool(self._events.unitaries or self._events.decays)

    def run(
        self,
        program: PulseProgram,
        rng: np.random.Generator,
        control: RunControl,
        observer: Observer = NO_OBSERVER,
        begun: tuple[Reals, TrajectoryPoint] | None = None,
    ) -> NoisyRun:
        """Evolve the ground state with random events, or go on from a state and its place in an
        earlier run with the same arguments. Raises Stopped, Unsupported, EngineError."""
        program = self._events.added_to(program)
        if self._tables is None or not self._tables.are_of(program):
            self._tables = InteractionTables(program)
        trajectory = _Trajectory(program, self._events, self._tolerance, rng, self._tables)
        if begun is not None:
            trajectory.resume(*begun)
        for number, time_ns in enumerate(observer.times_ns):
            if begun is None or time_ns > begun[1].now:
                trajectory.advance(time_ns, control, observer)
                observer.observe(number, trajectory.amplitudes(), trajectory.lost)
        trajectory.advance(float(program.duration_ns), control, observer)
        return trajectory.result()


class _Trajectory:
    """One trajectory during its run."""

    def __init__(
        self,
        program: PulseProgram,
        events: NoiseEvents,
        tolerance: float,
        rng: np.random.Generator,
        tables: InteractionTables,
    ) -> None:
        self._program, self._events, self._rng = program, events, rng
        self._tolerance, self._tables = tolerance, tables
        self._base, self._one = events.losses
        self.lost: list[int] = []
        self._steps = 0
        self._evolution = self._evolve()
        self._state, self._now, self._distance = self._evolution.ground_state(), 0.0, 0.0
        self._planned = self._events_at_rates(float(program.duration_ns))
        # Time of the last jump, length of the state since then, and the one of the next jump.
        self._since, self._length, self._threshold = 0.0, 1.0, rng.random()

    def amplitudes(self) -> Matrix:
        """Normalised amplitudes [2**n]."""
        return self._evolution.amplitudes(self._state)

    def result(self) -> NoisyRun:
        """Return the state and what is known of its error."""
        steps = self._steps + self._evolution.steps
        return NoisyRun(self.amplitudes(), min(1.0, self._distance**2), steps)

    def point(self) -> TrajectoryPoint:
        """Return the place of the trajectory."""
        return TrajectoryPoint(
            self._now,
            self._distance,
            self._steps + self._evolution.steps,
            self._evolution.pace,
            tuple(self.lost),
            self._since,
            self._length,
            self._threshold,
            json.dumps(self._rng.bit_generator.state),
        )

    def resume(self, state: Reals, point: TrajectoryPoint) -> None:
        """Go to a place of an earlier run. The array of the state is used from now on."""
        self.lost[:] = point.lost
        if self.lost:
            self._evolution = self._evolve()
        self._evolution.pace = point.pace
        self._state, self._now, self._distance = state, point.now, point.distance
        self._steps = point.steps
        self._since, self._length, self._threshold = point.since, point.length, point.threshold
        while self._planned and self._planned[-1][0] <= self._now:
            self._planned.pop()
        self._rng.bit_generator.state = json.loads(point.random)

    def advance(self, end: float, control: RunControl, observer: Observer) -> None:
        """Evolve the state up to a time in ns."""
        planned = self._planned
        while self._now < end:
            observer.before_window(self._state, self.point)
            now = self._now
            stop = min(end, planned[-1][0]) if planned else end
            self._state, reached, error = self._evolution.step(self._state, now, stop, control)
            following = self._length
            if self._events.decays:
                following = self._squared_length(self._state, reached)
            if following < self._threshold:
                self._jump_before(reached, following, control)
            else:
                self._length, self._now = following, reached
                self._distance += error
            control.advance(NANOSECONDS, self._now - now)
            while planned and planned[-1][0] <= self._now:
                _, atom, matrix = planned.pop()
                if atom not in self.lost:
                    _apply(self._state, self._bit(atom), matrix)

    def _jump_before(self, reached: float, following: float, control: RunControl) -> None:
        """Repeat the last step up to the time at which the length is that of the jump, and jump
        there. `following`: the length at the end of the step, `reached`.

        The rate of jumps follows the states of the atoms, which may change within a step as often
        as its length allows: the time is found by false position (Illinois; Dowell and Jarratt,
        1971), since the length only decreases."""
        before = self._evolution.previous.copy()  # its array is used again
        (low, high), goal = (self._now, reached), np.log(self._threshold)
        above, below = float(np.log(self._length) - goal), float(np.log(following) - goal)
        near, side = _NEAR * (above - below), 0
        while True:
            time = low + above / (above - below) * (high - low)
            state, error = self._evolution.advance(before.copy(), self._now, time, control)
            rest = float(np.log(self._squared_length(state, time)) - goal)
            if abs(rest) <= near or high - low <= SHORTEST_NS:
                break
            if rest > 0.0:
                low, above, below = time, rest, below / 2 if side > 0 else below
            else:
                high, below, above = time, rest, above / 2 if side < 0 else above
            side = 1 if rest > 0.0 else -1
        self._distance += error
        self._state = self._jump(state)
        self._now = self._since = time
        self._length, self._threshold = 1.0, self._rng.random()

    def _evolve(self) -> AtomEvolution:
        """Evolution of the atoms that are not lost."""
        losses = np.full(self._program.atoms, self._one - self._base)
        if not self.lost:
            return AtomEvolution(self._program, self._tolerance, losses, self._tables)
        losses[self.lost] = 0.0
        return AtomEvolution(self._program.without(self.lost), self._tolerance, losses)

    def _events_at_rates(self, end: float) -> list[tuple[float, int, Matrix]]:
        """Draw times, atoms and matrices of the events at fixed rates, latest first."""
        planned: list[tuple[float, int, Matrix]] = []
        for jump in self._events.unitaries:
            for atom in range(self._program.atoms):
                count = self._rng.poisson(jump.rate * end * 1e-3)
                times = self._rng.uniform(0.0, end, count)
                planned += [(float(time), atom, jump.matrix) for time in times]
        return sorted(planned, key=lambda event: -event[0])

    def _squared_length(self, state: Reals, time: float) -> float:
        """Squared length of a state at a time, with the losses that are common to both states of
        an atom."""
        alive = self._program.atoms - len(self.lost)
        common = 2 * self._base * alive * (time - self._since) * 1e-3
        return float(np.dot(state, state) * np.exp(-common))

    def _jump(self, state: Reals) -> Reals:
        """Draw an operator and an atom by their weights, and apply it; return the new state."""
        total = float(np.dot(state, state))
        choices, weights = [], []
        for atom in range(self._program.atoms):
            if atom in self.lost:
                continue
            excited = _excited(state, self._bit(atom))
            for jump in self._events.decays:
                zero, one = _weights(jump.matrix)
                choices.append((atom, jump))
                weights.append(jump.rate * (zero * (total - excited) + one * excited))
        odds = np.cumsum(weights)
        atom, jump = choices[
            min(len(choices) - 1, int(np.searchsorted(odds, self._rng.random() * odds[-1])))
        ]
        matrix = jump.matrix[:2, :2]
        if jump.matrix[_LOST].any():  # one of the two states is lost, and becomes 0
            matrix = np.zeros((2, 2), np.complex128)
            matrix[0, int(np.argmax(np.abs(jump.matrix[_LOST])))] = 1.0
            self.lost.append(atom)
            self._steps += self._evolution.steps
            self._evolution = self._evolve()
        _apply(state, self._bit(atom), matrix)
        state /= np.sqrt(np.dot(state, state))
        return state

    def _bit(self, atom: int) -> int:
        return self._program.atoms - 1 - atom


def _weights(matrix: Matrix) -> Reals:
    """Squared lengths of what becomes of the states 0 and 1."""
    return np.asarray((np.abs(matrix[:, :2]) ** 2).sum(axis=0))


def _by_bit(state: Reals, bit: int) -> Reals:
    """View of a state: [part, higher bits, bit, lower bits]."""
    return state.reshape(2, -1, 2, 1 << bit)


def _excited(state: Reals, bit: int) -> float:
    """Squared length of the part whose bit is 1."""
    part = _by_bit(state, bit)[:, :, 1]
    return float(np.square(part).sum())


def _apply(state: Reals, bit: int, matrix: Matrix) -> None:
    """Multiply the bit by a matrix [2, 2]."""
    view = _by_bit(state, bit)
    zero = view[0, :, 0] + 1j * view[1, :, 0]
    one = view[0, :, 1] + 1j * view[1, :, 1]
    for row in range(2):
        result = matrix[row, 0] * zero + matrix[row, 1] * one
        view[0, :, row], view[1, :, row] = result.real, result.imag
