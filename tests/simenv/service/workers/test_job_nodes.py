"""Nodes by jobs at the service: tokens, messages of agents, news of the site.

The listener and the connections are real; `Jobs` stands for the batch system.
"""

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import msgspec
import pytest
from failing import fails
from waiting import until

from launcher.base import Command, LaunchError, Node
from simenv._version import __version__
from simenv.config import Config, EnvironmentPaths, Launching
from simenv.errors import ProtocolError
from simenv.model import JobSpec, PoolSpec, TaskOptions, TaskSpec
from simenv.scheduler import core
from simenv.scheduler.core import SubmitJob
from simenv.scheduler.scheduler import Scheduler
from simenv.scheduler.state.cluster import ClusterState
from simenv.service.workers.endpoints import WorkerEndpoint
from simenv.service.workers.job_nodes import (
    JobNodes,
    JobOutcome,
    SiteJobs,
    nodes_of_jobs,
    script_of,
    site_jobs_of,
)  # fmt: skip
from simenv.wire import codec, keyfiles
from simenv.wire.messages import client as m, nodes
from simenv.wire.transport.zmq_transport import WorkerTcpConnection, ZmqListener

T = TypeVar("T")
WAIT_S = 30.0
POOL = PoolSpec("big", "statevector", 0, 2, jobs=JobSpec("slurm", 600.0), nodes="big:*")
NODE = "big:1"
ROUTE = core.Route("statevector", "test", "big", 4, 2**20, 1e6, 0.0, 1)


class Jobs:
    """A batch system that takes every job and does nothing."""

    def __init__(self) -> None:
        self.scripts: dict[int, str] = {}
        self.forgotten: list[tuple[int, bool]] = []
        self.pending: list[JobOutcome] = []

    def submit(self, serial: int, _system: str, _argv: list[str], _name: str, script: str) -> None:
        self.scripts[serial] = script

    def forget(self, serial: int, *, cancel: bool) -> None:
        self.forgotten.append((serial, cancel))

    def news(self) -> list[JobOutcome]:
        results, self.pending = self.pending, []
        return results

    def close(self) -> None:
        pass


HERE = Launching(interface="127.0.0.1")


class Site:
    """A service's part for nodes by jobs; `pump` handles what has arrived."""

    def __init__(self, folder: Path) -> None:
        home = folder / "home"
        results = folder / "results"
        for each in (home, results):
            each.mkdir(mode=0o700)
        config = Config(pools=(POOL,))
        limits = core.ClusterLimits(
            *(2, 2**30, 100, 2**20, 10**10, 10**10),
            nodes=(Node("here", 2, 2**30), *nodes_of_jobs(config.pools, Node("here", 2, 2**30))),
        )
        self.scheduler = Scheduler(config.pools, limits, 1)
        server = keyfiles.new_pair()
        endpoint = WorkerEndpoint(
            EnvironmentPaths(home, home), folder, results, limits.nodes, HERE, 1, server
        )
        self.listener = ZmqListener(folder, server, None, endpoint.listener)
        self.jobs = Jobs()
        parts = (self.scheduler, self.listener, endpoint, self.jobs, folder)
        self.nodes = JobNodes(config, *parts)  # type: ignore[arg-type]

    def submit(self, node: str = NODE) -> nodes.JoinToken:
        """Submit the job that the scheduler wants; return its token."""
        batch = core.SubmitBatch(b"c", TaskOptions(), "k", 0, 1, time.monotonic_ns())
        self.scheduler.submit(batch, [TaskSpec(b"program", 100, 1)], [ROUTE])
        actions = self.scheduler.tick(time.monotonic_ns())
        assert SubmitJob(node, "big") in actions
        self.nodes.submit(SubmitJob(node, "big"))
        return token_of(self.jobs.scripts[max(self.jobs.scripts)])

    def pump(self, wanted: Callable[[], T]) -> T:
        """The first true value, while the service handles what arrives."""

        def handled() -> T:
            if self.listener.wait(0.01) and (received := self.listener.receive()) is not None:
                _, peer, body, identity = received
                self.nodes.receive(peer, identity, codec.from_worker(body))  # type: ignore[arg-type]
            return wanted()

        return wanted() or until(handled, WAIT_S)

    def answer(self, connection: WorkerTcpConnection) -> m.ToNode:
        return codec.to_node(self.pump(lambda: connection.receive(0.0)))  # type: ignore[arg-type]

    @property
    def state(self) -> str:
        return self.scheduler.state.cluster.nodes.hosts[NODE].state


