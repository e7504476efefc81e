"""Calls: functions, circuits to compile, and circuits with detectors.

Sampling of detectors as a call: stim's text of a circuit, and sums over its samples. Invariant: a
circuit travels as text and only workers parse it. The service relies on the sizes that the client
sent with it; a worker refuses a circuit whose sizes differ.

Calls: tasks with a function or circuits to compile in place of a program, and their values. A task
is a call if its only output is VALUE. The engine determines the struct in `program`: TRANSPILER a
`TranspileCall`, FUNCTIONS a `FunctionCall`, DETECTORS a `DetectionCall`, AUTO and each of
PULSE_ENGINES a `PulseCall` (`simenv.model.pulses`). All of them are encoded as msgpack arrays whose
first element is CALL_FORMAT. Only `FunctionCall` and `FunctionAnswer` contain bytes of `pickle`;
only the environment's own user sends and receives them.
"""

from __future__ import annotations

import itertools
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import msgspec

from simenv.errors import (
    DECODE_ERRORS,
    LimitExceededError,
    OptionError,
    ProgramError,
    VersionMismatchError,
)
from simenv.model.availability import Availability
from simenv.model.devices import DeviceInfo
from simenv.model.options import VALUE, TaskOptions
from simenv.model.program import Text, check_printable, digest
from simenv.model.pulses import PULSE_ENGINES, PulseCall, check_pulses
from simenv.model.task import DeviceRecord
from simenv.text import short_repr, size

DETECTORS = "detectors"  # the engine
MAX_DECODER_CHARS = 64
MAX_TEXT_BYTES = 8 * 2**20
MAX_EVENT_BYTES = 48 * 2**20  # of the packed bits of all shots
MAX_REPEATS = 1_000  # REPEAT blocks in the text
MAX_DEPTH = 64  # of REPEAT blocks within one another
PASSES = 3  # of a block on a device: first, between, last
MAX_WRITTEN = 200_000  # operations of a circuit on a device, with blocks written so
MAX_DRAW = 2**32
MAX_LATE_NS = 1e9  # idle time of a layer for a decoder: 1 s
Places = Annotated[tuple[int, ...], msgspec.Meta(max_length=65_535)]
_LIMITS = {
    "qubits": 65_535,
    "measurements": 2**24,
    "detectors": 2**20,
    "observables": 1_024,
    "operations": 10**8,
}


