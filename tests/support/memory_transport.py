"""In-memory transport with the guarantees of the ZeroMQ one."""

import os
import threading
import weakref
from collections import deque
from collections.abc import Mapping
from contextlib import suppress

from simenv.cli.archive import Inbox
from simenv.errors import KeyRefusedError, NoServiceError
from simenv.wire.messages.client import FAR_MESSAGE_BYTES, MAX_MESSAGE_BYTES
from simenv.wire.rights import LOCAL, LOCAL_WORKER, Identity, Role
from simenv.wire.transport.sockets import PeerKind
from simenv.wire.transport.unix_streams import SEND_QUEUE_MESSAGES, check_size


class MemoryListener:
    """The service's end of in-memory connections; `connect` creates the other ends."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._inbox: tuple[deque[tuple[bytes, bytes, Identity]], ...] = (deque(), deque())
        self._peers: dict[tuple[PeerKind, bytes], MemoryConnection] = {}
        self._keys: Mapping[str, Identity] = {}
        self._next = 0
        self._departed: list[bytes] = []
        self._open = True

    def connect(self, peer_kind: PeerKind, identity: bytes, key: str = "") -> "MemoryConnection":
        """Connect a new peer, whose messages carry `identity`. With a `key` it is a remote client.
        Raises KeyRefusedError if the key is not accepted."""
        with self._changed:
            sender = LOCAL_WORKER if peer_kind is PeerKind.WORKER else LOCAL
            if key:
                if key not in self._keys:
                    raise KeyRefusedError("the service does not know this key")
                sender, peer_kind = self._keys[key], PeerKind.CLIENT
            connection = MemoryConnection(self, peer_kind, identity, sender, key)
            self._peers[peer_kind, identity] = connection
        return connection

    def admit(self, keys: Mapping[str, Identity], revocation_notice: bytes) -> None:
        keys = {key: identity for key, identity in keys.items() if identity.role is not Role.WORKER}
        with self._changed:
            self._keys = keys
            for key, connection in list(self._peers.items()):
                if connection.key and keys.get(connection.key) != connection.sender:
                    if revocation_notice:
                        connection.deliver(revocation_notice)
                    del self._peers[key]
                    inbox = self._inbox[key[0]]
                    remaining = [entry for entry in inbox if entry[0] != key[1]]
                    inbox.clear()
                    inbox.extend(remaining)

    def admit_key(self, key: str, identity: Identity) -> None:
        self.admit({**self._keys, key: identity}, b"")

    def revoke_key(self, key: str, revocation_notice: bytes) -> None:
        remaining = {each: identity for each, identity in self._keys.items() if each != key}
        self.admit(remaining, revocation_notice)

    def wait(self, timeout_s: float) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: any(self._inbox), timeout_s)

    def receive(self) -> tuple[PeerKind, bytes, bytes, Identity] | None:
        with self._changed:
            for _ in range(2):
                turn = self._next
                self._next = 1 - turn
                if self._inbox[turn]:
                    return PeerKind(turn), *self._inbox[turn].popleft()
        return None

    def origin(self) -> str:
        return "this process"

    def sender_pid(self) -> int:
        return 0

    def send(self, peer_kind: PeerKind, peer: bytes, body: bytes) -> bool:
        connection = self._peers.get((peer_kind, peer))
        return connection is not None and connection.deliver(body)

    def can_send(self, peer: bytes) -> bool:
        connection = self._peers.get((PeerKind.CLIENT, peer))
        return connection is None or connection.can_send

    def take_departed(self) -> list[bytes]:
        with self._changed:
            departed, self._departed = self._departed, []
        return departed

    def message_bytes(self, peer: bytes) -> int:
        connection = self._peers.get((PeerKind.CLIENT, peer))
        return FAR_MESSAGE_BYTES if connection is not None and connection.key else MAX_MESSAGE_BYTES

    def close(self) -> None:
        with self._changed:
            self._open = False
            self._peers.clear()

    def accept(self, peer_kind: PeerKind, identity: bytes, body: bytes, sender: Identity) -> None:
        """Take one message from a connection, which calls this; messages of a peer that was cut off
        are dropped. Raises NoServiceError after `close`."""
        with self._changed:
            if not self._open:
                raise NoServiceError("the service is shutting down")
            if (peer_kind, identity) not in self._peers:
                return
            self._inbox[peer_kind].append((identity, body, sender))
            self._changed.notify_all()

    def forget(self, peer_kind: PeerKind, identity: bytes) -> None:
        """Remove a peer; its connection calls this when it closes."""
        with self._changed:
            if self._peers.pop((peer_kind, identity), None) is not None:
                self._departed.append(identity)


class MemoryConnection:
    """A client's or worker's end of an in-memory connection."""

    message_bytes = MAX_MESSAGE_BYTES

    def __init__(
        self, listener: MemoryListener, peer_kind: PeerKind, identity: bytes, sender: Identity,
        key: str,
    ) -> None:  # fmt: skip
        self._listener, self._peer_kind, self._identity = listener, peer_kind, identity
        self.sender, self.key = sender, key
        self._inbox = Inbox()
        self.wake = self._inbox.wake
        self._signal = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        weakref.finalize(self, os.close, self._signal)  # a loop may watch it after `close`

    def fileno(self) -> int:
        return self._signal

    def receive(self, timeout_s: float) -> bytes | None:
        self._clear()
        return self._inbox.receive(timeout_s)

    def send(self, body: bytes) -> None:
        check_size(body, self.message_bytes)
        self._clear()
        self._listener.accept(self._peer_kind, self._identity, body, self.sender)

    def deliver(self, body: bytes) -> bool:
        """Take one message from the listener, which calls this; False if this end reads too
        slowly."""
        if len(self._inbox) >= SEND_QUEUE_MESSAGES:
            return False
        self._inbox.put(body)
        os.eventfd_write(self._signal, 1)
        return True

    @property
    def can_send(self) -> bool:
        """True if this end reads fast enough for another message."""
        return len(self._inbox) < SEND_QUEUE_MESSAGES // 2

    def close(self) -> None:
        self._listener.forget(self._peer_kind, self._identity)

    def _clear(self) -> None:
        """Take the signal away, which ZeroMQ does when it reads or sends."""
        with suppress(BlockingIOError):
            os.eventfd_read(self._signal)
