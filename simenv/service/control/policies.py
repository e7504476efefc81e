"""Apply the policies of the configuration at a start.

Invariant: the policies of a pool are applied once, and again only when the configuration changes,
so that the settings of an administrator (`simenv policy`) survive a restart.
"""

from __future__ import annotations

import logging
from typing import Any

import msgspec

from simenv.config import Config, Policies
from simenv.config.model import ALL
from simenv.errors import ConfigError, InsufficientError, OptionError
from simenv.model import AdmissionPolicy
from simenv.scheduler.scheduler import Scheduler

Statement = tuple[str, tuple[Any, ...]]

log = logging.getLogger("simenv.service")


def apply(config: Config, scheduler: Scheduler, prior: dict[str, bytes]) -> list[Statement]:
    """Apply new policies of the configuration. `prior`: packed policies that were applied before,
    by pool. Returns the statements that store the change. Raises ConfigError."""
    results: list[Statement] = []
    for name, policies in config.policies.items():
        body = msgspec.msgpack.encode(policies)
        if prior.get(name) != body:
            try:
                _apply(scheduler, "" if name == ALL else name, policies)
            except OptionError as error:
                raise ConfigError(f"policies.{name}: {error.message}", hint=error.hint) from error
            except InsufficientError as error:  # live reservations hold more than the new policy
                log.warning("policies.%s is not applied: %s", name, error)
                continue
            results.append(("insert or replace into policy_told values(?,?)", (name, body)))
    for name in prior:
        if name not in config.policies:
            results.append(("delete from policy_told where pool = ?", (name,)))
    return results


def _apply(scheduler: Scheduler, device: str, policies: Policies) -> None:
    if policies.queue:
        options = (("keys", ",".join(policies.keys)),) if policies.keys else ()
        scheduler.set_queue_policy(device, policies.queue, options)
    if policies.admission:
        policy = AdmissionPolicy(
            policies.admission,
            scheduler.state.reservations.terms(device).profile.baseline,
            policies.credits,
            policies.rate,
            round(policies.span_s * 1e9),
        )
        scheduler.set_admission_policy(device, policy, -1)
