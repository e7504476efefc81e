"""Transpiler plugins of other distributions are imported when they are used, and not before."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import EntryPoint

import pytest
from qiskit.transpiler.preset_passmanagers import plugin

from simenv.transpiler import plugins

_COMPILE = """
import sys
from qiskit import QuantumCircuit
from noise_models import library
from simenv.service.devices.describe import device_info
from simenv.transpiler.transpiler import Transpiler

circuit = QuantumCircuit(3)
circuit.h(0)
circuit.cx(0, 1)
circuit.cx(0, 2)
info = device_info("lattice", library.load("superconducting-lattice"), "digest")
for level in range(4):
    assert Transpiler(info, level).run(circuit).count_ops()["cz"] >= 2
assert "qiskit_ibm_runtime" not in sys.modules, "imported without need"
"""


def test_compilation_does_not_import_runtime_of_ibm() -> None:
    pytest.importorskip("qiskit_ibm_runtime")
    subprocess.run([sys.executable, "-c", _COMPILE], check=True)


def test_plugin_of_other_distribution_stays_usable(monkeypatch: pytest.MonkeyPatch) -> None:
    foreign = EntryPoint("foreign", f"{__name__}:ForeignPlugin", plugins.GROUP)
    own = EntryPoint(
        "default",
        "qiskit.transpiler.preset_passmanagers.builtin_plugins:DefaultTranslationPassManager",
        plugins.GROUP,
    )
    monkeypatch.setattr(plugins, "entry_points", lambda group: [own, foreign])
    table = {
        name: each
        for name, each in plugin.stevedore.ExtensionManager.ENTRY_POINT_CACHE.items()
        if name != plugins.GROUP
    }
    monkeypatch.setattr(plugin.stevedore.ExtensionManager, "ENTRY_POINT_CACHE", table)
    ForeignPlugin.created = 0
    plugins.load_plugins_lazily()
    manager = plugin.PassManagerStagePluginManager()
    assert manager.translation_plugins.names() == ["default", "foreign"]
    assert ForeignPlugin.created == 0
    config = object()
    stage = manager.get_passmanager_stage("translation", "foreign", config, optimization_level=2)
    assert stage == (config, 2)
    assert ForeignPlugin.created == 1


class ForeignPlugin:
    """A plugin that returns its arguments."""

    created = 0

    def __init__(self) -> None:
        ForeignPlugin.created += 1

    def pass_manager(self, config: object, optimization_level: int | None = None) -> object:
        return config, optimization_level
