"""Names of nodes in a word, as sites write them: gpu[07-08,11]. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable

_NUMBERED = re.compile(r"(.*?)(\d{1,18})(\D*)\Z")


def folded(names: Iterable[str]) -> str:
    """`gpu07 gpu08 gpu11 login` is gpu[07-08,11],login; in the order of first appearance."""
    groups: dict[tuple[str, str, int], list[int]] = {}
    for name in dict.fromkeys(names):
        found = _NUMBERED.match(name)
        if found is None:
            groups[(name, "", -1)] = []
            continue
        before, digits, after = found.groups()
        width = len(digits) if digits.startswith("0") and len(digits) > 1 else 0
        kind = (before, after, width)
        # 099 and 100 are of one series, which has three digits.
        padded = (before, after, len(digits))
        groups.setdefault(padded if padded in groups else kind, []).append(int(digits))
    return ",".join(_word(*kind, numbers) for kind, numbers in groups.items())


def _word(before: str, after: str, width: int, numbers: list[int]) -> str:
    if width < 0:
        return before
    if len(numbers) == 1:
        return f"{before}{numbers[0]:0{width}d}{after}"
    return f"{before}[{','.join(_ranges(sorted(numbers), width))}]{after}"


def _ranges(numbers: list[int], width: int) -> Iterable[str]:
    start = last = numbers[0]
    for number in [*numbers[1:], -2]:
        if number == last + 1:
            last = number
            continue
        first = f"{start:0{width}d}"
        yield first if start == last else f"{first}-{last:0{width}d}"
        start = last = number
