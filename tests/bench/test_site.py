"""The made-up site, its simulated day, and the figures of fair share."""

from pathlib import Path

import pytest

from simenv.model.accounts import Account, AccountTree
from testbed import site

TWO = {"a": Account(share=1.0, users=("ana",)), "b": Account(share=3.0, users=("ben",))}


def test_site_has_500_users_in_the_lowest_of_three_levels_of_40_accounts() -> None:
    accounts = site.site_accounts()
    tree = AccountTree(accounts)
    leaves = [name for name, each in accounts.items() if each.users]
    users = [user for name in leaves for user in accounts[name].users]
    assert (len(accounts), len(users), len(set(users))) == (40, 500, 500)
    assert {len(tree.path(name)) for name in leaves} == {3}
    assert sum(site.part_of_site(accounts, name) for name in leaves) == pytest.approx(1.0)


def test_day_is_the_same_for_a_seed_and_one_account_begins_late() -> None:
    accounts = site.site_accounts()
    work = site.day(accounts, 5_000)
    assert work == site.day(accounts, 5_000)
    assert [each.time_s for each in work] == sorted(each.time_s for each in work)
    assert 3_500 < sum(each.tasks for each in work) < 6_500
    late = [each.time_s for each in work if each.account.startswith(site.LATE)]
    assert min(late) == site.LATE_S
    assert {each.ranks for each in work} == set(site.RANKS)


def test_deviation_compares_siblings_that_were_saturated_since_the_same_time() -> None:
    since = {"a": 0.0, "b": 0.0}
    assert site.deviations(TWO, {"a": 10.0, "b": 30.0}, since) == {"a": 0.0, "b": 0.0}
    found = site.deviations(TWO, {"a": 20.0, "b": 20.0}, since)
    assert found == pytest.approx({"a": 1.0, "b": -1.0 / 3.0})
    assert site.deviations(TWO, {"a": 20.0, "b": 20.0}, {"a": 0.0, "b": 9.0}) == {}


@pytest.mark.parametrize(("idle_s", "part"), [(3_600.0, 0.5), (20_000.0, 0.25), (500.0, 0.9)])
def test_arrears_are_those_of_usage_that_decays(idle_s: float, part: float) -> None:
    half_life_s, step_s = 7_200.0, 1.0
    decay = 0.5 ** (step_s / half_life_s)
    own = others = 0.0
    for _ in range(int(idle_s / step_s)):
        others = others * decay + step_s
    took_s = 0.0
    while own / part < others / (1.0 - part):
        own, others, took_s = own * decay + step_s, others * decay, took_s + step_s
    assert took_s == pytest.approx(site.arrears_s(idle_s, part, half_life_s), abs=3.0)


def test_simulated_accounts_get_their_shares_over_a_restart_and_no_task_is_lost(
    tmp_path: Path,
) -> None:
    work = [
        site.Submission(0.0, name, user, 20, 5.0, ranks)
        for name, user in (("a", "ana"), ("b", "ben"))
        for ranks in (1,) * 30 + (2,)
    ]
    simulated = site.SimulatedDay(TWO, work, nodes=1, folder=tmp_path)
    simulated.run(150.0)
    assert simulated.restart() < 1e-9
    simulated.run(300.0)
    assert simulated.saturated == {"a": 0.0, "b": 0.0}
    off = site.deviations(TWO, simulated.delivered(0.0, 300.0), simulated.saturated)
    assert max(map(abs, off.values())) < 0.1
    simulated.run(2_000.0)
    assert simulated.ended == simulated.submitted == 1_240
    assert not simulated.state.tasks
    assert simulated.saturated == {}
    simulated.close()
