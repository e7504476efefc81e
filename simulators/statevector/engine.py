"""Statevector engine: chooses the path of a run.

Counts of a small static circuit take one compiled call (`small.counts`). Sweeps of such a circuit,
its probabilities and expectation values take another (`small.batch`). Other runs use a state in
memory (`execute`), and mid-circuit operations use `dynamic`. All paths but the first are imported
at first use: a first small circuit does not wait for them. Over MPI ranks (`comm`) wide circuits
use a distributed state; narrow ones run in the root rank.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from simulators import engine as simulators_engine
from simulators.catalog import SMALL_QUBITS, builtin_card
from simulators.circuit.ir import Circuit, bell, feed_forward, ghz, outcome_width
from simulators.circuit.noise import NoiseProgram
from simulators.compiler import kernel
from simulators.engine import SAMPLED, EngineResult, Request, RunControl, RunOptions, ThreadPool
from simulators.errors import Stopped, Unsupported
from simulators.execution import circuit_checks, requests
from simulators.statevector.parts import KeptStates
from simulators.statevector.plan import ExecutionPlan, RequestExecution, compiled_qubits, run_rows
from simulators.statevector.small import counts
from simulators.statevector.small.counts import MAX_CLBITS, OUTCOMES, VALUES
from simulators.statevector.small.merged_evolution import MIN_QUBITS, is_merged

if TYPE_CHECKING:
    from simulators.compiler.kernel import Group as KernelGroup
    from simulators.statevector.distributed.communicator import Communicator
    from simulators.statevector.distributed.executor import CommStats
    from simulators.statevector.small.batch import Batch
    from simulators.statevector.small.merged_evolution import MergedEvolution

CARD = builtin_card("statevector")
_COUNTS = ("counts",)
_BATCHED = {"counts", "memory", "probabilities", "expectation"}
_QUICK_BYTES = 2**16  # size of a list of operations far below any limit of steps
_WARM = ("counts", "probabilities", "expectation")
_ZZ = simulators_engine.PauliSum(("ZZ",), np.ones(1))
_WIDTHS = tuple(outcome_width(bits) for bits in range(65))


class StatevectorEngine:
    """Engine with all amplitudes in memory. `small=False` forces the dense path, for tests.

    `comm`: an mpi4py communicator whose ranks hold the amplitudes together. Then `run` is called in
    all of them with the same arguments; the first gets the result, the others None, and errors of
    one are raised in all. A stop of any rank stops all. `RunOptions.threads` and `memory_bytes` are
    a rank's. At the end `close` is called in all of them.
    """

    name = "statevector"

    def __init__(self, *, small: bool = True, comm: Any = None) -> None:
        self._buffer = counts.scratch()
        self._count = counts.count.entry_point  # called for every small circuit
        self._bytes = self._buffer.data  # slicing this is three times as fast as slicing the array
        self._batch: Batch | None = None
        self._merged: MergedEvolution | None = None
        self._small = SMALL_QUBITS if small else -1
        self.kept_states = KeptStates()
        self._group: Communicator | None = None
        if comm is not None and comm.Get_size() > 1:
            from simulators.statevector.distributed.communicator import Communicator

            self._group = Communicator(comm)

    def close(self) -> None:
        if self._group is not None:
            self._group.close()
            self._group = None

    @property
    def traffic(self) -> CommStats | None:
        """Statistics of this rank's exchanges in the last run; None without other ranks."""
        return None if self._group is None else self._group.traffic

    def worth_caching(self, circuit: Circuit) -> bool:
        """Return False for small circuits without blocks, which are run without a plan."""
        return circuit.num_qubits > self._small or circuit.conditions_data != b""

    def plan(
        self, circuit: Circuit, noise: NoiseProgram | None, options: RunOptions
    ) -> simulators_engine.Plan:
        circuit_checks.check_request(CARD, circuit, noise, options, reduced=True)
        if noise is not None and noise.leakage is not None:
            from simulators.execution.flagged import FlaggedPlan

            return FlaggedPlan(self, circuit, noise, options)
        if noise is not None and noise.detunings is not None:
            from simulators.execution.detuned import DetunedPlan

            return DetunedPlan(self, circuit, noise, options)
        if noise is not None:
            from simulators.statevector.noisy import NoisyPlan

            return NoisyPlan(circuit, noise, options, small=self._small >= 0)
        if options.parts is not None:
            from simulators.statevector.parts import PartsPlan

            return PartsPlan(circuit, options.parts, options.precision)
        plan = ExecutionPlan(options.precision)
        if self.worth_caching(circuit):
            narrow = compiled_qubits(circuit) if self._small >= 0 else -1
            plan.prepare(circuit, CARD.max_qubits, narrow)
        return plan

    def run(
        self,
        plan: simulators_engine.Plan,
        circuit: Circuit,
        request: Request,
        options: RunOptions,
        control: RunControl,
    ) -> EngineResult:
        """Run as `engine.Engine`; over ranks, only the first returns a result."""
        if getattr(plan, "is_hidden", False):
            return self._detuned(plan, circuit, request, options, control)
        requests.check_run(circuit, options)
        bindings = request.bindings
        number = (
            1
            if bindings is None and not circuit.num_slots
            else requests.num_bindings(circuit, request)
        )
        is_noisy = getattr(plan, "is_noisy", False)
        is_small = circuit.num_qubits <= self._small and not is_noisy and options.parts is None
        if is_small and self._group is None:
            result = self._compiled(circuit, request, number, control)
            if result is not None:
                return result
        run = requests.EngineRun(circuit, request, options, control)
        if is_noisy:
            return self._noisy(plan, run)
        if options.parts is not None:
            return self._in_parts(plan, run)
        if not isinstance(plan, ExecutionPlan):
            raise TypeError(f"a plan of {type(plan).__name__}, not of this engine")
        job = RequestExecution.of(plan, run, number)
        circuit_checks.check_width(CARD, job.widest)
        if self._group is None:
            return _in_states(job) if is_small else self._alone(job)
        result = self._group.run(
            SMALL_QUBITS if len(job.pieces) == 1 and self._is_compiled(job) else job.widest,
            job,
            lambda: self._alone(job),
            lambda states: run_rows(states, job),
        )
        return result  # type: ignore[return-value]  # None in all ranks but the first

    def takes_shot_values(
        self, plan: simulators_engine.Plan, circuit: Circuit, request: Request, options: RunOptions
    ) -> bool:
        """Return whether a plan runs shots with values of their own: trajectories of a circuit
        that measures at its end only."""
        if not getattr(plan, "is_noisy", False):
            return False
        part = plan.part(circuit, request)  # type: ignore[attr-defined]
        if part.located is None:
            return False
        group = self._group
        return group is None or part.fits(options.memory_bytes, group.neighbours)

    def _detuned(self, plan: Any, *terms: Any) -> EngineResult:
        return plan.run(self, *terms)  # type: ignore[no-any-return]

    def _in_parts(self, plan: Any, run: requests.EngineRun) -> EngineResult:
        if self._group is not None:
            hint = "ranks=1: in one process"
            raise Unsupported("a circuit in parts, over several ranks", hint=hint)
        from simulators.statevector.backend.local import LocalBackend
        from simulators.statevector.parts import run_parts

        with ThreadPool(run.options.threads, run.control) as thread_pool:
            states = LocalBackend(thread_pool, run.control)
            return run_parts(states, plan, run, self.kept_states)

    def _noisy(self, plan: Any, run: requests.EngineRun) -> EngineResult:
        part = plan.part(run.circuit, run.request)
        width = part.part.circuit.num_qubits
        circuit_checks.check_width(CARD, width)
        if self._group is None:
            result = part.local(run)
        else:
            has_room = part.fits(run.options.memory_bytes, self._group.neighbours)
            result = self._group.run_noisy(
                width,
                run,
                has_room,
                lambda *ranks: part.local(run, *ranks),
                lambda states: part.branched(states, run),
            )
        return result  # type: ignore[no-any-return]  # None in all ranks but the first

    def _alone(self, job: RequestExecution) -> EngineResult:
        """Run all rows in this process."""
        if len(job.pieces) == 1 and self._is_compiled(job):
            result = self._compiled(job.circuit, job.request, job.number, job.control)
            if result is not None:
                return result
        return _in_states(job)

    def _is_compiled(self, job: RequestExecution) -> bool:
        """Return whether a single component is run in one compiled call."""
        circuit, request = job.circuit, job.request
        if circuit.num_qubits <= self._small:
            return True
        is_counted = self._small >= 0 and request.outputs == _COUNTS and request.shots > 0
        return is_counted and circuit.num_qubits <= compiled_qubits(circuit)

    def _compiled(
        self, circuit: Circuit, request: Request, number: int, control: RunControl
    ) -> EngineResult | None:
        """Run all rows in one compiled call; None if the circuit or the request needs the general
        path."""
        outputs = request.outputs
        if circuit.num_clbits > MAX_CLBITS or (
            request.shots < 1 and not SAMPLED.isdisjoint(outputs)
        ):
            return None
        if outputs == _COUNTS and number == 1:
            params = circuit.params_data
            if circuit.slots_data:
                params = requests.bind(circuit, request, 0).tobytes()
            result = self._counts(
                circuit, params, request.shots, request.seed, request.binding, control
            )
        elif set(outputs) <= _BATCHED:
            if self._batch is None:
                from simulators.statevector.small.batch import Batch

                self._batch = Batch()
            result = self._batch.run(circuit, request, control)
        else:
            return None
        if not isinstance(result, int):
            return result
        if result == counts.NOTHING:
            requests.refuse_sampled(next(o for o in outputs if o in SAMPLED), False, request.shots)
        if result == counts.STOPPED:
            raise Stopped()
        return None

    def fast_counts(
        self, circuit: Circuit, shots: int, seed: int, binding: int, control: RunControl
    ) -> EngineResult | None:
        if (
            circuit.num_qubits > self._small
            or circuit.num_slots
            or shots < 1
            or circuit.num_clbits > MAX_CLBITS
            or len(circuit.ops_data) > _QUICK_BYTES
            or self._group is not None
        ):
            return None
        result = self._counts(circuit, circuit.params_data, shots, seed, binding, control)
        return None if isinstance(result, int) else result

    def _counts(
        self,
        circuit: Circuit,
        params: bytes,
        shots: int,
        seed: int,
        binding: int,
        control: RunControl,
    ) -> EngineResult | int:
        width = _WIDTHS[circuit.num_clbits]
        evolved, operations = 0, len(circuit.ops_data) // 2  # without an array
        if circuit.num_qubits >= MIN_QUBITS and is_merged(circuit.num_qubits, operations):
            if self._merged is None:
                from simulators.statevector.small.merged_evolution import MergedEvolution

                self._merged = MergedEvolution()
            evolved = self._merged.run_single(circuit, params, self._buffer, control)
            if evolved < 0:
                return evolved
        # A plain tuple of the fields of `counts.CircuitBytes`, which costs 0.3 us less.
        stored = (
            circuit.table.rows, circuit.ops_data, circuit.qubits_data, circuit.clbits_data, params,
            circuit.num_qubits, circuit.num_clbits,
        )  # fmt: skip
        result: int = self._count(
            self._buffer, stored, control.flag, width, shots, seed, binding, evolved
        )
        if result < 0:
            return result
        data = self._bytes
        return EngineResult(
            1,
            width,
            data[OUTCOMES : OUTCOMES + result * width].tobytes(),
            data[VALUES : VALUES + 4 * result].tobytes(),
        )

    def warm_up(self) -> None:
        """Run a small circuit, and circuits on each further path whose kernels are loaded. Ranks
        call it independently: none waits for another."""
        alone = StatevectorEngine() if self._group is not None else self
        _run(alone, bell(), _COUNTS)
        if _are_loaded("wide"):
            _run(alone, ghz(SMALL_QUBITS + 1), _COUNTS)
        if _are_loaded("deferred"):
            _run(alone, feed_forward(), _COUNTS)
            for circuit in (bell(), feed_forward()):
                _run(StatevectorEngine(small=False), circuit, _WARM)
            _run(alone, ghz(SMALL_QUBITS + 1), _COUNTS, "single")


def _are_loaded(group: KernelGroup) -> bool:
    kernels = kernel.kernels(group)
    return bool(kernels) and all(each.is_loaded for each in kernels)


def _in_states(job: RequestExecution) -> EngineResult:
    """Run all rows on the general path, in this process."""
    from simulators.statevector.backend.local import LocalBackend
    from simulators.statevector.checkpoint import Checkpointer

    with (
        ThreadPool(job.options.threads, job.control) as thread_pool,
        Checkpointer.of(job.options, job.control) as checkpointer,
    ):
        states = LocalBackend(thread_pool, job.control, checkpointer)
        return checkpointer.annotate(run_rows(states, job))


def _run(
    engine: StatevectorEngine, circuit: Circuit, outputs: tuple[str, ...], precision: str = "double"
) -> None:
    options = RunOptions(precision=precision)
    plan = engine.plan(circuit, None, options)
    sums = (_ZZ,) if "expectation" in outputs else ()
    engine.run(plan, circuit, Request(16, 1, outputs, sums), options, RunControl())
