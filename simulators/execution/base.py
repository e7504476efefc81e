"""Base class of engines whose plans are the measurement layouts alone: a state for each binding."""

from __future__ import annotations

import abc

import msgspec
import numpy as np
from numpy.typing import NDArray

from simulators.catalog import EngineCard
from simulators.circuit.analysis.measurements import MeasurementLayouts
from simulators.circuit.examples import bell, feed_forward
from simulators.circuit.ir import Circuit
from simulators.circuit.noise import NoiseProgram
from simulators.control import RunControl
from simulators.engine import Plan, Request, RunOptions
from simulators.execution.outputs import FinalState, SeedKey, collect
from simulators.execution.requests import bind, open_run, plan_layouts
from simulators.results import EngineResult


class BoundRun(msgspec.Struct, frozen=True, eq=False):
    """One binding of a run."""

    layouts: MeasurementLayouts
    circuit: Circuit
    params: NDArray[np.float64]  # all parameters of the circuit, bound
    request: Request
    key: SeedKey
    options: RunOptions
    control: RunControl


class EngineBase(abc.ABC):
    """Engine that overrides `final_state`, and `check` for what its card cannot tell."""

    card: EngineCard

    @property
    def name(self) -> str:
        """Name of its card."""
        return self.card.name

    def worth_caching(self, circuit: Circuit) -> bool:  # noqa: ARG002  # as the protocol has it
        """Return False: a plan is two compiled passes."""
        return False

    def plan(self, circuit: Circuit, noise: NoiseProgram | None, options: RunOptions) -> Plan:
        """Prepare the layouts. Refuses what the card lacks."""
        return plan_layouts(self.card, circuit, noise, options)

    def run(
        self,
        plan: Plan,
        circuit: Circuit,
        request: Request,
        options: RunOptions,
        control: RunControl,
    ) -> EngineResult:
        """See `engine.Engine`."""
        layouts, number = open_run(self.card, plan, circuit, request, options)
        self.check(layouts, request, options)
        results = []
        for row in range(number):
            self.check_stop(control)
            params, key = bind(circuit, request, row), (request.seed, request.binding + row)
            run = BoundRun(layouts, circuit, params, request, key, options, control)
            state = self.final_state(run)
            results.append(collect(state, layouts, request, key, state.readout))
            self.check_stop(control)
        return EngineResult.joined(results)

    def check(  # noqa: B027  # most engines refuse nothing more
        self, layouts: MeasurementLayouts, request: Request, options: RunOptions
    ) -> None:
        """Raise Unsupported for a request that the engine cannot run."""

    def check_stop(self, control: RunControl) -> None:
        """Raise Stopped if the run was asked to stop."""
        control.check()

    @abc.abstractmethod
    def final_state(self, run: BoundRun) -> FinalState:
        """State of a circuit after its last operation."""

    def warm_up(self) -> None:
        """Run small circuits, a dynamic one too if the engine has such."""
        options, request = RunOptions(), Request(16, 1)
        for circuit in (bell(), feed_forward())[: 1 + self.card.control.dynamic]:
            plan = self.plan(circuit, None, options)
            self.run(plan, circuit, request, options, RunControl())
