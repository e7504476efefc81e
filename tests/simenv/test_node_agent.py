"""The agent of a node that came by a job."""

import os
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from waiting import until

from launcher.base import Allocation, Node
from simenv import node_agent
from simenv.node_agent import BEAT_S, HeartbeatRelay, NodeAgent
from simenv.wire import codec, keyfiles
from simenv.wire.messages import nodes
from simenv.wire.messages.client import Heartbeat, LeaseRenewed, StopWorker
from simenv.wire.transport.zmq_transport import ZmqConnection, connect_worker


@contextmanager
def agent_in(folder: Path) -> Iterator[NodeAgent]:
    server, own = keyfiles.new_pair(), keyfiles.new_pair()
    token = nodes.JoinToken(
        "big:1", "tcp://127.0.0.1:9", server.public, own.public, own.secret, 1, 600.0
    )
    agent = NodeAgent(token, Allocation((Node("here", 2, 2**30),), "a job", 0.0), folder)
    yield agent
    agent._connection.close()
    agent._launcher.close()


@pytest.mark.parametrize(
    ("interval_s", "longest_s", "expected_s"),
    [(0.0, 9.0, 2.0), (4.0, 9.0, 4.0), (60.0, 60.0, 5.0), (0.0, 1.2, 1.2), (0.0, 0.1, 1.0)],
)
def test_heartbeats_come_as_often_as_the_service_says(
    tmp_path: Path, interval_s: float, longest_s: float, expected_s: float
) -> None:
    with agent_in(tmp_path) as agent:
        agent._lease_s = 15.0
        agent._obey(LeaseRenewed(1, interval_s, longest_s))
        assert agent._interval_s == expected_s


WAIT_S = 30.0
STARTS = {"big-0": 5}


@pytest.fixture
def relay(tmp_path: Path) -> Iterator[HeartbeatRelay]:
    tmp_path.chmod(0o700)
    with closing(HeartbeatRelay(tmp_path, 3)) as result:
        yield result


@pytest.fixture
def bootstrap(relay: HeartbeatRelay, tmp_path: Path) -> keyfiles.WorkerBootstrap:
    """That of a worker whose service is on another node."""
    result = keyfiles.WorkerBootstrap(
        *(keyfiles.KEYS_FORMAT, "elsewhere", "/nowhere", "token", "tcp://127.0.0.1:9"),
        agent_sockets=str(tmp_path),
        agent_key=relay.public_key,
    )
    assert result.control.node == os.uname().nodename
    return result


@pytest.fixture
def control(bootstrap: keyfiles.WorkerBootstrap) -> Iterator[ZmqConnection]:
    """The control connection of a worker."""
    with closing(connect_worker(bootstrap.control, b"big-0.5!")) as result:
        yield result


def answered(relay: HeartbeatRelay, control: ZmqConnection) -> bytes:
    """The next message to the worker."""
    return until(lambda: relay.receive(STARTS) or control.receive(0.01), WAIT_S)


def beat(**changes: object) -> bytes:
    fields = {"name": "big-0", "epoch": 3, "task": 0, "attempt": 0, "rss_bytes": 7, "start": 5}
    return codec.encode(Heartbeat(**{**fields, **changes}))  # type: ignore[arg-type]


def test_agent_renews_the_lease_and_sends_the_newest_heartbeat_once(
    relay: HeartbeatRelay, control: ZmqConnection
) -> None:
    for rss_bytes in (1, 2):
        control.send(beat(rss_bytes=rss_bytes))
        assert codec.to_worker(answered(relay, control)) == LeaseRenewed(3, longest_s=BEAT_S)
    (sent,) = relay.take()
    assert sent.body == beat(rss_bytes=2)
    relay.renew(9)  # chunks that the service has sent
    control.send(beat(rss_bytes=2))
    assert codec.to_worker(answered(relay, control)) == LeaseRenewed(3, 0.0, BEAT_S, 9)
    relay.take()
    assert 0 <= sent.age_ms < 1000 * WAIT_S
    assert relay.take() == []  # nothing is sent for a worker that hangs


def test_agent_of_a_busy_worker_sends_heartbeats_as_often_as_the_worker(
    relay: HeartbeatRelay, control: ZmqConnection
) -> None:
    control.send(beat(task=4))
    answered(relay, control)
    relay.take()
    assert relay.is_busy
    relay.take()
    assert not relay.is_busy


def test_control_messages_reach_the_worker(relay: HeartbeatRelay, control: ZmqConnection) -> None:
    control.send(beat())
    answered(relay, control)
    relay.send(nodes.ForwardControl("big-0", codec.encode(StopWorker("enough"))))
    assert codec.to_worker(answered(relay, control)) == StopWorker("enough")


def test_early_control_message_is_delivered(relay: HeartbeatRelay, control: ZmqConnection) -> None:
    relay.send(nodes.ForwardControl("big-0", codec.encode(StopWorker("enough"))))
    control.send(beat())
    assert codec.to_worker(answered(relay, control)) == LeaseRenewed(3, longest_s=BEAT_S)
    assert codec.to_worker(answered(relay, control)) == StopWorker("enough")
    for name in ("big-1", "big-1"):
        relay.send(nodes.ForwardControl(name, b"stop"))
        relay.forget(name)
    assert relay._waiting == {}


def test_no_peer_takes_over_the_connection_of_a_worker(
    relay: HeartbeatRelay, control: ZmqConnection, bootstrap: keyfiles.WorkerBootstrap
) -> None:
    control.send(beat())
    answered(relay, control)
    with closing(connect_worker(bootstrap.control, b"big-1.6!")) as other:
        other.send(beat(rss_bytes=8))
        control.send(beat(rss_bytes=9))
        answered(relay, control)
        relay.send(nodes.ForwardControl("big-0", codec.encode(StopWorker("enough"))))
        assert codec.to_worker(answered(relay, control)) == StopWorker("enough")
        (sent,) = relay.take()
        assert sent.body == beat(rss_bytes=9)
        assert other.receive(0.0) is None


def test_flood_of_messages_is_read_in_parts(
    relay: HeartbeatRelay, control: ZmqConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node_agent, "MOST_MESSAGES", 2)
    for rss_bytes in range(5):
        control.send(beat(rss_bytes=rss_bytes))
    relay._listener.wait(WAIT_S)
    time.sleep(0.2)
    relay.receive(STARTS)
    assert [each.body for each in relay.take()] == [beat(rss_bytes=1)]


def test_agent_keeps_its_files_and_binds_a_removed_socket_again(
    tmp_path: Path, relay: HeartbeatRelay, bootstrap: keyfiles.WorkerBootstrap
) -> None:
    file = tmp_path / "worker.json"
    file.touch()
    os.utime(file, (1, 1))
    (tmp_path / "worker.sock").unlink()
    with agent_in(tmp_path) as agent:
        agent._relay = relay
        agent._keep_files()
    assert time.time() - file.stat().st_mtime < WAIT_S
    with closing(connect_worker(bootstrap.control, b"big-0.5!")) as control:
        control.send(beat())
        answered(relay, control)


def test_heartbeats_of_other_starts_and_other_bytes_are_ignored(
    relay: HeartbeatRelay, control: ZmqConnection
) -> None:
    for body in (b"no message", beat(start=4), beat(name="big-1"), beat()):
        control.send(body)
    answered(relay, control)
    assert [each.body for each in relay.take()] == [beat()]
    relay.forget("big-0")
    assert relay.take() == []
