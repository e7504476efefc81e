"""Roles of measurements and resets in the life of their qubits, with noise and without.

A qubit is prepared, acted on, measured, reset, and ends. The role of a measurement or a reset
follows from what happens to its qubit before and after it, by operations and by noise. One analysis
gives the roles to all engines and passes, in three states of knowledge: there is no noise; noise is
not located yet, and may act from the preparation of a qubit to its last operation; or its locations
are known.
"""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import NDArray

from simulators.circuit import gates, ir
from simulators.circuit.gates import END_BLOCK, IF
from simulators.circuit.ir import Circuit, register_starts
from simulators.circuit.noise import AFTER_OP, Q0, Q1, NoiseProgram
from simulators.compiler.kernel import device_function, kernel

# Only for circuits that `admission.validation_error` admitted.

# Roles of operations.
ORDINARY, TERMINAL, NO_OP_RESET, LAST_USE = range(4)

_MEASURED, _ACTED_ON = 1, 2  # later uses of a qubit
_LOOP_END = 9  # intermediate value in `roles`: this `end` closes a loop
_ID = gates.GATES["id"].code
NOT_YET = -1  # operation before which the preparation of a qubit acts
_NEVER = -2  # operation after which no noise acts


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
def _forward(rows, ops, qubits, used, spans, roles):  # type: ignore[no-untyped-def]
    """Find resets of untouched qubits, and the ends of loops. `spans`: see `classify`."""
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
            if not spans.size or spans[0, qubits[at]] >= k:
                roles[k] = NO_OP_RESET
        elif code >= gates.UNITARY and code != _ID:
            for j in range(at, at + count):
                used[qubits[j]] = 1
        at += count
    return at


@device_function
def classify(  # type: ignore[no-untyped-def]
    rows, ops, qubits, clbits, tokens, starts, used, blocked, spans, keep, roles
):
    """Fill the role of each operation; returns 1 if the circuit needs branching, else 0.

    TERMINAL: a measurement that no operation on its qubit or clbit follows, and no noise on its
    qubit. NO_OP_RESET: a reset without effect: of a qubit still |0>, on which nothing acted, or
    (unless `keep`, which is for outputs that see the state) of one on which nothing acts any more.
    LAST_USE: a measurement that is not final but the last use of its qubit, which may be put back
    to |0> (again unless `keep`). In a loop later operations may also precede, so no operation there
    has any of the three roles. `spans` [2, qubits]: numbers of the operations after which noise
    acts on a qubit for the first and for the last time, see `noise_spans`; empty without noise.
    `used`, `blocked` are scratch: uint8 [qubits], [clbits]; `roles`: int64 [operations].
    """
    used[:] = 0
    at = _forward(rows, ops, qubits, used, spans, roles)
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
            ends = not spans.size or spans[1, q] < k
            if depth == 0 and used[q] < _ACTED_ON and not blocked[c] and ends:
                roles[k] = TERMINAL
                used[q] = _MEASURED
                continue
            if not used[q] and not keep and not inside and ends:
                roles[k] = LAST_USE
            used[q] = _ACTED_ON
            blocked[c] = 1
            branching = 1
        elif code == gates.RESET:
            if roles[k] == NO_OP_RESET:
                continue
            ends = not spans.size or spans[1, qubits[at]] < k
            if not used[qubits[at]] and not keep and not inside and ends:
                roles[k] = NO_OP_RESET
                continue
            used[qubits[at]] = _ACTED_ON
            branching = 1
        elif code >= gates.UNITARY and code != _ID:
            for j in range(at, at + rows[ops[k], 1]):
                used[qubits[j]] = _ACTED_ON
    return branching


classify_measurements = kernel(
    "NAMES U16 U16 U16 I32 I64 U8 U8 INTS2 INT I64 -> INT", group="admission"
)(classify)


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


@device_function
def presume_noise(rows, ops, qubits, spans):  # type: ignore[no-untyped-def]
    """Fill `spans` where noise is not located yet: from the preparation of each qubit up to its
    last operation. What a final measurement does to the state is seen by nothing."""
    spans[0, :], spans[1, :] = NOT_YET, _NEVER
    at = 0
    for k in range(ops.size):
        for j in range(at, at + rows[ops[k], 1]):
            if rows[ops[k], 0] != gates.BARRIER:
                spans[1, qubits[j]] = k - 1
        at += rows[ops[k], 1]


