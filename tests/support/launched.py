"""Workers of several ranks that a launcher has started for an environment of this machine."""

import os
from contextlib import suppress

import psutil
from live import Live

from launcher import mpirun
from launcher.prte import installation

LAUNCHERS = ("prte", "mpirun")


def missing(launcher: str) -> str:
    """What there is not of a launcher here; "" if it is all there."""
    if launcher == "prte":
        result = installation.find(os.environ)
        return result if isinstance(result, str) else ""
    return "" if mpirun.find(os.environ) else "no mpirun is here"


def below(pid: int) -> list[psutil.Process]:
    """The process and all that it has started, at any depth."""
    parent = psutil.Process(pid)
    return [parent, *parent.children(recursive=True)]


def ranks_of(live: Live, worker: str) -> list[psutil.Process]:
    """A worker's processes, but for what started them."""
    entries = []
    for process in below(live.service().pid):
        with suppress(psutil.Error):  # others end meanwhile
            if process.name().startswith("python") and worker in process.cmdline():
                entries.append(process)
    return entries
