"""Worker processes: start, address and end; the scheduler decides when and why.

Invariant: a worker is identified by its name and start. A message or process end of an earlier
start of that name never affects the present one.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import msgspec

from launcher import base
from launcher.allocation import this_node
from launcher.base import Command, LaunchError
from simenv._version import __version__
from simenv.config import Config, EnvironmentPaths
from simenv.config.paths import gpu_environ, passed_environ, worker_environ
from simenv.errors import ConfigError, NotAllowedError
from simenv.model import Origin, PoolSpec
from simenv.model.calls import FUNCTIONS
from simenv.sandbox.process_tree import is_within
from simenv.scheduler.core import (
    StartWorker,
)
from simenv.service.job_thread import JobThread, outcome_of
from simenv.service.workers import account_users
from simenv.service.workers.endpoints import WorkerKeys
from simenv.service.workers.isolation import WorkerIsolation
from simenv.service.workers.job_nodes import JobNodes
from simenv.service.workers.launcher_thread import LauncherThread
from simenv.service.workers.memory_watch import MemoryWatch
from simenv.wire.keyfiles import KeyPair
from simenv.wire.messages import client as m

LOG_TAIL_BYTES = 2_000
log = logging.getLogger("simenv.service")
LOG_MAX_BYTES = 8 * 2**20
MAX_COMPILERS = 4  # more compiling processes would wait for one another
MACHINE_GRACE_S = 5.0  # for a worker to cancel the job of its machine


class WorkerPeer(msgspec.Struct):
    """Sockets of a worker; each is empty until the worker has sent a message through it, and speaks
    for no other worker from then on."""

    start: int
    pid: int = 0  # of the process that the launcher started on this machine; 0: not known
    work: bytes = b""
    control: bytes = b""
    has_machine: bool = False
    origin: Origin | None = None  # as it joined, before it ran any task


class WorkerProcesses:
    """Processes and sockets of workers, by name. Used from the main thread."""

    def __init__(
        self,
        launcher: base.Launcher,
        config: Config,
        paths: EnvironmentPaths,
        results: Path,
        kernels: Path,
        environ: Mapping[str, str],
        keys: WorkerKeys | None = None,
        jobs: Callable[[str], JobThread] = JobThread,
    ) -> None:
        """`results`: the folder of large results, by its path on all nodes. `keys`: of workers on
        other nodes; None: there are no other nodes. `jobs`: makes a thread of that name."""
        self.isolation = None
        if config.isolation == "account":
            numbers = account_users.numbers_of(config.isolation_uids)
            users = account_users.unavailable_reason(numbers) or account_users.AccountUsers(
                numbers, paths.state / account_users.FILE
            )
            self.isolation = WorkerIsolation(results, config.name, users)
        self._launcher = LauncherThread(launcher, jobs("starter"))
        self.starter = self._launcher.jobs
        self.file_jobs = jobs("worker-files")
        self._starting: dict[str, bool] = {}  # name -> whether it is to be killed once it is begun
        self._unsent: Counter[str] = Counter()  # messages that wait for files, by worker
        self._keys = keys if keys is not None else WorkerKeys(paths.joining, None)
        self._paths = paths
        self._results = results
        self._environ = worker_environ(environ)
        # Variables that the provider of a pool reads, which no other process gets.
        self.passed = {
            pool.name: passed_environ(environ, pool.environ)
            for pool in config.pools
            if pool.environ
        }
        self._import_from = os.pathsep.join(config.import_from)
        self._peers: dict[str, WorkerPeer] = {}
        self._names: dict[bytes, str] = {}  # by work socket
        self._beating: dict[bytes, str] = {}  # by control socket
        self.memory_watch = MemoryWatch()
        self.job_nodes: JobNodes | None = None  # None: all nodes are of the allocation
        self._log_begins: dict[str, int] = {}  # bytes of earlier processes of that name
        self._ending: dict[str, float] = {}  # terminated; monotonic time at which they are killed
        self._argv = (
            *("--lease-s", str(config.worker_lease_s)),
            *("--kernels", str(kernels)),
            *("--checkpoint-s", str(config.checkpoint_s)),
            *(("--sync",) if config.durability != "process" else ()),
        )

    def start(self, action: StartWorker, pool: PoolSpec, then: Callable[[str], None]) -> None:
        """Start a worker of that pool; `then` gets the error, or "", in a later pass. Before that
        the worker has sent nothing."""
        name = action.worker
        # A machine is no code of users, and needs the network.
        isolation = None if pool.provider else self.isolation
        pair = self._keys.make(name, action.start)
        folder = None if isolation is None else isolation.make(name, action.start)

        def prepared(outcome: Command | int | Exception) -> None:
            if isinstance(outcome, Command):  # for the agent of its node
                assert self.job_nodes is not None
                assert pair is not None
                node = action.shares[0].node
                begun(outcome_of(partial(self.job_nodes.start_worker, node, outcome, pair)))
            else:
                begun(outcome)

        def begun(outcome: int | Exception) -> None:
            is_killed = self._starting.pop(name, False)
            if isinstance(outcome, Exception):
                self._keys.remove(name, action.start)
                if isolation is not None:
                    isolation.ended(name, action.start)
                if not isinstance(outcome, ConfigError | LaunchError):
                    log.error("the start of %s failed", name, exc_info=outcome)
                then(str(outcome) or type(outcome).__name__)
                return
            self._begun(action, pool, outcome)
            then("")
            if is_killed:
                self.kill(name)

        self._starting[name] = False
        self.starter.run(partial(self._begin, action, pool, pair, folder), prepared)

    def _begin(
        self,
        action: StartWorker,
        pool: PoolSpec,
        pair: KeyPair | None,
        folder: Path | None,
    ) -> int | Command:
        """Start a worker's process, in the thread of `starter`; return its pid, 0 if that is not
        known, or the command that the agent of its node gets. `folder`: of an isolated worker.
        Raises ConfigError, LaunchError."""
        log_path, by_job = self._log(action.worker), self._is_by_job(action)
        isolation = None if folder is None else self.isolation
        _rotate(log_path, LOG_MAX_BYTES if isolation is None else 0)
        self._log_begins[action.worker] = log_path.stat().st_size if log_path.exists() else 0
        ranks = sum(share.ranks for share in action.shares) or 1
        results = self._results
        if isolation is not None and folder is not None:
            isolation.create(folder)
            results = folder
        passed = self.passed.get(pool.name, {})
        nodes = [share.node for share in action.shares if passed and share.node]
        if remote := [node for node in nodes if not this_node.is_this_node(node)]:
            # A command line there shows them to every user of the node.
            text = f"variables of environ are not sent to {remote[0]}: let nodes name this node"
            raise LaunchError(text)
        argv = (
            *(sys.executable, "-P", "-m", "simenv.worker"),
            # The agent of a job has the file in its own folder.
            *("--service", "worker.json" if by_job else str(self._paths.joining.resolve())),
            *self._argv,
            *("--results", str(results)),
            *("--name", action.worker),
            *("--start", str(action.start)),
            *("--engine", pool.engine),
            *("--ranks", str(ranks)),
            *(("--gpus", ",".join(action.gpus)) if action.gpus and ranks > 1 else ()),
            *("--log", str(log_path)),
            *("--parent", "0"),
            *(("--provider", pool.provider) if pool.provider else ()),
            *(("--import-from", self._import_from) if _imports(pool, isolation) else ()),
            *(("--command", pool.command) if pool.command else ()),
            *(("--isolated",) if isolation is not None else ()),
        )
        command = Command(
            action.worker,
            argv,
            (
                *(() if by_job else self._environ),
                *(gpu_environ(action.gpus[0]) if action.gpus and ranks == 1 else ()),
                *passed.items(),
            ),
            log_path,
            self._paths.home,
            action.start,
            action.shares,
        )
        if isolation is not None:
            command = isolation.confined(command, results, is_local=self._is_local(action))
        if by_job and pair is not None:
            return command
        self._keys.write(action.worker, action.start, pair)
        pid = self._launcher.launcher.start(command)
        if isolation is not None:
            isolation.started(action.worker, pid)
        return pid

    def _begun(self, action: StartWorker, pool: PoolSpec, pid: int) -> None:
        """Note a process that was started."""
        self._forget(action.worker)
        local_pid = pid if self._is_local(action) else 0
        if local_pid:
            self.memory_watch.add(action.worker, action.start, local_pid)
        self._peers[action.worker] = WorkerPeer(
            action.start, local_pid, has_machine=bool(pool.provider)
        )

    def _is_by_job(self, action: StartWorker) -> bool:
        """Return whether a worker is on a node that came by a job."""
        node = action.shares[0].node if action.shares else ""
        return self.job_nodes is not None and node in self.job_nodes

    def _is_local(self, action: StartWorker) -> bool:
        """Return whether a worker is one plain process of this node."""
        node, ranks = "", 1
        if action.shares:
            node, ranks = action.shares[0].node, sum(share.ranks for share in action.shares)
        is_here = ranks == 1 and (not node or this_node.is_this_node(node))
        return (
            is_here
            and self._launcher.launcher.name.startswith("local")
            and not self._is_by_job(action)
        )

    def has_unsent(self, name: str) -> bool:
        """Return whether messages to a worker wait for files."""
        return self._unsent[name] > 0

    def when_ready(
        self,
        name: str,
        job: Callable[[], None] | None,
        send: Callable[[], None],
        fail: Callable[[], None],
    ) -> None:
        """Send a message to a worker, after a job with its files and all earlier messages. `fail`:
        called instead if the job raises."""
        if job is None and not self.has_unsent(name):
            send()
            return
        self._unsent[name] += 1

        def done(outcome: object) -> None:
            self._unsent[name] -= 1
            if isinstance(outcome, Exception):
                log.error("files of %s are not in place", name, exc_info=outcome)
                fail()
            else:
                send()

        self.file_jobs.run(job or _nothing, done)

    def works(self, name: str, start: int, peer: bytes, pid: int = 0) -> bool:
        """Record the work socket of a worker at its first message. `pid`: of the process at its
        other end; 0: not known. Returns False if there is no such start of a worker, or if it has
        joined through another socket: no peer can take over a live worker. Raises NotAllowedError
        if the socket is another worker's, or its process is not this one's."""
        worker = self._peers.get(name)
        self._check_peer(name, worker, peer, self._beating, pid)
        if worker is None or worker.start != start or worker.work not in (b"", peer):
            return False
        worker.work = peer
        self._names[peer] = name
        return True

    def joined(self, message: m.Join, peer: bytes, pid: int = 0) -> bool:
        """Record a worker that joins; as `works`."""
        name = message.name
        if not self.works(name, message.start, peer, pid):
            return False
        origin = name, message.node, message.pid, message.version, message.ranks
        self._peers[name].origin = Origin(*origin)
        return True

    def beats(self, name: str, start: int, peer: bytes, pid: int = 0) -> bool:
        """Record the control socket of a worker at a heartbeat; as `works`."""
        worker = self._peers.get(name)
        self._check_peer(name, worker, peer, self._names, pid)
        if worker is None or worker.start != start or worker.control not in (b"", peer):
            return False
        worker.control = peer
        self._beating[peer] = name
        return True

    def _check_peer(
        self, name: str, worker: WorkerPeer | None, peer: bytes, others: Mapping[bytes, str],
        pid: int,
    ) -> None:  # fmt: skip
        """Check that a socket may speak for a worker. `others`: the sockets of the other kind.
        Raises NotAllowedError."""
        owner = self.speaker(peer)
        hint = "each worker has two connections of its own, and speaks for itself alone"
        if owner and (owner != name or peer in others):
            text = f"a connection of worker {owner!r} spoke as worker {name!r:.80}"
            raise NotAllowedError(text, hint=hint)
        if owner or worker is None or not worker.pid or not pid:
            return
        if not is_within(pid, worker.pid):
            text = f"process {pid} spoke as worker {name!r:.80}, which is process {worker.pid}"
            raise NotAllowedError(text, hint=hint)

    def speaker(self, peer: bytes) -> str:
        """Return the name of the worker with this socket; "" if there is none."""
        return self._names.get(peer) or self._beating.get(peer, "")

    def origin_of(self, name: str) -> Origin:
        """Return where a worker's results come from, as it has joined."""
        worker = self._peers.get(name)
        origin = None if worker is None else worker.origin
        return origin or Origin(name, "", 0, __version__)

    def work_peer(self, name: str) -> bytes:
        worker = self._peers.get(name)
        return worker.work if worker is not None else b""

    def control_peer(self, name: str) -> bytes:
        worker = self._peers.get(name)
        return worker.control if worker is not None else b""

    def name_of(self, peer: bytes) -> str:
        """Return the name of the worker with a work socket; "" if there is none."""
        return self._names.get(peer, "")

    @property
    def is_busy(self) -> bool:
        """True if a thread has a job whose continuation has not run."""
        return self.starter.is_busy or self.file_jobs.is_busy

    @property
    def has_news(self) -> bool:
        """True if workers have ended, or the launcher has reported something, since the last
        tick."""
        return self._launcher.has_news

    def run_continuations(self) -> None:
        """Run the continuations of the jobs that have ended."""
        self.starter.run_continuations()
        self.file_jobs.run_continuations()

    def exited(self) -> list[base.Exit]:
        """Return the ends of workers that are known since the last call, and kill terminated
        workers that have not ended in time."""
        self._launcher.poll()
        self.run_continuations()
        ends = self._launcher.take_ends()
        if self.job_nodes is not None:
            ends += self.job_nodes.poll_exits()
        if self.isolation is not None:
            # In this thread: no worker is between its start and its registration meanwhile.
            job = self.isolation.killing_orphans(at_once=bool(ends))
            if job is not None:
                self.starter.run(job, None)
        now_s = time.monotonic()
        for name, when_s in list(self._ending.items()):
            if now_s >= when_s:
                del self._ending[name]
                self._launcher.kill(name)
        for end in ends:
            self._ending.pop(end.name, None)
            worker = self._peers.get(end.name)
            if worker is not None and worker.start == end.start:
                self._forget(end.name)
        return ends

    def launcher_events(self) -> list[base.LauncherEvent]:
        """Return the launcher's events since the last call."""
        return self._launcher.take_events()

    def recheck_node(self, node: str) -> bool:
        """Return whether a lost node can be used again, as `Launcher.recheck_node`."""
        return self._launcher.launcher.recheck_node(node)

    def kill(self, name: str) -> None:
        """Kill a worker; one that holds a machine gets MACHINE_GRACE_S to cancel its job first."""
        worker = self._peers.get(name)
        if name in self._starting:
            self._starting[name] = True
            return
        if self.job_nodes is not None and self.job_nodes.signal_worker(name, kill=True):
            return
        if worker is not None and worker.has_machine:
            self._ending.setdefault(name, time.monotonic() + MACHINE_GRACE_S)
            self._launcher.terminate(name)
        else:
            self._launcher.kill(name)

    @property
    def isolation_gaps(self) -> list[str]:
        """What the kernel here cannot do for the isolation of accounts."""
        return [] if self.isolation is None else self.isolation.gaps

    def log_tail(self, name: str) -> str:
        """Return the last lines that the last process of a worker has written to its log."""
        return tail(self._log(name), self._log_begins.get(name, 0))

    def log_bytes(self, name: str) -> int:
        """Return the size of the log of a worker."""
        try:
            return self._log(name).stat().st_size
        except OSError:
            return 0

    def close(self) -> None:
        self.starter.drop()
        self.file_jobs.close()
        self.memory_watch.close()
        if self.job_nodes is not None:
            self.job_nodes.close()
        self._launcher.launcher.close()
        self.starter.close()  # it kills what is left of its processes
        if self.isolation is not None:
            self.isolation.close()

    def _forget(self, name: str) -> None:
        worker = self._peers.pop(name, None)
        if worker is not None:
            self.memory_watch.remove(name)
            self._names.pop(worker.work, None)
            self._beating.pop(worker.control, None)
            self._keys.remove(name, worker.start)

    def _log(self, name: str) -> Path:
        return self._paths.logs / f"{name}.log"


