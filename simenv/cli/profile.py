"""Profile of the time of one run, and findings with advice. Pure.

Rows of the run's tasks go in, figures come out. Invariant: the stages' wall times are a partition
of the time from the first submission to the last result. A moment belongs to the first stage of
STAGES that any task is in then, so work hides waiting. A moment without any task in the environment
belongs to the application, which includes encoding and reading in its client.

A finding is reported if its cost exceeds a threshold; each threshold below has its reason.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from statistics import median

import msgspec

from simenv.model import TaskState
from simenv.text import run_time
from simenv.wire.messages.history import LogRow

ENGINE, PLAN, DECODE, ENCODE = "engine", "plan", "decode", "encode"
WAY, QUEUE, APPLICATION = "way", "queue", "application"
STAGES = (ENGINE, PLAN, DECODE, ENCODE, WAY, QUEUE, APPLICATION)
MEANING = {
    ENGINE: "evolving and sampling",
    PLAN: "planning a structure, or loading an engine",
    DECODE: "bytes to circuit",
    ENCODE: "result to bytes",
    WAY: "transfer to the worker and back, and storing",
    QUEUE: "waiting for a worker",
    APPLICATION: "no task is submitted: computation, encoding, reading",
}
ALIKE = 8  # tasks of one structure from which they could have been a sweep

Span = tuple[float, float]  # begin and end, seconds


class ProfileStage(msgspec.Struct, frozen=True):
    """Time of one stage. `wall_s`: its part of the run; `task_s`: sum over all tasks, which
    overlap."""

    name: str
    wall_s: float
    share: float  # of the run
    task_s: float
    what: str


class RunProfile(msgspec.Struct, frozen=True):
    """Figures of a run; tasks that have not ended are only counted."""

    app: str
    tasks: int
    circuits: int  # bindings counted
    unfinished: int
    failed: int
    retried: int  # tasks that were sent to workers more than once
    messages: int
    steps: int  # intervals with at least one task in the environment
    step_tasks: float  # median tasks of a step
    step_circuits: float  # median circuits of a step, bindings counted
    alone: float  # share of the tasks that were alone in their message
    alike: int  # tasks of one binding whose structure at least ALIKE of them share
    structures: int  # number of different structures
    begun_s: float  # first submission; 0.0: no task has ended
    wall_s: float
    workers: int  # number of workers that ran tasks of it
    busy: float  # mean number of tasks on workers, over the time with any
    starting_s: float  # time in which tasks waited while a worker was starting
    packed_s: float  # time of its clients for encoding circuits and angles
    accepted_s: float  # and for waiting for acceptance; both may overlap with stages
    late_s: float  # mean time from a result's end until it was read
    stages: tuple[ProfileStage, ...]

    def share(self, name: str) -> float:
        """Return a stage's share of the run."""
        return next(stage.share for stage in self.stages if stage.name == name)

    @property
    def largest(self) -> ProfileStage:
        return max(self.stages, key=lambda stage: stage.wall_s)

    @property
    def overhead(self) -> float:
        """The share of the run in which no engine worked."""
        return 1.0 - self.share(ENGINE)


def profile_of(rows: Iterable[LogRow], starts: Sequence[Span] = (), app: str = "") -> RunProfile:
    """Return the profile of these tasks. `starts`: time spans in which workers were starting."""
    every = list(rows)
    ended = [row for row in every if row.ended_s]
    spans = [_Spans(row) for row in ended]
    inside = merged([each.inside for each in spans])
    wall_s = inside[-1][1] - inside[0][0] if inside else 0.0
    held_s = _length(merged([each.held for each in spans]))
    workers = len({row.worker for row in ended if row.timing.run_us})
    busy = sum(end - begin for begin, end in (e.held for e in spans)) / held_s if held_s else 0.0
    steps = _steps(spans, inside)
    messages = Counter(row.message for row in ended)
    structures = Counter(row.structure for row in ended if row.bindings == 1)
    waits = merged([each.queue for each in spans])
    read = sum(row.spent.results for row in ended)
    return RunProfile(
        app=app, tasks=len(ended), circuits=sum(row.bindings for row in ended),
        unfinished=len(every) - len(ended),
        failed=sum(row.state is not TaskState.DONE for row in ended),
        retried=sum(row.attempts > 1 for row in ended), messages=len(messages), steps=len(steps),
        step_tasks=median(len(step) for step in steps) if steps else 0.0,
        step_circuits=median(sum(e.row.bindings for e in step) for step in steps) if steps else 0.0,
        alone=sum(count == 1 for count in messages.values()) / len(ended) if ended else 0.0,
        alike=sum(count for count in structures.values() if count >= ALIKE),
        structures=len({row.structure for row in ended}),
        begun_s=inside[0][0] if inside else 0.0, wall_s=wall_s, workers=workers,
        busy=min(busy, workers),  # ends of transfers are estimates, so spans may overlap
        starting_s=_length(common(waits, merged(list(starts)))),
        packed_s=1e-6 * sum(row.spent.packed_us for row in ended),
        accepted_s=1e-6 * sum(row.spent.accepted_us for row in ended),
        late_s=1e-6 * sum(row.spent.late_us for row in ended) / read if read else 0.0,
        stages=_stages(spans, wall_s),
    )  # fmt: skip