class DetectionSizes(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Sizes of a circuit with unrolled REPEAT blocks. `operations`: instructions and targets;
    `written`: those of a device's circuit, where blocks with TICKs are written at most PASSES
    times."""

    qubits: int
    measurements: int
    detectors: int
    observables: int
    operations: int
    written: int = 0


class DevicePlacement(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Place of a circuit with detectors on its task's device. `qubits`: those that the circuit
    uses, ascending; `places`: the device's qubit of each. Without places, values of the device's
    qubits and pairs are drawn: `draw` is the number of the draw, 0 or more."""

    qubits: Places
    places: Places
    draw: int = -1
    late_ns: float = 0.0  # idle time of all qubits in each layer with measurements
    # Time of the decoder for a layer, from its measurements to the correction; what is above the
    # time of a layer is idle time, as `late_ns` is.
    latency_ns: float = 0.0


class DetectionCall(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A circuit with detectors or observables; shots and seed are those of the task."""

    format: int
    circuit: str  # as stim writes it
    decoder: Text  # of those that workers have; "": none
    events: bool  # whether the answer holds the bits of each shot
    sizes: DetectionSizes
    placement: DevicePlacement | None = None  # None: the circuit has its noise in it


class DetectionDevice(msgspec.Struct, frozen=True, array_like=True):
    """The device that a circuit with detectors ran on, and the times of one shot there."""

    record: DeviceRecord
    placement: DevicePlacement
    shot_ns: float  # with the reset of the qubits
    layers: int  # with measurements, in one shot
    layer_ns: float  # mean time of a layer without `late_ns`
    late_ns: float  # idle time of each layer for its decoder


class DetectionAnswer(msgspec.Struct, frozen=True, array_like=True):
    """Sums over all shots, and the bits of each shot if the call has `events`. Arrays of numbers
    are uint64 [detectors] or [observables], little-endian; rows of bits are uint8 [shots, bytes],
    bit k in byte k // 8, lowest first. Without a decoder there are no errors."""

    format: int
    shots: int
    seed: int
    sizes: DetectionSizes
    sampler: str  # name and version
    decoder: str  # name and version; "": none
    errors: int  # shots in which the prediction of an observable or more was wrong
    observable_errors: bytes
    detections: bytes  # shots in which each detector fired
    flips: bytes  # shots in which each observable was flipped
    detection_events: bytes
    observable_flips: bytes
    predictions: bytes
    device: DetectionDevice | None = None


def sizes_of(circuit: Any) -> DetectionSizes:
    """Return the sizes of a stim.Circuit."""
    detectors, observables = circuit.num_detectors, circuit.num_observables
    sizes = circuit.num_qubits, circuit.num_measurements, detectors, observables
    operations, written, _ = _counted_operations(circuit)
    return DetectionSizes(*sizes, operations, written)


def _counted_operations(circuit: Any) -> tuple[int, int, bool]:
    """Count operations, and those of a device's circuit, up to one more than their limit: the
    number of a nested block may have thousands of digits. Return whether there are TICKs too."""
    total, written, ticks = 0, 0, False
    for item in circuit:
        if item.name == "REPEAT":
            passes, inside = int(item.repeat_count), _counted_operations(item.body_copy())
            total += passes * inside[0]
            written += (min(passes, PASSES) if inside[2] else passes) * inside[1]
            ticks = ticks or inside[2]
        else:
            size = 1 + len(item.targets_copy())
            total, written = total + size, written + size
            ticks = ticks or item.name == "TICK"
    return min(total, _LIMITS["operations"] + 1), min(written, MAX_WRITTEN + 1), ticks


_UNPLACED = frozenset({"QUBIT_COORDS", "DETECTOR", "SHIFT_COORDS", "MPAD", "OBSERVABLE_INCLUDE"})


def qubits_of(circuit: Any) -> tuple[int, ...]:
    """Return the qubits that operations of a stim.Circuit act on, ascending."""
    found: set[int] = set()
    blocks = [circuit]
    while blocks:
        for item in blocks.pop():
            if item.name == "REPEAT":
                blocks.append(item.body_copy())
            elif item.name not in _UNPLACED:
                found.update(each.value for each in item.targets_copy() if is_qubit(each))
    return tuple(sorted(found))


def is_qubit(target: Any) -> bool:
    """Return whether a target of an instruction of stim is a qubit or a Pauli of one."""
    return target.qubit_value is not None


def _depth(text: str) -> int:
    """Return how deep blocks are nested; braces in comments count too."""
    braces = (1 if brace == "{" else -1 for brace in re.findall(r"[{}]", text))
    return max(itertools.accumulate(braces), default=0)


def check_detection(call: DetectionCall) -> None:
    """Check a call as far as is possible without stim. Raises OptionError, LimitExceededError,
    ProgramError."""
    if len(call.decoder) > MAX_DECODER_CHARS:
        raise OptionError(f"decoder={call.decoder[:64]!r}...", hint="the name of a decoder")
    check_printable("a decoder", call.decoder)
    if call.placement is not None:
        _check_placement(call.placement, call.sizes)
    for name, limit in _LIMITS.items():
        value = getattr(call.sizes, name)
        if not 0 <= value <= limit:
            text = f"the circuit has {value} {name}; the limit is {limit}"
            raise LimitExceededError(text, hint="fewer rounds, or a smaller code, in each task")
    if not call.sizes.detectors + call.sizes.observables:
        text = "the stim circuit has no DETECTOR and no OBSERVABLE_INCLUDE: nothing to sample"
        hint = "for its measurements, write it as OpenQASM: circuit.to_qasm(open_qasm_version=2)"
        raise ProgramError(text, hint=hint)
    if len(call.circuit) > MAX_TEXT_BYTES:
        raise LimitExceededError(
            f"the text of the circuit is {size(len(call.circuit))}; the limit is"
            f" {size(MAX_TEXT_BYTES)}",
            hint="write its rounds as a REPEAT block",
        )
    blocks = call.circuit.count("{")
    if blocks > MAX_REPEATS:
        raise LimitExceededError(f"{blocks} REPEAT blocks; the limit is {MAX_REPEATS}")
    depth = _depth(call.circuit)
    if depth > MAX_DEPTH:
        text = f"REPEAT blocks nested {depth} deep; the limit is {MAX_DEPTH}"
        hint = "write inner blocks out, or as one block of more rounds"
        raise LimitExceededError(text, hint=hint)


def _check_placement(placement: DevicePlacement, sizes: DetectionSizes) -> None:
    """Check a placement. Raises OptionError, LimitExceededError."""
    qubits, places, num_qubits = placement.qubits, placement.places, sizes.qubits
    if not 0 <= sizes.written <= MAX_WRITTEN:
        raise LimitExceededError(
            f"more than {MAX_WRITTEN} instructions and targets on a device",
            hint=f"write rounds as a REPEAT block with a TICK in it: it counts {PASSES} times",
        )
    ascending = all(first < second for first, second in itertools.pairwise(qubits))
    if not ascending or (qubits and not 0 <= qubits[0] <= qubits[-1] < num_qubits):
        raise OptionError("the qubits of a placement are not those of the circuit, ascending")
    if bool(places) == (placement.draw >= 0) or len(places) not in (0, len(qubits)):
        text = f"{len(places)} places for {len(qubits)} qubits, draw {placement.draw}"
        raise OptionError(text, hint="a place for each qubit, or the number of a draw")
    if len(set(places)) < len(places) or min(places, default=0) < 0:
        hint = "each qubit of the device once"
        raise OptionError(f"qubit_mapping={short_repr(places)}", hint=hint)
    if not 0 <= placement.draw + 1 <= MAX_DRAW + 1:
        raise OptionError(f"draw {placement.draw}", hint=f"0 to {MAX_DRAW}")
    for name in ("late_ns", "latency_ns"):
        value = getattr(placement, name)
        if not 0.0 <= value <= MAX_LATE_NS:  # NaN too
            raise OptionError(f"{name}={value!r}", hint=f"0 to {MAX_LATE_NS:g} ns")


def check_events(call: DetectionCall, shots: int) -> None:
    """Check the number of shots. Raises OptionError for 0, LimitExceededError if the bits of all
    shots exceed the limit of a result."""
    if shots < 1:
        raise OptionError("detectors are sampled: they need shots", hint="shots=10_000")
    row = row_bytes(call)
    if call.events and row * shots > MAX_EVENT_BYTES:
        raise LimitExceededError(
            f"the bits of {shots} shots are {size(row * shots)}; the limit is"
            f" {size(MAX_EVENT_BYTES)}",
            hint=f"at most {MAX_EVENT_BYTES // row} shots a task, several with other seeds; or"
            " leave outputs= out: rates and numbers of errors take no memory by shots",
        )


def row_bytes(call: DetectionCall) -> int:
    """Bytes of the bits of one shot: events, flips, and predictions if there is a decoder."""
    flips = -(-call.sizes.observables // 8)
    return -(-call.sizes.detectors // 8) + flips * (2 if call.decoder else 1)


CALL_FORMAT = 1
TRANSPILER, FUNCTIONS = "transpiler", "functions"  # engines
CALL_ENGINES = (TRANSPILER, FUNCTIONS, DETECTORS, *PULSE_ENGINES)
AUTO = "auto"  # of the calls, pulse sequences alone have several engines
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
    fractional_gates: bool = False  # compile to these too


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


# Called with what the function that this process calls has done: units, number of all, unit.
Reporter = Callable[[float, int, str], object]
_reporters: list[Reporter] = []
_UNIT = re.compile(r"[a-z][a-z -]{0,39}")
MOST_WORK = 10**15  # units of work, which a message can hold


@contextmanager
def reporting(report: Reporter) -> Iterator[None]:
    """Pass on what `report_progress` is called with."""
    _reporters.append(report)
    try:
        yield
    finally:
        _reporters.remove(report)


def report_progress(done: float, total: int, unit: str = "iterations") -> None:
    """Report what a function that runs in the environment has done, such as the iterations of a
    variational loop; without effect elsewhere. `total` and `unit` are those of the first report.
    Raises OptionError."""
    check_progress(done, total, unit)
    for report in _reporters:
        report(done, total, unit)


def check_progress(done: float, total: int, unit: str) -> None:
    """Check values of a caller's code, which may be of any types. Raises OptionError."""
    given: tuple[Any, Any, Any] = done, total, unit
    are_numbers = isinstance(given[0], int | float) and isinstance(given[1], int)
    if not (are_numbers and 0 <= done <= total <= MOST_WORK):
        text = f"progress of {short_repr(done)} of {short_repr(total)}"
        raise OptionError(text, hint="a number of 0 to total, and a whole number up to 10**15")
    if not (isinstance(given[2], str) and _UNIT.fullmatch(unit)):
        text = f"progress in {short_repr(unit)}"
        raise OptionError(text, hint="a word in the plural, of lower-case letters: 'iterations'")


Call = TranspileCall | FunctionCall | DetectionCall | PulseCall
_CALLS: dict[str, type[Call]] = {
    TRANSPILER: TranspileCall,
    FUNCTIONS: FunctionCall,
    DETECTORS: DetectionCall,
    **dict.fromkeys((AUTO, *PULSE_ENGINES), PulseCall),
}


def is_call(terms: TaskOptions) -> bool:
    """Return whether a task with these options is a call; otherwise it runs a circuit."""
    return VALUE in terms.outputs


def is_pulse_call(terms: TaskOptions) -> bool:
    """Return whether a task with these options runs a pulse sequence."""
    return is_call(terms) and _CALLS.get(terms.engine) is PulseCall


def check_call_terms(terms: TaskOptions) -> None:
    """Check the options of a call's task. Raises OptionError for those that only circuits have."""
    if terms.engine not in _CALLS:
        hint = f"it is that of calls: engine= one of {', '.join(CALL_ENGINES)}"
        raise OptionError(f"output {VALUE!r} was asked of engine {terms.engine[:64]!r}", hint=hint)
    if (terms.outputs, terms.precision) != ((VALUE,), "double"):
        raise OptionError(f"a call has the output {VALUE!r} and no other, and no precision")
    is_pulses = _CALLS[terms.engine] is PulseCall
    on_device = () if is_pulses or terms.engine == DETECTORS else ("device", "noise", "snapshot")
    options = () if is_pulses else ("options",)
    for name in ("observables", "chain", "prefer", "parts", *options, *on_device):
        if getattr(terms, name):
            raise OptionError(f"a call has no {name}", hint="that is of circuits")


def decode_call(engine: str, packed: bytes) -> Call:
    """Decode and check the call of a task on this engine. Raises ProgramError, LimitExceededError,
    OptionError, VersionMismatchError."""
    if len(packed) > MAX_CALL_BYTES:
        text = f"a call of {len(packed)} bytes; the limit is {MAX_CALL_BYTES}"
        hint = "smaller arguments: give large data by the name of a file; fewer circuits a task"
        raise LimitExceededError(text, hint=hint)
    try:
        call = msgspec.msgpack.decode(packed, type=_CALLS[engine])
    except DECODE_ERRORS as error:
        raise ProgramError(f"the call cannot be read: {error}") from error
    if call.format != CALL_FORMAT:
        text = f"the call has format {call.format}, this version reads {CALL_FORMAT}"
        raise VersionMismatchError(text, hint="client and service should be of one version")
    if isinstance(call, FunctionCall):
        if len(call.name) > MAX_NAME_CHARS:
            raise OptionError(f"the name of a function has {len(call.name)} characters")
        check_printable("the name of a function", call.name)
    elif isinstance(call, DetectionCall):
        check_detection(call)
    elif isinstance(call, PulseCall):
        check_pulses(call)
    elif not call.circuits or call.level not in LEVELS or not 0 <= call.seed < 2**32:
        text = f"{len(call.circuits)} circuits at level {call.level} with seed {call.seed}"
        raise OptionError(text, hint="one circuit or more; level 0 to 3, or -1; seed 0 to 2^32 - 1")
    else:
        target_entries(call.device)
    return call


def decode_device(packed: bytes) -> DeviceInfo:
    """Decode and check the device of a TranspileCall. Raises ProgramError, LimitExceededError."""
    if len(packed) > MAX_DEVICE_BYTES:
        text = f"a device of {len(packed)} bytes; the limit is {MAX_DEVICE_BYTES}"
        hint = "the device without the calibration of gates that circuits do not use"
        raise LimitExceededError(text, hint=hint)
    try:
        info = msgspec.msgpack.decode(packed, type=DeviceInfo)
    except DECODE_ERRORS as error:
        raise ProgramError(f"the device cannot be read: {error}") from error
    modules = (module.name for module in info.modules)
    gates = (gate.name for gate in info.gates + info.fractional_gates)
    for text in (info.name, *gates, *modules):
        check_printable("a name of the device", text[: MAX_NAME_CHARS + 1])
    width = info.num_qubits
    qubits = {qubit for pair in info.coupling for qubit in pair}
    qubits.update(qubit for each in info.operations for qubit in each.qubits)
    for module in info.modules:
        qubits.update(module.qubits, module.communication)
    qubits.update(qubit for each in info.links for qubit in each.pair)
    if (
        not 0 < width <= MAX_TARGET_ENTRIES
        or len(info.qubits) not in (0, width)
        or not qubits <= set(range(width))
    ):
        text = f"the device of {width} qubits has couplings, operations or properties of others"
        raise ProgramError(text, hint="simenv devices NAME --json has a device as it should be")
    return info


# Entries of valid devices by digest, at most MAX_COUNTED. The devices are not kept: a client may
# send many, and one of 1 MiB takes 40 MiB as objects.
_counted: dict[bytes, int] = {}
MAX_COUNTED = 1_024


def target_entries(packed: bytes) -> int:
    """Return the entries of the compiler's table for the device of a TranspileCall: one for each
    gate on each tuple of qubits, and the distances of qubits. Raises the errors of `decode_device`,
    and LimitExceededError for too many entries."""
    key = digest(packed)
    entries = _counted.get(key)
    if entries is None:
        entries = _count_entries(decode_device(packed))
        if len(_counted) >= MAX_COUNTED:
            _counted.clear()
        _counted[key] = entries
    return entries


def _count_entries(info: DeviceInfo) -> int:
    info = Availability(info).with_fractional
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
