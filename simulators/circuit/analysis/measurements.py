"""Classification of measurements and resets, with noise and without."""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import NDArray

from simulators.circuit import gates, ir
from simulators.circuit.gates import END_BLOCK, IF, MEASURE, RESET
from simulators.circuit.ir import Circuit, register_starts
from simulators.circuit.noise import AFTER_OP, Q0, Q1, NoiseProgram
from simulators.compiler.kernel import device_function, kernel

# Classification of measurements and resets: terminal, without effect, or mid-circuit.
#
# Only for circuits that `admission.validation_error` admitted.

# Roles of operations.
ORDINARY, TERMINAL, NO_OP_RESET, LAST_USE = range(4)

_MEASURED, _ACTED_ON = 1, 2  # later uses of a qubit
_LOOP_END = 9  # intermediate value in `roles`: this `end` closes a loop
_ID = gates.GATES["id"].code


@device_function
def _touch(tokens, end, starts, blocked):  # type: ignore[no-untyped-def]
    """Mark the clbits that one expression reads or stores, walking back from its END. Returns the
    end of the expression before it."""
    k = end - 1
    while k >= 0 and tokens[3 * k] != ir.END:
        token, operand = tokens[3 * k], tokens[3 * k + 1]
        if token in (ir.CLBIT, ir.SET_CLBIT):
            blocked[operand] = 1
        elif token in (ir.REGISTER, ir.SET_REGISTER):
            for c in range(starts[operand], starts[operand + 1]):
                blocked[c] = 1
        k -= 1
    return k


@device_function
def _forward(rows, ops, qubits, used, roles):  # type: ignore[no-untyped-def]
    """Find resets of untouched qubits, and the ends of loops."""
    at = 0
    inside = 0  # loops that are open
    block = np.int64(-1)  # the innermost open block; its `roles` holds the one around it
    for k in range(ops.size):
        code, count = rows[ops[k], 0], rows[ops[k], 1]
        roles[k] = ORDINARY
        if code in (gates.IF, gates.WHILE, gates.FOR, gates.SWITCH):
            roles[k] = block
            block = np.int64(k)
            if code in (gates.WHILE, gates.FOR):
                inside += 1
        elif code == gates.END_BLOCK:
            opened = rows[ops[block], 0]
            if opened in (gates.WHILE, gates.FOR):
                roles[k] = _LOOP_END
                inside -= 1
            around = roles[block]
            roles[block] = ORDINARY
            block = around
        elif code == gates.RESET and not used[qubits[at]] and not inside:
            roles[k] = NO_OP_RESET
        elif code >= gates.UNITARY and code != _ID:
            for j in range(at, at + count):
                used[qubits[j]] = 1
        at += count
    return at


@device_function
def classify(  # type: ignore[no-untyped-def]
    rows, ops, qubits, clbits, tokens, starts, used, blocked, keep, roles
):
    """Fill the role of each operation; returns 1 if the circuit needs branching, else 0.

    FINAL: a measurement that no operation on its qubit or clbit follows. DROPPED: a reset without
    effect: of a qubit still |0>, or (unless `keep`, which is for outputs that see the state) of one
    that is never used again. LAST: a measurement that is not final but the last use of its qubit,
    which may be put back to |0> (again unless `keep`). In a loop later operations may also precede,
    so no operation there has any of the three roles. `used`, `blocked` are scratch: uint8 [qubits],
    [clbits]; `roles`: int64 [operations].
    """
    used[:] = 0
    at = _forward(rows, ops, qubits, used, roles)
    used[:] = 0
    blocked[:] = 0
    branching = 0
    depth = inside = 0
    end = tokens.size // 3 - 1
    bit = clbits.size
    for k in range(ops.size - 1, -1, -1):
        code = rows[ops[k], 0]
        at -= rows[ops[k], 1]
        bit -= rows[ops[k], 2]
        if (
            code in (gates.IF, gates.WHILE, gates.FOR, gates.SWITCH, gates.CASE)
            or code == gates.STORE
        ):
            stores = code == gates.STORE and tokens[3 * end - 3] != ir.SET_VARIABLE
            if stores or code in (gates.IF, gates.WHILE, gates.SWITCH):
                branching = 1
            if code in (gates.IF, gates.WHILE, gates.FOR, gates.SWITCH):
                depth -= 1
                if code in (gates.WHILE, gates.FOR):
                    inside -= 1
            end = _touch(tokens, end, starts, blocked)
        elif code == gates.END_BLOCK:
            depth += 1
            if roles[k] == _LOOP_END:
                roles[k] = ORDINARY
                inside += 1
        elif code == gates.MEASURE:
            q, c = qubits[at], clbits[bit]
            if depth == 0 and used[q] < _ACTED_ON and not blocked[c]:
                roles[k] = TERMINAL
                used[q] = _MEASURED
                continue
            if not used[q] and not keep and not inside:
                roles[k] = LAST_USE
            used[q] = _ACTED_ON
            blocked[c] = 1
            branching = 1
        elif code == gates.RESET:
            if roles[k] == NO_OP_RESET:
                continue
            if not used[qubits[at]] and not keep and not inside:
                roles[k] = NO_OP_RESET
                continue
            used[qubits[at]] = _ACTED_ON
            branching = 1
        elif code >= gates.UNITARY and code != _ID:
            for j in range(at, at + rows[ops[k], 1]):
                used[qubits[j]] = _ACTED_ON
    return branching


