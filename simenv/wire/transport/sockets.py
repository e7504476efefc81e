"""Sockets of all transports: kinds of peers, options, and bounds of what waits in them."""

from __future__ import annotations

import enum
import fcntl
import socket as stdlib_socket
import struct
import termios
import threading
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


def open_socket(host: str, port: int, last: int = 0) -> stdlib_socket.socket:
    """Listen on an address for a protocol that is not ZeroMQ's; port 0 takes `last` if that is free
    and not 0, else any. Raises ConfigError."""
    if last and not port:
        with suppress(ConfigError):
            return open_socket(host, last)
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
        hint = "an address of this machine, and a port that is free"
        text = f"cannot listen on {host}:{port}: {error.strerror or error}"
        raise ConfigError(text, hint=hint) from error
    return listener


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


ALL_BYTES = 384 * 2**20
KEY_BYTES = 128 * 2**20
UNAUTHENTICATED_BYTES = 32 * 2**20  # of unauthenticated connections: a handshake is below 2 KiB
POLL_S, FAST_CHECK_S = 0.1, 0.02
_FAST_CHECK_BYTES = 16 * 2**20
_INFO_BYTES, _RECEIVED_AT = 192, 128  # tcpi_bytes_received of struct tcp_info (Linux 4.1)
_SHORT_FRAME = 255
_SEALED_BYTES = 33  # CurveZMQ: "MESSAGE", nonce, code of authentication, flags


class _Flow(msgspec.Struct, eq=False):
    """Key of one connection, and the bytes that the service has read from it."""

    key: str = ""  # "": not authenticated yet
    read_bytes: int = 0


class ReadAhead:
    """Monitor of the bytes that the transport has received and the service has not read yet.

    libzmq reads ahead of the service and does not report the amount. The kernel counts received
    bytes (TCP_INFO), and this class counts those that the service has read: the difference is in
    memory. Invariant: connections are closed above a bound for all connections, for one key, or for
    all unauthenticated ones. An idle service checks rarely, a service without connections never.

    `cut` ends a connection, by its descriptor. The loop's thread counts the bytes that it reads; a
    thread of the monitor checks the bounds, because incomplete messages do not wake the loop.
    """

    def __init__(self, cut: Callable[[int], None], on_rejection: Callable[[str], None]) -> None:
        self._cut = cut
        self._on_rejection = on_rejection
        self._flows: dict[int, _Flow] = {}
        self._changed = threading.Event()
        self._ending = False
        self._thread: threading.Thread | None = None

    def accepted(self, fd: int) -> None:
        """Add a new connection."""
        self._flows[fd] = _Flow()
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="read-ahead", daemon=True)
            self._thread.start()
        self._changed.set()

    def set_key(self, fd: int, key: str) -> None:
        """Set the key of a connection, which its first message contains."""
        flow = self._flows.get(fd)
        if flow is not None:
            flow.key = key

    def count_read(self, fd: int, size: int) -> None:
        """Count a frame of `size` bytes that the service has read from a connection."""
        flow = self._flows.get(fd)
        if flow is not None:
            sealed = size + _SEALED_BYTES
            flow.read_bytes += sealed + (9 if sealed > _SHORT_FRAME else 2)

    def remove(self, fd: int) -> None:
        """Remove a connection that has ended."""
        self._flows.pop(fd, None)

    def close(self) -> None:
        self._ending = True
        self._changed.set()
        if self._thread is not None:
            self._thread.join()

    def close_excess(self) -> int:
        """Close the connections above the bounds; returns the unread bytes of the others."""
        unread: dict[int, int] = {}  # in order of arrival
        of_key: dict[str, list[int]] = {}
        # A copy in one step: the event loop adds connections meanwhile.
        for fd, flow in self._flows.copy().items():
            size = _received(fd) - flow.read_bytes
            if size > 0:
                unread[fd] = size
                of_key.setdefault(flow.key, []).append(fd)
        for key, fds in of_key.items():
            if key:  # close the newest first, so that earlier requests can complete
                self._cut_above(KEY_BYTES, fds[::-1], unread)
            else:
                self._cut_above(
                    UNAUTHENTICATED_BYTES, sorted(fds, key=unread.__getitem__)[::-1], unread
                )
        self._cut_above(ALL_BYTES, sorted(unread, key=unread.__getitem__)[::-1], unread)
        return sum(unread.values())

    def _cut_above(self, limit: int, fds: list[int], unread: dict[int, int]) -> None:
        """Close connections, in order, until the rest together hold at most `limit` bytes."""
        total = sum(unread[fd] for fd in fds)
        for fd in fds:
            if total <= limit:
                return
            size = unread.pop(fd)
            total -= size
            self._cut(fd)
            self._on_rejection(f"a connection was cut off, {size} bytes of which waited to be read")

    def _run(self) -> None:
        while not self._ending:
            if not self._flows:
                self._changed.wait()
                self._changed.clear()
                continue
            is_loaded = self.close_excess() > _FAST_CHECK_BYTES
            self._changed.wait(FAST_CHECK_S if is_loaded else POLL_S)
            self._changed.clear()


