"""Rules and limits of tasks and of their owners.

Limits of tasks, reservations and pools, and the rules of a task's options: client and service apply
the same ones, so that what the client accepts is not refused afterwards. `checked_*` return a value
in the type that is sent; `check_*` return nothing. All raise OptionError with the option, its value
and the allowed values.

Limits of an owner of tasks, and the owner's present usage. An owner is the name of a key; "" is the
environment's own user, who has no limits. Terms are those of Slurm's QOS limits and Kubernetes'
ResourceQuota.
"""

from __future__ import annotations

import math
import operator
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Set
from numbers import Real
from typing import Any, SupportsIndex

from simenv.errors import LimitExceededError, OptionError, ProgramError
from simenv.model.program import is_measurement
from simenv.model.task import MAX_KEEP_S, MAX_SHOTS, EngineOptions, Observable

OUTPUTS = (
    *("counts", "probabilities", "statevector", "expectation", "gradient", "memory"),
    "amplitudes",
)
PRECISIONS = ("double", "single")
MAX_RANKS = 4_096  # of one worker
MAX_WORKERS = 65_536  # of one pool
MAX_SECONDS = 10 * 365 * 86_400  # of a limit of time; in nanoseconds far within 64 bits
MAX_PRIORITY = 1_000_000
MAX_SEED = 2**64 - 1
MAX_BINDING = 2**63 - 1  # number of a binding in its sweep
MAX_KEY_CHARS = 256  # of an idempotency key
MAX_RESERVATION = 2**63 - 1  # the journal keeps signed 64-bit numbers
MAX_OPTIONS = 16  # of the engine
MAX_PREFERRED = 16  # pools or kinds
MAX_NAME_CHARS = 64
MAX_REASON_CHARS = 500  # of a text for other users
MAX_OBSERVABLES = 4_096
MAX_TERMS = 100_000  # of all observables
MAX_BIT_STRINGS = 65_536  # of one task
MAX_BIT_STRING_BYTES = 4 * 2**20  # of all of them: half of the largest message from far away


def checked_integer(name: str, value: SupportsIndex, low: int, high: int, more: str = "") -> int:
    """Check a whole number and its range. `more`: added to the hint. Raises OptionError."""
    if type(value) is int and low <= value <= high:
        return value
    try:
        number = operator.index(value)
    except TypeError:
        number = low - 1
    if isinstance(value, bool) or not low <= number <= high:
        hint = f"a whole number from {low} to {high}" + (f"; {more}" if more else "")
        raise OptionError(option=name, value=value, expected=hint)
    return number


def check_shots(shots: int, device: str = "", max_shots: int = 0) -> None:
    """Check the shots of one circuit, which a task or a reservation names. `max_shots`: that the
    device takes; 0: any. Raises OptionError."""
    checked_integer("shots", shots, 0, MAX_SHOTS, "None or 0: exact")
    if max_shots and shots > max_shots:
        text = f"{shots} shots; device {device} takes {max_shots} of one circuit"
        raise OptionError(text, hint="several tasks with other seeds")


def checked_seconds(name: str, value: object, more: str = "") -> float:
    """Check a time in seconds. `more`: added to the hint. Raises OptionError."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not 0 < value <= MAX_SECONDS:  # type: ignore[operator]
        hint = f"seconds, above 0, up to {MAX_SECONDS}" + (f"; {more}" if more else "")
        raise OptionError(option=name, value=value, expected=hint)
    return float(value)  # type: ignore[arg-type]


def checked_timeout(value: Any) -> float | None:
    """Check how long a caller waits, in seconds; None: without limit, as for inf; below 0: not at
    all, as for a deadline that has passed. Raises OptionError."""
    if value is None:
        return None
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    seconds = float(value) if is_number else math.nan
    if math.isnan(seconds):
        hint = "seconds; 0 and less do not wait, None waits without limit"
        raise OptionError(option="timeout_s", value=value, expected=hint)
    return None if seconds > MAX_SECONDS else max(0.0, seconds)


def checked_list(name: str, value: Any, expected: str) -> tuple[Any, ...]:
    """Elements of a list. Raises OptionError for anything else; `expected`: its hint."""
    if isinstance(value, str | bytes | Mapping) or not isinstance(value, Iterable):
        raise OptionError(option=name, value=value, expected=expected)
    return tuple(value)


def checked_key(key: object) -> str:
    """Check a user's idempotency key. Raises OptionError."""
    if not isinstance(key, str) or not 0 < len(key) <= MAX_KEY_CHARS or key.startswith("~"):
        hint = f"1 to {MAX_KEY_CHARS} characters, not beginning with ~"
        raise OptionError(option="idempotency_key", value=str(key), expected=hint)
    return key


