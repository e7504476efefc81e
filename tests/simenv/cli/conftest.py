"""An environment for each module, and its command line."""

from __future__ import annotations

from collections.abc import Iterator

import live
import pytest
from shell import Answer, Shell

from simenv.cli.app import run


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

    def call(*words: str, name: str = environment.name) -> Answer:
        capfd.readouterr()
        code = run(["--name", name, *words])
        shown = capfd.readouterr()
        assert "Traceback" not in shown.err
        return Answer(code, shown.out, shown.err)

    return call
