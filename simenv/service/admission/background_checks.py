"""Checks of programs, and recognition of programs that differ in angles only.

Check programs; large ones are checked in a separate thread, so that the event loop continues. The
kernels of a check release the interpreter lock. Owners take turns in the thread, one program a
turn. Invariant: the event loop spends no more than a small program's time here. A check that was
started is repeated by its requester until its result has been taken.

Recognition, by their bytes, of programs that differ from an accepted one in angles only. Two packed
programs of equal length that agree in all bytes outside the angles of the first have the same
structure. The checks of the first therefore hold for the second as soon as its angles are checked;
the second is not decoded. Invariant: the bytes between `at` and `end` of an entry are all of its
angles and nothing else.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from simenv import model
from simenv.errors import ProgramError, VersionMismatchError
from simenv.model.calls import is_call
from simenv.scheduler.routing.engine_choice import AUTO
from simenv.scheduler.routing.engine_support import takes_clifford_alone
from simenv.service.admission import rules
from simenv.service.admission.rules import AdmittedProgram, is_keyed
from simenv.service.fairness import CHECKS
from simulators.catalog import DENSE_QUBITS, SMALL_QUBITS
from simulators.chain.trial import choice_profile
from simulators.circuit.analysis import profiler
from simulators.circuit.analysis.profile import Profile
from simulators.circuit.analysis.profiler import non_clifford_gates, profile
from simulators.circuit.ir import Circuit
from simulators.circuit.validation import admission

if TYPE_CHECKING:
    from simenv.service.devices.context import DeviceContext


BESIDE_BYTES = 2**18  # packed programs of this size or more are checked in the thread

Looked = tuple[model.Program, Profile]


class CheckPending(Exception):
    """A check continues in the thread: repeat the call when `future` is done."""

    def __init__(self, future: Future[Looked]) -> None:
        self.future = future


class RunningChecks:
    """Checks that have begun, by owner and key. Used from the loop's thread."""

    def __init__(self) -> None:
        self._begun: dict[object, Future[Looked]] = {}

    def look(
        self,
        key: Callable[[], object],
        packed: bytes,
        terms: model.TaskOptions,
        owner: str,
        device: DeviceContext | None = None,
    ) -> Looked:
        """Check and profile a program of this owner. Raises SimenvError if it is not admissible,
        CheckPending while the check continues in the thread. `key()` identifies the check; it is
        called only if checks continue in the thread or this one will."""
        is_short = not _takes_long(packed, terms) and (device is None or device.is_loaded)
        if is_short and not self._begun:
            return look(packed, terms, device)
        place = owner, key()
        future = self._begun.get(place)
        if future is None:
            if is_short:
                return look(packed, terms, device)
            check = partial(look, packed, terms, device)
            is_large = len(packed) >= BESIDE_BYTES
            future = self._begun[place] = CHECKS.submit(owner, check, counted=is_large)
        if not future.done():
            raise CheckPending(future)
        del self._begun[place]
        return future.result()


def _takes_long(packed: bytes, terms: model.TaskOptions) -> bool:
    """Return whether the check takes too long for the event loop: the program is large, it is the
    first wide one, which loads or compiles kernels, or it is so wide that a trial chooses its
    engine."""
    if len(packed) >= BESIDE_BYTES or is_call(terms):
        return len(packed) >= BESIDE_BYTES
    if profiler.is_loaded() and terms.engine != AUTO:
        return False
    try:
        declared, used = model.qubits_of(packed)
    except (msgspec.MsgspecError, TypeError):
        return False  # the check raises the error
    if not profiler.is_loaded():
        return declared > SMALL_QUBITS
    return declared > DENSE_QUBITS and used > SMALL_QUBITS


