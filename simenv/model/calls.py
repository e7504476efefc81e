"""Calls: tasks with a function or circuits to compile in place of a program, and their values.

A task is a call if its only output is VALUE. The engine determines the struct in `program`:
TRANSPILER a `TranspileCall`, FUNCTIONS a `FunctionCall`, DETECTORS a `DetectionCall`. All of them
are encoded as msgpack arrays whose first element is CALL_FORMAT. Only `FunctionCall` and
`FunctionAnswer` contain bytes of `pickle`; only the environment's own user sends and receives them.
"""

from __future__ import annotations

import functools
import sys
from typing import Annotated

import msgspec

from simenv.errors import LimitExceededError, OptionError, ProgramError, VersionMismatchError
from simenv.model.bounds import Text, check_printable
from simenv.model.detection import DETECTORS, DetectionCall, check_detection
from simenv.model.devices import DeviceInfo
from simenv.model.task import TaskOptions

CALL_FORMAT = 1
VALUE = "value"
TRANSPILER, FUNCTIONS = "transpiler", "functions"  # engines
CALL_ENGINES = (TRANSPILER, FUNCTIONS, DETECTORS)
MAX_CALL_BYTES = 16 * 2**20  # of a task's function with its arguments, or of its circuits
MAX_VALUE_BYTES = 64 * 2**20  # of the returned value
MAX_CIRCUITS = 256  # of one task
AS_SUBMITTED = -1  # in place of a level: compile as `submit` does for a device
LEVELS = range(AS_SUBMITTED, 4)  # 0 to 3: optimization levels of Qiskit's transpiler
MAX_NAME_CHARS = 256
MAX_DEVICE_BYTES = 2**20
MAX_TARGET_ENTRIES = 200_000  # of the compiler's table of a device, about 1 KiB each
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"  # pickles of functions need the same


