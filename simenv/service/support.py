"""Utilities of the event loop: file locks, rate-limited logs, fair queues, fault injection."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import re
import signal
import threading
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Generic, TypeVar

import msgspec
import zmq

from simenv.config import ConnectionFile
from simenv.errors import ConfigError, JournalError, QueueFullError
from simenv.files import write_atomic
from simenv.wire import codec
from simenv.wire.messages import client as m

# Ownership of an environment: the journal's lock, and the connection file as a lease.
#
# Invariant: of two services that claim one environment, the one whose identity is no longer in the
# connection file stops; its unfinished tasks run in the other.

TOUCH_NS = 5_000_000_000
_READ = msgspec.json.Decoder(ConnectionFile).decode
log = logging.getLogger("simenv.service")


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


# A queue in which owners take turns, and the connections of each owner.
#
# Invariant: an owner with a thousand connections gets no more turns than one with a single
# connection; the items of a connection keep their order. Pure.

T = TypeVar("T")


class FairQueue(Generic[T]):
    """Items by owner and connection. The first item is that of the connection whose turn it is."""

    def __init__(self) -> None:
        self._owners: OrderedDict[str, OrderedDict[bytes, deque[T]]] = OrderedDict()

    def __bool__(self) -> bool:
        return bool(self._owners)

    def of(self, owner: str, peer: bytes) -> int:
        """Return the number of waiting items of a connection."""
        peers = self._owners.get(owner)
        return len(peers.get(peer, ())) if peers is not None else 0

    def put(self, owner: str, peer: bytes, item: T) -> None:
        """Append an item behind those of the same connection."""
        peers = self._owners.get(owner)
        if peers is None:
            peers = self._owners[owner] = OrderedDict()
        items = peers.get(peer)
        if items is None:
            items = peers[peer] = deque()
        items.append(item)

    def first(self) -> tuple[str, bytes, T]:
        """Return the owner and connection whose turn it is, with their item. Raises IndexError if
        no item waits."""
        for owner, peers in self._owners.items():
            for peer, items in peers.items():
                return owner, peer, items[0]
        raise IndexError("nothing waits")

    def end_turn(self, *, done: bool) -> None:
        """End the turn of the first connection; `done`: also remove its item."""
        owner, peers = next(iter(self._owners.items()))
        peer, items = next(iter(peers.items()))
        if done:
            items.popleft()
        if items:
            peers.move_to_end(peer)
        else:
            del peers[peer]
            if not peers:
                del self._owners[owner]
                return
        self._owners.move_to_end(owner)

    def remove_connection(self) -> deque[T]:
        """Remove and return all items of the connection whose turn it is."""
        owner, peers = next(iter(self._owners.items()))
        _, items = peers.popitem(last=False)
        if peers:
            self._owners.move_to_end(owner)
        else:
            del self._owners[owner]
        return items

    def restore_connection(self, owner: str, peer: bytes, items: deque[T]) -> None:
        """Insert removed items of a connection before its later ones."""
        since = self._owners.setdefault(owner, OrderedDict()).setdefault(peer, deque())
        since.extendleft(reversed(items))


# One thread for checks that are too long for the event loop; owners take turns in it.
#
# The CPU time of each owner's checks of large messages is counted, so that it can be limited.
# Invariant: the thread runs one check of an owner before the next one of the same owner, whatever
# the others have waiting.


class FairThread:
    """One thread that runs the checks of all owners, who take turns."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "checks")
        self._lock = threading.Lock()
        self._waiting: FairQueue[tuple[Future[Any], Callable[[], Any], bool]] = FairQueue()
        self._spent_ns: Counter[str] = Counter()

    def submit(self, owner: str, check: Callable[[], T], *, counted: bool = True) -> Future[T]:
        """Queue a check. Return the future with its result or its error. `counted`: its CPU time is
        the owner's."""
        future: Future[T] = Future()
        with self._lock:
            self._waiting.put(owner, b"", (future, check, counted))
        self._thread.submit(self._next)
        return future

    def take_spent_ns(self, owner: str) -> int:
        """Return the CPU time of an owner's counted checks since the last call."""
        with self._lock:
            return self._spent_ns.pop(owner, 0)

    def _next(self) -> None:
        """Run the next check; called in the thread, once for each check."""
        with self._lock:
            owner, _, (future, check, counted) = self._waiting.first()
            self._waiting.end_turn(done=True)
        begin_ns = time.thread_time_ns()
        try:
            future.set_result(check())
        except BaseException as error:  # noqa: BLE001 - raised by `future.result()`
            future.set_exception(error)
        if owner and counted:
            with self._lock:
                self._spent_ns[owner] += time.thread_time_ns() - begin_ns


CHECKS = FairThread()


# Named points at which tests kill the service or make it fail; disabled by default.
#
# A plan is a list of `point:nth:action`, separated by commas. At the nth hit of the point, `kill`
# ends the process with SIGKILL and `error` raises an OSError (disk full).

