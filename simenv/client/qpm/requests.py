"""Checks of what hosts send: single arguments, and requests to run a circuit. Pure.

An invalid argument raises ExecutionError and changes nothing. Values come from a host's transport,
so every type and value must be expected.

`read_run` checks `info` of a run. A host sends OpenQASM 2 text under `qasm`, or {"format", "data"}
under `circuit`, which takes precedence; the format "pulser-abstract" is a pulse sequence. In one
process with the caller, `circuit` may also be a QuantumCircuit, a Program or a pulser.Sequence.
Hosts add keys of their own, so unknown keys, and hints without an
effect here, are no error: the completion has a warning that names them. Keys that identify the
caller (owner, project, policy ...) are left out without a warning, as the contract demands: the
connection identifies the caller. `noise`, `verbatim` and `qubit_mapping` are for emulated devices;
other pools refuse them by name unless they are empty. `parameter_values` and `options` are for
pulse sequences, whose `noise` may also be a noise model of pulser.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from simenv.client.circuits.load import is_pulses
from simenv.client.submission.noise import factors_of
from simenv.config import NAME_RULE
from simenv.errors import OptionError
from simenv.model import MAX_QUBITS, MAX_SHOTS, Program, task_rules
from simenv.model.options import SubmitOptions
from simenv.model.paradigms import (
    CIRCUIT_FORMATS,
    PULSER,
    annealing_refused,
    is_annealing,
    is_annealing_format,
)
from simenv.model.pulses import MAX_SEQUENCE_BYTES, MAX_VARIABLES
from simenv.model.reservations import MAX_LABEL_CHARS
from simenv.model.task_rules import MAX_PREFERRED, MAX_PRIORITY, MAX_REASON_CHARS, MAX_SECONDS
from simenv.qpm.contract import ExecutionError
from simenv.qpm.envelopes import Reason
from simenv.text import short_repr
from simenv.transpiler.qiskit_runtime import is_circuit

MAX_TEXT_CHARS = 4_096  # of an id, a name, a reason
MAX_RESERVATION = 2**64 - 1
_DIGITS = 20  # of it
MAX_TIME_S = 1e11  # as in messages
MAX_REASON_CODE = 2**32 - 1
MAX_FILTER_VALUES = 4_096
MOST = 2**62  # of any size or time
ALLOCATION = ("scheduler", "cluster_name", "allocation_id")  # identity of a batch allocation
BASELINE = {  # sizes of a workload: the contract's names and the service's
    "qubit_count": "qubits", "depth": "depth", "one_q_gate_count": "gates_1q",
    "two_q_gate_count": "gates_2q", "measurement_count": "measurements", "shots": "shots",
}  # fmt: skip


def wrong(what: str, value: Any, wanted: str) -> ExecutionError:
    """Make the error of one invalid argument."""
    return ExecutionError(f"{what}={short_repr(value)}", hint=f"{what} is {wanted}")


def text(what: str, value: Any) -> str:
    """Check a text that is not empty."""
    if not isinstance(value, str) or not 0 < len(value) <= MAX_TEXT_CHARS:
        raise wrong(what, value, f"a text of 1 to {MAX_TEXT_CHARS} characters")
    return value


def optional_text(what: str, value: Any) -> str | None:
    """Check None or a text that is not empty."""
    return None if value is None else text(what, value)


def reason_text(value: Any) -> str:
    """Read a `reason` as text for the service, cut to MAX_REASON_CHARS; "" for None. A reason code,
    which schedulers send, becomes `code N`."""
    if isinstance(value, int) and not isinstance(value, bool):
        return f"code {integer('reason', value, 0, MAX_REASON_CODE)}"
    result = "" if value is None else text("reason", value)
    return result[:MAX_REASON_CHARS].encode("utf-8", "replace").decode()


def matches(actual: Any, wanted: Any) -> bool:
    """Compare a field with the value of a filter; a name matches its number."""
    number = isinstance(wanted, int) and not isinstance(wanted, bool) and abs(wanted) <= MOST
    return bool(actual == (str(wanted) if number and isinstance(actual, str) else wanted))


def is_encodable(value: str) -> bool:
    """Return whether a text can be encoded as UTF-8: it has no half of a surrogate pair."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def travelling(what: str, value: Any) -> str:
    """Check a text as `text` does, and that it can be encoded as UTF-8 for the service."""
    result = text(what, value)
    if not is_encodable(result):
        raise wrong(what, value, "text in Unicode")
    return result


def label(what: str, value: Any) -> str:
    """Check a text as `travelling` does, with the limit of a name or a label."""
    result = travelling(what, value)
    if len(result) > MAX_LABEL_CHARS:
        raise wrong(what, value, f"a text of up to {MAX_LABEL_CHARS} characters")
    return result


