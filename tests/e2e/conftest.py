"""The environment of tests of emulated devices; other modules have fixtures of their own."""

from collections.abc import Iterator

import pytest
from emulated import environment
from live import Live
from shell import Shell, shell_of

from simenv.client.client import Client


@pytest.fixture(scope="module")
def up() -> Iterator[Live]:
    with environment() as result:
        yield result


@pytest.fixture(scope="module")
def env(up: Live) -> Iterator[Client]:
    with up.client() as client:
        yield client


@pytest.fixture
def shell(up: Live, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Shell:
    """Run a command line of the environment, in this process."""
    monkeypatch.setenv("SIMENV_SERVICE", "")
    return shell_of(up.name, capfd)
