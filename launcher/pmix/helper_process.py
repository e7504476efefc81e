"""Launcher's side of the PMIx helper: it is started, written and read without blocking."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

from simenv.sandbox.child import Child
from simenv.sandbox.frames import FrameError

_MOST_BYTES = 2**24  # of a response: the list of all jobs is the longest

# Messages between the launcher and its PMIx helper: one JSON object a frame.


@dataclass(frozen=True, slots=True)
class HelperRequest:
    """Request to the helper. `operation`: spawn, add_nodes (both get a response under their key),
    kill or query."""

    operation: str
    key: int = 0
    namespace: str = ""
    argv: tuple[str, ...] = ()
    env: tuple[str, ...] = ()  # "NAME=value"
    hosts: tuple[str, ...] = ()  # spawn: host of each rank; add_nodes: "name:slots"


@dataclass(frozen=True, slots=True)
class HelperResponse:
    """Response or event from the helper. `kind`: ready; spawned, failed or not_sent (no DVM was
    connected) under the request's key; ended; listed; lost."""

    kind: str
    key: int = 0
    namespace: str = ""
    code: int = 0  # failed: code of PMIx; ended: code of PRTE, 128 + n for signal n
    message: str = ""
    namespaces: tuple[str, ...] = ()


_Message = TypeVar("_Message", HelperRequest, HelperResponse)


def encode(message: HelperRequest | HelperResponse) -> bytes:
    return json.dumps(asdict(message)).encode()


def decode(kind: type[_Message], body: bytes) -> _Message:
    """Decode a message. Raises ValueError or TypeError if it is not of this kind."""
    values = json.loads(body)
    if not isinstance(values, dict):
        raise TypeError(f"no object: {body[:80]!r}")
    lists = {key: tuple(value) for key, value in values.items() if isinstance(value, list)}
    return kind(**{**values, **lists})


class HelperProcess:
    """One helper process. Once it has ended, `ended` is True and no more responses come."""

    def __init__(
        self,
        uri_file: Path,
        libraries: Sequence[Path],
        environ: Mapping[str, str],
        log: int,
        *,
        network_of: int = 0,
    ) -> None:
        """Start the helper. `network_of`: process in whose network namespace the DVM listens; 0:
        the namespace of this process."""
        argv = [sys.executable, "-P", "-m", "launcher.pmix.helper", str(network_of), str(uri_file)]
        argv += map(str, libraries)
        self._child = Child(argv, environ, log, most_bytes=_MOST_BYTES)

    @property
    def pid(self) -> int:
        return self._child.pid

    @property
    def ended(self) -> bool:
        return self._child.has_ended

    def send(self, request: HelperRequest) -> None:
        self._child.send(encode(request))

    def responses(self) -> list[HelperResponse]:
        """Return the responses and events since the last call. A helper whose response is too long
        is ended."""
        try:
            return [decode(HelperResponse, body) for body in self._child.received()]
        except FrameError:
            self._child.end()
            return []

    def close(self) -> None:
        self._child.end()
