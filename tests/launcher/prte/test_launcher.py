"""PRRTE: its virtual machine, jobs and messages."""

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import prte_driver
import psutil
import pytest
from prte_driver import SLEEPS, command, here
from waiting import until

from launcher.base import Allocation, Exit, LauncherEvent, LaunchError, Node
from launcher.pmix.helper_process import HelperResponse
from launcher.prte import dvm
from launcher.prte.dvm_supervisor import DvmSupervisor
from launcher.prte.installation import Prte
from launcher.prte.launcher import PrteLauncher

NODE = os.uname().nodename
WAIT_S = 60.0


class Watched:
    """A launcher, and all it has told."""

    def __init__(self, folder: Path) -> None:
        nodes = (Node(NODE, 2, 2**30),)
        self.folder = folder
        self.it = PrteLauncher(Allocation(nodes, "a test"), folder, prte=here())
        self.exits: dict[str, Exit] = {}
        self.news: list[LauncherEvent] = []

    def start(self, name: str, program: str, ranks: int = 1) -> None:
        self.it.start(command(self.folder, name, program, f"{NODE}:{ranks}"))

    def look(self) -> None:
        self.exits |= {end.name: end for end in self.it.poll_exits()}
        self.news += self.it.poll_events()

    def until(self, happened: Callable[[], object]) -> None:
        until(
            lambda: happened() or self.look(),
            WAIT_S,
            message=lambda: (self.exits, self.news, self.it.running()),
        )

    def end_of(self, name: str) -> Exit:
        self.until(lambda: name in self.exits)
        return self.exits[name]

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text()

    def says(self, name: str, word: str = "up", times: int = 1) -> None:
        self.until(lambda: self.log(name).split().count(word) == times)

    @property
    def dvm(self) -> dvm.Dvm:
        outcome = self.it._supervisors[0].dvm
        assert outcome is not None
        return outcome


@pytest.fixture
def prte(tmp_path: Path, no_leaks: None) -> Iterator[Watched]:
    watched = Watched(tmp_path)
    yield watched
    watched.it.close()
    assert not list(tmp_path.glob("prte-*")), "its folder is left"


def test_spawns_beyond_pending_limit_wait(prte: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dvm, "MAX_PENDING", 1)
    value = 0
    for name in ("one", "two", "three"):
        prte.start(name, "")
    while prte.it.running():
        prte.until(lambda: True)
        prte.look()
        if prte.it._supervisors[0].dvm is not None:
            value = max(value, len(prte.dvm._pending))
        time.sleep(0.005)
    assert value == 1
    assert {end.code for end in prte.exits.values()} == {0}
    assert len(prte.exits) == 3


def test_rank_inherits_commands_environment(prte: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_OF_THE_SERVICE", "1")
    script = "import os,sys; print(sorted(os.environ)); print(os.getcwd()); sys.exit(3)"
    result = command(prte.folder, "one", script, f"{NODE}:1", start=7)
    foreign = ("PMIX_NAMESPACE", "somebody else's")
    prte.it.start(replace(result, environ=(*result.environ, foreign)))
    assert prte.end_of("one") == Exit("one", 0, 3, "exit 3", 7)
    outcome = prte.log("one")
    assert "'MARK'" in outcome
    assert "SECRET" not in outcome
    assert str(prte.folder) in outcome
    assert prte.it.running() == []


def test_ranks_of_worker_share_comm_world(prte: Watched) -> None:
    result = command(prte.folder, "hello", "", f"{NODE}:3")
    prte.it.start(replace(result, argv=(sys.executable, "-P", "-m", "launcher.probe_rank")))
    assert prte.end_of("hello").code == 0
    assert prte.log("hello").count('"size": 3') == 3


def test_ends_of_short_jobs_are_reported(prte: Watched) -> None:
    names = [f"short{k}" for k in range(12)]
    for name in names:
        prte.start(name, "")
    prte.until(lambda: set(names) <= set(prte.exits))
    assert len(prte.exits) == len(names)


def test_kill_ends_only_its_job(prte: Watched) -> None:
    script = "import signal,sys; signal.signal(15, lambda *_: print('hit', flush=True))\n" + SLEEPS
    prte.start("other", script, 2)
    prte.start("one", SLEEPS, 2)
    prte.says("other", times=2)
    prte.says("one", times=2)
    prte.it.kill("one")
    assert prte.end_of("one").reason == "signal 9 (SIGKILL)"
    assert prte.it.running() == ["other"]
    assert "hit" not in prte.log("other")
    prte.it.kill("nobody")  # without effect


def test_all_ranks_of_a_worker_end_together(prte: Watched) -> None:
    prte.start("one", "import os; os.write(1, b'%d\\n' % os.getpid())\n" + SLEEPS, 2)
    prte.start("other", SLEEPS)
    prte.says("one", times=2)
    prte.says("other")
    pids = [int(word) for word in prte.log("one").split() if word != "up"]
    os.kill(pids[0], signal.SIGSEGV)
    end = prte.end_of("one")
    assert (end.code, end.reason, end.infrastructure_failure) == (-11, "signal 11 (SIGSEGV)", False)
    until(lambda: not any(psutil.pid_exists(pid) for pid in pids))
    assert prte.it.running() == ["other"]


def test_worker_killed_before_its_start_never_starts(prte: Watched) -> None:
    mark = prte.folder / "mark"
    prte.start("one", f"open({str(mark)!r}, 'w')")
    prte.it.kill("one")
    assert "before it was started" in prte.end_of("one").reason
    prte.start("two", "")
    prte.end_of("two")
    assert not mark.exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"argv": ("/nonesuch/program",)}, "/nonesuch/program"),
        ({"cwd": Path("/nonesuch")}, "/nonesuch is not a folder"),
        ({"shares": prte_driver.shares("elsewhere:1")}, "elsewhere is none of the nodes"),
        ({"log": Path("/nonesuch/log")}, "/nonesuch/log"),
    ],
)
def test_failing_command_is_refused(prte: Watched, change: dict[str, object], words: str) -> None:
    result = command(prte.folder, "one", "", f"{NODE}:1")
    with pytest.raises(LaunchError, match=words):
        prte.it.start(replace(result, **change))  # type: ignore[arg-type]
    assert prte.it.running() == []


