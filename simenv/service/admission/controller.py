"""Check the tasks of a submit: each new program once, each task against its terms.

A program is decoded and profiled once per structure. A second program that differs in angles only
is accepted after a check of its angles. Refused tasks are never stored.

Recognition of a structure: two packed programs of equal length that agree in all bytes outside the
angles of the first have the same structure. The checks of the first therefore hold for the second
as soon as its angles are checked; the second is not decoded. Invariant: the bytes between `at` and
`end` of an entry are all of its angles and nothing else.
"""

from __future__ import annotations

import math
import struct
import time
from collections.abc import Callable

import msgspec
import numpy as np

from simenv.errors import InfeasibleError, SimenvError
from simenv.model import (
    MAX_SHOTS,
    PoolSpec,
    Program,
    TaskOptions,
    TaskSpec,
    decode_program,
    devices,
    digest,
)
from simenv.model.task_rules import MAX_BINDING, MAX_SEED
from simenv.scheduler.core import device_ns
from simenv.scheduler.routing import engine_choice, live_routing
from simenv.scheduler.routing.engine_support import EMPTY_SNAPSHOT, RoutingSnapshot
from simenv.scheduler.state.scheduler_state import SchedulerState
from simenv.service import program_rules
from simenv.service.admission.background_checks import CheckPending, RunningChecks
from simenv.service.admission.submissions import PendingSubmit, check_parents
from simenv.service.devices.resolve import DocumentPending, EmulatedDevices
from simenv.service.internal_errors import InternalErrors
from simenv.service.program_rules import AdmittedProgram
from simenv.wire.codec import refusal
from simulators.circuit.analysis.profile import Profile

MAX_ENTRIES = 100_000  # of each cache; full ones are emptied
MAX_PROFILES = 4_096  # whose admission is kept
TASKS_PER_CLOCK_CHECK = (
    32  # admitted between two checks of the clock, unless their programs are large
)
BYTES_PER_CLOCK_CHECK = 2**16  # of programs that were decoded, or that are large
LARGE_BYTES = 2**12
EXAMINED_BYTES = 2**14  # cost of the check of a program, besides that of its operations
_UNKEPT_NAMES = frozenset({"delay", "delay_dt"})  # their parameters are checked beyond finiteness


