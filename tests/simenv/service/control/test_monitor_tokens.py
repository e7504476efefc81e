"""Tokens of scrapers, which read the metrics and nothing else."""

import time
from pathlib import Path

import pytest
from token_harness import DAY_S, TokenHarness

from simenv.model import TaskOptions
from simenv.wire.keyfiles import new_pair
from simenv.wire.messages import client as m
from simenv.wire.messages.admin import GetPools
from simenv.wire.messages.credentials import AddKey, CreateToken, GetKeys, GetTokens
from simenv.wire.messages.metrics import GetMetrics, Metrics
from simenv.wire.messages.queries import GetDevices


@pytest.fixture
def town(tmp_path: Path) -> TokenHarness:
    return TokenHarness(tmp_path)


@pytest.mark.parametrize("user", ["ops", "prometheus"], ids=["of an admin", "of nobody else"])
def test_role_monitor_reads_the_metrics_and_nothing_else(town: TokenHarness, user: str) -> None:
    monitor = town.enter(town.create(town.ops, user, role="monitor").secret)
    assert town.get(Metrics, GetMetrics(1), monitor).pools
    town.tick()
    assert town.get(Metrics, GetMetrics(1), monitor).pools
    for message in (
        m.Submit(5, "~k", 0, TaskOptions(), []),
        *(m.GetQueue(1, False, 10), m.GetStatus(1), GetPools(1), GetDevices(1, names=True)),
        *(GetTokens(1), CreateToken(1, "", "", "client", "", DAY_S), GetKeys(1)),
    ):
        assert town.refusal(message, monitor).code == "not_allowed"


def test_token_with_the_role_monitor_ends_with_the_role_admin_of_its_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    town = TokenHarness(tmp_path, accounts={"lab": {"users": ["eva"]}})
    end_s = time.time() + 1_000.0
    town.say(AddKey(1, "eva", "admin", new_pair().public, end_s))
    secret = town.create(user="eva", role="monitor").secret
    monitor = town.enter(secret)
    assert town.get(Metrics, GetMetrics(1), monitor)
    monkeypatch.setattr(time, "time", lambda: end_s + 1.0)
    town.tick()
    assert [type(each) for each in town.heard(monitor)] == [m.Refused]
    assert town.say(m.Ping(1), monitor) == []
    assert town.refused(secret).code == "key_refused"


def test_token_with_the_role_monitor_leaves_its_users_limits(town: TokenHarness) -> None:
    owners = town.loop.accounting.owners
    owners.admit("eva", "admin")
    before = town.state.shares.limits.of("eva")
    owners.admit("eva", "monitor")
    assert town.state.shares.limits.of("eva") == before
    owners.admit("eva", "client")
    assert town.state.shares.limits.of("eva") != before
