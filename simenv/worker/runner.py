"""Assigned tasks to packed results: Program, Circuit, plan (kept by structure), run, bytes."""

from __future__ import annotations

import time
import zlib
from collections import OrderedDict
from collections.abc import Iterable
from itertools import pairwise

import msgspec
import numpy as np

from simenv.errors import StoreError
from simenv.model import (
    RESULT_FORMAT,
    Observable,
    Program,
    ResultData,
    ResultFile,
    TaskState,
    Terms,
    decode_program,
)
from simenv.wire import codec
from simenv.wire.messages import STATES, Assign, Assigned, Failure, Finished
from simenv.worker.shelf import Shelf
from simulators import registry
from simulators.base import Control, Engine, EngineResult, PauliSum, Plan, Request, RunOptions
from simulators.circuit.ir import Circuit
from simulators.errors import OutOfMemory, Stopped

FAILURE_CHARS = 2_000  # of a message: lists of failed tasks hold thousands of them
PLAN_CACHE_BYTES = 256 * 2**20
_DONE = STATES.index(TaskState.DONE)
FAILED = STATES.index(TaskState.FAILED)
ENDED_EARLY = {  # by why it was asked to stop
    "cancelled": STATES.index(TaskState.CANCELLED),
    "run_timeout": STATES.index(TaskState.EXPIRED),
}


class PlanCache:
    """Plans by (engine, structure, precision), the least recently used dropped first."""

    def __init__(self, bound_bytes: int = PLAN_CACHE_BYTES) -> None:
        self._bound_bytes = bound_bytes
        self._held_bytes = 0
        self._plans: OrderedDict[tuple[str, bytes, str], Plan] = OrderedDict()

    def __len__(self) -> int:
        return len(self._plans)

    def get(self, engine: Engine, program: Program, circuit: Circuit, options: RunOptions) -> Plan:
        """The kept plan, or a new one; a plan that costs less than a look-up is not kept."""
        if not engine.worth_caching(circuit):
            return engine.plan(circuit, None, options)
        key = (engine.name, program.structure, options.precision)
        plan = self._plans.get(key)
        if plan is not None:
            self._plans.move_to_end(key)
            return plan
        plan = engine.plan(circuit, None, options)
        self._plans[key] = plan
        self._held_bytes += plan.memory_bytes
        while self._held_bytes > self._bound_bytes and len(self._plans) > 1:
            self._held_bytes -= self._plans.popitem(last=False)[1].memory_bytes
        return plan


