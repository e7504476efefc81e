"""Outputs of a pulse sequence at its times, summed over trajectories.

Invariant: the random numbers of a shot are a function of (seed, binding, time, shot), and the shots
are divided evenly among the trajectories: outcomes do not depend on the order of trajectories, nor
on an interruption between two of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from simenv.model.pulses import PulseCall
from simenv.worker.analog.samples import SampledSequence, noiseless
from simulators.engine import RunControl
from simulators.execution.philox import uniforms
from simulators.rydberg import outcomes as out
from simulators.rydberg.drive import Reals
from simulators.rydberg.energy import EnergyMoments

_CHUNK = 2**18  # shots that are drawn at once
_DRAWS = 64  # random numbers of a shot at one time: its outcome, then the detection of each atom
Numbers = NDArray[np.uint64]


class ObservedSums(msgspec.Struct, frozen=True, array_like=True):
    """Observations as they are stored in a checkpoint; arrays are little-endian."""

    first: int
    last: int
    means: bytes
    squares: bytes
    outcomes: tuple[bytes, ...]
    counts: tuple[bytes, ...]
    memory: bytes
    states: list[bytes]


class Observations:
    """Sums of the values at each time, and outcomes of the shots."""

    def __init__(
        self,
        call: PulseCall,
        shots: int,
        seed: int,
        sequence: SampledSequence,
        control: RunControl,
    ) -> None:
        """`sequence`: for its rates of detection and its Hamiltonian without noise."""
        self._control = control
        self._call, self._shots, self._seed = call, shots, seed
        duration = call.sizes.duration_ns
        self.times_ns = tuple(time * duration for time in call.times)
        self._rates = sequence.false_positive, sequence.false_negative
        self._energy = EnergyMoments(noiseless(sequence)) if "energy" in call.outputs else None
        self._coefficients = [np.frombuffer(each.coefficients) for each in call.observables]
        self._first = self._last = 0  # trajectories for which the present state stands
        # Means, and sums of squared distances from them (Welford, 1962).
        self._means = np.zeros((len(call.times), sum(call.widths.values())))
        self._squares = np.zeros_like(self._means)
        none = np.zeros(0, np.uint64)
        self._counts: list[tuple[Numbers, Numbers]] = [(none, none)] * len(call.times)
        self._drawn: list[list[Numbers]] = [[] for _ in call.times]  # and not in the counts yet
        kept = "memory" in call.outputs
        self._memory = np.zeros((len(call.times), shots if kept else 0), np.uint64)
        self._states: list[bytes] = []

    @property
    def trajectories(self) -> int:
        """Number of trajectories whose values are in the sums."""
        return self._last

    def begin(self, trajectories: int) -> None:
        """Begin a state that stands for this number of trajectories."""
        self._first, self._last = self._last, self._last + trajectories

    def observe(self, number: int, state: out.Amplitudes, lost: Sequence[int]) -> None:
        """Add the state at the time of this number. Raises Stopped."""
        values = self._values(number, state, lost)
        weight = self._last - self._first
        distance = values - self._means[number]
        self._means[number] += weight / self._last * distance
        self._squares[number] += weight * distance * (values - self._means[number])
        if "statevector" in self._call.outputs:
            self._states.append(state.astype("<c16").tobytes())
        if {"counts", "memory"} & set(self._call.outputs):
            first, last = (
                self._shots * each // self._call.trajectories for each in (self._first, self._last)
            )
            for begin in range(first, last, _CHUNK):
                self._control.check()
                self._draw(number, state, np.arange(begin, min(last, begin + _CHUNK)))

    def _values(self, number: int, state: out.Amplitudes, lost: Sequence[int]) -> Reals:
        parts = [out.occupations(state)]
        self._control.check()
        if "correlation" in self._call.outputs:
            parts.append(out.correlations(state).ravel())
        if self._energy is not None:
            moments = self._energy.of(state, self.times_ns[number], lost, self._control)
            parts.append(np.array(moments))
        for observable, own in zip(self._call.observables, self._coefficients, strict=True):
            value = out.expectation(state, observable.labels, own, self._control.check)
            parts.append(np.array([value]))
        return np.concatenate(parts)

    def _draw(self, number: int, state: out.Amplitudes, shots: NDArray[np.int64]) -> None:
        """Draw the outcomes of these shots, with errors of detection."""
        drawn = out.sample_outcomes(state, self._uniforms(number, 0, shots))
        atoms = self._call.sizes.atoms
        if any(self._rates):
            numbers = np.array([self._uniforms(number, 1 + atom, shots) for atom in range(atoms)])
            drawn = out.flipped(drawn, atoms, self._rates, numbers)
        if self._memory.size:
            self._memory[number, shots[0] : shots[-1] + 1] = drawn
        if "counts" in self._call.outputs:
            pending = self._drawn[number]
            pending.append(drawn)
            if sum(each.size for each in pending) >= _CHUNK:
                self._count(number)

    def _count(self, number: int) -> None:
        """Add drawn outcomes to the counts."""
        outcomes, counts = self._counts[number]
        drawn = np.concatenate([outcomes, *self._drawn[number]])
        weights = np.ones_like(drawn)
        weights[: counts.size] = counts
        distinct, places = np.unique(drawn, return_inverse=True)
        sums = np.zeros(distinct.size, np.uint64)
        np.add.at(sums, places, weights)
        self._counts[number], self._drawn[number] = (distinct, sums), []

    def _uniforms(self, number: int, draw: int, shots: NDArray[np.int64]) -> Reals:
        result = np.empty(shots.size)
        key = np.uint64(self._seed), np.uint64(self._call.binding)
        uniforms(*key, np.uint64(_DRAWS * number + draw), shots, result)
        return result

    def saved(self) -> ObservedSums:
        """Return all that has been observed."""
        for number in range(len(self._counts)):
            self._count(number)
        return ObservedSums(
            self._first,
            self._last,
            self._means.tobytes(),
            self._squares.tobytes(),
            tuple(each.tobytes() for each, _ in self._counts),
            tuple(each.tobytes() for _, each in self._counts),
            self._memory.tobytes(),
            self._states,
        )

    def restore(self, saved: ObservedSums) -> None:
        """Go to what an earlier run of the same call had observed."""
        self._first, self._last = saved.first, saved.last
        self._means[...] = np.frombuffer(saved.means).reshape(self._means.shape)
        self._squares[...] = np.frombuffer(saved.squares).reshape(self._squares.shape)
        self._memory[...] = _numbers(saved.memory).reshape(self._memory.shape)
        pairs = zip(saved.outcomes, saved.counts, strict=True)
        self._counts = [(_numbers(outcomes), _numbers(counts)) for outcomes, counts in pairs]
        self._states = list(saved.states)

    def fields(self) -> dict[str, Any]:
        """Fields of the answer."""
        fields: dict[str, Any] = {}
        first = 0
        for name, width in self._call.widths.items():
            fields[name] = self._means[:, first : first + width].astype("<f8").tobytes()
            first += width
        if self._call.noise:
            number = self._last
            errors = np.sqrt(self._squares / (number * (number - 1) if number > 1 else np.nan))
            fields["standard_errors"] = errors.astype("<f8").tobytes()
        if "counts" in self._call.outputs:
            for k in range(len(self._counts)):
                self._count(k)
            fields["outcomes"] = tuple(each.astype("<u8").tobytes() for each, _ in self._counts)
            fields["counts"] = tuple(each.astype("<u8").tobytes() for _, each in self._counts)
        if self._memory.size:
            memory = self._memory
            if self._call.trajectories > 1:  # else those of like trajectories are neighbours
                numbers = self._uniforms(len(self.times_ns), 0, np.arange(self._shots))
                memory = memory[:, np.argsort(numbers, kind="stable")]
            fields["memory"] = memory.astype("<u8").tobytes()
        if self._states:
            fields["statevector"] = b"".join(self._states)
        return fields


def _numbers(packed: bytes) -> Numbers:
    return np.frombuffer(packed, np.uint64)
