"""One DVM over three hosts: where ranks go, and every way to lose a host, a daemon or prte."""

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import prte_driver
import psutil
import pytest
from cluster_slurm import LOGIN
from prte_driver import SLEEPS, TELLS, Driver
from waiting import until

from testbed.cluster import Cluster

ALL = "node1:2,node2:2,node3:2"
WAIT_S = 60.0


class Held:
    """A launcher on a host, and what its ranks say."""

    def __init__(
        self, cluster: Cluster, folder: Path, nodes: str, before: Sequence[str] = (),
        agent: str | None = None, on: str = "node1",
    ) -> None:  # fmt: skip
        agent = str(cluster.agent) if agent is None else agent
        words = [*before, sys.executable, prte_driver.__file__, str(folder), agent, nodes]
        pipe = subprocess.PIPE
        self.cluster, self.folder = cluster, folder
        environ = {"PYTHONPATH": str(Path(prte_driver.__file__).parents[2])}
        self.it = Driver(cluster.popen(on, words, environ, stdin=pipe, stdout=pipe))

    def start(self, name: str, where: str, program: str = TELLS) -> None:
        self.it.start(name, program, where)

    def ranks(self, name: str, count: int) -> list[str]:
        """The hosts of its ranks, in their order."""
        log = self.folder / f"{name}.log"
        try:
            until(lambda: log.exists() and len(log.read_text().split()) == 2 * count)
        except AssertionError:
            told = self.it.told_so_far()
            raise AssertionError(f"{name} said {log.read_text()!r}; the launcher: {told}") from None
        words = log.read_text().split()
        return [host for _, host in sorted(zip(map(int, words[::2]), words[1::2], strict=True))]

    def processes(self) -> list[psutil.Process]:
        return [p for name in self.cluster.hosts for p in self.cluster.processes(name)]

    def names(self, host: str) -> list[str]:
        return [program for program, _ in self.cluster.programs(host)]


def daemon_folders() -> list[Path]:
    return list(Path(tempfile.gettempdir()).glob("simenv-prted.*"))


@pytest.fixture
def folder() -> Iterator[Path]:
    """A name with a blank: an agent's words must not be split there."""
    path = Path(tempfile.mkdtemp(prefix="simenv test "))
    yield path
    shutil.rmtree(path)


@pytest.fixture
def hold(three: Cluster, folder: Path) -> Iterator[Callable[[str], Held]]:
    """Makes a launcher for nodes, and sees that nothing is left of it."""
    made: list[Held] = []
    # What a killed host of another test left stays until a daemon starts on it again.
    before = set(daemon_folders())

    def make(nodes: str) -> Held:
        made.append(Held(three, folder, nodes))
        return made[-1]

    yield make
    for one in made:
        killed = one.it.process.poll() is not None
        one.it.close()
        until(lambda one=one: not one.processes())
        assert killed or not list(folder.glob("prte-*"))
        assert before.issuperset(daemon_folders())


@pytest.fixture
def held(hold: Callable[[str], Held]) -> Held:
    """Over all hosts."""
    return hold(ALL)


def test_ranks_run_on_the_nodes_of_their_shares(held: Held) -> None:
    shares = ["node3:1,node1:3", "node2:2,node3:1,node1:2", "node1:1,node2:1,node3:1", "node3:5"]
    for number, where in enumerate(shares):
        held.start(f"w{number}", where)
    for number, where in enumerate(shares):
        wanted = [share.node for share in prte_driver.shares(where) for _ in range(share.ranks)]
        assert held.ranks(f"w{number}", len(wanted)) == wanted


def test_each_host_has_one_prte_or_daemon(held: Held) -> None:
    for number in range(3):
        held.start(f"w{number}", "node1:1,node2:1,node3:1")
        held.ranks(f"w{number}", 3)
    daemons = {
        name: [n for n in held.names(name) if n in ("prte", "prted")]
        for name in ("node1", "node2", "node3")
    }
    assert daemons == {"node1": ["prte"], "node2": ["prted"], "node3": ["prted"]}
    below = psutil.Process(held.it.process.pid).children(recursive=True)
    assert {p.pid for p in below} >= {p.pid for p in held.processes()} - {held.it.process.pid}


def test_head_node_outside_allocation_gets_no_workers(hold: Callable[[str], Held]) -> None:
    held = hold("node2:2,node3:2")
    held.start("one", "node2:2,node3:1")
    assert held.ranks("one", 3) == ["node2", "node2", "node3"]
    held.start("two", "node1:1")
    assert "node1 is none of the nodes" in held.it.news("refused")["words"]
    assert held.names("node1").count("prte") == 1


