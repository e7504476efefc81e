"""Many tasks, each as soon as it has ended."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from itertools import chain

from simenv.client.entry import Entry
from simenv.client.progress import Line, describe
from simenv.client.task import Task, step_s
from simenv.errors import OptionError, TimedOut

Waiting = dict[Entry, list[Task]]  # the bindings of one task end together


def as_completed(
    tasks: Iterable[Task], timeout: float | None = None, progress: bool = False
) -> Iterator[Task]:
    """Each task as soon as it has ended, whatever its end; TimedOut after `timeout` seconds.

    Those that were posted and refused come first. The tasks must belong to one client.
    `progress`: one line on stderr, where that is a terminal or a notebook's, out of the way
    whenever a task is handed out; at the end one that stays.
    """
    waiting: Waiting = {}
    refused: list[Task] = []
    links: set[int] = set()
    for task in tasks:
        links.add(id(task.link))
        entry = task.settled()
        if entry is None:
            refused.append(task)
        else:
            waiting.setdefault(entry, []).append(task)
    if len(links) > 1:
        raise OptionError(
            f"as_completed got tasks of {len(links)} clients", hint="call it once for each client"
        )
    return chain(refused, _each(waiting, timeout, progress))


def _each(waiting: Waiting, timeout: float | None, progress: bool) -> Iterator[Task]:
    if not waiting:
        return
    begun = time.monotonic()
    deadline = None if timeout is None else begun + timeout
    total = sum(map(len, waiting.values()))
    ended = 0
    link = next(iter(waiting)).link
    gathering = link.gather(waiting)
    with Line(sys.stderr) as line:
        progress = progress and line.visible
        while waiting:
            if gathering.ended:
                line.clear()  # the caller may print
                together = waiting.pop(gathering.ended.popleft())
                ended += len(together)
                yield from together
                continue
            if progress:
                line.show(f"{ended} of {total} tasks ended")
            step = step_s(deadline) if progress or deadline is not None else None
            if link.collect(waiting, gathering, step):
                continue
            if deadline is not None and time.monotonic() >= deadline:
                raise TimedOut(
                    f"{total - ended} of {total} tasks have no result after {timeout:g} s",
                    hint="they go on: ask again, or cancel them",
                )
            if progress:
                first = next(iter(waiting))
                text = describe(link.infos([first.number]), first.id)
                line.show(f"{ended} of {total} tasks ended | {text}")
        if progress:
            line.finish(f"{total} of {total} tasks ended in {time.monotonic() - begun:.1f} s")