def integer(what: str, value: Any, low: int, high: int) -> int:
    """Check a whole number in low .. high; bool and float are refused."""
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise wrong(what, value, f"a whole number from {low} to {high}")
    return int(value)


def truth(what: str, value: Any) -> bool:
    """Check a bool; no other type is accepted."""
    if not isinstance(value, bool):
        raise wrong(what, value, "true or false")
    return value


def moment(what: str, value: Any) -> float:
    """Read a time of day in seconds since 1970, or a time span; 0.0 for None."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if value is not None and not (number and 0 <= value <= MAX_TIME_S):
        raise wrong(what, value, f"seconds from 0 to {MAX_TIME_S:.0f}, or nothing")
    return float(value or 0.0)


def seconds(what: str, value: Any) -> float | None:
    """Check None or a time in 0 .. MAX_SECONDS."""
    if value is None:
        return None
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not 0 <= value <= MAX_SECONDS:
        raise wrong(what, value, f"seconds from 0 to {MAX_SECONDS}, or nothing")
    return float(value)


def table_argument(what: str, value: Any) -> dict[str, Any]:
    """Check a dict with text keys."""
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise wrong(what, value, "a table with names for keys")
    return value


def optional_table(what: str, value: Any) -> dict[str, Any]:
    """Check a dict as `table` does; {} for None."""
    return {} if value is None else table_argument(what, value)


def filters(value: Any) -> dict[str, Any]:
    """Check a table of single values and lists of them; {} for None. Tables that are nested would
    take any time to compare."""
    result = optional_table("filters", value)
    for wanted in result.values():
        items = wanted if isinstance(wanted, list) else [wanted]
        scalars = all(isinstance(each, str | int | float | None) for each in items)
        if not scalars or len(items) > MAX_FILTER_VALUES:
            raise wrong("filters", value, "a table of values, or lists of values")
    return dict(result)


def reservation(value: Any) -> int | None:
    """Check None or a possible reservation number, also as the decimal text that QFW_RESERVATIONS
    has."""
    if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) <= _DIGITS:
        value = int(value)
    return None if value is None else integer("reservation_id", value, 1, MAX_RESERVATION)


def reservation_of(info: Any, reservation_id: Any) -> int | None:
    """Return the reservation of a circuit: the argument of the call, or the field of `info`. Raises
    ExecutionError if they differ."""
    number = reservation(reservation_id)
    inside = reservation(info.get("reservation_id")) if isinstance(info, dict) else None
    if None not in (number, inside) and number != inside:
        text = f"info has reservation_id {inside}, and the call has {number}"
        raise ExecutionError(text, reason=Reason.RESERVATION_MISMATCH)
    return inside if number is None else number


FORMATS = (*CIRCUIT_FORMATS, PULSER)
_FIELDS_CHARS = 500
MAX_QPY_BYTES = 16 * 2**20
_HINTS = {  # hint: the reason why it has no effect
    "backend": "the pool is the QPM's",
    "method": "the engine is chosen by the service",
    "lib": "the engine is chosen by the service",
    "deadline_ns": "tasks have no deadline",
}
_NOISE_HINT = (
    'true, false, "auto", "on", "off", a recipe such as "aer", or {"gate.depolarizing": 0.5}'
)
_NUMBERS = ("depth", "one_q_gate_count", "two_q_gate_count", "measurement_count", "deadline_ns")
# Keys that are read, and keys of hosts that identify the caller or the place of execution.
_READ = frozenset(
    {
        *_NUMBERS,
        *("qasm", "circuit", "num_shots", "num_qubits", "seed", "return_statevector"),
        *("compiler", "qfw_backend", "np", "hosts"),
        *_HINTS,
        *("owner", "job_id", "allocation_id", "project_id", "session_id", "target_device_id"),
        *("scope_id", "workload", "policy", "run_context", "token", "reservation_id"),
    }
)


class PulseSource(msgspec.Struct, frozen=True):
    """A pulse sequence: a pulser.Sequence, or the text of its abstract representation."""

    sequence: Any


class Request(msgspec.Struct, frozen=True):
    """Checked `info`. `source`: an argument of `load`, the bytes of a QPY file, or a PulseSource;
    `options`: of `Client.submit`."""

    source: Any
    shots: int
    seed: int | None
    statevector: bool
    options: SubmitOptions
    warnings: tuple[str, ...] = ()  # fields that change nothing


def read_run(info: Any) -> Request:
    """Check `info`. Raises ExecutionError with the field, its value and the expected value."""
    inputs = table_argument("info", info)
    if "num_shots" not in inputs:
        raise ExecutionError("info has no num_shots", hint=f"a whole number, 1 to {MAX_SHOTS}")
    for name in _NUMBERS:  # the host's estimates: checked and not used
        if inputs.get(name) is not None:
            integer(name, inputs[name], 0, 2**63 - 1)
    for name in ("compiler", "backend", "method", "lib"):
        optional_text(name, inputs.get(name))
    seed, width = inputs.get("seed"), inputs.get("num_qubits")
    if width is not None:  # the host's estimate: checked; the circuit's own width is used
        integer("num_qubits", width, 0, 2**31 - 1)
    source = _source(inputs)
    readers = _PULSE_OPTIONS if isinstance(source, PulseSource) else _OPTIONS
    options = {option: reader(inputs.get(name)) for name, (option, reader) in readers.items()}
    return Request(
        source=source,
        shots=integer("num_shots", inputs["num_shots"], 1, MAX_SHOTS),
        seed=None if seed is None else integer("seed", seed, 0, task_rules.MAX_SEED),
        statevector=truth("return_statevector", inputs.get("return_statevector", False)),
        options=options,  # type: ignore[arg-type]
        warnings=_warnings(inputs, readers),
    )


def _warnings(inputs: dict[str, Any], readers: Iterable[str]) -> tuple[str, ...]:
    """Warnings: one for all unknown fields, and one for each hint that has no effect."""
    results = [
        f"info: {name} has no effect: {why}"
        for name, why in _HINTS.items()
        if inputs.get(name) is not None
    ]
    unknown = sorted(str(name) for name in inputs.keys() - _READ - set(readers))
    if unknown:
        results.append(f"info: unknown fields have no effect: {', '.join(unknown)[:_FIELDS_CHARS]}")
    return tuple(results)


def _name_of(field: str) -> Callable[[Any], str | None]:
    """Return the reader of a field with a name."""
    return lambda value: optional_text(field, value)


def _priority(value: Any) -> int:
    return 0 if value is None else integer("priority", value, -MAX_PRIORITY, MAX_PRIORITY)


def _compile(value: Any) -> str:
    """Read `verbatim`, a bool; None, [] and {} are False."""
    is_verbatim = not _is_empty(value) and truth("verbatim", value)
    return "never" if is_verbatim else "auto"


def _fractional(value: Any) -> bool:
    return not _is_empty(value) and truth("fractional_gates", value)


def _is_empty(value: Any) -> bool:
    """Return whether a field has no value: None, [] or {}."""
    return value is None or (isinstance(value, list | dict) and not value)


def _noise(value: Any) -> Any:
    """Convert to the `noise` option of `Client.submit`: "auto" where the field is empty, "on" for
    True and "off" for False."""
    if _is_empty(value):
        return "auto"
    if isinstance(value, bool):
        value = "on" if value else "off"
    if not isinstance(value, str | dict):
        raise wrong("noise", value, _NOISE_HINT)
    try:
        factors_of(value)
    except OptionError as error:
        if isinstance(value, dict) and all(isinstance(name, str) and name for name in value):
            raise ExecutionError(error.message, hint=error.hint) from error  # names the component
        raise wrong("noise", value, _NOISE_HINT) from error
    return value


def _mapping(value: Any) -> tuple[int, ...] | None:
    """Read a list, or a table from the circuit's qubit to the device's; None if the field is
    empty."""
    if _is_empty(value):
        return None
    if isinstance(value, dict):
        settings = {
            key if isinstance(key, str) else short_repr(key): each for key, each in value.items()
        }
        keys = [str(number) for number in range(len(value))]
        if set(settings) != set(keys):
            raise wrong("qubit_mapping", value, "a table with a key for each qubit")
        value = [settings[key] for key in keys]
    if not isinstance(value, list | tuple):
        raise wrong("qubit_mapping", value, "a list of the device's qubits")
    return tuple(integer("qubit_mapping", each, 0, MAX_QUBITS) for each in value)


def _preferred(value: Any) -> tuple[str, ...]:
    """Read preferred pools or kinds from a list, or from a text with commas."""
    names = value.split(",") if isinstance(value, str) else value or ()
    if not isinstance(names, list | tuple) or len(names) > MAX_PREFERRED:
        raise wrong("prefer", value, f"a list of up to {MAX_PREFERRED} pools or kinds")
    result = tuple(text("prefer", name).strip() for name in names)
    if not all(NAME_RULE.match(name) for name in result):
        raise wrong("prefer", value, "pools, or hardware, simulator, in order")
    return result


# Fields of `info` that are options of `Client.submit`: the option, and its reader.
_OPTIONS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "priority": ("priority", _priority),
    "prefer": ("prefer", _preferred),
    "noise": ("noise", _noise),
    "verbatim": ("compile", _compile),
    "qubit_mapping": ("qubit_mapping", _mapping),
    "fractional_gates": ("fractional_gates", _fractional),
    "account": ("account", _name_of("account")),
    "qos": ("qos", _name_of("qos")),
}


def _verbatim(literal: str) -> str:
    return f"verbatim={literal == repr('never')}" if literal else "verbatim"


def _pulse_noise(value: Any) -> Any:
    """Read the noise of a pulse sequence: as `_noise` does, or a noise model of pulser as a text or
    a table, in its abstract representation."""
    if isinstance(value, dict) and "noise_types" in value:
        try:
            value = json.dumps(value)
        except (TypeError, ValueError, RecursionError) as error:
            raise wrong("noise", value, "plain data") from error
    if isinstance(value, str) and value.lstrip()[:1] == "{":
        return value
    return _noise(value)


def _variables(value: Any) -> dict[str, Any] | None:
    """Read the values of a sequence's variables: a number or a list of numbers each."""
    values = optional_table("parameter_values", value)
    if len(values) > MAX_VARIABLES:
        raise wrong("parameter_values", value, f"a table of up to {MAX_VARIABLES} variables")
    return values or None


