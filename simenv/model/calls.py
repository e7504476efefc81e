"""Calls: tasks with a function or circuits to compile in place of a program, and their values.

A task is a call if its only output is VALUE. The engine determines the struct in `program`:
TRANSPILER a `TranspileCall`, FUNCTIONS a `FunctionCall`, DETECTORS a `DetectionCall`. All of them
are encoded as msgpack arrays whose first element is CALL_FORMAT. Only `FunctionCall` and
`FunctionAnswer` contain bytes of `pickle`; only the environment's own user sends and receives them.
"""

from __future__ import annotations

import sys
from typing import Annotated

import msgspec

from simenv.errors import LimitExceededError, OptionError, ProgramError, VersionMismatchError
from simenv.model.bounds import Text, check_printable
from simenv.model.detection import DETECTORS, DetectionCall, check_detection
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
    return call
