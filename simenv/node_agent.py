"""Agent of a node that came by a job of the site: joins the service, starts and ends workers.

The job runs `python -P -m simenv.node_agent` with its token on standard input (`JoinToken`). The
agent only dials out. It ends when the service asks for that or has not answered for a lease, and
its workers end with it (parent-death signal); with the agent, the job ends. A worker that was
killed by a signal is reported after SETTLE_S: when a site kills a whole job, the agent dies too,
and no task is charged. Used from one thread.
"""

from __future__ import annotations

import math
import os
import secrets
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import msgspec
import zmq

from launcher.allocation.discover import discover
from launcher.allocation.this_node import this_node
from launcher.base import Allocation, Command, Exit, LaunchError
from launcher.process.children import LocalLauncher
from simenv import process
from simenv._version import __version__
from simenv.config.paths import worker_environ
from simenv.errors import SimenvError
from simenv.wire import codec, keyfiles
from simenv.wire.messages import nodes
from simenv.wire.messages.client import Heartbeat, LeaseRenewed
from simenv.wire.transport.sockets import PeerKind
from simenv.wire.transport.zmq_transport import WorkerTcpConnection, ZmqListener

BEAT_S = 1.0  # the shortest interval
BEATS = 7.5  # heartbeats in one lease, as those of an idle worker
LEAST_BEATS = 3  # in one lease, however many workers the service has
POLL_S = 0.05  # between two looks at the workers
JOIN_S = 30.0  # for the service to accept the token
SETTLE_S = 1.5
GRACE_S = 3.0  # for workers to end
KEEP_S = 3_600.0  # between two times at which the files of the agent are touched
MOST_MESSAGES = 1_000  # of workers in one pass: none of them can keep the agent from its own
MOST_WAITING = 100  # control messages for a worker before its first heartbeat
_TOKEN_BYTES = 2**16


class HeartbeatRelay:
    """Control connections of the node's workers. Their leases are renewed here: an agent that does
    not hear from the service ends, and they with it."""

    def __init__(self, folder: Path, epoch: int) -> None:
        """`folder`: of the socket, mode 0700. Raises SimenvError, zmq.ZMQError."""
        pair = keyfiles.new_pair()
        self.public_key = pair.public
        self.is_busy = False  # a worker ran a task at its last heartbeat
        self._listener = ZmqListener(folder, pair)
        self._epoch = epoch
        self.renew(0)
        self._peers: dict[str, bytes] = {}
        self._beats: dict[str, tuple[float, Heartbeat, bytes]] = {}  # since the last `take`
        self._waiting: dict[str, list[bytes]] = {}  # for workers without a heartbeat yet

    def renew(self, grants: int) -> None:
        """Set the number of chunks in answers to workers, as the service's newest answer has it."""
        renewed = LeaseRenewed(self._epoch, longest_s=BEAT_S, grants=grants)
        self._renewed = codec.encode(renewed)

    def receive(self, starts: Mapping[str, int]) -> None:
        """Receive and answer the heartbeats of workers. `starts`: of those that run. No peer can
        take over the connection of another one."""
        now_s = time.monotonic()
        for _ in range(MOST_MESSAGES):
            received = self._listener.receive()
            if received is None:
                return
            kind, peer, body, _ = received
            with suppress(SimenvError):
                beat = codec.from_worker(body)
                if not isinstance(beat, Heartbeat) or kind is not PeerKind.WORKER:
                    continue
                if starts.get(beat.name) != beat.start:
                    continue
                if self._peers.setdefault(beat.name, peer) == peer:
                    self._beats[beat.name] = now_s, beat, body
                    for each in (self._renewed, *self._waiting.pop(beat.name, ())):
                        self._listener.send(PeerKind.WORKER, peer, each)

    def take(self) -> list[nodes.RelayedBeat]:
        """Return the newest heartbeat of each worker since the last call."""
        beats, self._beats = self._beats.values(), {}
        now_s = time.monotonic()
        self.is_busy = any(beat.task for _, beat, _ in beats)
        return [nodes.RelayedBeat(round(1000 * (now_s - at_s)), body) for at_s, _, body in beats]

    def send(self, message: nodes.ForwardControl) -> None:
        """Forward a message to a worker that runs, if need be after its first heartbeat."""
        peer = self._peers.get(message.worker)
        if peer is not None:
            self._listener.send(PeerKind.WORKER, peer, message.body)
            return
        waiting = self._waiting.setdefault(message.worker, [])
        if len(waiting) < MOST_WAITING:
            waiting.append(message.body)

    def forget(self, worker: str) -> None:
        """Forget a worker that has ended."""
        self._peers.pop(worker, None)
        self._beats.pop(worker, None)
        self._waiting.pop(worker, None)

    def keep_socket(self) -> None:
        """Bind the socket again if it was removed. Raises SimenvError, OSError, zmq.ZMQError."""
        self._listener.keep_sockets()

    def close(self) -> None:
        self._listener.close()


