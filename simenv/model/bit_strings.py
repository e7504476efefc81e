"""Bit strings of the output `amplitudes`: the same checks in the client and in the service."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from simenv.errors import LimitExceededError, OptionError

MAX_BIT_STRINGS = 65_536  # of one task
MAX_BIT_STRING_BYTES = 4 * 2**20  # of all of them: half of the largest message from far away


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
