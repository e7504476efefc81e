"""A check: one promise of the contract and the function that tests it.

The function returns if the promise holds, and raises `Broken` if it does not, `Omitted` if it
cannot be tested here, `Irrelevant` if the plugin does not make the promise. Any other exception
counts as `Broken`: a host would have received it.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from simenv.qpm_check.contract.outcomes import Broken, shown

if TYPE_CHECKING:
    from simenv.qpm_check.harness.session import CheckSession

    CheckFunction = Callable[[CheckSession], None]

BOTH = (1, 2)


class VerdictState(enum.StrEnum):
    """How a row came out."""

    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"
    NOT_APPLICABLE = "not applicable"


class Need(enum.StrEnum):
    """What a target must have for a row to mean anything."""

    PACKAGE = "a plugin folder"
    TRANSPORT = "a client in another process"
    OUTAGE = "a plugin whose backend can be restarted"


class Irrelevant(Exception):
    """The plugin rightly does not do this; the text says why."""


class Verdict(msgspec.Struct, frozen=True):
    """How one row came out in one revision; `why` is empty where it passed."""

    id: str
    title: str
    revision: int
    state: VerdictState
    why: str = ""
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Check:
    """`alone`: it gets a QPM of its own, which it may ruin. `opens`:
    it needs one that is up."""

    id: str
    title: str
    revisions: tuple[int, ...]
    needs: frozenset[Need]
    alone: bool
    opens: bool
    check: CheckFunction

    def verdict(
        self, revision: int, state: VerdictState, why: str = "", seconds: float = 0.0
    ) -> Verdict:
        return Verdict(self.id, self.title, revision, state, why, seconds)


def row(
    id: str,  # noqa: A002 - what a row is called everywhere
    title: str,
    *,
    revisions: tuple[int, ...] = (2,),
    needs: tuple[Need, ...] = (),
    alone: bool = False,
    opens: bool = True,
) -> Callable[[CheckFunction], Check]:
    """Make a Row of a check."""

    def decorate(check: CheckFunction) -> Check:
        return Check(id, title, revisions, frozenset(needs), alone, opens, check)

    return decorate


def expect_equal(what: str, actual: Any, expected: Any) -> None:
    """Broken where the two differ, in value or in kind of number."""
    if actual != expected or isinstance(actual, bool) != isinstance(expected, bool):
        raise Broken(f"{what} is {shown(actual)}, not {shown(expected)}")
