"""Backend protocol: all operations on a whole state, in one process or over MPI ranks.

The interpreter and the outputs use `StateBackend` alone: a state and a compiled gate segment are
opaque to them, so a backend may hold both on any machine. Numbers that determine the control flow
have the same bits in each rank. Block sums are added in the order of the blocks, so they have the
same bits for any number of threads and ranks.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from simulators.circuit.ir import Circuit
from simulators.engine import PauliSum, RunOptions
from simulators.execution.philox import uniforms
from simulators.statevector.backend import reductions
from simulators.statevector.backend.matrix import PlacedMatrix
from simulators.statevector.backend.reductions import BlockSum, Projection, SortedDraws
from simulators.statevector.checkpoint import Evolution

Amplitudes = NDArray[np.complexfloating[Any, Any]]
Numbers = NDArray[np.int64]
StateHandle = Any  # one state; opaque to all but its backend
# Gradient of each observable by each slot, float64 [observables, slots], from the final state;
# True: the state is needed afterwards.
GradientFunction = Callable[[StateHandle, bool], NDArray[np.float64]]


class ShotDraws(msgspec.Struct, frozen=True, eq=False):
    """Draw of one uniform for each of some shots."""

    key: tuple[int, int]  # seed and binding
    shots: Numbers  # ascending
    draw: int = 0
    ordered: bool = True  # False: the results may be in any order


class CompiledSegment(Protocol):
    """Gate segment compiled for a backend; depends on the structure, not on parameters."""

    @property
    def operations(self) -> int:
        """Operations of the circuit in the segment."""

    @property
    def costs(self) -> tuple[float, ...]:
        """Cost of each sweep over a large state, in their order; none for a small state. Loading
        and storing all of it costs `planning.fusion.SWEEP`."""

    @property
    def num_steps(self) -> int:
        """Steps of all sweeps over a large state; 0 for a small state."""

    @property
    def memory_bytes(self) -> int:
        """Bytes of its arrays."""

    def arrays(self) -> list[NDArray[Any]]:
        """Arrays that identify the segment, for the digest of a checkpoint."""

    def floats(self, circuit: Circuit, params: NDArray[np.float64]) -> NDArray[np.float64]:
        """Coefficients for these parameters, the argument of `StateBackend.apply`."""


class StateBackend(Protocol):
    """Operations on whole states. Every method may raise Stopped and OutOfMemory. Over ranks each
    method is called by all of them, in the same order, with the same arguments."""

    @property
    def is_root(self) -> bool:
        """True in the one process that reports results."""

    def check(self) -> None:
        """Raise Stopped if the run was asked to stop."""

    def for_width(self, num_qubits: int) -> StateBackend:
        """Backend for states of this width: each process has its own narrow states."""

    def max_live_states(self, num_qubits: int, options: RunOptions) -> int:
        """Largest number of states that memory allows a dynamic circuit to hold at once."""

    def expect(self, total: int, unit: str, sizes: Sequence[float] | None = None) -> None:
        """Add work to that of the run, for its progress: see `RunControl`."""

    def zero_state(
        self, num_qubits: int, options: RunOptions, way: Evolution | None = None
    ) -> StateHandle:
        """Prepare |0...0>. `way`: its evolution, if checkpoints are allowed; the state is then as
        far as an earlier attempt has come, and the passes of that attempt are skipped."""

    def copy(self, state: StateHandle) -> StateHandle:
        """Copy of a state."""

    def empty_like(self, state: StateHandle) -> StateHandle:
        """Memory for a second state."""

    def ensemble(self, num_qubits: int, options: RunOptions, *, branching: bool) -> Ensemble:
        """An empty ensemble of states; `branching`: it will hold many."""

    def apply(
        self, state: StateHandle, segment: CompiledSegment, floats: NDArray[np.float64]
    ) -> None:
        """Apply a gate segment; `floats`: see `CompiledSegment.floats`."""

    def multiply(self, state: StateHandle, dense: PlacedMatrix) -> None:
        """Apply a matrix."""

    def block_sums(
        self, item: BlockSum, state: StateHandle, other: StateHandle | None = None
    ) -> NDArray[np.float64]:
        """Two sums of each block of the whole state: float64 [blocks, 2]."""

    def project(
        self, state: StateHandle, into: StateHandle, item: Projection, factor: float
    ) -> None:
        """Set `into` to the part of `state` with that outcome, times `factor`."""

    def locate_samples(self, state: StateHandle, draws: SortedDraws) -> NDArray[np.int64]:
        """Basis state of each draw; valid on the root."""

    def distribution(
        self, state: StateHandle, wires: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Exact distribution of these qubits: values (bit k is wires[k]) and probabilities. The
        probabilities add up to the state's norm; values without weight are omitted. Empty in ranks
        other than the root."""

    def expectations(
        self, state: StateHandle, strings: list[tuple[int, int]]
    ) -> NDArray[np.float64]:
        """Expectation values <state|P|state> of each string (x, z): float64 [strings]."""

    def gather_statevector(self, state: StateHandle) -> Amplitudes | None:
        """All amplitudes, qubit 0 the lowest index bit; None in ranks other than the root."""

    def amplitudes(self, state: StateHandle, indices: Numbers) -> Amplitudes | None:
        """Amplitude of each of these basis states: [indices]; None in ranks other than the root."""

    def plan_gradients(
        self, circuit: Circuit, params: NDArray[np.float64], observables: tuple[PauliSum, ...]
    ) -> GradientFunction:
        """Prepare the reverse pass, and add its sweeps to the run's total. Raises Unsupported if
        the backend has no gradients."""


