"""Stream sockets of the service's node: both ends, without a library's thread between them.

A message is its length in 4 bytes, little endian, and its body. The first one that a peer sends is
its name. Who is at the other end says the kernel (SO_PEERCRED, unix(7)), before a byte is read or
sent: each end closes a connection of another user. Invariants: nothing here blocks for longer than
FULL_S; the bytes that wait for a peer, and those read ahead of the event loop, are bounded.
"""

from __future__ import annotations

import contextlib
import math
import os
import select
import socket as stdlib_socket
import struct
import time
from collections import deque
from pathlib import Path

from simenv.errors import LimitExceededError, NoServiceError
from simenv.wire.messages.client import MAX_MESSAGE_BYTES
from simenv.wire.transport.sockets import LOCAL_BOUNDS, PeerKind

SEND_QUEUE_MESSAGES = 2_000  # further messages to a peer that does not read are dropped
MAX_NAME_BYTES = 255
READ_BYTES = 2**16  # in one call, unless more of a message is missing
LARGE_READ_BYTES = 2**20
BUFFER_BYTES = 2**20  # asked of the kernel, which may give less: a message of 500 tasks fits
FULL_S = 0.001  # for which a client waits until a service that reads has read more
LINGER_S = 0.2  # for which `close` waits for the same
BACKLOG = 128
_LENGTH = struct.Struct("<I")
_CREDENTIALS = struct.Struct("iII")  # ucred: pid, uid, gid
_POLLIN, _POLLOUT = select.POLLIN, select.POLLOUT


def check_size(body: bytes, limit: int) -> None:
    """Check the size of a message. Raises LimitExceededError above the limit of its receiver."""
    if len(body) > limit:
        raise LimitExceededError(
            f"a message of {len(body)} bytes is over this connection's limit of {limit} bytes",
            hint="fewer bindings in a task, or a smaller program"
            + ("; a client on the service's machine may send more" * (limit < MAX_MESSAGE_BYTES)),
        )


def unread_error() -> NoServiceError:
    """Return the error of a client whose messages the service does not read."""
    text = f"the service has not read {SEND_QUEUE_MESSAGES} messages; it may have ended"
    return NoServiceError(text, hint="see `simenv status` and `simenv logs`")


class BrokenStreamError(Exception):
    """The other end has closed a stream, or does not speak the protocol."""


def peer_of(connected: stdlib_socket.socket) -> tuple[int, int]:
    """Return process and user at the other end of a Unix socket, as the kernel knows them. Where it
    does not tell them (not Linux), the mode of the socket's folder decides alone."""
    name = getattr(stdlib_socket, "SO_PEERCRED", None)
    if name is None:
        return 0, os.geteuid()
    credentials = connected.getsockopt(stdlib_socket.SOL_SOCKET, name, _CREDENTIALS.size)
    pid, uid, _ = _CREDENTIALS.unpack(credentials)
    return int(pid), int(uid)


class MessageStream:
    """Messages over a connected stream socket, which never blocks. `first_bytes`: limit of the
    first message from the other end; that of later ones is MAX_MESSAGE_BYTES."""

    def __init__(
        self, connected: stdlib_socket.socket, first_bytes: int = MAX_MESSAGE_BYTES
    ) -> None:
        connected.setblocking(False)
        connected.setsockopt(stdlib_socket.SOL_SOCKET, stdlib_socket.SO_SNDBUF, BUFFER_BYTES)
        self.socket = connected
        self.descriptor = connected.fileno()
        self._max_bytes = first_bytes
        self.inbox: deque[bytes] = deque()
        self.unsent: deque[memoryview] = deque()  # what the kernel did not take yet
        self.unsent_bytes = 0
        self._partial = bytearray()  # the begin of a message
        self._missing_bytes = 0  # of it

    def read(self) -> None:
        """Read into `inbox` until it has a message or all that has arrived is read. Raises
        BrokenStreamError."""
        while not self.inbox and self._read_once():
            pass

    def _read_once(self) -> bool:
        """Read once. Returns whether there may be more to read. Raises BrokenStreamError."""
        size = max(READ_BYTES, min(self._missing_bytes, LARGE_READ_BYTES))
        try:
            data = self.socket.recv(size)
        except BlockingIOError:
            return False
        except OSError as error:
            raise BrokenStreamError from error
        if not data:
            raise BrokenStreamError
        is_full = len(data) == size
        if self._partial:
            self._partial += data
            if len(data) < self._missing_bytes:
                self._missing_bytes -= len(data)
                return is_full
            data = bytes(self._partial)
            self._partial.clear()
        begin, end = 0, len(data)
        self._missing_bytes = 0
        while end - begin >= _LENGTH.size:
            stop = begin + _LENGTH.size + _LENGTH.unpack_from(data, begin)[0]
            if stop - begin - _LENGTH.size > self._max_bytes:
                raise BrokenStreamError
            if stop > end:
                self._missing_bytes = stop - end
                break
            self._max_bytes = MAX_MESSAGE_BYTES
            self.inbox.append(data[begin + _LENGTH.size : stop])
            begin = stop
        if begin < end:
            self._partial += data[begin:]
        return is_full

    def send(self, body: bytes) -> None:
        """Send a message, or as much of it as the kernel takes, behind what was not sent yet.
        Raises BrokenStreamError."""
        head, sent = _LENGTH.pack(len(body)), 0
        parts = (head + body,) if len(body) < READ_BYTES else (head, body)
        if not self.unsent:
            try:
                # The first is the faster one.
                sent = self.socket.send(*parts) if len(parts) == 1 else self.socket.sendmsg(parts)
            except BlockingIOError:
                pass
            except OSError as error:
                raise BrokenStreamError from error
        for part in parts:
            if sent < len(part):
                self._keep(memoryview(part)[sent:])
            sent = max(0, sent - len(part))

    def _keep(self, part: memoryview) -> None:
        self.unsent.append(part)
        self.unsent_bytes += len(part)

    def flush(self) -> bool:
        """Send what was not sent yet. Returns whether all of it was. Raises BrokenStreamError."""
        while self.unsent:
            try:
                sent = self.socket.send(self.unsent[0])
            except BlockingIOError:
                return False
            except OSError as error:
                raise BrokenStreamError from error
            self.unsent_bytes -= sent
            if sent == len(self.unsent[0]):
                self.unsent.popleft()
            else:
                self.unsent[0] = self.unsent[0][sent:]
        return True