def _received(fd: int) -> int:
    """Return the bytes that have left the kernel's receive queue of a TCP connection; 0 if the
    descriptor is no longer one."""
    try:
        borrowed = stdlib_socket.socket(
            stdlib_socket.AF_INET, stdlib_socket.SOCK_STREAM, 0, fileno=fd
        )
    except OSError:
        return 0
    try:
        info = borrowed.getsockopt(stdlib_socket.IPPROTO_TCP, stdlib_socket.TCP_INFO, _INFO_BYTES)
        waiting = fcntl.ioctl(fd, termios.FIONREAD, bytes(4))
    except OSError:
        return 0
    finally:
        borrowed.detach()  # libzmq closes it
    if len(info) < _RECEIVED_AT + 8:
        return 0
    received: int = struct.unpack_from("=Q", info, _RECEIVED_AT)[0]
    return received - int.from_bytes(waiting, "little")


MAX_UNAUTHENTICATED = 512
MAX_AUTHENTICATED = 1_024
MAX_PER_KEY = 256


class ConnectionLimiter:
    """Choice of the connections of a remote listener to close, so that no client uses up all.

    Pure: events in, descriptors to close out. A connection is unauthenticated from its acceptance
    until its first message, which requires an accepted key. Invariant: the newest
    `max_unauthenticated` unauthenticated connections stay, so that a flood of silent ones cannot
    exclude a client that needs a few milliseconds to authenticate. Source: MaxStartups of OpenSSH.
    Used from one thread.
    """

    def __init__(
        self,
        max_authenticated: int = MAX_AUTHENTICATED,
        max_per_key: int = MAX_PER_KEY,
        max_unauthenticated: int = MAX_UNAUTHENTICATED,
    ) -> None:
        self._max_unauthenticated = max_unauthenticated
        self._max_authenticated, self._max_per_key = max_authenticated, max_per_key
        self._unauthenticated: dict[int, None] = {}  # in order of arrival
        self._authenticated: dict[int, str] = {}  # authenticated connections with their keys
        self._of_key: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._unauthenticated) + len(self._authenticated)

    def accepted(self, fd: int) -> int | None:
        """Add a new connection. Returns the connection to close if there are too many, or None."""
        self.remove(fd)
        self._unauthenticated[fd] = None
        if len(self._unauthenticated) <= self._max_unauthenticated:
            return None
        oldest = next(iter(self._unauthenticated))
        del self._unauthenticated[oldest]
        return oldest

    def authenticate(self, fd: int, key: str) -> bool:
        """Record the first message of a connection. Returns False if there are too many, so that
        this connection must be closed."""
        if self._authenticated.get(fd) == key:
            return True
        self.remove(fd)
        if (
            len(self._authenticated) >= self._max_authenticated
            or self._of_key.get(key, 0) >= self._max_per_key
        ):
            return False
        self._authenticated[fd] = key
        self._of_key[key] = self._of_key.get(key, 0) + 1
        return True

    def exceeded(self, key: str) -> str:
        """Return the limit because of which `authenticate` has refused a connection."""
        if self._of_key.get(key, 0) >= self._max_per_key:
            return f"{self._max_per_key} connections with this key"
        return f"{self._max_authenticated} connections of all users together"

    def remove(self, fd: int) -> None:
        """Remove a connection from the counts."""
        self._unauthenticated.pop(fd, None)
        key = self._authenticated.pop(fd, None)
        if key is not None:
            self._of_key[key] -= 1
            if not self._of_key[key]:
                del self._of_key[key]