class AdmissionController:
    """Admission of tasks, with caches of programs and options. Used from the loop's thread."""

    def __init__(
        self,
        pools: tuple[PoolSpec, ...],
        state: SchedulerState,
        take_snapshot: Callable[[], RoutingSnapshot] = lambda: EMPTY_SNAPSHOT,
        devices: EmulatedDevices | None = None,
    ) -> None:
        """`state`: of the scheduler, with the present capacity of its nodes. `take_snapshot`:
        returns the present state of pools and hardware, as routing needs it. `devices`: the
        emulated devices; None: there are none."""
        self._devices = devices
        self._take_snapshot = take_snapshot
        self._snapshot = EMPTY_SNAPSHOT
        self._has_hardware = any(pool.provider for pool in pools)
        self._pools = pools
        self._state = state
        self._capacity = state.cluster.capacity
        self._structures = StructureCache()
        # By profile, slots and options: nothing else matters while pools and nodes stay.
        self._profiles: dict[tuple[Profile, int, bytes], AdmittedProgram] = {}
        # Programs that are not in `_structures`, by digest and options.
        self._programs: dict[tuple[bytes, bytes], AdmittedProgram] = {}
        self._digested_sizes: set[int] = set()  # bytes of programs that have a known digest
        # The program examined last, while neither cache has it.
        self._newest: tuple[bytes, Program, bytes, AdmittedProgram] | None = None
        self._checked_terms: set[bytes] = set()  # digests of valid options
        self._terms: TaskOptions | None = None  # the last valid options
        self._terms_digest = b""  # their digest
        self._opened_bytes = 0  # since the last check of the clock
        self._checked: tuple[object, ...] = ()  # see `_check`
        self._examining = RunningChecks()

    def admit_some(
        self, pending: PendingSubmit, deadline_ns: int, internal_errors: InternalErrors
    ) -> bool:
        """Admit more tasks of a Submit. Returns True when all of them were admitted or refused.
        While a large program is checked in the other thread, this returns at once. A program at
        which the service fails is refused, and recorded in `internal_errors`."""
        if pending.background_check is not None:
            if not pending.background_check.done():
                return False
            pending.background_check = None
        message = pending.message
        if self._has_hardware or message.terms.prefer:
            self._refresh_snapshot()
        if self._capacity is not self._state.cluster.capacity:
            self._capacity = self._state.cluster.capacity
            self._clear()
        try:
            if not pending.terms_digest and not self._terms_are_valid(pending):
                return True
        except DocumentPending as waiting:
            pending.background_check = waiting.future
            return False
        total = len(message.tasks)
        while pending.next < total:
            stop = min(total, pending.next + TASKS_PER_CLOCK_CHECK)
            self._opened_bytes = 0
            try:
                while pending.next < stop and self._opened_bytes <= BYTES_PER_CLOCK_CHECK:
                    self._admit(pending, stop, internal_errors)
            except (CheckPending, DocumentPending) as later:
                pending.background_check = later.future
                return False
            if time.monotonic_ns() >= deadline_ns:
                break
        return pending.next >= total

    def _admit(self, pending: PendingSubmit, stop: int, internal_errors: InternalErrors) -> None:
        """Admit the next task, and the similar tasks that follow it before `stop`."""
        self.remember_newest()
        index, terms, tasks = pending.next, pending.message.terms, pending.message.tasks
        spec, terms_digest = tasks[index], pending.terms_digest
        if terms.snapshot:  # engines for noise are chosen by the shots too
            terms_digest += _rounded(spec.shots).to_bytes(8, "little")
        is_large = len(spec.program) > LARGE_BYTES
        if is_large:
            self._opened_bytes += len(spec.program)
        try:
            looked_bytes = self._structures.looked_bytes
            cached = self._structures.find(spec.program, terms_digest)
            self._opened_bytes += self._structures.looked_bytes - looked_bytes
            admitted = cached or self._program(spec, terms, pending, terms_digest)
            self._check(spec, terms, admitted, terms_digest)
            limited = self._check_angles(spec, terms)
        except SimenvError as error:
            pending.next = index + 1
            pending.refusals.append(refusal(error, index))
            return
        except (CheckPending, DocumentPending):
            raise
        except Exception as error:  # noqa: BLE001 - recorded; the refusal says which program
            internal = internal_errors.record(error, "the check of a program")
            pending.next = index + 1
            pending.refusals.append(refusal(internal, index))
            return
        pending.next = index + 1
        if cached is not None and not is_large and not limited and pending.next < stop:
            pending.next = self._structures.same_structure_run(tasks, index, stop)
        count = pending.next - index
        pending.routes += [admitted.route] * count
        if terms.reservation:
            pending.sizes += [admitted.size] * count

    def forget_check(self, pending: PendingSubmit) -> None:
        """Forget the check for which a Submit waits: its client has left."""
        self._examining.forget(pending.background_check)

    def _refresh_snapshot(self) -> None:
        """Update the snapshot for routing; a change makes all cached routes invalid."""
        snapshot = self._take_snapshot()
        if snapshot != self._snapshot:
            self._snapshot = snapshot
            self._clear()

    def _clear(self) -> None:
        """Drop cached programs, whose routes depend on the former state of pools and nodes."""
        self._newest = None
        self._programs.clear()
        self._profiles.clear()
        self._structures = StructureCache()

    def _terms_are_valid(self, pending: PendingSubmit) -> bool:
        terms = pending.message.terms
        try:
            if pending.owner and not self._state.limits.isolates_accounts:
                program_rules.check_owner(terms, pending.owner)
            if terms == self._terms:  # of the last message, mostly
                pending.terms_digest = self._terms_digest
                return True
            terms = self._with_document(pending)
        except SimenvError as error:
            pending.refusals.append(refusal(error))
            return False
        # Programs are examined once, whatever tasks they come after and whoever pays for them.
        content = terms.content
        if terms.after or terms.account or terms.qos:
            content = msgspec.structs.replace(content, after=(), account="", qos="")
        terms_digest = digest(msgspec.msgpack.encode(content))
        try:
            program_rules.check_app(terms)
            check_parents(terms)
            if terms_digest not in self._checked_terms:
                program_rules.check_terms(terms)
                program_rules.check_part_terms(terms)
        except SimenvError as error:
            pending.refusals.append(refusal(error))
            return False
        if terms_digest not in self._checked_terms:
            if len(self._checked_terms) >= MAX_ENTRIES:
                self._checked_terms.clear()
            self._checked_terms.add(terms_digest)
        self._terms, self._terms_digest = terms, terms_digest
        pending.terms_digest = terms_digest
        return True

    def _with_document(self, pending: PendingSubmit) -> TaskOptions:
        """Return the options in the form in which they are accepted: with a device, they name its
        noise document. Raises SimenvError, DocumentPending."""
        terms = pending.message.terms
        if self._devices is None:
            return terms
        resolved = self._devices.resolved(terms)
        if resolved != terms:
            self._devices.context(resolved)  # the document is read before the programs are
            pending.asked_snapshot = terms.snapshot
            pending.message = msgspec.structs.replace(pending.message, terms=resolved)
            pending.resolved_body = msgspec.msgpack.encode(pending.message)
        return resolved

    def _check(
        self, spec: TaskSpec, terms: TaskOptions, admitted: AdmittedProgram, terms_digest: bytes
    ) -> None:
        """Check a task against its options; the check is skipped for a task that is similar to the
        last one."""
        kind = (admitted, spec.shots, spec.count, spec.bindings, terms_digest)
        if kind == self._checked and is_keyed(spec):
            return
        if admitted.route.paced and not spec.shots:
            text = f"an exact result of the paced device {terms.device}: a machine samples"
            hint = "shots=1024, or pool='NAME' of a pool that is not paced"
            raise InfeasibleError(text, hint=hint)
        if device_ns(admitted.route, spec.shots, spec.count) >= devices.LONGEST_NS:
            raise InfeasibleError(
                f"the task would take more than {devices.LONGEST_NS / 3.156e16:.0f} years on device"
                f" {terms.device}",
                hint="shorter delays, fewer shots or fewer bindings",
            )
        program_rules.check_task(spec, terms, admitted)
        self._checked = kind

    def _check_angles(self, spec: TaskSpec, terms: TaskOptions) -> bool:
        """Check the angles of a task, which another one of its structure does not share. Returns
        whether its device may limit them."""
        device = None if self._devices is None else self._devices.context(terms)
        if device is None or not device.limits_angles(spec.program):
            return False
        self._opened_bytes += len(spec.program) + len(spec.bindings)
        device.check_angles(decode_program(spec.program), spec)
        return True

    def _program(
        self, spec: TaskSpec, terms: TaskOptions, pending: PendingSubmit, terms_digest: bytes
    ) -> AdmittedProgram:
        """Return the admission of a program that the structure cache does not contain."""
        packed = spec.program
        if len(packed) in self._digested_sizes:  # else it was not seen: no digest is needed
            name = digest(packed)
            admitted = self._programs.get((name, terms_digest))
            if admitted is not None:
                return admitted
            if name in pending.rejected_programs:
                raise pending.rejected_programs[name].with_traceback(None)
        self._opened_bytes += len(packed)
        try:
            return self._open(spec, terms, terms_digest, pending.owner)
        except SimenvError as error:
            pending.rejected_programs[digest(packed)] = error
            self._note_size(packed)
            raise

    def _note_size(self, packed: bytes) -> None:
        if len(self._digested_sizes) >= MAX_ENTRIES:
            self._digested_sizes.clear()
        self._digested_sizes.add(len(packed))

    def _open(
        self, spec: TaskSpec, terms: TaskOptions, terms_digest: bytes, owner: str
    ) -> AdmittedProgram:
        packed = spec.program
        device = None if self._devices is None else self._devices.context(terms)
        program, profile = self._examining.look(
            lambda: (digest(packed), terms_digest), packed, terms, owner, device
        )
        self._opened_bytes += EXAMINED_BYTES + 8 * len(program.ops)
        profile = with_shots(profile, spec.shots)
        key = profile, program.num_slots, terms_digest
        admitted = self._profiles.get(key)
        if admitted is None:
            route = live_routing.route_now(
                profile, terms, self._pools, self._capacity, self._snapshot
            )
            program_rules.check_outputs(profile, terms)
            max_shots = 0 if device is None else device.max_shots
            admitted = program_rules.admitted_by_route(program, profile, route, max_shots)
            if len(self._profiles) >= MAX_PROFILES:
                self._profiles.clear()
            self._profiles[key] = admitted
        if _UNKEPT_NAMES.isdisjoint(
            program.names
        ) and not engine_choice.depends_on_parameter_values(profile, terms):
            self._newest = packed, program, terms_digest, admitted
        else:
            self._remember(packed, terms_digest, admitted)
        return admitted

    def remember_newest(self) -> None:
        """Store the structure of the program examined last. Called before the next program is
        looked up and, so that no task waits for it, after the tasks of a pass were sent."""
        if self._newest is not None:
            packed, program, terms_digest, admitted = self._newest
            self._newest = None
            if not self._structures.keep(packed, program, terms_digest, admitted):
                self._remember(packed, terms_digest, admitted)

    def _remember(self, packed: bytes, terms_digest: bytes, admitted: AdmittedProgram) -> None:
        """Store a program that cannot be recognised by its structure."""
        if len(self._programs) >= MAX_ENTRIES:
            self._programs.clear()
        self._programs[digest(packed), terms_digest] = admitted
        self._note_size(packed)


