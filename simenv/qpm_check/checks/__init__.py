"""All checks, in the order of the report: loading first, then binding by binding."""

from __future__ import annotations

from types import ModuleType

from simenv.qpm_check.check import Check
from simenv.qpm_check.checks import (
    admission,
    clients,
    control,
    execution,
    loading,
    policy,
    records,
    telemetry,
)

_MODULES: tuple[ModuleType, ...] = (
    loading, records, execution, admission, policy,
    telemetry, clients, control,
)  # fmt: skip


def rows() -> tuple[Check, ...]:
    """All checks of all modules, in the order of their definition."""
    return tuple(
        value for module in _MODULES for value in vars(module).values() if isinstance(value, Check)
    )
