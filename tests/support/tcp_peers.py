"""Peers of a TCP listener, with and without keys."""

import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import zmq

from simenv.wire.keyfiles import KeyPair, new_pair
from simenv.wire.rights import Identity, Role
from simenv.wire.transport.sockets import PeerKind
from simenv.wire.transport.tcp_listener import CLIENTS, ListenerOptions, TcpListener
from simenv.wire.transport.zmq_transport import (
    Connection,
    CurveConnection,
    HandshakeState,
    ZmqListener,
)

PATIENCE_S = 60.0
HOST = "127.0.0.1"
ReceivedMessage = tuple[PeerKind, bytes, bytes, Identity]


class ListenerThread:
    """A TCP listener in a thread, and the keys that it accepts."""

    def __init__(self, folder: Path, options: ListenerOptions = CLIENTS) -> None:
        self.server = new_pair()
        self.complaints: list[str] = []
        self.far = TcpListener(HOST, 0, self.server, self.complaints.append, options)
        self.listener = ZmqListener(folder, self.server, self.far)
        self.keys = {name: new_pair() for name in ("ana", "ben", "ops", "hand")}
        self.key_commands = {
            self.keys["ana"].public: Identity("ana", Role.CLIENT),
            self.keys["ben"].public: Identity("ben", Role.CLIENT),
            self.keys["ops"].public: Identity("ops", Role.ADMIN),
            self.keys["hand"].public: Identity("hand", Role.WORKER),
        }
        self.listener.admit(self.key_commands, b"")
        self.heard: list[ReceivedMessage] = []
        self.echo = False  # answer each message with itself
        self.turns: list[Callable[[], object]] = []  # to be done by the thread that serves
        self._changed = threading.Condition()
        self._ending = False
        self._opened: list[Connection] = []
        self.kept: list[zmq.Socket[bytes]] = []  # of clients that are closed with the listener
        self._thread = threading.Thread(target=self._serve, name="tcp listener")
        self._thread.start()

    @property
    def address(self) -> str:
        return f"tcp://{HOST}:{self.far.port}"

    def connect(
        self, who: str | KeyPair, route: bytes = b"route", server: str | None = None
    ) -> CurveConnection:
        keys = self.keys[who] if isinstance(who, str) else who
        curve_connection = CurveConnection(self.address, server or self.server.public, keys, route)
        self._opened.append(curve_connection)
        return curve_connection

    def raw(self, first: bytes = b"") -> socket.socket:
        """A bare TCP connection."""
        connection = socket.create_connection((HOST, self.far.port), timeout=PATIENCE_S)
        if first:
            connection.sendall(first)
        return connection

    def of(self, body: bytes) -> ReceivedMessage:
        """Wait for the message with this body."""
        entries: list[ReceivedMessage] = []

        def there() -> bool:
            entries[:] = [each for each in self.heard if each[2] == body]
            return bool(entries)

        with self._changed:
            assert self._changed.wait_for(there, PATIENCE_S), f"{body!r} never came"
        return entries[0]

    def do(self, what: Callable[[], object]) -> object:
        """Have the serving thread do something; its answer."""
        done: list[object] = []
        with self._changed:
            self.turns.append(lambda: done.append(what()))
            assert self._changed.wait_for(lambda: bool(done), PATIENCE_S)
        return done[0]

    def close(self) -> None:
        for item in self._opened:
            item.close()
        for each in self.kept:
            each.close(0)
        self._ending = True
        self._thread.join()
        self.listener.close()

    def _serve(self) -> None:
        while not self._ending:
            self.listener.wait(0.01)
            while (received := self.listener.receive()) is not None:
                if self.echo:
                    self.listener.send(*received[:3])
                with self._changed:
                    self.heard.append(received)
                    self._changed.notify_all()
            with self._changed:
                turns, self.turns = self.turns, []
                for turn in turns:
                    turn()
                    self._changed.notify_all()


def way_becomes(connection: CurveConnection, way: HandshakeState) -> bool:
    """Wait until the last attempt to connect has come to this."""
    deadline = time.monotonic() + PATIENCE_S
    while connection.handshake_state() is not way:
        if time.monotonic() > deadline:
            return False
        connection.receive(0.02)
    return True


def is_closed(raw: socket.socket) -> bool:
    """Wait until the other side hangs up."""
    raw.settimeout(PATIENCE_S)
    try:
        while raw.recv(65_536):
            pass
    except TimeoutError:
        return False
    except ConnectionError:
        return True
    return True


class Wiretap:
    """Between a client and the door: keeps every byte of either direction."""

    def __init__(self, port: int) -> None:
        self._listener = socket.create_server((HOST, 0))
        self.address = f"tcp://{HOST}:{self._listener.getsockname()[1]}"
        self._port = port
        self.sent, self.received = bytearray(), bytearray()
        self._thread = threading.Thread(target=self._carry, name="wiretap")
        self._thread.start()

    def _carry(self) -> None:
        near, _ = self._listener.accept()
        self._listener.close()
        with near, socket.create_connection((HOST, self._port)) as far:
            back = threading.Thread(target=_copy, args=(far, near, self.received))
            back.start()
            _copy(near, far, self.sent)
            back.join()

    def close(self) -> None:
        self._thread.join()


def _copy(source: socket.socket, target: socket.socket, kept: bytearray) -> None:
    try:
        while data := source.recv(65_536):
            kept += data
            target.sendall(data)
    except OSError:
        pass
    for end in (source, target):
        try:
            end.shutdown(socket.SHUT_RDWR)
        except OSError:
            continue


def plain_dealer(
    address: str, context: zmq.Context[zmq.Socket[bytes]], mechanism: str
) -> zmq.Socket[bytes]:
    """A ZeroMQ client that knows nothing of keys."""
    result = context.socket(zmq.DEALER)
    result.set(zmq.LINGER, 0)
    if mechanism == "plain":
        result.set(zmq.PLAIN_USERNAME, b"ana")
        result.set(zmq.PLAIN_PASSWORD, b"secret")
    result.connect(address)
    result.send(b"hello from a stranger")
    return result
