"""Findings of a profile, each with advice. Pure: a profile in, findings out.

A finding is reported if its cost exceeds a threshold; each threshold below has its reason.
"""

from __future__ import annotations

import msgspec

from simenv.cli.profiling.profile import (
    ALIKE,
    APPLICATION,
    ENGINE,
    MEANING,
    PLAN,
    QUEUE,
    RunProfile,
)

# Below a third of the time, removing a stage gains less than a factor of 1.5.
WORTH = 0.3
# A sweep is one task for 4,096 bindings: with ALIKE of them most of the overhead is saved already.
MANY = ALIKE
# Fewer circuits than this, sent one by one, are a test run.
HABIT = 32
# Share of a stage that occurs once (start of a worker, a plan): smaller ones vanish in longer runs.
ONCE = 0.1
# Workers are the bottleneck if they are busy for this share of the time.
SATURATED = 0.8
# Shorter delays are the wake-up of a waiting process.
LATE_S = 0.002
# Share of a task's time in the environment: more than half.
MOSTLY = 0.5


class PerfFinding(msgspec.Struct, frozen=True):
    """Finding of a profile. `code` is stable; `words`: text for users; `way`: advice, "" for
    none."""

    code: str
    share: float  # of the whole time; 0 if the finding has no duration
    words: str
    way: str = ""


def findings(profile: RunProfile) -> list[PerfFinding]:
    """Return the largest stage, then the other findings, the most costly first."""
    if not profile.tasks:
        return []
    largest = profile.largest
    first = PerfFinding(
        "largest",
        largest.share,
        f"the largest stage is {largest.name}: {_percent(largest.share)} of "
        f"{_seconds(profile.wall_s)} ({MEANING[largest.name]})",
    )
    rules = (
        _bindings, _single_submissions, _slots, _start, _plans, _idle, _application, _packing,
        _late, _failures,
    )  # fmt: skip
    results = [finding for rule in rules if (finding := rule(profile)) is not None]
    return [first, *sorted(results, key=lambda finding: -finding.share)]


def _bindings(p: RunProfile) -> PerfFinding | None:
    """Report circuits that differ only in their angles but are sent as circuits."""
    if p.alike < MANY or p.alike < p.tasks / 2 or p.step_tasks < MANY or p.overhead < WORTH:
        return None
    amount = f"{p.step_tasks:.0f} circuits a step" if p.steps > 1 else f"{p.tasks} circuits"
    return PerfFinding(
        "bindings",
        p.overhead,
        f"{amount}, {_percent(p.overhead)} overhead; they differ only in their angles",
        "send them as bindings: submit_many((circuit, angles))",
    )


def _single_submissions(p: RunProfile) -> PerfFinding | None:
    """Report circuits that are sent one by one."""
    if p.tasks < HABIT or p.alone < MOSTLY or p.overhead < WORTH:
        return None
    waited = p.step_tasks <= 1
    if p.alike >= p.tasks / 2:
        message = f"the same structure was submitted {p.alike} times one by one"
        way = "send them as bindings: submit_many((circuit, angles))"
    else:
        message = f"{p.tasks} circuits were submitted one by one"
        way = "send them together: submit_many(circuits)"
    if waited:
        message += ", each waited for before the next"
        way += "; or post() them, if none depends on the last"
    message += f": {_percent(p.overhead)} overhead"
    return PerfFinding("one_by_one", p.overhead, message, way)


def _slots(p: RunProfile) -> PerfFinding | None:
    """Report a lack of workers, unless workers had to start first."""
    queued_s = next(stage.task_s for stage in p.stages if stage.name == QUEUE)
    share = queued_s / sum(stage.task_s for stage in p.stages)
    waited = p.share(QUEUE) - p.starting_s / p.wall_s >= WORTH
    full = bool(p.workers) and p.busy >= SATURATED * p.workers
    if share < MOSTLY or not (waited or full) or _start(p) is not None:
        return None
    return PerfFinding(
        "slots",
        p.share(QUEUE),
        f"tasks waited for a slot {_percent(share)} of their time; {p.busy:.1f} of {p.workers} "
        "workers were busy while there was work",
        "more workers (simenv up --workers N), or a time with less load",
    )


def _start(p: RunProfile) -> PerfFinding | None:
    """Report tasks that waited for the start of workers."""
    share = p.starting_s / p.wall_s
    if share < ONCE:
        return None
    return PerfFinding(
        "start",
        share,
        f"tasks waited {_seconds(p.starting_s)} ({_percent(share)}) for workers to start",
        "start the environment before the application: simenv up, and pools with min > 0",
    )


def _plans(p: RunProfile) -> PerfFinding | None:
    """Report the time of planning and of loading an engine."""
    share = p.share(PLAN)
    if share < ONCE:
        return None
    each = f"{p.structures} different structures" if p.structures > 1 else "its only structure"
    return PerfFinding(
        "plans",
        share,
        f"preparing {each} (or loading the engine) took {_percent(share)}",
        "use one circuit with parameters and bind its angles, or a pool of that engine",
    )


def _idle(p: RunProfile) -> PerfFinding | None:
    """Report workers without work while others ran."""
    if p.share(ENGINE) < MOSTLY or p.workers < 2 or p.busy >= SATURATED * p.workers:
        return None
    return PerfFinding(
        "idle",
        p.share(ENGINE) * (1 - p.busy / p.workers),
        f"{p.busy:.1f} of {p.workers} workers were busy on average",
        "submit more at once, the longest tasks first",
    )


def _application(p: RunProfile) -> PerfFinding | None:
    """Report the time of the application itself."""
    share = p.share(APPLICATION)
    if share < WORTH:
        return None
    return PerfFinding(
        "application",
        share,
        f"{_percent(share)} of the time no task was in the environment: the application computed, "
        f"encoded circuits (in all {_seconds(p.packed_s)}), or read results",
        "submit the next step before you read the last one",
    )


def _packing(p: RunProfile) -> PerfFinding | None:
    """Report the time of encoding circuits in the application's process."""
    share = p.packed_s / p.wall_s
    if share < WORTH:
        return None
    return PerfFinding(
        "packing",
        share,
        f"encoding circuits took {_seconds(p.packed_s)} ({_percent(share)})",
        "bind the angles of one circuit instead of building many: submit_many((circuit, angles))",
    )


def _late(p: RunProfile) -> PerfFinding | None:
    """Report results that were read late."""
    step_s = p.wall_s / p.steps
    if p.late_s < LATE_S or p.late_s < WORTH * step_s:
        return None
    return PerfFinding(
        "late",
        min(1.0, p.late_s / step_s),
        f"results were read late: {_seconds(p.late_s)} after they were ready, on average",
        "read them in the order of their end: simenv.as_completed(tasks)",
    )


def _failures(p: RunProfile) -> PerfFinding | None:
    """Report failed tasks and repeated attempts."""
    if not (p.failed or p.retried):
        return None
    return PerfFinding(
        "failures",
        0.0,
        f"{p.failed} of {p.tasks} tasks failed, {p.retried} needed more than one attempt",
        "simenv trace ID shows the reason",
    )


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _seconds(time_s: float) -> str:
    return f"{time_s:.1f} s" if time_s >= 1 else f"{1000 * time_s:.3g} ms"
