"""Checks of accounts, classes of service and billing.

They hold for the tables [accounts.NAME], [qos.NAME] and [billing] of `simenv.toml` and for the
changes of an admin. All raise ConfigError, which names the key, the value and the allowed values.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from simenv.config.limits import check_limits
from simenv.config.pools import check_name, nearest
from simenv.errors import ConfigError
from simenv.model.accounts import (
    GROUP,
    MAX_ACCOUNTS,
    MAX_UNITS,
    Account,
    AccountTree,
    Billing,
    Qos,
)
from simenv.model.limits import SubjectKind
from simenv.model.task_rules import MAX_PRIORITY, MAX_SECONDS

MAX_FACTOR = 1e6
MAX_DAYS = 36_500.0


def check_accounts(accounts: Mapping[str, Account], qos: Mapping[str, Qos], source: str) -> None:
    """Check accounts and classes of service together."""
    for key, number in (("accounts", len(accounts)), ("qos", len(qos))):
        if number > MAX_ACCOUNTS:
            raise ConfigError(f"{source}: {number} {key}; at most {MAX_ACCOUNTS} are allowed")
    for name, account in accounts.items():
        subject = f"{source}: accounts.{check_name(name, 'account')}"
        check_limits(account.limits, SubjectKind.ACCOUNT, subject)
        for user in (*account.users, *account.coordinators):
            if not user.removeprefix(GROUP) or "/" in user or not user.isprintable():
                hint = "a name of a user, or @NAME of a group of the operating system"
                raise ConfigError(f"{subject}: user {user[:64]!r} is not a name", hint=hint)
        for each in account.qos:
            if each not in qos:
                hint = nearest(each, qos) if qos else "no class of service is defined: [qos.NAME]"
                raise ConfigError(f"{subject}: qos {each[:64]!r} is not known", hint=hint)
    for name, each_class in qos.items():
        subject = f"{source}: qos.{check_name(name, 'class of service')}"
        check_limits(each_class.limits, SubjectKind.QOS, subject)
        _check_range(each_class, "priority", -MAX_PRIORITY, MAX_PRIORITY, subject)
        _check_range(each_class, "usage_factor", 0, MAX_FACTOR, subject)
        _check_range(each_class, "max_run_s", 0, MAX_SECONDS, subject)
    try:
        AccountTree(accounts)
    except ConfigError as error:
        raise ConfigError(f"{source}: {error.message}", hint=error.hint) from error


def check_billing(billing: Billing, pools: Iterable[str], source: str) -> None:
    """Check the weights of billing units. `pools`: names of the configured pools."""
    subject, names = f"{source}: billing", tuple(pools)
    for key in ("slot_s", "gpu_s", "gib_s"):
        _check_range(billing, key, 0, MAX_UNITS, subject)
    _check_range(billing, "half_life_days", 1e-6, MAX_DAYS, subject)
    _check_range(billing, "preempt_after_s", 0, MAX_SECONDS, subject)
    _check_range(billing, "preempt_running_s", 0, MAX_SECONDS, subject)
    for pool, weight in billing.device_s.items():
        if pool not in names:
            text = f"{subject}.device_s: there is no pool {pool[:64]!r}"
            raise ConfigError(text, hint=nearest(pool, names))
        if not 0 <= weight <= MAX_UNITS:
            raise ConfigError(f"{subject}.device_s.{pool} = {weight} is outside 0 .. {MAX_UNITS:g}")


def _check_range(values: msgspec.Struct, key: str, low: float, high: float, subject: str) -> None:
    value = getattr(values, key)
    if not low <= value <= high:
        raise ConfigError(f"{subject}: {key} = {value} is outside {low:g} .. {high:g}")
