"""Circuits in parts, and the cache of states between the parts."""

from __future__ import annotations

import hashlib
import itertools
import math
import time
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import Any, cast

import msgspec
import numpy as np
from numpy.typing import NDArray

from simulators.catalog import builtin_card, state_bytes
from simulators.catalog.costs import FREE_STATES_BYTES
from simulators.circuit.analysis.measurements import MeasurementLayout, once_layout, rest_layout
from simulators.circuit.gates import MEASURE
from simulators.circuit.ir import Circuit, num_words
from simulators.circuit.passes.components import content, parameter_range, parts_problem, sliced
from simulators.engine import PURE, CircuitParts, EngineResult, Request
from simulators.errors import BadCircuit, OtherOutcome
from simulators.execution import circuit_checks, part_caches, requests
from simulators.statevector.backend.protocol import Ensemble, StateBackend
from simulators.statevector.checkpoint import Evolution
from simulators.statevector.dynamic.branches import Branches
from simulators.statevector.dynamic.evolution import EnsembleEvolution
from simulators.statevector.execute import ComponentRun
from simulators.statevector.program import Program, build_program
from simulators.statevector.state import State

# Cache of states between the runs of a circuit's parts: bounded in bytes and in time.
#
# A dropped state is computed again by the run that needs it, to the same bits.


class KeptState(msgspec.Struct, frozen=True, eq=False):
    """State after a part; immutable."""

    state: Any  # handle of its backend
    record: NDArray[np.uint64]  # [words]: the clbits
    size_bytes: int
    until_s: float = 0.0


