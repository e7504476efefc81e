"""Stream sockets of the service's node: both ends, without a library's thread between them.

A message is its length in 4 bytes, little endian, and its body. The first one that a peer sends is
its name. Who is at the other end says the kernel (SO_PEERCRED, unix(7)), before a byte is read or
sent: each end closes a connection of another user. Invariants: nothing here blocks for longer than
FULL_S, but a connect for CONNECT_S; the bytes that wait for a peer and for all, those read ahead of
the event loop, and the connections are bounded, so that descriptors are left for all else.
"""

from __future__ import annotations

import contextlib
import errno
import math
import os
import resource
import select
import socket as stdlib_socket
import struct
import time
from collections import deque
from pathlib import Path

from simenv import files
from simenv.errors import LimitExceededError, NoServiceError
from simenv.wire.messages.client import MAX_MESSAGE_BYTES
from simenv.wire.transport.read_ahead import ALL_BYTES
from simenv.wire.transport.sockets import LOCAL_BOUNDS, PeerKind

SEND_QUEUE_MESSAGES = 2_000  # further messages to a peer that does not read are dropped
ALL_UNSENT_BYTES = 2**30  # of all clients; above it, only one that reads gets messages
MAX_NAME_BYTES = 255
READ_BYTES = 2**16  # in one call, unless more of a message is missing
LARGE_READ_BYTES = 2**20
BUFFER_BYTES = 2**20  # asked of the kernel, which may give less: a message of 500 tasks fits
FULL_S = 0.001  # for which a client waits until a service that reads has read more
LINGER_S = 0.2  # for which `close` waits for the same
CONNECT_S = 1.0  # for which a client waits while the service accepts no connections
BACKLOG = 4_096  # the kernel's own limit
MAX_ACCEPTED = 16  # in one pass
PAUSE_S = 0.1  # in which no connection is accepted after descriptors or memory ran out
MAX_READS = 8  # of one peer in one pass
_LENGTH = struct.Struct("<I")
_CREDENTIALS = struct.Struct("iII")  # ucred: pid, uid, gid
_TIMEVAL = struct.Struct("ll")
_POLLIN, _POLLOUT = select.POLLIN, select.POLLOUT
# SIGPIPE may have its default action, which ends the process. Not everywhere: imported there too.
_NOSIGNAL = getattr(stdlib_socket, "MSG_NOSIGNAL", 0)
_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


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
        self.partial = bytearray()  # the begin of a message
        self._missing_bytes = 0  # of it
        # Remains True if the exception of a signal, as KeyboardInterrupt, has left a call halfway:
        # bytes that the kernel took or gave are not accounted for, and no later one has a meaning.
        self._is_torn = False

    def _begin(self) -> None:
        if self._is_torn:
            raise BrokenStreamError
        self._is_torn = True

    def read(self) -> None:
        """Read into `inbox` until it has a message, all that has arrived is read, or others have to
        be served. Raises BrokenStreamError."""
        self._begin()
        for _ in range(MAX_READS):
            if not self._read_once() or self.inbox:
                break
        self._is_torn = False

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
        if self.partial:
            self.partial += data
            if len(data) < self._missing_bytes:
                self._missing_bytes -= len(data)
                return is_full
            data = bytes(self.partial)
            self.partial.clear()
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
            self.partial += data[begin:]
        return is_full

    def send(self, body: bytes) -> None:
        """Send a message, or as much of it as the kernel takes, behind what was not sent yet.
        Raises BrokenStreamError."""
        head, sent = _LENGTH.pack(len(body)), 0
        parts = (head + body,) if len(body) < READ_BYTES else (head, body)
        self._begin()
        if not self.unsent:
            try:
                if len(parts) == 1:  # the faster way
                    sent = self.socket.send(parts[0], _NOSIGNAL)
                else:
                    sent = self.socket.sendmsg(parts, (), _NOSIGNAL)
            except BlockingIOError:
                pass
            except OSError as error:
                self._is_torn = False  # what has arrived can still be read
                raise BrokenStreamError from error
        for part in parts:
            if sent < len(part):
                self._keep(memoryview(part)[sent:])
            sent = max(0, sent - len(part))
        self._is_torn = False

    def _keep(self, part: memoryview) -> None:
        self.unsent.append(part)
        self.unsent_bytes += len(part)

    def flush(self) -> bool:
        """Send what was not sent yet. Returns whether all of it was. Raises BrokenStreamError."""
        self._begin()
        while self.unsent:
            try:
                sent = self.socket.send(self.unsent[0], _NOSIGNAL)
            except BlockingIOError:
                break
            except OSError as error:
                self._is_torn = False
                raise BrokenStreamError from error
            self.unsent_bytes -= sent
            if sent == len(self.unsent[0]):
                self.unsent.popleft()
            else:
                self.unsent[0] = self.unsent[0][sent:]
        self._is_torn = False
        return not self.unsent


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
        self._unnamed: dict[_Peer, None] = {}  # in order of arrival
        self._turns: deque[_Peer] = deque()  # with messages
        self._read_bytes = 0  # that `receive` has not returned yet
        self._unsent_bytes = 0  # of all peers
        self._pid = 0  # of the process that sent the last message
        self._departed: list[bytes] = []  # clients that `take_departed` has not returned
        self.paused_until_s = 0.0  # monotonic; 0: connections are accepted

    def fileno(self) -> int:
        """Return the descriptor that can be read while there is something to do."""
        return self._epoll.fileno()

    def bind(self, path: Path, kind: PeerKind) -> None:
        """Listen at a path, also where a socket was removed. Raises OSError."""
        path.unlink(missing_ok=True)
        for descriptor, (removed, _) in list(self._listening.items()):
            if removed.getsockname() == str(path):
                self._accept(removed, kind)  # those who came before it was removed
                del self._listening[descriptor]
                removed.close()
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
                if descriptor in self._listening:  # else closed in this pass
                    self._accept(*self._listening[descriptor])
                continue
            try:
                if events & _POLLOUT:
                    self._flush(peer)
                if events & ~_POLLOUT and not peer.inbox and self._may_read():
                    self._read(peer)
            except BrokenStreamError:
                self._close(peer)

    def _flush(self, peer: _Peer) -> None:
        waited = peer.unsent_bytes
        try:
            if peer.flush():
                self._epoll.modify(peer.descriptor, _POLLIN)
        finally:
            self._unsent_bytes -= waited - peer.unsent_bytes

    def _may_read(self) -> bool:
        """Return whether there is room for more messages. If parts of messages take it all, that
        peer is closed which has sent most."""
        if self._read_bytes <= ALL_BYTES:
            return True
        if not self._turns:
            self._close(max(self._peers.values(), key=lambda peer: len(peer.partial)))
        return False

    def _read(self, peer: _Peer) -> None:
        known = len(peer.partial)
        try:
            peer.read()
        finally:
            self._read_bytes += len(peer.partial) - known
        if not peer.name and peer.inbox:
            peer.name = peer.inbox.popleft()
            # Names with a slash are those of remote peers.
            if not peer.name or b"/" in peer.name or peer.name in self._by_name[peer.kind]:
                raise BrokenStreamError
            self._by_name[peer.kind][peer.name] = peer
            del self._unnamed[peer]
        if peer.inbox:
            self._turns.append(peer)
            self._read_bytes += sum(map(len, peer.inbox))

    def _accept(self, listening: stdlib_socket.socket, kind: PeerKind) -> None:
        for _ in range(MAX_ACCEPTED):
            try:
                connected, _ = listening.accept()
            except OSError as error:  # there is none, or it has gone again
                if error.errno in _EXHAUSTED:
                    self._watch_listening(0)  # they would be reported without a pause
                    self.paused_until_s = time.monotonic() + PAUSE_S
                return
            pid, uid = peer_of(connected)
            if not files.is_current_user(uid) or not self._has_room(kind):
                connected.close()
                continue
            peer = _Peer(connected, kind, pid)
            self._peers[peer.descriptor] = peer
            self._unnamed[peer] = None
            self._epoll.register(peer.descriptor, _POLLIN)

    def resume(self) -> None:
        """Accept connections again, if the pause is over."""
        if time.monotonic() >= self.paused_until_s:
            self.paused_until_s = 0.0
            self._watch_listening(_POLLIN)

    def _watch_listening(self, events: int) -> None:
        for descriptor in self._listening:
            self._epoll.modify(descriptor, events)

    def _has_room(self, kind: PeerKind) -> bool:
        """Return whether one more connection leaves half the descriptors to all else. Those that
        have not sent a name make room for others, the oldest first."""
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2
        if kind is PeerKind.WORKER or limit <= 0 or len(self._peers) < limit:
            return True  # workers are not many: the service starts them. <= 0: there is no limit
        if self._unnamed:
            self._close(next(iter(self._unnamed)))
        return len(self._peers) < limit

    def receive(self) -> tuple[PeerKind, bytes, bytes] | None:
        """Return the next (kind, peer, body); None if there is none."""
        if not self._turns:
            return None
        peer = self._turns.popleft()
        body = peer.inbox.popleft()
        self._read_bytes -= len(body)
        if peer.inbox:
            self._turns.append(peer)
        self._pid = peer.pid
        return peer.kind, peer.name, body

    @property
    def sender_pid(self) -> int:
        """Process that connected the stream of the last message, as the kernel knows it."""
        return self._pid

    def origin(self) -> str:
        """Return the process that sent the last message, as text."""
        return f"process {self._pid} of uid {os.geteuid()}"

    def holds(self, kind: PeerKind, name: bytes) -> bool:
        return name in self._by_name[kind]

    def can_send(self, name: bytes) -> bool:
        """Return whether `send` accepts a message of any size for this client now."""
        peer = self._by_name[PeerKind.CLIENT][name]
        return not peer.unsent or (
            len(peer.unsent) < SEND_QUEUE_MESSAGES
            and peer.unsent_bytes < LOCAL_BOUNDS.peer_bytes
            and self._unsent_bytes < ALL_UNSENT_BYTES
        )

    def send(self, kind: PeerKind, name: bytes, body: bytes) -> bool:
        """Send one message. Returns False if the peer is gone or too much waits for it."""
        peer = self._by_name[kind][name]
        waited = peer.unsent_bytes
        if waited and not (
            len(peer.unsent) < SEND_QUEUE_MESSAGES
            and waited + len(body) // 2 <= LOCAL_BOUNDS.peer_bytes
            and (self._unsent_bytes < ALL_UNSENT_BYTES or kind is PeerKind.WORKER)
        ):
            return False
        try:
            peer.send(body)
        except BrokenStreamError:
            self._close(peer)
            return False
        if peer.unsent:
            self._unsent_bytes += peer.unsent_bytes - waited
            if not waited:
                self._epoll.modify(peer.descriptor, _POLLIN | _POLLOUT)
        return True

    def take_departed(self) -> list[bytes]:
        """Return the clients whose connections have ended since the last call."""
        departed, self._departed = self._departed, []
        return departed

    def _close(self, peer: _Peer) -> None:
        if peer.name and self._by_name[peer.kind].get(peer.name) is peer:
            del self._by_name[peer.kind][peer.name]
            if peer.kind is PeerKind.CLIENT:
                self._departed.append(peer.name)
        self._unnamed.pop(peer, None)
        self._read_bytes -= len(peer.partial)
        self._unsent_bytes -= peer.unsent_bytes
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
            # A stopped service accepts no connections: when the backlog is full, EAGAIN after that.
            patience = _TIMEVAL.pack(int(CONNECT_S), 0)
            connected.setsockopt(stdlib_socket.SOL_SOCKET, stdlib_socket.SO_SNDTIMEO, patience)
            connected.connect(str(path))
            server, uid = peer_of(connected)
            if not files.is_current_user(uid) or (pid and server != pid):
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
        self._woken = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
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
        try:
            while not stream.flush() and poll.poll(math.ceil(patience_s * 1000)):
                pass
        finally:
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
                    if stream.inbox:
                        continue  # later: else nothing tells the caller that it has a message
                    os.eventfd_read(self._woken)
                    return None
                try:
                    if events & _POLLOUT:
                        stream.flush()
                        self._watch()
                    if events & ~_POLLOUT:
                        stream.read()
                except BrokenStreamError:
                    self._lose()
                    self._epoll.unregister(stream.descriptor)
                    end_s = 0.0  # returns, once, to say so
            if stream.inbox:
                return stream.inbox.popleft()
            timeout_s = end_s - time.monotonic()
            if timeout_s <= 0.0:
                return None

    def _lose(self) -> None:
        """Send no more. What had arrived before is still received."""
        self.is_lost = True
        self._stream.unsent.clear()
        self._stream.unsent_bytes = 0

    def wake(self) -> None:
        os.eventfd_write(self._woken, 1)

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