def token_of(script: str) -> nodes.JoinToken:
    (line,) = (line for line in script.splitlines() if line.startswith("{"))
    return nodes.JoinToken(**json.loads(line))


def dial(token: nodes.JoinToken, pair: keyfiles.KeyPair | None = None) -> WorkerTcpConnection:
    keys = pair or keyfiles.KeyPair(token.public_key, token.secret_key)
    return WorkerTcpConnection(token.address, token.server_key, keys, os.urandom(8).hex().encode())


def join_of(token: nodes.JoinToken, pair: keyfiles.KeyPair, **changes: object) -> bytes:
    fields = {
        "version": __version__, "node": token.node, "epoch": token.epoch,
        "public_key": pair.public, "host": "g07", "slots": 2, "memory_bytes": 2**30,
        "num_gpus": 0, "gpus": (), "source": "Slurm job 7", "left_s": 600.0, "age_s": 0.1,
    }  # fmt: skip
    return codec.encode(nodes.JoinNode(**{**fields, **changes}))  # type: ignore[arg-type]


def joined(site: Site) -> tuple[nodes.JoinToken, WorkerTcpConnection]:
    """A node that has joined, as its agent does it."""
    token, pair = site.submit(), keyfiles.new_pair()
    first = dial(token)
    first.send(join_of(token, pair))
    assert isinstance(site.answer(first), nodes.NodeAccepted)
    first.close()
    connection = dial(token, pair)
    connection.send(codec.encode(nodes.NodeHeartbeat(token.node, token.epoch)))
    assert isinstance(site.answer(connection), m.LeaseRenewed)
    assert site.state == "up"
    return token, connection


@pytest.fixture
def site() -> Iterator[Site]:
    with tempfile.TemporaryDirectory() as folder:
        site = Site(Path(folder))
        yield site
        site.listener.close()


def test_node_joins_with_token_then_its_own_key(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    token, connection = joined(site)
    host = site.scheduler.state.cluster.nodes.hosts[NODE]
    assert (host.node.slots, host.job.source) == (2, "Slurm job 7 on g07")
    monkeypatch.setattr(ClusterState, "heartbeat_intervals_s", (2.0, 4.0))
    connection.send(codec.encode(nodes.NodeHeartbeat(token.node, token.epoch)))
    assert site.answer(connection) == m.LeaseRenewed(1, 2.0, 4.0)
    connection.close()


def test_token_is_accepted_once(site: Site) -> None:
    token, connection = joined(site)
    thief = dial(token)
    thief.send(join_of(token, keyfiles.new_pair()))
    for _ in range(20):  # time enough for the service to read and answer it
        connection.send(codec.encode(nodes.NodeHeartbeat(token.node, token.epoch)))
        assert isinstance(site.answer(connection), m.LeaseRenewed)
        assert thief.receive(0.02) is None, "the key of the token still opens a connection"
    thief.close()
    connection.close()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"version": "0.0.1"}, "version 0.0.1"), ({"epoch": 9}, "has been used"),
        ({"slots": 10**6}, "1000000 slots"), ({"node": "big:2"}, "not expected"),
        ({"left_s": 1e10}, "clock"),
        ({"left_s": -5.0}, "clock"), ({"left_s": 0.0}, "clock"), ({"public_key": "short"}, "key"),
    ],
)  # fmt: skip
def test_wrong_join_is_told_the_reason(site: Site, changes: dict[str, object], reason: str) -> None:
    token = site.submit()
    connection = dial(token)
    connection.send(join_of(token, keyfiles.new_pair(), **changes))
    assert reason in site.answer(connection).reason
    assert site.state == "pending"
    connection.close()


def test_heartbeat_before_the_join_uses_no_node(site: Site) -> None:
    token = site.submit()
    connection = dial(token)
    connection.send(codec.encode(nodes.NodeHeartbeat(token.node, token.epoch)))
    assert isinstance(site.answer(connection), nodes.EndNode)
    site.nodes.tick(time.monotonic_ns() + 60 * 10**9)
    assert site.state == "pending"
    assert not site.jobs.forgotten
    connection.close()


def test_job_that_runs_without_a_node_is_cancelled_and_the_next_one_delayed(site: Site) -> None:
    site.submit()
    now_ns = time.monotonic_ns()
    site.jobs.pending = [JobOutcome(1, "Slurm job 7 (RUNNING)", runs=True)]
    for second in range(60):
        site.nodes.tick(now_ns + second * 10**9)
    assert site.state == "pending"
    site.nodes.tick(now_ns + 61 * 10**9)
    assert site.jobs.forgotten == [(1, True)]
    assert site.scheduler.state.cluster.pools["big"].starts.next_ns > now_ns


