"""An mpirun of every MPI over three hosts: ranks where and in the order they were told; deaths."""

import json
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from subprocess import PIPE

import mpis
import psutil
import pytest
import waiting

from testbed.cluster import Cluster

WAIT_S = 90.0
DAEMONS = ("prted", "orted", "hydra_pmi_proxy")
# On a host: start a worker through the launcher, say how it ended; a line on stdin kills it.
SERVICE = """
import json, select, sys
from pathlib import Path
from launcher import mpirun
from launcher.base import Command, Share
path, environ, folder, agent, rank, shares = json.loads(sys.stdin.readline())
folder = Path(folder)
launcher = mpirun.MpirunLauncher(mpirun.identify(Path(path), environ), folder, agent)
places = tuple(Share(node, ranks) for node, ranks in shares)
argv = (sys.executable, "-P", "-c", rank)
log = folder / "w.log"
launcher.start(Command("w", argv, tuple(environ.items()), log, folder, 1, places))
while not (ends := launcher.poll_exits()):
    if select.select([sys.stdin], [], [], 0.01)[0] and sys.stdin.readline():
        launcher.kill("w")
print(ends[0].reason)
"""
RANK = """
import ctypes, json, os, signal, sys, time
ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)
from mpi4py import MPI
comm = MPI.COMM_WORLD
sums = comm.allreduce(comm.rank)
facts = [comm.rank, sums, os.uname().nodename, os.environ["MARK"]]
sys.stdout.write(json.dumps(facts) + "\\n")
sys.stdout.flush()
"""


@pytest.fixture(params=mpis.NAMES)
def mpi(request: pytest.FixtureRequest) -> mpis.RealMpi:
    return mpis.real(request.param)


def told(
    mpi: mpis.RealMpi, three: Cluster, folder: Path, then: str, *shares: tuple[str, int]
) -> str:
    """The line the service on a host reads."""
    environ = {**mpi.environ, "MARK": "a 'b' $c"}
    agent = str(three.agent)
    entries = [mpi.mpirun.path, environ, str(folder), agent, RANK + then, list(shares)]
    return json.dumps(entries) + "\n"


def until(
    look: Callable[[], bool], log: Path, left: Callable[[], object] = lambda: "nothing asked"
) -> None:
    waiting.until(
        look, WAIT_S, message=lambda: (log.read_text() if log.exists() else "no log", left())
    )


def ranks(three: Cluster) -> list[psutil.Process]:
    """The ranks on all hosts, and every mpirun and shell that has their program on its line."""
    entries = []
    for process in (each for host in three.hosts for each in three.processes(host)):
        with suppress(psutil.Error):  # gone meanwhile
            if "allreduce" in " ".join(process.cmdline()):
                entries.append(process)
    return entries


def test_ranks_keep_order_of_the_shares(three: Cluster, mpi: mpis.RealMpi, tmp_path: Path) -> None:
    line = told(mpi, three, tmp_path, "", ("node2", 1), ("node1", 2), ("node3", 1))
    done = three.run("node1", [sys.executable, "-P", "-c", SERVICE], mpi.environ, stdin=line)
    log = (tmp_path / "w.log").read_text()
    ordered = sorted(json.loads(each) for each in log.splitlines() if each.endswith("]"))
    hosts = ["node2", "node1", "node1", "node3"]
    assert ordered == [[rank, 6, host, "a 'b' $c"] for rank, host in enumerate(hosts)], log
    assert done.stdout == "exit 0\n"


@pytest.mark.parametrize("death", ["rank", "daemon", "kill", "service"])
def test_all_remote_ranks_end_after_death_of_rank_daemon_or_service(
    death: str, three: Cluster, mpi: mpis.RealMpi, tmp_path: Path
) -> None:
    line = told(mpi, three, tmp_path, "time.sleep(300)", ("node1", 1), ("node2", 1))
    log = tmp_path / "w.log"
    command = [sys.executable, "-P", "-c", SERVICE]
    service = three.popen("node1", command, mpi.environ, stdin=PIPE, stdout=PIPE)
    try:
        assert service.stdin is not None
        service.stdin.write(line)
        service.stdin.flush()
        until(lambda: log.exists() and log.read_text().count('"node') == 2, log)
        assert len(ranks(three)) >= 2
        if death == "rank":
            next(each for each in ranks(three) if each in three.processes("node2")).kill()
        elif death == "daemon":
            for each in three.processes("node2"):  # one of the drill before may still be leaving
                with suppress(psutil.Error):
                    if each.name() in DAEMONS:
                        each.kill()
        elif death == "kill":
            service.stdin.write("kill\n")
            service.stdin.flush()
        else:
            service.kill()
        until(lambda: not ranks(three), log, lambda: [each.cmdline() for each in ranks(three)])
        if death == "daemon" and mpi.mpirun.family.is_open_mpi:
            assert service.stdout is not None
            assert "without its daemon on node2" in service.stdout.readline(), log.read_text()
    finally:
        service.kill()
        service.communicate()
