"""Sockets of all transports: kinds of peers, options, and bounds of what waits to be sent."""

from __future__ import annotations

import enum
import errno
import pwd
import socket as stdlib_socket
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import msgspec
import zmq

from simenv.errors import ConfigError

SEALED_BYTES = 64  # most bytes that encryption adds to a message
# A plain number: an operation on the library's enumerations takes longer than the system calls.
POLLIN = int(zmq.POLLIN)
MESSAGE_BYTES = 128  # memory of a queued message besides its body
STALL_S = 10.0  # a peer whose full queue does not move for this time is cut off
MAX_UNMARKED = 10_000  # peers for which bytes of unmarked messages are counted
MIN_MAX_LINES = 1_000  # peers with marked messages; above it, empty queues are removed
_NOBLOCK = int(zmq.NOBLOCK)
_NOBLOCK_MORE = int(zmq.NOBLOCK) | int(zmq.SNDMORE)


def open_socket(host: str, port: int, last: int = 0, setting: str = "") -> stdlib_socket.socket:
    """Listen on an address for a protocol that is not ZeroMQ's; port 0 takes `last` if that is free
    and not 0, else any. Raises ConfigError, which names `setting`."""
    if last and not port:
        with suppress(ConfigError):
            return open_socket(host, last, setting=setting)
    try:
        family, kind, _, _, target = stdlib_socket.getaddrinfo(
            host, port, type=stdlib_socket.SOCK_STREAM
        )[0]
        listener = stdlib_socket.socket(family, kind)
        try:
            listener.setsockopt(stdlib_socket.SOL_SOCKET, stdlib_socket.SO_REUSEADDR, 1)
            listener.bind(target)
            listener.listen(stdlib_socket.SOMAXCONN)
        except BaseException:
            listener.close()
            raise
    except OSError as error:
        raise listen_error(setting, f"{host}:{port}", port, error) from error
    return listener


def listen_error(setting: str, address: str, port: int, error: OSError) -> ConfigError:
    """Return the error of an address at which this process cannot listen: the setting that has it,
    who listens at the port, the ways out."""
    reason, name = error.strerror or str(error), setting or "the setting"
    hint = f"{name} with an address of this machine, and a port that is free"
    if error.errno == errno.EADDRINUSE:
        holder = _holder(port)
        reason += f", {holder} has port {port}" if holder else ""
        hint = f"end what has the port, or {name} with another one"
    text = f"cannot listen on {address}: {reason}"
    return ConfigError(f"{setting}: {text}" if setting else text, hint=hint)


def _holder(port: int) -> str:
    """Name who has a TCP port of this host, a listener first, as far as the kernel tells this user;
    "": it does not."""
    import psutil  # here, because it takes a start 15 ms

    with suppress(psutil.Error, OSError):
        found = [each for each in psutil.net_connections("tcp") if each.laddr[1:2] == (port,)]
        for each in sorted(found, key=lambda each: each.status != psutil.CONN_LISTEN):
            if each.pid is not None:  # else of another user
                with suppress(psutil.Error):
                    process = psutil.Process(each.pid)
                    return f"process {each.pid} ({process.name()}) of {process.username()}"
    for table in (Path("/proc/net/tcp"), Path("/proc/net/tcp6")):
        with suppress(OSError, LookupError, ValueError):
            rows = [line.split() for line in table.read_text().splitlines()[1:]]
            uids = [int(row[7]) for row in rows if row[1].endswith(f":{port:04X}")]
            return f"a process of {pwd.getpwuid(uids[0]).pw_name}"
    return ""


def open_unix_socket(path: Path) -> stdlib_socket.socket:
    """Listen on a Unix socket in a folder of this user alone; what a listener that has ended left
    at the path is removed. Raises ConfigError."""
    listener = stdlib_socket.socket(stdlib_socket.AF_UNIX, stdlib_socket.SOCK_STREAM)
    try:
        path.unlink(missing_ok=True)
        listener.bind(str(path))
        path.chmod(0o600)
        listener.listen(stdlib_socket.SOMAXCONN)
    except OSError as error:
        listener.close()
        raise ConfigError(f"cannot listen on {path}: {error.strerror or error}") from error
    return listener


class PeerKind(enum.IntEnum):
    """Kind of endpoint of the service that received a message."""

    CLIENT = 0
    WORKER = 1


