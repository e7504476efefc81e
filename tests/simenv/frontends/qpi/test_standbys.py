"""A C client follows the service to a standby that its key file does not name."""

import ctypes
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import zmq

from simenv import _version
from simenv.frontends.qpi import build
from simenv.wire import codec
from simenv.wire.keyfiles import KEYS_FORMAT, KeyPair, UserKeyFile, create_private, new_pair
from simenv.wire.messages import client as m, queries

PATIENCE_S, LOOK_MS = 60.0, 100


class Endpoint:
    """What a service answers to a greeting, pings and a question, over CURVE."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], keys: KeyPair) -> None:
        self.socket = context.socket(zmq.ROUTER)
        self.socket.set(zmq.LINGER, 0)
        self.socket.set(zmq.CURVE_SERVER, 1)
        self.socket.set(zmq.CURVE_SECRETKEY, keys.secret.encode())
        self.port = self.socket.bind_to_random_port("tcp://127.0.0.1")
        self.address = f"tcp://127.0.0.1:{self.port}"

    def serve(self, epoch: int, standbys: tuple[str, ...], until: Callable[[object], bool]) -> None:
        """Answer until a condition on what has come, None for nothing in LOOK_MS."""
        while True:
            message, peer = None, b""
            if self.socket.poll(LOOK_MS):
                peer, body = self.socket.recv_multipart()
                message = codec.from_client(body)
            if until(message):
                return
            answer: m.ToClient | None = None
            if isinstance(message, m.Hello):
                answer = m.Welcome(epoch, _version.__version__, "default", standbys=standbys)
            elif isinstance(message, m.Ping):
                answer = m.Pong(message.request, epoch, standbys)
            elif isinstance(message, queries.GetDevices):
                answer = queries.Devices(message.request, [])
            if answer is not None:
                self.socket.send_multipart([peer, codec.encode(answer)])


def test_client_learns_standbys_and_asks_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = build(tmp_path / "library")
    server, own = new_pair(), new_pair()
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    first, standby = Endpoint(context, server), Endpoint(context, server)
    file = tmp_path / "key"
    fields = ("ana", "client", own.public, own.secret)
    create_private(file, UserKeyFile(KEYS_FORMAT, "default", first.address, server.public, *fields))
    monkeypatch.setenv("SIMENV_SERVICE", str(file))
    asked, ended = threading.Event(), threading.Event()

    def serve() -> None:
        first.serve(1, (standby.address,), lambda each: isinstance(each, queries.GetDevices))
        asked.set()  # and from now on it is silent
        standby.serve(2, (), lambda _: ended.is_set())

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    qpi = ctypes.CDLL(str(library.library))
    session, count = ctypes.c_void_p(), ctypes.c_size_t(9)
    assert qpi.qpi_init(None, ctypes.byref(session)) == 0
    timeout_s = ctypes.c_double(PATIENCE_S)
    assert qpi.qpi_devices(session, timeout_s, None, ctypes.c_size_t(0), ctypes.byref(count)) == 0
    assert asked.is_set()
    assert count.value == 0
    qpi.qpi_finalize(session)
    ended.set()
    thread.join()
    for each in (first, standby):
        each.socket.close(0)
    context.term()