classify_measurements = kernel("NAMES U16 U16 U16 I32 I64 U8 U8 INT I64 -> INT", group="admission")(
    classify
)


@kernel("NAMES U16 U16 U16 I64 I64 I64 -> INT", group="admission")
def _final_measurements(rows, ops, qubits, clbits, roles, source, operations):  # type: ignore[no-untyped-def]
    """Fill `source` and `operations` of a MeasurementLayout; returns the number of measurements."""
    source[:] = -1
    operations[:] = -1
    at = bit = count = 0
    for k in range(ops.size):
        if rows[ops[k], 0] == gates.MEASURE:
            count += 1
            if roles[k] == TERMINAL:
                source[clbits[bit]] = qubits[at]
                operations[clbits[bit]] = k
        at += rows[ops[k], 1]
        bit += rows[ops[k], 2]
    return count


def has_mid_circuit_ops(circuit: Circuit, roles: NDArray[np.int64], *, keep: bool = False) -> bool:
    """Fill `roles` (int64 [operations]), see `classify_measurements`; True if the circuit needs
    branching."""
    result = classify_measurements(
        circuit.table.rows, circuit.ops, circuit.qubits, circuit.clbits, circuit.conditions,
        register_starts(circuit), np.empty(circuit.num_qubits, np.uint8),
        np.empty(circuit.num_clbits, np.uint8), 1 if keep else 0, roles,
    )  # fmt: skip
    return bool(result)


class MeasurementLayout(msgspec.Struct, frozen=True, eq=False):
    """Terminal measurements of a circuit, and the roles of all operations."""

    roles: NDArray[np.int64]  # [operations], see `classify_measurements`
    source: NDArray[np.int64]  # [num_clbits]: the qubit whose final measurement it holds, or -1
    branching: bool  # a mid-circuit measurement, reset or branch
    measures: bool  # the circuit has a measurement
    operations: NDArray[np.int64]  # [num_clbits]: operation of that measurement, or -1
    from_zero: bool = True  # the circuit begins with |0...0>

    @property
    def measured(self) -> int:
        """Mask of the qubits that are measured at the end."""
        return sum(1 << qubit for qubit in set(self.source[self.source >= 0].tolist()))


def measurement_layout(circuit: Circuit, *, keep: bool = False) -> MeasurementLayout:
    """Layout of a circuit's measurements. `keep`: the final state is needed, see
    `classify_measurements`."""
    roles = np.empty(circuit.ops.size, np.int64)
    branching = has_mid_circuit_ops(circuit, roles, keep=keep)
    source = np.empty(circuit.num_clbits, np.int64)
    operations = np.empty(circuit.num_clbits, np.int64)
    measures = _final_measurements(
        circuit.table.rows, circuit.ops, circuit.qubits, circuit.clbits, roles, source, operations
    )
    return MeasurementLayout(roles, source, branching, measures > 0, operations)


class MeasurementLayouts(msgspec.Struct, frozen=True, eq=False):
    """Plan for engines that need the layouts alone: for outputs of clbits, and for outputs of the
    state."""

    clbits: MeasurementLayout
    state: MeasurementLayout

    @classmethod
    def of(cls, circuit: Circuit) -> MeasurementLayouts:
        return cls(measurement_layout(circuit), measurement_layout(circuit, keep=True))

    @property
    def memory_bytes(self) -> int:
        return 2 * (self.clbits.roles.nbytes + self.clbits.source.nbytes)


