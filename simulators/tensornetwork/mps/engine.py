"""Engine `mps`: a matrix product state, for wide circuits of little entanglement.

Exact while no bond needs more than the option `bond`; else the result reports the discarded weight.
Circuits of more than 32 qubits are put into an order in which gates span fewer sites
(`qubit_order`). Circuits that measure, reset or branch before their end are run history by history
(`branches`), circuits with noise by trajectories (`noisy`).
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property

import msgspec
import numpy as np
from numpy.typing import NDArray

from simulators.catalog import builtin_card
from simulators.circuit.analysis.measurements import MeasurementLayouts
from simulators.circuit.analysis.qubit_order import chain_order
from simulators.circuit.examples import bell, feed_forward
from simulators.circuit.ir import Circuit
from simulators.circuit.noise import NoiseProgram
from simulators.control import RunControl
from simulators.engine import Plan, Request, RunOptions
from simulators.execution.outputs import Batch, FinalState, PauliStrings, SeedKey, collect
from simulators.execution.requests import bind, check_request, open_run, plan_layouts
from simulators.execution.sampling import Distribution, distribution, select_bits
from simulators.results import EngineResult
from simulators.tensornetwork.mps.dynamic import DynamicMpsState
from simulators.tensornetwork.mps.evolve import evolve
from simulators.tensornetwork.mps.limits import ChainLimits
from simulators.tensornetwork.mps.noisy import NoisyChainPlan, run_noisy

CARD = builtin_card("mps")
_SHOTS_AT_ONCE = 8_192
_BITS_AT_ONCE = 1 << 24


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
                state = _MpsState(layouts, circuit, params, plan.order, options, control)
            key = request.seed, request.binding + row
            results.append(collect(state, layouts, request, key))
        return EngineResult.joined(results)

    def warm_up(self) -> None:
        """Load and compile everything that a first task would have to wait for."""
        options = RunOptions()
        for circuit in (bell(), feed_forward()):
            plan = self.plan(circuit, None, options)
            self.run(plan, circuit, Request(16, 1), options, RunControl())


class _MpsState(FinalState):
    """Matrix product state of one binding."""

    def __init__(
        self,
        layouts: MeasurementLayouts,
        circuit: Circuit,
        params: NDArray[np.float64],
        order: tuple[int, ...] | None,
        options: RunOptions,
        control: RunControl,
    ) -> None:
        self.num_qubits = circuit.num_qubits
        self._layout = layouts.clbits
        self._control = control
        self._chain = evolve(
            circuit,
            params,
            order,
            ChainLimits.of(options),
            control,
        )
        self.truncation = self._chain.truncation
        self.remark = f"bond {self._chain.bond}"

    @cached_property
    def _amplitudes(self) -> NDArray[np.complexfloating]:
        return self._chain.state()

    def sample(self, shots: int, key: SeedKey) -> Iterator[Batch]:
        """See `FinalState`."""
        step = max(1, min(_SHOTS_AT_ONCE, _BITS_AT_ONCE // max(1, self.num_qubits)))
        for first in range(0, shots, step):
            shot_ids = np.arange(first, min(first + step, shots))
            bits = self._chain.sample(shot_ids, key, self._control)
            yield select_bits(bits, self._layout.source), None

    def probabilities(self) -> Distribution:
        """See `FinalState`."""
        source = self._layout.source if self._layout.measures else None
        return distribution(self._amplitudes, source)

    def expectations(self, strings: PauliStrings) -> NDArray[np.float64]:
        """See `FinalState`."""
        return self._chain.means(strings, self._control)

    def statevector(self) -> NDArray[np.complexfloating]:
        """See `FinalState`."""
        return self._amplitudes

    def amplitudes(self, bits: NDArray[np.uint8]) -> NDArray[np.complexfloating]:
        """See `FinalState`."""
        return self._chain.amplitudes(bits, self._control)
