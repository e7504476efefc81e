"""`simenv up --foreground`, as systemd and containers start it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import live
import pytest

from simenv.errors import NoServiceError


class Supervised:
    """An environment in the foreground of a process, and what it tells its supervisor."""

    def __init__(self, folder: Path) -> None:
        self.live = live.Live()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(folder / "notify"))
        self._socket.settimeout(live.PATIENCE_S)
        argv = (sys.executable, "-m", "simenv", "up", "--foreground", "--workers", "1")
        self.process = subprocess.Popen(
            [*argv, "--name", self.live.name],
            env={**os.environ, "NOTIFY_SOCKET": str(folder / "notify")},
            stdout=subprocess.DEVNULL,
        )

    def state(self) -> bytes:
        """The next message to the supervisor."""
        return self._socket.recv(100)

    def close(self) -> None:
        self._socket.close()
        self.process.kill()
        self.process.wait()
        self.live.down()


@pytest.fixture
def supervised(tmp_path: Path) -> Iterator[Supervised]:
    started = Supervised(tmp_path)
    try:
        assert started.state() == b"READY=1"
        yield started
    finally:
        started.close()


def test_sigterm_ends_the_environment(supervised: Supervised) -> None:
    with supervised.live.client() as client:
        assert client.pools()["main"].workers == 1
    supervised.process.send_signal(signal.SIGTERM)
    assert supervised.state() == b"STOPPING=1"
    assert supervised.process.wait(live.PATIENCE_S) == 0
    with pytest.raises(NoServiceError):
        supervised.live.client()


def test_death_of_the_service_ends_the_command_with_an_error(supervised: Supervised) -> None:
    supervised.live.kill_service()
    assert supervised.process.wait(live.PATIENCE_S) == 1