def is_keyed(spec: TaskSpec) -> bool:
    """Return whether the numbers of the task's random key are within bounds."""
    return 0 <= spec.seed <= MAX_SEED and 0 <= spec.binding <= MAX_BINDING


def _rounded(shots: int) -> int:
    """Round shots up to a power of 4; 0: exact. More than MAX_SHOTS are refused, and alike."""
    return 1 << ((min(shots, MAX_SHOTS) - 1).bit_length() + 1) // 2 * 2 if shots > 0 else 0


def with_shots(profile: Profile, shots: int) -> Profile:
    """Return the profile of a circuit with noise for `shots` shots; a profile without noise is
    returned unchanged."""
    if profile.noise is None:
        return profile
    noise = msgspec.structs.replace(profile.noise, shots=_rounded(shots))
    return msgspec.structs.replace(profile, noise=noise)


# --- recognition of structures --------------------------------------------------------------------

KEPT = 100_000  # structures; a full cache is emptied
PLACES = 16  # positions of angles for programs of one length; the oldest one is dropped
LOOKED_BYTES = 2**18  # bytes to compare for positions after the newest
FEW_ANGLES = 64  # for at most so many angles a sum is the fastest test that all are finite
_ENCODE = msgspec.msgpack.Encoder().encode


class ProgramTemplate(msgspec.Struct, frozen=True, gc=False):
    """Position of the angles in packed programs of one structure, and the bytes around them."""

    terms_digest: bytes  # of the options for which the structure was checked
    size_bytes: int
    at: int
    end: int
    head: bytes
    tail: bytes
    admitted: AdmittedProgram
    angles: struct.Struct