class _Peer(MessageStream):
    """A connected peer of the listener."""

    def __init__(self, connected: stdlib_socket.socket, kind: PeerKind, pid: int) -> None:
        super().__init__(connected, MAX_NAME_BYTES)
        self.kind, self.pid = kind, pid
        self.name = b""  # its first message


class UnixListener:
    """The service's end of all streams. Used from one thread. Peers take turns, a message each."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._listening: dict[int, tuple[stdlib_socket.socket, PeerKind]] = {}
        self._peers: dict[int, _Peer] = {}  # by descriptor
        self._by_name: tuple[dict[bytes, _Peer], ...] = tuple({} for _ in PeerKind)
        self._turns: deque[_Peer] = deque()  # with messages
        self._pid = 0  # of the process that sent the last message

    def fileno(self) -> int:
        """Return the descriptor that can be read while there is something to do."""
        return self._epoll.fileno()

    def bind(self, path: Path, kind: PeerKind) -> None:
        """Listen at a path, also where a socket was removed. Raises OSError."""
        path.unlink(missing_ok=True)
        listening = stdlib_socket.socket(stdlib_socket.AF_UNIX)
        try:
            listening.bind(str(path))
            path.chmod(0o600)
            listening.setblocking(False)
            listening.listen(BACKLOG)
        except BaseException:
            listening.close()
            raise
        self._listening[listening.fileno()] = listening, kind
        self._epoll.register(listening, _POLLIN)

    @property
    def has_messages(self) -> bool:
        """True if messages were read that `receive` has not returned."""
        return bool(self._turns)

    def process_events(self) -> None:
        """Accept connections, read what has arrived, and send what waits."""
        for descriptor, events in self._epoll.poll(0):
            peer = self._peers.get(descriptor)
            if peer is None:
                self._accept(*self._listening[descriptor])
                continue
            try:
                if events & _POLLOUT and peer.flush():
                    self._epoll.modify(descriptor, _POLLIN)
                if events & ~_POLLOUT and not peer.inbox:
                    self._read(peer)
            except BrokenStreamError:
                self._close(peer)

    def _read(self, peer: _Peer) -> None:
        peer.read()
        if not peer.name and peer.inbox:
            peer.name = peer.inbox.popleft()
            if not peer.name or peer.name in self._by_name[peer.kind]:
                raise BrokenStreamError
            self._by_name[peer.kind][peer.name] = peer
        if peer.inbox:
            self._turns.append(peer)

    def _accept(self, listening: stdlib_socket.socket, kind: PeerKind) -> None:
        try:
            connected, _ = listening.accept()
        except OSError:
            return  # it has gone again, or no descriptor is free
        pid, uid = peer_of(connected)
        if uid != os.geteuid():
            connected.close()
            return
        peer = _Peer(connected, kind, pid)
        self._peers[peer.descriptor] = peer
        self._epoll.register(peer.descriptor, _POLLIN)

    def receive(self) -> tuple[PeerKind, bytes, bytes] | None:
        """Return the next (kind, peer, body); None if there is none."""
        if not self._turns:
            return None
        peer = self._turns.popleft()
        body = peer.inbox.popleft()
        if peer.inbox:
            self._turns.append(peer)
        self._pid = peer.pid
        return peer.kind, peer.name, body

    def origin(self) -> str:
        """Return the process that sent the last message, as text."""
        return f"process {self._pid} of uid {os.geteuid()}"

    def holds(self, kind: PeerKind, name: bytes) -> bool:
        return name in self._by_name[kind]

    def can_send(self, name: bytes) -> bool:
        """Return whether `send` accepts a message of any size for this client now."""
        peer = self._by_name[PeerKind.CLIENT][name]
        return len(peer.unsent) < SEND_QUEUE_MESSAGES and (
            peer.unsent_bytes < LOCAL_BOUNDS.peer_bytes
        )

    def send(self, kind: PeerKind, name: bytes, body: bytes) -> bool:
        """Send one message. Returns False if the peer is gone or too much waits for it."""
        peer = self._by_name[kind][name]
        waits = bool(peer.unsent)
        if waits and not (
            len(peer.unsent) < SEND_QUEUE_MESSAGES
            and peer.unsent_bytes + len(body) // 2 <= LOCAL_BOUNDS.peer_bytes
        ):
            return False
        try:
            peer.send(body)
        except BrokenStreamError:
            self._close(peer)
            return False
        if peer.unsent and not waits:
            self._epoll.modify(peer.descriptor, _POLLIN | _POLLOUT)
        return True

    def _close(self, peer: _Peer) -> None:
        if peer.name and self._by_name[peer.kind].get(peer.name) is peer:
            del self._by_name[peer.kind][peer.name]
        del self._peers[peer.descriptor]
        peer.socket.close()

    def close(self) -> None:
        for peer in self._peers.values():
            with contextlib.suppress(BrokenStreamError):
                peer.flush()
            peer.socket.close()
        for listening, _ in self._listening.values():
            listening.close()
        self._epoll.close()


class UnixConnection:
    """A stream to the service of this user on this machine; see `Connection`."""

    message_bytes = MAX_MESSAGE_BYTES

    def __init__(self, path: Path, identity: bytes, pid: int = 0) -> None:
        """`pid`: of the service; 0: not known. Raises NoServiceError if no such process of this
        user listens there."""
        self.address = f"unix:{path}"
        self.is_lost = False  # the service has closed the connection
        connected = stdlib_socket.socket(stdlib_socket.AF_UNIX)
        try:
            connected.connect(str(path))
            server, uid = peer_of(connected)
            if uid != os.geteuid() or (pid and server not in (0, pid)):
                raise NoServiceError(f"process {server} of user {uid} listens at {path}: not used")
            self._stream = MessageStream(connected)
            self._stream.send(identity)
        except (OSError, BrokenStreamError) as error:
            connected.close()
            raise NoServiceError(f"no service at {path}: {error}") from error
        except BaseException:
            connected.close()
            raise
        self._epoll = select.epoll()
        self._woken, self._waker = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._epoll.register(connected, _POLLIN)
        self._epoll.register(self._woken, _POLLIN)
        self._waits_to_send = False
        self._owner = os.getpid()

    def send(self, body: bytes) -> None:
        check_size(body, self.message_bytes)
        stream = self._stream
        if self.is_lost:
            return  # as if it had been lost on its way
        if len(stream.unsent) >= SEND_QUEUE_MESSAGES:
            raise unread_error()
        try:
            stream.send(body)
            if stream.unsent:
                self._push(FULL_S)
        except BrokenStreamError:
            self._lose()

    def _push(self, patience_s: float) -> None:
        """Send what waits for as long as the service reads it, a piece in `patience_s`; the rest is
        sent by `receive`."""
        stream, poll = self._stream, select.poll()
        poll.register(stream.descriptor, _POLLOUT)
        while not stream.flush() and poll.poll(math.ceil(patience_s * 1000)):
            pass
        self._watch()

    def _watch(self) -> None:
        """Let `receive` wait for what there is to do."""
        if bool(self._stream.unsent) is not self._waits_to_send:
            self._waits_to_send = not self._waits_to_send
            events = _POLLIN | (_POLLOUT if self._waits_to_send else 0)
            self._epoll.modify(self._stream.descriptor, events)

    def receive(self, timeout_s: float) -> bytes | None:
        stream = self._stream
        if stream.inbox:
            return stream.inbox.popleft()
        end_s = time.monotonic() + timeout_s
        while True:
            for descriptor, events in self._epoll.poll(max(0.0, timeout_s)):
                if descriptor == self._woken:
                    os.read(self._woken, 4096)
                    return None
                try:
                    if events & _POLLOUT:
                        stream.flush()
                        self._watch()
                    if events & ~_POLLOUT:
                        stream.read()
                except BrokenStreamError:
                    self._lose()
            if stream.inbox:
                return stream.inbox.popleft()
            timeout_s = end_s - time.monotonic()
            if timeout_s <= 0.0:
                return None

    def _lose(self) -> None:
        self.is_lost = True
        self._stream.unsent.clear()
        self._stream.unsent_bytes = 0
        self._epoll.unregister(self._stream.descriptor)

    def wake(self) -> None:
        with contextlib.suppress(BlockingIOError):  # the pipe is full: `receive` will return
            os.write(self._waker, b"w")

    def fileno(self) -> int:
        return self._epoll.fileno()

    def close(self) -> None:
        """Close the connection. Idempotent. A forked child does not touch the parent's stream."""
        if self._epoll.closed:
            return
        if self._stream.unsent and self._owner == os.getpid():
            with contextlib.suppress(BrokenStreamError):
                self._push(LINGER_S)
        self._stream.socket.close()
        self._epoll.close()
        os.close(self._woken)
        os.close(self._waker)