def test_program_that_fails_to_start_is_reported(prte: Watched) -> None:
    script = prte.folder / "script"
    script.write_text("#!/nonesuch/interpreter\n")
    script.chmod(0o700)
    prte.it.start(replace(command(prte.folder, "one", "", f"{NODE}:1"), argv=(str(script),)))
    assert prte.end_of("one").reason == "exit 127"
    assert "script" in prte.log("one")


def test_workers_of_a_lost_dvm_are_reported(prte: Watched) -> None:
    prte.start("one", SLEEPS, 2)
    prte.start("two", SLEEPS)
    prte.says("one", times=2)
    prte.says("two")
    os.kill(prte.dvm.pid, signal.SIGKILL)
    for name in ("one", "two"):
        end = prte.end_of(name)
        assert end.reason == "its DVM was lost: prte ended (signal 9)"
        assert end.infrastructure_failure
    prte.exits.clear()
    prte.start("one", "print('again')")
    assert prte.end_of("one").code == 0
    assert "again" in prte.log("one")
    assert [news.kind for news in prte.news] == ["dvm.started", "dvm.lost", "dvm.started"]


def test_workers_survive_a_killed_helper(prte: Watched) -> None:
    prte.start("one", SLEEPS)
    prte.says("one")
    os.kill(prte.dvm.helper_pid, signal.SIGKILL)
    prte.until(lambda: any(news.kind == "launcher.helper" for news in prte.news))
    assert prte.it.running() == ["one"]
    prte.it.kill("one")
    assert prte.end_of("one").reason == "signal 9 (SIGKILL)"


def test_hung_helper_is_replaced(prte: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dvm, "RESPONSE_TIMEOUT_S", 1.0)
    prte.start("one", SLEEPS)
    prte.says("one")
    os.kill(prte.dvm.helper_pid, signal.SIGSTOP)
    prte.start("two", SLEEPS)
    assert (
        prte.end_of("two").reason == "could not be started: the PMIx helper gave no answer in 1 s"
    )
    monkeypatch.setattr(dvm, "RESPONSE_TIMEOUT_S", 60.0)
    prte.start("three", "")
    assert prte.end_of("three").code == 0
    assert prte.it.running() == ["one"]


def test_start_without_dvm_waits_for_next_dvm(prte: Watched) -> None:
    prte.start("one", "")
    prte.end_of("one")
    helper, prte_pid = psutil.Process(prte.dvm.helper_pid), prte.dvm.pid
    helper.suspend()
    prte.start("two", "import os; print(open(f'/proc/{os.getppid()}/comm').read())")
    os.kill(prte_pid, signal.SIGKILL)
    psutil.Process(prte_pid).wait(WAIT_S)
    helper.resume()
    helper.wait(WAIT_S)
    assert prte.end_of("two").code == 0, "it waits for the next DVM"
    assert prte.log("two").split() == ["prte"]


def test_close_ends_workers_that_ignore_sigterm(tmp_path: Path, no_leaks: None) -> None:
    watched = Watched(tmp_path)
    watched.start("one", "import signal; signal.signal(15, signal.SIG_IGN)\n" + SLEEPS, 2)
    watched.says("one", times=2)
    below = psutil.Process(watched.dvm.pid).children(recursive=True)
    assert len(below) == 2
    watched.it.close()
    _, alive = psutil.wait_procs(below, timeout=WAIT_S)
    assert not alive


