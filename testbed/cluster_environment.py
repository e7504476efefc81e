"""An environment over the hosts of a test cluster, its service on node1 (or on the host that is
named), as typed there.

The test's own process is a client too: the hosts share its file system, and with it the socket.
"""

from __future__ import annotations

import shutil
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from subprocess import CompletedProcess

import psutil

from simenv import config
from simenv.client.client import Client, connect
from testbed.cluster import Cluster
from testbed.waiting import until

SIMENV = Path(sys.executable).with_name("simenv")
SERVICE, WORKER, HELPER = "simenv.service", "simenv.worker", "launcher.pmix.helper"
HEAD = "node1"
PATIENCE_S = 60.0  # for what takes seconds on a quiet machine
LOOK_S = 0.05  # processes of other hosts send no event


class Environment:
    """What is up: `client` to ask it, `simenv` to type commands."""

    def __init__(self, cluster: Cluster, name: str, host: str = HEAD) -> None:
        self.cluster = cluster
        self.name = name
        self.host = host

    @property
    def home(self) -> Path:
        return config.home_root() / self.name

    def simenv(
        self, *words: str, host: str = "", check: bool = True, timeout_s: float = 120.0
    ) -> CompletedProcess[str]:
        """Type a command on a host, by default that of the service."""
        argv = [str(SIMENV), "--name", self.name, *words]
        return self.cluster.run(host or self.host, argv, check=check, timeout_s=timeout_s)

    def logged(self, last: int = 30) -> str:
        """The ends of all logs."""
        logs = [self.home / "service.log", *sorted((self.home / "logs").glob("*.log"))]
        return "\n".join(
            "\n".join([f"--- {log.name}", *log.read_text(errors="replace").splitlines()[-last:]])
            for log in logs
            if log.exists()
        )

    def client(self) -> Client:
        return connect(self.name)

    def of(self, word: str, host: str = "") -> list[psutil.Process]:
        """Processes on a host (on all) whose command line holds `word` as a program, module or
        file."""
        names = [host] if host else list(self.cluster.hosts)
        entries = [process for name in names for process in self.cluster.processes(name)]
        return [process for process in entries if word in words_of(process)]

    def ranks(self, worker: str) -> list[psutil.Process]:
        """All processes of a worker, rank 0 first where it was started first."""
        return [each for each in self.of(WORKER) if _after(each, "--name") == worker]


def words_of(process: psutil.Process) -> list[str]:
    """Its command line; and of each word the file's name, and the module's last one."""
    try:
        result = process.cmdline()
    except psutil.Error:
        return []
    plain = [word.rpartition("/")[2].removesuffix(".py") for word in result]
    return [*result, *plain, *(word.rpartition(".")[2] for word in plain)]


def _after(process: psutil.Process, option: str) -> str:
    result = words_of(process)
    return result[result.index(option) + 1] if option in result else ""


def wait_for(what: str, ready: Callable[[], object], timeout_s: float = PATIENCE_S) -> float:
    """Until it is so; seconds it took."""
    begin = time.monotonic()
    until(ready, timeout_s, message=f"not after {timeout_s:.0f} s: {what}", look_s=LOOK_S)
    return time.monotonic() - begin


@contextmanager
def environment(cluster: Cluster, *words: str, host: str = HEAD) -> Iterator[Environment]:
    """`simenv up WORDS` on a host; `down`, whatever happened, at the end. Leaves no process."""
    before = {process for name in cluster.hosts for process in cluster.processes(name)}
    outcome = Environment(cluster, f"c{uuid.uuid4().hex[:8]}", host)
    try:
        outcome.simenv("up", *words)
        yield outcome
        outcome.simenv("down", "--now")
        wait_for("nothing is left", lambda: not left(cluster, before))
    except BaseException as error:
        error.add_note(outcome.logged())
        error.add_note("\n".join(f"left: {words_of(each)}" for each in left(cluster, before)))
        raise
    finally:
        for process in left(cluster, before):
            with suppress(psutil.NoSuchProcess):
                process.kill()
        shutil.rmtree(outcome.home, ignore_errors=True)


def left(cluster: Cluster, before: set[psutil.Process]) -> list[psutil.Process]:
    """What runs on the hosts and did not before. Children of what ran before belong to another
    environment: the loop that watches its daemon starts a `sleep` each second."""
    now = [process for name in cluster.hosts for process in cluster.processes(name)]
    entries = []
    for process in now:
        with suppress(psutil.NoSuchProcess):
            if process not in before and before.isdisjoint(process.parents()):
                entries.append(process)
    return entries


def orphans(cluster: Cluster) -> list[psutil.Process]:
    """Ranks below no daemon and no service: nobody would end them."""
    entries = []
    for name in cluster.hosts:
        for process in cluster.processes(name):
            if WORKER in words_of(process):
                with suppress(psutil.NoSuchProcess):
                    above = [word for each in process.parents() for word in words_of(each)]
                    if not {"prte", "prted", "mpirun", SERVICE} & set(above):
                        entries.append(process)
    return entries
