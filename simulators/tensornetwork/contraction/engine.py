"""Engine `contraction`, its amplitudes of bit strings, and its samples."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from simulators.catalog import builtin_card
from simulators.circuit.analysis.measurements import MeasurementLayouts
from simulators.circuit.passes.light_cone import FULL, UNUSED, Z_BASIS, OutputSupport, light_cone
from simulators.engine import Request, RunOptions
from simulators.errors import Unsupported
from simulators.execution import outputs, sampling
from simulators.execution.ranks import RanksEngine
from simulators.execution.sampling import Distribution, select_bits, uniforms
from simulators.tensornetwork.contraction import contractor as contraction, network as net
from simulators.tensornetwork.contraction.contractor import ContractionLimits, Contractor

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


# Samples by gate-by-gate simulation: no marginals, one amplitude for each gate.
#
# Each shot begins with the bits of |0...0> and follows the gates. A diagonal gate keeps the bits, a
# gate that permutes basis states permutes them, and after any other gate the bits of the qubits
# that it moves are drawn again from their distribution given all other bits, which takes the
# amplitudes of the circuit so far (Bravyi, Gosset and Liu, Phys. Rev. Lett. 128, 220503, 2022).
# Only the nodes that are connected with those qubits through summed indices are contracted; rows of
# equal bits there are contracted once, and all rows in one contraction with a batch index. Shot s
# takes uniform s of draw 1 + k for gate k.


def sample_gates(
    factors: list[net.Factor],
    num_qubits: int,
    shots: NDArray[np.int64],
    key: tuple[int, int],
    contractor: Contractor,
) -> Bits:
    """Bits of these shots: uint8 [shots, qubits]."""
    bits = np.zeros((shots.size, num_qubits), np.uint8)
    state = net.StateNetwork(num_qubits)
    draws = np.empty(shots.size)
    for factor in factors:
        contractor.check()
        state.add(factor)
        if not any(factor.moved):
            continue
        moved = net.permutation(factor)
        if moved is not None:
            columns = list(factor.qubits)
            weights = 1 << np.arange(len(columns))
            after = moved[bits[:, columns] @ weights]
            bits[:, columns] = after[:, None] >> np.arange(len(columns)) & 1
            continue
        uniforms(*key, 1 + factor.place, shots, draws)
        qubits, opened, fixed, nodes = _conditional(state, factor)
        columns = sorted({fixed[i] for node in nodes for i in node.indices if i in fixed})
        packed = np.packbits(bits[:, columns], axis=1)
        rows, inverse = _distinct(packed)
        amplitudes = _amplitudes(nodes, opened, fixed, bits[rows], contractor)
        probs = np.square(amplitudes.real, dtype=np.float64)
        probs += np.square(amplitudes.imag, dtype=np.float64)
        edges = np.cumsum(probs, axis=1)
        edges /= edges[:, -1:]
        outcome = (draws[:, None] >= edges[inverse, :-1]).sum(axis=1)
        for place, qubit in enumerate(qubits):  # the first qubit is the highest bit of an outcome
            bits[:, qubit] = outcome >> (len(qubits) - 1 - place) & 1
    return bits


def admit(factors: list[net.Factor], num_qubits: int, contractor: Contractor) -> None:
    """Raises OutOfMemory if the last amplitudes of `sample_gates`, mostly the widest ones, exceed
    the limits: before the time for all others is spent."""
    redrawn = [
        k for k, each in enumerate(factors) if any(each.moved) and net.permutation(each) is None
    ]
    if not redrawn:
        return
    state = net.StateNetwork(num_qubits, factors[: redrawn[-1] + 1])
    _, opened, fixed, nodes = _conditional(state, factors[redrawn[-1]])
    first = net.selected(nodes, fixed, np.zeros((1, num_qubits), np.uint8))
    if contractor.rows_at_once(first, (net.BATCH, *opened)) == 1:
        contractor.admit([net.first_row(node) for node in first], tuple(opened))


def _conditional(
    state: net.StateNetwork, factor: net.Factor
) -> tuple[list[int], list[int], dict[int, int], list[net.NetworkTensor]]:
    """Qubits that a gate moves, their indices, the qubit of each other last index, and the nodes
    that have the distribution of those qubits given all others."""
    qubits = [q for q, moves in zip(factor.qubits, factor.moved, strict=True) if moves]
    opened = [index for index in (state.line[q] for q in qubits) if index is not None]
    fixed = {
        index: q for q, index in enumerate(state.line) if index is not None and q not in qubits
    }
    return qubits, opened, fixed, state.connected(opened, fixed)


def _distinct(packed: Bits) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """First row of each distinct value, and for each row the index of its value."""
    if not packed.shape[1]:
        return np.zeros(1, np.intp), np.zeros(len(packed), np.intp)
    keys = np.ascontiguousarray(packed).view(np.dtype((np.void, packed.shape[1]))).ravel()
    _, rows, inverse = np.unique(keys, return_index=True, return_inverse=True)
    return rows, inverse.reshape(-1)


def _amplitudes(
    nodes: list[net.NetworkTensor],
    opened: list[int],
    fixed: dict[int, int],
    bits: Bits,
    contractor: Contractor,
) -> NDArray[np.complexfloating]:
    """Amplitudes [rows, 2**opened] up to a common factor of each row."""
    output = tuple(opened)
    size = 1 << len(opened)
    if not any(index in fixed for node in nodes for index in node.indices):
        return contractor.contract(nodes, output).reshape(1, size)
    first = net.selected(nodes, fixed, bits[:1])
    step = contractor.rows_at_once(first, (net.BATCH, *output))
    results = []
    for at in range(0, len(bits), step):
        part = net.selected(nodes, fixed, bits[at : at + step])
        if step == 1:  # a contraction with slices has no batch index
            part = [net.first_row(node) for node in part]
            results.append(contractor.contract(part, output).reshape(1, size))
        else:
            results.append(contractor.contract(part, (net.BATCH, *output)).reshape(-1, size))
    return np.concatenate(results)


# Engine `contraction`: tensor networks, for wide and shallow circuits.
#
# Counts are sampled gate by gate (`engine`), expectation values from the light cone of each Pauli
# string: by its amplitudes if it is narrow, else by a contraction. Up to 20 qubits all amplitudes
# are computed, and counts are those of the statevector engine for a seed. cotengra finds paths and
# executes them; this package adds hyperindices of diagonal gates, and samples with a batch index.
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
        return _ContractedState(run, Contractor(self._paths, limits, run.control, self._comm))


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

    def __init__(self, run: outputs.BoundRun, contractor: Contractor) -> None:
        self.num_qubits = run.circuit.num_qubits
        self._layout = run.layouts.clbits
        self._circuit = run.circuit
        self._dtype = run.options.dtype
        self._factors, self._phase = net.gate_factors(run.circuit, run.params, self._dtype)
        self._contractor = contractor

    def sample(self, shots: int, key: outputs.SeedKey) -> Iterator[outputs.Batch]:
        """Sample as `FinalState.sample`, in the order of the shots."""
        factors = net.fused(self._factors)
        admit(factors, self.num_qubits, self._contractor)
        for first in range(0, shots, _SHOTS_AT_ONCE):
            shot_ids = np.arange(first, min(first + _SHOTS_AT_ONCE, shots))
            bits = sample_gates(factors, self.num_qubits, shot_ids, key, self._contractor)
            yield select_bits(bits, self._layout.source), None
        self.remark = self._contractor.remark

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
        for number, (x, z) in enumerate(strings):
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
