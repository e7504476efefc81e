"""What may enter: every new program is checked once, every task against its terms.

A program is opened once per digest; after that admission costs a hash and a look-up. What is
refused here was never stored.
"""

from __future__ import annotations

import math

import msgspec

from simenv.errors import (
    Infeasible,
    LimitExceeded,
    OptionError,
    ProgramError,
    SimenvError,
    VersionMismatch,
)
from simenv.model import (
    MAX_SHOTS,
    PROGRAM_FORMAT,
    PoolSpec,
    Program,
    TaskSpec,
    Terms,
    decode_program,
    digest,
)
from simenv.scheduler import routing
from simenv.scheduler.routing import size
from simenv.scheduler.values import Limits, Route
from simenv.wire.messages import Refusal
from simulators.base import OUTPUTS
from simulators.circuit import check
from simulators.circuit.ir import Circuit
from simulators.circuit.profile import Profile, profile

KNOWN_PROGRAMS = 100_000
KNOWN_ROUTES = 10_000
KNOWN_TERMS = 10_000
RESULT_BYTES = 32 * 2**20  # what one message may carry back
PRECISIONS = ("double", "single")
MAX_OBSERVABLES = 4_096
MAX_TERMS = 100_000
MAX_PRIORITY = 1_000_000


class Known(msgspec.Struct, frozen=True, gc=False):
    """What is remembered of an admitted program."""

    num_slots: int
    num_qubits: int
    num_clbits: int
    measures: bool
    route: Route


class Admission:
    """Remembers admitted programs; used from the loop's thread."""

    def __init__(self, pools: tuple[PoolSpec, ...], limits: Limits) -> None:
        self._pools = pools
        self._limits = limits
        self._known: dict[tuple[bytes, bytes], Known] = {}
        self._routes: dict[tuple[Profile, bytes], Route] = {}
        self._checked: set[bytes] = set()

    def admit(self, terms: Terms, tasks: list[TaskSpec]) -> tuple[list[Route], list[Refusal]]:
        """A route for each task, or the refusals (then nothing is accepted)."""
        refusals: list[Refusal] = []
        mark = msgspec.msgpack.encode(terms)
        if mark not in self._checked:
            try:
                check_terms(terms)
            except SimenvError as error:
                return [], [refusal(error)]
            if len(self._checked) >= KNOWN_TERMS:
                self._checked.clear()
            self._checked.add(mark)
        known, routes = self._known, []
        for index, spec in enumerate(tasks):
            key = (digest(spec.program), mark)
            entry = known.get(key)
            try:
                if entry is None:
                    entry = self._examine(spec.program, terms, mark)
                    if len(known) >= KNOWN_PROGRAMS:
                        known.clear()
                    known[key] = entry
                check_task(spec, terms, entry)
            except SimenvError as error:
                refusals.append(refusal(error, index))
                continue
            routes.append(entry.route)
        return routes, refusals

    def _examine(self, packed: bytes, terms: Terms, mark: bytes) -> Known:
        program, circuit = open_program(packed)
        found = profile(circuit)
        for observable in terms.observables:
            for label in observable.labels:
                if len(label) != program.num_qubits:
                    raise OptionError(
                        f"observable {label[:40]!r} is {len(label)} wide, the program has "
                        f"{program.num_qubits} qubits"
                    )
        route = self._routes.get((found, mark))
        if route is None:
            route = routing.route(found, terms, self._pools, self._limits)
            _check_outputs(found, terms)
            if len(self._routes) >= KNOWN_ROUTES:
                self._routes.clear()
            self._routes[found, mark] = route
        measures = found.measurements > 0
        return Known(program.num_slots, program.num_qubits, program.num_clbits, measures, route)


def open_program(packed: bytes) -> tuple[Program, Circuit]:
    """A packed program and its checked circuit; ProgramError says what is wrong with it."""
    try:
        program = decode_program(packed)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ProgramError(f"the program cannot be read: {error}") from error
    if program.format != PROGRAM_FORMAT:
        raise VersionMismatch(
            f"the program has format {program.format}, this service reads {PROGRAM_FORMAT}",
            hint="client and service should be of one version",
        )
    circuit = Circuit.from_buffers(*msgspec.structs.astuple(program)[1:])
    wrong = check.problem(circuit)
    if wrong:
        raise ProgramError(f"the program is not valid: {wrong}")
    return program, circuit


