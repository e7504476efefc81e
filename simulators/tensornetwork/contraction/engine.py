"""Engine `contraction`: tensor networks, for wide and shallow circuits.

Counts are sampled gate by gate (`gate_sampling`), expectation values from the light cone of each
Pauli string: by its amplitudes if it is narrow, else by a contraction. Up to 20 qubits all
amplitudes are computed, and counts are those of the statevector engine for a seed. cotengra finds
paths and executes them; this package adds hyperindices of diagonal gates, and samples with a batch
index. Amplitudes of chosen bit strings share one path (`bit_strings`). Several tasks can share the
slices of exact expectation values and of amplitudes: with the options `shares` and `share`, a
task's values are partial sums, which its remark states.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from simulators.catalog import builtin_card
from simulators.circuit.analysis.measurements import MeasurementLayouts
from simulators.circuit.ir import Circuit
from simulators.circuit.passes.light_cone import (
    FULL,
    UNUSED,
    Z_BASIS,
    OutputSupport,
    light_cone,
)
from simulators.control import RunControl
from simulators.engine import Plan, Request, RunOptions
from simulators.errors import Unsupported
from simulators.execution import sampling
from simulators.execution.base import BoundRun, EngineBase
from simulators.execution.outputs import (
    Batch,
    DenseState,
    FinalState,
    PauliStrings,
    SeedKey,
)
from simulators.execution.sampling import Distribution, select_bits
from simulators.results import EngineResult
from simulators.tensornetwork.contraction.bit_strings import chosen_amplitudes
from simulators.tensornetwork.contraction.contractor import ContractionLimits, Contractor
from simulators.tensornetwork.contraction.factors import Factor, dense_state, fused, gate_factors
from simulators.tensornetwork.contraction.gate_sampling import admit, sample_gates
from simulators.tensornetwork.contraction.network import StateNetwork, expectation_network
from simulators.tensornetwork.contraction.path_search import PathCache
from simulators.tensornetwork.contraction.stop_poll import StopPoll

CARD = builtin_card("contraction")
DENSE_QUBITS = 20  # all amplitudes are computed up to this width
CONE_QUBITS = 14  # all amplitudes of light cones are computed up to this width
_SHOTS_AT_ONCE = 8_192
_SHARED = {"expectation", "amplitudes"}  # outputs that are sums over slices


class ContractionEngine(EngineBase):
    """Tensor network contraction; over ranks, slices are shared."""

    card = CARD

    def __init__(self, comm: Any = None) -> None:
        self._comm = comm.Dup() if comm is not None and comm.Get_size() > 1 else None
        self._paths = PathCache()

    def run(
        self,
        plan: Plan,
        circuit: Circuit,
        request: Request,
        options: RunOptions,
        control: RunControl,
    ) -> EngineResult:
        """See `engine.Engine`; over ranks see `engine.DistributedEngine`."""
        result = super().run(plan, circuit, request, options, control)
        if self._comm is not None and self._comm.Get_rank():
            return None  # type: ignore[return-value]  # in all ranks but the first
        return result

    def check(self, layouts: MeasurementLayouts, request: Request, options: RunOptions) -> None:
        """Refuse a share that does not exist, and outputs that are no sums over slices."""
        del layouts
        _check_shares(_limits(options), request)

    def check_stop(self, control: RunControl) -> None:
        """See `EngineBase`; ranks without a stop meet those with it."""
        StopPoll(control, self._comm).agree()

    def final_state(self, run: BoundRun) -> FinalState:
        """See `EngineBase`."""
        limits = _limits(run.options)
        if run.circuit.num_qubits <= DENSE_QUBITS and limits.shares == 1:
            return DenseState(run.layouts, run.circuit.num_qubits, partial(_amplitudes, run))
        return _ContractedState(run, Contractor(self._paths, limits, run.control, self._comm))

    def close(self) -> None:
        """See `engine.Shared`."""
        if self._comm is not None:
            self._comm.Free()
            self._comm = None


def _limits(options: RunOptions) -> ContractionLimits:
    values = {
        option.name: int(CARD.value(options.settings, option.name)) for option in CARD.options
    }
    return ContractionLimits(**values, itemsize=np.dtype(options.dtype).itemsize)


def _check_shares(limits: ContractionLimits, request: Request) -> None:
    """Raises Unsupported for a share that does not exist, and for outputs that are no sums over
    slices."""
    if limits.share >= limits.shares:
        raise Unsupported(
            f"share {limits.share} of {limits.shares}",
            hint="the shares are numbered from 0 to shares - 1",
        )
    if limits.shares == 1:
        return
    others = [output for output in request.outputs if output not in _SHARED]
    if others or (request.shots and "expectation" in request.outputs):
        what = f"output {others[0]!r}" if others else f"expectation values of {request.shots} shots"
        raise Unsupported(
            f"{what} with shares={limits.shares}: only exact expectation values and amplitudes are"
            " sums over slices, which tasks can share",
            hint="shots=None and the output 'expectation', or amplitudes; or shares=1 and MPI ranks"
            " (ranks=), which share the slices of all outputs",
        )


def _amplitudes(run: BoundRun) -> NDArray[np.complexfloating]:
    """All amplitudes of a circuit."""
    dtype = run.options.dtype
    factors, phase = gate_factors(run.circuit, run.params, dtype)
    run.control.check()
    checked = _checked(factors, run.control.check)
    state = dense_state(checked, tuple(range(run.circuit.num_qubits)), dtype)
    state = state * np.asarray(phase, state.dtype)
    normal: NDArray[np.complexfloating] = state / np.linalg.norm(state)
    return normal


def _checked(factors: list[Factor | None], check: Callable[[], None]) -> Iterator[Factor]:
    for factor in fused(factors):
        check()
        yield factor


class _Cone(msgspec.Struct, frozen=True):
    """Light cone of Pauli strings. `state`: amplitudes of its qubits, or its network; None: another
    task has it."""

    number: int  # among the cones of a run
    qubits: tuple[int, ...]
    state: NDArray[np.complexfloating] | StateNetwork | None


class _ContractedState(FinalState):
    """Outputs of one binding."""

    def __init__(self, run: BoundRun, contractor: Contractor) -> None:
        self.num_qubits = run.circuit.num_qubits
        self._layout = run.layouts.clbits
        self._circuit = run.circuit
        self._dtype = run.options.dtype
        self._factors, self._phase = gate_factors(run.circuit, run.params, self._dtype)
        self._contractor = contractor

    def sample(self, shots: int, key: SeedKey) -> Iterator[Batch]:
        """Sample as `FinalState.sample`, in the order of the shots."""
        factors = fused(self._factors)
        admit(factors, self.num_qubits, self._contractor)
        for first in range(0, shots, _SHOTS_AT_ONCE):
            shot_ids = np.arange(first, min(first + _SHOTS_AT_ONCE, shots))
            bits = sample_gates(factors, self.num_qubits, shot_ids, key, self._contractor)
            yield select_bits(bits, self._layout.source), None
        self.remark = self._contractor.remark

    def probabilities(self) -> Distribution:
        """See `FinalState`."""
        source = self._layout.source if self._layout.measures else None
        return sampling.distribution(self.statevector(), source)

    def statevector(self) -> NDArray[np.complexfloating]:
        """See `FinalState`."""
        checked = _checked(self._factors, self._contractor.check)
        state = dense_state(checked, tuple(range(self.num_qubits)), self._dtype)
        return state * np.asarray(self._phase, state.dtype)

    def amplitudes(self, bits: NDArray[np.uint8]) -> NDArray[np.complexfloating]:
        """See `FinalState`."""
        self._contractor.check()
        network = StateNetwork(self.num_qubits)
        for factor in fused(self._factors):
            network.add(factor)
        result = chosen_amplitudes(network, bits, self._contractor)
        self.remark = self._contractor.remark
        return result * np.asarray(self._phase, result.dtype)

    def expectations(self, strings: PauliStrings) -> NDArray[np.float64]:
        """See `FinalState`."""
        result = np.zeros(len(strings))
        cones: dict[bytes, _Cone] = {}
        for number, (x, z) in enumerate(strings):
            self._contractor.check()
            levels = bytes(
                FULL if x >> q & 1 else Z_BASIS if z >> q & 1 else UNUSED
                for q in range(self.num_qubits)
            )
            if levels not in cones:
                cones[levels] = self._cone(levels, len(cones))
            cone = cones[levels]
            if isinstance(cone.state, StateNetwork):
                result[number] = self._contracted(cone.state, x, z, cone.number)
            elif cone.state is not None:
                masks = [(_within(x, cone.qubits), _within(z, cone.qubits))]
                result[number] = sampling.means(cone.state, masks)[0]
        self.remark = self._contractor.remark
        return result

    def _cone(self, levels: bytes, number: int) -> _Cone:
        """Light cone with its amplitudes or its network."""
        kept = light_cone(self._circuit, OutputSupport(False, levels)).kept
        chosen = [self._factors[k] for k in np.flatnonzero(kept).tolist()]
        factors = fused(chosen)
        touched = {qubit for factor in factors for qubit in factor.qubits}
        touched.update(q for q, level in enumerate(levels) if level != UNUSED)
        qubits = tuple(sorted(touched))
        if len(qubits) <= CONE_QUBITS:
            if not self._contractor.owns(number):
                return _Cone(number, qubits, None)
            return _Cone(number, qubits, dense_state(factors, qubits, self._dtype))
        network = StateNetwork(self.num_qubits)
        for factor in factors:
            network.add(factor)
        return _Cone(number, qubits, network)

    def _contracted(self, state: StateNetwork, x: int, z: int, cone: int) -> float:
        network = expectation_network(state, x, z)
        if network is None:
            return 0.0
        nodes, factor = network
        if not nodes:
            return factor.real if self._contractor.owns(cone) else 0.0
        return float((factor * complex(self._contractor.contract(nodes, (), cone))).real)


def _within(mask: int, qubits: tuple[int, ...]) -> int:
    """Restrict a mask to these qubits, numbered from 0."""
    return sum(1 << k for k, qubit in enumerate(qubits) if mask >> qubit & 1)
