"""Check programs; large ones in a thread of their own, so that the event loop continues.

The kernels of a check release the interpreter lock. Owners take turns in the thread, one program a
turn. Invariant: the event loop spends no more than a small program's time here. A check that was
started is repeated by its requester until its result has been taken.
"""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

import msgspec

from simenv.errors import ProgramError, VersionMismatchError
from simenv.model import READ_FORMATS, Program, TaskOptions, decode_program, qubits_of
from simenv.model.calls import is_call
from simenv.scheduler.routing.engine_choice import AUTO
from simenv.scheduler.routing.engine_support import takes_clifford_alone
from simenv.service.admission import calls, parts, rules
from simenv.service.support.fair_queue import FairQueue
from simulators.catalog import DENSE_QUBITS, SMALL_QUBITS
from simulators.chain.choice_profile import choice_profile
from simulators.circuit.analysis.profile import Profile
from simulators.circuit.analysis.profiler import non_clifford_gates, profile
from simulators.circuit.ir import Circuit
from simulators.circuit.passes import light_cone
from simulators.circuit.validation import admission

BESIDE_BYTES = 2**18  # a packed program from here on is looked at beside the loop

Looked = tuple[Program, Profile]


class DeviceChecks(Protocol):
    """What a device adds to the look at a program."""

    is_loaded: bool  # False: the first look takes long

    def examined(self, circuit: Circuit, profile: Profile) -> Profile:
        """The profile with that of the circuit's noise; SimenvError where the device does not
        execute the circuit."""


class FairThread:
    """One thread that examines the programs of all owners, a program of each in turn."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "examining")
        self._lock = threading.Lock()
        self._waiting: FairQueue[tuple[Future[Looked], bytes, TaskOptions, DeviceChecks | None]] = (
            FairQueue()
        )

    def submit(
        self, owner: str, packed: bytes, terms: TaskOptions, device: DeviceChecks | None = None
    ) -> Future[Looked]:
        """What `look` will return, or the error it will raise."""
        future: Future[Looked] = Future()
        with self._lock:
            self._waiting.put(owner, b"", (future, packed, terms, device))
        self._thread.submit(self._next)
        return future

    def _next(self) -> None:
        """Called once for each program, in the thread."""
        with self._lock:
            _, _, (future, packed, terms, device) = self._waiting.first()
            self._waiting.end_turn(done=True)
        try:
            future.set_result(look(packed, terms, device))
        except BaseException as error:  # noqa: BLE001 - raised where the result is asked for
            future.set_exception(error)


_THREAD = FairThread()


class Later(Exception):
    """The look goes on beside: ask again when `future` is done."""

    def __init__(self, future: Future[Looked]) -> None:
        self.future = future


class Examining:
    """Looks that were begun, by what identifies them. Used from the loop's thread."""

    def __init__(self) -> None:
        self._begun: dict[object, Future[Looked]] = {}

    def look(
        self,
        key: object,
        packed: bytes,
        terms: TaskOptions,
        owner: str,
        device: DeviceChecks | None = None,
    ) -> Looked:
        """What a program of this owner is; SimenvError where it is not admissible, Later where that
        takes long and is not known yet."""
        future = self._begun.get((owner, key))
        if future is None:
            if not _takes_long(packed, terms) and (device is None or device.is_loaded):
                return look(packed, terms, device)
            future = self._begun[owner, key] = _THREAD.submit(owner, packed, terms, device)
        if not future.done():
            raise Later(future)
        del self._begun[owner, key]
        return future.result()


def _takes_long(packed: bytes, terms: TaskOptions) -> bool:
    """Is it large, or the first wide one, for which kernels must still be loaded or compiled, or so
    wide that its engine is chosen by a trial?"""
    if len(packed) >= BESIDE_BYTES or is_call(terms):
        return len(packed) >= BESIDE_BYTES
    if light_cone.is_loaded() and terms.engine != AUTO:
        return False
    try:
        declared, used = qubits_of(packed)
    except (msgspec.MsgspecError, TypeError):
        return False  # the look says what is wrong
    if not light_cone.is_loaded():
        return declared > SMALL_QUBITS
    return declared > DENSE_QUBITS and used > SMALL_QUBITS


def look(packed: bytes, terms: TaskOptions, device: DeviceChecks | None = None) -> Looked:
    """The program opened and profiled; SimenvError where no engine could run it under these
    terms, or the device does not execute it. A call is profiled as a program without operations."""
    if is_call(terms):
        return calls.examined(packed, terms)
    program = open_program(packed)
    circuit = Circuit.from_program(program)
    wrong = admission.validation_error(circuit)
    if wrong:
        raise ProgramError(f"the program is not valid: {wrong}")
    looked = choice_profile if terms.engine == AUTO else profile
    result = looked(circuit, terms.outputs, rules.labels(terms))
    if not result.may_be_clifford and terms.engine != AUTO and takes_clifford_alone(terms.engine):
        result = msgspec.structs.replace(result, non_clifford=non_clifford_gates(circuit))
    if terms.parts is not None:
        return program, parts.examined(circuit, terms.parts, terms, result)
    rules.check_final_state(terms, circuit, result)
    return program, result if device is None else device.examined(circuit, result)


def open_program(packed: bytes) -> Program:
    """A packed program of this version; what its arrays hold is not yet looked at."""
    try:
        program = decode_program(packed)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ProgramError(f"the program cannot be read: {error}") from error
    if program.format not in READ_FORMATS:
        read = " and ".join(map(str, READ_FORMATS))
        raise VersionMismatchError(
            f"the program has format {program.format}, this service reads {read}",
            hint="client and service should be of one version",
        )
    return program
