"""The first check of a circuit for a device."""

from __future__ import annotations

from pathlib import Path

import pytest

from simenv.client.circuits import load
from simenv.model import TaskOptions, decode_program
from simenv.service.devices import context
from simenv.service.devices.context import DeviceContext
from simenv.service.devices.registry import DeviceRegistry
from simulators.circuit.analysis.profiler import profile
from simulators.circuit.ir import Circuit
from simulators.compiler import kernel

NAME = "superconducting-lattice"
TEXT = "OPENQASM 2.0;\ninclude 'qelib1.inc';\nqreg q[1];\ncreg c[1];\nx q;\nmeasure q -> c;\n"


def test_first_check_compiles_few_kernels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its task would wait for them; the loop checks no circuit before they are compiled."""
    monkeypatch.setattr(kernel, "_kernels", dict(kernel._kernels))

    @kernel.kernel(kernel.INT, returns=kernel.INT, group="attachment")
    def unneeded(number):  # type: ignore[no-untyped-def]
        return number + 1

    monkeypatch.setattr(context, "kernels", lambda _group: (unneeded,))
    registry = DeviceRegistry(tmp_path)
    device = registry.get(NAME).result()
    registry.close()
    circuit = Circuit.from_program(decode_program(load(TEXT).packed))
    checks = DeviceContext(device.info, device, TaskOptions(device=NAME))
    assert checks.examined(circuit, profile(circuit, ("counts",), ())).noise is not None
    assert not unneeded.is_loaded
    assert not checks.is_loaded
