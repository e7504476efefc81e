"""Numbers of users that accounts get, and the ranges that are refused."""

from pathlib import Path

import pytest
from failing import fails

from simenv.config import convert
from simenv.errors import ConfigError
from simenv.service.workers import account_users, isolation
from simenv.service.workers.account_users import LEAST, AccountUsers, numbers_of

NUMBERS = range(310_000, 310_003)


def test_account_keeps_its_number_until_it_is_given_to_another(tmp_path: Path) -> None:
    users = AccountUsers(NUMBERS, tmp_path / "users.json")
    numbers = [users.user_of(name, ()) for name in ("a", "b", "a")]
    assert numbers == [310_000, 310_001, 310_000]
    users.writing()()
    users = AccountUsers(NUMBERS, tmp_path / "users.json")  # of the next start
    assert [users.user_of(name, ()) for name in ("b", "c", "a")] == [310_001, 310_002, 310_000]
    assert users.user_of("d", {310_001}) == 310_002, "b has workers, c waited longest"
    assert users.user_of("c", {310_002}) == 310_001


@pytest.mark.parametrize("text", ["not json", '{"format": 2, "users": {"a": 310002}}', "[]"])
def test_damaged_or_later_file_is_not_believed(tmp_path: Path, text: str) -> None:
    (tmp_path / "users.json").write_text(text)
    assert AccountUsers(NUMBERS, tmp_path / "users.json").user_of("a", ()) == 310_000


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("100000", "is not a range of user ids"), ("x-y", "is not a range of user ids"),
        ("310000-99999999999", "is not a range of user ids"),
        ("310000-310010", f"has 11 user ids; {LEAST} are the least"), ("320000-310000", "user ids"),
        ("0-65000", "has the id"),
    ],
)  # fmt: skip
def test_range_that_cannot_be_is_refused(setting: str, message: str) -> None:
    fails(ConfigError, message, numbers_of, setting)


def test_range_of_root_is_the_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(account_users, "SUBUID", tmp_path / "subuid")
    assert not numbers_of("")
    (tmp_path / "subuid").write_text("ana:100000:65536\nroot:200000:65536\n")
    assert numbers_of("") == range(200_000, 265_536)


def test_requested_range_that_cannot_hold_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    config = convert({"isolation": "account", "isolation_uids": "310000-320000"})
    monkeypatch.setattr(account_users.os, "geteuid", lambda: 1000)
    fails(ConfigError, "cannot hold here: only root can", isolation.check_isolation, config)
    fails(
        ConfigError, "goes with isolation = 'account' alone", convert,
        {"isolation_uids": "310000-320000"},
    )  # fmt: skip
