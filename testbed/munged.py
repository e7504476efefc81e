"""A munged of its own: its key, socket and files lie in a folder of the caller."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from testbed.cluster_environment import wait_for

START_S = 30.0


def program() -> str | None:
    """Return the path of munged; None if it is not installed."""
    return shutil.which("munged", path=f"{os.environ['PATH']}:/usr/sbin")


def munged_command(folder: Path, name: str = "munge", key: bytes = b"") -> list[str]:
    """Write the key of a site; return the command of its daemon. `key`: b"": a new one."""
    path, found = folder / f"{name}.key", program()
    assert found is not None
    path.touch(0o600)
    path.write_bytes(key or secrets.token_bytes(128))
    words = [found, "--foreground", "--force", f"--socket={folder}/{name}.socket"]
    files = [f"--{what}-file={folder}/{name}.{what}" for what in ("key", "pid", "seed", "log")]
    return [*words, "--num-threads=2", *files]


@contextmanager
def munged(folder: Path, name: str = "munge", key: bytes = b"") -> Iterator[Path]:
    """Run a daemon; yield its socket. `key`: of the site; b"": a new one."""
    socket, errors = folder / f"{name}.socket", folder / f"{name}.err"
    argv = munged_command(folder, name, key)
    with errors.open("w") as log:
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        wait_for("munged", lambda: socket.is_socket() or process.poll() is not None, START_S)
        assert process.poll() is None, errors.read_text()
        yield socket
    finally:
        process.terminate()
        process.wait()