def look(packed: bytes, terms: model.TaskOptions, device: DeviceContext | None = None) -> Looked:
    """Decode and profile a program. Raises SimenvError if no engine can run it with these options,
    or if the device cannot execute it. A call is profiled as a program without operations."""
    if is_call(terms):
        return rules.examined_call(packed, terms)
    program = open_program(packed)
    circuit = Circuit.from_program(program)
    wrong = admission.validation_error(circuit)
    if wrong:
        raise ProgramError(f"the program is not valid: {wrong}")
    looked = choice_profile if terms.engine == AUTO else profile
    result = looked(circuit, terms.outputs, rules.labels(terms))
    if terms.engine == AUTO:  # beyond the width of statevectors it may be refused, with this cost
        is_counted = circuit.num_qubits > DENSE_QUBITS
    else:
        is_counted = takes_clifford_alone(terms.engine)
    if is_counted and not result.may_be_clifford:
        result = msgspec.structs.replace(result, non_clifford=non_clifford_gates(circuit))
    if terms.parts is not None:
        return program, rules.examined(circuit, terms.parts, terms, result)
    rules.check_final_state(terms, circuit, result)
    return program, result if device is None else device.examined(circuit, result)


def open_program(packed: bytes) -> model.Program:
    """Decode a packed program and check its format; the content of its arrays is not checked yet.
    Raises ProgramError, VersionMismatchError."""
    try:
        program = model.decode_program(packed)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ProgramError(f"the program cannot be read: {error}") from error
    if program.format not in model.READ_FORMATS:
        read = " and ".join(map(str, model.READ_FORMATS))
        raise VersionMismatchError(
            f"the program has format {program.format}, this service reads {read}",
            hint="client and service should be of one version",
        )
    return program


KEPT = 100_000  # structures; a full cache is emptied
PLACES = 16  # positions of angles for programs of one length; the oldest one is dropped
LOOKED_BYTES = 2**18  # bytes to compare for positions after the newest
FEW_ANGLES = 64  # for at most so many angles a sum is the fastest test that all are finite
_ENCODE = msgspec.msgpack.Encoder().encode
_FLIPPED = bytes(255 - byte for byte in range(256))


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

    def same_structure_run(self, tasks: list[model.TaskSpec], first: int, stop: int) -> int:
        """Return the index after the last consecutive task before `stop` that has the structure,
        shots and bindings of `tasks[first]`, with finite angles and a valid random key.

        Precondition: the last call of `find`, for the program of `tasks[first]`, was successful.
        """
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
        self, packed: bytes, program: model.Program, terms_digest: bytes, admitted: AdmittedProgram
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
    return len(packed), at, model.digest(packed[:at] + packed[end:]), terms_digest


def _place(packed: bytes, program: model.Program) -> tuple[int, int] | None:
    """Return the position of the angles in a packed program, (begin, end); None if it has none or
    if the position cannot be determined.

    The angles end where the next field begins, whose size follows from our own encoding. The
    position is verified: if all of its bytes are inverted, the program must decode with other
    angles and without any other difference.
    """
    params = program.params
    after = (
        program.num_slots,
        program.slots,
        program.conditions,
        program.constants,
        program.variables,
        program.matrices,
    )
    end = len(packed) - (len(_ENCODE(after)) - 1)  # without the byte for the length of the array
    at = end - len(params)
    if not params or packed[at:end] != params:
        return None
    flipped = params.translate(_FLIPPED)
    try:
        other = model.decode_program(packed[:at] + flipped + packed[end:])
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
    return (at, end) if other == msgspec.structs.replace(program, params=flipped) else None


def _are_finite(packed: bytes, layout: ProgramTemplate) -> bool:
    """Return whether all angles are finite; False also if their sum overflows."""
    if layout.end - layout.at <= 8 * FEW_ANGLES:
        return math.isfinite(sum(layout.angles.unpack_from(packed, layout.at)))
    count = (layout.end - layout.at) // 8
    return bool(np.isfinite(np.frombuffer(packed, "<f8", count, layout.at)).all())