@kernel("INTS2 INT INTS2", group="admission")
def _fill_spans(locations, size, spans):  # type: ignore[no-untyped-def]
    """Fill `spans` from noise locations; `size`: number of operations."""
    spans[0, :], spans[1, :] = size, _NEVER
    for place in range(locations.shape[0]):
        after = locations[place, AFTER_OP]
        for column in (Q0, Q1):
            q = locations[place, column]
            if q >= 0:
                spans[0, q] = min(spans[0, q], after)
                spans[1, q] = max(spans[1, q], after)


_NO_SPANS = np.zeros((2, 0), np.int64)


def noise_spans(circuit: Circuit, noise: NoiseProgram | None) -> NDArray[np.int64]:
    """Operations after which noise acts on each qubit for the first and for the last time, int64
    [2, qubits], or [2, 0] without noise. A qubit without noise has the number of operations, and
    -2."""
    if noise is None or not len(noise.locations):
        return _NO_SPANS
    spans = np.empty((2, circuit.num_qubits), np.int64)
    _fill_spans(noise.locations, circuit.ops.size, spans)
    return spans


def has_mid_circuit_ops(
    circuit: Circuit,
    roles: NDArray[np.int64],
    *,
    keep: bool = False,
    noise: NoiseProgram | None = None,
) -> bool:
    """Fill `roles` (int64 [operations]), see `classify`; True if the circuit needs branching."""
    result = classify_measurements(
        circuit.table.rows, circuit.ops, circuit.qubits, circuit.clbits, circuit.conditions,
        register_starts(circuit), np.empty(circuit.num_qubits, np.uint8),
        np.empty(circuit.num_clbits, np.uint8), noise_spans(circuit, noise), 1 if keep else 0,
        roles,
    )  # fmt: skip
    return bool(result)


class MeasurementLayout(msgspec.Struct, frozen=True, eq=False):
    """Terminal measurements of a circuit, and the roles of all operations."""

    roles: NDArray[np.int64]  # [operations], see `classify`
    source: NDArray[np.int64]  # [num_clbits]: the qubit whose final measurement it holds, or -1
    branching: bool  # a mid-circuit measurement, reset or branch
    measures: bool  # the circuit has a measurement
    operations: NDArray[np.int64]  # [num_clbits]: operation of that measurement, or -1
    from_zero: bool = True  # the circuit begins with |0...0>

    @property
    def measured(self) -> int:
        """Mask of the qubits that are measured at the end."""
        return sum(1 << qubit for qubit in set(self.source[self.source >= 0].tolist()))


def measurement_layout(
    circuit: Circuit, noise: NoiseProgram | None = None, *, keep: bool = False
) -> MeasurementLayout:
    """Layout of a circuit's measurements, with the noise that acts on their qubits. `keep`: the
    final state is needed, see `classify`."""
    roles = np.empty(circuit.ops.size, np.int64)
    branching = has_mid_circuit_ops(circuit, roles, keep=keep, noise=noise)
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
    def of(cls, circuit: Circuit, noise: NoiseProgram | None = None) -> MeasurementLayouts:
        """Layouts of a circuit, with its noise."""
        clbits = measurement_layout(circuit, noise)
        return cls(clbits, measurement_layout(circuit, noise, keep=True))

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


# Operations and noise that act under a condition.


def branch_depth(circuit: Circuit) -> NDArray[np.int64]:
    """Number of `if` blocks around each operation, int64 [operations]."""
    codes = circuit.table.rows[circuit.ops, 0]
    return np.cumsum((codes == IF).astype(np.int64) - (codes == END_BLOCK))


def has_conditional_noise(circuit: Circuit, noise: NoiseProgram) -> bool:
    """Return whether a channel acts after an operation inside an `if` block."""
    after = noise.locations[:, AFTER_OP]
    return bool(branch_depth(circuit)[after[after >= 0]].any())
