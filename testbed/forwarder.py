"""A TCP forwarder in front of a service that fails in the ways in which proxies and tunnels do."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable
from contextlib import suppress

HOST = "127.0.0.1"
ERROR_PAGE = b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n" + bytes(64)
# Greeting of ZMTP 3.1 with CURVE: signature, version, mechanism, role, filler.
GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x01" + b"CURVE".ljust(20, b"\0") + bytes(32)
FAILURES = ("close", "reset", "half", "error page", "stall")
WAIT_S = 60.0


class Forwarder:
    """Forwards connections to a port, unless `failure` names how new ones fail."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._listening = socket.create_server((HOST, 0))
        self.address = f"tcp://{HOST}:{self._listening.getsockname()[1]}"
        self.failure = ""
        self.failed = 0  # connections that failed so
        self._changed = threading.Condition()
        self._ends: list[socket.socket] = []
        self._frozen: set[socket.socket] = set()
        self._threads = [threading.Thread(target=self._accept, name="forwarder")]
        self._threads[0].start()

    def __enter__(self) -> Forwarder:
        return self

    def __exit__(self, *_: object) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self.cut()
        for thread in self._threads:
            thread.join()
        for end in (self._listening, *self._ends):
            end.close()

    def cut(self) -> None:
        """End all present connections."""
        for end in list(self._ends):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def freeze(self) -> None:
        """Forward nothing more over the present connections, which stay open."""
        self._frozen.update(self._ends)

    def fail(self, failure: str, times: int) -> None:
        """End all connections, and wait until new ones have failed so often."""
        with self._changed:
            self.failed, self.failure = 0, failure
            self.cut()
            assert self._changed.wait_for(lambda: self.failed >= times, WAIT_S)

    def _accept(self) -> None:
        while True:
            try:
                near = self._listening.accept()[0]
            except OSError:
                return
            self._ends.append(near)
            if self.failure:
                _FAIL[self.failure](near)
                with self._changed:
                    self.failed += 1
                    self._changed.notify_all()
                continue
            try:
                far = socket.create_connection((HOST, self._port))
            except OSError:  # the service is away: accepted, and closed
                near.close()
                continue
            self._ends.append(far)
            for ends in ((near, far), (far, near)):
                self._threads.append(threading.Thread(target=self._copy, args=ends))
                self._threads[-1].start()

    def _copy(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while body := source.recv(65_536):
                if source not in self._frozen:
                    target.sendall(body)
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


def _reset(near: socket.socket) -> None:
    near.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    near.close()


def _half(near: socket.socket) -> None:
    with suppress(OSError):
        near.sendall(GREETING)
        near.recv(len(GREETING))
    near.close()


def _error_page(near: socket.socket) -> None:
    with suppress(OSError):
        near.sendall(ERROR_PAGE)
    near.close()


_FAIL: dict[str, Callable[[socket.socket], object]] = {
    "close": socket.socket.close,
    "reset": _reset,
    "half": _half,
    "error page": _error_page,
    "stall": lambda _: None,
}