class KeptStates:
    """Cache of states by digest of their history; the least recently used is dropped first."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._bound_bytes = FREE_STATES_BYTES
        self._held_bytes = 0
        self._kept: OrderedDict[bytes, KeptState] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def find(self, key: bytes) -> KeptState | None:
        """Cached state of that key, or None."""
        self.expire()
        kept = self._kept.get(key)
        if kept is not None:
            self._kept.move_to_end(key)
        return kept

    def keep(self, key: bytes, kept: KeptState, keep_s: float) -> None:
        """Cache a state for `keep_s` seconds, if there is room for it."""
        self._drop(key)
        if keep_s <= 0.0 or kept.size_bytes > self._bound_bytes:
            return
        self._kept[key] = msgspec.structs.replace(kept, until_s=self._clock() + keep_s)
        self._held_bytes += kept.size_bytes
        self._shrink()

    def limit(self, bound_bytes: int) -> None:
        """Set the limit in bytes, at least FREE_STATES_BYTES."""
        self._bound_bytes = max(FREE_STATES_BYTES, bound_bytes)
        self._shrink()

    def expire(self) -> float:
        """Drop the expired states; return the seconds until the next expiry (inf: none)."""
        now_s = self._clock()
        for key in [key for key, kept in self._kept.items() if kept.until_s <= now_s]:
            self._drop(key)
        return min((kept.until_s for kept in self._kept.values()), default=math.inf) - now_s

    def _shrink(self) -> None:
        while self._held_bytes > self._bound_bytes:
            self._drop(next(iter(self._kept)))

    def _drop(self, key: bytes) -> None:
        kept = self._kept.pop(key, None)
        if kept is not None:
            self._held_bytes -= kept.size_bytes


# Circuits in parts: leading operations run once, and the operations after them for each shot.
#
# A part is one trajectory: its measurements and resets have the random numbers of shot 0 of binding
# 0, by their numbers in the circuit, so the resulting state and clbits are a function of
# operations, seed and precision. They are cached under a digest of these, and computed again on a
# cache miss. Each part is planned by itself, and only the amplitudes of a state are carried from
# one part to the next, so a run has the same bits with any cache contents.

CARD = builtin_card("statevector")


class PartsPlan:
    """Programs of the parts of a structure and of the operations after them, made when first
    needed."""

    def __init__(self, circuit: Circuit, parts: CircuitParts, precision: str) -> None:
        """Set up. Raises BadCircuit for parts that the circuit cannot be divided into."""
        circuit_checks.check_width(CARD, circuit.num_qubits)
        if problem := parts_problem(circuit, parts.ends):
            raise BadCircuit(problem)
        self.ends = (0, *parts.ends)
        self._precision = precision
        self.rest = part_caches.ProgramCache(partial(self._rest, circuit))
        self._once: dict[int, Program] = {}

    @property
    def memory_bytes(self) -> int:
        """Bytes of its programs."""
        built = sum(program.memory_bytes for program in self._once.values())
        return self.rest.memory_bytes + built

    def _rest(self, origin: Circuit, circuit: Circuit, keep: bool) -> Program:
        """Build the program of the operations after the parts."""
        layout = rest_layout(origin, self.ends[-1], circuit, keep=keep)
        return self._build(circuit, self.ends[-1], layout, keep)

    def _build(
        self, part: Circuit, first: int, layout: MeasurementLayout, keep: bool = True
    ) -> Program:
        """Build the program of the operations from `first` on."""
        return build_program(
            part,
            keep=keep,
            precision=self._precision,
            operations=np.arange(first, first + part.ops.size),
            layout=layout,
        )

    def once(self, circuit: Circuit, number: int, part: Circuit) -> Program:
        if number not in self._once:
            first = self.ends[number]
            self._once[number] = self._build(part, first, once_layout(circuit, first, part))
        return self._once[number]


class _PartsRun:
    """Run of the parts of one circuit, for one seed."""

    def __init__(
        self,
        states: StateBackend,
        plan: PartsPlan,
        run: requests.EngineRun,
        asked: CircuitParts,
        kept: KeptStates,
    ) -> None:
        self._asked = asked
        self._states = states
        self._plan = plan
        self._run = run
        self._circuit, self._options = run.circuit, run.options
        self._kept = kept
        ends = plan.ends
        self._parts = [sliced(run.circuit, *span) for span in itertools.pairwise(ends)]
        self._keys = self._digests()
        self.cached = 0  # number of parts from the cache

    def _digests(self) -> list[bytes]:
        """Cache keys of the ends of the parts."""
        result = hashlib.blake2b(digest_size=16)
        head = (self._circuit.num_qubits, self._options.precision, self._run.request.seed)
        result.update(repr(head).encode())
        keys = []
        for part in self._parts:
            for piece in content(part):
                result.update(len(piece).to_bytes(8, "little"))
                result.update(piece)
            keys.append(result.copy().digest())
        return keys

    def end(self) -> KeptState:
        """State and clbits after the last part."""
        last = None
        for number in reversed(range(len(self._parts))):
            last = self._kept.find(self._keys[number])
            if last is not None:
                self.cached = number + 1
                self._compare(number, last.record)
                break
        for number in range(self.cached, len(self._parts)):
            last = self._after(number, last)
            self._compare(number, last.record)
        assert last is not None
        self._kept.keep(self._keys[-1], last, self._asked.keep_s)
        return last

    def _after(self, number: int, before: KeptState | None) -> KeptState:
        """End of a part, from that of the part before it."""
        part, width = self._parts[number], self._circuit.num_qubits
        program = self._plan.once(self._circuit, number, part)
        ensemble = self._states.ensemble(width, self._options, branching=False)
        request, control = self._run.request, self._run.control
        key = request.seed, 0
        bound = requests.BindingRun(part, part.params, request, key, self._options, control)
        walk = EnsembleEvolution(ensemble, program, bound)
        walk.expect_passes()
        state = ensemble.zero() if before is None else ensemble.copy_of(before.state)
        record = record_of(before, self._circuit)
        shot = np.zeros(1, np.int64)
        branches = walk.start(Branches.single(ensemble, state, record[None, :], shot))
        result = cast(State, ensemble.state(int(branches.states[0])))
        result.changed()  # cached facts do not apply to a copy
        size = state_bytes(width, self._options.precision)
        return KeptState(result, branches.records[0].copy(), size)

    def _compare(self, number: int, record: NDArray[np.uint64]) -> None:
        """Compare the outcomes of a part with earlier ones, if these are given. Raises
        OtherOutcome."""
        for outcome in self._asked.outcomes[number : number + 1]:
            if record.astype("<u8").tobytes()[: len(outcome)] == outcome:
                continue
            text = f"part {number} found other outcomes here than where it was first run"
            hint = "workers of one kind of processor round alike; begin again with another seed"
            raise OtherOutcome(text, hint=hint)


def record_of(before: KeptState | None, circuit: Circuit) -> NDArray[np.uint64]:
    """Copy of the clbits after a part, uint64 [num_words]; all 0 before the first."""
    result = np.zeros(num_words(circuit.num_clbits), np.uint64)
    if before is not None:
        result[: before.record.size] = before.record
    return result


class _Continuation(ComponentRun):
    """Run of the operations after the parts, for one binding."""

    def __init__(
        self,
        states: StateBackend,
        schedules: part_caches.ProgramCache[Program],
        run: requests.BindingRun,
        start: KeptState,
    ) -> None:
        super().__init__(states, schedules, run)
        self._begin = start

    def _first(self, ensemble: Ensemble, way: Evolution | None) -> int:  # noqa: ARG002  # none is kept
        return ensemble.copy_of(self._begin.state)

    def _records(self, rows: int) -> NDArray[np.uint64]:
        return np.repeat(record_of(self._begin, self._circuit)[None, :], rows, axis=0)

    def _check(self, request: Request, layout: MeasurementLayout, *, collapses: bool) -> None:
        """Check outputs; the state after the parts is pure, also if they measure."""
        others = tuple(output for output in request.outputs if output not in PURE)
        requests.check_outputs(
            CARD, msgspec.structs.replace(request, outputs=others), layout.measures
        )
        codes = self._circuit.table.rows[self._circuit.ops, 0]
        for output in request.outputs:
            if output in PURE:
                requests.refuse_pure(output, bool((codes == MEASURE).any()), collapses)


def run_parts(
    states: StateBackend, plan: PartsPlan, run: requests.EngineRun, kept: KeptStates
) -> EngineResult:
    """Run all rows of a circuit in parts. Raises subclasses of EngineError."""
    options = msgspec.structs.replace(run.options, checkpoint_dir="")
    run = msgspec.structs.replace(run, options=options)
    assert options.parts is not None
    parts = _PartsRun(states, plan, run, options.parts, kept)
    start = parts.end()
    if options.memory_bytes:  # the states of the rest share it with the initial one
        left_bytes = max(1, options.memory_bytes - start.size_bytes)
        options = msgspec.structs.replace(options, memory_bytes=left_bytes)
    circuit, first, last = run.circuit, plan.ends[-1], run.circuit.ops.size
    rest, span = sliced(circuit, first, last), parameter_range(circuit, first, last)
    results = []
    for bound in run.rows():
        own = msgspec.structs.replace(
            bound, circuit=rest, params=bound.params[span], options=options
        )
        results.append(_Continuation(states, plan.rest, own, start).result())
    remark = f"{parts.cached} of {len(plan.ends) - 1} parts from the state kept"
    return msgspec.structs.replace(EngineResult.joined(results), remark=remark)
