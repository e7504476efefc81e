"""A running service: its ownership of an environment, its parts, and ends of its workers."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import re
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec
import zmq

from simenv.config import Config, ConnectionFile
from simenv.errors import ConfigError, JournalError
from simenv.files import write_atomic
from simenv.model import TaskState, WorkerState
from simenv.scheduler.scheduler import Scheduler
from simenv.service.admission.submissions import SubmitQueue
from simenv.service.control.admin_commands import KeyCommands, PoolCommands
from simenv.service.control.audit import AuditLog, Owners
from simenv.service.control.reservations import ReservationCommands
from simenv.service.control.results import ResultRequests
from simenv.service.journal import maintenance, writer
from simenv.service.queries.devices import DeviceRecords
from simenv.service.results.completions import Completions
from simenv.service.workers.action_executor import ActionExecutor
from simenv.service.workers.processes import WorkerProcesses
from simenv.wire.messages import client as m
from simenv.wire.transport.zmq_transport import Listener

log = logging.getLogger("simenv.service")

# Ownership of an environment: the journal's lock, and the connection file as a lease.
#
# Invariant: of two services that claim one environment, the one whose identity is no longer in the
# connection file stops; its unfinished tasks run in the other.

TOUCH_NS = 5_000_000_000
_READ = msgspec.json.Decoder(ConnectionFile).decode


class ConnectionFileLease:
    """Lease of an environment through its connection file. Used from the loop's thread."""

    def __init__(self, path: Path, keep_sockets: Callable[[], None] = lambda: None) -> None:
        """`keep_sockets`: called as often as the file is touched."""
        self._path = path
        self._keep_sockets = keep_sockets
        self._announced: ConnectionFile | None = None
        self._touched_ns = 0

    def announce(self, file: ConnectionFile) -> None:
        """Write the connection file with mode 0600, by rename."""
        self._announced = file
        write_atomic(self._path, msgspec.json.encode(file))

    def holds(self) -> bool:
        """Touch the file every few seconds. Returns False if another service has replaced it."""
        now_ns = time.monotonic_ns()
        if now_ns - self._touched_ns < TOUCH_NS:
            return True
        self._touched_ns = now_ns
        if self._is_taken_over():
            return False
        if self._path.exists():
            self._path.touch()
        try:
            self._keep_sockets()
        except (OSError, ConfigError, zmq.ZMQError) as error:
            log.warning("removed sockets cannot be replaced: %s", error)
        return True

    def leave(self) -> None:
        """Remove the file, unless another service has replaced it."""
        if not self._is_taken_over():
            self._path.unlink(missing_ok=True)

    def _is_taken_over(self) -> bool:
        try:
            file = _READ(self._path.read_bytes())
        except (OSError, msgspec.MsgspecError):
            return False  # the file names no service
        settings = self._announced
        return settings is not None and (file.pid, file.node, file.epoch) != (
            settings.pid,
            settings.node,
            settings.epoch,
        )


_HELD = (errno.EAGAIN, errno.EACCES)
_HOLDER = re.compile(r"pid (\d+) on (\S+)")


def take_lock(path: Path, force: bool = False) -> int:
    """Take the lock of the journal. It is held until the returned descriptor is closed.

    `force`: ignore the lock of a service on another machine, where its process cannot be checked.
    Raises JournalError with the holder's pid and host.
    """
    descriptor = _open(path)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        holder = os.read(descriptor, 200).decode("utf-8", "replace").strip()
        os.close(descriptor)
        result = _HOLDER.match(holder)
        is_elsewhere = result is not None and result[2] != os.uname().nodename
        if error.errno not in _HELD:
            raise JournalError(
                f"{path} cannot be locked: {error.strerror}",
                hint="set state_dir to a folder on a local disk",
            ) from error
        if not (force and is_elsewhere):
            hint = "simenv status, or simenv down first"
            if is_elsewhere:
                hint = (
                    "its process cannot be checked from this machine; if it has surely ended: "
                    "simenv up --restore --force-lock"
                )
            message = f"another service uses {path.parent}: {holder or 'unknown'}"
            raise JournalError(message, hint=hint) from error
        path.unlink()  # the lock of the old file has no effect any more
        descriptor = _open(path)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.ftruncate(descriptor, 0)
    os.write(descriptor, f"pid {os.getpid()} on {os.uname().nodename}\n".encode())
    return descriptor


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


# Durations of the event loop's passes, during which no client is answered.
#
# A pass lasts from the arrival of a message, or a due time, until the loop waits again; work
# between two passes belongs to the first. Passes without messages count only for the longest pass,
# so that an idle service does not hide the others.

SAMPLES = 4_096  # passes with messages


