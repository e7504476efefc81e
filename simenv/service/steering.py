"""Pools scaled, nodes drained and used again: by whom it may be, and kept over a restart.

Invariant: what was answered is stored, and stands again before the first tick of the next start. A
pool that `up` sizes anew is sized as it says: what was stored for it before is forgotten.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import suppress

from launcher.placement import Infeasible, Need, Placement, Room, filled, place
from launcher.registry import PIP_LINE
from simenv.config import Config
from simenv.errors import ConfigError, LimitExceeded, NotFound, OptionError
from simenv.model import PoolSpec
from simenv.scheduler.nodes import nodes_of
from simenv.scheduler.state import State
from simenv.scheduler.values import Action, Limits
from simenv.service.journal import Journal
from simenv.wire.pools import DrainNode, ResumeNode, Scale

log = logging.getLogger("simenv.service")


class Steering:
    """Used from the loop's thread."""

    def __init__(
        self, config: Config, state: State, journal: Journal, look: Callable[[str], bool]
    ) -> None:
        """`look`: as the launcher's, which sees at once whether a lost node is back."""
        self._told = {pool.name: pool for pool in config.pools}
        self._state = state
        self._journal = journal
        self._look = look

    def obey(self, q: Scale | DrainNode | ResumeNode) -> list[Action]:
        """Do it, and have it stored with the next commit. OptionError, NotFound, LimitExceeded."""
        now_ns = time.monotonic_ns()
        match q:
            case Scale():
                self._check_room(q)
                actions = self._state.scale(q.pool, q.least, q.most)
                told = self._told[q.pool]
                self._journal.scaled(q.pool, q.least, q.most, told.min, told.max)
            case DrainNode():
                actions = self._state.drain_node(q.node, q.reason, now_ns)
                self._journal.drained(q.node, q.reason)
            case ResumeNode():
                actions = self._state.resume(q.name, self._look(q.name))
                self._journal.resumed(q.name)
        return actions

    def restore(self) -> None:
        """As it was when the last service ended. Called before the first tick."""
        now_ns = time.monotonic_ns()
        for name, least, most, told_least, told_most in self._journal.records.scaled():
            told = self._told.get(name)
            if told is not None and (told.min, told.max) == (told_least, told_most):
                self._state.scale(name, least, most)
                log.info("pool %s is scaled to %d to %d workers", name, least, most)
        for name, reason in self._journal.records.drained():
            with suppress(NotFound):  # a node of another allocation
                self._state.drain_node(name, reason, now_ns)
                log.info("node %s is drained: %s", name, reason)

    def _check_room(self, q: Scale) -> None:
        spec = self._told.get(q.pool)
        if spec is None or q.least > q.most:
            return  # the scheduler says so better
        if spec.provider and (q.least, q.most) != (1, 1):
            raise OptionError(
                f"pool {q.pool!r} holds a machine: it has one worker",
                hint="simenv down, and up without it; others are not touched by a pool that waits",
            )
        there = room_for(spec, self._state.limits, q.most)
        if there < q.most:
            raise LimitExceeded(
                f"pool {q.pool!r}: {q.most} workers {_each(spec)} will never fit: {there} do",
                hint=f"simenv scale {q.pool} {there} at most",
            )


def room_for(spec: PoolSpec, limits: Limits, wanted: int) -> int:
    """How many of the `wanted` workers could be there at once if nothing else was."""
    need = Need(spec.ranks, memory_bytes=spec.memory_bytes, nodes=spec.nodes)
    rooms = [Room.of(node) for node in nodes_of(limits)]
    if not spec.memory_bytes:  # nothing is used up: workers need slots only for what they run
        return wanted if isinstance(place(need, rooms), Placement) else 0
    count = 0
    while count < wanted:
        found = place(need, rooms)
        if not isinstance(found, Placement):
            break
        rooms = list(filled(need, found, rooms))
        count += 1
    return count


def check_pools(pools: tuple[PoolSpec, ...], limits: Limits) -> None:
    """ConfigError if a pool could never have a worker here."""
    rooms = [Room.of(node) for node in nodes_of(limits)]
    for spec in pools:
        if spec.ranks > limits.max_ranks:
            raise ConfigError(
                f"pool {spec.name!r} wants {spec.ranks} ranks a worker; "
                f"{limits.max_ranks} can be had ({limits.launcher})",
                hint=f"{PIP_LINE} brings an MPI; `simenv doctor` tells more",
            )
        need = Need(spec.ranks, memory_bytes=spec.memory_bytes, nodes=spec.nodes)
        found = place(need, rooms)
        if isinstance(found, Infeasible):
            raise ConfigError(
                f"pool {spec.name!r} could never have a worker: {found.words}",
                hint="fewer ranks, less memory, or other nodes",
            )
        there = room_for(spec, limits, spec.min)
        if there < spec.min:
            raise ConfigError(
                f"pool {spec.name!r}: {spec.min} workers {_each(spec)} never fit: {there} do",
                hint=f"min={there}, or less memory a rank",
            )


def _each(spec: PoolSpec) -> str:
    memory = f" of {spec.memory_bytes} bytes" if spec.memory_bytes else ""
    return f"of {spec.ranks} ranks{memory}" if spec.ranks > 1 else memory.removeprefix(" ")