class Ensemble(Protocol):
    """States of all branches of a dynamic circuit, by number. Every method may raise Stopped and
    OutOfMemory."""

    @property
    def states(self) -> StateBackend:
        """Backend of the states."""

    def clear(self) -> None:
        """Remove all states."""

    def zero(self, way: Evolution | None = None) -> int:
        """Make a state |0...0>; `way`: see `StateBackend.zero_state`."""

    def copied(self, ordinals: Numbers) -> Numbers:
        """Make copies of these states."""

    def copy_of(self, state: StateHandle) -> int:
        """Copy a state of the same backend that is in no ensemble, or in another one."""

    def blank(self, ordinals: Numbers) -> Numbers:
        """Make as many new states, with undefined amplitudes."""

    def release(self, ordinals: Numbers) -> None:
        """Free these states for later ones."""

    def apply(
        self, ordinals: Numbers, segment: CompiledSegment, floats: NDArray[np.float64]
    ) -> None:
        """Apply a gate segment to each of these states."""

    def multiply(self, ordinals: Numbers, matrix: PlacedMatrix) -> None:
        """Apply a matrix to each of these states."""

    def probs(self, ordinals: Numbers, qubit: int) -> NDArray[np.float64]:
        """Weights of the outcomes 0 and 1 of a qubit: float64 [states, 2]."""

    def project(
        self, ordinals: Numbers, into: Numbers, item: Projection, factors: NDArray[np.float64]
    ) -> None:
        """Set state into[k] to the part of state ordinals[k] with that outcome, times
        factors[k]."""

    def equals(self, ordinals: Numbers, near: float, tolerance: float) -> Numbers:
        """Index into `ordinals` of the state that represents each state: int64 [states]. Two states
        are equal if their distance is at most `tolerance`, up to a global phase. Only states whose
        sketches differ by at most `near` are compared."""

    def sample(self, ordinals: Numbers, branch_of: Numbers, draws: ShotDraws) -> Numbers:
        """Sampled basis state of each shot, shot k from state ordinals[branch_of[k]]: int64
        [shots]. With several states the results are in order."""

    def state(self, number: int) -> StateHandle:
        """State with that number."""


def total(sums: NDArray[np.float64]) -> tuple[float, float]:
    """Sum of both columns in the order of the blocks."""
    if len(sums) == 1:
        return float(sums[0, 0]), float(sums[0, 1])
    ends = np.cumsum(sums, axis=0)[-1]
    return float(ends[0]), float(ends[1])


def equal_up_to_phase(
    states: StateBackend, left: StateHandle, right: StateHandle, tolerance: float
) -> bool:
    """Return whether the states are equal up to a global phase: |left - phase * right| <=
    tolerance."""
    x, y = total(states.block_sums(BlockSum(reductions.OVERLAP), right, left))
    size = abs(complex(x, y))
    if size < 0.5:
        return False
    turned = BlockSum(reductions.DISTANCE, turn=complex(x, y) / size)
    gap, _ = total(states.block_sums(turned, left, right))
    return gap <= tolerance * tolerance


def sample(states: StateBackend, state: StateHandle, draws: ShotDraws) -> Numbers:
    """Sample the basis state of each of these shots; see `sample_blocks`."""
    sums = states.block_sums(BlockSum(reductions.NORM), state)[:, 0]
    return sample_blocks(sums, draws, functools.partial(states.locate_samples, state))


def sample_blocks(
    sums: NDArray[np.float64], draws: ShotDraws, locate: Callable[[SortedDraws], Numbers]
) -> Numbers:
    """Sample the basis state of each of these shots. `sums`: norms of the blocks; `locate`: as
    `StateBackend.locate_samples`. All inverse sampling has this form (see `small`): with t = u *
    total, the outcome is the first index whose cumulative probability is greater than t; cumulative
    sums are those of the blocks before, in order, plus the running sum in the block."""
    ends = np.cumsum(sums)
    values = np.empty(draws.shots.size)
    uniforms(*draws.key, draws.draw, draws.shots, values)
    values *= ends[-1]
    np.minimum(values, np.nextafter(ends[-1], 0.0), out=values)  # despite rounding, below the end
    order = np.argsort(values, kind="stable") if draws.ordered else None
    values = np.sort(values) if order is None else values[order]
    begins = np.zeros(ends.size + 1, np.int64)
    begins[1:] = np.searchsorted(values, ends, side="left")
    result = locate(SortedDraws(np.concatenate(([0.0], ends[:-1])), begins, values))
    if order is None:
        return result
    indices = np.empty(draws.shots.size, np.int64)
    indices[order] = result
    return indices
