"""Nodes that come by jobs of the site: their jobs, their agents and the workers there.

`SiteJobs` calls the commands of the batch system in a thread, `JobNodes` speaks with the agents.
Invariants: the token of a job is accepted once, and not after its job is over; whatever happens to
a job, the end of each of its workers is reported, so that their names are free again. Jobs that an
earlier service has left are cancelled at the start: their tokens are of no use.
"""

from __future__ import annotations

import logging
import math
import queue
import shlex
import sys
import threading
import time
from collections.abc import Callable, Container, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import msgspec

from launcher import batch
from launcher.allocation.this_node import this_node
from launcher.base import AllocationError, Command, Exit, Gpu, LaunchError, Node
from simenv._version import __version__
from simenv.config import Config
from simenv.config.paths import SECRETS, worker_environ
from simenv.errors import DECODE_ERRORS, ProtocolError
from simenv.files import private_folder, write_atomic
from simenv.model import PoolSpec
from simenv.scheduler.core import MEMORY_SHARE, Action, EndJob, SubmitJob
from simenv.scheduler.scaling.jobs import workers_of
from simenv.scheduler.scheduler import Scheduler
from simenv.scheduler.state.scheduler_state import SUSPENDED_NS
from simenv.service.workers.endpoints import WorkerEndpoint, reported_state
from simenv.wire import codec, keyfiles
from simenv.wire.keyfiles import KeyPair
from simenv.wire.messages import nodes
from simenv.wire.messages.client import Heartbeat, LeaseRenewed
from simenv.wire.rights import Identity, Role
from simenv.wire.transport.sockets import PeerKind
from simenv.wire.transport.zmq_transport import Listener

LIST_S = 5.0  # between two lists of the site's jobs
UNLISTED_S = 15.0  # age from which a job that is not listed is over
FIRST_BLOCK = 1_000_000  # of nodes of jobs: the ranks of a worker never leave one
JOIN_S = 60.0  # in which the agent of a job that runs must join
MAX_SLOTS = 4_096
MAX_LEFT_S = 366 * 86_400.0
KEY_CHARS = 40  # of a public key, in base 85
# Variables of the commands of a batch system besides those of a worker. A job gets its submitter's
# environment.
COMMAND_NAMES = ("SLURM_CONF", "SLURM_JWT", "KRB5CCNAME")
_END_OF_TOKEN = "END_OF_TOKEN"

log = logging.getLogger("simenv.service")