def once_layout(circuit: Circuit, first: int, part: Circuit) -> MeasurementLayout:
    """Layout of `part`, the operations of `circuit` from number `first` on that run once: no
    measurement waits for the end."""
    roles = measurement_layout(circuit, keep=True).roles[first : first + part.ops.size].copy()
    roles[roles == TERMINAL] = ORDINARY
    nothing = np.full(circuit.num_clbits, -1, np.int64)
    codes = part.table.rows[part.ops, 0]
    measures = bool((codes == gates.MEASURE).any())
    return MeasurementLayout(roles, nothing, False, measures, nothing, from_zero=first == 0)


def rest_layout(circuit: Circuit, first: int, rest: Circuit, *, keep: bool) -> MeasurementLayout:
    """Layout of `rest`, the operations of `circuit` from number `first` on, which begin with the
    state after the earlier operations. Earlier measurements count as measured."""
    roles = measurement_layout(circuit, keep=keep).roles[first:].copy()
    source = np.empty(circuit.num_clbits, np.int64)
    operations = np.empty(circuit.num_clbits, np.int64)
    _final_measurements(
        rest.table.rows, rest.ops, rest.qubits, rest.clbits, roles, source, operations
    )
    codes = rest.table.rows[rest.ops, 0]
    branching = ((codes == gates.MEASURE) & (roles != TERMINAL)) | np.isin(
        codes, (gates.IF, gates.WHILE, gates.SWITCH, gates.STORE)
    )
    branching |= (codes == gates.RESET) & (roles != NO_OP_RESET)
    measures = bool((circuit.table.rows[circuit.ops, 0] == gates.MEASURE).any())
    return MeasurementLayout(
        roles, source, bool(branching.any()), measures, operations, from_zero=False
    )


# Classification of measurements and resets where noise acts on their qubits.


def noisy_layout(circuit: Circuit, noise: NoiseProgram, *, keep: bool = False) -> MeasurementLayout:
    """Layout of a circuit with noise. A measurement or reset stays at its place if a channel acts
    on its qubit later, and so does a reset of a qubit in |0> on which a channel acted."""
    layout = measurement_layout(circuit, keep=keep)
    _place_measurements(
        circuit.table.rows, circuit.ops, circuit.qubits, circuit.clbits, noise.locations,
        np.empty((2, circuit.num_qubits), np.int64), layout.roles, layout.source, layout.operations,
    )  # fmt: skip
    return msgspec.structs.replace(layout, branching=True)


@kernel("NAMES U16 U16 U16 INTS2 INTS2 I64 I64 I64", group="attachment")
def _place_measurements(  # type: ignore[no-untyped-def]
    rows, ops, qubits, clbits, locations, bounds, roles, source, op_ids
):
    """Change the arrays of a layout; see `noisy_layout`. `bounds` [2, qubits]: scratch."""
    for q in range(bounds.shape[1]):
        bounds[0, q], bounds[1, q] = ops.size, -2  # the first and the last location of a qubit
    for place in range(locations.shape[0]):
        after = locations[place, AFTER_OP]
        for column in (Q0, Q1):
            q = locations[place, column]
            if q >= 0:
                bounds[0, q] = min(bounds[0, q], after)
                bounds[1, q] = max(bounds[1, q], after)
    at = bit = 0
    for k in range(ops.size):
        code = rows[ops[k], 0]
        if roles[k] != ORDINARY:
            first, last = bounds[0, qubits[at]], bounds[1, qubits[at]]
            if code == MEASURE and last >= k:
                if roles[k] == TERMINAL:
                    source[clbits[bit]] = op_ids[clbits[bit]] = -1
                roles[k] = ORDINARY
            elif code == RESET and roles[k] == NO_OP_RESET and (last >= k or first < k):
                roles[k] = ORDINARY
        at += rows[ops[k], 1]
        bit += rows[ops[k], 2]


# Operations and noise that act under a condition.


def branch_depth(circuit: Circuit) -> NDArray[np.int64]:
    """Number of `if` blocks around each operation, int64 [operations]."""
    codes = circuit.table.rows[circuit.ops, 0]
    return np.cumsum((codes == IF).astype(np.int64) - (codes == END_BLOCK))


def has_conditional_noise(circuit: Circuit, noise: NoiseProgram) -> bool:
    """Return whether a channel acts after an operation inside an `if` block."""
    after = noise.locations[:, AFTER_OP]
    return bool(branch_depth(circuit)[after[after >= 0]].any())
