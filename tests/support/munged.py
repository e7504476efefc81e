"""A munged of a test's own: its key, socket and files lie in a folder of the test."""

import os
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from packages import bring
from waiting import until

START_S = 30.0


def skip_without_munge() -> None:
    """CI must not skip this."""
    if shutil.which("munged", path=f"{os.environ['PATH']}:/usr/sbin") is None:
        why = bring("system_packages.sh", "munge")
        if why and os.environ.get("CI") == "true":
            pytest.fail(why)
        if why:
            pytest.skip(why)


@contextmanager
def munged(folder: Path, name: str = "munge", key: bytes = b"") -> Iterator[Path]:
    """The socket of a daemon that runs meanwhile. `key`: of the site; b"": a new one."""
    path = folder / f"{name}.key"
    path.touch(0o600)
    path.write_bytes(key or secrets.token_bytes(128))
    socket = folder / f"{name}.socket"
    program = shutil.which("munged", path=f"{os.environ['PATH']}:/usr/sbin")
    assert program is not None
    argv = [program, "--foreground", "--force", f"--socket={socket}", "--num-threads=2"]
    argv += [f"--{what}-file={folder}/{name}.{what}" for what in ("key", "pid", "seed", "log")]
    with (folder / f"{name}.err").open("w") as log:
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        until(
            lambda: socket.is_socket() or process.poll() is not None,
            START_S,
            message=lambda: (folder / f"{name}.err").read_text(),
        )
        assert process.poll() is None, (folder / f"{name}.err").read_text()
        yield socket
    finally:
        process.terminate()
        process.wait()