def test_killed_daemon_ends_its_dvm_and_workers(held: Held) -> None:
    held.start("one", "node1:1,node2:1,node3:1", SLEEPS)
    held.start("two", "node2:2")
    held.ranks("two", 2)
    held.it.spawned("one")
    held.it.spawned("two")
    old = [p for name in ("node1", "node2", "node3") for p in held.cluster.processes(name)]
    for program, process in held.cluster.programs("node2"):
        if program == "prted":
            process.kill()
    for name in ("one", "two"):
        end = held.it.exit(name)
        assert "its DVM was lost: prte ended" in end["words"]
        assert "node2" in end["words"]
        assert end["infrastructure_failure"] == "True"
    held.start("three", "node1:1,node2:1,node3:1")
    assert held.ranks("three", 3) == ["node1", "node2", "node3"]
    until(lambda: not any(p.is_running() for p in old if p.pid != held.it.process.pid))
    assert not any(line["what"] == "node.lost" for line in held.it.said)


def test_dvm_restarts_without_dead_host_and_uses_it_again_after_boot(held: Held) -> None:
    held.start("one", "node1:1,node3:1", SLEEPS)
    held.start("two", "node2:1")
    held.ranks("two", 1)
    held.it.spawned("two")  # a spawn that is not answered is asked for again in the next DVM
    held.cluster.crash("node3")
    try:
        assert "node3" in held.it.exit("one")["words"]
        held.it.exit("two")
        assert held.it.news("node.lost")["subject"] == "node3"
        held.start("three", "node2:1,node1:1")
        assert held.ranks("three", 2) == ["node2", "node1"]
        held.start("four", "node3:1,node1:1")
        assert "node3 is lost" in held.it.exit("four")["words"]
    finally:
        held.cluster.boot("node3")
    assert held.it.news("node.back")["subject"] == "node3"
    held.start("five", "node3:2,node2:1")
    assert held.ranks("five", 3) == ["node3", "node3", "node2"]
    assert not any(line["what"] == "exit" for line in held.it.said), "the others went on"


def test_unreachable_host_is_reported_lost_and_used_again_after_its_return(held: Held) -> None:
    held.start("one", "node1:1,node2:1", SLEEPS)
    held.start("two", "node3:1")
    held.ranks("two", 1)
    held.it.spawned("one")
    held.cluster.unplug("node2")
    try:
        held.it.exit("one")
        assert held.it.news("node.lost")["subject"] == "node2"
        held.start("three", "node3:1,node1:1")
        assert held.ranks("three", 2) == ["node3", "node1"]
    finally:
        held.cluster.replug("node2")
    assert held.it.news("node.back")["subject"] == "node2"
    held.start("four", "node2:1,node3:1")
    assert held.ranks("four", 2) == ["node2", "node3"]


def test_dvm_starts_without_a_host_that_is_off(three: Cluster, hold: Callable[[str], Held]) -> None:
    three.crash("node3")
    try:
        held = hold(ALL)
        held.start("one", "node2:1,node1:1")
        assert held.ranks("one", 2) == ["node2", "node1"]
        assert held.it.news("node.lost")["subject"] == "node3"
    finally:
        three.boot("node3")


def test_killed_daemon_ends_only_dvm_of_its_block(hold: Callable[[str], Held]) -> None:
    held = hold("node1:2/0,node2:2/1,node3:2/1")
    held.start("one", "node1:2")
    held.start("two", "node2:1,node3:1")
    held.ranks("one", 2)
    held.ranks("two", 2)
    held.it.spawned("two")
    assert [held.names(name).count("prte") for name in held.cluster.hosts] == [2, 0, 0]
    held.start("three", "node1:1,node3:1")
    assert "not nodes of one DVM" in held.it.news("refused")["words"]
    for program, process in held.cluster.programs("node3"):
        if program == "prted":
            process.kill()
    held.it.exit("two")
    held.start("four", "node3:1,node2:1")
    assert held.ranks("four", 2) == ["node3", "node2"]
    assert not any(line["what"] == "exit" for line in held.it.said), "one runs on"


@pytest.mark.parametrize(
    ("asked", "nodes", "where"),
    [
        (["-N3"], ALL, "node3:1,node1:2"),
        (["-N2", ":", "-p", "quantum", "--gres=qc:QC:1"], "node1:2,node2:2,node4:1",
         "node4:1,node2:2"),
    ],
    ids=["plain", "het"],
)  # fmt: skip
def test_slurm_job_reaches_its_nodes_through_srun(
    four: Cluster, folder: Path, asked: list[str], nodes: str, where: str
) -> None:
    """Daemons are steps of the job: nothing is said about agents."""
    held = Held(four, folder, nodes, ["salloc", "-Q", *asked], agent="", on=LOGIN)
    held.start("one", where)
    wanted = [share.node for share in prte_driver.shares(where) for _ in range(share.ranks)]
    assert held.ranks("one", 3) == wanted
    held.it.close()
    for name in four.hosts:
        until(lambda name=name: not {"prte", "prted", "python"} & set(held.names(name)))


def test_killed_service_leaves_no_process_on_any_host(held: Held) -> None:
    held.start("one", "node1:2,node2:1,node3:1")
    held.ranks("one", 4)
    held.it.process.kill()
    held.it.process.wait(WAIT_S)
    until(lambda: not held.processes())
