"""Limits of tasks, reservations and pools, and the rules of a task's options: client and service
apply the same ones, so that what the client accepts is not refused afterwards."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from simenv.errors import LimitExceededError, OptionError
from simenv.model.bounds import check_printable
from simenv.model.calls import VALUE, check_call_terms, is_call
from simenv.model.task import REFUSE, REFUSED, STALE, TaskOptions

OUTPUTS = (
    *("counts", "probabilities", "statevector", "expectation", "gradient", "memory"),
    "amplitudes",
)
PRECISIONS = ("double", "single")
MAX_RANKS = 4_096  # of one worker
MAX_WORKERS = 1_024  # of one pool
MAX_SECONDS = 10 * 365 * 86_400  # of a limit of time; in nanoseconds far within 64 bits
MAX_PRIORITY = 1_000_000
MAX_SEED = 2**64 - 1
MAX_RESERVATION = 2**63 - 1  # the journal keeps signed 64-bit numbers
MAX_OPTIONS = 16  # of the engine
MAX_COMPILER_CHARS = 256
MAX_PREFERRED = 16  # pools or kinds
MAX_NAME_CHARS = 64
MAX_REASON_CHARS = 500  # of a text for other users
MAX_OBSERVABLES = 4_096
MAX_TERMS = 100_000  # of all observables
MAX_BIT_STRINGS = 65_536  # of one task
MAX_BIT_STRING_BYTES = 4 * 2**20  # of all of them: half of the largest message from far away


def check_terms(terms: TaskOptions) -> None:
    """Check the options of tasks, apart from the program. Raises SimenvError."""
    if is_call(terms):
        check_call_terms(terms)
    elif not terms.outputs or len(set(terms.outputs)) < len(terms.outputs):
        raise OptionError(f"outputs must be distinct and at least one, got {terms.outputs}")
    for output in terms.outputs:
        if output not in OUTPUTS and output != VALUE:
            raise OptionError(
                f"output {output!r} is not known", hint=f"one of: {', '.join(OUTPUTS)}"
            )
    if terms.precision not in PRECISIONS:
        raise OptionError(
            f"precision {terms.precision!r} is not known", hint=f"one of: {', '.join(PRECISIONS)}"
        )
    check_bit_strings(terms.bit_strings, "amplitudes" in terms.outputs)
    sums = terms.pauli_sums
    if ("expectation" in terms.outputs) != bool(sums):
        raise OptionError(
            "the output 'expectation' and observables go together; only one was given",
            hint='for example observables="ZZ:0.5"',
        )
    total = sum(len(o.labels) for o in sums)
    if len(sums) > MAX_OBSERVABLES or total > MAX_TERMS:
        raise LimitExceededError(
            f"{len(sums)} observables with {total} terms; the limits are "
            f"{MAX_OBSERVABLES} and {MAX_TERMS}",
            hint="spread them over several tasks",
        )
    for observable in sums:
        if not observable.labels:
            raise OptionError(
                "an observable without terms",
                hint="leave a sum of nothing out: it is 0, and so is its gradient",
            )
        if len(observable.coefficients) != 8 * len(observable.labels):
            raise OptionError("an observable needs one coefficient for each label")
        for label in observable.labels:
            if label.strip("IXYZ"):
                raise OptionError(f"observable {label[:40]!r} may hold only I, X, Y, Z")
    for key in ("queue_timeout_s", "run_timeout_s"):
        value = getattr(terms, key)
        if not 0 <= value <= MAX_SECONDS:
            raise OptionError(
                f"{key} = {value} is outside 0 .. {MAX_SECONDS} seconds", hint="0 for none"
            )
    if abs(terms.priority) > MAX_PRIORITY:
        raise OptionError(f"priority {terms.priority} is outside -{MAX_PRIORITY}..{MAX_PRIORITY}")
    if len(terms.name) > MAX_NAME_CHARS:
        raise OptionError(
            f"a task's name has {len(terms.name)} characters", hint=f"at most {MAX_NAME_CHARS}"
        )
    check_printable("a task's name", terms.name)
    for text in (terms.compiled, terms.compiled_for, *terms.replaced_gates):
        if len(text) > MAX_COMPILER_CHARS:
            raise OptionError(
                f"a compiler, a calibration or a replaced gate of {len(text)} characters",
                hint=f"at most {MAX_COMPILER_CHARS}",
            )
        check_printable("a compiler, a calibration or a replaced gate", text)
    if terms.stale not in ("", REFUSE, STALE, REFUSED):
        raise OptionError(f"stale = {terms.stale[:64]!r} is not known", hint=f"'' or {REFUSE!r}")
    if len(terms.options) > MAX_OPTIONS or len(dict(terms.options)) < len(terms.options):
        raise OptionError(
            f"{len(terms.options)} engine options; at most {MAX_OPTIONS}, each once, are allowed"
        )
    if any(len(name) > MAX_NAME_CHARS or not math.isfinite(value) for name, value in terms.options):
        raise OptionError("an engine option has a long name or is not a finite number")
    if terms.ranks < 0 or terms.ranks > MAX_RANKS or terms.ranks & (terms.ranks - 1):
        raise OptionError(
            f"ranks = {terms.ranks} is not a power of two within 1 .. {MAX_RANKS}",
            hint="ranks=2, 4, 8 ...; 0 takes as many as the memory needs",
        )
    longest = max(map(len, terms.prefer), default=0)
    if len(terms.prefer) > MAX_PREFERRED or longest > MAX_NAME_CHARS:
        raise OptionError(
            f"prefer names {len(terms.prefer)} pools or kinds; at most {MAX_PREFERRED} are allowed",
            hint=f"each of {MAX_NAME_CHARS} characters at most",
        )


def check_bit_strings(strings: Sequence[str], wanted: bool) -> None:
    """Check the number of bit strings, their characters, and that each is there once. `wanted`: the
    output `amplitudes` is requested. Raises OptionError, LimitExceededError."""
    if wanted != bool(strings):
        raise OptionError(
            "the output 'amplitudes' and bit strings go together; only one was given",
            hint='amplitudes=["0101"], for example',
        )
    total = sum(map(len, strings))
    if len(strings) > MAX_BIT_STRINGS or total > MAX_BIT_STRING_BYTES:
        raise LimitExceededError(
            f"amplitudes of {len(strings)} bit strings with {total} bits; the limits are"
            f" {MAX_BIT_STRINGS} and {MAX_BIT_STRING_BYTES}",
            hint="spread them over several tasks",
        )
    if "".join(strings).strip("01") or not all(strings):  # one pass: the service checks it too
        wrong = next(text for text in strings if not text or text.strip("01"))
        raise OptionError(
            f"the bit string {wrong[:80]!r} is not made of 0 and 1",
            hint="one character a qubit, no spaces; qubit 0 is the last",
        )
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
