"""Engine `mps`: a matrix product state, for wide circuits of little entanglement.

Exact while no bond needs more than the option `bond`; else the result reports the discarded weight.
Circuits of more than 32 qubits are put into an order in which gates span fewer sites
(`qubit_order`). Circuits that measure, reset or branch before their end are run history by history
(`branches`), circuits with noise by trajectories (`noisy`).
"""

from __future__ import annotations

import msgspec

from simulators.catalog import builtin_card
from simulators.chain.final_state import ChainState
from simulators.circuit.analysis.measurements import MeasurementLayouts
from simulators.circuit.analysis.qubit_order import chain_order
from simulators.circuit.examples import bell, feed_forward
from simulators.circuit.ir import Circuit
from simulators.circuit.noise import NoiseProgram
from simulators.control import RunControl
from simulators.engine import Plan, Request, RunOptions
from simulators.execution.outputs import FinalState, collect
from simulators.execution.requests import bind, check_request, open_run, plan_layouts
from simulators.results import EngineResult
from simulators.tensornetwork.mps.dynamic import DynamicMpsState
from simulators.tensornetwork.mps.evolve import evolve
from simulators.tensornetwork.mps.limits import ChainLimits
from simulators.tensornetwork.mps.noisy import NoisyChainPlan, run_noisy

CARD = builtin_card("mps")


class MpsPlan(msgspec.Struct, frozen=True, eq=False):
    """Measurements of a structure, and the site of each qubit."""

    layouts: MeasurementLayouts
    order: tuple[int, ...] | None  # None: the circuit's own

    @property
    def memory_bytes(self) -> int:
        """Approximate bytes of its arrays."""
        return self.layouts.memory_bytes + 8 * len(self.order or ())


class MpsEngine:
    """Matrix product state engine."""

    name = "mps"

    def worth_caching(self, circuit: Circuit) -> bool:  # noqa: ARG002  # as the protocol has it
        """Return False: a plan is a few passes over the operations."""
        return False

    def plan(self, circuit: Circuit, noise: NoiseProgram | None, options: RunOptions) -> Plan:
        """Prepare the structure. With noise, `run` refuses mid-circuit operations, because only the
        support of its outputs counts."""
        if noise is not None:
            check_request(CARD, circuit, noise, options)
            return NoisyChainPlan(noise)
        return MpsPlan(plan_layouts(CARD, circuit, noise, options), chain_order(circuit))

    def run(
        self,
        plan: Plan,
        circuit: Circuit,
        request: Request,
        options: RunOptions,
        control: RunControl,
    ) -> EngineResult:
        """See `engine.Engine`."""
        if isinstance(plan, NoisyChainPlan):
            return run_noisy(plan, circuit, request, options, control)
        if not isinstance(plan, MpsPlan):
            raise TypeError(f"a plan of {type(plan).__name__}, not of this engine")
        layouts, number = open_run(CARD, plan.layouts, circuit, request, options)
        branches = layouts.clbits.branching or layouts.state.branching
        results = []
        for row in range(number):
            control.check()
            params = bind(circuit, request, row)
            state: FinalState
            if branches:
                state = DynamicMpsState(layouts, circuit, params, plan.order, options, control)
            else:
                chain = evolve(circuit, params, plan.order, ChainLimits.of(options), control)
                state = ChainState(layouts, chain, control)
            key = request.seed, request.binding + row
            results.append(collect(state, layouts, request, key))
        return EngineResult.joined(results)

    def warm_up(self) -> None:
        """Load and compile everything that a first task would have to wait for."""
        options = RunOptions()
        for circuit in (bell(), feed_forward()):
            plan = self.plan(circuit, None, options)
            self.run(plan, circuit, Request(16, 1), options, RunControl())