def checked_ranks(ranks: SupportsIndex) -> int:
    """Check the ranks of a worker: a power of two, because the state is divided in halves."""
    count = checked_integer("ranks", ranks, 1, MAX_RANKS, "without it: as needed")
    if count & (count - 1):
        hint = f"a power of two, such as {1 << count.bit_length()}"
        raise OptionError(option="ranks", value=count, expected=hint)
    return count


def checked_outputs(outputs: Sequence[str] | str) -> tuple[str, ...]:
    """Check the names of outputs; a single name may be a text. Raises OptionError."""
    names = (outputs,) if isinstance(outputs, str) else tuple(outputs)
    for name in names:
        if name not in OUTPUTS:
            hint = f"some of: {', '.join(OUTPUTS)}"
            raise OptionError(f"output {name!r} is not known", hint=hint)
    if not names:
        raise OptionError("no outputs were requested", hint=f"some of: {', '.join(OUTPUTS)}")
    return tuple(dict.fromkeys(names))


def checked_precision(precision: str) -> str:
    if precision not in PRECISIONS:
        hint = f"one of: {', '.join(PRECISIONS)}"
        raise OptionError(option="precision", value=precision, expected=hint)
    return precision


def checked_preferred(names: Sequence[str]) -> tuple[str, ...]:
    """Check pools or kinds of devices, in order of preference. Raises OptionError."""
    names = tuple(dict.fromkeys(names))
    if len(names) > MAX_PREFERRED or max(map(len, names), default=0) > MAX_NAME_CHARS:
        text = f"prefer names {len(names)} pools or kinds; at most {MAX_PREFERRED} are allowed"
        raise OptionError(text, hint=f"each of {MAX_NAME_CHARS} characters at most")
    return names


def checked_keep(keep_s: float) -> float:
    """Check the seconds for which a worker keeps a state. Raises OptionError."""
    if not 0.0 <= keep_s <= MAX_KEEP_S:
        hint = f"seconds, from 0 to {MAX_KEEP_S:g}; 0: no state stays"
        raise OptionError(option="keep_s", value=keep_s, expected=hint)
    return float(keep_s)


def checked_engine_options(
    options: Mapping[str, float] | Sequence[tuple[str, float]],
) -> EngineOptions:
    """Check the number of options of the engine, their names and their values, and sort them by
    name; the service knows the names that an engine has. Raises OptionError."""
    if not isinstance(options, Mapping | tuple):
        raise OptionError(option="options", value=options, expected='for example {"bond": 64}')
    pairs = options.items() if isinstance(options, Mapping) else options
    for name, value in pairs:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not math.isfinite(value) or not 0 < len(str(name)) <= MAX_NAME_CHARS:
            hint = 'a name and a finite number, for example options={"bond": 64}'
            raise OptionError(f"options: {str(name)[:64]!r} = {value!r:.80}", hint=hint)
    result = {str(name): value for name, value in pairs}
    if len(result) > MAX_OPTIONS or len(result) < len(pairs):
        text = f"{len(pairs)} engine options; at most {MAX_OPTIONS}, each once, are allowed"
        raise OptionError(text)
    return tuple(sorted(result.items()))


def unmeasured(output: str, index: int = -1) -> ProgramError:
    """Return the error for counts or memory of a circuit without measurements."""
    return ProgramError(
        f"{output} {'were' if output == 'counts' else 'was'} asked of a circuit that measures"
        " nothing",
        hint="add measurements, as measure_all() does, or ask for "
        'outputs=("statevector",), or give observables=',
        index=index,
    )


def without_shots(output: str) -> OptionError:
    """Return the error for counts or memory of an exact run."""
    text = f"shots=None is exact: there {'are no counts' if output == 'counts' else 'is no memory'}"
    hint = 'outputs=("probabilities",) gives the exact distribution; or give shots=1024'
    return OptionError(text, hint=hint)


