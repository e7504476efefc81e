"""The lock that keeps a second service off one journal."""

from __future__ import annotations

import errno
import fcntl
import os
import re
from pathlib import Path

from simenv.errors import JournalError

_HELD = (errno.EAGAIN, errno.EACCES)
_HOLDER = re.compile(r"pid (\d+) on (\S+)")


def take_lock(path: Path, force: bool = False) -> int:
    """The lock, held for the life of the descriptor returned.

    `force`: pass by the lock of a service on another machine, which cannot be looked for from
    here. Raises JournalError with the holder's pid and host.
    """
    descriptor = _open(path)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        holder = os.read(descriptor, 200).decode("utf-8", "replace").strip()
        os.close(descriptor)
        found = _HOLDER.match(holder)
        is_elsewhere = found is not None and found[2] != os.uname().nodename
        if error.errno not in _HELD:
            raise JournalError(
                f"{path} cannot be locked: {error.strerror}",
                hint="set state_dir to a folder on a local disk",
            ) from error
        if not (force and is_elsewhere):
            hint = "simenv status, or simenv down first"
            if is_elsewhere:
                hint = (
                    "its process cannot be looked for from here; if it is surely gone: "
                    "simenv up --resume --force-lock"
                )
            words = f"another service uses {path.parent}: {holder or 'unknown'}"
            raise JournalError(words, hint=hint) from error
        path.unlink()  # who holds the old file's lock holds nothing that counts any more
        descriptor = _open(path)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.ftruncate(descriptor, 0)
    os.write(descriptor, f"pid {os.getpid()} on {os.uname().nodename}\n".encode())
    return descriptor


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
