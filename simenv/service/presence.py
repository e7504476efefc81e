"""The connection file as a sign of life: touched while we live, ours as long as it says so.

Invariant: of two services that think they are one environment, the one whose name is no longer in
the file gives way; what it has not yet handed out, the other does again.
"""

from __future__ import annotations

import time
from pathlib import Path

import msgspec

from simenv.config import ConnectionFile

TOUCH_NS = 5_000_000_000
_READ = msgspec.json.Decoder(ConnectionFile).decode


class Presence:
    """Used from the loop's thread."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._told: ConnectionFile | None = None
        self._touched_ns = 0

    def announce(self, told: ConnectionFile) -> None:
        """Write the file, 0600, by rename."""
        self._told = told
        temporary = self._path.with_suffix(".new")
        temporary.touch(mode=0o600)
        temporary.write_bytes(msgspec.json.encode(told))
        temporary.replace(self._path)

    def holds(self) -> bool:
        """Touch the file every few seconds. False: it is another service's now."""
        now_ns = time.monotonic_ns()
        if now_ns - self._touched_ns < TOUCH_NS:
            return True
        self._touched_ns = now_ns
        if self._is_anothers():
            return False
        if self._path.exists():
            self._path.touch()
        return True

    def leave(self) -> None:
        """Remove the file, unless it is another service's."""
        if not self._is_anothers():
            self._path.unlink(missing_ok=True)

    def _is_anothers(self) -> bool:
        try:
            file = _READ(self._path.read_bytes())
        except (OSError, msgspec.MsgspecError):
            return False  # it tells of nobody
        told = self._told
        return told is not None and (file.pid, file.node, file.epoch) != (
            told.pid,
            told.node,
            told.epoch,
        )
