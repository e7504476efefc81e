"""Cards of other distributions, which name them as entry points."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol, TypeVar

from simulators.errors import Unsupported


class _Named(Protocol):
    @property
    def name(self) -> str: ...


C = TypeVar("C", bound=_Named)


def installed(
    own: Iterable[C], kind: type[C], group: str, *, things: str, no: str
) -> tuple[C, ...]:
    """Cards of this distribution, then of the entry points of a group, by name. `things`, `no`:
    words of errors, such as `engines` and `not an`. Raises Unsupported for an entry point that
    names no card of this kind, or whose name is taken."""
    from importlib.metadata import entry_points  # here: importing it takes 10 ms

    cards = list(own)
    for entry in sorted(entry_points(group=group), key=lambda each: each.name):
        result = entry.load()
        if not isinstance(result, kind) or result.name != entry.name:
            raise Unsupported(
                f"entry point {entry.name!r} of {group!r} is {no} {kind.__name__} of that name",
                hint=f"let it name one, or remove the distribution that has {entry.value}",
            )
        if any(each.name == result.name for each in cards):
            hint = f"remove the one of {entry.value}"
            raise Unsupported(f"there are two {things} {result.name!r}", hint=hint)
        cards.append(result)
    return tuple(cards)
