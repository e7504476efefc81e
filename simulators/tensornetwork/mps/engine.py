"""Engine `mps`: circuits with noise and without, dynamic ones too.

Exact while no bond needs more than the option `bond`; else the result reports the discarded weight.
Of circuits of more than 20 qubits the light cone is run, in an order with few gates across any cut
(`profiler`).
Circuits that measure, reset or branch before their end are run history by history (`histories`);
with noise, those that do not are run by trajectories (`trajectories`).
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from simulators.catalog import builtin_card
from simulators.chain.product_state import ChainState, MatrixProductState, expect_outputs
from simulators.circuit.analysis.measurements import MeasurementLayouts
from simulators.circuit.analysis.profiler import ChainPart, chain_order, chain_part
from simulators.circuit.ir import Circuit, num_words
from simulators.circuit.noise import NoiseProgram
from simulators.engine import EngineResult, Plan, Request, RunControl, RunOptions
from simulators.execution import circuit_checks, outputs, part_caches, requests, sampling
from simulators.execution.detuned import DetunedPlan
from simulators.execution.flagged import FlaggedPlan
from simulators.execution.ranks import Ranks, RanksEngine, are_alike
from simulators.tensornetwork.mps import canonical_chain
from simulators.tensornetwork.mps.histories import DynamicMpsState
from simulators.tensornetwork.mps.trajectories import NoisyChainPlan, run_noisy

CARD = builtin_card("mps")


class MpsPlan(MeasurementLayouts, frozen=True, eq=False):
    """Measurements of a structure, and the part that is run for some outputs."""

    parts: part_caches.SupportCache[ChainPart] = msgspec.field(
        default_factory=part_caches.SupportCache
    )

    @property
    def memory_bytes(self) -> int:
        """Approximate bytes of its arrays."""
        parts = sum(len(each.circuit.ops_data) for each in self.parts.values())
        return super().memory_bytes + 8 * parts


class SharedChainState(ChainState):
    """Matrix product state in all ranks, which share its shots and Pauli strings."""

    def __init__(self, layouts: MpsPlan, chain: MatrixProductState, ranks: Ranks) -> None:
        super().__init__(layouts, chain, ranks.control)
        self._ranks = ranks

    def sample(self, shots: int, key: outputs.SeedKey) -> Iterator[outputs.Batch]:
        own = self._ranks.part(shots)
        records = np.zeros((shots, num_words(self._layout.source.size)), np.uint64)

        def fill() -> None:
            first = own.start
            for batch in self.records(np.arange(own.start, own.stop), key):
                records[first : first + len(batch)] = batch
                first += len(batch)

        self._ranks.summed(records, fill)
        yield records, None

    def expectations(self, strings: outputs.PauliStrings) -> NDArray[np.float64]:
        own, values = self._ranks.part(len(strings)), np.zeros(len(strings))

        def fill() -> None:
            values[own] = self._chain.means(strings[own], self._control)

        self._ranks.summed(values, fill)
        return values

    def probabilities(self) -> sampling.Distribution:
        return self._ranks.run(super().probabilities)

    def statevector(self) -> NDArray[np.complexfloating]:
        return self._ranks.run(super().statevector)

    def amplitudes(self, bits: NDArray[np.uint8]) -> NDArray[np.complexfloating]:
        return self._ranks.run(partial(super().amplitudes, bits))


class MpsEngine(RanksEngine):
    """Matrix product state engine. Ranks share the splits of each layer, and trajectories, shots
    and Pauli strings; each has the whole state."""

    card = CARD

    def __init__(self, comm: Any = None) -> None:
        super().__init__(comm)
        self._alike = self._comm is None or are_alike(self._comm)

    def plan(self, circuit: Circuit, noise: NoiseProgram | None, options: RunOptions) -> Plan:
        """Prepare the structure. With noise, `run` chooses the method, because only the support of
        its outputs counts."""
        if noise is not None:
            circuit_checks.check_request(CARD, circuit, noise, options)
            if noise.leakage is not None:
                return FlaggedPlan(self, circuit, noise, options)
            if noise.detunings is not None:
                return DetunedPlan(self, circuit, noise, options)
            return NoisyChainPlan(noise)
        layouts = circuit_checks.plan_layouts(CARD, circuit, noise, options)
        return MpsPlan(layouts.clbits, layouts.state)

    def run(
        self,
        plan: Plan,
        circuit: Circuit,
        request: Request,
        options: RunOptions,
        control: RunControl,
    ) -> EngineResult:
        if isinstance(plan, DetunedPlan | FlaggedPlan):
            return plan.run(self, circuit, request, options, control)
        if isinstance(plan, NoisyChainPlan):
            ranks = Ranks(control, self._comm)
            own = requests.EngineRun(circuit, request, options, ranks.control)
            result = run_noisy(plan, own, ranks)
            return result if self.is_root else None  # type: ignore[return-value]
        return super().run(plan, circuit, request, options, control)

    def final_state(self, run: outputs.BoundRun) -> outputs.FinalState:
        layouts, ranks = run.layouts, Ranks(run.control, self._comm, alike=self._alike)
        assert isinstance(layouts, MpsPlan)
        if layouts.clbits.branching or layouts.state.branching:
            return DynamicMpsState(layouts, chain_order(run.circuit), run, ranks)
        limits = canonical_chain.ChainLimits.of(run.options)
        part = layouts.parts.of(run.circuit, run.request, partial(chain_part, run.circuit))
        params = run.params if part.params is None else run.params[part.params]
        own = ranks.part(run.request.shots)
        num_qubits = part.circuit.num_qubits
        expect_outputs(num_qubits, run.request, own.stop - own.start, ranks.control)
        chain = canonical_chain.evolve(part.circuit, params, part.order, limits, ranks)
        if ranks.size == 1:
            return ChainState(layouts, chain, run.control)
        return SharedChainState(layouts, chain, ranks)
