"""Accounts and classes of service."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from simenv.client.connection.session import ServiceSession
from simenv.config import check_name
from simenv.config.load import limit_values
from simenv.errors import ConfigError, OptionError
from simenv.model.accounts import Account, Qos
from simenv.wire.messages import accounting


class AccountSettings:
    """Requests for accounts. Thread-safe."""

    def __init__(self, session: ServiceSession) -> None:
        self._session = session

    def listed(self) -> dict[str, Account]:
        """Return accounts by name: all for an admin, else those that the caller may use or
        coordinates."""
        return self._session.request(accounting.Accounts, accounting.GetAccounts).accounts

    def set(self, name: str, **changes: Any) -> Account:
        """Add an account, or change some fields of `simenv.model.accounts.Account`; sizes in
        `limits` may be texts. It persists over restarts, until `simenv.toml` changes it. Raises
        OptionError, ConfigError, NotAllowedError."""
        account = _with_changes(self.listed().get(name, Account()), changes)
        fields = {"name": check_name(name, "account"), "account": account}
        result = self._session.request(accounting.Accounts, accounting.SetAccount, **fields)
        return result.accounts[name]

    def remove(self, name: str) -> None:
        """Remove an account that has none below it; its tasks stay. Raises NotFoundError,
        OptionError, NotAllowedError."""
        fields = {"name": name, "account": None}
        self._session.request(accounting.Accounts, accounting.SetAccount, **fields)


class QosSettings:
    """Requests for classes of service. Thread-safe."""

    def __init__(self, session: ServiceSession) -> None:
        self._session = session

    def listed(self) -> dict[str, Qos]:
        """Return classes of service by name: all for an admin, else those that the caller may
        use."""
        return self._session.request(accounting.Accounts, accounting.GetAccounts).qos

    def set(self, name: str, **changes: Any) -> Qos:
        """Add a class of service, or change some fields of `simenv.model.accounts.Qos`. Persists
        and raises as for accounts."""
        qos = _with_changes(self.listed().get(name, Qos()), changes)
        fields = {"name": check_name(name, "class of service"), "qos": qos}
        result = self._session.request(accounting.Accounts, accounting.SetQos, **fields)
        return result.qos[name]

    def remove(self, name: str) -> None:
        """Remove a class of service that no account names; its tasks stay. Raises NotFoundError,
        OptionError, NotAllowedError."""
        fields = {"name": name, "qos": None}
        self._session.request(accounting.Accounts, accounting.SetQos, **fields)


S = TypeVar("S", Account, Qos)


def _with_changes(value: S, changes: dict[str, Any]) -> S:
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
