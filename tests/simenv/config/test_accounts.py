"""The tables of accounts, classes of service and billing."""

from pathlib import Path
from typing import Any

import pytest
from failing import fails

from simenv import config
from simenv.config.accounts import check_accounts
from simenv.errors import ConfigError
from simenv.model.accounts import MAX_ACCOUNTS, Account, Billing, Qos

FILE = """
isolation = "account"
removed_users = "cancel"

[accounts.chem]
parent = "physics"
share = 2
users = ["ana", "@chem"]
budget_slot_h = 500
cut = true
qos = ["normal"]
limits = { max_queued_tasks = 100, max_queued_bytes = "2GiB" }

[accounts.physics]
coordinators = ["eve"]

[qos.normal]
priority = 10
usage_factor = 0.5
limits = { max_queued_bytes = "1MiB" }

[billing]
gpu_s = 10
device_s = { main = 2.5 }
"""


def test_tables_of_a_file_are_read_and_survive_the_file_of_a_start(tmp_path: Path) -> None:
    file, resolved = tmp_path / "simenv.toml", tmp_path / "config.json"
    file.write_text(FILE)
    settings = config.load({}, file, {"SIMENV_HOME": str(tmp_path)})
    assert list(settings.accounts) == ["chem", "physics"]  # in the order of the file
    chem = settings.accounts["chem"]
    assert (chem.parent, chem.share, chem.cut) == ("physics", 2.0, True)
    assert chem.users == ("ana", "@chem")
    assert chem.limits == {"max_queued_tasks": 100, "max_queued_bytes": 2 * 2**30}
    assert settings.qos == {"normal": Qos(10, 0.5, limits={"max_queued_bytes": 2**20})}
    assert settings.billing == Billing(gpu_s=10.0, device_s={"main": 2.5})
    assert (settings.isolation, settings.removed_users) == ("account", "cancel")
    config.write(settings, resolved)
    assert config.read(resolved) == settings
    assert list(config.read(resolved).accounts) == ["chem", "physics"]


def test_last_settings_are_taken_over_by_a_start() -> None:
    settings = config.convert({"accounts": {"chem": Account(users=("ana",))}, "qos": {"x": Qos()}})
    assert settings.accounts["chem"].users == ("ana",)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"accounts": {"Chem": {}}}, "account name 'Chem' is not allowed"),
        ({"accounts": {"a": {"parent": "b"}}}, "options: account 'a': there is no parent 'b'"),
        ({"accounts": {"a": {"shares": 1}}}, "unknown key 'accounts.a.shares'"),
        ({"accounts": {"a": {"share": 0}}}, "share = 0"),
        ({"accounts": {"a": {"users": [""]}}}, "accounts.a: user '' is not a name"),
        ({"accounts": {"a": {"users": ["@"]}}}, "user '@' is not a name"),
        ({"accounts": {"a": {"coordinators": ["x/y"]}}}, "user 'x/y' is not a name"),
        ({"accounts": {"a": {"qos": ["fast"]}}}, "accounts.a: qos 'fast' is not known"),
        ({"accounts": {"a": {"limits": {"max_tasks": 1}}}}, "'max_tasks' is not known"),
        (
            {"accounts": {"a": {"limits": {"max_reservations": 1}}}},
            "'max_reservations' is not known",
        ),
        ({"accounts": {"a": {"limits": {"max_queued_tasks": -1}}}}, "max_queued_tasks = -1"),
        ({"accounts": {"a": {"limits": {"max_queued_bytes": "2XB"}}}}, "'2XB' is not a size"),
        ({"accounts": {"a": {"limits": 5}}}, "accounts.a.limits = '5' is not a table"),
        ({"accounts": 5}, "accounts = '5' is not a table"),
        ({"qos": {"a": {"usage_factor": -1}}}, "qos.a: usage_factor = -1.0 is outside"),
        ({"qos": {"a": {"usage_factor": float("inf")}}}, "usage_factor = inf is outside"),
        ({"qos": {"a": {"priority": 10**7}}}, "priority = 10000000 is outside"),
        ({"qos": {"a": {"max_run_s": -1}}}, "max_run_s = -1 is outside"),
        ({"qos": {"a": {"limits": {"max_running_slots": 1}}}}, "'max_running_slots' is not known"),
        ({"billing": {"slot_s": float("nan")}}, "billing: slot_s = nan is outside"),
        ({"billing": {"half_life_days": 0}}, "half_life_days = 0.0 is outside"),
        ({"billing": {"preempt_after_s": -1}}, "preempt_after_s = -1.0 is outside"),
        ({"billing": {"preempt_running_s": -1}}, "preempt_running_s = -1.0 is outside"),
        ({"billing": {"device_s": {"mine": 1}}}, "there is no pool 'mine'"),
        ({"billing": {"device_s": {"main": -1}}}, "device_s.main = -1.0 is outside"),
        ({"isolation": "user"}, "isolation 'user' is not known"),
        ({"removed_users": "drop"}, "removed_users 'drop' is not known"),
    ],
)
def test_bad_values_are_refused_by_name(values: dict[str, Any], words: str) -> None:
    pools = [{"name": "main"}]
    error = fails(ConfigError, "", config.convert, {"pools": pools, **values})
    assert words in error.message


def test_number_of_accounts_is_bounded() -> None:
    accounts = {f"a{number}": Account() for number in range(MAX_ACCOUNTS + 1)}
    fails(ConfigError, "at most 1000", check_accounts, accounts, {}, "here")
