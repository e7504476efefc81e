"""Engine `mps`: a matrix product state, for wide circuits of little entanglement.

Exact while no bond needs more than the option `bond`; else the result reports the discarded weight.
Circuits of more than 32 qubits are put into an order in which gates span fewer sites
(`qubit_order`). Circuits that measure, reset or branch before their end are run history by history
(`branches`), circuits with noise by trajectories (`noisy`).
"""

from __future__ import annotations

from simulators.catalog import builtin_card
from simulators.chain.final_state import ChainState
from simulators.circuit.analysis.measurements import MeasurementLayouts
from simulators.circuit.analysis.qubit_order import chain_order
from simulators.circuit.ir import Circuit
from simulators.circuit.noise import NoiseProgram
from simulators.control import RunControl
from simulators.engine import Plan, Request, RunOptions
from simulators.execution.base import BoundRun, EngineBase
from simulators.execution.outputs import FinalState
from simulators.execution.requests import check_request, plan_layouts
from simulators.results import EngineResult
from simulators.tensornetwork.mps.dynamic import DynamicMpsState
from simulators.tensornetwork.mps.evolve import evolve
from simulators.tensornetwork.mps.limits import ChainLimits
from simulators.tensornetwork.mps.noisy import NoisyChainPlan, run_noisy

CARD = builtin_card("mps")


class MpsPlan(MeasurementLayouts, frozen=True, eq=False):
    """Measurements of a structure, and the site of each qubit."""

    order: tuple[int, ...] | None  # None: the circuit's own

    @property
    def memory_bytes(self) -> int:
        """Approximate bytes of its arrays."""
        return super().memory_bytes + 8 * len(self.order or ())


class MpsEngine(EngineBase):
    """Matrix product state engine."""

    card = CARD

    def plan(self, circuit: Circuit, noise: NoiseProgram | None, options: RunOptions) -> Plan:
        """Prepare the structure. With noise, `run` refuses mid-circuit operations, because only the
        support of its outputs counts."""
        if noise is not None:
            check_request(CARD, circuit, noise, options)
            return NoisyChainPlan(noise)
        layouts = plan_layouts(CARD, circuit, noise, options)
        return MpsPlan(layouts.clbits, layouts.state, chain_order(circuit))

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
        return super().run(plan, circuit, request, options, control)

    def final_state(self, run: BoundRun) -> FinalState:
        """See `EngineBase`."""
        layouts, control = run.layouts, run.control
        assert isinstance(layouts, MpsPlan)
        if layouts.clbits.branching or layouts.state.branching:
            return DynamicMpsState(
                layouts, run.circuit, run.params, layouts.order, run.options, control
            )
        limits = ChainLimits.of(run.options)
        return ChainState(
            layouts, evolve(run.circuit, run.params, layouts.order, limits, control), control
        )