def nodes_of_jobs(pools: Sequence[PoolSpec], local: Node | None = None) -> tuple[Node, ...]:
    """Return the nodes that may come by jobs of the pools, as the jobs request them. Memory that is
    not requested is assumed to be as for the slots of this machine."""
    results: list[Node] = []
    for pool in pools:
        jobs = pool.jobs
        if jobs is None:
            continue
        local = local or this_node()
        memory = jobs.memory_bytes or local.memory_bytes // local.slots * jobs.slots
        count = -(-pool.max // workers_of(pool, jobs.slots, jobs.gpus))
        results += [
            Node(
                f"{pool.name}:{number}",
                jobs.slots,
                int(MEMORY_SHARE * memory),
                jobs.gpus,
                (jobs.partition,) if jobs.partition else (),
                block=FIRST_BLOCK + len(results) + number,
                pool=pool.name,
            )
            for number in range(1, count + 1)
        ]
    return tuple(results)


class RecordedJob(msgspec.Struct, frozen=True):
    """A submitted job, as the file of jobs has it."""

    serial: int
    system: str
    job: str
    name: str


class JobOutcome(msgspec.Struct, frozen=True):
    """News of a job. `over`: it has ended, or was not submitted; `withdrawn`: by the site or a
    user."""

    serial: int
    detail: str
    over: bool = False
    withdrawn: bool = False
    runs: bool = False


class SiteJobs:
    """Jobs of this service at the site's batch systems. Commands run in a thread; `news` and the
    requests are for the loop's thread."""

    def __init__(self, folder: Path, epoch: int, environ: Mapping[str, str]) -> None:
        """`folder`: a file there has the jobs of this start, for the next service, on whatever
        node; a service that was replaced, and writes late, changes no other file."""
        self._folder, self._record = folder, folder / f"{epoch}.json"
        names = [name for name in COMMAND_NAMES if name in environ]
        allowed = dict(worker_environ(environ)) | {name: environ[name] for name in names}
        self._environ = batch.environ_for_jobs(allowed)
        self._jobs: dict[int, RecordedJob] = {}
        self._born_s: dict[int, float] = {}
        self._requests = queue.SimpleQueue[Callable[[], None] | None]()
        self._news = queue.SimpleQueue[JobOutcome]()
        self._thread = threading.Thread(target=self._run, name="site-jobs", daemon=True)
        self._requests.put(self._cancel_left)
        self._thread.start()

    def submit(self, serial: int, system: str, argv: list[str], name: str, script: str) -> None:
        """Submit a job; its news come under `serial`."""
        self._requests.put(lambda: self._submit(serial, system, argv, name, script))

    def forget(self, serial: int, *, cancel: bool) -> None:
        """Return no more news of a job; `cancel`: it may not have ended."""
        self._requests.put(lambda: self._forget(serial, cancel=cancel))

    def news(self) -> list[JobOutcome]:
        """Return the news since the last call."""
        results = []
        with suppress(queue.Empty):
            while True:
                results.append(self._news.get_nowait())
        return results

    def close(self) -> None:
        """Cancel all jobs, and end the thread."""
        self._requests.put(self._cancel_all)
        self._requests.put(None)
        self._thread.join(batch.TIMEOUT_S)

    def _run(self) -> None:
        next_list_s = 0.0
        while True:
            try:
                request = self._requests.get(timeout=LIST_S / 5)
                if request is None:
                    return
                request()
            except queue.Empty:
                if self._jobs and time.monotonic() >= next_list_s:
                    self._list()
                    next_list_s = time.monotonic() + LIST_S

    def _submit(self, serial: int, system: str, argv: list[str], name: str, script: str) -> None:
        title = batch.SYSTEMS[system].title
        try:
            output = batch.call(argv, self._environ, script).strip()
        except AllocationError as error:
            self._news.put(JobOutcome(serial, str(error), over=True))
            return
        job = output.splitlines()[-1].partition(";")[0] if output else ""
        self._jobs[serial] = RecordedJob(serial, system, job, name)
        self._born_s[serial] = time.monotonic()
        self._write()
        self._news.put(JobOutcome(serial, f"{title} job {job}"))

    def _forget(self, serial: int, *, cancel: bool) -> None:
        job = self._jobs.pop(serial, None)
        if job is None:
            return
        if cancel:
            self._cancel([job])
        self._write()

    def _cancel_all(self) -> None:
        self._cancel(list(self._jobs.values()))
        self._jobs.clear()
        self._write()

    def _cancel_left(self) -> None:
        for record in records_of(self._folder):
            with suppress(OSError, *DECODE_ERRORS):
                left = msgspec.json.decode(record.read_bytes(), type=list[RecordedJob])
                log.info("jobs of an earlier service are cancelled: %s", record.name)
                self._cancel(left)
            with suppress(OSError):
                record.unlink(missing_ok=True)

    def _cancel(self, jobs: list[RecordedJob]) -> None:
        for name, system in batch.SYSTEMS.items():
            ids = [job.job for job in jobs if job.system == name and job.job]
            if ids:
                try:
                    batch.call(system.cancel(ids), self._environ)
                except AllocationError as error:  # most of them have ended already
                    log.info("%s", error)

    def _list(self) -> None:
        for name, system in batch.SYSTEMS.items():
            jobs = [job for job in self._jobs.values() if job.system == name]
            if not jobs:
                continue
            argv = system.listed([j.job for j in jobs], sorted({j.name for j in jobs}))
            try:
                output = batch.call(argv, self._environ, unlisted=system.unlisted)
                listed = {batch.job_number(each.job): each for each in system.parse(output)}
            except AllocationError as error:  # the site's controller may be away
                log.warning("%s", error)
                continue
            for job in jobs:
                self._tell(job, system.title, listed)

    def _tell(self, job: RecordedJob, title: str, listed: dict[str, batch.ListedJob]) -> None:
        found = listed.get(batch.job_number(job.job))
        if found is None:
            if time.monotonic() - self._born_s[job.serial] < UNLISTED_S:
                return
            found = batch.ListedJob(job.job, batch.JobPhase.OVER, "not listed any more")
        is_over = found.phase is batch.JobPhase.OVER
        text = f"{title} job {job.job} ({found.detail})"
        runs = found.phase is batch.JobPhase.RUNNING
        self._news.put(JobOutcome(job.serial, text, is_over, found.withdrawn, runs))

    def _write(self) -> None:
        body = msgspec.json.encode(list(self._jobs.values()))
        try:
            if self._jobs:
                write_atomic(self._record, body)
            else:
                self._record.unlink(missing_ok=True)
        except OSError as error:
            log.warning("cannot write %s: %s", self._record, error.strerror)


def records_of(folder: Path) -> list[Path]:
    """Return the files of jobs that services have left in a folder."""
    return sorted(folder.glob("*.json"))


def site_jobs_of(
    pools: Sequence[PoolSpec],
    folder: Path,
    epoch: int,
    environ: Mapping[str, str],
    secrets: Container[str],
) -> SiteJobs | None:
    """Return the jobs at the site's batch systems; None if no pool has jobs and no earlier service
    has left any. `folder`: of the files of jobs. `epoch`: of this start. `secrets`: variables of
    `environ` that no job gets. Raises ConfigError."""
    if not (any(pool.jobs is not None for pool in pools) or records_of(folder)):
        return None
    environ = {k: v for k, v in environ.items() if k not in secrets}
    return SiteJobs(private_folder(folder), epoch, environ)


class JobNode(msgspec.Struct, eq=False):
    """Job and agent of one node, from the submission to the end of the job."""

    serial: int
    token_key: str  # public key, accepted until the agent has joined; "": not any more
    own_key: str = ""  # public key of the agent
    facts: nodes.JoinNode | None = None
    peer: bytes = b""  # of the agent
    runs_s: float = math.inf  # since when its job is listed as running
    heard_s: float = math.inf  # the last message since it has joined
    workers: dict[str, int] = msgspec.field(default_factory=dict)  # starts of those that run


class JobNodes:
    """Nodes by jobs, for `ActionExecutor`, `WorkerProcesses` and the event loop. Used from the
    loop's thread."""

    def __init__(
        self,
        config: Config,
        scheduler: Scheduler,
        listener: Listener,
        endpoint: WorkerEndpoint,
        site: SiteJobs,
        logs: Path,
    ) -> None:
        """`logs`: folder of the logs of jobs and workers."""
        self._config = config
        self._pools = {pool.name: pool for pool in config.pools}
        self._scheduler = scheduler
        self._listener = listener
        self._endpoint = endpoint
        self._site = site
        self._logs = logs
        self._nodes: dict[str, JobNode] = {}
        self._serial = 0
        self._exits: list[Exit] = []
        self._ticked_ns = 0

    def __contains__(self, node: str) -> bool:
        return node in self._nodes

    # --- actions of the scheduler ---------------------------------------------------------------

    def submit(self, action: SubmitJob) -> None:
        """Submit the job of a node, with a token for it."""
        jobs = self._pools[action.pool].jobs
        listener = self._endpoint.listener
        assert jobs is not None
        assert listener is not None
        self._serial += 1
        pair = keyfiles.new_pair()
        listener.admit_key(pair.public, Identity(action.node, Role.WORKER))
        self._nodes[action.node] = JobNode(self._serial, pair.public)
        token = nodes.JoinToken(
            action.node,
            self._endpoint.address,
            self._endpoint.server_key,
            pair.public,
            pair.secret,
            self._scheduler.state.epoch,
            jobs.time_s,
        )
        name = f"simenv-{self._config.name}-{action.pool}"
        resources = batch.JobResources(
            *(jobs.time_s, jobs.slots, jobs.memory_bytes, jobs.gpus),
            *(jobs.partition, jobs.account, jobs.extra),
        )
        argv = batch.SYSTEMS[jobs.system].submit(name, resources, self._log_of(action.node))
        self._site.submit(self._serial, jobs.system, argv, name, script_of(token))

    def end(self, action: EndJob) -> None:
        """End the job of a node: its agent does that, or it is cancelled."""
        node = self._nodes.get(action.node)
        if node is None:
            return
        if node.peer:
            self._send(node, nodes.EndNode(action.reason))
        else:
            self._drop(action.node, cancel=True)

    # --- messages of agents ---------------------------------------------------------------------

    def receive(self, peer: bytes, identity: Identity, message: nodes.FromNode) -> list[Action]:
        """Handle a message of an agent; a message that names another node is ignored. One that
        cannot be handled ends its node alone."""
        name = message.node
        node = self._nodes.get(name)
        if identity.owner != name or node is None:
            self._reply(peer, nodes.EndNode("this node is not expected"))
            return []
        try:
            return self._handle(peer, name, node, message)
        except Exception:  # whatever an agent sends: it is a process of a job
            text = f"a {type(message).__name__} of its agent cannot be handled"
            log.exception("%s: %s", name, text)
            return self._lost(name, text) if name in self._nodes else []

    def _handle(
        self, peer: bytes, name: str, node: JobNode, message: nodes.FromNode
    ) -> list[Action]:
        now_ns = time.monotonic_ns()
        if isinstance(message, nodes.JoinNode):
            self._accept(peer, node, message)
            return []
        if node.facts is not None:
            node.heard_s = now_ns / 1e9
        if isinstance(message, nodes.NodeHeartbeat):
            return self._heartbeat(peer, message, node, now_ns)
        if isinstance(message, nodes.WorkerEnded):
            if node.workers.get(message.worker) == message.start:
                del node.workers[message.worker]
                end = message.worker, message.pid, message.code, message.reason, message.start
                self._exits.append(Exit(*end, message.infrastructure_failure))
            return []
        if message.ended:
            return self._lost(name, message.reason, cancel=False)
        return self._scheduler.node_leaving(name, message.reason, now_ns)

    def _accept(self, peer: bytes, node: JobNode, message: nodes.JoinNode) -> None:
        """Accept a token, once: from now on the agent's own key counts."""
        listener, state = self._endpoint.listener, self._scheduler.state
        assert listener is not None
        problem = ""
        if message.version != __version__:
            problem = f"version {message.version} of simenv there, {__version__} here"
        elif message.epoch != state.epoch or node.facts is not None:
            problem = "this token has been used"
        elif not 1 <= message.slots <= MAX_SLOTS:
            problem = f"{message.slots} slots"
        elif not 0.0 < message.left_s <= MAX_LEFT_S:  # each job has an end
            problem = f"{message.left_s:g} s until its end: is the clock of {message.host} right?"
        elif len(message.public_key) != KEY_CHARS or listener.is_admitted(message.public_key):
            problem = "its key cannot be used"
        if problem:
            self._reply(peer, nodes.EndNode(problem))
            return
        node.facts, node.own_key = message, message.public_key
        node.heard_s = time.monotonic()
        self._reply(
            peer,
            nodes.NodeAccepted(self._config.worker_lease_s, *self._endpoint.for_agents),
        )
        identity = Identity(message.node, Role.WORKER)
        listener.admit_key(message.public_key, identity)
        listener.revoke_key(node.token_key, b"")
        node.token_key = ""

    def _heartbeat(
        self, peer: bytes, message: nodes.NodeHeartbeat, node: JobNode, now_ns: int
    ) -> list[Action]:
        name, facts = message.node, node.facts
        if facts is None or node.peer not in (b"", peer):
            self._reply(peer, nodes.EndNode("this node has not joined"))
            return []
        state = self._scheduler.state
        intervals_s = state.cluster.heartbeat_intervals_s
        self._reply(peer, LeaseRenewed(state.epoch, *intervals_s, state.dispatch.grants))
        if node.peer:
            return self._relayed(node, message.beats, now_ns)
        node.peer = peer
        template = state.cluster.nodes.hosts[name].node
        joined = replace(
            template,
            slots=facts.slots,
            memory_bytes=int(MEMORY_SHARE * facts.memory_bytes) or template.memory_bytes,
            gpus=facts.num_gpus,
            gpu_details=tuple(Gpu(*msgspec.structs.astuple(gpu)) for gpu in facts.gpus),
        )
        end_ns = now_ns + round(facts.left_s * 1e9)
        source = f"{facts.source} on {facts.host}"
        log.info("agent of %s was %.1f s old when it joined", name, facts.age_s)
        return self._scheduler.node_joined(joined, source, end_ns, now_ns)

    def _relayed(
        self, node: JobNode, beats: Sequence[nodes.RelayedBeat], now_ns: int
    ) -> list[Action]:
        """Handle heartbeats of the node's workers; those of others are ignored, and what is none:
        the actions of those before it must not be lost."""
        actions: list[Action] = []
        for each in beats:
            try:
                beat = codec.from_worker(each.body)
            except ProtocolError:
                continue
            if not isinstance(beat, Heartbeat) or node.workers.get(beat.name) != beat.start:
                continue
            state, age_ns = reported_state(beat), each.age_ms * 1_000_000
            alive, ends = self._scheduler.heartbeat_received(state, now_ns, age_ns)
            actions += ends
            if not alive:  # it was lost, and its end has not reached it
                self._send(node, nodes.SignalWorker(beat.name, kill=True))
        return actions

    # --- time -----------------------------------------------------------------------------------

    def tick(self, now_ns: int) -> list[Action]:
        """Handle the site's news, and nodes whose agents are silent."""
        actions: list[Action] = []
        if self._ticked_ns and now_ns - self._ticked_ns > SUSPENDED_NS:
            for each in self._nodes.values():  # their messages could not be received
                each.heard_s = max(each.heard_s, now_ns / 1e9)
                each.runs_s = max(each.runs_s, now_ns / 1e9)
        self._ticked_ns = now_ns
        all_news = self._site.news()
        by_serial = {node.serial: name for name, node in self._nodes.items()} if all_news else {}
        for news in all_news:
            name = by_serial.get(news.serial, "")
            node = self._nodes.get(name)
            if node is None or node.serial != news.serial:
                continue
            if not news.over:
                if news.runs:
                    node.runs_s = min(node.runs_s, now_ns / 1e9)
                actions += self._scheduler.job_listed(name, news.detail)
            else:
                actions += self._lost(name, news.detail, blame=not news.withdrawn, cancel=False)
        now_s, limit_s = now_ns / 1e9, self._config.silent_s
        lost = [
            (name, node)
            for name, node in self._nodes.items()
            if now_s - node.heard_s > limit_s or now_s - node.runs_s > JOIN_S
        ]
        for name, node in lost:
            silent_s, late_s = now_s - node.heard_s, now_s - node.runs_s
            if silent_s > limit_s:
                actions += self._lost(name, f"its agent is silent for {silent_s:.0f} s")
            elif node.facts is None and late_s > JOIN_S:
                actions += self._lost(name, f"its job runs for {late_s:.0f} s")
        return actions

    def _lost(
        self, name: str, reason: str, *, blame: bool = True, cancel: bool = True
    ) -> list[Action]:
        """End a node whose job or agent is no more. `blame`: the next job is delayed if this node
        has not joined."""
        if not self._scheduler.state.cluster.nodes.hosts[name].is_absent:
            return self._over(name, reason, cancel=cancel)
        self._drop(name, cancel=cancel)
        reason = f"{reason}; its node has not joined: {self._log_of(name)}"
        return self._scheduler.job_refused(name, reason, time.monotonic_ns(), blame=blame)

    def close(self) -> None:
        """End all nodes, and cancel what the agents do not end."""
        for node in self._nodes.values():
            if node.peer:
                self._send(node, nodes.EndNode("the service ends"))
        self._site.close()

    # --- workers --------------------------------------------------------------------------------

    def start_worker(self, node: str, command: Command, pair: KeyPair) -> int:
        """Start a worker through the agent; its pid is not known. Raises LaunchError."""
        there = self._nodes.get(node)
        if there is None or not there.peer:
            raise LaunchError(f"node {node} has left")
        message = nodes.RunWorker(
            *(command.name, command.start, command.argv[1:], command.environ),
            *(str(command.log), pair.public, pair.secret),
        )
        if not self._send(there, message):
            raise LaunchError(f"the agent of {node} cannot be reached")
        there.workers[command.name] = command.start
        return 0

    def signal_worker(self, worker: str, *, kill: bool) -> bool:
        """Kill or terminate a worker; False if it does not run on a node of these."""
        for node in self._nodes.values():
            if worker in node.workers:
                self._send(node, nodes.SignalWorker(worker, kill))
                return True
        return False

    def forward(self, worker: str, body: bytes) -> bool:
        """Send a control message to a worker whose heartbeats its agent relays; False if its agent
        cannot be reached."""
        present = self._scheduler.state.cluster.workers.get(worker)
        node = None if present is None else self._nodes.get(present.host.node.name)
        if node is None or not node.peer:
            return False
        return self._send(node, nodes.ForwardControl(worker, body))

    def poll_exits(self) -> list[Exit]:
        """Return the ends of workers since the last call, as `Launcher.poll_exits`."""
        results, self._exits = self._exits, []
        return results

    def _over(self, name: str, reason: str, *, cancel: bool) -> list[Action]:
        node = self._nodes[name]
        actions = self._scheduler.job_over(name, reason, time.monotonic_ns())
        self._exits += [
            Exit(worker, 0, -9, reason, start, infrastructure_failure=True)
            for worker, start in node.workers.items()
        ]
        self._drop(name, cancel=cancel)
        return actions

    def _drop(self, name: str, *, cancel: bool) -> None:
        node, listener = self._nodes.pop(name), self._endpoint.listener
        assert listener is not None
        for key in filter(None, (node.token_key, node.own_key)):
            listener.revoke_key(key, codec.encode(nodes.EndNode("this node has left")))
        self._site.forget(node.serial, cancel=cancel)

    def _send(self, node: JobNode, message: nodes.ToNode) -> bool:
        return self._reply(node.peer, message)

    def _reply(self, peer: bytes, message: nodes.ToNode | LeaseRenewed) -> bool:
        return self._listener.send(PeerKind.WORKER, peer, codec.encode(message))

    def _log_of(self, node: str) -> Path:
        return self._logs / f"job.{node.replace(':', '.')}.log"


def script_of(token: nodes.JoinToken) -> str:
    """Return the script of a job. The token is on standard input: neither a command line nor an
    environment shows it. Credentials of the command that submits do not reach the agent."""
    body = msgspec.json.encode(token).decode()
    python = shlex.quote(sys.executable)
    return (
        f"#!/bin/sh\nunset {' '.join(sorted(SECRETS))}\n"
        f"exec {python} -P -m simenv.node_agent <<'{_END_OF_TOKEN}'\n{body}\n{_END_OF_TOKEN}\n"
    )
