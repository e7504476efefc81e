"""The service package behind a stand-in for DEFw, over an environment of the tests' own."""

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

import simenv
from simenv.client.client import Client
from simenv.frontends.qfw import PLUGIN
from simenv.qpm_check.plugin import PluginTarget


@pytest.fixture(scope="package")
def env() -> Iterator[Client]:
    with simenv.local(workers=2, slots=2) as client:
        yield client


class Hosts:
    """The plugin in processes of its own, one for each revision and what it is told."""

    def __init__(self, service: str, stack: ExitStack) -> None:
        self._service = service
        self._stack = stack
        self._open: dict[Any, Any] = {}

    def subject(self, revision: int, **told: str) -> Any:
        key = (revision, *sorted(told.items()))
        if key not in self._open:
            plugin = PluginTarget("ours", PLUGIN, {"SIMENV_SERVICE": self._service, **told})
            self._open[key] = self._stack.enter_context(plugin.open(revision))
        return self._open[key]


@pytest.fixture(scope="package")
def hosts(env: Client) -> Iterator[Hosts]:
    with ExitStack() as stack:
        yield Hosts(env.service, stack)


@pytest.fixture
def single(hosts: Hosts) -> Any:
    """A client of revision 1."""
    return hosts.subject(1).connect()


@pytest.fixture
def bound(hosts: Hosts) -> Any:
    """A client of revision 2, where no reservation is needed."""
    return hosts.subject(2, SIMENV_QPM_RESERVATIONS="optional").connect()
