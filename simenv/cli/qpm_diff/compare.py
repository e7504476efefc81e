"""Two pools as they were seen, row by row. Pure.

Invariant: every row of the answer was looked at on both pools; what one of them lacks is a row too.
"""

from __future__ import annotations

from collections.abc import Iterator

from simenv.cli.qpm_diff import values
from simenv.cli.qpm_diff.values import (
    Aspect,
    CallOutcome,
    Comparison,
    Difference,
    Distance,
    Observed,
    Ran,
    Row,
)

NONE = "-"
# Who asks for a device's record gets what is known of that device.
DESCRIBING = (
    "get_backend_info", "get_device_info", "get_dynamic_backend_info", "get_calibration_snapshot",
    "get_coupling_graph",
)  # fmt: skip
_MOST_PATHS = 4  # of a shape in one row


def compare(first: Observed, second: Observed, bound: float | None = None) -> Comparison:
    """`bound`: a total variation up to which counts may differ; None: they may, and are named."""
    rows = (
        *_calls(first, second),
        *(row for pair in _runs(first, second) for row in _ran(*pair, bound)),
        *_facts(first, second),
    )
    return Comparison(first.pool, second.pool, tuple(rows))


def _calls(first: Observed, second: Observed) -> Iterator[Row]:
    theirs = {answer.call: answer for answer in second.answers}
    ours = {answer.call: answer for answer in first.answers}
    for call in {**ours, **theirs}:
        yield _call(call, ours.get(call), theirs.get(call))


def _call(call: str, one: CallOutcome | None, other: CallOutcome | None) -> Row:
    if one is None or other is None or one.outcome != other.outcome:
        return Row(Aspect.CALL, call, _told(one), _told(other), Difference.BEHAVIOUR)
    apart = values.unlike(one.shape, other.shape)
    if apart:
        return Row(
            Aspect.CALL,
            call,
            _paths([(path, there) for path, there, _ in apart]),
            _paths([(path, here) for path, _, here in apart]),
            Difference.FACT
            if call in DESCRIBING and values.is_missing(apart)
            else Difference.BEHAVIOUR,
        )
    return Row(Aspect.CALL, call, one.outcome, other.outcome, Difference.SAME)


def _told(answer: CallOutcome | None) -> str:
    if answer is None:
        return NONE
    return f"{answer.outcome}: {answer.words}" if answer.words else answer.outcome


def _paths(found: list[tuple[str, str]]) -> str:
    words = [f"{path}: {kind}" for path, kind in found[:_MOST_PATHS]]
    more = len(found) - _MOST_PATHS
    return ", ".join(words) + (f" and {more} more" if more > 0 else "")


def _runs(first: Observed, second: Observed) -> Iterator[tuple[Ran, Ran]]:
    """Both ran the same circuits, in one order."""
    return iter(zip(first.runs, second.runs, strict=True))


def _ran(one: Ran, other: Ran, bound: float | None) -> Iterator[Row]:
    name = one.circuit
    yield _states(one, other)
    alike = one.reached == other.reached
    yield Row(
        Aspect.TIMES,
        name,
        ", ".join(one.reached) or NONE,
        ", ".join(other.reached) or NONE,
        Difference.SAME if alike else Difference.BEHAVIOUR,
    )
    if one.counts and other.counts:
        if one.form != other.form:
            yield Row(Aspect.COUNTS, f"{name}: keys", one.form, other.form, Difference.BEHAVIOUR)
        else:
            yield _counts(one, other, bound)
    for what in ("engine", "route", "remark"):
        left, right = getattr(one, what), getattr(other, what)
        finding = Difference.SAME if left == right else Difference.FACT
        yield Row(Aspect.ROUTE, f"{name}: {what}", left or NONE, right or NONE, finding)


def _states(one: Ran, other: Ran) -> Row:
    """Where it ended. What was seen on the way is told; a quick one is not seen to run."""
    same = one.outcome == other.outcome
    return Row(
        Aspect.STATES,
        one.circuit,
        _way(one, with_words=not same),
        _way(other, with_words=not same),
        Difference.SAME if same else Difference.BEHAVIOUR,
    )


def _way(ran: Ran, with_words: bool) -> str:
    way = " > ".join(ran.states) or ran.outcome
    return f"{way}: {ran.words}" if with_words and ran.words else way


def _counts(one: Ran, other: Ran, bound: float | None) -> Row:
    from simenv.cli.qpm_diff.distances import distance

    result = distance(one.counts, other.counts)
    return Row(
        Aspect.COUNTS,
        one.circuit,
        _shots(one),
        _shots(other),
        _finding(one, other, result, bound),
        result,
    )


def _finding(one: Ran, other: Ran, found: Distance, bound: float | None) -> Difference:
    if one.counts == other.counts:
        return Difference.SAME
    if found.is_noise:
        return Difference.NOISE
    if bound is not None and found.total_variation > bound:
        return Difference.BOUND
    return Difference.COUNTS


def _shots(ran: Ran) -> str:
    return f"{sum(ran.counts.values())} shots, {len(ran.counts)} outcomes"


def _facts(first: Observed, second: Observed) -> Iterator[Row]:
    for name in {**first.facts, **second.facts}:
        one, other = first.facts.get(name, NONE), second.facts.get(name, NONE)
        finding = Difference.SAME if one == other else Difference.FACT
        yield Row(Aspect.DEVICE, name, one, other, finding)
