"""Run of assigned tasks, with cached plans.

Run assigned tasks: decode the program, plan it, run the engine, pack the result. Plans are cached
by program structure. Gradients of the engine, by slots, become those by the circuit's parameters
through the chain rule.
"""

from __future__ import annotations

import math
import traceback
from collections import OrderedDict
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from time import perf_counter_ns
from typing import TYPE_CHECKING, cast
from zlib import crc32

import msgspec
import numpy as np
from numpy.typing import NDArray

from simenv import model
from simenv.errors import (
    InfeasibleError,
    LimitExceededError,
    OptionError,
    ProgramError,
    StoreError,
)
from simenv.model import calls, task
from simenv.model.options import REFUSED
from simenv.process import exit_process, log_line, resident_bytes
from simenv.text import error_summary
from simenv.wire import codec
from simenv.wire.messages import client as messages
from simenv.worker.calls import CallRunner
from simenv.worker.functions import CallFailed, FunctionRules, ValueTooLarge
from simenv.worker.noise import Noise
from simenv.worker.result_files import ResultFileWriter, RunCheckpoints
from simulators import engine as engines, errors, registry
from simulators.catalog import settings_of
from simulators.circuit.ir import Circuit
from simulators.circuit.noise import NoiseProgram
from simulators.circuit.passes.shot_times import has_free_delays, with_bound_delays
from simulators.circuit.passes.unrolled import for_engine
from simulators.compiler.kernel_time import booked, spent_ns, working_ns
from simulators.execution.alternatives import name_other_engine
from simulators.execution.hidden_bits import without_hidden
from simulators.execution.requests import bits_of

if TYPE_CHECKING:
    from mpi4py import MPI


PLAN_CACHE_BYTES = 256 * 2**20


class PlanCache:
    """LRU cache of plans by engine, structure, precision, noise and parts, bounded in bytes."""

    def __init__(self, bound_bytes: int = PLAN_CACHE_BYTES) -> None:
        self._bound_bytes = bound_bytes
        self._held_bytes = 0
        self._plans: OrderedDict[tuple[object, ...], engines.Plan] = OrderedDict()
        self._sizes: dict[tuple[object, ...], int] = {}  # bytes counted in `_held_bytes`
        self._last: tuple[object, ...] = ()  # plan that was asked for: its runs may add to it

    def __len__(self) -> int:
        return len(self._plans)

    def get(
        self,
        engine: engines.Engine,
        program: model.Program,
        circuit: Circuit,
        options: engines.RunOptions,
        noise: NoiseProgram | None = None,
    ) -> engines.Plan:
        """Return the cached plan, or a new one. Plans that cost less than a look-up are not cached.
        Plans with noise cost more, and may depend on the engine's own settings."""
        if noise is None and options.parts is None and not engine.worth_caching(circuit):
            return engine.plan(circuit, noise, options)
        digest = b"" if noise is None else noise.digest
        settings = () if noise is None else options.settings
        ends = () if options.parts is None else options.parts.ends
        key = (engine.name, program.structure, options.precision, digest, settings, ends)
        plan = self._plans.get(key)
        if plan is not None and key == self._last:
            return plan
        if self._last in self._plans:
            self._measure(self._last)
        if plan is None:
            plan = self._plans[key] = engine.plan(circuit, noise, options)
            self._measure(key)
        self._plans.move_to_end(key)
        self._last = key
        while self._held_bytes > self._bound_bytes and len(self._plans) > 1:
            oldest, _ = self._plans.popitem(last=False)
            self._held_bytes -= self._sizes.pop(oldest)
        return plan

    def _measure(self, key: tuple[object, ...]) -> None:
        size = self._plans[key].memory_bytes
        self._held_bytes += size - self._sizes.get(key, 0)
        self._sizes[key] = size


def chained(
    result: engines.EngineResult, chain: model.Chain, num_slots: int
) -> engines.EngineResult:
    """Return the result with its gradients by slots converted to gradients by parameters."""
    by_slot = np.frombuffer(result.gradients).reshape(-1, num_slots)
    by_parameter = np.zeros((len(by_slot), chain.parameters))
    slots = np.frombuffer(chain.slots, "<i4").tolist()
    columns = np.frombuffer(chain.columns, "<i4").tolist()
    factors = np.frombuffer(chain.factors, "<f8").tolist()
    for slot, column, factor in zip(slots, columns, factors, strict=True):
        by_parameter[:, column] += factor * by_slot[:, slot]
    return msgspec.structs.replace(result, gradients=by_parameter.tobytes())