class PassTimes:
    """Durations of passes, in nanoseconds. Used from the loop's thread."""

    def __init__(self) -> None:
        self._samples_ns: deque[int] = deque(maxlen=SAMPLES)
        self._begin_ns = 0
        self.had_messages = False  # whether the present pass handles messages
        self.longest_ns = 0

    def wait_begins(self) -> None:
        """End the present pass; called before the loop waits."""
        if not self._begin_ns:
            return
        took_ns = time.monotonic_ns() - self._begin_ns
        if took_ns > self.longest_ns:
            self.longest_ns = took_ns
        if self.had_messages:
            self._samples_ns.append(took_ns)
        self._begin_ns = 0

    def wait_ends(self) -> int:
        """Begin a pass. Returns the present monotonic time in ns."""
        self._begin_ns = time.monotonic_ns()
        return self._begin_ns

    def restart(self) -> None:
        """Forget the longest pass and the present one: start-up is over."""
        self._begin_ns = self.longest_ns = 0

    def p99_ms(self) -> float:
        """99th percentile of the durations of the last SAMPLES passes with messages, in ms."""
        ordered = sorted(self._samples_ns)
        return ordered[len(ordered) * 99 // 100] / 1e6 if ordered else 0.0

    def longest_ms(self) -> float:
        """Duration of the longest pass since `restart`, in ms."""
        return self.longest_ns / 1e6


# Parts of a running service, which its event loop and the handlers of messages share.


class RuntimeFacts(msgspec.Struct, frozen=True):
    """Facts that stay the same for the whole life of this process."""

    node: str
    ended_before: dict[TaskState, int]
    resumed: str = ""  # journal from which it started, as text
    launcher: str = ""  # the chosen launcher, with the reason
    allocation: str = ""  # source of the nodes, as text
    end_s: float = 0.0  # wall clock of the end of the allocation; 0: never
    exposure: str = ""  # reason why other users can run programs through the launcher; "": none


@dataclass(eq=False, repr=False)
class ServiceComponents:
    """Parts of a service. `backup`: None if the journal is not copied (private environments)."""

    config: Config
    listener: Listener
    journal: writer.Journal
    scheduler: Scheduler
    submit_queue: SubmitQueue
    completions: Completions
    workers: WorkerProcesses
    checkpointer: maintenance.WalCheckpointer
    backup: maintenance.JournalBackup | None
    key_commands: KeyCommands
    result_requests: ResultRequests
    lease: ConnectionFileLease
    facts: RuntimeFacts
    devices: DeviceRecords

    def __post_init__(self) -> None:
        scheduler, journal, devices = self.scheduler, self.journal, self.devices
        self.state = scheduler.state
        self.started_ns = time.monotonic_ns()
        self.pass_times = PassTimes()
        self.store_error = ""  # reason why the journal cannot be written; "": it can
        self.stop_at_ns = 0  # when a drain ends by force; 0: not draining
        self.stopped = False
        self._next_tick_ns = 0
        self.executor = ActionExecutor(
            *(scheduler, journal, self.listener, self.workers, self.completions),
            devices.documents,
            self.result_requests.file_worker.remove,
            devices.drifting,
        )
        self.audit = AuditLog(self.executor, self.listener.origin)
        self.pool_commands = PoolCommands(
            self.config, scheduler, journal, self.workers.recheck_node
        )
        self.reservation_commands = ReservationCommands(
            scheduler, journal, self.executor, self.audit, devices.reading
        )
        self.owners = Owners(self.config.limits, scheduler, journal, self.result_requests.bytes_of)
        self.submit_queue.disk_refusal = self.result_requests.disk_refusal

    def drain(self, *, now: bool) -> None:
        """Let running tasks end, keep waiting tasks, then stop; `now`: queue running ones again."""
        deadline_ns = 0 if now else round(self.config.drain_timeout_s * 1e9)
        end_ns = time.monotonic_ns() + deadline_ns
        self.stop_at_ns = min(self.stop_at_ns, end_ns) if self.stop_at_ns else end_ns
        actions = self.scheduler.begin_drain(self.config.name)
        self.executor.execute(actions)
        if actions and self.backup is not None:
            self.backup.request_copy()
        self._next_tick_ns = 0


# Ends of worker processes, and nodes that the launcher has lost or recovered.

# Not EXIT_RANK: the task may have killed the rank.
INFRASTRUCTURE_EXITS = (m.EXIT_LEASE, m.EXIT_ORPHAN)
LOG_LINE_CHARS = 300  # characters of a log's last line that become a reason


class WorkerEvents:
    """Source of events of processes and nodes for the scheduler. Used from the loop's thread."""

    def __init__(self, service: ServiceComponents) -> None:
        self._service = service

    def report(self, now_ns: int) -> None:
        """Report the events since the last tick to the scheduler, and execute its actions."""
        self._report_exits(now_ns)
        for event in self._service.workers.launcher_events():
            if event.kind == "node.lost":
                actions = self._service.scheduler.node_lost(event.subject, event.message, now_ns)
                self._service.executor.execute(actions)
            elif event.kind == "node.back":
                self._service.executor.execute(self._service.scheduler.node_back(event.subject))
            else:
                self._service.executor.record_event(event.kind, event.subject, event.message)

    def _report_exits(self, now_ns: int) -> None:
        for end in self._service.workers.exited():
            self._service.result_requests.file_worker.unfinished(f"{end.name}.{end.start}")
            tail = self._service.workers.log_tail(end.name) if end.code else ""
            blame = end.code not in INFRASTRUCTURE_EXITS and not end.infrastructure_failure
            worker, message = self._service.scheduler.state.workers.get(end.name), end.reason
            if tail and worker is not None and worker.state is WorkerState.STARTING:
                message += (
                    f": {tail.splitlines()[-1][:LOG_LINE_CHARS]}"  # the only trace of the cause
                )
            actions = self._service.scheduler.worker_lost(
                end.name, end.start, message, now_ns, tail, blame=blame
            )
            self._service.executor.execute(actions)