NOW = 1_000.0  # it stands still: what is planned for later never comes


def test_recheck_finds_a_returned_node_at_once(tmp_path: Path) -> None:
    agent, value = tmp_path / "agent", tmp_path / "there"
    agent.write_text(f"#!/bin/sh\ntest -e {value}\n")
    agent.chmod(0o700)
    site = dvm.DvmSettings(
        Prte(Path("/prte"), Path("/pmix"), (), None, "3"), dict(os.environ), str(agent)
    )
    block = DvmSupervisor(site, [Node("n1", 1, 2**30)], tmp_path, 1)
    assert not block.recheck_node("n1"), "it is not lost"
    block.lost_nodes["n1"] = "no answer"
    for _ in range(2):
        block.step(NOW)
        while block._probe is not None:
            os.sched_yield()
            block.step(NOW)
    assert "n1" in block.lost_nodes
    value.touch()
    assert block.recheck_node("n1")
    block.step(NOW)
    while block._probe is not None:
        os.sched_yield()
        block.step(NOW)
    assert [news.kind for news in block.events] == ["node.back"]
    block.close()


END = HelperResponse("ended", namespace="dvm@1", code=3)


def test_end_reported_before_start_is_delivered_at_start() -> None:
    jobs = dvm.JobTracker()
    assert jobs.ended(END) == []
    assert jobs.started("dvm@1") == [END]
    assert jobs.ended(END) == []


def test_end_of_a_job_is_reported_once() -> None:
    jobs = dvm.JobTracker()
    assert jobs.started("dvm@1") == []
    assert jobs.ended(END) == [END]
    assert jobs.ended(END) == []
    for _ in range(dvm.CONFIRMATIONS):
        assert jobs.listed(["tool"], pending=False) == ([], [])


def test_job_missing_in_two_lists_has_ended() -> None:
    jobs = dvm.JobTracker()
    jobs.started("dvm@1")
    jobs.started("dvm@2")
    for _ in range(dvm.CONFIRMATIONS - 1):
        assert jobs.listed(["dvm@2"], pending=False) == ([], [])
    over, strange = jobs.listed(["dvm@2"], pending=False)
    assert over == [HelperResponse("ended", namespace="dvm@1", code=1, message=dvm.UNKNOWN_END)]
    assert strange == []


def test_one_list_without_a_job_does_not_end_it() -> None:
    jobs = dvm.JobTracker()
    jobs.started("dvm@1")
    for _ in range(3 * dvm.CONFIRMATIONS):
        assert jobs.listed([], pending=False) == ([], [])
        assert jobs.listed(["dvm@1"], pending=False) == ([], [])


def test_orphaned_job_is_ended_after_two_lists() -> None:
    jobs = dvm.JobTracker()
    for _ in range(2 * dvm.CONFIRMATIONS):
        assert jobs.listed(["dvm@7", "tool"], pending=True) == ([], []), "its answer may come"
    for _ in range(dvm.CONFIRMATIONS - 1):
        assert jobs.listed(["dvm@7", "tool"], pending=False) == ([], [])
    assert jobs.listed(["dvm@7", "tool"], pending=False) == ([], ["dvm@7"])


LOST = """DVM ready
--------------------------------------------------------------------------
prte has lost communication with a remote daemon.

  HNP daemon   : [prte-node1-14040@0,0] on node node1
  Remote daemon: [prte-node1-14040@0,1] on node node2

This is usually due to either a failure of the TCP network
connection to the node, or possibly an internal failure of
the daemon itself. We cannot recover from this failure, and
therefore will terminate the job.
--------------------------------------------------------------------------
"""
ENDED = """--------------------------------------------------------------------------
An PRTE daemon has unexpectedly failed after launch and before
communicating back to prte.

  Local host:         node1
  Remote host:        node3
  Daemon exit status: 137

This may also be caused by a firewall on the remote host.
--------------------------------------------------------------------------
"""


def test_failure_summary_names_the_lost_node() -> None:
    assert dvm.failure_summary(LOST) == "its daemon on node2 is lost"
    assert dvm.failure_summary(ENDED) == "its daemon on node3 ended (exit 137)"


def test_unrecognised_message_is_shortened() -> None:
    assert dvm.failure_summary("a warning\nDVM ready\nTerminated\n") == ""
    assert dvm.failure_summary("----\n  no memory\n") == "no memory"
    long = dvm.failure_summary("word " * 1000)
    assert long.startswith("... word")
    assert len(long) < 200


def test_dvm_is_ready_after_its_ready_line() -> None:
    assert dvm.is_ready(LOST)
    assert not dvm.is_ready(ENDED)
