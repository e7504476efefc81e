"""Engine `contraction`: tensor networks, for wide and shallow circuits.

Counts are sampled gate by gate (`gate_sampling`), expectation values from the light cone of each
Pauli string: by its amplitudes if it is narrow, else by a contraction. Up to 20 qubits all
amplitudes are computed, and counts are those of the statevector engine for a seed. cotengra finds
paths and executes them; this package adds hyperindices of diagonal gates, and samples with a batch
index.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simulators.catalog import builtin_card
from simulators.circuit.analysis.measurements import MeasurementLayouts
from simulators.circuit.examples import bell
from simulators.circuit.ir import Circuit
from simulators.circuit.noise import NoiseProgram
from simulators.circuit.passes.light_cone import FULL, UNUSED, Z_BASIS, light_cone
from simulators.control import RunControl
from simulators.engine import Plan, Request, RunOptions
from simulators.execution import sampling
from simulators.execution.outputs import (
    Batch,
    DenseState,
    FinalState,
    PauliStrings,
    SeedKey,
    collect,
)
from simulators.execution.requests import bind, open_run, plan_layouts
from simulators.execution.sampling import Distribution, select_bits
from simulators.results import EngineResult
from simulators.tensornetwork.contraction.contractor import ContractionLimits, Contractor, PathCache
from simulators.tensornetwork.contraction.factors import dense_state, fused, gate_factors
from simulators.tensornetwork.contraction.gate_sampling import sample_gates
from simulators.tensornetwork.contraction.network import StateNetwork, expectation_network

CARD = builtin_card("contraction")
DENSE_QUBITS = 20  # all amplitudes are computed up to this width
CONE_QUBITS = 14  # all amplitudes of light cones are computed up to this width
_DTYPES = {"double": "complex128", "single": "complex64"}
_SHOTS_AT_ONCE = 8_192


class ContractionEngine:
    """Tensor network contraction; over ranks, slices are shared."""

    name = "contraction"

    def __init__(self, comm: Any = None) -> None:
        self._comm = comm.Dup() if comm is not None and comm.Get_size() > 1 else None
        self._paths = PathCache()
        self.cpu_s = 0.0  # time of this rank's contractions in the last run

    def worth_caching(self, circuit: Circuit) -> bool:  # noqa: ARG002  # as the protocol has it
        """Return False: the engine itself caches paths."""
        return False

    def plan(self, circuit: Circuit, noise: NoiseProgram | None, options: RunOptions) -> Plan:
        """Prepare the layouts. Refuses noise, and circuits that measure, reset or branch before
        their end."""
        return plan_layouts(CARD, circuit, noise, options)

    def run(
        self,
        plan: Plan,
        circuit: Circuit,
        request: Request,
        options: RunOptions,
        control: RunControl,
    ) -> EngineResult | None:
        """See `engine.Engine`; over ranks see `engine.Shared`."""
        layouts, number = open_run(CARD, plan, circuit, request, options)
        results = []
        self.cpu_s = 0.0
        for row in range(number):
            params = bind(circuit, request, row)
            contractor = Contractor(self._paths, _limits(options), control, self._comm)
            contractor.check()
            state: FinalState
            if circuit.num_qubits <= DENSE_QUBITS:
                state = _dense(layouts, circuit, params, options, control)
            else:
                state = _ContractedState(layouts, circuit, params, options, contractor)
            key = request.seed, request.binding + row
            results.append(collect(state, layouts, request, key))
            self.cpu_s += contractor.cpu_s
        if self._comm is not None and self._comm.Get_rank():
            return None
        return EngineResult.joined(results)

    def warm_up(self) -> None:
        """Load everything that a first task would have to wait for."""
        options = RunOptions()
        request = Request(16, 1)
        self.run(self.plan(bell(), None, options), bell(), request, options, RunControl())

    def close(self) -> None:
        """See `engine.Shared`."""
        if self._comm is not None:
            self._comm.Free()
            self._comm = None


def _limits(options: RunOptions) -> ContractionLimits:
    values = {
        name: int(CARD.value(options.settings, name)) for name in ("width", "slices", "trials")
    }
    return ContractionLimits(**values, itemsize=np.dtype(_DTYPES[options.precision]).itemsize)


def _amplitudes(
    circuit: Circuit, params: NDArray[np.float64], dtype: str, control: RunControl
) -> NDArray[np.complexfloating]:
    """All amplitudes of a circuit."""
    factors, phase = gate_factors(circuit, params, dtype)
    control.check()

    def checked() -> Iterator[Any]:
        for factor in fused(factors):
            control.check()
            yield factor

    state = dense_state(checked(), tuple(range(circuit.num_qubits)), dtype)
    state = state * np.asarray(phase, state.dtype)
    normal: NDArray[np.complexfloating] = state / np.linalg.norm(state)
    return normal


def _dense(
    layouts: MeasurementLayouts,
    circuit: Circuit,
    params: NDArray[np.float64],
    options: RunOptions,
    control: RunControl,
) -> DenseState:
    dtype = _DTYPES[options.precision]
    return DenseState(
        layouts, circuit.num_qubits, lambda: _amplitudes(circuit, params, dtype, control)
    )


class _ContractedState(FinalState):
    """Outputs of one binding."""

    def __init__(
        self,
        layouts: MeasurementLayouts,
        circuit: Circuit,
        params: NDArray[np.float64],
        options: RunOptions,
        contractor: Contractor,
    ) -> None:
        self.num_qubits = circuit.num_qubits
        self._layout = layouts.clbits
        self._circuit, self._params = circuit, params
        self._dtype = _DTYPES[options.precision]
        self._factors, self._phase = gate_factors(circuit, params, self._dtype)
        self._contractor = contractor

    def sample(self, shots: int, key: SeedKey) -> Iterator[Batch]:
        """Sample as `FinalState.sample`, in the order of the shots."""
        factors = fused(self._factors)
        for first in range(0, shots, _SHOTS_AT_ONCE):
            shot_ids = np.arange(first, min(first + _SHOTS_AT_ONCE, shots))
            bits = sample_gates(factors, self.num_qubits, shot_ids, key, self._contractor)
            yield select_bits(bits, self._layout.source), None
        self._note()

    def probabilities(self) -> Distribution:
        """See `FinalState`."""
        source = self._layout.source if self._layout.measures else None
        return sampling.distribution(self.statevector(), source)

    def statevector(self) -> NDArray[np.complexfloating]:
        """See `FinalState`."""
        state = dense_state(fused(self._factors), tuple(range(self.num_qubits)), self._dtype)
        return state * np.asarray(self._phase, state.dtype)

    def expectations(self, strings: PauliStrings) -> NDArray[np.float64]:
        """See `FinalState`."""
        result = np.empty(len(strings))
        cones: dict[bytes, tuple[tuple[int, ...], NDArray[np.complexfloating] | StateNetwork]] = {}
        for number, (x, z) in enumerate(strings):
            self._contractor.check()
            levels = bytes(
                FULL if x >> q & 1 else Z_BASIS if z >> q & 1 else UNUSED
                for q in range(self.num_qubits)
            )
            if levels not in cones:
                cones[levels] = self._cone(levels)
            qubits, state = cones[levels]
            if isinstance(state, StateNetwork):
                result[number] = self._contracted(state, x, z)
            else:
                result[number] = sampling.means(state, [(_within(x, qubits), _within(z, qubits))])[
                    0
                ]
        self._note()
        return result

    def _cone(
        self, levels: bytes
    ) -> tuple[tuple[int, ...], NDArray[np.complexfloating] | StateNetwork]:
        """Qubits of a light cone, and its amplitudes or its network."""
        kept, _ = light_cone(self._circuit, False, levels)
        chosen = [self._factors[k] for k in np.flatnonzero(kept).tolist()]
        factors = fused(chosen)
        touched = {qubit for factor in factors for qubit in factor.qubits}
        touched.update(q for q, level in enumerate(levels) if level != UNUSED)
        qubits = tuple(sorted(touched))
        if len(qubits) <= CONE_QUBITS:
            return qubits, dense_state(factors, qubits, self._dtype)
        network = StateNetwork(self.num_qubits)
        for factor in factors:
            network.add(factor)
        return qubits, network

    def _contracted(self, state: StateNetwork, x: int, z: int) -> float:
        network = expectation_network(state, x, z)
        if network is None:
            return 0.0
        nodes, factor = network
        if not nodes:
            return factor.real
        return float((factor * complex(self._contractor.contract(nodes, ()))).real)

    def _note(self) -> None:
        """Set the remark of the result."""
        self.remark = f"width {self._contractor.widest}"
        if self._contractor.most_slices > 1:
            self.remark += f", {self._contractor.most_slices} slices"


def _within(mask: int, qubits: tuple[int, ...]) -> int:
    """Restrict a mask to these qubits, numbered from 0."""
    return sum(1 << k for k, qubit in enumerate(qubits) if mask >> qubit & 1)
