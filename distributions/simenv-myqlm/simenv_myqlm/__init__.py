"""A QPU of myQLM over an environment of simenv.

`SimenvQPU(url=, token=, device=, ...)` is a `qat.core.qpu.QPUHandler`. Modules: `records` (plain
values of circuits, jobs and results), `programs` (circuits as OpenQASM), `formulas` (of classical
bits), `matrices` (gates that are given as matrices), `pulses` (analog jobs), `gateway` (HTTP),
`runner` (jobs as tasks and sweeps), `hardware` (noise models as devices), `handler` (the only one
that imports qat, when it is used). Invariant: nothing here imports simenv, and importing this
package imports nothing of myQLM.
"""

from __future__ import annotations

from typing import Any

from simenv_myqlm.errors import SimenvQPUError
from simenv_myqlm.gateway import GatewayConnection
from simenv_myqlm.runner import Runner

__all__ = ["GatewayConnection", "Runner", "SimenvQPU", "SimenvQPUError", "device_of"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Make the names that need myQLM when they are first used. Raises MissingMyQLMError."""
    if name in ("SimenvQPU", "device_of"):
        from simenv_myqlm import handler

        return handler.qpu_class() if name == "SimenvQPU" else handler.device_of
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
