"""Evolution of a state of atoms under pulses, with a measured error.

A window of time is crossed by one, two and three steps of the splitting of `splitting_kernel`. Its
error has even powers of the step, so that the three states, with the weights of polynomial
extrapolation to a step of zero (Bulirsch and Stoer, 1966), give a state of sixth order; the last
two alone give one of fourth order. The distance of both is the error of the latter, and an upper
estimate of that of the former.

This holds where the drive is smooth within the window. Where it jumps, the leading error of a step
is the commutator of the Hamiltonian at two times (Magnus, 1954): the first moment of the drive
about the middle of the step, times a commutator of an atom's drive with the rest. What the
extrapolation leaves of these moments is known before the window is crossed, and is added to the
distance. Windows end at jumps.

Distances of all windows are added: the evolution keeps lengths, so the sum bounds the distance of
the final state from the exact one. The length of a window follows from the last distance. Lengths
are powers of 2**(1/4), for each of which the phases of the interaction are computed once.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from simulators.engine import RunControl
from simulators.errors import EngineError
from simulators.rydberg.drive import (
    LEVELS,
    Drive,
    DriveRotations,
    PulseProgram,
    Reals,
    WindowMeans,
    rotations,
)
from simulators.rydberg.splitting_kernel import (
    LEAST_ATOMS,
    SCRATCH,
    TILE_ATOMS,
    Steps,
    extrapolate,
    run_steps,
)

_ORDER = 5  # of the distance in the length of the window
FIRST_NS = 8.0
LONGEST_NS = 64.0
SHORTEST_NS = 2.0**-10
LEAST_ROUGH_NS = 0.25  # the spline is smooth within a window of this length
_SAFETY = 0.95
_TABLES = 64  # tables of phases that are kept
NANOSECONDS = "nanoseconds"


class StepTooShort(EngineError):
    """The tolerance needs steps shorter than SHORTEST_NS."""

    code = "tolerance"


class Evolved(msgspec.Struct, frozen=True, eq=False):
    """Final state [2**n] and what is known of its error."""

    state: NDArray[np.complex128]
    error: float  # estimated bound on 1 - fidelity
    steps: int


class InteractionTerms(NamedTuple):
    """Interactions during steps of one length, as the kernel takes them."""

    pairs: Reals  # [bits, bits]
    exchange: Reals  # [bits, bits]; [0, 0]: none
    table: Reals  # [2, 2 * 2**low]: phases of the lowest bits over half a step and over a whole one


class InteractionTables:
    """Interactions of a program, for the lengths of steps that occur and the factors of masked
    atoms."""

    def __init__(self, program: PulseProgram) -> None:
        self._of = program.interaction, program.exchange
        self._masked = program.masked
        self._pairs = by_bits(program.interaction)
        self._exchange = np.zeros((0, 0))
        if program.exchange.any():
            self._exchange = by_bits(program.exchange)
        self._is_masked = by_bits(program.masked_pairs.astype(np.float64)) != 0.0
        low = slice(min(len(self._pairs), TILE_ATOMS))
        kept, masked = (
            np.where(each, self._pairs, 0.0)[low, low]
            for each in (~self._is_masked, self._is_masked)
        )
        self._energies = _energies(kept), _energies(masked)
        self._terms: OrderedDict[tuple[float, float], InteractionTerms] = OrderedDict()

    def are_of(self, program: PulseProgram) -> bool:
        """Whether a program has these interactions."""
        given = zip(self._of, (program.interaction, program.exchange), strict=True)
        return self._masked == program.masked and all(np.array_equal(*each) for each in given)

    def at(self, length_us: float, unmasked: float) -> InteractionTerms:
        """Interactions in steps of this length. `unmasked`: factor of those of masked atoms."""
        key = length_us, unmasked
        terms = self._terms.get(key)
        if terms is None:
            factors = np.where(self._is_masked, unmasked, 1.0)
            pairs = self._pairs * factors
            exchange = self._exchange * factors if self._exchange.size else self._exchange
            energies = self._energies[0] + unmasked * self._energies[1]
            angles = np.multiply.outer((length_us / 2, length_us), energies)
            table = np.hstack([np.cos(angles), -np.sin(angles)])
            terms = InteractionTerms(pairs, exchange, table)
            self._terms[key] = terms
            if len(self._terms) > _TABLES:
                self._terms.popitem(last=False)
        return terms


class AtomEvolution:
    """Evolution of states under one PulseProgram; not thread-safe. States are arrays as the kernel
    has them, [2 * 2**bits]."""

    def __init__(
        self,
        program: PulseProgram,
        tolerance: float,
        losses: Reals | None = None,
        tables: InteractionTables | None = None,
    ) -> None:
        """`tolerance`: of 1 - fidelity. `losses`: [n], rates in 1/us at which the amplitude of a
        bit that is 1 decreases. `tables`: those of the program's interaction, if there are any."""
        program.check()
        self._atoms = program.atoms
        self._bits = max(LEAST_ATOMS, program.atoms)  # atoms that nothing drives fill a vector
        self._drive = Drive(program)
        self._end_ns = float(program.duration_ns)
        self._per_ns = math.sqrt(tolerance) / self._end_ns
        self._tables = tables or InteractionTables(program)
        self._losses = np.zeros(self._bits)
        if losses is not None:
            self._losses[: self._atoms] = losses[::-1]
        self._scratch = np.empty(SCRATCH)
        self._levels: list[Reals] = []
        self._length = FIRST_NS
        self._resume = 0.0  # length before a rough part of the drive
        strongest = np.abs(program.interaction).max() + np.abs(program.exchange).max(initial=0.0)
        self._commutator = (
            float(self._drive.peak + strongest) / 2
        )  # of the drive of an atom, in rad/us
        self.steps = 0

    def ground_state(self) -> Reals:
        """State with all bits 0."""
        state = np.zeros(2 << self._bits)
        state[0] = 1.0
        return state

    def amplitudes(self, state: Reals) -> NDArray[np.complex128]:
        """Normalised amplitudes [2**n] of a state."""
        half, size = state.size // 2, 1 << self._atoms
        result = np.empty(size, np.complex128)
        result.real, result.imag = state[:size], state[half : half + size]
        result /= np.linalg.norm(result)
        return result

    def run(self, control: RunControl) -> Evolved:
        """Evolve the ground state from the first sample to the last. Raises Stopped,
        StepTooShort."""
        control.expect(int(self._end_ns), NANOSECONDS)
        state, now, total = self.ground_state(), 0.0, 0.0
        while now < self._end_ns:
            state, reached, distance = self.step(state, now, self._end_ns, control)
            control.advance(NANOSECONDS, reached - now)
            now, total = reached, total + distance
        return Evolved(self.amplitudes(state), min(1.0, total**2), self.steps)

    def advance(
        self, state: Reals, start: float, end: float, control: RunControl
    ) -> tuple[Reals, float]:
        """Return the state at the end and the bound on its distance from the exact one; not counted
        as progress. The array that was given is used for other states."""
        now, total = start, 0.0
        while now < end:
            state, now, distance = self.step(state, now, end, control)
            total += distance
        return state, total

    def step(
        self, state: Reals, now: float, end: float, control: RunControl
    ) -> tuple[Reals, float, float]:
        """Cross one window; return the state, the time in ns, at most `end`, and the bound on the
        distance that was added. The array that was given is `previous` until the next call."""
        if not self._levels:
            self._levels = [np.empty_like(state) for _ in LEVELS]
        levels = self._levels
        end = self._end_of_piece(now, end)
        while True:
            window = min(self._length, end - now)
            if end - now - window < SHORTEST_NS:
                window = end - now
            allowed = self._per_ns * window
            means = self._drive.window(now, window)
            distance = self._commutator * means.roughness
            if distance > allowed / 2 and window > LEAST_ROUGH_NS:
                self._resume = max(self._resume, self._length)
                self._length = _power(window / 2)
                continue
            every = rotations(means)
            for steps, target in zip(LEVELS, levels, strict=True):
                self._cross(state, target, every, means, steps, control)
            control.check()
            distance += math.sqrt(extrapolate(*levels))
            if distance <= allowed or window <= SHORTEST_NS:
                break
            self._length, self._resume = _next(window, distance, allowed), 0.0
            if window <= 2 * SHORTEST_NS:
                raise StepTooShort(
                    f"a step of {window:g} ns has an error of {distance:g}, {allowed:g} is allowed",
                    hint="a larger tolerance, or atoms further apart",
                )
        following = _next(window, distance, allowed)
        if window < self._length:  # it ended at a jump: the next one is as long as those before
            following = max(following, self._length)
        self._length = max(following, self._resume)
        self._resume = 0.0
        levels[-1], result = state, levels[-1]
        reached = end if end - now - window < SHORTEST_NS else now + window
        return result, reached, distance

    @property
    def pace(self) -> tuple[float, float]:
        """Length of the next window in ns, and the one that follows a rough part of the drive."""
        return self._length, self._resume

    @pace.setter
    def pace(self, lengths: tuple[float, float]) -> None:
        self._length, self._resume = lengths

    @property
    def previous(self) -> Reals:
        """State before the last step."""
        return self._levels[-1]

    def _end_of_piece(self, now: float, end: float) -> float:
        """Time of the next jump of the drive, at most `end`."""
        jumps = self._drive.jumps_ns
        place = int(np.searchsorted(jumps, now + SHORTEST_NS))
        return min(end, float(jumps[place])) if place < len(jumps) else end

    def _cross(
        self,
        state: Reals,
        target: Reals,
        every: DriveRotations,
        means: WindowMeans,
        chosen: slice,
        control: RunControl,
    ) -> None:
        """Apply these steps of a window; write the result to `target`."""
        number, unmasked = chosen.stop - chosen.start, means.unmasked[chosen]
        if (unmasked != unmasked[0]).any():  # each step has interactions of its own
            for k in range(chosen.start, chosen.stop):
                self._cross(state, target, every, means, slice(k, k + 1), control)
                state = target
            return
        length_us = float(means.lengths_us[chosen.start])
        terms = self._tables.at(length_us, float(unmasked[0]))
        n, whole = self._bits, every.whole[chosen].sum()
        turns, phases = np.zeros((number, n, 2)), np.zeros((2 * number, n))
        turns[..., 0] = 1.0
        turns[:, : self._atoms] = every.turns[chosen, ::-1]
        phases[:, : self._atoms] = every.phases[chosen].reshape(2 * number, -1)[:, ::-1]
        steps = Steps(
            number, np.array([length_us]), turns, phases, self._losses,
            np.array([math.cos(whole), math.sin(whole)]), *terms,
        )  # fmt: skip
        run_steps(state, target, steps, self._scratch, control.flag)
        self.steps += number


def _next(window: float, distance: float, allowed: float) -> float:
    """Length of the next window."""
    ratio = _SAFETY * (allowed / max(distance, 1e-30)) ** (1 / (_ORDER - 1))
    return _power(min(LONGEST_NS, max(SHORTEST_NS, window * min(4.0, max(0.25, ratio)))))


def _power(length: float) -> float:
    """Largest power of 2**(1/4) up to a length, so that few lengths occur."""
    return float(2.0 ** (math.floor(4 * math.log2(length) + 1e-9) / 4))


def by_bits(matrix: Reals) -> Reals:
    """Matrix over atoms as one over bits, of which there are LEAST_ATOMS or more."""
    n = len(matrix)
    result = np.zeros((max(n, LEAST_ATOMS),) * 2)
    result[:n, :n] = matrix[::-1, ::-1]
    return result


def _energies(pairs: Reals) -> Reals:
    """Energies [2**n] of the interaction of bits."""
    n = len(pairs)
    result = np.zeros(1 << n)
    index = np.arange(1 << n)
    for b in range(n):
        for c in range(b):
            if pairs[b, c]:
                result += pairs[b, c] * (index >> b & index >> c & 1)
    return result
