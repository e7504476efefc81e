"""What may enter: every new program is checked once, every task against its terms.

A program is opened once per digest, and looked at closely once per structure: of two programs that
differ in angles only, the second is let in after a look at its angles. What is refused here was
never stored.
"""

from __future__ import annotations

import math
import time

import msgspec

from simenv.errors import ProgramError, SimenvError, VersionMismatch
from simenv.model import (
    READ_FORMATS,
    PoolSpec,
    Program,
    TaskSpec,
    Terms,
    decode_program,
    digest,
)
from simenv.scheduler import routing
from simenv.scheduler.values import Limits, Route
from simenv.service import rules
from simenv.service.rules import Known
from simenv.wire.messages import Refusal, Submit
from simulators.circuit import check
from simulators.circuit.ir import Circuit
from simulators.circuit.profile import Profile, profile

KEPT = 100_000  # entries of each memory; full ones are emptied
TASKS_A_LOOK = 32  # admitted between two looks at the clock, unless their programs are large
BYTES_A_LOOK = 2**16  # of programs that were opened
EXAMINED_BYTES = 2**14  # what looking closely at a program is worth, beside its operations
_UNKEPT_NAMES = frozenset({"delay", "delay_dt"})  # their parameters are checked beyond finiteness


class Inquiry(msgspec.Struct):
    """A Submit on its way through admission."""

    peer: bytes
    owner: str
    message: Submit
    body: bytes
    received_ns: int
    routes: list[Route] = msgspec.field(default_factory=list)
    refusals: list[Refusal] = msgspec.field(default_factory=list)
    next: int = 0
    mark: bytes = b""  # of its terms, once they are found sound
    wrong: dict[bytes, SimenvError] = msgspec.field(default_factory=dict)  # programs, by digest


class Admission:
    """Remembers what it admitted; used from the loop's thread."""

    def __init__(self, pools: tuple[PoolSpec, ...], limits: Limits) -> None:
        self._pools = pools
        self._limits = limits
        self._programs: dict[tuple[bytes, bytes], Known] = {}  # by digest and terms
        self._structures: dict[tuple[bytes, bytes], Known] = {}
        self._marks: set[bytes] = set()
        self._opened_bytes = 0  # since the last look at the clock

    def go_on(self, inquiry: Inquiry, deadline_ns: int) -> bool:
        """Admit more of an inquiry's tasks; True when it is through, refused or not."""
        message = inquiry.message
        if not inquiry.mark and not self._sound_terms(inquiry):
            return True
        tasks, terms = message.tasks, message.terms
        while inquiry.next < len(tasks):
            stop = min(len(tasks), inquiry.next + TASKS_A_LOOK)
            self._opened_bytes = 0
            for index in range(inquiry.next, stop):
                spec = tasks[index]
                inquiry.next = index + 1
                try:
                    known = self._program(spec, terms, inquiry)
                    rules.check_task(spec, terms, known)
                except SimenvError as error:
                    inquiry.refusals.append(refusal(error, index))
                else:
                    inquiry.routes.append(known.route)
                if self._opened_bytes > BYTES_A_LOOK:
                    break
            if time.monotonic_ns() >= deadline_ns:
                break
        return inquiry.next >= len(tasks)

    def _sound_terms(self, inquiry: Inquiry) -> bool:
        mark = digest(msgspec.msgpack.encode(inquiry.message.terms.content))
        if mark not in self._marks:
            try:
                rules.check_terms(inquiry.message.terms)
            except SimenvError as error:
                inquiry.refusals.append(refusal(error))
                return False
            if len(self._marks) >= KEPT:
                self._marks.clear()
            self._marks.add(mark)
        inquiry.mark = mark
        return True

    def _program(self, spec: TaskSpec, terms: Terms, inquiry: Inquiry) -> Known:
        mark = inquiry.mark
        key = (digest(spec.program), mark)
        known = self._programs.get(key)
        if known is None:
            if inquiry.wrong and key[0] in inquiry.wrong:
                raise inquiry.wrong[key[0]].with_traceback(None)
            self._opened_bytes += len(spec.program)
            try:
                known = self._open(spec.program, terms, mark)
            except SimenvError as error:
                inquiry.wrong[key[0]] = error
                raise
            _keep(self._programs, key, known)
        return known

    def _open(self, packed: bytes, terms: Terms, mark: bytes) -> Known:
        program = open_program(packed)
        key = (program.structure, mark)
        known = self._structures.get(key)
        if known is not None and _are_finite(program.params):
            return known
        found, known = self._examine(program, terms)
        if _UNKEPT_NAMES.isdisjoint(program.names) and not routing.hangs_on_angles(found, terms):
            _keep(self._structures, key, known)
        return known

    def _examine(self, program: Program, terms: Terms) -> tuple[Profile, Known]:
        self._opened_bytes += EXAMINED_BYTES + 8 * len(program.ops)
        circuit = Circuit.from_buffers(*msgspec.structs.astuple(program)[1:])
        wrong = check.problem(circuit)
        if wrong:
            raise ProgramError(f"the program is not valid: {wrong}")
        found = profile(circuit)
        rules.check_final_state(terms, circuit, found)
        route = routing.route(found, terms, self._pools, self._limits)
        rules.check_outputs(found, terms)
        return found, rules.known(program, found, route)


def open_program(packed: bytes) -> Program:
    """A packed program of this version; what its arrays hold is not yet looked at."""
    try:
        program = decode_program(packed)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ProgramError(f"the program cannot be read: {error}") from error
    if program.format not in READ_FORMATS:
        read = " and ".join(map(str, READ_FORMATS))
        raise VersionMismatch(
            f"the program has format {program.format}, this service reads {read}",
            hint="client and service should be of one version",
        )
    return program


def _are_finite(params: bytes) -> bool:
    """Are all angles finite? False too if their sum overflows: then they are looked at closely."""
    if len(params) % 8:
        return False
    return math.isfinite(sum(memoryview(params).cast("d")))


def _keep(memory: dict[tuple[bytes, bytes], Known], key: tuple[bytes, bytes], known: Known) -> None:
    if len(memory) >= KEPT:
        memory.clear()
    memory[key] = known


def refusal(error: SimenvError, index: int = -1) -> Refusal:
    """An error as it travels."""
    retry_after_s = getattr(error, "retry_after_s", 0.0)
    return Refusal(error.code, error.message, error.hint, index, retry_after_s)
