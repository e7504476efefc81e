"""Documents on a socket: a header with the length, then YAML, in two writes as in DEFw.

Invariant: only plain data is written. Another value is converted and its place is reported: a real
host would have sent a Python object that the receiver may be unable to read.
"""

from __future__ import annotations

import numbers
import socket
import struct
import threading
import time
from typing import Any

import yaml

from simenv.qpm_check.contract.plain_data import impurities

_HEAD = struct.Struct(">4sI")
_MAGIC = b"QPM1"
MOST_BYTES = 256 * 2**20
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_DUMPER: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)

Document = dict[str, Any]


class PeerGone(Exception):
    """The peer has closed the connection, or its stream has lost the framing."""


def pack(document: Document) -> tuple[bytes, bytes]:
    """Header and body of a document."""
    text = yaml.dump(document, Dumper=_DUMPER, allow_unicode=True, default_flow_style=True)
    body = text.encode("utf-8", "surrogatepass")
    return _HEAD.pack(_MAGIC, len(body)), body


def receive(connection: socket.socket) -> Document:
    """Read the next document. Raises PeerGone."""
    magic, size = _HEAD.unpack(_exactly(connection, _HEAD.size))
    if magic != _MAGIC or size > MOST_BYTES:
        raise PeerGone("the stream has lost its framing")
    result = yaml.load(_exactly(connection, size), Loader=_LOADER)  # noqa: S506 - a safe loader
    if not isinstance(result, dict):
        raise PeerGone(f"a document of type {type(result).__name__}")
    return result


def purified(value: Any) -> tuple[Any, list[str]]:
    """Return the value as plain data, and the places that were not plain."""
    result = impurities(value)
    return (_plain(value), result) if result else (value, result)


class Sender:
    """Writer of documents to one peer. `collisions`: number of concurrent writes, which would mix
    messages on a socket of DEFw's; here the second waits."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._writing = threading.Lock()
        self.collisions = 0
        self.pause_s = 0.0  # between the two writes: makes collisions likely

    def send(self, document: Document) -> None:
        """Write header and body. Raises PeerGone."""
        header, body = pack(document)
        if not self._writing.acquire(blocking=False):
            self.collisions += 1
            self._writing.acquire()
        try:
            self._connection.sendall(header)
            if self.pause_s:
                time.sleep(self.pause_s)
            self._connection.sendall(body)
        except OSError as error:
            raise PeerGone(str(error)) from error
        finally:
            self._writing.release()


def _exactly(connection: socket.socket, size: int) -> bytes:
    parts = []
    while size:
        try:
            part = connection.recv(min(size, 2**20))
        except OSError as error:
            raise PeerGone(str(error)) from error
        if not part:
            raise PeerGone("the other side has closed")
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {_plain(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        return float(value)
    return repr(value)
