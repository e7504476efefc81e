"""Limits in a configuration: of owners, [limits]; of accounts and classes of service, in their
tables. Values of limits are parsed and checked here, wherever they come from.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from simenv.config.pools import as_table, check_name, nearest, size
from simenv.errors import ConfigError, OptionError
from simenv.model.limits import CLIENT_LIMITS, UNLIMITED, Limits, SubjectKind, merged

_BYTES = ("max_queued_bytes", "max_kept_bytes", "max_state_bytes")


class LimitSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Limits of the owners of keys: the table [limits]. The environment's own user has none."""

    client: Limits = CLIENT_LIMITS
    admin: Limits = UNLIMITED
    keys: dict[str, dict[str, int]] = {}  # by name of key: limits that differ from its role's


def limits_of(raw: object, source: str) -> LimitSettings:
    """Parse the table [limits], with each role's defaults. Raises ConfigError, which names the key,
    the value and the allowed values."""
    if isinstance(raw, LimitSettings):
        return raw
    table, names = as_table(raw, f"{source}: limits"), LimitSettings.__struct_fields__
    for name in table:
        if name not in names:
            raise ConfigError(f"{source}: unknown key 'limits.{name}'", hint=nearest(name, names))
    client = _of_role(table.get("client", {}), CLIENT_LIMITS, f"{source}: limits.client")
    admin = _of_role(table.get("admin", {}), UNLIMITED, f"{source}: limits.admin")
    keys: dict[str, dict[str, int]] = {}
    for name, each in as_table(table.get("keys", {}), f"{source}: limits.keys").items():
        subject = f"{source}: limits.keys.{check_name(name, 'key')}"
        keys[name] = limit_values(each, subject)
        _merged(client, keys[name], subject)
    return LimitSettings(client, admin, keys)


def limit_values(raw: object, subject: str) -> dict[str, int]:
    """Parse a table of limits by name; sizes may have units. Raises ConfigError."""
    entries: dict[str, int] = {}
    for key, value in as_table(raw, subject).items():
        if key in _BYTES:
            value = size(value, f"{subject}: {key}")
        if isinstance(value, bool) or not isinstance(value, int):
            raise ConfigError(f"{subject}: {key} = {str(value)[:80]!r} is not a whole number")
        entries[key] = value
    return entries


def check_limits(limits: Mapping[str, int], kind: SubjectKind, subject: str) -> None:
    """Check the limits of an account or a class of service. Raises ConfigError."""
    for key in limits:
        if key not in kind.resources:
            there = ", ".join(kind.resources)
            hint = f"there are: {there}; other limits are of single users: [limits]"
            raise ConfigError(f"{subject}.limits: {key[:64]!r} is not known", hint=hint)
    _merged(UNLIMITED, limits, f"{subject}.limits")


def _of_role(raw: object, base: Limits, subject: str) -> Limits:
    if isinstance(raw, Limits):
        return raw
    return _merged(base, limit_values(raw, subject), subject)


def _merged(base: Limits, values: Mapping[str, int], subject: str) -> Limits:
    try:
        return merged(base, values)
    except OptionError as error:
        raise ConfigError(f"{subject}: {error.message}", hint=error.hint) from error
