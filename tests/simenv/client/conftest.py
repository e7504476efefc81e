"""The helper module of these tests, and a peer that plays the service."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from client_peer import Peer

from simenv.client.connection import channel, task_handle
from simenv.client.connection.session import ServiceSession


@pytest.fixture
def peer() -> Iterator[Peer]:
    with Peer() as playing:
        yield playing


@pytest.fixture
def idle(peer: Peer) -> Peer:
    """It accepts tasks, and none of them ends."""
    peer.finishes = False
    return peer


@pytest.fixture
def link(peer: Peer) -> Iterator[ServiceSession]:
    connected = ServiceSession(peer)
    yield connected
    connected.close()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seconds of patience become hundredths."""
    monkeypatch.setattr(channel, "QUIET_S", 0.02)
    monkeypatch.setattr(channel, "POLL_S", 0.01)
    monkeypatch.setattr(channel, "LOST_S", 1.0)
    monkeypatch.setattr(task_handle, "REPEAT_S", 0.05)
