"""A service that is stopped for a while: its clients connect again, and nothing of their former
connections stays."""

from pathlib import Path

import pytest
from live import environment

from simenv.client.connection import channel
from testbed import stalls

pytestmark = pytest.mark.usefixtures("no_leaks")


@pytest.mark.timeout(600)
def test_stalls_leave_no_descriptor_and_no_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`python -m bench run stalls` has the times and numbers of a site."""
    monkeypatch.setattr(channel, "REOPEN_S", 1.0)
    with (
        environment(**stalls.OPTIONS) as live,
        live.client() as env,
        stalls.crowd(env, tmp_path, 8) as people,
    ):
        assert set(stalls.processes(env)) == {"service", "broker", "gateway"}
        more = stalls.leaked(env, people, 3, 6.0)
        assert not any(more.values()), more
        assert not people.errors
