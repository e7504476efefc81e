"""Parse the table [limits] of `simenv.toml` as limits of owners."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from simenv.config.model import Limits
from simenv.config.syntax import check_name, nearest, size
from simenv.errors import ConfigError, OptionError
from simenv.model import CLIENT_LIMITS, UNLIMITED, OwnerLimits
from simenv.model.owners import merged

_BYTES = ("max_queued_bytes", "max_kept_bytes", "max_state_bytes")
_TABLES = ("client", "admin", "keys")


def limits_of(raw: object, source: str) -> Limits:
    """Parse the table [limits], with each role's defaults. Raises ConfigError, which names the key,
    the value and the allowed values."""
    if isinstance(raw, Limits):
        return raw
    table = _table(raw, f"{source}: limits")
    for name in table:
        if name not in _TABLES:
            raise ConfigError(f"{source}: unknown key 'limits.{name}'", hint=nearest(name, _TABLES))
    client = _of_role(table.get("client", {}), CLIENT_LIMITS, f"{source}: limits.client")
    admin = _of_role(table.get("admin", {}), UNLIMITED, f"{source}: limits.admin")
    keys: dict[str, dict[str, int]] = {}
    for name, each in _table(table.get("keys", {}), f"{source}: limits.keys").items():
        subject = f"{source}: limits.keys.{check_name(name, 'key')}"
        keys[name] = limit_values(each, subject)
        _merged(client, keys[name], subject)
    return Limits(client, admin, keys)


def limit_values(raw: object, subject: str) -> dict[str, int]:
    """Parse a table of limits by name; sizes may have units. Raises ConfigError."""
    entries: dict[str, int] = {}
    for key, value in _table(raw, subject).items():
        if key in _BYTES:
            value = size(value, f"{subject}: {key}")
        if isinstance(value, bool) or not isinstance(value, int):
            raise ConfigError(f"{subject}: {key} = {str(value)[:80]!r} is not a whole number")
        entries[key] = value
    return entries


def _of_role(raw: object, base: OwnerLimits, subject: str) -> OwnerLimits:
    if isinstance(raw, OwnerLimits):
        return raw
    return _merged(base, limit_values(raw, subject), subject)


def _merged(base: OwnerLimits, values: Mapping[str, int], subject: str) -> OwnerLimits:
    try:
        return merged(base, values)
    except OptionError as error:
        raise ConfigError(f"{subject}: {error.message}", hint=error.hint) from error


def _table(raw: object, subject: str) -> dict[str, object]:
    if isinstance(raw, msgspec.Struct):
        return msgspec.structs.asdict(raw)
    if not isinstance(raw, Mapping):
        raise ConfigError(f"{subject} = {str(raw)[:80]!r} is not a table", hint=f"[{subject}]")
    return dict(raw)