def check_sums(sums: Sequence[Observable]) -> None:
    """Check numbers, labels and coefficients of observables. Raises LimitExceededError,
    OptionError."""
    total = sum(len(o.labels) for o in sums)
    if len(sums) > MAX_OBSERVABLES or total > MAX_TERMS:
        raise LimitExceededError(
            f"{len(sums)} observables with {total} terms; the limits are "
            f"{MAX_OBSERVABLES} and {MAX_TERMS}",
            hint="spread them over several tasks",
        )
    for observable in sums:
        if not observable.labels:
            hint = "leave a sum of nothing out: it is 0, and so is its gradient"
            raise OptionError("an observable without terms", hint=hint)
        if len(observable.coefficients) != 8 * len(observable.labels):
            raise OptionError("an observable needs one coefficient for each label")
        for label in observable.labels:
            if label.strip("IXYZ"):
                raise OptionError(f"observable {label[:40]!r} may hold only I, X, Y, Z")


def check_bit_strings(strings: Sequence[str], wanted: bool) -> None:
    """Check the number of bit strings, their characters, and that each is there once. `wanted`: the
    output `amplitudes` is requested. Raises OptionError, LimitExceededError."""
    if wanted != bool(strings):
        text = "the output 'amplitudes' and bit strings go together; only one was given"
        raise OptionError(text, hint='amplitudes=["0101"], for example')
    total = sum(map(len, strings))
    if len(strings) > MAX_BIT_STRINGS or total > MAX_BIT_STRING_BYTES:
        raise LimitExceededError(
            f"amplitudes of {len(strings)} bit strings with {total} bits; the limits are"
            f" {MAX_BIT_STRINGS} and {MAX_BIT_STRING_BYTES}",
            hint="spread them over several tasks",
        )
    if "".join(strings).strip("01") or not all(strings):  # one pass: the service checks it too
        wrong = next(text for text in strings if not text or text.strip("01"))
        hint = "one character a qubit, no spaces; qubit 0 is the last"
        raise OptionError(f"the bit string {wrong[:80]!r} is not made of 0 and 1", hint=hint)
    if len(set(strings)) < len(strings):
        counts = Counter(strings)
        twice = next(text for text in strings if counts[text] > 1)
        raise OptionError(f"the bit string {twice[:80]!r} is there twice", hint="give each once")


def check_widths(strings: Sequence[str], num_qubits: int) -> None:
    """Check that each bit string has a bit for each qubit. Raises OptionError."""
    if not set(map(len, strings)) <= {num_qubits}:
        wrong = next(text for text in strings if len(text) != num_qubits)
        raise OptionError(
            f"the bit string {wrong[:80]!r} has {len(wrong)} bits, the circuit {num_qubits} qubits",
            hint="one character a qubit; qubit 0 is the last",
        )


SHOWN = 40  # letters of an observable in an error


def measured_last(
    names: Sequence[str], sizes: Sequence[int], ops: Iterable[int], qubits: Sequence[int]
) -> set[int]:
    """Return the qubits whose last operation is a measurement. `names`, `sizes`: name and number
    of qubits of each row of a program's table; `ops`, `qubits`: its arrays."""
    measured: set[int] = set()
    place = 0
    for op in ops:
        acted = qubits[place : place + sizes[op]]
        place += sizes[op]
        if is_measurement(names[op]):
            measured.update(acted)
        elif names[op] not in ("barrier", "delay", "delay_dt"):
            measured.difference_update(acted)
    return measured


def refuse_collapsed(labels: Iterable[str], measured: Set[int]) -> None:
    """Raise OptionError for X or Y on a measured qubit: its values before and after the measurement
    differ."""
    for label in labels:
        for qubit, letter in enumerate(reversed(label)):
            if letter in "XY" and qubit in measured:
                width = len(label)
                name = f"observable {label!r}"
                if width > SHOWN:
                    name = f"an observable of {width} qubits"
                raise OptionError(
                    f"{name} asks for {letter} on qubit {qubit}, which the circuit measures at its"
                    " end",
                    hint="remove the final measurement",
                )