class TranspileCall(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Circuits to compile for a device."""

    format: int
    device: bytes  # a DeviceInfo in msgpack
    level: int  # of Qiskit's transpiler, or AS_SUBMITTED
    seed: int  # of its random choices: 0 .. 2^32 - 1
    qpy: int  # version of QPY that the answer has at most
    first: int  # number of the first circuit in its caller's list, for messages
    circuits: Annotated[tuple[bytes, ...], msgspec.Meta(max_length=MAX_CIRCUITS)]  # QPY, one each


class TranspileAnswer(msgspec.Struct, frozen=True, array_like=True):
    """The compiled circuits, in order."""

    format: int
    compiler: str  # name, version, level and seed
    circuits: tuple[bytes, ...]  # QPY, one each


class FunctionCall(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A function of the environment's own user with its arguments."""

    format: int
    python: Text  # version that pickled it: "3.12"
    name: Text  # of the function, for messages
    pickled: bytes  # by cloudpickle: (function, positional arguments, keyword arguments)


class FunctionAnswer(msgspec.Struct, frozen=True, array_like=True):
    """The return value of a function, pickled."""

    format: int
    pickled: bytes


Call = TranspileCall | FunctionCall | DetectionCall
_CALLS: dict[str, type[TranspileCall] | type[FunctionCall] | type[DetectionCall]] = {
    TRANSPILER: TranspileCall,
    FUNCTIONS: FunctionCall,
    DETECTORS: DetectionCall,
}


def is_call(terms: TaskOptions) -> bool:
    """Return whether a task with these options is a call; otherwise it runs a circuit."""
    return VALUE in terms.outputs


def check_call_terms(terms: TaskOptions) -> None:
    """Check the options of a call's task. Raises OptionError for those that only circuits have."""
    if terms.engine not in _CALLS:
        raise OptionError(
            f"output {VALUE!r} was asked of engine {terms.engine[:64]!r}",
            hint=f"it is that of calls: engine= one of {', '.join(CALL_ENGINES)}",
        )
    if (terms.outputs, terms.precision) != ((VALUE,), "double"):
        raise OptionError(f"a call has the output {VALUE!r} and no other, and no precision")
    for name in ("observables", "options", "chain", "device", "noise", "prefer", "parts"):
        if getattr(terms, name):
            raise OptionError(f"a call has no {name}", hint="that is of circuits")


def decode_call(engine: str, packed: bytes) -> Call:
    """Decode and check the call of a task on this engine. Raises ProgramError, LimitExceededError,
    OptionError, VersionMismatchError."""
    if len(packed) > MAX_CALL_BYTES:
        raise LimitExceededError(
            f"a call of {len(packed)} bytes; the limit is {MAX_CALL_BYTES}",
            hint="smaller arguments: give large data by the name of a file; fewer circuits a task",
        )
    try:
        call = msgspec.msgpack.decode(packed, type=_CALLS[engine])
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ProgramError(f"the call cannot be read: {error}") from error
    if call.format != CALL_FORMAT:
        raise VersionMismatchError(
            f"the call has format {call.format}, this version reads {CALL_FORMAT}",
            hint="client and service should be of one version",
        )
    if isinstance(call, FunctionCall):
        if len(call.name) > MAX_NAME_CHARS:
            raise OptionError(f"the name of a function has {len(call.name)} characters")
        check_printable("the name of a function", call.name)
    elif isinstance(call, DetectionCall):
        check_detection(call)
    elif not call.circuits or call.level not in LEVELS or not 0 <= call.seed < 2**32:
        raise OptionError(
            f"{len(call.circuits)} circuits at level {call.level} with seed {call.seed}",
            hint="one circuit or more; level 0 to 3, or -1; seed 0 to 2^32 - 1",
        )
    else:
        target_entries(call.device)
    return call


@functools.lru_cache(maxsize=16)
def decode_device(packed: bytes) -> DeviceInfo:
    """Decode and check the device of a TranspileCall. Raises ProgramError, LimitExceededError."""
    if len(packed) > MAX_DEVICE_BYTES:
        raise LimitExceededError(
            f"a device of {len(packed)} bytes; the limit is {MAX_DEVICE_BYTES}",
            hint="the device without the calibration of gates that circuits do not use",
        )
    try:
        info = msgspec.msgpack.decode(packed, type=DeviceInfo)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ProgramError(f"the device cannot be read: {error}") from error
    for text in (info.name, *(gate.name for gate in info.gates)):
        check_printable("a name of the device", text[: MAX_NAME_CHARS + 1])
    width = info.num_qubits
    qubits = {qubit for pair in info.coupling for qubit in pair}
    qubits.update(qubit for each in info.operations for qubit in each.qubits)
    if (
        not 0 < width <= MAX_TARGET_ENTRIES
        or len(info.qubits) not in (0, width)
        or not qubits <= set(range(width))
    ):
        raise ProgramError(
            f"the device of {width} qubits has couplings, operations or properties of others",
            hint="simenv devices NAME --json has a device as it should be",
        )
    return info


@functools.lru_cache(maxsize=64)
def target_entries(packed: bytes) -> int:
    """Return the entries of the compiler's table for the device of a TranspileCall: one for each
    gate on each tuple of qubits, and the distances of qubits. Raises the errors of `decode_device`,
    and LimitExceededError for too many entries."""
    info = decode_device(packed)
    width = info.num_qubits
    pairs = width * (width - 1) if info.all_to_all else len(info.coupling)
    narrow = sum(gate.qubits == 1 for gate in info.gates) + 3  # measure, delay, reset
    wide = sum(gate.qubits == 2 for gate in info.gates)
    entries = narrow * width + wide * pairs + width * width // 16 + len(info.operations)
    if entries > MAX_TARGET_ENTRIES:
        raise LimitExceededError(
            f"the device has {width} qubits and {len(info.gates)} gates, {entries} entries in the"
            f" compiler's table; the limit is {MAX_TARGET_ENTRIES}",
            hint="fewer qubits or gates, or a coupling map in place of all pairs",
        )
    return entries
