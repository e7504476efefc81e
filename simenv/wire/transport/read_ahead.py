"""Bounds of the bytes that libzmq has read from connections before the service reads them."""

from __future__ import annotations

import fcntl
import socket as stdlib_socket
import struct
import termios
import threading
from collections.abc import Callable

import msgspec

POLL_S, FAST_CHECK_S = 0.1, 0.02
_INFO_BYTES, _RECEIVED_AT = 192, 128  # tcpi_bytes_received of struct tcp_info (Linux 4.1)
ALL_BYTES = 384 * 2**20
KEY_BYTES = 128 * 2**20
UNAUTHENTICATED_BYTES = 32 * 2**20  # of unauthenticated connections: a handshake is below 2 KiB
_FAST_CHECK_BYTES = 16 * 2**20
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
