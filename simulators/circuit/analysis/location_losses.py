"""Loss of fidelity by each noise location of a circuit, to first order in the errors.

With one channel of Kraus operators K on qubits S of an otherwise ideal circuit, the fidelity of
the final state is sum_K |tr(rho_S K)|^2, with rho_S the reduced density matrix of the ideal state
at that place, because the later operations are unitary (Nielsen and Chuang, section 9.3:
entanglement fidelity). Losses of several channels add up to first order. If only diagonal gates
come between a channel and the next measurement of its qubits, only changes of populations
count. A bit that is measured before other operations on its qubit is copied to a qubit of its
own (deferred measurement, Nielsen and Chuang, section 4.4). A circuit that resets or branches has
many states: its losses are those of a maximally mixed one. Gates under a condition count as if it
held, and what ends at a reset is no loss.

Of unitary channels V it is the changes of the state that add up, to first order: with d_k the
change (V - 1) psi at place k, carried to the end, and d the part of their sum that is orthogonal
to the final state, the loss is <d|d>, and the share of place k is Re <d_k|d>. A share is negative
where the place undoes what others do. For a maximally mixed state they add as if their phases
were random.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from noise_models.channel import Channel
from simulators.circuit.analysis.measurements import NO_OP_RESET, TERMINAL, has_mid_circuit_ops
from simulators.circuit.arrays import Operands
from simulators.circuit.gates import GATES, MEASURE, RESET, UNITARY
from simulators.circuit.ir import Circuit, Operation, matrix, operations, used_qubits
from simulators.circuit.noise import NoiseProgram
from simulators.errors import Unsupported

MAX_QUBITS = 18  # wider circuits are judged for a maximally mixed state
_ID, _GLOBAL = GATES["id"].code, GATES["global_phase"].code
_DIAGONAL = [gate.code for gate in GATES.values() if gate.diagonal]
_NEVER = 1 << 62  # number of no operation
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
    Unsupported for a circuit with free parameters."""

    def __init__(self, circuit: Circuit) -> None:
        self.circuit = circuit
        self.operands = Operands.of(circuit)
        roles = np.empty(circuit.ops.size, np.int64)
        has_mid_circuit_ops(circuit, roles, keep=True)
        resets = self.operands.codes == RESET
        if circuit.slots_data:
            hint = "bind all parameters"
            raise Unsupported("no first-order loss of a circuit with a free parameter", hint=hint)
        codes, counts = self.operands.codes, self.operands.counts
        self.axis = {qubit: k for k, qubit in enumerate(used_qubits(circuit).tolist())}
        mixing = (codes >= UNITARY) & (codes != _ID) & ~np.isin(codes, _DIAGONAL)
        places = np.repeat(np.arange(codes.size), counts)[np.repeat(mixing, counts)]
        mixed = self.operands.wires[np.repeat(mixing, counts)]
        self._mixing = {q: places[mixed == q] for q in self.axis}  # operations, ascending
        acts = np.repeat(((codes >= UNITARY) & (codes != _ID)) | (codes == MEASURE), counts)
        owners, wires = np.repeat(np.arange(codes.size), counts)[acts], self.operands.wires[acts]
        self._acts = {q: owners[wires == q] for q in self.axis}  # gates and measurements, ascending
        numbers = np.flatnonzero(codes == MEASURE)
        read = self.operands.wires[self.operands.first[numbers]]
        self._reads = {q: numbers[read == q] for q in self.axis}
        ends = np.flatnonzero(resets)
        ended = self.operands.wires[self.operands.first[ends]]
        self._resets = {q: ends[ended == q] for q in self.axis}
        self._bits: dict[int, int] = {}  # axis of each measured bit, by the operation
        self._num_axes = len(self.axis)
        for k, qubit in zip(numbers.tolist(), read.tolist(), strict=True):
            self._bits[k] = self.axis[qubit]
            if roles[k] != TERMINAL or k < self._reads[qubit][-1]:
                self._bits[k] = self._num_axes
                self._num_axes += 1
        has_one = not circuit.conditions_data and not (roles[ends] != NO_OP_RESET).any()
        self.is_known = has_one and self._num_axes <= MAX_QUBITS

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
                if self._is_lost(after, first, second):
                    result[k] = 0.0
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

    def _is_lost(self, after: int, first: int, second: int) -> bool:
        """Return whether all of these qubits are reset after an operation, before another one acts
        on them."""
        return all(
            (next_reset := _next(self._resets[qubit], after)) < _next(self._acts[qubit], after)
            and next_reset < _NEVER
            for qubit in ((first, second) if second >= 0 else (first,))
        )

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


def _next(operations: NDArray[np.int64], after: int) -> int:
    """Return the first of some ascending operations after another one; `_NEVER`: none is."""
    at = int(np.searchsorted(operations, after, side="right"))
    return int(operations[at]) if at < operations.size else _NEVER


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
