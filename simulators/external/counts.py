"""Parser of counts in the output of a program: strict, because the program is unknown.

Two forms are read. NWQ-Sim's (github.com/pnnl/NWQ-Sim, `print_counts`): lines `"0101" : 12`, among
others. Or JSON: one object of bit strings and counts as the last line that is not empty. A bit
string has clbit 0 as its last character; spaces between registers are ignored.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable

from simulators.errors import BadAnswer

MAX_BYTES = 64 * 2**20  # largest output
_LINE = re.compile(r'\s*"([01 ]+)"\s*:\s*(\d{1,18})\s*\Z', re.ASCII)
_MAX_COUNT = 10**18  # more digits than a line may have
_SHOWN = 120  # characters of the output in a message
_FORMS = 'it prints lines "0101" : 12, or {"0101": 12} as its last line'


def parse(text: str, num_clbits: int, shots: int) -> dict[int, int]:
    """Counts by outcome, clbit 0 in bit 0. Raises BadAnswer with the first fault."""
    lines = text.splitlines()
    pairs = [result.groups() for line in lines if (result := _LINE.match(line))]
    counts = _outcome_counts(
        [(bits, int(count)) for bits, count in pairs] or _json(lines), num_clbits
    )
    total = sum(counts.values())
    if total != shots:
        raise BadAnswer(
            f"the program counted {total:,} shots; {shots:,} were asked for",
            hint="let its command line have {shots}",
        )
    return counts


def _json(lines: list[str]) -> list[tuple[str, int]]:
    last = next((line for line in reversed(lines) if line.strip()), "")
    try:
        result = json.loads(last, object_pairs_hook=list)  # keeps repeated names
    except (ValueError, RecursionError):  # the latter: arrays in thousands of arrays
        result = None
    if not isinstance(result, list) or not last.lstrip().startswith("{"):
        shown = f"its last line is {last[:_SHOWN]!r}" if last else "it printed nothing"
        raise BadAnswer(f"the program printed no counts: {shown}", hint=_FORMS)
    return result


def _outcome_counts(pairs: Iterable[tuple[str, object]], num_clbits: int) -> dict[int, int]:
    counts: dict[int, int] = {}
    for text, count in pairs:
        bits = text.replace(" ", "")
        if not bits or len(bits) != num_clbits or not set(bits) <= {"0", "1"}:
            raise BadAnswer(
                f"the program counted {text[:_SHOWN]!r}; the circuit has {num_clbits} clbits",
                hint="one character 0 or 1 for each clbit, clbit 0 last",
            )
        if type(count) is not int or not 0 <= count < _MAX_COUNT:
            raise BadAnswer(
                f"the program counted {text[:_SHOWN]!r} {str(count)[:_SHOWN]} times",
                hint="a whole number of shots for each bit string",
            )
        outcome = int(bits, 2)
        if outcome in counts:
            raise BadAnswer(f"the program counted {text[:_SHOWN]!r} twice")
        counts[outcome] = count
    return {outcome: count for outcome, count in counts.items() if count}
