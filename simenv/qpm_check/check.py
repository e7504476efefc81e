"""A check: one promise of the contract, and the function that tests it.

The function returns if the promise holds, and raises `CheckFailed` if it does not, `CheckSkipped`
if it cannot be tested here, `CheckNotApplicable` if the plugin does not make the promise. Any other
exception counts as `CheckFailed`: a host would have received it.
"""

from __future__ import annotations

import enum
import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from simenv.qpm_check.session import CheckSession

    CheckFunction = Callable[[CheckSession], None]

BOTH = (1, 2)


class VerdictState(enum.StrEnum):
    """Outcome of a check."""

    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"
    NOT_APPLICABLE = "not applicable"


class TargetProperty(enum.StrEnum):
    """Property of a target that a check needs."""

    PACKAGE = "a plugin folder"
    TRANSPORT = "a client in another process"
    OUTAGE = "a plugin whose backend can be restarted"


class CheckNotApplicable(Exception):
    """The plugin rightly lacks this behaviour; the text states the reason."""


class Verdict(msgspec.Struct, frozen=True):
    """Outcome of one check in one revision; `why` is empty if it passed."""

    id: str
    title: str
    revision: int
    state: VerdictState
    why: str = ""
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Check:
    """A check with its requirements. `alone`: it gets its own QPM, which it may damage. `opens`: it
    needs a running QPM."""

    id: str
    title: str
    revisions: tuple[int, ...]
    needs: frozenset[TargetProperty]
    alone: bool
    opens: bool
    check: CheckFunction

    def verdict(
        self, revision: int, state: VerdictState, why: str = "", seconds: float = 0.0
    ) -> Verdict:
        return Verdict(self.id, self.title, revision, state, why, seconds)


def row(
    id: str,  # noqa: A002 - the id of a row in reports
    title: str,
    *,
    revisions: tuple[int, ...] = (2,),
    needs: tuple[TargetProperty, ...] = (),
    alone: bool = False,
    opens: bool = True,
) -> Callable[[CheckFunction], Check]:
    """Make a Check of a function."""

    def decorate(check: CheckFunction) -> Check:
        return Check(id, title, revisions, frozenset(needs), alone, opens, check)

    return decorate


def row_with(**settings: Any) -> Callable[..., Callable[[CheckFunction], Check]]:
    """Return `row` with these settings by default."""
    return functools.partial(row, **settings)


both, alone = row_with(revisions=BOTH), row_with(alone=True)


def of_the_newest(session: CheckSession, name: str) -> None:
    """Raise CheckNotApplicable if the plugin lacks a method that only the newest hosts call."""
    if name not in session.subject.signatures():
        raise CheckNotApplicable(f"there is no {name}: the newest hosts alone ask for it")
