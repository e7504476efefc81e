"""A client's connection; it reports why a service does not answer."""

from __future__ import annotations

import enum

import zmq

from simenv.wire.keyfiles import KeyPair
from simenv.wire.transport.sockets import readable
from simenv.wire.transport.zmq_transport import ZmqConnection

RETRY_MS, RETRY_MAX_MS = 100, 2_000
_EVENTS = (
    zmq.EVENT_CONNECTED
    | zmq.EVENT_CLOSED
    | zmq.EVENT_HANDSHAKE_SUCCEEDED
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
)


class HandshakeState(enum.Enum):
    """Progress of the last attempt to connect."""

    UNKNOWN = enum.auto()  # no answer to the first packet yet
    NOBODY = enum.auto()  # nothing listens at the address
    CONNECTED = enum.auto()  # the handshake has not ended
    ABORTED = enum.auto()  # the service closed the connection during the handshake
    REFUSED = enum.auto()  # the service has the expected key, and does not accept ours
    OPEN = enum.auto()


_STATE_OF_EVENT = {
    int(zmq.EVENT_CLOSED): HandshakeState.NOBODY,
    int(zmq.EVENT_CONNECTED): HandshakeState.CONNECTED,
    int(zmq.EVENT_HANDSHAKE_SUCCEEDED): HandshakeState.OPEN,
    int(zmq.EVENT_HANDSHAKE_FAILED_AUTH): HandshakeState.REFUSED,
    int(zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL): HandshakeState.ABORTED,
    int(zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL): HandshakeState.ABORTED,
}


class CurveConnection(ZmqConnection):
    """A `ZmqConnection` that watches its handshakes."""

    def __init__(self, address: str, server_key: str, keys: KeyPair, identity: bytes) -> None:
        self.address = address
        self._handshake_state = HandshakeState.UNKNOWN
        self.hang_ups = 0  # consecutive handshakes that the service broke off
        super().__init__(address, server_key, keys, identity)

    def _prepare(self, socket: zmq.Socket[bytes]) -> None:
        socket.monitor("inproc://way", int(_EVENTS))
        self._monitor = self._context.socket(zmq.PAIR)
        self._monitor.set(zmq.RCVHWM, 0)  # a full queue would stop the I/O thread
        self._monitor.connect("inproc://way")

    def handshake_state(self) -> HandshakeState:
        """Return the state of the last attempt. Called by the thread that receives."""
        while not self._socket.closed and readable(self._monitor):
            event = self._monitor.recv_multipart(int(zmq.NOBLOCK))[0]
            result = _STATE_OF_EVENT[int.from_bytes(event[:2], "little")]
            if result is HandshakeState.ABORTED:
                self.hang_ups += 1
            elif result is not HandshakeState.CONNECTED:
                self.hang_ups = 0
            # After a refusal or a broken handshake the next attempt begins with CONNECTED, which
            # must not hide that outcome: it stays until the new attempt ends.
            if result is not HandshakeState.CONNECTED or self._handshake_state in (
                HandshakeState.UNKNOWN,
                HandshakeState.NOBODY,
                HandshakeState.OPEN,
            ):
                self._handshake_state = result
        return self._handshake_state

    def close(self) -> None:
        if not self._socket.closed:
            self._monitor.close()
        super().close()
