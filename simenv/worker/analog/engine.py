"""Engine `rydberg`: pulse sequences as calls.

A result depends on the call, shots and seed, on the versions of the engine and of pulser-core, and
not on the worker or the attempt. The shots of a task are divided evenly among the trajectories of
its noise, each of which has random numbers of its own.
"""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import NDArray

from simenv._version import __version__
from simenv.model import TaskOptions, calls
from simenv.model.pulses import RYDBERG, PulseAnswer, PulseCall, check_shots
from simenv.wire import codec
from simenv.wire.messages.client import AssignedTask
from simenv.worker.analog.samples import SampledSequence, jumps_of, program_of, sampled
from simulators.engine import TRAJECTORIES, RunControl
from simulators.execution.philox import block_seed
from simulators.rydberg import outcomes as out
from simulators.rydberg.evolution import AtomEvolution
from simulators.rydberg.jumps import TrajectoryRunner, sorted_jumps

_DRAWS, _OUTCOMES, _FIRST = 0, 1, 2  # numbers of streams: draws of pulser, shots, trajectories


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
        sums = _Sums(call, assigned.shots, assigned.seed)
        drawn = block_seed(assigned.seed, call.binding, _DRAWS)
        first: SampledSequence | None = None
        runner: TrajectoryRunner | None = None
        number = 0
        for batch in sampled(call, drawn, trusted=assigned.trusted):
            first = first or batch
            for trajectory in batch.trajectories:
                program = program_of(batch, trajectory)
                if not call.noise:
                    evolved = AtomEvolution(program, call.tolerance).run(control)
                    sums.add(evolved.state, evolved.error, evolved.steps, 1)
                    continue
                if runner is None:
                    runner = TrajectoryRunner(sorted_jumps(jumps_of(batch)), call.tolerance)
                    control.expect(call.trajectories, TRAJECTORIES)
                # Without events during the evolution, repeated draws have the same state.
                repeats = trajectory.repeats if runner.is_random else 1
                times = trajectory.repeats // repeats
                for _ in range(repeats):
                    stream = block_seed(assigned.seed, call.binding, _FIRST + number)
                    run = runner.run(program, np.random.default_rng(stream), control)
                    sums.add(run.state, run.error, run.steps, times)
                    number += 1
                    control.advance(TRAJECTORIES, times)
        assert first is not None
        return codec.encode(sums.answer(first)), None, 0

    def warm_up(self) -> None:
        """Load pulser."""
        import pulser  # noqa: F401


class _Sums:
    """Outcomes and sums over trajectories."""

    def __init__(self, call: PulseCall, shots: int, seed: int) -> None:
        self._call, self._shots, self._seed = call, shots, seed
        stream = block_seed(seed, call.binding, _OUTCOMES)
        self._rng = np.random.Generator(np.random.Philox(stream))
        self._trajectories = self._steps = 0
        self._error = 0.0
        self._occupations = np.zeros(call.sizes.atoms)
        self._expectation = np.zeros(len(call.observables))
        self._outcomes: list[NDArray[np.uint64]] = []
        self._state: NDArray[np.complex128] | None = None

    def add(self, state: NDArray[np.complex128], error: float, steps: int, times: int) -> None:
        """Add a final state that stands for this number of trajectories."""
        call = self._call
        last = self._trajectories + times
        shots = self._shots * last // call.trajectories
        shots -= self._shots * self._trajectories // call.trajectories
        self._trajectories = last
        self._steps += steps
        self._error = max(self._error, error)
        self._occupations += times * out.occupations(state)
        for k, observable in enumerate(call.observables):
            coefficients = np.frombuffer(observable.coefficients)
            self._expectation[k] += times * out.expectation(state, observable.labels, coefficients)
        if shots:
            self._outcomes.append(out.sample_outcomes(state, self._rng.random(shots)))
        if "statevector" in call.outputs:
            self._state = state

    def answer(self, sequence: SampledSequence) -> PulseAnswer:
        """Return the answer of the call."""
        call = self._call
        head = PulseAnswer(
            calls.CALL_FORMAT,
            self._shots,
            self._seed,
            sequence.atoms,
            sequence.basis,
            f"simenv {__version__}, {sequence.pulser}",
            self._error,
            self._steps,
            self._trajectories,
            (self._occupations / self._trajectories).astype("<f8").tobytes(),
        )
        fields: dict[str, bytes] = {}
        if self._outcomes and {"counts", "memory"} & set(call.outputs):
            drawn = np.concatenate(self._outcomes)
            if sequence.false_positive or sequence.false_negative:
                errors = sequence.false_positive, sequence.false_negative
                drawn = out.flipped(drawn, call.sizes.atoms, errors, self._rng)
            if "memory" in call.outputs:
                fields["memory"] = drawn.astype("<u8").tobytes()
            if "counts" in call.outputs:
                distinct, counts = np.unique(drawn, return_counts=True)
                fields["outcomes"] = distinct.astype("<u8").tobytes()
                fields["counts"] = counts.astype("<u8").tobytes()
        if self._state is not None:
            fields["statevector"] = self._state.astype("<c16").tobytes()
        if call.observables:
            values = self._expectation / self._trajectories
            fields["expectation"] = values.astype("<f8").tobytes()
        return msgspec.structs.replace(head, **fields)
