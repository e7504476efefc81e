"""Cache of execution plans."""

from __future__ import annotations

from collections import OrderedDict

from simenv.model import Program
from simulators.circuit.ir import Circuit
from simulators.circuit.noise import NoiseProgram
from simulators.engine import Engine, Plan, RunOptions

PLAN_CACHE_BYTES = 256 * 2**20


class PlanCache:
    """LRU cache of plans by engine, structure, precision, noise and parts, bounded in bytes."""

    def __init__(self, bound_bytes: int = PLAN_CACHE_BYTES) -> None:
        self._bound_bytes = bound_bytes
        self._held_bytes = 0
        self._plans: OrderedDict[tuple[object, ...], Plan] = OrderedDict()
        self._sizes: dict[tuple[object, ...], int] = {}  # bytes counted in `_held_bytes`
        self._growing: tuple[object, ...] | None = None  # newest plan, if in parts: it grows

    def __len__(self) -> int:
        return len(self._plans)

    def get(
        self,
        engine: Engine,
        program: Program,
        circuit: Circuit,
        options: RunOptions,
        noise: NoiseProgram | None = None,
    ) -> Plan:
        """Return the cached plan, or a new one. Plans that cost less than a look-up are not cached.
        Plans with noise cost more, and may depend on the engine's own settings."""
        if noise is None and options.parts is None and not engine.worth_caching(circuit):
            return engine.plan(circuit, noise, options)
        digest = b"" if noise is None else noise.digest
        settings = () if noise is None else options.settings
        ends = () if options.parts is None else options.parts.ends
        key = (engine.name, program.structure, options.precision, digest, settings, ends)
        plan = self._plans.get(key)
        if plan is not None:
            self._plans.move_to_end(key)
            if options.parts is not None:
                self._measure(key)
            return plan
        if self._growing is not None and self._growing in self._plans:
            self._measure(self._growing)  # its run has added schedules
        plan = engine.plan(circuit, noise, options)
        self._plans[key] = plan
        self._growing = None if options.parts is None else key
        self._measure(key)
        while self._held_bytes > self._bound_bytes and len(self._plans) > 1:
            oldest, _ = self._plans.popitem(last=False)
            self._held_bytes -= self._sizes.pop(oldest)
        return plan

    def _measure(self, key: tuple[object, ...]) -> None:
        size = self._plans[key].memory_bytes
        self._held_bytes += size - self._sizes.get(key, 0)
        self._sizes[key] = size
