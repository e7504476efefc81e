"""Engine `rydberg`: pulse sequences as calls.

A result depends on the call, shots and seed, on the versions of the engine and of pulser-core, and
not on the worker or the attempt. The shots of a task are divided evenly among the trajectories of
its noise, each of which has random numbers of its own.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import msgspec
import numpy as np
from numpy.typing import NDArray

from simenv._version import __version__
from simenv.model import TaskOptions, calls
from simenv.model.pulses import RYDBERG, PulseAnswer, PulseCall, check_shots
from simenv.wire import codec
from simenv.wire.messages.client import AssignedTask
from simenv.worker.analog.observations import Observations, ObservedSums
from simenv.worker.analog.samples import (
    SampledSequence,
    Trajectory,
    jumps_of,
    program_of,
    sampled,
)
from simenv.worker.result_files import RunCheckpoints
from simulators.engine import TRAJECTORIES, RunControl, RunOptions
from simulators.execution.philox import block_seed
from simulators.rydberg.drive import Reals
from simulators.rydberg.evolution import NANOSECONDS
from simulators.rydberg.jumps import Observer, TrajectoryPoint, TrajectoryRunner, sorted_jumps
from simulators.rydberg.splitting_kernel import LEAST_ATOMS
from simulators.statevector.checkpoint import Checkpointer, Evolution, digest

_DRAWS, _FIRST = 0, 1  # numbers of streams: draws of pulser, trajectories


class PulseEngine:
    """Engine that evolves atoms under a pulse sequence. `checkpoints`: those of long runs."""

    name = RYDBERG

    def __init__(self, checkpoints: RunCheckpoints | None = None) -> None:
        self._checkpoints = checkpoints

    def call(
        self, call: calls.Call, assigned: AssignedTask, terms: TaskOptions, control: RunControl
    ) -> tuple[bytes, None, int]:
        """See `CallEngine`. Raises ProgramError for a sequence that pulser cannot read, or whose
        sizes differ from those of the call."""
        del terms
        assert isinstance(call, PulseCall)
        check_shots(call, assigned.shots)
        control.check()
        options = RunOptions()
        if self._checkpoints is not None:
            options = self._checkpoints.of_task(options, assigned.task)
        with Checkpointer.of(options, control) as checkpointer:
            run = _Run(call, assigned, control, checkpointer)
            for batch in sampled(call, run.seed_of(_DRAWS), control, trusted=assigned.trusted):
                run.add(batch)
        return codec.encode(run.answer()), None, 0

    def warm_up(self) -> None:
        """Load pulser."""
        import pulser  # noqa: F401


class _Record(msgspec.Struct, frozen=True, array_like=True):
    """What a checkpoint has beside the state of the trajectory under way."""

    number: int  # of runs of trajectories that are finished
    steps: int
    error: float
    point: TrajectoryPoint
    sums: ObservedSums


class _Run:
    """Run of all trajectories of a call."""

    def __init__(
        self,
        call: PulseCall,
        assigned: AssignedTask,
        control: RunControl,
        checkpointer: Checkpointer,
    ) -> None:
        self._call, self._assigned, self._control = call, assigned, control
        self._checkpointer = checkpointer
        self._number = self._steps = 0
        self._error = 0.0
        self._first: tuple[SampledSequence, TrajectoryRunner, Observations] | None = None
        if call.trajectories > 1:
            control.expect(call.trajectories, TRAJECTORIES)
        else:
            control.expect(call.sizes.duration_ns, NANOSECONDS)
        self._begun = self._restored()

    def seed_of(self, stream: int) -> int:
        """Seed of a stream of random numbers."""
        return block_seed(self._assigned.seed, self._call.binding, stream)

    def _restored(self) -> tuple[NDArray[np.complex128], _Record] | None:
        """Return the state and the record of an earlier attempt."""
        fields = codec.encode(self._call), self._assigned.shots, self._assigned.seed, __version__
        self._checkpointer.begin(Evolution(digest([], *fields), sys.maxsize))
        if not self._checkpointer.is_kept:
            return None
        state = np.zeros(1 << max(LEAST_ATOMS, self._call.sizes.atoms), np.complex128)
        if self._checkpointer.restore(state) is None:
            return None
        self._checkpointer.skip_done(sys.maxsize)
        return state, msgspec.msgpack.decode(self._checkpointer.record, type=_Record)

    def _keep(self, state: Reals, point: Callable[[], TrajectoryPoint]) -> None:
        """Write a checkpoint if it is time."""
        assert self._first is not None
        observations = self._first[2]
        self._checkpointer.sweep_done(
            state.view(np.complex128),
            record=lambda: msgspec.msgpack.encode(
                _Record(self._number, self._steps, self._error, point(), observations.saved())
            ),
        )

    def add(self, batch: SampledSequence) -> None:
        """Run a batch of trajectories."""
        if self._first is None:
            runner = TrajectoryRunner(sorted_jumps(jumps_of(batch)), self._call.tolerance)
            shots, seed = self._assigned.shots, self._assigned.seed
            observations = Observations(self._call, shots, seed, batch, self._control)
            self._first = batch, runner, observations
        runner = self._first[1]
        for trajectory in batch.trajectories:
            # Without events during the evolution, repeated draws have the same state.
            repeats = trajectory.repeats if runner.is_random else 1
            for _ in range(repeats):
                self._run(batch, trajectory, trajectory.repeats // repeats)

    def _run(self, batch: SampledSequence, trajectory: Trajectory, times: int) -> None:
        """Run a trajectory that stands for so many, or skip one that an earlier attempt ran."""
        assert self._first is not None
        _, runner, observations = self._first
        begun = None
        if self._begun is not None and self._number < self._begun[1].number:
            self._number += 1
            self._control.advance(TRAJECTORIES, times, before=True)
            return
        if self._begun is None:
            observations.begin(times)
        else:
            state, record = self._begun
            self._begun, self._steps, self._error = None, record.steps, record.error
            observations.restore(record.sums)
            self._control.advance(NANOSECONDS, record.point.now, before=True)
            begun = state.view(np.float64), record.point
        rng = np.random.default_rng(self.seed_of(_FIRST + self._number))
        observer = Observer(observations.times_ns, observations.observe, self._keep)
        run = runner.run(program_of(batch, trajectory), rng, self._control, observer, begun)
        self._error = max(self._error, run.error)
        self._steps += run.steps
        self._number += 1
        self._control.advance(TRAJECTORIES, times)

    def answer(self) -> PulseAnswer:
        """Return the answer of the call."""
        assert self._first is not None
        sequence, _, observations = self._first
        call = self._call
        return PulseAnswer(
            format=calls.CALL_FORMAT,
            shots=self._assigned.shots,
            seed=self._assigned.seed,
            atoms=sequence.atoms,
            basis=sequence.basis,
            simulator=f"simenv {__version__}, {sequence.pulser}",
            error=self._error,
            steps=self._steps,
            trajectories=observations.trajectories,
            duration_ns=call.sizes.duration_ns,
            times=call.times,
            **observations.fields(),
        )