class Runner:
    """Runs one task at a time. `control` may be stopped from another thread."""

    def __init__(self, shelf: Shelf | None = None) -> None:
        """`shelf`: where large results go; without one all of them travel."""
        self.control = Control()
        self._shelf = shelf
        self.stop_reason = ""  # why the running task was asked to stop
        self._engines: dict[str, Engine] = {}
        self._plans = PlanCache()
        self._told: tuple[Terms, Assign, RunOptions, tuple[PauliSum, ...]] | None = None
        self._marks: list[int] = []  # when the stages of the running task ended, see Timing

    def engine(self, name: str) -> Engine:
        """The engine, loaded and warm at first use."""
        found = self._engines.get(name)
        if found is None:
            found = registry.create(name)
            found.warm_up()
            self._engines[name] = found
        return found

    def run(self, assigned: Assigned, terms: Terms, chunk: Assign, arrived_ns: int) -> Finished:
        """Run one task of a chunk; every error becomes a result that says so."""
        begin_ns = time.perf_counter_ns()
        marks = self._marks = [begin_ns]
        state, file = _DONE, None
        try:
            payload, file = self._payload(assigned, terms, chunk)
        except Stopped:
            state = ENDED_EARLY.get(self.stop_reason, FAILED)
            reason = self.stop_reason or "stopped"
            payload = codec.encode(Failure(reason, "stopped while it ran"))
        except StoreError as error:
            state = FAILED
            payload = _failure(error.code, error)
        except (OutOfMemory, MemoryError) as error:
            state = FAILED
            payload = _failure("out_of_memory", error)
        except Exception as error:  # noqa: BLE001  # engines of others may raise anything; a
            # task's error is its result, never the worker's end
            state = FAILED
            payload = _failure("engine", error)
        end_ns = time.perf_counter_ns()
        marks.append(end_ns)
        return Finished(
            assigned.task,
            assigned.attempt,
            state,
            payload,
            zlib.crc32(payload),
            "" if file is None else file.name,
            0 if file is None else file.size_bytes,
            (begin_ns - arrived_ns) // 1000,
            (end_ns - begin_ns) // 1000,
            *_stages_us(marks),
        )

    def _payload(
        self, assigned: Assigned, terms: Terms, chunk: Assign
    ) -> tuple[bytes, ResultFile | None]:
        engine = self.engine(chunk.engine)
        program = decode_program(assigned.program)
        circuit = Circuit.from_buffers(*msgspec.structs.astuple(program)[1:])
        mark, now_ns = self._marks.append, time.perf_counter_ns
        mark(now_ns())
        options, observables = self._shared(terms, chunk)
        bindings = None
        if assigned.bindings or assigned.count > 1:
            values = np.frombuffer(assigned.bindings, np.float64)
            bindings = values.reshape(assigned.count, program.num_slots)
        request = Request(
            shots=assigned.shots,
            seed=assigned.seed,
            outputs=terms.outputs,
            observables=observables,
            bindings=bindings,
            binding=assigned.binding,
        )
        plan = self._plans.get(engine, program, circuit, options)
        mark(now_ns())
        result = engine.run(plan, circuit, request, options, self.control)
        mark(now_ns())
        file = None
        if self._shelf is not None:
            file = self._shelf.put(result, program, assigned, terms, chunk)
        return pack(program, assigned, terms, result, file), file

    def _shared(self, terms: Terms, chunk: Assign) -> tuple[RunOptions, tuple[PauliSum, ...]]:
        """What the tasks of a chunk have in common; made once for them."""
        told = self._told
        if told is None or told[0] is not terms or told[1] is not chunk:
            options = RunOptions(
                precision=terms.precision,
                threads=chunk.slots,
                memory_bytes=chunk.memory_bytes,
                settings=terms.options,
            )
            sums = tuple(_pauli_sum(observable) for observable in terms.observables)
            told = self._told = (terms, chunk, options, sums)
        return told[2], told[3]


def pack(
    program: Program,
    assigned: Assigned,
    terms: Terms,
    found: EngineResult,
    file: ResultFile | None = None,
) -> bytes:
    """The result of all rows as it travels and is stored, without the arrays that `file` holds."""
    filed = () if file is None else [array.field for array in file.arrays]
    state = b""
    if found.statevector is not None and "statevector" not in filed:
        state = found.statevector.tobytes()
    data = ResultData(
        RESULT_FORMAT,
        program.registers if "measure" in program.names else (),
        program.num_qubits,
        assigned.shots,
        assigned.seed,
        found.outcome_width,
        found.outcomes,
        found.counts,
        found.probability_outcomes,
        found.probability_width,
        found.probabilities,
        state,
        found.expectations,
        found.truncation,
        found.remark,
        terms.precision,
        assigned.binding,
        found.count,
        found.rows,
        found.probability_rows,
        file,
        terms.options,
    )
    if filed:
        data = msgspec.structs.replace(data, **dict.fromkeys(filed, b""))
    return codec.encode(data)


def _pauli_sum(observable: Observable) -> PauliSum:
    return PauliSum(observable.labels, np.frombuffer(observable.coefficients, np.float64))


def _stages_us(marks: list[int]) -> Iterable[int]:
    """Microseconds of the stages a task came to; of all of them without a loop, as mostly."""
    if len(marks) == 5:
        a, b, c, d, e = marks
        return (b - a) // 1000, (c - b) // 1000, (d - c) // 1000, (e - d) // 1000
    return [(end - begin) // 1000 for begin, end in pairwise(marks)]


def _failure(reason: str, error: Exception) -> bytes:
    hint = getattr(error, "hint", "")
    message = getattr(error, "message", "") or str(error) or type(error).__name__
    return codec.encode(Failure(reason, message[:FAILURE_CHARS], hint[:FAILURE_CHARS]))
