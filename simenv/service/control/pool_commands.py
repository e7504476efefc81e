"""Changes of pools and nodes by administrators, and the policies of the configuration.

Invariants: a change of a pool or node that was answered is stored and is applied again before the
first tick of the next start, unless `up` configures that pool otherwise. The policies of the
configuration are applied once, and again only when the configuration changes, so that the settings
of an administrator (`simenv policy`) survive a restart.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import msgspec

from simenv import errors
from simenv.config import Config, Policies
from simenv.config.model import ALL
from simenv.model import AdmissionPolicy, PoolSpec
from simenv.scheduler.core import Action, RecordEvent
from simenv.scheduler.scheduler import Scheduler
from simenv.scheduler.state.device_controls import DRAINING, STEERED
from simenv.service.journal import writer
from simenv.service.journal.schema import POLICY_TOLD
from simenv.service.workers import resources
from simenv.wire.messages import admin

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
            except errors.OptionError as error:
                message = f"policies.{name}: {error.message}"
                raise errors.ConfigError(message, hint=error.hint) from error
            except errors.InsufficientError as error:
                # Live reservations hold more than the new policy.
                log.warning("policies.%s is not applied: %s", name, error)
                continue
            results.append(POLICY_TOLD.put(name, body))
    for name in prior:
        if name not in config.policies:
            results.append(POLICY_TOLD.remove(name))
    return results


def _apply(scheduler: Scheduler, device: str, policies: Policies) -> None:
    if policies.queue:
        options = (("keys", ",".join(policies.keys)),) if policies.keys else ()
        scheduler.set_queue_policy(device, policies.queue, options)
    if policies.admission:
        baseline = scheduler.state.reservations.terms(device).profile.baseline
        name, span_ns = policies.admission, round(policies.span_s * 1e9)
        policy = AdmissionPolicy(name, baseline, policies.credits, policies.rate, span_ns)
        scheduler.set_admission_policy(device, policy, -1)


class PoolCommands:
    """Changes of pools and nodes. Used from the loop's thread."""

    def __init__(
        self,
        config: Config,
        scheduler: Scheduler,
        journal: writer.Journal,
        recheck_node: Callable[[str], bool],
    ) -> None:
        """`recheck_node`: returns whether a lost node can be used again."""
        self._config = config
        self._configured = {pool.name: pool for pool in config.pools}
        self._scheduler = scheduler
        self._state = scheduler.state
        self._journal = journal
        self._recheck_node = recheck_node

    def apply(self, message: admin.Scale | admin.DrainNode | admin.ResumeNode) -> list[Action]:
        """Apply a change, which the next commit stores. Raises OptionError, NotFoundError,
        LimitExceededError."""
        now_ns = time.monotonic_ns()
        match message:
            case admin.Scale():
                forced = self._check_capacity(message)
                size = message.pool, message.least, message.most
                actions = self._scheduler.scale(*size, overcommit=forced)
                configured = self._configured[message.pool]
                self._journal.scaled(*size, configured.min, configured.max)
            case admin.DrainNode() if self._is_pool(message.node):
                actions = self._steer(message.node, "pause", message.reason)
            case admin.DrainNode():
                actions = self._scheduler.drain_node(message.node, message.reason, now_ns)
                if (
                    self._state.cluster.nodes.hosts[message.node].job is None
                ):  # else: until its job ends
                    self._journal.drained(message.node, message.reason)
            case admin.ResumeNode():
                actions = self._scheduler.resume(message.name, self._recheck_node(message.name))
                if self._is_pool(message.name):
                    actions = [*self._steer(message.name, "resume", "used again"), *actions]
                self._journal.resumed(message.name)
        return actions

    def _is_pool(self, name: str) -> bool:
        return name in self._state.cluster.pools and name not in self._state.cluster.nodes.hosts

    def _steer(self, pool: str, verb: str, reason: str) -> list[Action]:
        """Let the device of a pool start nothing more, or start tasks again. One that drains, and
        so accepts nothing, drains on: a pause would let it accept tasks."""
        device = self._state.cluster.pools[pool].device
        control = self._state.devices.controls.of(device)
        mode, timeout_s = "", 0.0
        if verb == "pause" and control.state == DRAINING:
            verb, mode, timeout_s = "drain", control.mode, control.timeout_s
        now_ns = time.time_ns()
        if not self._scheduler.set_device_state(device, verb, reason, mode, timeout_s, now_ns):
            return []
        return [RecordEvent(STEERED[verb], device, reason)]

    def restore(self) -> None:
        """Apply the stored changes of earlier services again. Called before the first tick."""
        now_ns = time.monotonic_ns()
        for name, lower, upper, *bounds in self._journal.records.scaled():
            configured = self._configured.get(name)
            if configured is not None and [configured.min, configured.max] == bounds:
                # A size that was forced then does not fit: it is forced again.
                fitting = resources.workers_that_fit(configured, self._state.limits, upper)
                self._scheduler.scale(name, lower, upper, overcommit=fitting < upper)
                log.info("pool %s is scaled to %d to %d workers", name, lower, upper)
        applied = self._journal.records.applied_policies()
        self._journal.put(apply(self._config, self._scheduler, applied), forced=False)
        for name, reason in self._journal.records.drained():
            with suppress(errors.NotFoundError):  # a node of another allocation
                self._scheduler.drain_node(name, reason, now_ns)
                log.info("node %s is drained: %s", name, reason)

    def _check_capacity(self, message: admin.Scale) -> bool:
        """Return whether the requested size exceeds the nodes and is forced. Raises
        LimitExceededError if it exceeds them and is not forced, OptionError for hardware."""
        spec = self._configured.get(message.pool)
        if spec is None or message.least > message.most:
            return False  # the scheduler raises the error
        if spec.provider and (message.least, message.most) != (1, 1):
            text = f"pool {message.pool!r} holds a machine: it has one worker"
            hint = f"to start nothing on it for a time: simenv drain {message.pool} --reason TEXT"
            raise errors.OptionError(text, hint=hint)
        others = [
            p.spec
            for name, p in self._state.cluster.pools.items()
            if name != message.pool and not p.base
        ]
        return self._is_forced(spec, message, others)

    def _is_forced(self, spec: PoolSpec, message: admin.Scale, others: list[PoolSpec]) -> bool:
        limits = self._state.limits
        fitting = resources.workers_that_fit(spec, limits, message.most)
        besides = resources.workers_that_fit_besides(spec, others, limits, message.least)
        minimum_fit = min(fitting, besides)
        if fitting >= message.most and minimum_fit >= message.least:
            return False
        if message.force and resources.can_place(spec, limits):
            return True
        limited_by_others = fitting >= message.most
        wanted, available = (
            (message.least, minimum_fit) if limited_by_others else (message.most, fitting)
        )
        suffix = " beside those of the other pools" if limited_by_others else ""
        capacity = resources.capacity_text(spec, limits, available, all_nodes=limited_by_others)
        raise errors.LimitExceededError(
            f"pool {spec.name!r}: {wanted} workers{resources.worker_text(spec)} do not fit,"
            f" {available} do{suffix}: {capacity}",
            hint=f"{available} at most; force=True starts them all the same",
        )