POINTS = (
    "submit.received",
    "submit.admitted",
    "assign.before",
    "assign.sent",
    "journal.commit.before",
    "journal.commit.after",
    "accepted.sent",
    "finished.received",
    "completion.before",
    "completion.sent",
    "checkpoint.before",
    "checkpoint.after",
    "copy.before",
    "copy.after",
    "reopen.before",
    "reopen.after",
    "gc.before",
    "gc.after",
    "reservation.changed",
)
ACTIONS = ("kill", "error")

_plan: dict[tuple[str, int], str] = {}
_hits: Counter[str] = Counter()


def install(text: str) -> None:
    """Activate the plan in the configuration. Raises ConfigError for an entry of another form."""
    _plan.clear()
    _hits.clear()
    for part in filter(None, text.split(",")):
        parts = part.split(":")
        if (
            len(parts) != 3
            or parts[0] not in POINTS
            or not parts[1].isdigit()
            or parts[2] not in ACTIONS
        ):
            raise ConfigError(
                f"faults: {part!r} is not point:nth:what",
                hint=f"points: {', '.join(POINTS)}; what: {', '.join(ACTIONS)}",
            )
        _plan[parts[0], int(parts[1])] = parts[2]


def hit(point: str) -> None:
    """Count one hit of a point, and execute the planned action. Raises OSError if that is
    `error`."""
    if not _plan:
        return
    _hits[point] += 1
    action = _plan.get((point, _hits[point]))
    if action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if action == "error":
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), point)


# Format log lines so that logged text cannot forge a record or control a terminal.

_CONTROLS = {
    code: chr(code).encode("unicode_escape").decode()
    for code in (*range(32), *range(127, 160), 0x2028, 0x2029, 0x202E)
    if chr(code) not in "\n\t"
}


class LogFormatter(logging.Formatter):
    """Formatter that escapes control characters, and indents the further lines of a record by two
    spaces, so that none looks like a record of its own."""

    def format(self, record: logging.LogRecord) -> str:
        return super().format(record).translate(_CONTROLS).replace("\n", "\n  ")


# Rate limit for warnings about received messages: LINES a minute; the others are counted.

LINES = 20
WINDOW_S = 60.0


class RateLimitedLog:
    """Rate-limited warnings about messages of peers."""

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._since_s = -WINDOW_S
        self._count = 0

    def warning(self, message: str, *details: object) -> None:
        """Log a warning, as `Logger.warning`; above LINES in WINDOW_S warnings are only counted."""
        now = time.monotonic()
        if now - self._since_s >= WINDOW_S:
            if self._count > LINES:
                self._log.warning("%d more like that in the minute before", self._count - LINES)
            self._since_s, self._count = now, 0
        self._count += 1
        if self._count <= LINES:
            self._log.warning(message, *details)


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


# Bound the time that large messages of one owner take: their decoding in the event loop, and the
# checks of their content in the other thread, which shares the interpreter with the loop.
#
# A message can be refused only after it was decoded. Invariant: decoding and checks of large
# messages for the owner of one key take at most SHARE of the time, after a first BURST_NS. Checks
# of small ones, such as the trial of engines for a wide program, are not counted: owners take turns
# in that thread. Decoding time above that of any valid message is charged at a higher rate.

LARGE_BYTES = 2**14  # smaller messages take less time than the accounting
SHARE = 0.25
BURST_NS = 100_000_000
SOUND_NS = 10_000_000  # 8 MiB of one program take less
COSTLY = 40  # factor by which time above SOUND_NS is charged


class Decoding:
    """Time of each owner's large messages, reduced by the owner's share of the time since then.
    Used from the loop's thread."""

    def __init__(self, checks: FairThread) -> None:
        """`checks`: the thread in which the content of messages is checked."""
        self._checks = checks
        self._debts: dict[str, tuple[float, int]] = {}  # nanoseconds, and the time of that count

    def of(self, owner: str, body: bytes) -> m.FromClient:
        """Decode a message. Raises QueueFullError for an owner without time left, ProtocolError for
        other bytes. Small messages, and those of the environment's own user, are not counted."""
        if len(body) <= LARGE_BYTES or not owner:
            return codec.from_client(body)
        begin_ns, busy_ns = time.monotonic_ns(), time.thread_time_ns()
        debt_ns, then_ns = self._debts.get(owner, (0.0, begin_ns))
        debt_ns += self._checks.take_spent_ns(owner)  # some time since then
        debt_ns = max(0.0, debt_ns - SHARE * (begin_ns - then_ns))
        if debt_ns > BURST_NS:
            self._debts[owner] = debt_ns, begin_ns
            raise QueueFullError(
                f"large messages with the key {owner!r} took more than {SHARE:.0%} of the service's"
                " time",
                hint="send them more slowly",
                retry_after_s=(debt_ns - BURST_NS) / SHARE / 1e9,
            )
        try:
            return codec.from_client(body)
        finally:
            spent_ns = time.thread_time_ns() - busy_ns
            spent_ns += COSTLY * max(0, spent_ns - SOUND_NS)
            self._debts[owner] = (debt_ns + spent_ns, begin_ns)