def _nothing() -> None:
    """Do nothing: the message only waits for those before it."""


def start_compilers(
    launcher: base.Launcher, kernels: Path, home: Path, environ: Mapping[str, str]
) -> int:
    """Start processes that compile kernels besides the service and its workers; return their
    number. Raises LaunchError."""
    argv = (sys.executable, "-P", "-m", "simulators.compiler.warmup", str(kernels))
    count = min(MAX_COMPILERS, max(1, len(os.sched_getaffinity(0)) - 1))
    for number in range(1, count + 1):
        name = f"kernels-{number}"
        log = home / f"{name}.log"
        launcher.start(Command(name, argv, worker_environ(environ), log, home))
    return count


def _imports(pool: PoolSpec, isolation: WorkerIsolation | None) -> bool:
    """Return whether the workers of a pool import modules of the environment's user."""
    return bool(pool.provider) or (pool.engine == FUNCTIONS and isolation is None)


def _rotate(log: Path, max_bytes: int) -> None:
    """Rename logs of more bytes, also those of further ranks. The last lines of an account's log
    must not be in the report on a task of another one."""
    for path in (log, *log.parent.glob(f"{log.stem}.r*.log")):
        if path.exists() and path.stat().st_size > max_bytes:
            path.replace(path.with_suffix(".log.old"))


def tail(path: Path, begin: int = 0) -> str:
    """Return the last whole lines of a text file, from that byte on; "" if it cannot be read."""
    try:
        with path.open("rb") as file:
            file.seek(0, os.SEEK_END)
            size = file.tell() - begin
            file.seek(max(begin, begin + size - LOG_TAIL_BYTES))
            data = file.read()
    except OSError:
        return ""
    if size > LOG_TAIL_BYTES:
        data = data.partition(b"\n")[2]
    return data.decode("utf-8", "replace").rstrip()
