"""Engine `contraction`, and its amplitudes of bit strings."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from simulators.catalog import builtin_card
from simulators.catalog.costs import SAMPLE_BYTES
from simulators.circuit.analysis.measurements import MeasurementLayouts
from simulators.circuit.ir import num_words
from simulators.circuit.passes.light_cone import FULL, UNUSED, Z_BASIS, OutputSupport, light_cone
from simulators.engine import SHOTS, STRINGS, Request, RunOptions, ThreadPool
from simulators.errors import Unsupported
from simulators.execution import outputs, sampling
from simulators.execution.packing import select_bits
from simulators.execution.ranks import Ranks, RanksEngine
from simulators.execution.sampling import Distribution
from simulators.tensornetwork.contraction import contractor as contraction, network as net
from simulators.tensornetwork.contraction.contractor import ContractionLimits, Contractor
from simulators.tensornetwork.contraction.samples import Samples

# Amplitudes of chosen bit strings, from one network for all of them.
#
# Bits that all strings share are set before the path is searched. If the strings are most of the
# values of the few qubits in which they differ, these qubits stay open, and one contraction has all
# amplitudes. Else the strings are rows of a batch: one path, and one contraction for many rows.
# Ranks and tasks share the rows. A network whose tensors are too large for a batch is divided into
# slices, string by string, and these are shared instead.

Bits = NDArray[np.uint8]
Amplitudes = NDArray[np.complexfloating]

_OPEN_QUBITS = 12  # open in one contraction, at most
_OPEN_SHARE = 8  # open where strings are at least one in so many of the open qubits' values


def chosen_amplitudes(state: net.StateNetwork, bits: Bits, contractor: Contractor) -> Amplitudes:
    """Amplitude of each bit string, up to the global phase: [strings]. `bits`: uint8 [strings,
    qubits], the bit of qubit q in column q. If tasks share the contractions: this task's part of a
    sum."""
    idle = [q for q, index in enumerate(state.line) if index is None]  # still |0>
    possible = np.flatnonzero(~bits[:, idle].any(axis=1))
    qubit_of = {index: q for q, index in enumerate(state.line) if index is not None}
    result = np.zeros(len(bits), contractor.dtype)
    if not possible.size:
        return result
    rows = bits[possible]
    varying = {index: q for index, q in qubit_of.items() if (rows[:, q] != rows[0, q]).any()}
    shared = {index: q for index, q in qubit_of.items() if index not in varying}
    nodes, scalar = _simplified(net.selected(state.nodes, shared, rows[:1]))
    if not nodes:
        values = np.full(len(rows), float(contractor.owns(0)), contractor.dtype)
    elif len(varying) <= _OPEN_QUBITS and 1 << len(varying) <= _OPEN_SHARE * len(rows):
        table = contractor.contract(nodes, tuple(varying))
        picked = table[tuple(rows[:, q] for q in varying.values())]
        values = picked if varying else np.full(len(rows), table)
    else:
        values = _batched(nodes, varying, rows, contractor)
    result[possible] = values * np.asarray(scalar * state.scalar, result.dtype)
    return result


def _simplified(nodes: list[net.NetworkTensor]) -> tuple[list[net.NetworkTensor], complex]:
    """Nodes of the only row without the batch index, and the product of those without indices."""
    kept, scalar = [], 1.0 + 0.0j
    for node in map(net.first_row, nodes):
        if node.indices:
            kept.append(node)
        else:
            scalar *= complex(node.array)
    return kept, scalar


def _batched(
    nodes: list[net.NetworkTensor], varying: dict[int, int], rows: Bits, contractor: Contractor
) -> Amplitudes:
    first = net.selected(nodes, varying, rows[:1])
    step = contractor.rows_at_once(first, (net.BATCH,))
    if step > 1:
        return contractor.contract_rows(lambda part: net.selected(nodes, varying, part), rows, step)
    values = np.zeros(len(rows), contractor.dtype)
    for number in range(len(rows)):  # a contraction with slices has no batch index
        part, scalar = _simplified(net.selected(nodes, varying, rows[number : number + 1]))
        contractor.check()
        values[number] = scalar * complex(contractor.contract(part, (), number))
    return values


# Engine `contraction`: tensor networks, for wide and shallow circuits.
#
# Counts are sampled gate by gate (`samples`), expectation values from the light cone of each Pauli
# string: by its amplitudes if it is narrow, else by a contraction. Up to 20 qubits all amplitudes
# are computed, and counts are those of the statevector engine for a seed. cotengra finds the paths
# of values and of amplitudes and executes them; this package adds hyperindices of diagonal gates.
# Amplitudes of chosen bit strings share one path (`engine`). Several tasks can share the slices of
# exact expectation values and of amplitudes: with the options `shares` and `share`, a task's values
# are partial sums, which its remark states.

CARD = builtin_card("contraction")
DENSE_QUBITS = 20  # all amplitudes are computed up to this width
CONE_QUBITS = 14  # all amplitudes of light cones are computed up to this width
_SHOTS_AT_ONCE = 8_192
_SHARED = {"expectation", "amplitudes"}  # outputs that are sums over slices


class ContractionEngine(RanksEngine):
    """Tensor network contraction; over ranks, slices are shared."""

    card = CARD

    def __init__(self, comm: Any = None) -> None:
        super().__init__(comm)
        self._paths = contraction.PathCache()

    def check(self, layouts: MeasurementLayouts, request: Request, options: RunOptions) -> None:
        """Raises Unsupported for a share that does not exist, and for outputs that are no sums over
        slices."""
        del layouts
        limits = _limits(options)
        if limits.share >= limits.shares:
            hint = "the shares are numbered from 0 to shares - 1"
            raise Unsupported(f"share {limits.share} of {limits.shares}", hint=hint)
        if limits.shares == 1:
            return
        others = [output for output in request.outputs if output not in _SHARED]
        if others or (request.shots and "expectation" in request.outputs):
            values = f"expectation values of {request.shots} shots"
            what = f"output {others[0]!r}" if others else values
            raise Unsupported(
                f"{what} with shares={limits.shares}: only exact expectation values and amplitudes"
                " are sums over slices, which tasks can share",
                hint="shots=None and the output 'expectation', or amplitudes; or shares=1 and MPI"
                " ranks (ranks=), which share the slices of all outputs",
            )

    def final_state(self, run: outputs.BoundRun) -> outputs.FinalState:
        limits = _limits(run.options)
        if run.circuit.num_qubits <= DENSE_QUBITS and limits.shares == 1:
            return outputs.DenseState(
                run.layouts, run.circuit.num_qubits, partial(_amplitudes_of_outcomes, run)
            )
        ranks = Ranks(run.control, self._comm)
        return _ContractedState(run, limits, ranks, Contractor(self._paths, limits, ranks))


def _limits(options: RunOptions) -> ContractionLimits:
    values = {
        option.name: int(CARD.value(options.settings, option.name)) for option in CARD.options
    }
    return ContractionLimits(**values, itemsize=np.dtype(options.dtype).itemsize)


def _amplitudes_of_outcomes(run: outputs.BoundRun) -> NDArray[np.complexfloating]:
    """All amplitudes of a circuit."""
    dtype = run.options.dtype
    factors, phase = net.gate_factors(run.circuit, run.params, dtype)
    run.control.check()
    checked = _checked(factors, run.control.check)
    state = net.dense_state(checked, tuple(range(run.circuit.num_qubits)), dtype)
    state = state * np.asarray(phase, state.dtype)
    normal: NDArray[np.complexfloating] = state / np.linalg.norm(state)
    return normal


def _checked(factors: list[net.Factor | None], check: Callable[[], None]) -> Iterator[net.Factor]:
    for factor in net.fused(factors):
        check()
        yield factor


class _Cone(msgspec.Struct, frozen=True):
    """Light cone of Pauli strings. `state`: amplitudes of its qubits, or its network; None: another
    task has it."""

    number: int  # among the cones of a run
    qubits: tuple[int, ...]
    state: NDArray[np.complexfloating] | net.StateNetwork | None


class _ContractedState(outputs.FinalState):
    """Outputs of one binding."""

    def __init__(
        self, run: outputs.BoundRun, limits: ContractionLimits, ranks: Ranks, contractor: Contractor
    ) -> None:
        self.num_qubits = run.circuit.num_qubits
        self._layout = run.layouts.clbits
        self._circuit = run.circuit
        self._dtype = run.options.dtype
        self._factors, self._phase = net.gate_factors(run.circuit, run.params, self._dtype)
        self._options, self._flag = run.options, run.control.flag
        self._limits, self._ranks, self._contractor = limits, ranks, contractor

    def sample(self, shots: int, key: outputs.SeedKey) -> Iterator[outputs.Batch]:
        """Sample as `FinalState.sample`, in the order of the shots."""
        control, source = self._ranks.control, self._layout.source
        self._ranks.agree()
        samples = Samples.of(
            net.fused(self._factors), self.num_qubits, self._dtype, width=self._limits.width,
            slices=self._limits.slices,
        )  # fmt: skip
        self._ranks.agree()
        self.remark = samples.remark
        threads = max(1, min(self._options.threads, SAMPLE_BYTES // samples.thread_bytes))
        firsts = range(0, shots, _SHOTS_AT_ONCE)
        self._ranks.expect([min(_SHOTS_AT_ONCE, shots - first) for first in firsts], SHOTS)
        with ThreadPool(threads, control) as pool:
            for first in firsts:
                last = min(first + _SHOTS_AT_ONCE, shots)
                own = self._ranks.part(last - first)
                records = np.zeros((last - first, num_words(source.size)), np.uint64)

                def fill(
                    first: int = first, own: slice = own, records: NDArray[np.uint64] = records
                ) -> None:
                    begin, end = first + own.start, first + own.stop
                    bits = samples.sample(begin, end, key, pool, self._flag)
                    records[own] = select_bits(bits, source)

                self._ranks.summed(records, fill)
                yield records, None

    def probabilities(self) -> Distribution:
        source = self._layout.source if self._layout.measures else None
        return sampling.distribution(self.statevector(), source)

    def statevector(self) -> NDArray[np.complexfloating]:
        checked = _checked(self._factors, self._contractor.check)
        state = net.dense_state(checked, tuple(range(self.num_qubits)), self._dtype)
        return state * np.asarray(self._phase, state.dtype)

    def amplitudes(self, bits: NDArray[np.uint8]) -> NDArray[np.complexfloating]:
        self._contractor.check()
        network = net.StateNetwork(self.num_qubits, net.fused(self._factors))
        result = chosen_amplitudes(network, bits, self._contractor)
        self.remark = self._contractor.remark
        return result * np.asarray(self._phase, result.dtype)

    def expectations(self, strings: outputs.PauliStrings) -> NDArray[np.float64]:
        result = np.zeros(len(strings))
        cones: dict[bytes, _Cone] = {}
        for number in self._ranks.control.divide(len(strings), STRINGS):
            x, z = strings[number]
            self._contractor.check()
            levels = bytes(
                FULL if x >> q & 1 else Z_BASIS if z >> q & 1 else UNUSED
                for q in range(self.num_qubits)
            )
            if levels not in cones:
                cones[levels] = self._cone(levels, len(cones))
            cone = cones[levels]
            if isinstance(cone.state, net.StateNetwork):
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
        factors = net.fused(chosen)
        touched = {qubit for factor in factors for qubit in factor.qubits}
        touched.update(q for q, level in enumerate(levels) if level != UNUSED)
        qubits = tuple(sorted(touched))
        if len(qubits) <= CONE_QUBITS:
            if not self._contractor.owns(number):
                return _Cone(number, qubits, None)
            return _Cone(number, qubits, net.dense_state(factors, qubits, self._dtype))
        return _Cone(number, qubits, net.StateNetwork(self.num_qubits, factors))

    def _contracted(self, state: net.StateNetwork, x: int, z: int, cone: int) -> float:
        network = net.expectation_network(state, x, z)
        if network is None:
            return 0.0
        nodes, factor = network
        if not nodes:
            return factor.real if self._contractor.owns(cone) else 0.0
        return float((factor * complex(self._contractor.contract(nodes, (), cone))).real)


def _within(mask: int, qubits: tuple[int, ...]) -> int:
    """Restrict a mask to these qubits, numbered from 0."""
    return sum(1 << k for k, qubit in enumerate(qubits) if mask >> qubit & 1)
