"""Check that a device executes a circuit as written: gates, coupling, width, dynamic circuits.

Pure and on arrays: it takes the time of a few passes over the operations.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

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


class DeviceLimits(msgspec.Struct, frozen=True, eq=False):
    """Gates and couplings that a device executes. `coupling`: int64 [k], sorted: first qubit *
    num_qubits + second."""

    name: str
    num_qubits: int
    gates: Mapping[str, int]  # native: name -> qubits
    coupling: NDArray[np.int64]
    all_to_all: bool
    dynamic: bool

    @staticmethod
    def of(
        name: str,
        num_qubits: int,
        gates: Mapping[str, int],
        coupling: Iterable[tuple[int, int]],
        *,
        all_to_all: bool,
        dynamic: bool,
    ) -> DeviceLimits:
        """Make limits from `coupling`: pairs in the qubit order of two-qubit gates."""
        pairs = np.array(list(coupling), np.int64).reshape(-1, 2)
        codes = np.unique(pairs[:, 0] * num_qubits + pairs[:, 1])
        return DeviceLimits(name, num_qubits, dict(gates), codes, all_to_all, dynamic)


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
            listed = ", ".join(native[:_SHOWN]) + (", ..." if len(native) > _SHOWN else "")
            return (
                f"operation {first} ({name} on {_qubits(circuit, first)}) is no native gate"
                f" of device {device.name}",
                f"native gates: {listed}; compile='auto' compiles for them",
            )
    if device.all_to_all:
        return "", ""
    return _uncoupled(circuit, device)


@functools.lru_cache(maxsize=1024)
def _gate_rows(table: Table, device: DeviceLimits) -> tuple[tuple[int, ...], NDArray[np.uint8]]:
    """Rows of a table that a device does not execute, and a mask [rows] of its two-qubit gates."""
    foreign = []
    for row, name in enumerate(table.names):
        if name in ALWAYS or name in _MARKERS or (name in DYNAMIC and device.dynamic):
            continue
        if device.gates.get(name) != int(table.rows[row, 1]):
            foreign.append(row)
    pairs = np.array([device.gates.get(name) == 2 for name in table.names], np.uint8)
    return tuple(foreign), pairs


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


def _uncoupled(circuit: Circuit, device: DeviceLimits) -> tuple[str, str]:
    """Refusal for the first gate on two qubits that are not coupled in that order."""
    _, pairs = _gate_rows(circuit.table, device)
    operation = _first_uncoupled(
        circuit.table.rows, circuit.ops, circuit.qubits, pairs, device.coupling, device.num_qubits
    )
    if operation < 0:
        return "", ""
    start = int(circuit.table.rows[:, 1][circuit.ops[:operation]].sum())
    a, b = circuit.qubits[start : start + 2].tolist()
    name = circuit.table.names[int(circuit.ops[operation])]
    backwards = bool((device.coupling == b * device.num_qubits + a).any())
    order = " in this order" if backwards else ""
    return (
        f"operation {operation} ({name} on qubits {a}, {b}): device {device.name} does not couple"
        f" these{order}",
        "compile='auto' inserts the swaps that this needs",
    )


@kernel("NAMES U16 U16 U8 I64 INT -> INT", group="attachment")
def _first_uncoupled(rows, ops, qubits, pairs, coupling, num_qubits):  # type: ignore[no-untyped-def]
    """Return the first operation on two qubits that are not coupled in that order; -1: none.
    `pairs`: 1 for each row of a two-qubit gate; `coupling`: see `DeviceLimits`."""
    at = 0
    for k in range(ops.size):
        op = ops[k]
        if pairs[op]:
            code = np.int64(qubits[at]) * num_qubits + np.int64(qubits[at + 1])
            low, high = 0, coupling.size
            while low < high:
                middle = (low + high) >> 1
                if coupling[middle] < code:
                    low = middle + 1
                else:
                    high = middle
            if low == coupling.size or coupling[low] != code:
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