class NodeAgent:
    """One agent; `run` returns the exit code of the job."""

    def __init__(self, token: nodes.JoinToken, node: Allocation, folder: Path) -> None:
        """`node`: this node alone, as the job has it. `folder`: of the agent, mode 0700."""
        self._token = token
        self._node = node
        self._folder = folder
        self._pair = keyfiles.new_pair()
        self._launcher = LocalLauncher()
        self._starts: dict[str, int] = {}  # workers that run here
        self._settling: list[tuple[float, Exit]] = []
        self._asked_to_end = ""  # by the site
        self._announced = False
        self._lease_s = JOIN_S
        self._least_s, self._longest_s = 0.0, math.inf  # between two heartbeats
        self._heard_s = time.monotonic()
        self._connection = self._connect(keyfiles.KeyPair(token.public_key, token.secret_key))
        self._relay: HeartbeatRelay | None = None  # None: workers send theirs to the service

    def _connect(self, keys: keyfiles.KeyPair) -> WorkerTcpConnection:
        identity = f"{self._token.node}.{secrets.token_hex(4)}".encode()
        return WorkerTcpConnection(self._token.address, self._token.server_key, keys, identity)

    def end_soon(self, number: int) -> None:
        """Note a signal by which the site announces the end of the job."""
        self._asked_to_end = f"the site ends its job ({signal.Signals(number).name})"

    def run(self) -> int:
        """Join, and serve the service until the end. Raises SimenvError."""
        accepted = self._join()
        if accepted is None:
            return 1
        with suppress(SimenvError, zmq.ZMQError, OSError):  # its path may be too long for a socket
            self._relay = HeartbeatRelay(self._folder, self._token.epoch)
        self._write_bootstrap(accepted)
        self._lease_s = accepted.lease_s
        self._connection.close()
        self._connection = self._connect(self._pair)
        process.log_line(f"joined as {self._token.node}")
        sent_s = kept_s = -math.inf
        while True:
            now_s = time.monotonic()
            if now_s >= kept_s + KEEP_S:
                kept_s = now_s
                self._keep_files()
            if now_s >= sent_s + self._interval_s:
                sent_s = now_s
                beats = [] if self._relay is None else self._relay.take()
                self._send(nodes.NodeHeartbeat(self._token.node, self._token.epoch, beats))
            if self._asked_to_end and not self._announced:
                self._announced = True
                self._send(nodes.NodeLeaving(self._token.node, self._asked_to_end))
            body = self._connection.receive(POLL_S if self._starts else BEAT_S / 4)
            if self._relay is not None:
                self._relay.receive(self._starts)
            self._report_ends(time.monotonic())
            if self._announced and not (self._starts or self._settling):
                return self._end(self._asked_to_end)
            if body is not None:
                self._heard_s = time.monotonic()
                message = codec.to_node(body)
                if isinstance(message, nodes.EndNode):
                    return self._end(message.reason)
                self._obey(message)
            elif time.monotonic() - self._heard_s > self._lease_s:
                return self._end(f"no message from the service for {self._lease_s:g} s")

    @property
    def _interval_s(self) -> float:
        """Seconds between two heartbeats."""
        is_busy = self._relay is not None and self._relay.is_busy
        idle_s = 0.0 if is_busy else self._lease_s / BEATS
        return max(BEAT_S, min(max(idle_s, self._least_s), self._longest_s))

    def _join(self) -> nodes.NodeAccepted | None:
        """Present the token; None if the service does not accept it."""
        token, (node,) = self._token, self._node.nodes
        ends = [s for s in (self._node.end_s, time.time() + token.time_s - process.age_s()) if s]
        gpus = tuple(
            nodes.NodeGpu(g.uuid, g.model, g.memory_bytes, g.capability, g.bandwidth)
            for g in node.gpu_details
        )
        left_s = min(ends) - time.time()
        join = nodes.JoinNode(
            __version__,
            token.node,
            token.epoch,
            self._pair.public,
            os.uname().nodename,
            node.slots,
            node.memory_bytes,
            node.gpus,
            gpus,
            self._node.source,
            left_s,
            process.age_s(),
        )
        self._send(join)
        deadline_s = time.monotonic() + JOIN_S
        while (left_s := deadline_s - time.monotonic()) > 0 and not self._asked_to_end:
            body = self._connection.receive(min(left_s, BEAT_S))
            if body is None:
                continue
            message = codec.to_node(body)
            if isinstance(message, nodes.NodeAccepted):
                return message
            if isinstance(message, nodes.EndNode):
                process.log_line(f"not accepted: {message.reason}")
                return None
        process.log_line(
            self._asked_to_end
            or f"the service at {token.address} has not accepted the token in {JOIN_S:.0f} s"
        )
        return None

    def _write_bootstrap(self, accepted: nodes.NodeAccepted) -> None:
        token = self._token
        keyfiles.write_private(
            self._folder / "worker.json",
            keyfiles.WorkerBootstrap(
                *(keyfiles.KEYS_FORMAT, accepted.service_node, accepted.sockets),
                *(accepted.results_token, token.address, token.server_key),
                epoch=token.epoch,
                agent_sockets="" if self._relay is None else str(self._folder),
                agent_key="" if self._relay is None else self._relay.public_key,
            ),
        )
        keyfiles.worker_keys_folder(self._folder / "worker.json").mkdir(mode=0o700)

    def _keep_files(self) -> None:
        """Set the times of the agent's files to now: a cleaner of temporary folders removes old
        ones, and no worker could start here any more."""
        with suppress(OSError, SimenvError, zmq.ZMQError):
            if self._relay is not None:
                self._relay.keep_socket()
            for path in (self._folder, *self._folder.rglob("*")):
                os.utime(path)

    def _send(self, message: nodes.FromNode) -> None:
        self._connection.send(codec.encode(message))

    def _obey(self, message: nodes.ToNode | LeaseRenewed) -> None:
        if isinstance(message, nodes.RunWorker):
            self._start(message)
        elif isinstance(message, nodes.SignalWorker) and message.kill:
            self._launcher.kill(message.worker)
        elif isinstance(message, nodes.SignalWorker):
            self._launcher.terminate(message.worker)
        elif isinstance(message, nodes.ForwardControl):
            if self._relay is not None and message.worker in self._starts:
                self._relay.send(message)
        elif isinstance(message, LeaseRenewed):
            self._least_s = min(message.interval_s, self._lease_s / LEAST_BEATS)
            self._longest_s = message.longest_s
            if self._relay is not None:
                self._relay.renew(message.grants)

    def _start(self, message: nodes.RunWorker) -> None:
        name, start = message.worker, message.start
        log = Path(message.log)
        if not os.access(log.parent, os.W_OK):  # the home is not shared
            log = self._folder / log.name
        try:
            path = keyfiles.worker_key_path(self._folder / "worker.json", name, start)
            pair = message.public_key, message.secret_key
            key = keyfiles.WorkerKey(keyfiles.KEYS_FORMAT, name, start, *pair)
            keyfiles.create_private(path, key)
            argv = (sys.executable, *message.argv)
            environ = {**dict(worker_environ(os.environ)), **dict(message.environ)}
            command = Command(name, argv, tuple(environ.items()), log, self._folder, start)
            self._launcher.start(command)
            self._starts[name] = start
        except (SimenvError, LaunchError) as error:
            self._report(Exit(name, 0, 1, str(error), start))

    def _report_ends(self, now_s: float) -> None:
        for end in self._launcher.poll_exits():
            self._starts.pop(end.name, None)
            if self._relay is not None:
                self._relay.forget(end.name)
            with suppress(OSError):
                keyfiles.worker_key_path(self._folder / "worker.json", end.name, end.start).unlink(
                    missing_ok=True
                )
            settle_s = SETTLE_S if end.code < 0 else 0.0
            self._settling.append((now_s + settle_s, end))
        waiting = [] if self._asked_to_end else [e for e in self._settling if e[0] > now_s]
        for entry in self._settling:
            if entry not in waiting:
                self._report(entry[1])
        self._settling = waiting

    def _report(self, end: Exit) -> None:
        by_site = end.infrastructure_failure or (bool(self._asked_to_end) and end.code < 0)
        self._send(
            nodes.WorkerEnded(
                *(self._token.node, end.name, end.start, end.pid, end.code, end.reason), by_site
            )
        )

    def _end(self, reason: str) -> int:
        process.log_line(f"ending: {reason}")
        for name in self._launcher.running():
            self._launcher.terminate(name)
        deadline_s = time.monotonic() + GRACE_S
        while self._launcher.running() and time.monotonic() < deadline_s:
            self._launcher.poll_exits()
            time.sleep(POLL_S)
        self._launcher.close()
        with suppress(SimenvError):
            self._send(nodes.NodeLeaving(self._token.node, reason, ended=True))
        self._connection.close()
        if self._relay is not None:
            self._relay.close()
        return 0


def own_node() -> Allocation:
    """Return this node alone, as the job of this process has it. Raises AllocationError."""
    local = this_node()
    found = discover(os.environ, local=local)
    own = [n for n in found.nodes if n.name.partition(".")[0] == local.name.partition(".")[0]]
    return Allocation((*own, *found.nodes)[:1], found.source, found.end_s)


def main() -> int:
    """Read the token, and run the agent in a folder of its own, which is removed at the end."""
    token = msgspec.json.decode(sys.stdin.buffer.read(_TOKEN_BYTES), type=nodes.JoinToken)
    folder = Path(tempfile.mkdtemp(prefix="simenv-node-"))
    try:
        agent = NodeAgent(token, own_node(), folder)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
            signal.signal(number, lambda received, _frame: agent.end_soon(received))
        return agent.run()
    except (SimenvError, LaunchError) as error:
        process.log_line(f"cannot serve as {token.node}: {error}")
        return 1
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
