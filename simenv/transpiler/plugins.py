"""Lazy loading of the transpiler plugins of other distributions. Imports qiskit.

Qiskit loads each installed plugin for the stage `translation` whenever it makes a pass manager,
also those that it does not use. The plugins of qiskit-ibm-runtime import its clients for IBM's
cloud, which takes several times as long as the transpilation.
"""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from typing import Any

GROUP = "qiskit.transpiler.translation"
_OWN = "qiskit."  # modules of Qiskit: loaded with it


class LazyStagePlugin:
    """A stage plugin of Qiskit that is imported when its pass manager is asked for."""

    def __init__(self, entry_point: EntryPoint) -> None:
        self._entry_point = entry_point

    def pass_manager(self, *args: Any, **keywords: Any) -> Any:
        """Import the plugin and return its pass manager."""
        return self._entry_point.load()().pass_manager(*args, **keywords)


class LazyEntryPoint:
    """An entry point whose load() imports nothing."""

    def __init__(self, entry_point: EntryPoint) -> None:
        self._entry_point = entry_point

    def __getattr__(self, name: str) -> Any:
        return getattr(self._entry_point, name)

    def load(self) -> Any:
        """Return a function that makes the LazyStagePlugin."""
        return lambda: LazyStagePlugin(self._entry_point)


def load_plugins_lazily() -> None:
    """Enter lazy entry points into the table of stevedore, from which Qiskit loads plugins. Each
    plugin stays usable by its name. A version of stevedore without this table, or one that has read
    it before, is left as it is."""
    from qiskit.transpiler.preset_passmanagers import plugin

    manager = getattr(getattr(plugin, "stevedore", None), "ExtensionManager", None)
    table = getattr(manager, "ENTRY_POINT_CACHE", None)
    if table is None or GROUP in table:
        return
    table[GROUP] = [
        each if each.value.startswith(_OWN) else LazyEntryPoint(each)
        for each in entry_points(group=GROUP)
    ]


def translation_plugin(target: Any) -> str:
    """Return the name of the plugin of Qiskit's stage `translation` that a Target needs; "": of
    none. The plugin enters the table of stevedore."""
    from qiskit.transpiler.preset_passmanagers import plugin

    from simenv.transpiler import mixed_gates

    load_plugins_lazily()
    manager = getattr(getattr(plugin, "stevedore", None), "ExtensionManager", None)
    table = getattr(manager, "ENTRY_POINT_CACHE", None)
    if not table or GROUP not in table or not mixed_gates.is_mixed(target):
        return ""
    if all(each.name != mixed_gates.NAME for each in table[GROUP]):
        value = f"{mixed_gates.__name__}:{mixed_gates.TranslationPlugin.__name__}"
        table[GROUP].append(EntryPoint(mixed_gates.NAME, value, GROUP))
    return mixed_gates.NAME
