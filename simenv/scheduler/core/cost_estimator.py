"""Expected cost of tasks, and the number of slots that tasks get.

The catalog's cost model gives microseconds on one slot. A factor per engine and width, learned from
run times, corrects it; the deviation of the corrected times is learned too. Factor and deviation
serve chunk sizes and forecasts only, never the choice of an engine, so that runs are reproducible.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import msgspec

from simenv.model import TaskOptions, TaskSpec
from simenv.model.devices import device_time_ns
from simenv.scheduler.core.types import Route
from simulators import catalog

LEARNING_RATE = 0.2
MAX_DEVIATION = 5.0  # ratio to the expected time of one task; larger ratios count as this
FACTOR_BOUNDS = (0.05, 20.0)
HARDWARE = "hardware"  # its jobs queue at a provider, so no model gives their times
HARDWARE_BOUNDS = (0.001, 1_000.0)
PARALLEL_FROM_US = 5_000.0  # below this time a second thread costs more than it saves
WIDTHS = 65
COMPILE_US = 5e6  # approximate time of a first task of a kind whose kernels are not compiled


class LearnedEstimate(msgspec.Struct, frozen=True):
    """Factor and deviation learned from runs of one kind and width.

    `deviation`: mean of |ln(time / expected time)| over runs, with larger weights for later runs.
    Times typically differ from the expected ones by a factor of exp(deviation).
    """

    factor: float  # multiplies the model's times
    deviation: float
    count: int  # of runs


class Estimator:
    """Learned factors by engine, ranks and number of qubits; for hardware by pool."""

    def __init__(self) -> None:
        self._learned: dict[str, list[float]] = {}
        self._known: dict[tuple[str, int], LearnedEstimate] = {}
        self.changed: set[tuple[str, int]] = set()  # since `take_changes`
        self.kernels_compiled = True  # all of them; False: tasks may compile some

    def restore(self, stored: Mapping[tuple[str, int], LearnedEstimate]) -> None:
        """Continue from stored estimates."""
        for (kind, width), each in stored.items():
            if 0 <= width < WIDTHS:
                self._of(kind)[width] = each.factor
                self._known[kind, width] = each

    def take_changes(self) -> dict[tuple[str, int], LearnedEstimate]:
        """Return the estimates learned since the last call, by kind and width."""
        results = {key: self._known[key] for key in sorted(self.changed)}
        self.changed.clear()
        return results

    def quality(self, route: Route) -> LearnedEstimate:
        """Return the estimate for routes like this one; `count` is 0 if no run was observed."""
        return self._known.get((_kind(route), _width(route)), LearnedEstimate(1.0, 0.0, 0))

    def cost_us(self, route: Route, spec: TaskSpec) -> float:
        """Return the expected time of a task in microseconds: on one slot, or on its paced device
        if that is longer."""
        cost_us = self.simulation_us(route, spec)
        return max(cost_us, expected_ns(route, spec) / 1e3) if route.paced else cost_us

    def compile_us(self, route: Route, terms: TaskOptions) -> float:
        """Return the expected time of compilation that a task may have to wait for, in
        microseconds."""
        return 0.0 if self.kernels_compiled or _is_plain(route, terms) else COMPILE_US

    def simulation_us(self, route: Route, spec: TaskSpec) -> float:
        """Return the expected time of a simulation in microseconds on one slot."""
        return model_us(route, spec) * self._factors(route)[_width(route)]

    def observe(self, route: Route, spec: TaskSpec, slots: int, run_us: int) -> None:
        """Learn from a task that took `run_us` on `slots` slots."""
        model = model_us(route, spec)
        width = _width(route)
        factor = max(1, run_us) * max(1, slots) / max(0.1, model)
        observed = factor
        low, high = HARDWARE_BOUNDS if route.engine == HARDWARE else FACTOR_BOUNDS
        factors = self._factors(route)
        old = factors[width]
        if route.engine != HARDWARE:  # the first run of a kind may include compilation
            factor = min(factor, MAX_DEVIATION * old)
        factors[width] = min(high, max(low, old + LEARNING_RATE * (factor - old)))
        self._note((_kind(route), width), factors[width], abs(math.log(observed / old)))

    def _note(self, key: tuple[str, int], factor: float, off: float) -> None:
        learned = self._known.get(key)
        count = 1 if learned is None else learned.count + 1
        before = 0.0 if learned is None else learned.deviation
        deviation = before + max(LEARNING_RATE, 1.0 / count) * (off - before)
        self._known[key] = LearnedEstimate(factor, deviation, count)
        self.changed.add(key)

    def factor(self, engine: str, ranks: int, num_qubits: int) -> float:
        """Return the factor on the model's times for circuits of this width."""
        key = engine if ranks == 1 else f"{engine}/{ranks}"
        return self._of(key)[min(num_qubits, WIDTHS - 1)]

    def _factors(self, route: Route) -> list[float]:
        key = _kind(route)
        return self._learned.get(key) or self._of(key)

    def _of(self, key: str) -> list[float]:
        return self._learned.setdefault(key, [1.0] * WIDTHS)


def _kind(route: Route) -> str:
    if route.engine == HARDWARE:
        return f"{HARDWARE}/{route.pool}"
    return route.engine if route.ranks == 1 else f"{route.engine}/{route.ranks}"


def _is_plain(route: Route, terms: TaskOptions) -> bool:
    """Return whether a task needs no kernels but those that every worker loads at its start."""
    if terms.snapshot:
        return False
    card = catalog.card(route.engine)
    if card is None or not card.kernels.later:
        return True
    is_narrow = route.num_qubits <= catalog.SMALL_QUBITS and terms.precision == "double"
    return is_narrow and terms.outputs == ("counts",) and terms.parts is None


def _width(route: Route) -> int:
    return 0 if route.engine == HARDWARE else min(route.num_qubits, WIDTHS - 1)


def model_us(route: Route, spec: TaskSpec) -> float:
    """Return the time of a task on one slot by the catalog's model, in microseconds."""
    return (route.evolve_us + route.shot_us * spec.shots) * spec.count


def device_ns(route: Route, shots: int, count: int) -> int:
    """Return the time on the device in ns for `count` sets of parameter values with `shots` each; 0
    for exact results."""
    return device_time_ns(shots, count, route.device_overhead_ns, count * route.device_shot_ns)


def expected_ns(route: Route, spec: TaskSpec) -> int:
    """Return the time of a task on its device in ns, by the calibration at its acceptance."""
    return device_ns(route, spec.shots, spec.count)


def slots_for(cost_us: float, max_slots: int, free: int, waiting: int, num_workers: int) -> int:
    """Return the number of slots for a task about to start: all free ones, or its share if others
    wait.

    `waiting` includes this task. `num_workers`: workers that could take a task now or soon.
    """
    if cost_us < PARALLEL_FROM_US or max_slots <= 1:
        return 1
    share = free // max(1, min(waiting, num_workers))
    return max(1, min(max_slots, share))