_PULSE_OPTIONS = {
    **_OPTIONS,
    "noise": ("noise", _pulse_noise),
    "parameter_values": ("parameter_values", _variables),
    "options": ("options", lambda value: optional_table("options", value) or None),
}


NAMES = {"compile": _verbatim}  # fields of `info` in errors, for options of `Client.submit`


def _source(inputs: dict[str, Any]) -> Any:
    circuit = inputs.get("circuit")
    if circuit is None:
        if "qasm" not in inputs:
            hint = f'qasm: OpenQASM 2 as a text; or circuit: {{"format": "{PULSER}", "data": text}}'
            raise ExecutionError("info has neither qasm nor circuit", hint=hint)
        return _qasm("qasm", inputs["qasm"])
    if isinstance(circuit, Program) or is_circuit(circuit):
        return circuit
    if not isinstance(circuit, str) and is_pulses(circuit):
        return PulseSource(circuit)
    if is_annealing(circuit):
        raise _annealing(f"a circuit of type {type(circuit).__name__}")
    if not isinstance(circuit, dict):
        raise wrong("circuit", circuit, 'a table {"format", "data"} or a circuit')
    kind, data = circuit.get("format"), circuit.get("data")
    if is_annealing_format(kind):
        raise _annealing(f"circuit format {kind!r}")
    if kind == PULSER:
        return _pulser(data)
    if kind not in FORMATS:
        message = f"circuit format {short_repr(kind)} cannot be read"
        raise ExecutionError(message, hint=f"of: {', '.join(FORMATS)}")
    return _qpy(data) if kind == "qpy" else _qasm("circuit.data", data)


