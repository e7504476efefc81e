"""Ownership of an environment: the journal's lock, and the connection file as a lease.

Invariant: of two services that claim one environment, the one whose identity is no longer in the
connection file stops; its unfinished tasks run in the other.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import re
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import zmq

from simenv.config import ConnectionFile
from simenv.errors import DECODE_ERRORS, ConfigError, JournalError
from simenv.files import write_atomic

TOUCH_NS = 5_000_000_000
_READ = msgspec.json.Decoder(ConnectionFile).decode
_HELD = (errno.EAGAIN, errno.EACCES)
_HOLDER = re.compile(r"pid (\d+) on (\S+)")
log = logging.getLogger("simenv.service")


class ConnectionFileLease:
    """Lease of an environment through its connection file. Used from the loop's thread."""

    def __init__(self, path: Path, keep_sockets: Callable[[], None] = lambda: None) -> None:
        """`keep_sockets`: called as often as the file is touched."""
        self._path = path
        self._keep_sockets = keep_sockets
        self._announced: ConnectionFile | None = None
        self._touched_ns = 0

    def announce(self, file: ConnectionFile) -> None:
        """Write the connection file with mode 0600, by rename."""
        self._announced = file
        write_atomic(self._path, msgspec.json.encode(file))

    def announce_standbys(self, addresses: tuple[str, ...]) -> None:
        """Write the addresses of standbys into the file, if they have changed and it is ours."""
        file = self._announced
        if file is not None and file.standbys != addresses and not self._is_taken_over():
            self.announce(msgspec.structs.replace(file, standbys=addresses))

    def holds(self) -> bool:
        """Touch the file every few seconds. Returns False if another service has replaced it."""
        now_ns = time.monotonic_ns()
        if now_ns - self._touched_ns < TOUCH_NS:
            return True
        self._touched_ns = now_ns
        if self._is_taken_over():
            return False
        try:
            if self._path.exists():
                self._path.touch()
            self._keep_sockets()
        except (OSError, ConfigError, zmq.ZMQError) as error:
            log.warning("the connection file or a removed socket cannot be renewed: %s", error)
        return True

    def leave(self) -> None:
        """Remove the file, unless another service has replaced it."""
        if not self._is_taken_over():
            self._path.unlink(missing_ok=True)

    def _is_taken_over(self) -> bool:
        try:
            file = _READ(self._path.read_bytes())
        except (OSError, *DECODE_ERRORS):
            return False  # the file names no service
        own = self._announced
        if own is None:
            return False
        return (file.pid, file.node, file.epoch) != (own.pid, own.node, own.epoch)


def take_lock(path: Path, force: bool = False) -> int:
    """Take the lock of the journal. It is held until the returned descriptor is closed. `force`:
    ignore the lock of a service on another machine, where its process cannot be checked. Raises
    JournalError with the holder's pid and host."""
    descriptor = _open(path)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        holder = os.read(descriptor, 200).decode("utf-8", "replace").strip()
        os.close(descriptor)
        result = _HOLDER.match(holder)
        is_elsewhere = result is not None and result[2] != os.uname().nodename
        if error.errno not in _HELD:
            hint = "set state_dir to a folder on a local disk"
            raise JournalError(f"{path} cannot be locked: {error.strerror}", hint=hint) from error
        if not (force and is_elsewhere):
            hint = "simenv status, or simenv down first"
            if is_elsewhere:
                hint = (
                    "its process cannot be checked from this machine; if it has surely ended: "
                    "simenv up --restore --force-lock"
                )
            message = f"another service uses {path.parent}: {holder or 'unknown'}"
            raise JournalError(message, hint=hint) from error
        path.unlink()  # the lock of the old file has no effect any more
        descriptor = _open(path)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.ftruncate(descriptor, 0)
    os.write(descriptor, f"pid {os.getpid()} on {os.uname().nodename}\n".encode())
    return descriptor


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
