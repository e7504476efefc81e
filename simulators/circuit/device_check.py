"""Check that a device executes a circuit as written: gates, coupling, width, dynamic circuits.

Pure and on arrays: it takes the time of a few passes over the operations.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from noise_models.calibration import is_named_measurement
from simulators.circuit import gates as circuit_gates
from simulators.circuit.analysis.measurements import NO_OP_RESET, TERMINAL, has_mid_circuit_ops
from simulators.circuit.analysis.profile import Profile
from simulators.circuit.gates import END_BLOCK, MEASURE, RESET, STORE
from simulators.circuit.ir import Circuit, Table
from simulators.compiler.kernel import kernel

# Operations of every device that are no gates.
ALWAYS = frozenset({"measure", "barrier", "delay", "delay_dt", "global_phase"})
DYNAMIC = frozenset({"reset"})
_MARKERS = frozenset(
    {"if", "else", "end", "while", "for", "switch", "case", "default", "break", "continue", "store"}
)
_BLOCKS = (circuit_gates.IF, circuit_gates.WHILE, circuit_gates.FOR, circuit_gates.SWITCH)
_SHOWN = 12
TOLERANCE = 1e-9  # rad, of a limit of an angle
# Of each row of a table: whether its places are limited, [rows]; first and end of its places,
# [2 rows]; the sorted places.
_Places = tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.int64]]


class DeviceLimits(msgspec.Struct, frozen=True, eq=False):
    """Operations that a device executes, and where. `places`: of each operation that does not act
    on all qubits, the numbers of its qubits in base `num_qubits`. `reason`: why an operation does
    not act on some qubits. `angles`: smallest and largest angle of each parameter, in radians."""

    name: str
    num_qubits: int
    gates: Mapping[str, int]  # native: name -> qubits
    places: Mapping[str, Sequence[int]]
    reason: Callable[[str, tuple[int, ...]], str]
    dynamic: bool
    angles: Mapping[str, tuple[tuple[float, float], ...]] = {}


def refusal(circuit: Circuit, profile: Profile, device: DeviceLimits) -> tuple[str, str]:
    """Return (reason, hint) if the device cannot execute the circuit; ("", "") if it can."""
    if circuit.num_qubits > device.num_qubits:
        return (
            f"the circuit has {circuit.num_qubits} qubits; device {device.name} has"
            f" {device.num_qubits}",
            "a wider device, or fewer qubits",
        )
    if (profile.mid_circuit or profile.loops) and not device.dynamic:
        return (
            f"{_mid_circuit(circuit)}: device {device.name} has no measurements, resets, conditions"
            " or loops before a circuit's end",
            "measure at the end alone, or choose a device with dynamic circuits",
        )
    foreign, _ = _gate_rows(circuit.table, device)
    for row in foreign:
        operations = np.flatnonzero(circuit.ops == row)
        if operations.size:
            first = int(operations[0])
            name, native = circuit.table.names[row], sorted(device.gates)
            if is_named_measurement(name):
                return (
                    f"operation {first} ({name} on {_qubits(circuit, first)}): device"
                    f" {device.name} has no measurement of this name",
                    "write measure in its place",
                )
            listed = ", ".join(native[:_SHOWN]) + (", ..." if len(native) > _SHOWN else "")
            return (
                f"operation {first} ({name} on {_qubits(circuit, first)}) is no native gate"
                f" of device {device.name}",
                f"native gates: {listed}; compile='auto' compiles for them",
            )
    problem = _misplaced(circuit, device) if device.places else ("", "")
    return problem if problem[0] else beyond_limits(circuit, device)


@functools.lru_cache(maxsize=1024)
def _gate_rows(table: Table, device: DeviceLimits) -> tuple[tuple[int, ...], _Places]:
    """Rows of a table that a device does not execute, and the places of the others."""
    foreign = []
    is_placed = np.zeros(len(table.names), np.uint8)
    starts = np.zeros((len(table.names), 2), np.int64)
    blocks: dict[str, tuple[int, int]] = {}
    codes: list[NDArray[np.int64]] = [np.zeros(0, np.int64)]
    for row, name in enumerate(table.names):
        placed = "delay" if name == "delay_dt" else name
        if placed in device.places:
            if placed not in blocks:
                start = sum(map(len, codes))
                codes.append(np.unique(np.array(device.places[placed], np.int64)))
                blocks[placed] = start, start + len(codes[-1])
            starts[row] = blocks[placed]
            is_placed[row] = 1
        if name in ALWAYS or name in _MARKERS or (name in DYNAMIC and device.dynamic):
            continue
        if device.gates.get(name) != int(table.rows[row, 1]):
            foreign.append(row)
    return tuple(foreign), (is_placed, starts.reshape(-1), np.concatenate(codes))


def _mid_circuit(circuit: Circuit) -> str:
    """First operation that needs dynamic circuits: a condition or a loop, else a measurement or
    reset that is not final."""
    codes = circuit.table.rows[circuit.ops, 0]
    places = np.flatnonzero(np.isin(codes, (*_BLOCKS, STORE)))
    if not len(places):
        roles = np.empty(codes.size, np.int64)
        has_mid_circuit_ops(circuit, roles, keep=True)
        final = np.isin(roles, (TERMINAL, NO_OP_RESET))
        places = np.flatnonzero(np.isin(codes, (MEASURE, RESET)) & ~final)
    if not len(places):
        return "the circuit"
    first = int(places[0])
    name = circuit.table.names[int(circuit.ops[first])]
    return f"operation {first} ({name} on {_qubits(circuit, first, _end(codes, first))})"


def _end(codes: NDArray[Any], first: int) -> int:
    """Last operation of the block that an operation opens; the operation itself if it opens
    none."""
    if codes[first] not in _BLOCKS:
        return first
    opened = np.isin(codes[first:], _BLOCKS).astype(np.int64)
    depth = np.cumsum(opened - (codes[first:] == END_BLOCK))
    return first + int(np.flatnonzero(depth == 0)[0])


def _misplaced(circuit: Circuit, device: DeviceLimits) -> tuple[str, str]:
    """Refusal for the first operation on qubits where the device does not have it."""
    _, (is_placed, starts, places) = _gate_rows(circuit.table, device)
    operation = _first_misplaced(
        circuit.table.rows, circuit.ops, circuit.qubits, is_placed, starts, places,
        device.num_qubits,
    )  # fmt: skip
    if operation < 0:
        return "", ""
    row = int(circuit.ops[operation])
    size = int(circuit.table.rows[row, 1])
    start = int(circuit.table.rows[:, 1][circuit.ops[:operation]].sum())
    name = circuit.table.names[row]
    qubits = tuple(circuit.qubits[start : start + size].tolist())
    reason = device.reason("delay" if name == "delay_dt" else name, qubits)
    return (
        f"operation {operation} ({name} on {_qubits(circuit, operation)}): {reason}",
        "compile='auto' inserts the swaps that this needs"
        if "couple" in reason
        else "compile='auto' without a mapping of qubits chooses others",
    )


def beyond_limits(
    circuit: Circuit, device: DeviceLimits, bindings: NDArray[np.float64] | None = None
) -> tuple[str, str]:
    """Return (reason, hint) for the first gate with an angle outside its limits; ("", "") if there
    is none. `bindings` [K, slots]: values of the slots, each of which is checked; None: angles of
    slots are not checked."""
    rows = [row for row, name in enumerate(circuit.table.names) if name in device.angles]
    if not rows:
        return "", ""
    counts = circuit.table.rows[:, 3][circuit.ops].astype(np.int64)
    starts = np.cumsum(counts) - counts
    slot = np.full(circuit.params.size, -1, np.int64)  # of each parameter; -1: a number
    slot[circuit.slots[0::2]] = circuit.slots[1::2]
    beyond: list[tuple[int, int, str, float, float, float]] = []
    for row in rows:
        name = circuit.table.names[row]
        operations = np.flatnonzero(circuit.ops == row)
        for number, (low, high) in enumerate(device.angles[name]):
            at = starts[operations] + number
            free = slot[at] >= 0
            angles = np.where(free, np.clip(0.0, low, high), circuit.params[at])[np.newaxis, :]
            if bindings is not None and free.any():
                angles = np.where(free, bindings[:, slot[at]], angles)
            outside = (angles < low - TOLERANCE) | (angles > high + TOLERANCE)
            for binding, index in np.argwhere(outside)[:1].tolist():
                operation, angle = int(operations[index]), float(angles[binding, index])
                beyond.append((binding, operation, name, angle, low, high))
    if not beyond:
        return "", ""
    binding, first, name, angle, low, high = min(beyond)
    several = bindings is not None and len(bindings) > 1
    return (
        f"{f'binding {binding}: ' if several else ''}operation {first} ({name} on"
        f" {_qubits(circuit, first)}) has the angle {angle:g}; device {device.name} has {name} from"
        f" {low:g} to {high:g}",
        "compile='auto' rewrites rzz within 0 to pi/2; other gates need other angles",
    )


@kernel("NAMES U16 U16 U8 I64 I64 INT -> INT", group="attachment")
def _first_misplaced(rows, ops, qubits, is_placed, starts, places, num_qubits):  # type: ignore[no-untyped-def]
    """Return the first operation on qubits that are none of its places; -1: none. See `_Places`."""
    at = 0
    for k in range(ops.size):
        op = ops[k]
        if is_placed[op]:
            code = np.int64(0)
            for j in range(rows[op, 1]):
                code = code * num_qubits + np.int64(qubits[at + j])
            low, high = starts[2 * op], starts[2 * op + 1]
            end = high
            while low < high:
                middle = (low + high) >> 1
                if places[middle] < code:
                    low = middle + 1
                else:
                    high = middle
            if low == end or places[low] != code:
                return k
        at += rows[op, 1]
    return -1


def _qubits(circuit: Circuit, operation: int, last: int | None = None) -> str:
    """Qubits of an operation, or of all operations up to the `last` one."""
    arity = circuit.table.rows[:, 1][circuit.ops].astype(np.int64)
    start = int(arity[:operation].sum())
    end = int(arity[: (operation if last is None else last) + 1].sum())
    qubits = circuit.qubits[start:end].tolist()
    if last is not None:
        qubits = sorted(set(qubits))
    return f"qubit{'s' if len(qubits) != 1 else ''} {', '.join(map(str, qubits))}"