def readable(socket: zmq.Socket[bytes]) -> bool:
    """Return whether a message can be received from a socket."""
    events: Any = socket.get(zmq.EVENTS)
    return bool(events & POLLIN)


class Keepalive(msgspec.Struct, frozen=True):
    """TCP keepalive: a silent connection is probed after `idle_s`, then every `interval_s`, and
    closed after `count` probes without an answer. Unacknowledged data closes it after the same
    time."""

    idle_s: int
    interval_s: int
    count: int

    def set_on(self, socket: zmq.Socket[bytes]) -> None:
        """Set these options on a socket, before it binds or connects."""
        socket.set(zmq.TCP_KEEPALIVE, 1)
        socket.set(zmq.TCP_KEEPALIVE_IDLE, self.idle_s)
        socket.set(zmq.TCP_KEEPALIVE_INTVL, self.interval_s)
        socket.set(zmq.TCP_KEEPALIVE_CNT, self.count)
        socket.set(zmq.TCP_MAXRT, 1000 * (self.idle_s + self.interval_s * self.count))


CLIENT_KEEPALIVE = Keepalive(60, 10, 3)
# Together a little less than a worker's lease, and than `Config.silent_s`.
WORKER_KEEPALIVE = Keepalive(3, 2, 3)


class SendBufferLimits(msgspec.Struct, frozen=True):
    """Bytes that may wait until their receiver reads them."""

    peer_bytes: int
    owner_bytes: int
    mark_bytes: int  # of unmarked messages for one peer, which are not counted as waiting


# A local client is the environment's own user. A remote one shares the service's memory with other
# owners.
LOCAL_BOUNDS = SendBufferLimits(peer_bytes=256 * 2**20, owner_bytes=2**40, mark_bytes=2**20)
REMOTE_BOUNDS = SendBufferLimits(peer_bytes=32 * 2**20, owner_bytes=128 * 2**20, mark_bytes=2**16)


class _TrackedBuffer(Protocol):
    """State of a buffer that libzmq uses without a copy (zmq.MessageTracker); `done`: released."""

    @property
    def done(self) -> bool: ...


class _Line(msgspec.Struct, eq=False):
    """Queue of one peer: its marks, and the bytes that wait, counted up to the last mark."""

    owner: str
    marks: deque[tuple[_TrackedBuffer, int]]
    waiting: int = 0
    moved_s: float = 0.0  # monotonic time of the last release of a mark, or of the first message
    full: bool = False  # a message was refused since then


