"""Accounts and classes of service by name: those of the configuration, and those that admins set.

Invariants: a change by an administrator is stored in the commit that precedes its answer. The
tables of the configuration are applied once, and again only where the configuration changes, so
that the settings of an administrator survive a restart.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Generic, TypeVar

from simenv.errors import NotFoundError
from simenv.model.accounts import Account, Qos
from simenv.service.journal import tables, writer

Value = TypeVar("Value", bound=Account | Qos)


class ConfiguredTable(Generic[Value]):
    """Values of one kind. The journal has, for each, the present value (None: removed), and that of
    the configuration when it was applied (None: not in it). Used from the loop's thread."""

    def __init__(
        self,
        what: str,
        configured: Mapping[str, Value],
        table: tables.JournalTable[str, tuple[Value | None, Value | None]],
        journal: writer.Journal,
    ) -> None:
        """`what`: one of them, in errors. Values that have changed in the configuration are stored
        with the next commit."""
        self._what = what
        self._configured = configured
        self._table = table
        self._journal = journal
        stored = table.read(journal.records)
        changed: dict[str, tuple[Value | None, Value | None]] = {
            name: (value, value)
            for name, value in configured.items()
            if stored.get(name, (None, None))[1] != value
        }
        gone = [name for name, (_, then) in stored.items() if then and name not in configured]
        journal.put([*table.statements(changed), *map(table.remove, gone)], forced=False)
        rows: dict[str, tuple[Value | None, Value | None]] = {**stored, **changed}
        self.present = self._ordered(
            {
                name: value
                for name, (value, _) in rows.items()
                if value is not None and name not in gone
            }
        )

    def _ordered(self, values: Mapping[str, Value]) -> dict[str, Value]:
        """Return the configured ones first, in their order, then the others by name."""
        configured = [name for name in self._configured if name in values]
        names = (*configured, *sorted(values.keys() - self._configured.keys()))
        return {name: values[name] for name in names}

    def changed(self, name: str, value: Value | None) -> dict[str, Value]:
        """Return the values with one added, replaced, or removed (None). Raises NotFoundError."""
        if value is None and name not in self.present:
            there = ", ".join(list(self.present)[:10]) or "none"
            text = f"there is no {self._what} {name!r}"
            raise NotFoundError(text, hint=f"there are: {there}")
        values: dict[str, Value | None] = {**self.present, name: value}
        return self._ordered({name: each for name, each in values.items() if each is not None})

    def store(self, name: str) -> None:
        """Store the present value of a name, or that there is none, with the next commit."""
        value, configured = self.present.get(name), self._configured.get(name)
        if value is None and configured is None:
            statements = [self._table.remove(name)]
        else:
            statements = self._table.statements({name: (value, configured)})
        self._journal.put(statements, forced=True)