FAILURE_CHARS = 2_000  # of a message: lists of failed tasks hold thousands of them
# Errors whose codes are the reasons of failures.
CODED_ERRORS = (
    *(errors.MachineRefused, errors.MachineFailed, errors.BadAnswer, errors.StaleCalibration),
    *(errors.OtherOutcome, errors.TruncatedState, CallFailed, ValueTooLarge),
    *(ProgramError, OptionError, LimitExceededError, InfeasibleError),  # of sequences in a worker
)
_DONE = messages.STATES.index(model.TaskState.DONE)
FAILED = messages.STATES.index(model.TaskState.FAILED)
PREEMPTED = "preempted"  # the task waits again: the service discards this end
ENDED_EARLY = {  # final states by the reason of the stop
    PREEMPTED: messages.STATES.index(model.TaskState.CANCELLED),
    "cancelled": messages.STATES.index(model.TaskState.CANCELLED),
    "queue_timeout": messages.STATES.index(model.TaskState.EXPIRED),
    "run_timeout": messages.STATES.index(model.TaskState.EXPIRED),
    "limit": messages.STATES.index(model.TaskState.EXPIRED),
}


class _ChunkContext(msgspec.Struct, frozen=True, eq=False):
    """Values that the tasks of a chunk with the same options share, computed once."""

    terms: model.TaskOptions
    chunk: messages.AssignChunk
    engine: engines.Engine
    options: engines.RunOptions
    observables: tuple[engines.PauliSum, ...]
    bits: NDArray[np.uint8] | None  # of amplitudes, see `Request`
    counts: (
        Callable[[Circuit, int, int, int, engines.RunControl], engines.EngineResult | None] | None
    )


