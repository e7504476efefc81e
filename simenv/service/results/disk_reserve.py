"""Reserve of free space on the journal's disk, and a spare file that is released on a full disk.

Below the reserve, submits of key owners who store much are refused; below a quarter of it, those
of all key owners. The environment's own user continues until the disk is full. The spare file is
removed when the journal meets a full disk, so that accepted tasks can still end, keys be revoked
and old results be removed; it is created again when there is space. Source: `SystemKeepFree=` of
systemd-journald.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path

from simenv.errors import InsufficientError
from simenv.text import size

GIB = 2**30
SHARE = 0.05  # of the disk
MIN_BYTES = GIB
SMALL_BYTES = 256 * 2**20  # of results that every owner may keep below the reserve
POLL_S = 0.25
SPARE_BYTES = 4 * 2**20
SPARE_NAME = "journal.spare"


class DiskReserve:
    """Reserve of one disk. `keep_free_gib` < 0: 5 % of the disk, at least 1 GiB. Used from the
    loop's thread."""

    def __init__(
        self,
        folder: Path,
        keep_free_gib: float,
        measure: Callable[[Path], tuple[int, int]] | None = None,
    ) -> None:
        """`measure`: returns the size and the free space of the disk of a folder, in bytes."""
        self._folder = folder
        self._keep_free_gib = keep_free_gib
        self._measure = measure or disk_of
        self._reclaimable = folder / SPARE_NAME
        self._next_poll_s = 0.0
        self._free = self._reserve = 0
        self.spent = False  # the spare file does not exist

    def start(self) -> None:
        """Create the spare file if there is space for it."""
        self._create_spare_file()

    def stop(self) -> None:
        """Remove the spare file: only a running service needs it."""
        with contextlib.suppress(OSError):
            self._reclaimable.unlink(missing_ok=True)

    def lacking_bytes(self) -> int:
        """Return the bytes by which the free space is below the reserve; 0: it is not."""
        self._update()
        return max(0, self._reserve - self._free)

    def invalidate(self) -> None:
        """Measure the disk again at the next use, because the free space has changed."""
        self._next_poll_s = 0.0

    def release(self) -> bool:
        """Remove the spare file, because the disk is full. Returns False if it was removed
        before."""
        if self.spent:
            return False
        self.spent = True
        with contextlib.suppress(OSError):
            self._reclaimable.unlink(missing_ok=True)
        return True

    def restore(self) -> None:
        """Create the spare file again when there is free space for twice its size."""
        if self.spent:
            self._update()
            if self._free > 2 * SPARE_BYTES:
                self._create_spare_file()

    def refusal(self, owner: str, kept_bytes: int) -> InsufficientError | None:
        """Return the error if no Submit is accepted of an owner who stores `kept_bytes` of results;
        else None. `owner` "": the environment's own user."""
        if self.spent:
            return InsufficientError(
                f"the disk of {self._folder} is full: accepted tasks run, new ones are refused",
                hint="free space on it, or remove old results: simenv prune --older-than 1d",
            )
        lacking = self.lacking_bytes() if owner else 0
        if not lacking:
            return None
        if kept_bytes <= SMALL_BYTES and self._free > self._reserve // 4:
            return None
        return InsufficientError(
            f"the disk of the service has {size(self._free)} free; {size(self._reserve)} are kept "
            f"free (results.keep_free_gib), and {owner!r} keeps {size(kept_bytes)} of results",
            hint="an admin removes old results: simenv prune --older-than 1d; or frees space",
        )

    def _update(self) -> None:
        now_s = time.monotonic()
        if now_s >= self._next_poll_s:
            self._next_poll_s = now_s + POLL_S
            total, self._free = self._measure(self._folder)
            self._reserve = round(self._keep_free_gib * GIB)
            if self._keep_free_gib < 0:
                self._reserve = max(round(SHARE * total), MIN_BYTES)

    def _create_spare_file(self) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            descriptor = os.open(self._reclaimable, flags, 0o600)
            try:
                os.posix_fallocate(descriptor, 0, SPARE_BYTES)
            finally:
                os.close(descriptor)
            self.spent = False
        except OSError:
            with contextlib.suppress(OSError):
                self._reclaimable.unlink(missing_ok=True)


def disk_of(folder: Path) -> tuple[int, int]:
    """Return the size of the disk of a folder, and the free space for this user, in bytes; zeros if
    that fails."""
    try:
        result = os.statvfs(folder)
    except OSError:
        return 0, 0
    return result.f_blocks * result.f_frsize, result.f_bavail * result.f_frsize
