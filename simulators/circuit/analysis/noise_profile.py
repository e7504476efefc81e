"""Profiles of noise: numbers for cost models, and losses of fidelity by location."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from noise_models.channel import Channel
from simulators.circuit.analysis.measurements import NO_OP_RESET, TERMINAL, has_mid_circuit_ops
from simulators.circuit.analysis.profile import NoiseProfile
from simulators.circuit.analysis.quadrature import grid_size
from simulators.circuit.gates import BARRIER, GATES, MEASURE, RESET, UNITARY
from simulators.circuit.ir import Circuit, Operation, matrix, operations, used_qubits
from simulators.circuit.noise import CHANNEL, Q0, Q1, NoiseProgram
from simulators.circuit.operands import Operands
from simulators.circuit.passes import light_cone as cones
from simulators.circuit.passes.components import PACKED_QUBITS, connect
from simulators.compiler.kernel import kernel
from simulators.compiler.simd import take_bytes, take_numbers
from simulators.errors import Unsupported

# Computation of the `NoiseProfile` that cost models of engines read.

_LOCATIONS, _PAIRS, _NEEDED, _TOUCHED, _WIDEST = range(5)  # of `found`


def noise_profile(
    program: NoiseProgram,
    circuit: Circuit | None = None,
    outputs: tuple[str, ...] = (),
    labels: Iterable[str] = (),
) -> NoiseProfile:
    """Profile of a noise program, restricted to the support of the outputs if they are given with
    the circuit. `labels`: of all Pauli strings."""
    sampled = bool(outputs) and set(outputs) <= {"counts", "memory"}
    if circuit is not None and sampled and circuit.clbits_data:
        return _profile_of_samples(program, circuit)
    locations, width, touched = program.locations, 0, 0
    if circuit is not None:
        width, touched = circuit.num_qubits, used_qubits(circuit).size
        support = cones.output_support(outputs, labels, circuit) if outputs else None
        if support is not None:
            result = cones.light_cone(circuit, support, program)
            locations, width = locations[result.acting], result.qubits.size
    facts, channels = program.facts, locations[:, CHANNEL]
    return NoiseProfile(
        frozenset(program.kinds), len(locations), int(np.count_nonzero(locations[:, Q1] >= 0)),
        float(facts.errors[channels].sum()) + _leaked_weight(program),
        float(facts.drawn[channels].sum()), width,
        touched=touched, detunings=_sets(program), flags=_flags(program),
    )  # fmt: skip


def _profile_of_samples(program: NoiseProgram, circuit: Circuit) -> NoiseProfile:
    """Profile of the support of counts and memory, in one kernel call."""
    locations, facts, qubits = program.locations, program.facts, circuit.num_qubits
    room = (16 + 4) * qubits + circuit.num_clbits + circuit.ops.size
    room += len(locations) + facts.rows.size
    measured, weights = np.empty(5, np.int64), np.empty(2)
    _measure_samples(
        circuit.table.rows, cones.GATE_KINDS, circuit.ops, circuit.qubits, circuit.clbits,
        circuit.num_clbits, qubits, int(bool(circuit.conditions_data)), locations, facts.rows,
        facts.all_traits, facts.all_errors, facts.all_drawn, np.empty(room, np.uint8), measured,
        weights,
    )  # fmt: skip
    acting, pairs, needed, touched, widest = measured.tolist()
    error_weight, drawn_weight = weights.tolist()
    error_weight += _leaked_weight(program)
    return NoiseProfile(
        frozenset(program.kinds), acting, pairs, error_weight, drawn_weight, needed,
        touched=touched, widest=widest, detunings=_sets(program), flags=_flags(program),
    )  # fmt: skip


def _flags(program: NoiseProgram) -> int:
    return 0 if program.leakage is None else program.leakage.num_flags


def _leaked_weight(program: NoiseProgram) -> float:
    """Expected number of leaks of a shot whose qubits are in |1> half of the time."""
    return 0.0 if program.leakage is None else 0.5 * float(program.leakage.leak.sum())


def _sets(program: NoiseProgram) -> float:
    return 0.0 if program.detunings is None else grid_size(program.detunings)


@kernel(
    "NAMES NAMES U16 U16 U16 INT INT INT INTS2 I64 U8 REALS REALS U8 I64 REALS", group="attachment"
)
def _measure_samples(  # type: ignore[no-untyped-def]
    rows, kinds, ops, qubits, clbits, num_clbits, num_qubits, blocks, locations, channels,
    all_traits, all_errors, all_drawn, scratch, measured, weights,
):  # fmt: skip
    """Fill `measured` (by the names above) and `weights`: sum over all errors, and over those
    drawn. `channels`: row of each channel in `all_traits`, `all_errors` and `all_drawn`. Components
    of few qubits share a part: see `components`. `scratch`: bytes."""
    parent, scratch = take_numbers(scratch, num_qubits)
    sizes, scratch = take_numbers(scratch, num_qubits)
    levels, scratch = take_bytes(scratch, num_qubits)
    needed, scratch = take_bytes(scratch, num_qubits)
    touched, scratch = take_bytes(scratch, num_qubits)
    turned, scratch = take_bytes(scratch, num_qubits)
    written, scratch = take_bytes(scratch, num_clbits)
    kept, scratch = take_bytes(scratch, ops.size)
    acting, scratch = take_bytes(scratch, locations.shape[0])
    traits, _ = take_bytes(scratch, channels.size)
    for k in range(channels.size):
        traits[k] = all_traits[channels[k]]
    levels[:] = turned[:] = 0
    written[:] = 0
    cones.walk_cone(
        rows, kinds, ops, qubits, clbits, 1, blocks, 1, locations, traits, levels, turned, written,
        kept, acting, needed,
    )  # fmt: skip
    measured[:] = 0
    weights[:] = 0.0
    connect(rows, ops, qubits, kept, locations[:0], parent)
    for place in range(locations.shape[0]):
        if acting[place]:
            row = channels[locations[place, CHANNEL]]
            measured[_LOCATIONS] += 1
            weights[0] += all_errors[row]
            weights[1] += all_drawn[row]
            if locations[place, Q1] >= 0:
                measured[_PAIRS] += 1
                cones.join(parent, locations[place, Q0], locations[place, Q1])
    touched[:] = 0
    wire = 0
    for k in range(ops.size):
        for j in range(wire, wire + rows[ops[k], 1]):
            if rows[ops[k], 0] != BARRIER:
                touched[qubits[j]] = 1
        wire += rows[ops[k], 1]
    for q in range(num_qubits):
        measured[_TOUCHED] += touched[q]
        measured[_NEEDED] += needed[q]
        sizes[q] = 0
    if measured[_NEEDED] == 0:
        measured[_NEEDED] = needed[0] = 1
    groups = 0
    for q in range(num_qubits):
        if needed[q]:
            root = cones.root_of(parent, q)
            groups += sizes[root] == 0
            sizes[root] += 1
            measured[_WIDEST] = max(measured[_WIDEST], sizes[root])
    measured[_WIDEST] = max(measured[_WIDEST], min(groups, PACKED_QUBITS))


# Loss of fidelity by each noise location of a circuit, to first order in the errors.
#
# With one channel of Kraus operators K on qubits S of an otherwise ideal circuit, the fidelity of
# the final state is sum_K |tr(rho_S K)|^2, with rho_S the reduced density matrix of the ideal state
# at that place, because the later operations are unitary (Nielsen and Chuang, section 9.3:
# entanglement fidelity). Losses of several channels add up to first order. If only diagonal gates
# come between a channel and the next measurement of its qubits, only changes of populations
# count. A bit that is measured before other operations on its qubit is copied to a qubit of its
# own (deferred measurement, Nielsen and Chuang, section 4.4).
#
# Of unitary channels V it is the changes of the state that add up, to first order: with d_k the
# change (V - 1) psi at place k, carried to the end, and d the part of their sum that is orthogonal
# to the final state, the loss is <d|d>, and the share of place k is Re <d_k|d>. A share is negative
# where the place undoes what others do. For a maximally mixed state they add as if their phases
# were random.

MAX_QUBITS = 18  # wider circuits are judged for a maximally mixed state
_ID, _GLOBAL = GATES["id"].code, GATES["global_phase"].code
_DIAGONAL = [gate.code for gate in GATES.values() if gate.diagonal]
_UNITARY = 1e-9  # largest deviation of a unitary channel
_COPY = np.eye(4, dtype=np.complex128)[[0, 3, 2, 1]]  # cx of qubit 0 on qubit 1
_Place = tuple[int, int, int]  # preceding operation, and the qubits
# By preceding operation: location, change of the state, qubits.
_Changes = dict[int, list[tuple[int, NDArray[np.complex128], tuple[int, ...]]]]


class LocationLosses(msgspec.Struct, frozen=True, eq=False):
    channels: NDArray[np.float64]  # [locations]
    readout: dict[int, float]  # by measured qubit


class IdealStates:
    """Reduced density matrices of the ideal state of a circuit between its operations. Raises
    Unsupported for a circuit with resets or conditions, or with free parameters."""

    def __init__(self, circuit: Circuit) -> None:
        self.circuit = circuit
        self.operands = Operands.of(circuit)
        roles = np.empty(circuit.ops.size, np.int64)
        has_mid_circuit_ops(circuit, roles, keep=True)
        resets = (self.operands.codes == RESET) & (roles != NO_OP_RESET)
        if circuit.conditions_data or resets.any():
            raise Unsupported(
                "no first-order loss of a circuit that resets or branches",
                hint="take a circuit of gates and measurements alone",
            )
        if circuit.slots_data:
            hint = "bind all parameters"
            raise Unsupported("no first-order loss of a circuit with a free parameter", hint=hint)
        codes, counts = self.operands.codes, self.operands.counts
        self.axis = {qubit: k for k, qubit in enumerate(used_qubits(circuit).tolist())}
        mixing = (codes >= UNITARY) & (codes != _ID) & ~np.isin(codes, _DIAGONAL)
        places = np.repeat(np.arange(codes.size), counts)[np.repeat(mixing, counts)]
        mixed = self.operands.wires[np.repeat(mixing, counts)]
        self._mixing = {q: places[mixed == q] for q in self.axis}  # operations, ascending
        numbers = np.flatnonzero(codes == MEASURE)
        read = self.operands.wires[self.operands.first[numbers]]
        self._reads = {q: numbers[read == q] for q in self.axis}
        self._bits: dict[int, int] = {}  # axis of each measured bit, by the operation
        self._num_axes = len(self.axis)
        for k, qubit in zip(numbers.tolist(), read.tolist(), strict=True):
            self._bits[k] = self.axis[qubit]
            if roles[k] != TERMINAL or k < self._reads[qubit][-1]:
                self._bits[k] = self._num_axes
                self._num_axes += 1
        self.is_known = self._num_axes <= MAX_QUBITS

    def losses(self, programs: Iterable[NoiseProgram]) -> list[LocationLosses]:
        """Losses by noise programs of the circuit, each alone."""
        built = list(programs)
        wanted: dict[int, set[tuple[int, int]]] = {}
        for program in built:
            for after, _, first, second in program.locations.tolist():
                wanted.setdefault(after, set()).add((first, second))
        changes = [self._changes(program) for program in built] if self.is_known else []
        reduced, excited, shares = self._reduced(wanted, changes)
        shares += [{}] * (len(built) - len(shares))
        results = []
        for program, own in zip(built, shares, strict=True):
            kraus = [channel.kraus() for channel in program.channels]
            result = np.empty(len(program.locations))
            for k, (after, number, first, second) in enumerate(program.locations.tolist()):
                if k in own:
                    result[k] = own[k]
                    continue
                rho = reduced[after, first, second]
                classical = self._is_classical(after, first, second)
                result[k] = _loss(kraus[number], rho, classical=classical)
            readout: dict[int, float] = {}
            for operation, p1 in excited.items():
                if program.readout is None:
                    break
                qubit = int(self.operands.wires[self.operands.first[operation]])
                p01, p10 = program.readout.flips(qubit, operation)
                readout[qubit] = readout.get(qubit, 0.0) + float((1.0 - p1) * p01 + p1 * p10)
            results.append(LocationLosses(result, readout))
        return results

    def _is_classical(self, after: int, first: int, second: int) -> bool:
        """Return whether only populations of these qubits matter after an operation: no gate
        that mixes them comes before their next measurement."""
        for qubit in (first, second) if second >= 0 else (first,):
            mixing, reads = self._mixing[qubit], self._reads[qubit]
            next_mixing = mixing[mixing > after][:1].tolist()
            next_read = reads[reads > after][:1].tolist()
            if next_mixing and not (next_read and next_read < next_mixing):
                return False
        return bool(self._bits)

    def _changes(self, program: NoiseProgram) -> _Changes:
        """V - 1 of the unitary channels by preceding operation, without what changes phases that no
        measurement sees."""
        unitary = [_unitary(channel) for channel in program.channels]
        results: _Changes = {}
        for k, (after, number, first, second) in enumerate(program.locations.tolist()):
            matrix = unitary[number]
            if matrix is not None:
                change = matrix - np.eye(len(matrix))
                if self._is_classical(after, first, second):
                    np.fill_diagonal(change, 0.0)
                qubits = (first,) if second < 0 else (first, second)
                results.setdefault(after, []).append((k, change, qubits))
        return results

    def _reduced(
        self, wanted: dict[int, set[tuple[int, int]]], changes: Sequence[_Changes]
    ) -> tuple[dict[_Place, NDArray[np.complex128]], dict[int, float], list[dict[int, float]]]:
        """Reduced density matrices, the first qubit as bit 0, the final populations of |1>, and the
        shares of the unitary channels of each program."""
        entries: dict[_Place, NDArray[np.complex128]] = {}
        if not self.is_known:
            for after, places in wanted.items():
                for first, second in places:
                    side = 2 if second < 0 else 4
                    entries[after, first, second] = np.eye(side, dtype=np.complex128) / side
            return entries, dict.fromkeys(self._bits, 0.5), []
        n = max(1, self._num_axes)
        coherent = [k for k, each in enumerate(changes) if each]
        states = np.zeros((2,) * n + (1 + len(coherent),), np.complex128)  # then the changes of it
        states[(0,) * (n + 1)] = 1.0
        steps = (None, *operations(self.circuit, self.circuit.params))
        for operation in steps:
            if operation is not None:
                states = self._applied(states, operation)
            k = -1 if operation is None else operation.place
            for first, second in wanted.get(k, ()):
                entries[k, first, second] = self._matrix(states[..., 0], first, second)
            for column, number in enumerate(coherent, start=1):
                for _, change, qubits in changes[number].get(k, ()):
                    states[..., column] += self._product(change, states[..., 0], qubits)
        final = states[..., 0]
        excited = {}
        for k, bit in self._bits.items():
            ones = final.take(1, axis=bit)
            excited[k] = float(np.vdot(ones, ones).real)
        shares: list[dict[int, float]] = [{} for _ in changes]
        for column in range(1, 1 + len(coherent)):
            states[..., column] -= np.vdot(final, states[..., column]) * final
        for operation in reversed(steps) if coherent else ():
            k = -1 if operation is None else operation.place
            for column, number in enumerate(coherent, start=1):
                for place, change, qubits in changes[number].get(k, ()):
                    moved = self._product(change, states[..., 0], qubits)
                    shares[number][place] = float(np.vdot(moved, states[..., column]).real)
            if operation is not None:
                states = self._applied(states, operation, inverse=True)
        return entries, excited, shares

    def _matrix(
        self, state: NDArray[np.complex128], first: int, second: int
    ) -> NDArray[np.complex128]:
        axes = [self.axis[q] for q in (second, first) if q >= 0]
        rows = np.moveaxis(state, axes, range(len(axes))).reshape(1 << len(axes), -1)
        return np.asarray(rows @ rows.conj().T)

    def _applied(
        self, states: NDArray[np.complex128], operation: Operation, *, inverse: bool = False
    ) -> NDArray[np.complex128]:
        bit = self._bits.get(operation.place, -1)
        if bit >= len(self.axis):  # copied, by a cx
            return self._on_axes(_COPY, states, [bit, self.axis[operation.qubits[0]]])
        if not operation.is_gate or operation.code in (_ID, _GLOBAL):
            return states
        gate = matrix(self.circuit, operation)
        return self._product(gate.conj().T if inverse else gate, states, operation.qubits)

    def _product(
        self, gate: NDArray[np.complex128], states: NDArray[np.complex128], qubits: Sequence[int]
    ) -> NDArray[np.complex128]:
        return self._on_axes(gate, states, [self.axis[q] for q in reversed(qubits)])

    @staticmethod
    def _on_axes(
        gate: NDArray[np.complex128], states: NDArray[np.complex128], axes: Sequence[int]
    ) -> NDArray[np.complex128]:
        """Apply a matrix whose high digit is the first axis."""
        moved = np.moveaxis(states, axes, range(len(axes)))
        changed = (gate @ moved.reshape(len(gate), -1)).reshape(moved.shape)
        return np.moveaxis(changed, range(len(axes)), axes)


def _unitary(channel: Channel) -> NDArray[np.complex128] | None:
    """Unitary matrix of a channel, with a trace of at least 0; None: it is not unitary."""
    result: NDArray[np.complex128] = channel.kraus()[0]
    if np.abs(result.conj().T @ result - np.eye(len(result))).max() > _UNITARY:
        return None
    trace = np.trace(result)
    return result * (trace.conjugate() / abs(trace)) if abs(trace) > _UNITARY else result


def _loss(kraus: NDArray[np.complex128], rho: NDArray[np.complex128], *, classical: bool) -> float:
    if classical:
        stays = np.square(np.abs(np.einsum("kii->ki", kraus))).sum(axis=0)
        return max(0.0, 1.0 - float(stays @ np.diag(rho).real))
    amplitudes = np.einsum("kij,ji->k", kraus, rho)
    return max(0.0, 1.0 - float(np.square(np.abs(amplitudes)).sum()))