class Runner:
    """Runner of tasks, one at a time. Another thread may stop `control`."""

    def __init__(
        self,
        result_writer: ResultFileWriter | None = None,
        comm: MPI.Intracomm | None = None,
        checkpoints: RunCheckpoints | None = None,
        *,
        functions: FunctionRules | None = None,
    ) -> None:
        """`result_writer`: writes large results; without it all results are sent in messages.
        `comm`: the ranks that run each task together. `checkpoints`: those of long runs.
        `functions`: what functions may use; None: all that their worker may."""
        self.control = engines.RunControl()
        self._result_writer = result_writer
        self._comm = comm
        self._checkpoints = checkpoints
        # Called with each error of an engine; returns if all ranks raise it, else ends the process.
        self.on_engine_error: Callable[[Exception], None] | None = None
        self.stop_reason = ""  # of the running task; "": it is not to stop
        self._last_logged = ""  # the last error whose traceback is in the log
        self.has_log = True  # False: standard error is that of the user
        self.loaded_bytes = 0  # resident memory of this process when it had loaded an engine
        self._noise = Noise()
        self.calls = CallRunner(
            result_writer, functions=functions, noise=self._noise, checkpoints=checkpoints
        )
        self._engines: dict[str, engines.Engine] = {}
        self._with_fast_counts: set[str] = set()  # engines, by name
        self._kept_states: list[engines.StateCache] = []  # those of the engines that keep any
        self._plans = PlanCache()
        self._context: _ChunkContext | None = None
        self._marks: list[int] = []  # when the stages of the running task ended, see Timing

    def engine(self, name: str) -> engines.Engine:
        """Return the engine; the first use creates it and warms it up."""
        entry = self._engines.get(name)
        if entry is None:
            with booked():  # packages load, and compile kernels of their own
                entry = registry.create(name, engines.EngineContext(comm=self._comm))
                entry.warm_up()
            self.hold(entry)
            self.loaded_bytes = resident_bytes()
        return entry

    def hold(self, engine: engines.Engine) -> None:
        """Register an engine that the caller has created."""
        self._engines[engine.name] = engine
        if isinstance(engine, engines.FastCounts):  # this test is too slow for each chunk
            self._with_fast_counts.add(engine.name)
        if isinstance(engine, engines.PartsEngine):
            self._kept_states.append(engine.kept_states)
        self._context = None

    def used_bytes(self) -> int:
        """Memory of this process and of that of its functions; any thread may call it."""
        return resident_bytes() + self.calls.child_bytes()

    def receive_noise(self, message: messages.NoiseDocument) -> None:
        """Store a noise document for later chunks, which name it by its digest."""
        self._noise.receive(message)

    def limit_states(self, bound_bytes: int) -> None:
        """Bound the states that engines keep between tasks."""
        for states in self._kept_states:
            states.limit(bound_bytes)

    def expire_states(self) -> float:
        """Drop expired states; returns the seconds until the next one expires."""
        return min((states.expire() for states in self._kept_states), default=math.inf)

    def forget_plans(self) -> None:
        """Drop all plans, because the device for which they were made has changed."""
        self._plans = PlanCache()

    def run(
        self,
        assigned: messages.AssignedTask,
        terms: model.TaskOptions,
        chunk: messages.AssignChunk,
        arrived_ns: int,
    ) -> messages.AttemptResult:
        """Run one task of a chunk; every error becomes a failed result."""
        begin_ns, kernels_ns = working_ns(), spent_ns()
        start_ns = perf_counter_ns() - arrived_ns
        marks = self._marks = [begin_ns]
        state, file, device_ns = _DONE, None, 0
        try:
            payload, file, device_ns = self._packed(assigned, terms, chunk)
        except errors.DeviceLost as error:  # no later task would succeed here
            exit_process(messages.EXIT_GPU, str(error))
        except Exception as error:  # noqa: BLE001  # engines of others may raise anything; a
            # task's error is its result, never the worker's end
            state, payload = self._failed(error, assigned)
        end_ns = working_ns()
        marks.append(end_ns)
        return messages.AttemptResult(
            assigned.task,
            assigned.attempt,
            state,
            payload,
            crc32(payload),
            "" if file is None else file.name,
            0 if file is None else file.size_bytes,
            start_ns // 1000,
            (end_ns - begin_ns) // 1000,
            *stages_us(marks),
            (spent_ns() - kernels_ns) // 1000,
            device_ns,
        )

    def _packed(
        self, assigned: messages.AssignedTask, terms: model.TaskOptions, chunk: messages.AssignChunk
    ) -> tuple[bytes, model.ResultFile | None, int]:
        """Return the packed result, its file, and the nanoseconds on an emulated device."""
        if calls.is_call(terms):
            self._marks += self._marks * 2
            return self.calls.run(assigned, terms, chunk, self.control)
        if terms.stale == REFUSED:
            raise errors.StaleCalibration(
                f"compiled for calibration {terms.compiled_for[:16]}, which is no longer in force",
                hint="submit it again: it is compiled anew; with compile='auto' it runs and its"
                " result says so",
            )
        program, circuit, result = self._compute(assigned, terms, chunk)
        assert result is not None
        file = None
        if self._result_writer is not None:
            file = self._result_writer.put(result, program, assigned, terms, chunk)
        device, device_ns = None, 0
        if terms.snapshot:
            device = self._noise.record(program, assigned, terms)
            device_ns = self._noise.device_ns(program, circuit, assigned, terms)
        return pack(program, assigned, terms, result, file, device), file, device_ns

    def _failed(self, error: Exception, assigned: messages.AssignedTask) -> tuple[int, bytes]:
        """Convert an error to a final state and a packed Failure."""
        if isinstance(error, errors.Stopped):
            reason = self.stop_reason or "stopped"
            state = ENDED_EARLY.get(self.stop_reason, FAILED)
            return state, codec.encode(messages.Failure(reason, "stopped while it ran"))
        place, row = "", self.control.row
        if assigned.count > 1 and row >= 0:
            place = f"binding {assigned.binding + row} of the sweep: "
        if isinstance(error, errors.OutOfMemory | MemoryError):
            return FAILED, _failure("out_of_memory", error, place)
        if isinstance(error, (StoreError, *CODED_ERRORS)):
            return FAILED, _failure(error.code, error, place)
        if isinstance(error, errors.EngineError):
            return FAILED, _failure("engine", error, place)
        return FAILED, _failure("engine", self._logged(error), place)

    def _logged(self, error: Exception) -> errors.EngineError:
        """Write the traceback of an error that its engine did not foresee to the worker's log, once
        where it repeats; return an error that names the class and the line that raised it."""
        last = traceback.extract_tb(error.__traceback__)[-1:]
        place = "".join(f" ({Path(at.filename).name}:{at.lineno}, in {at.name})" for at in last)
        text = f"{error_summary(error)}{place}"
        if self.has_log and text != self._last_logged:
            self._last_logged = text
            log_line("".join(traceback.format_exception(error)).rstrip())
        return errors.EngineError(text)

    def follow(
        self, assigned: messages.AssignedTask, terms: model.TaskOptions, chunk: messages.AssignChunk
    ) -> None:
        """Run this rank's part of a task whose result rank 0 has. Raises the engine's errors."""
        self._marks = []
        self._compute(assigned, terms, chunk)

    def _compute(
        self, assigned: messages.AssignedTask, terms: model.TaskOptions, chunk: messages.AssignChunk
    ) -> tuple[model.Program, Circuit, engines.EngineResult | None]:
        try:
            program = model.decode_program(assigned.program)
            circuit = Circuit.from_program(program)
            mark = self._marks.append
            mark(working_ns())
            context = self._context
            if context is None or context.terms is not terms or context.chunk is not chunk:
                context = self._context = self._chunk_context(terms, chunk)
            if context.counts is not None and not assigned.bindings and assigned.count == 1:
                mark(working_ns())
                entry = context.counts(
                    circuit, assigned.shots, assigned.seed, assigned.binding, self.control
                )
                if entry is not None:
                    mark(working_ns())
                    return program, circuit, without_hidden(circuit, entry, assigned.shots)
                self._marks.pop()
            result = self._planned(program, circuit, assigned, context)
            if result is not None:
                result = without_hidden(circuit, result, assigned.shots)
            return program, circuit, result
        except Exception as error:
            if self.on_engine_error is not None:
                self.on_engine_error(error)
            raise

    def _planned(
        self,
        program: model.Program,
        circuit: Circuit,
        assigned: messages.AssignedTask,
        context: _ChunkContext,
    ) -> engines.EngineResult | None:
        """Run one task with a cached plan; every engine supports this way."""
        bindings = None
        if assigned.bindings or assigned.count > 1:
            values = np.frombuffer(assigned.bindings, np.float64)
            bindings = values.reshape(assigned.count, program.num_slots)
        request = engines.Request(
            assigned.shots,
            assigned.seed,
            context.terms.outputs,
            context.observables,
            bindings,
            assigned.binding,
            context.bits,
        )
        options = context.options
        if self._checkpoints is not None:
            options = self._checkpoints.run_options(options, program.num_qubits, assigned.task)
        if context.terms.snapshot and bindings is not None and has_free_delays(circuit):
            result = self._with_own_noise(program, circuit, request, options, context)
        else:
            result = self._run(program, circuit, request, options, context)
        self.control.row = -1
        if context.terms.chain is not None and result is not None:
            result = chained(result, context.terms.chain, program.num_slots)
        self._marks.append(working_ns())
        return result

    def _run(
        self,
        program: model.Program,
        circuit: Circuit,
        request: engines.Request,
        options: engines.RunOptions,
        context: _ChunkContext,
    ) -> engines.EngineResult | None:
        """Attach the noise, plan and run."""
        noise = None
        if context.terms.snapshot:
            noise = self._noise.program(program, circuit, context.terms)
            circuit = circuit if noise is None else noise.located(circuit)
        engine = context.chunk.engine
        circuit, noise = for_engine(circuit, noise, engine)
        try:
            plan = self._plans.get(context.engine, program, circuit, options, noise)
            self._marks.append(working_ns())
            return context.engine.run(plan, circuit, request, options, self.control)
        except errors.EngineError as error:
            name_other_engine(error, engine, circuit, noise, request, options)
            raise

    def _with_own_noise(
        self,
        program: model.Program,
        circuit: Circuit,
        request: engines.Request,
        options: engines.RunOptions,
        context: _ChunkContext,
    ) -> engines.EngineResult | None:
        """Run each binding with its own noise: durations of delays are parameters."""
        assert request.bindings is not None
        results = []
        for row, values in enumerate(request.bindings):
            self.control.row = row
            bound = with_bound_delays(circuit, values)
            own = msgspec.structs.replace(
                request, bindings=values[np.newaxis], binding=request.binding + row
            )
            try:
                results.append(self._run(program, bound, own, options, context))
            finally:
                self.control.row = row
            del self._marks[3:]  # the plans of all bindings count as the engine's time
        kept = [result.row(0) for result in results if result is not None]
        return engines.EngineResult.joined(kept) if kept else None

    def _chunk_context(
        self, terms: model.TaskOptions, chunk: messages.AssignChunk
    ) -> _ChunkContext:
        engine = self.engine(chunk.engine)
        options = engines.RunOptions(
            precision=terms.precision,
            threads=max(1, chunk.slots),
            memory_bytes=chunk.memory_bytes,
            settings=settings_of(chunk.engine, terms.options, auto=terms.engine == "auto"),
            parts=_circuit_parts(terms.parts),
        )
        plain = terms.outputs == ("counts",) and not terms.options and terms.precision == "double"
        plain = plain and chunk.engine in self._with_fast_counts
        plain = plain and not terms.snapshot and terms.parts is None
        counts = cast(engines.FastCounts, engine).fast_counts if plain else None
        sums = tuple(_pauli_sum(observable) for observable in terms.pauli_sums)
        bits = bits_of(terms.bit_strings) if terms.bit_strings else None
        return _ChunkContext(terms, chunk, engine, options, sums, bits, counts)


