"""A result that is not what was written: the service looks for itself and runs its task again."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from simenv.client.entry import Entry
from simenv.errors import NotFound
from simenv.wire.keeping import Rerun, Rerunning

if TYPE_CHECKING:
    from simenv.client.link import Link


def renewed(link: Link, broken: Entry) -> Entry:
    """The task's next end, or its stored one where the service finds that intact.

    Waits for it. Raises NotFound when nothing of the task is kept.
    """
    word = link.ask(Rerunning, partial(Rerun, task=broken.number)).word
    if word in ("unknown", "removed"):
        raise NotFound(
            f"the result of task {broken.id} is no longer kept",
            hint="submit it again with its seed; results.keep_gib says how much is kept",
        )
    fresh = Entry(link, broken.number, broken.submission)
    link.finish(fresh, None)
    return fresh