class _Spans:
    """Time spans of one task; each span contains those before it."""

    __slots__ = ("engine", "held", "inside", "planned", "queue", "returning", "row", "unpacked")

    def __init__(self, row: LogRow) -> None:
        timing = row.timing
        self.row = row
        accepted = row.submitted_s
        sent = accepted + 1e-6 * timing.queued_us
        begun = sent + 1e-6 * timing.sent_us
        decoded = begun + 1e-6 * timing.decode_us
        planned = decoded + 1e-6 * (timing.plan_us + timing.compile_us)
        evolved = planned + 1e-6 * timing.engine_us
        left = begun + 1e-6 * (timing.run_us + timing.compile_us)
        stored = left + 1e-6 * timing.returned_us
        self.engine: Span = (planned, evolved)
        self.planned: Span = (decoded, evolved)
        self.unpacked: Span = (begun, evolved)
        self.held: Span = (begun, left)
        self.inside: Span = (accepted, stored)
        self.queue: Span = (accepted, sent)
        self.returning: Span = (sent, stored)


def _stages(spans: Sequence[_Spans], wall_s: float) -> tuple[ProfileStage, ...]:
    """Return the stages: nested spans in, the time that each adds to those before it out."""
    names = ("engine", "planned", "unpacked", "held", "returning", "inside")
    nested = [[getattr(each, name) for each in spans] for name in names]
    lengths = [_length(merged(each)) for each in nested]
    walls = [now - before for before, now in zip([0.0, *lengths], lengths, strict=False)]
    walls.append(wall_s - lengths[-1])
    timings = [each.row.timing for each in spans]
    task_us = {
        ENGINE: sum(t.engine_us for t in timings),
        PLAN: sum(t.plan_us + t.compile_us for t in timings),
        DECODE: sum(t.decode_us for t in timings),
        ENCODE: sum(t.run_us - t.engine_us - t.plan_us - t.decode_us for t in timings),
        WAY: sum(t.sent_us + t.returned_us for t in timings),
        QUEUE: sum(t.queued_us for t in timings),
        APPLICATION: 0,
    }
    return tuple(
        ProfileStage(
            name, wall, wall / wall_s if wall_s else 0.0, 1e-6 * task_us[name], MEANING[name]
        )
        for name, wall in zip(STAGES, walls, strict=True)
    )


def _steps(spans: Sequence[_Spans], inside: Sequence[Span]) -> list[list[_Spans]]:
    """Return the tasks of each interval of `inside`."""
    steps: list[list[_Spans]] = [[] for _ in inside]
    position = 0
    for each in sorted(spans, key=lambda spans: spans.inside[0]):
        while each.inside[0] > inside[position][1]:
            position += 1
        steps[position].append(each)
    return steps


def merged(spans: Sequence[Span]) -> list[Span]:
    """Return the union of spans as disjoint intervals, in order."""
    results: list[Span] = []
    for begin, end in sorted(spans):
        if results and begin <= results[-1][1]:
            if end > results[-1][1]:
                results[-1] = (results[-1][0], end)
        else:
            results.append((begin, end))
    return results


def common(left: Sequence[Span], right: Sequence[Span]) -> list[Span]:
    """Return the intersection of two unions of spans, each merged."""
    results: list[Span] = []
    i = j = 0
    while i < len(left) and j < len(right):
        begin = max(left[i][0], right[j][0])
        end = min(left[i][1], right[j][1])
        if begin < end:
            results.append((begin, end))
        if left[i][1] < right[j][1]:
            i += 1
        else:
            j += 1
    return results


def _length(spans: Sequence[Span]) -> float:
    return sum(end - begin for begin, end in spans)


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
_AS_BINDINGS = (
    "send them as bindings: submit_many((circuit, angles)), or in PennyLane arrays of angles"
)


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
    part = f"{_percent(largest.share)} of {run_time(profile.wall_s)} ({MEANING[largest.name]})"
    text = f"the largest stage is {largest.name}: {part}"
    first = PerfFinding("largest", largest.share, text)
    others = [*_of_submissions(profile), *_of_workers(profile), *_of_application(profile)]
    return [first, *sorted(others, key=lambda finding: -finding.share)]


