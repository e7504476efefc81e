"""Launcher's side of the PMIx helper: it is started, written and read without blocking."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

# Messages between the launcher and its PMIx helper: one JSON object a line.


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
    return json.dumps(asdict(message)).encode() + b"\n"


def decode(kind: type[_Message], line: bytes) -> _Message:
    """Decode a line. Raises ValueError or TypeError if it has no message of this kind."""
    values = json.loads(line)
    if not isinstance(values, dict):
        raise TypeError(f"no object: {line[:80]!r}")
    lists = {key: tuple(value) for key, value in values.items() if isinstance(value, list)}
    return kind(**{**values, **lists})


_READ_BYTES = 1 << 16
_END_TIMEOUT_S = 1.0


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
        self._process = subprocess.Popen(
            [*argv, *map(str, libraries)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env=dict(environ),
            bufsize=0,
            start_new_session=True,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._in, self._out = self._process.stdin, self._process.stdout
        os.set_blocking(self._in.fileno(), False)
        os.set_blocking(self._out.fileno(), False)
        self._unsent = b""
        self._partial = b""
        self.ended = False

    @property
    def pid(self) -> int:
        return self._process.pid

    def send(self, request: HelperRequest) -> None:
        self._unsent += encode(request)
        self._flush()

    def responses(self) -> list[HelperResponse]:
        """Return the responses and events since the last call."""
        self._flush()
        data = self._partial
        with suppress(BlockingIOError):
            while chunk := os.read(self._out.fileno(), _READ_BYTES):
                data += chunk
            self.ended = True
        *lines, self._partial = data.split(b"\n")
        return [decode(HelperResponse, line) for line in lines]

    def close(self) -> None:
        self._process.kill()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_END_TIMEOUT_S)
        self._in.close()
        self._out.close()
        self.ended = True

    def _flush(self) -> None:
        with suppress(BlockingIOError, BrokenPipeError):
            while self._unsent:
                self._unsent = self._unsent[os.write(self._in.fileno(), self._unsent) :]