def _annealing(what: str) -> ExecutionError:
    error = annealing_refused(what)
    return ExecutionError(error.message, hint=error.hint, reason=Reason.UNSUPPORTED)


def _pulser(data: Any) -> PulseSource:
    """Check the text of a pulse sequence; a table is its JSON, which a host has parsed."""
    if isinstance(data, dict):
        try:
            data = json.dumps(data)
        except (TypeError, ValueError, RecursionError) as error:
            raise wrong("circuit.data", data, "a JSON object") from error
    if not isinstance(data, str) or len(data) > MAX_SEQUENCE_BYTES or not is_pulses(data):
        wanted = f"Sequence.to_abstract_repr() of pulser, up to {MAX_SEQUENCE_BYTES} bytes"
        raise wrong("circuit.data", data, wanted)
    return PulseSource(data)


def _qasm(what: str, value: Any) -> str:
    """Check OpenQASM text, and add a line end if `load` could take it for the path of a file on
    this host."""
    if not isinstance(value, str) or not value:
        raise wrong(what, value, "OpenQASM as a text")
    return value if "\n" in value or ";" in value else f"{value}\n"


def _qpy(data: Any) -> bytes:
    """Decode the bytes of a QPY file; their format is checked when the file is opened."""
    if not isinstance(data, str) or len(data) > MAX_QPY_BYTES * 4 // 3 + 4:
        raise wrong("circuit.data", data, f"base64 of QPY, up to {MAX_QPY_BYTES} bytes")
    try:
        return base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ExecutionError(f"circuit.data is not base64: {error}") from error