def _of_submissions(p: RunProfile) -> Iterator[PerfFinding]:
    """Yield findings about circuits that differ only in their angles, and about circuits that are
    sent one by one."""
    if p.overhead < WORTH:
        return
    if p.alike >= max(MANY, p.tasks / 2) and p.step_tasks >= MANY:
        amount = f"{p.step_tasks:.0f} circuits a step" if p.steps > 1 else f"{p.tasks} circuits"
        text = f"{amount}, {_percent(p.overhead)} overhead; they differ only in their angles"
        yield PerfFinding("bindings", p.overhead, text, _AS_BINDINGS)
    if p.tasks >= HABIT and p.alone >= MOSTLY:
        if p.alike >= p.tasks / 2:
            text = f"the same structure was submitted {p.alike} times one by one"
            way = _AS_BINDINGS
        else:
            text = f"{p.tasks} circuits were submitted one by one"
            way = "send them together: submit_many(circuits)"
        if p.step_tasks <= 1:
            text += ", each waited for before the next"
            way += "; or post() them, if none depends on the last"
        text += f": {_percent(p.overhead)} overhead"
        yield PerfFinding("one_by_one", p.overhead, text, way)


def _of_workers(p: RunProfile) -> Iterator[PerfFinding]:
    """Yield findings about workers: too few, not started yet, idle, busy with plans, or failing."""
    starting = p.starting_s / p.wall_s
    queued_s = next(stage.task_s for stage in p.stages if stage.name == QUEUE)
    queued = queued_s / sum(stage.task_s for stage in p.stages)
    full = bool(p.workers) and p.busy >= SATURATED * p.workers
    if starting >= ONCE:
        text = f"tasks waited {run_time(p.starting_s)} ({_percent(starting)}) for workers to start"
        way = "start the environment before the application: simenv up, and pools with min > 0"
        yield PerfFinding("start", starting, text, way)
    elif queued >= MOSTLY and (p.share(QUEUE) - starting >= WORTH or full):
        text = (
            f"tasks waited for a slot {_percent(queued)} of their time; {p.busy:.1f} of {p.workers}"
            " workers were busy while there was work"
        )
        way = "more workers (simenv up --workers N), or a time with less load"
        yield PerfFinding("slots", p.share(QUEUE), text, way)
    if p.share(ENGINE) >= MOSTLY and p.workers >= 2 and not full:
        idle = p.share(ENGINE) * (1 - p.busy / p.workers)
        text = f"{p.busy:.1f} of {p.workers} workers were busy on average"
        yield PerfFinding("idle", idle, text, "submit more at once, the longest tasks first")
    if p.share(PLAN) >= ONCE:
        each = f"{p.structures} different structures" if p.structures > 1 else "its only structure"
        text = f"preparing {each} (or loading the engine) took {_percent(p.share(PLAN))}"
        way = "use one circuit with parameters and bind its angles, or a pool of that engine"
        yield PerfFinding("plans", p.share(PLAN), text, way)
    if p.failed or p.retried:
        text = f"{p.failed} of {p.tasks} tasks failed, {p.retried} needed more than one attempt"
        yield PerfFinding("failures", 0.0, text, "simenv trace ID shows the reason")


def _of_application(p: RunProfile) -> Iterator[PerfFinding]:
    """Yield findings about the application: its own time, its encoding, and results read late."""
    application, packing = p.share(APPLICATION), p.packed_s / p.wall_s
    if application >= WORTH:
        text = (
            f"{_percent(application)} of the time no task was in the environment: the application"
            f" computed, encoded circuits (in all {run_time(p.packed_s)}), or read results"
        )
        way = "submit the next step before you read the last one"
        yield PerfFinding("application", application, text, way)
    if packing >= WORTH:
        text = f"encoding circuits took {run_time(p.packed_s)} ({_percent(packing)})"
        way = "bind the angles of one circuit instead of building many: "
        yield PerfFinding("packing", packing, text, f"{way}submit_many((circuit, angles))")
    step_s = p.wall_s / p.steps
    if p.late_s >= max(LATE_S, WORTH * step_s):
        late = run_time(p.late_s)
        text = f"results were read late: {late} after they were ready, on average"
        way = "read them in the order of their end: simenv.as_completed(tasks)"
        yield PerfFinding("late", min(1.0, p.late_s / step_s), text, way)


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
