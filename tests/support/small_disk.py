"""A small file system of a test's own, which it can really fill: a tmpfs, where we are root."""

import errno
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from testbed.small_disk import tmpfs


@contextmanager
def small_disk(folder: Path, size_bytes: int) -> Iterator[Path]:
    """Mounted at `folder` while the block runs. Skips where it cannot be; in CI it fails."""
    with ExitStack() as stack:
        try:
            stack.enter_context(tmpfs(folder, size_bytes))
        except OSError as error:
            (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(str(error))
        yield folder


def fill(folder: Path, name: str = "filler", leave_bytes: int = 0) -> Path:
    """Take all that is free of the disk, but for `leave_bytes`; others may write meanwhile."""
    path = folder / name
    with path.open("wb") as out:
        while True:
            result = os.statvfs(folder)
            free = result.f_bavail * result.f_frsize - leave_bytes
            if free <= 0:
                return path
            try:
                os.posix_fallocate(out.fileno(), 0, free)
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
            else:
                return path
