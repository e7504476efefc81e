"""`simenv up --foreground`, as systemd and containers start it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import live
import pytest

from simenv.errors import NoServiceError

SILENCE_S = 1.5  # longer than a quarter of the patience of the watchdog, 1 s


class Supervised:
    """An environment in the foreground of a process, and what it tells its supervisor."""

    def __init__(self, folder: Path, **environ: str) -> None:
        self.live = live.Live()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(folder / "notify"))
        self._socket.settimeout(live.PATIENCE_S)
        argv = (sys.executable, "-m", "simenv", "up", "--foreground", "--workers", "1")
        self.process = subprocess.Popen(
            [*argv, "--name", self.live.name],
            env={**os.environ, "NOTIFY_SOCKET": str(folder / "notify"), **environ},
            stdout=subprocess.DEVNULL,
        )

    def state(self) -> bytes:
        """The next message to the supervisor."""
        return self._socket.recv(100)

    def listen(self, timeout_s: float) -> bytes:
        """The next message within `timeout_s`. Raises TimeoutError."""
        self._socket.settimeout(timeout_s)
        try:
            return self._socket.recv(100)
        finally:
            self._socket.settimeout(live.PATIENCE_S)

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


def test_watchdog_is_told_only_while_the_service_answers(tmp_path: Path) -> None:
    watched = Supervised(tmp_path, WATCHDOG_USEC="1000000")
    try:
        assert watched.state() == b"READY=1"
        assert watched.state() == b"WATCHDOG=1"
        pid = watched.live.service().pid
        os.kill(pid, signal.SIGSTOP)
        try:
            with suppress(TimeoutError):  # of a sign that was under way
                watched.listen(SILENCE_S)
            with pytest.raises(TimeoutError):
                watched.listen(SILENCE_S)
        finally:
            os.kill(pid, signal.SIGCONT)
        assert watched.state() == b"WATCHDOG=1"
    finally:
        watched.close()
