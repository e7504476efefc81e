"""From the history of a run to its profile and findings."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

import msgspec

from simenv.cli.perf.findings import Finding, findings
from simenv.cli.perf.profile import Profile, Span, profile
from simenv.errors import NotFound
from simenv.model import Event

if TYPE_CHECKING:
    from simenv.client.client import Client

MOST_TASKS = 200_000  # profiled at once: some 200 MB
EARLY_S = 120.0  # a worker's start that began so long before the first task is still seen


class Report(msgspec.Struct, frozen=True):
    """What `--json` prints."""

    profile: Profile
    findings: list[Finding]


def look(client: Client, app: str, since_s: float = 0.0) -> Report:
    """Profile and findings of a run, or of all since a time; NotFound where nothing has ended."""
    rows = client.past.newest(MOST_TASKS, since_s, app, structure=True)
    starts: list[Span] = []
    if rows:
        before = client.past.events_before(rows[0].submitted_s - EARLY_S)
        starts = worker_starts(client.events(before, ["worker.started", "worker.ready"]))
    found = profile(rows, starts, app)
    if not found.tasks:
        what = f"of {app}" if app else "since then"
        raise NotFound(f"no task {what} has ended", hint="simenv log shows what there is")
    return Report(found, findings(found))


def worker_starts(events: Iterable[Event]) -> list[Span]:
    """When workers were starting; one that is not ready yet, until now."""
    begun: dict[str, float] = {}
    spans: list[Span] = []
    for event in events:
        if event.subject in begun:  # ready, or started again because it never was
            spans.append((begun.pop(event.subject), event.time_s))
        if event.kind == "worker.started":
            begun[event.subject] = event.time_s
    now_s = time.time()
    return spans + [(begin_s, now_s) for begin_s in begun.values()]