def pack(
    program: model.Program,
    assigned: messages.AssignedTask,
    terms: model.TaskOptions,
    result: engines.EngineResult,
    file: model.ResultFile | None = None,
    device: model.DeviceRecord | None = None,
) -> bytes:
    """Encode the result of all rows for messages and the journal, without the arrays in `file`."""
    filed = () if file is None else [array.field for array in file.arrays]
    state = b""
    if result.statevector is not None and "statevector" not in filed:
        state = result.statevector.tobytes()
    fields = (
        model.RESULT_FORMAT,
        program.shown_registers if program.measures else (),
        program.num_qubits,
        assigned.shots,
        assigned.seed,
        result.outcome_width,
        result.outcomes,
        result.counts,
        result.probability_outcomes,
        result.probability_width,
        result.probabilities,
        state,
        result.expectations,
        result.truncation,
        result.remark,
        terms.precision,
        assigned.binding,
        result.count,
        result.rows,
        result.probability_rows,
        file,
        terms.options,
        result.gradients,
        device,
        result.memory,
    )
    data = model.ResultData(*fields)
    if result.amplitudes is not None or result.error is not None:
        strings = values = b""
        if result.amplitudes is not None:
            strings, values = "".join(terms.bit_strings).encode(), result.amplitudes.tobytes()
        error = None
        if result.error is not None:
            error = task.MeasuredError(*msgspec.structs.astuple(result.error))
        data = task.AmplitudeResultData(*fields, b"", strings, values, error)
    if filed:
        data = msgspec.structs.replace(data, **dict.fromkeys(filed, b""))
    return codec.encode(data)


def _circuit_parts(parts: model.TaskParts | None) -> engines.CircuitParts | None:
    return None if parts is None else engines.CircuitParts(parts.ends, parts.keep_s, parts.outcomes)


def _pauli_sum(observable: model.Observable) -> engines.PauliSum:
    return engines.PauliSum(observable.labels, np.frombuffer(observable.coefficients, np.float64))


def stages_us(marks: list[int]) -> tuple[int, int, int, int]:
    """Microseconds of decode, plan, engine and encode; 0 for stages that the task did not reach."""
    if len(marks) == 5:
        a, b, c, d, e = marks
        return (b - a) // 1000, (c - b) // 1000, (d - c) // 1000, (e - d) // 1000
    came_to = [(end - begin) // 1000 for begin, end in pairwise(marks)]
    decode, plan, engine, encode = (*came_to, 0, 0, 0, 0)[:4]
    return decode, plan, engine, encode


def _failure(reason: str, error: Exception, place: str = "") -> bytes:
    hint = getattr(error, "hint", "")
    message = place + (getattr(error, "message", "") or str(error) or type(error).__name__)
    return codec.encode(messages.Failure(reason, message[:FAILURE_CHARS], hint[:FAILURE_CHARS]))
