"""All checks, in the order of the report: loading first, then binding by binding."""

from __future__ import annotations

import importlib

from simenv.qpm_check.check import Check

_NAMES = (
    "loading", "service_record", "records", "execution", "analog", "admission", "policy",
    "scheduler", "telemetry", "inputs", "crowds", "clients", "control", "restarts", "tokens",
)  # fmt: skip


def rows() -> tuple[Check, ...]:
    """All checks of all modules, in the order of their definition."""
    modules = [importlib.import_module(f"{__name__}.{name}") for name in _NAMES]
    return tuple(
        value for module in modules for value in vars(module).values() if isinstance(value, Check)
    )
