"""A small file system of a test's own, which it can really fill: a tmpfs, where we are root."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def small_disk(folder: Path, size_bytes: int) -> Iterator[Path]:
    """Mounted at `folder` while the block runs. Skips where it cannot be; in CI it fails."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size_bytes},mode=0700", "simenv-test"]
    done = subprocess.run([*command, str(folder)], capture_output=True, text=True, check=False)
    if done.returncode:
        why = f"no tmpfs can be mounted: {done.stderr.strip() or done.returncode}"
        if os.environ.get("CI") == "true":
            pytest.fail(why)
        pytest.skip(why)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(folder: Path, name: str = "filler", leave_bytes: int = 0) -> Path:
    """Take all that is free of the disk, but for `leave_bytes`."""
    path = folder / name
    result = os.statvfs(folder)
    free = result.f_bavail * result.f_frsize - leave_bytes
    with path.open("wb") as out:
        if free > 0:
            os.posix_fallocate(out.fileno(), 0, free)
    return path