class StructureCache:
    """Cache of admitted structures, by options."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, int, bytes, bytes], AdmittedProgram] = {}
        self._paths: dict[int, dict[tuple[int, int], None]] = {}  # by bytes of a program
        self._last: ProgramTemplate | None = None  # neighbours mostly have the same structure
        self.looked_bytes = 0  # compared in total; the caller bounds its work by it

    def find(self, packed: bytes, terms_digest: bytes) -> AdmittedProgram | None:
        """Return the admission of a program's structure. None if the structure is not cached, or
        if an angle may not be finite: then the program has to be decoded."""
        last = self._last
        if (
            last is None
            or len(packed) != last.size_bytes
            or terms_digest != last.terms_digest
            or not (packed.startswith(last.head) and packed.endswith(last.tail))
        ):
            last = self._find_path(packed, terms_digest)
            if last is None:
                return None
        return last.admitted if _are_finite(packed, last) else None

    def same_structure_run(self, tasks: list[TaskSpec], first: int, stop: int) -> int:
        """Return the index after the last consecutive task before `stop` that has the structure,
        shots and bindings of `tasks[first]`, with finite angles and a valid random key.
        Precondition: the last call of `find`, for the program of `tasks[first]`, was successful."""
        last, like = self._last, tasks[first]
        assert last is not None
        size, head, tail, at, end = last.size_bytes, last.head, last.tail, last.at, last.end
        shots, count, bindings = like.shots, like.count, like.bindings
        angles: list[bytes] = []
        for index in range(first + 1, stop):
            spec = tasks[index]
            packed = spec.program
            if (
                len(packed) != size
                or spec.shots != shots
                or spec.count != count
                or spec.bindings != bindings
                or not packed.startswith(head)
                or not packed.endswith(tail)
                or not is_keyed(spec)
            ):
                stop = index
                break
            angles.append(packed[at:end])
        if np.isfinite(np.frombuffer(b"".join(angles), "<f8")).all():
            return stop
        return first + 1

    def keep(
        self, packed: bytes, program: Program, terms_digest: bytes, admitted: AdmittedProgram
    ) -> bool:
        """Store the admission of a structure. Returns False if its bytes do not determine it."""
        place = _place(packed, program)
        if place is None:
            return False
        if len(self._known) >= KEPT:
            self._known.clear()
            self._paths.clear()
        paths = self._paths.setdefault(len(packed), {})
        if place not in paths:
            if len(paths) >= PLACES:
                del paths[next(iter(paths))]
            paths[place] = None
        self._known[_key(packed, *place, terms_digest)] = admitted
        return True

    def _find_path(self, packed: bytes, terms_digest: bytes) -> ProgramTemplate | None:
        left = LOOKED_BYTES
        for at, end in reversed(self._paths.get(len(packed), {})):
            self.looked_bytes += len(packed)
            admitted = self._known.get(_key(packed, at, end, terms_digest))
            if admitted is not None:
                angles = struct.Struct(f"<{(end - at) // 8}d")
                head, tail = packed[:at], packed[end:]
                self._last = ProgramTemplate(
                    terms_digest, len(packed), at, end, head, tail, admitted, angles
                )
                return self._last
            left -= len(packed)
            if left < 0:
                return None  # decoding the program takes less time than more comparisons
        return None


def _key(packed: bytes, at: int, end: int, terms_digest: bytes) -> tuple[int, int, bytes, bytes]:
    return len(packed), at, digest(packed[:at] + packed[end:]), terms_digest


_AFTER_PARAMS = Program.__struct_fields__.index("params") + 1


def _place(packed: bytes, program: Program) -> tuple[int, int] | None:
    """Return the position of the angles in a packed program, (begin, end); None if it has none or
    is not packed as `Program.packed` does it: then its bytes alone do not tell the position.

    The angles end where the next field begins, whose size follows from our own encoding.
    """
    params = program.params
    if not params or packed != program.packed():
        return None
    after = msgspec.structs.astuple(program)[_AFTER_PARAMS:]
    end = len(packed) - (len(_ENCODE(after)) - 1)  # without the byte for the length of the array
    return end - len(params), end


def _are_finite(packed: bytes, layout: ProgramTemplate) -> bool:
    """Return whether all angles are finite; False also if their sum overflows."""
    if layout.end - layout.at <= 8 * FEW_ANGLES:
        return math.isfinite(sum(layout.angles.unpack_from(packed, layout.at)))
    count = (layout.end - layout.at) // 8
    return bool(np.isfinite(np.frombuffer(packed, "<f8", count, layout.at)).all())
