"""An environment for each module, and its command line."""

from collections.abc import Iterator

import live
import pytest
from shell import Shell, shell_of


@pytest.fixture(scope="module")
def environment(request: pytest.FixtureRequest) -> Iterator[live.Live]:
    """A module's POOLS and OPTIONS, if it names some."""
    pools = getattr(request.module, "POOLS", None)
    options = getattr(request.module, "OPTIONS", {})
    with live.environment(**({"pools": pools} if pools else {}), **options) as up:
        yield up


@pytest.fixture
def shell(environment: live.Live, capfd: pytest.CaptureFixture[str]) -> Shell:
    """Run a command line of the environment, in this process."""
    return shell_of(environment.name, capfd)
