"""All checks, in the order of the report: loading first, then binding by binding."""

from __future__ import annotations

from types import ModuleType

from simenv.qpm_check.checks import (
    admission,
    clients,
    control,
    crowd,
    events,
    execution,
    inputs,
    loading,
    policy,
    polling,
    records,
    restart,
    scheduling,
    service,
    single,
    telemetry,
    tokens,
)
from simenv.qpm_check.harness.check import Check

_MODULES: tuple[ModuleType, ...] = (
    loading, service, records, single, execution, polling, events, admission, policy, scheduling,
    telemetry, inputs, crowd, clients, control, restart, tokens,
)  # fmt: skip


def rows() -> tuple[Check, ...]:
    """All checks of all modules, in the order of their definition."""
    return tuple(
        value for module in _MODULES for value in vars(module).values() if isinstance(value, Check)
    )
