"""Engine `rydberg`: pulse sequences as calls.

A result depends on the call, shots and seed, on the versions of the engine and of pulser-core, and
not on the worker or the attempt. The shots of a task are divided evenly among the trajectories of
its noise, each of which has random numbers of its own.
"""

from __future__ import annotations

import numpy as np

from simenv._version import __version__
from simenv.model import TaskOptions, calls
from simenv.model.pulses import RYDBERG, PulseAnswer, PulseCall, check_shots
from simenv.wire import codec
from simenv.wire.messages.client import AssignedTask
from simenv.worker.analog.observations import Observations
from simenv.worker.analog.samples import SampledSequence, jumps_of, program_of, sampled
from simulators.engine import TRAJECTORIES, RunControl
from simulators.execution.philox import block_seed
from simulators.rydberg.evolution import NANOSECONDS
from simulators.rydberg.jumps import Observer, TrajectoryRunner, sorted_jumps

_DRAWS, _FIRST = 0, 1  # numbers of streams: draws of pulser, trajectories


class PulseEngine:
    """Engine that evolves atoms under a pulse sequence."""

    name = RYDBERG

    def call(
        self, call: calls.Call, assigned: AssignedTask, terms: TaskOptions, control: RunControl
    ) -> tuple[bytes, None, int]:
        """See `CallEngine`. Raises ProgramError for a sequence that pulser cannot read, or whose
        sizes differ from those of the call."""
        del terms
        assert isinstance(call, PulseCall)
        check_shots(call, assigned.shots)
        control.check()
        run = _Run(call, assigned, control)
        for batch in sampled(call, run.seed_of(_DRAWS), trusted=assigned.trusted):
            run.add(batch)
        return codec.encode(run.answer()), None, 0

    def warm_up(self) -> None:
        """Load pulser."""
        import pulser  # noqa: F401


class _Run:
    """Run of all trajectories of a call."""

    def __init__(self, call: PulseCall, assigned: AssignedTask, control: RunControl) -> None:
        self._call, self._assigned, self._control = call, assigned, control
        self._number = self._steps = 0
        self._error = 0.0
        self._first: tuple[SampledSequence, TrajectoryRunner, Observations] | None = None
        if call.trajectories > 1:
            control.expect(call.trajectories, TRAJECTORIES)
        else:
            control.expect(call.sizes.duration_ns, NANOSECONDS)

    def seed_of(self, stream: int) -> int:
        """Seed of a stream of random numbers."""
        return block_seed(self._assigned.seed, self._call.binding, stream)

    def add(self, batch: SampledSequence) -> None:
        """Run a batch of trajectories."""
        if self._first is None:
            runner = TrajectoryRunner(sorted_jumps(jumps_of(batch)), self._call.tolerance)
            shots, seed = self._assigned.shots, self._assigned.seed
            self._first = batch, runner, Observations(self._call, shots, seed, batch)
        _, runner, observations = self._first
        observer = Observer(observations.times_ns, observations.observe)
        for trajectory in batch.trajectories:
            program = program_of(batch, trajectory)
            # Without events during the evolution, repeated draws have the same state.
            repeats = trajectory.repeats if runner.is_random else 1
            times = trajectory.repeats // repeats
            for _ in range(repeats):
                rng = np.random.default_rng(self.seed_of(_FIRST + self._number))
                observations.begin(times)
                run = runner.run(program, rng, self._control, observer)
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