def check_terms(terms: Terms) -> None:
    """What does not depend on the program."""
    if not terms.outputs or len(set(terms.outputs)) < len(terms.outputs):
        raise OptionError(f"outputs must be distinct and at least one, got {terms.outputs}")
    for output in terms.outputs:
        if output not in OUTPUTS:
            raise OptionError(
                f"output {output!r} is not known", hint=f"one of: {', '.join(OUTPUTS)}"
            )
    if terms.precision not in PRECISIONS:
        raise OptionError(
            f"precision {terms.precision!r} is not known", hint="one of: double, single"
        )
    if ("expectation" in terms.outputs) != bool(terms.observables):
        raise OptionError(
            "the output 'expectation' and observables go together; only one was given",
            hint='for example observables="ZZ:0.5"',
        )
    total = sum(len(o.labels) for o in terms.observables)
    if len(terms.observables) > MAX_OBSERVABLES or total > MAX_TERMS:
        raise LimitExceeded(
            f"{len(terms.observables)} observables with {total} terms; the limits are "
            f"{MAX_OBSERVABLES} and {MAX_TERMS}",
            hint="spread them over several tasks",
        )
    for observable in terms.observables:
        if len(observable.coefficients) != 8 * len(observable.labels):
            raise OptionError("an observable needs one coefficient for each label")
        for label in observable.labels:
            if label.strip("IXYZ"):
                raise OptionError(f"observable {label[:40]!r} may hold only I, X, Y, Z")
    for key in ("queue_timeout_s", "run_timeout_s"):
        value = getattr(terms, key)
        if not (math.isfinite(value) and value >= 0):
            raise OptionError(f"{key} = {value} must be a number of seconds, 0 for none")
    if abs(terms.priority) > MAX_PRIORITY:
        raise OptionError(f"priority {terms.priority} is outside -{MAX_PRIORITY}..{MAX_PRIORITY}")
    if len(terms.name) > 64:
        raise OptionError(f"a task's name has at most 64 characters, this has {len(terms.name)}")


def check_task(spec: TaskSpec, terms: Terms, known: Known) -> None:
    """What depends on the task."""
    if not 0 <= spec.shots <= MAX_SHOTS:
        raise OptionError(f"shots = {spec.shots} is outside 0 .. {MAX_SHOTS}")
    if not 0 <= spec.seed < 2**64 or not 0 <= spec.binding < 2**63:
        raise OptionError(f"seed = {spec.seed} is outside 0 .. 2^64 - 1")
    if len(spec.bindings) != 8 * known.num_slots:
        raise OptionError(
            f"the program has {known.num_slots} free parameter expressions, "
            f"{len(spec.bindings) // 8} values were given",
            hint="give bindings= a value for every parameter",
        )
    if spec.bindings and not all(map(math.isfinite, memoryview(spec.bindings).cast("d"))):
        raise OptionError("a parameter value is not a finite number")
    if "counts" in terms.outputs:
        if not known.measures:
            raise OptionError(
                "counts were asked of a circuit that measures nothing",
                hint="add measurements, or ask for outputs=('probabilities',) or 'statevector'",
            )
        if spec.shots == 0:
            raise OptionError(
                "counts need shots; shots=None (exact) gives none",
                hint="give shots=N, or ask for outputs=('probabilities',)",
            )


def _check_outputs(found: Profile, terms: Terms) -> None:
    """Results travel in one message; refuse what could not."""
    width = 8 if terms.precision == "single" else 16
    states = 1 << min(64, found.num_qubits)
    if "statevector" in terms.outputs and width * states > RESULT_BYTES:
        raise Infeasible(
            f"a statevector of {found.num_qubits} qubits is {size(width * states)}; a result "
            f"may be {size(RESULT_BYTES)}",
            hint="ask for counts, probabilities of fewer clbits, or expectation values",
        )
    bits = found.num_clbits if found.measurements else found.num_qubits
    bits = min(bits, found.num_qubits) if not found.mid_circuit else bits
    if "probabilities" in terms.outputs and 16 << min(60, bits) > RESULT_BYTES:
        raise Infeasible(
            f"a distribution over {bits} bits may be {size(16 << min(60, bits))}; a result may "
            f"be {size(RESULT_BYTES)}",
            hint="measure fewer qubits, or ask for counts",
        )


def refusal(error: SimenvError, index: int = -1) -> Refusal:
    """An error as it travels."""
    retry_after_s = getattr(error, "retry_after_s", 0.0)
    return Refusal(error.code, error.message, error.hint, index, retry_after_s)