def test_stall_of_the_service_ends_no_node(site: Site) -> None:
    _, connection = joined(site)
    now_ns = time.monotonic_ns()
    site.nodes.tick(now_ns)
    site.nodes.tick(now_ns + 60 * 10**9)
    assert site.state == "up"
    for second in range(60, 75):
        site.nodes.tick(now_ns + second * 10**9)
    assert site.state == "off"
    connection.close()


def _fails(*_: object) -> None:
    raise OverflowError


def test_unhandled_join_frees_name_of_its_node(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(site.scheduler, "node_joined", _fails)
    token, pair = site.submit(), keyfiles.new_pair()
    first = dial(token)
    first.send(join_of(token, pair))
    assert isinstance(site.answer(first), nodes.NodeAccepted)
    second = dial(token, pair)
    second.send(codec.encode(nodes.NodeHeartbeat(token.node, token.epoch)))
    site.pump(lambda: site.jobs.forgotten)
    assert site.state == "off"
    first.close()
    second.close()


def test_unhandled_message_ends_its_node_alone(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    token, connection = joined(site)
    monkeypatch.setattr(site.scheduler, "node_leaving", _fails)
    connection.send(codec.encode(nodes.NodeLeaving(token.node, "the site ends its job")))
    site.pump(lambda: site.jobs.forgotten)
    assert site.state == "off"
    assert site.jobs.forgotten == [(1, True)]
    connection.close()


def test_agent_that_leaves_before_it_joins_frees_its_name_and_delays_next_job(site: Site) -> None:
    token = site.submit()
    connection = dial(token)
    left = nodes.NodeLeaving(token.node, "the site ends its job", ended=True)
    connection.send(codec.encode(left))
    site.pump(lambda: site.jobs.forgotten)
    assert site.state == "off"
    assert "has not joined" in site.scheduler.state.cluster.pools["big"].starts.reason
    connection.close()


def test_message_of_an_agent_is_bounded() -> None:
    gpu = nodes.NodeGpu("u", bandwidth=float("nan"))
    fields = {
        "num_gpus": 2**40, "host": "h" * 300, "reason": "r" * 3_000, "memory_bytes": 2**62,
        "gpus": (gpu,),
    }  # fmt: skip
    join = nodes.JoinNode("1", NODE, 1, "k", "h", 1, 1, 0, (), "s", 1.0, 0.1)
    leaving = nodes.NodeLeaving(NODE, "r")
    for message in (join, leaving):
        for name in set(fields) & set(message.__struct_fields__):
            changed = msgspec.structs.replace(message, **{name: fields[name]})
            fails(ProtocolError, "", codec.from_worker, codec.encode(changed))


def test_silent_node_is_over_its_job_cancelled_and_its_workers_reported(site: Site) -> None:
    _, connection = joined(site)
    command = Command("big-0", ("python", "-m", "x"), (), Path("/log"), Path("/"), 5)
    site.nodes.start_worker(NODE, command, keyfiles.new_pair())
    run = site.answer(connection)
    assert (run.worker, run.argv) == ("big-0", ("-m", "x"))
    assert run.secret_key not in repr(run)
    site.nodes.tick(time.monotonic_ns() + 60 * 10**9)
    assert site.state == "off"
    assert site.jobs.forgotten == [(1, True)]
    (end,) = site.nodes.poll_exits()
    assert (end.name, end.start, end.infrastructure_failure) == ("big-0", 5, True)
    pair = keyfiles.new_pair()
    fails(LaunchError, "has left", site.nodes.start_worker, NODE, command, pair)
    connection.close()


Relayed = tuple[Site, nodes.JoinToken, WorkerTcpConnection]


@pytest.fixture
def relayed(site: Site) -> Iterator[Relayed]:
    """A node that has joined, with one idle worker."""
    token, connection = joined(site)
    now_ns = time.monotonic_ns()
    actions = site.scheduler.tick(now_ns)
    (start,) = (each for each in actions if isinstance(each, core.StartWorker))
    command = Command(start.worker, ("python",), (), Path("/log"), Path("/"), start.start)
    site.nodes.start_worker(NODE, command, keyfiles.new_pair())
    assert isinstance(site.answer(connection), nodes.RunWorker)
    assert site.scheduler.worker_joined(start.worker, start.start, "g07", 17, now_ns)
    yield site, token, connection
    connection.close()


def heartbeat(site: Site, age_ms: int = 0, **changes: object) -> bytes:
    """A heartbeat of the agent, with one of its worker."""
    (worker,) = site.scheduler.state.cluster.workers.values()
    fields = {"name": worker.name, "epoch": 1, "task": 0, "attempt": 0, "rss_bytes": 7}
    fields |= {"start": worker.start, **changes}
    beat = codec.encode(m.Heartbeat(**fields))  # type: ignore[arg-type]
    return codec.encode(nodes.NodeHeartbeat(NODE, 1, [nodes.RelayedBeat(age_ms, beat)]))


def test_relayed_heartbeat_counts_from_its_arrival_at_the_agent(relayed: Relayed) -> None:
    site, _, connection = relayed
    (worker,) = site.scheduler.state.cluster.workers.values()
    for changes in ({"name": "big-9"}, {"start": 1}):
        connection.send(heartbeat(site, **changes))
        assert isinstance(site.answer(connection), m.LeaseRenewed)
        assert worker.report.rss_bytes == 0, "it is of another worker or start"
    worker.heard_ns = 1
    begin_ns = time.monotonic_ns()
    connection.send(heartbeat(site, 3_000))
    assert isinstance(site.answer(connection), m.LeaseRenewed)
    assert worker.report.rss_bytes == 7
    assert begin_ns <= worker.heard_ns + 3 * 10**9 <= time.monotonic_ns()
    site.nodes.forward(worker.name, b"stop")
    assert site.answer(connection) == nodes.ForwardControl(worker.name, b"stop")


def test_what_is_no_heartbeat_is_ignored_and_those_beside_it_are_not(relayed: Relayed) -> None:
    site, _, connection = relayed
    (worker,) = site.scheduler.state.cluster.workers.values()
    message = codec.from_worker(heartbeat(site))
    for body in (b"", b"no message", codec.encode(nodes.NodeHeartbeat(NODE, 1))):
        beats = [nodes.RelayedBeat(0, body), *message.beats, nodes.RelayedBeat(0, body)]
        worker.heard_ns = 0
        connection.send(codec.encode(msgspec.structs.replace(message, beats=beats)))
        assert isinstance(site.answer(connection), m.LeaseRenewed)
        assert worker.heard_ns > 0
        assert (worker.report.rss_bytes, site.state) == (7, "up")


def test_hung_worker_is_lost_while_its_agent_goes_on(relayed: Relayed) -> None:
    site, token, connection = relayed
    (worker,) = site.scheduler.state.cluster.workers.values()
    late = heartbeat(site)
    worker.heard_ns -= site.scheduler.state.limits.silent_ns
    connection.send(codec.encode(nodes.NodeHeartbeat(token.node, token.epoch)))
    assert isinstance(site.answer(connection), m.LeaseRenewed)
    actions = site.scheduler.tick(time.monotonic_ns())
    assert any(isinstance(a, core.KillWorker) and a.worker == worker.name for a in actions)
    connection.send(late)
    answers = [site.answer(connection) for _ in range(2)]
    assert nodes.SignalWorker(worker.name, kill=True) in answers
    assert worker.name not in site.scheduler.state.cluster.workers


def test_end_of_a_worker_is_reported_once_and_only_of_its_start(site: Site) -> None:
    token, connection = joined(site)
    command = Command("big-0", ("python",), (), Path("/log"), Path("/"), 5)
    site.nodes.start_worker(NODE, command, keyfiles.new_pair())
    for start in (4, 5, 5):
        end = nodes.WorkerEnded(token.node, "big-0", start, 17, -9, "signal 9", False)
        connection.send(codec.encode(end))
    connection.send(codec.encode(nodes.NodeHeartbeat(token.node, token.epoch)))
    while not isinstance(site.answer(connection), m.LeaseRenewed):
        pass
    (end,) = site.nodes.poll_exits()
    assert (end.name, end.start, end.pid, end.code) == ("big-0", 5, 17, -9)
    connection.close()


def test_news_of_the_site_reach_the_node_of_that_job_alone(site: Site) -> None:
    site.submit()
    site.jobs.pending = [JobOutcome(1, "Slurm job 7 (PENDING: Priority)"), JobOutcome(9, "other")]
    site.nodes.tick(time.monotonic_ns())
    host = site.scheduler.state.cluster.nodes.hosts[NODE]
    assert host.job.detail == "Slurm job 7 (PENDING: Priority)"
    site.jobs.pending = [JobOutcome(1, "Slurm job 7 (FAILED)", over=True)]
    site.nodes.tick(time.monotonic_ns())
    assert site.state == "off"
    assert "FAILED" in site.scheduler.state.cluster.pools["big"].starts.reason


def test_script_shows_the_token_to_its_standard_input_alone(tmp_path: Path) -> None:
    """Nor does the agent get the credentials by which the job was submitted."""
    token = nodes.JoinToken(NODE, "tcp://h:1", "s" * 40, "p" * 40, "'quoted\"$(id)`", 1, 60.0)
    script = script_of(token)
    program = tmp_path / "python"
    program.write_text('#!/bin/sh\necho "$@"\necho "$SLURM_JWT$NAME"\ncat\n')
    program.chmod(0o700)
    head, _, rest = script.partition("exec ")
    run = tmp_path / "job.sh"
    run.write_text(f"{head}exec {program} -P {rest.partition(' -P ')[2]}")
    environ = {**os.environ, "SLURM_JWT": "credential", "NAME": "value"}
    output = subprocess.run(
        ["sh", run], capture_output=True, text=True, check=True, env=environ
    ).stdout
    arguments, variables, body = output.split("\n", 2)
    assert arguments == "-P -m simenv.node_agent"
    assert variables == "value"
    assert nodes.JoinToken(**json.loads(body)) == token
    assert "quoted" not in repr(token)


def _commands(folder: Path) -> Path:
    """Programs in place of Slurm's, which write down how they are called; return that file."""
    calls = folder / "calls"
    for name, output in (("sbatch", "17;cluster"), ("scancel", ""), ("squeue", "")):
        program = folder / name
        program.write_text(f'#!/bin/sh\necho "{name} $*" >> {calls}\necho "{output}"\n')
        program.chmod(0o700)
    return calls


def _news(jobs: SiteJobs) -> list[JobOutcome]:
    return until(jobs.news, WAIT_S)


@pytest.mark.parametrize("pools", [(POOL,), ()])
def test_jobs_of_killed_service_are_cancelled(tmp_path: Path, pools: tuple[PoolSpec, ...]) -> None:
    """Also if no pool of the next one has jobs."""
    calls = _commands(tmp_path)
    environ = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    folder = tmp_path / "jobs"
    assert site_jobs_of((), folder, 1, environ, ()) is None
    first = site_jobs_of((POOL,), folder, 1, environ, ())
    first.submit(1, "slurm", [str(tmp_path / "sbatch"), "--time=1"], "simenv-a-big", "script")
    assert _news(first) == [JobOutcome(1, "Slurm job 17")]
    (record,) = folder.iterdir()
    left = record.read_bytes()
    first.close()
    assert site_jobs_of((), folder, 2, environ, ()) is None
    record.write_bytes(left)  # as a killed service leaves it
    calls.unlink()
    site_jobs_of(pools, folder, 2, environ, ()).close()
    assert calls.read_text() == "scancel 17\n"
    assert list(folder.iterdir()) == []


def test_replaced_service_that_writes_late_changes_no_record_of_the_next(tmp_path: Path) -> None:
    _commands(tmp_path)
    environ = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    folder, sbatch = tmp_path / "jobs", [str(tmp_path / "sbatch")]
    first = site_jobs_of((POOL,), folder, 1, environ, ())
    second = site_jobs_of((POOL,), folder, 2, environ, ())
    for jobs in (second, first):
        jobs.submit(1, "slurm", sbatch, "simenv-a-big", "script")
        _news(jobs)
    first.close()
    assert [path.name for path in folder.iterdir()] == ["2.json"]
    second.close()


def test_job_gets_neither_secrets_of_pools_nor_unlisted_variables(tmp_path: Path) -> None:
    _commands(tmp_path)
    seen = tmp_path / "seen"
    (tmp_path / "sbatch").write_text(f"#!/bin/sh\nenv > {seen}\necho 17\n")
    environ = {
        "PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_CONF": "/conf", "OMP_X": "1",
        "SLURM_JOB_ID": "4", "SBATCH_ARRAY_INX": "1-9", "AWS_KEY": "a", "OMP_KEY": "b",
    }  # fmt: skip
    jobs = site_jobs_of((POOL,), tmp_path / "jobs", 1, environ, ("OMP_KEY",))
    jobs.submit(1, "slurm", [str(tmp_path / "sbatch")], "simenv-a-big", "script")
    _news(jobs)
    jobs.close()
    names = {line.partition("=")[0] for line in seen.read_text().splitlines()}
    assert names & environ.keys() == {"PATH", "SLURM_CONF", "OMP_X"}
