"""Comparison of two observed pools, row by row. Pure.

Invariant: every row was observed on both pools; an answer that one of them lacks is a row too.
"""

from __future__ import annotations

from collections.abc import Iterator

from simenv.cli.qpm_diff import values
from simenv.cli.qpm_diff.values import (
    CallOutcome,
    Comparison,
    Difference,
    PoolObservations,
    Row,
    RowSubject,
    RunOutcome,
    SampleDistance,
)

NONE = "-"
# Calls that describe a device: their answers have the known fields of that device.
DESCRIBING = (
    "get_backend_info", "get_device_info", "get_dynamic_backend_info", "get_calibration_snapshot",
    "get_coupling_graph",
)  # fmt: skip
_MOST_PATHS = 4  # most paths of a shape in one row


def compare(
    first: PoolObservations, second: PoolObservations, bound: float | None = None
) -> Comparison:
    """Compare two pools. `bound`: total variation up to which counts may differ; None: no bound."""
    rows = (
        *_calls(first, second),
        *(row for pair in _runs(first, second) for row in _run_rows(*pair, bound)),
        *_facts(first, second),
    )
    return Comparison(first.pool, second.pool, tuple(rows))


def _calls(first: PoolObservations, second: PoolObservations) -> Iterator[Row]:
    second_outcomes = {answer.call: answer for answer in second.answers}
    first_outcomes = {answer.call: answer for answer in first.answers}
    for call in {**first_outcomes, **second_outcomes}:
        yield _call(call, first_outcomes.get(call), second_outcomes.get(call))


def _call(call: str, first: CallOutcome | None, second: CallOutcome | None) -> Row:
    if first is None or second is None or first.outcome != second.outcome:
        return Row(
            RowSubject.CALL, call, _outcome_text(first), _outcome_text(second), Difference.BEHAVIOUR
        )
    differences = values.differing_paths(first.shape, second.shape)
    if differences:
        return Row(
            RowSubject.CALL,
            call,
            _paths([(path, first_kind) for path, first_kind, _ in differences]),
            _paths([(path, second_kind) for path, _, second_kind in differences]),
            Difference.FACT
            if call in DESCRIBING and values.is_missing(differences)
            else Difference.BEHAVIOUR,
        )
    return Row(RowSubject.CALL, call, first.outcome, second.outcome, Difference.SAME)


def _outcome_text(answer: CallOutcome | None) -> str:
    if answer is None:
        return NONE
    return f"{answer.outcome}: {answer.words}" if answer.words else answer.outcome


def _paths(differences: list[tuple[str, str]]) -> str:
    parts = [f"{path}: {kind}" for path, kind in differences[:_MOST_PATHS]]
    more = len(differences) - _MOST_PATHS
    return ", ".join(parts) + (f" and {more} more" if more > 0 else "")


def _runs(
    first: PoolObservations, second: PoolObservations
) -> Iterator[tuple[RunOutcome, RunOutcome]]:
    """Return the pairs of runs: both pools ran the same circuits in the same order."""
    return iter(zip(first.runs, second.runs, strict=True))


def _run_rows(first: RunOutcome, second: RunOutcome, bound: float | None) -> Iterator[Row]:
    name = first.circuit
    yield _states(first, second)
    alike = first.reached == second.reached
    yield Row(
        RowSubject.TIMES,
        name,
        ", ".join(first.reached) or NONE,
        ", ".join(second.reached) or NONE,
        Difference.SAME if alike else Difference.BEHAVIOUR,
    )
    if first.counts and second.counts:
        if first.form != second.form:
            yield Row(
                RowSubject.COUNTS, f"{name}: keys", first.form, second.form, Difference.BEHAVIOUR
            )
        else:
            yield _counts(first, second, bound)
    for what in ("engine", "route", "remark"):
        left, right = getattr(first, what), getattr(second, what)
        finding = Difference.SAME if left == right else Difference.FACT
        yield Row(RowSubject.ROUTE, f"{name}: {what}", left or NONE, right or NONE, finding)


def _states(first: RunOutcome, second: RunOutcome) -> Row:
    """Return the row of outcomes, with the observed states; a short run may not be seen as
    running."""
    same = first.outcome == second.outcome
    return Row(
        RowSubject.STATES,
        first.circuit,
        _states_text(first, with_message=not same),
        _states_text(second, with_message=not same),
        Difference.SAME if same else Difference.BEHAVIOUR,
    )


def _states_text(run: RunOutcome, with_message: bool) -> str:
    way = " > ".join(run.states) or run.outcome
    return f"{way}: {run.words}" if with_message and run.words else way


def _counts(first: RunOutcome, second: RunOutcome, bound: float | None) -> Row:
    from simenv.cli.qpm_diff.distances import distance

    result = distance(first.counts, second.counts)
    return Row(
        RowSubject.COUNTS,
        first.circuit,
        _shots(first),
        _shots(second),
        _finding(first, second, result, bound),
        result,
    )


def _finding(
    first: RunOutcome, second: RunOutcome, distance: SampleDistance, bound: float | None
) -> Difference:
    if first.counts == second.counts:
        return Difference.SAME
    if distance.is_noise:
        return Difference.NOISE
    if bound is not None and distance.total_variation > bound:
        return Difference.BOUND
    return Difference.COUNTS


def _shots(run: RunOutcome) -> str:
    return f"{sum(run.counts.values())} shots, {len(run.counts)} outcomes"


def _facts(first: PoolObservations, second: PoolObservations) -> Iterator[Row]:
    for name in {**first.facts, **second.facts}:
        left, right = first.facts.get(name, NONE), second.facts.get(name, NONE)
        finding = Difference.SAME if left == right else Difference.FACT
        yield Row(RowSubject.DEVICE, name, left, right, finding)