class RouterSender:
    """Sender of one ROUTER socket, with a bound on the waiting bytes of each peer and each owner.

    libzmq counts messages, not bytes, and does not report how many it holds; but it reports the
    release of a buffer that it did not copy. So the last message of every `mark_bytes` for a peer
    is sent without a copy, as a mark: the queue is in order, so the release of the mark shows that
    all messages before it have left too. Invariant: at most the bound and one message wait for a
    peer; a peer with `can_send` gets the next message, however large; sending never blocks, and an
    error of a socket loses one peer. Used from the loop's thread.
    """

    def __init__(self, router: zmq.Socket[bytes], bounds: SendBufferLimits | None) -> None:
        """`bounds`: None for workers, which are trusted to read all messages."""
        # The method of the base class: the library's wrapper in Python doubles the time.
        self._send: Callable[..., Any] = super(zmq.Socket, router).send
        self._peer_bytes = bounds.peer_bytes if bounds is not None else 0
        self._owner_bytes = bounds.owner_bytes if bounds is not None else 0
        self._mark_bytes = bounds.mark_bytes if bounds is not None else 0
        self._unmarked: dict[bytes, int] = {}
        self._lines: dict[bytes, _Line] = {}
        self._closed_lines: list[_Line] = []  # whose buffers libzmq still holds
        self._of_owner: dict[str, int] = {}
        self._max_lines = MIN_MAX_LINES  # number of lines at which empty ones are removed

    def send(self, peer: bytes, body: bytes, owner: str = "") -> bool:
        """Send one message to a peer. Returns False if the peer is gone, or if too many bytes wait
        for it or its owner; never blocks."""
        if self._mark_bytes:
            size = self._unmarked.get(peer, 0) + len(body) + MESSAGE_BYTES
            if size >= self._mark_bytes:
                return self._send_marked(peer, body, size, owner)
            if len(self._unmarked) >= MAX_UNMARKED and peer not in self._unmarked:
                self._unmarked.clear()
            self._unmarked[peer] = size
        send = self._send
        try:
            send(peer, _NOBLOCK_MORE)
        except zmq.ZMQError as error:  # gone, or its queue is full, or no memory is left
            if error.errno == zmq.EHOSTUNREACH:
                self._unmarked.pop(peer, None)
            return False
        try:
            send(body, _NOBLOCK)
        except zmq.ZMQError:
            return self._abort_message()
        return True

    def can_send(self, peer: bytes, owner: str = "") -> bool:
        """Return whether `send` accepts a message of any size for the peer now."""
        line = self._lines.get(peer)
        if line is not None:
            self._subtract_released(line)
            if not self._fits(line, self._peer_bytes):
                line.full = True
                return False
        return self._owner_fits(owner, self._owner_bytes)

    def drop(self, peer: bytes) -> None:
        """Forget a peer whose connection has ended."""
        self._unmarked.pop(peer, None)
        line = self._lines.pop(peer, None)
        if line is not None and line.marks:
            self._closed_lines.append(line)

    @property
    def waits(self) -> bool:
        """True if marked messages wait for a peer."""
        return bool(self._lines)

    def stalled(self) -> list[bytes]:
        """Return the peers whose queues are full and have not moved for STALL_S."""
        limit_s = time.monotonic() - STALL_S
        self._remove_empty_lines()
        lines = self._lines.items()
        results = [peer for peer, line in lines if line.full and line.moved_s < limit_s]
        for line in self._closed_lines:
            self._subtract_released(line)
        self._closed_lines = [line for line in self._closed_lines if line.marks]
        return results

    def _remove_empty_lines(self) -> None:
        """Remove the queues of peers that have read everything or are gone."""
        for peer, line in list(self._lines.items()):
            self._subtract_released(line)
            if not line.marks:
                del self._lines[peer]

    def _send_marked(self, peer: bytes, body: bytes, size: int, owner: str) -> bool:
        line = self._lines.get(peer)
        if line is None:
            if len(self._lines) >= self._max_lines:
                self._remove_empty_lines()
                self._max_lines = max(MIN_MAX_LINES, 2 * len(self._lines))
            line = _Line(owner, deque(), moved_s=time.monotonic())
        else:
            self._subtract_released(line)
        if not (self._fits(line, size) and self._owner_fits(owner, size)):
            line.full = True
            return False
        frame = zmq.Frame(body, track=True, copy=False)
        try:
            self._send(peer, _NOBLOCK_MORE)
        except zmq.ZMQError:
            line.full = True
            return False
        try:
            self._send(frame, _NOBLOCK, copy=False, track=True)
        except zmq.ZMQError:
            return self._abort_message()
        self._lines[peer] = line
        self._unmarked.pop(peer, None)
        line.marks.append((frame.tracker, size))
        line.waiting += size
        self._of_owner[owner] = self._of_owner.get(owner, 0) + size
        return True

    def _abort_message(self) -> bool:
        """End a message, whose first frame names the peer, with an empty frame, because its body
        cannot be sent. Returns False."""
        self._send(b"", _NOBLOCK)
        return False

    def _fits(self, line: _Line, size: int) -> bool:
        """Return whether the bound of the peer allows a message. A large message counts as at most
        half the bound; the protocol limits the size of each."""
        return line.waiting + min(size, self._peer_bytes // 2) <= self._peer_bytes

    def _owner_fits(self, owner: str, size: int) -> bool:
        size = min(size, self._owner_bytes // 2)
        if self._of_owner.get(owner, 0) + size <= self._owner_bytes:
            return True
        for line in (*self._lines.values(), *self._closed_lines):
            self._subtract_released(line)
        return self._of_owner.get(owner, 0) + size <= self._owner_bytes

    def _subtract_released(self, line: _Line) -> None:
        """Subtract the bytes of released marks from those that wait."""
        marks, size = line.marks, 0
        while marks and marks[0][0].done:
            size += marks.popleft()[1]
        if size:
            line.waiting -= size
            line.moved_s, line.full = time.monotonic(), False
            remaining = self._of_owner.get(line.owner, 0) - size
            if remaining > 0:
                self._of_owner[line.owner] = remaining
            else:
                self._of_owner.pop(line.owner, None)
