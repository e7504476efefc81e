"""The environment of a module, its client and its command line."""

from collections.abc import Iterator

import emulated
import live
import pytest
from live import Live
from shell import Shell, shell_of

from simenv.client.client import Client


@pytest.fixture(scope="module")
def up(request: pytest.FixtureRequest) -> Iterator[Live]:
    """The environment of a module: of its OPTIONS, or the one of emulated devices."""
    options = getattr(request.module, "OPTIONS", None)
    with emulated.environment() if options is None else live.environment(**options) as result:
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
