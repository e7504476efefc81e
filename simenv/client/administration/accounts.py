"""Accounts and classes of service."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

import msgspec

from simenv.client.connection.session import ServiceSession
from simenv.config import check_name
from simenv.config.limits import limit_values
from simenv.errors import ConfigError, OptionError
from simenv.model.accounts import Account, Qos
from simenv.wire.messages import accounting
from simenv.wire.messages.base import ClientRequest

Entity = TypeVar("Entity", Account, Qos)
_Set = Callable[[int, str, Any], ClientRequest[accounting.Accounts]]
_ENTITIES: dict[type, tuple[str, _Set]] = {  # name in errors, message
    Account: ("account", accounting.SetAccount),
    Qos: ("class of service", accounting.SetQos),
}


class EntitySettings(Generic[Entity]):
    """Requests for accounts (`client.accounts`), or for classes of service (`client.qos`), by name.
    Thread-safe."""

    def __init__(self, session: ServiceSession, entity: type[Entity]) -> None:
        self._session = session
        self._entity: type[Entity] = entity
        self._what, self._message = _ENTITIES[entity]

    def listed(self) -> dict[str, Entity]:
        """Return all for an admin, else the accounts that the caller may use or coordinates, or the
        classes that the caller may use."""
        return self._of(self._session.request(accounting.GetAccounts(0)))

    def set(self, name: str, **changes: Any) -> Entity:
        """Add one, or change some fields of `simenv.model.accounts.Account` or `Qos`; sizes in
        `limits` may be texts. It persists over restarts, until `simenv.toml` changes it. Raises
        OptionError, ConfigError, NotAllowedError."""
        value = _with_changes(self.listed().get(name, self._entity()), changes)
        return self._of(self._set(check_name(name, self._what), value))[name]

    def remove(self, name: str) -> None:
        """Remove an account that has none below it, or a class that no account names; its tasks
        stay. Raises NotFoundError, OptionError, NotAllowedError."""
        self._set(name, None)

    def _set(self, name: str, value: Entity | None) -> accounting.Accounts:
        return self._session.request(self._message(0, name, value))

    def _of(self, answer: accounting.Accounts) -> dict[str, Entity]:
        values: Any = answer.accounts if self._entity is Account else answer.qos
        return values  # type: ignore[no-any-return]


def _with_changes(value: Entity, changes: dict[str, Any]) -> Entity:
    """Return an account or a class with some fields changed. Raises OptionError."""
    fields = value.__struct_fields__
    for name in changes:
        if name not in fields:
            raise OptionError(f"there is no setting {name!r:.80}", hint=f"of: {', '.join(fields)}")
    try:
        if "limits" in changes:
            changes = {**changes, "limits": limit_values(changes["limits"], "limits")}
        return msgspec.convert({**msgspec.structs.asdict(value), **changes}, type(value))
    except msgspec.ValidationError as error:
        raise OptionError(str(error)) from error
    except ConfigError as error:
        raise OptionError(error.message, hint=error.hint) from error
