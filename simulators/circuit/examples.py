"""Small circuits that use all kinds of operations, for warm-up, health checks and examples."""

from __future__ import annotations

import numpy as np

from simulators.circuit import tokens as tk
from simulators.circuit.ir import Circuit, CircuitData

_ROWS = {
    "h": (1, 0, 0),
    "cx": (2, 0, 0),
    "x": (1, 0, 0),
    "measure": (1, 1, 0),
    "reset": (1, 0, 0),
    "if": (0, 0, 0),
    "end": (0, 0, 0),
}


def _circuit(
    text: str, conditions: tuple[tuple[int, int, int], ...] = (), width: int = 2
) -> Circuit:
    """A circuit on `width` qubits and clbits from words such as `cx 0 1` separated by commas."""
    names = tuple(_ROWS)
    ops: list[int] = []
    qubits: list[int] = []
    clbits: list[int] = []
    for part in text.split(","):
        name, *operands = part.split()
        ops.append(names.index(name))
        count = _ROWS[name][0]
        qubits += [int(number) for number in operands[:count]]
        clbits += [int(number) for number in operands[count:]]
    return CircuitData(
        width,
        width,
        (("c", width),),
        names,
        np.array(list(_ROWS.values()), np.uint16).tobytes(),
        np.array(ops, np.uint16).tobytes(),
        np.array(qubits, np.uint16).tobytes(),
        np.array(clbits, np.uint16).tobytes(),
        b"",
        conditions=np.array(conditions, np.int32).tobytes(),
    ).circuit()


def bell() -> Circuit:
    """A Bell pair, both qubits measured: outcomes 0 and 3, half each."""
    return _circuit("h 0, cx 0 1, measure 0 0, measure 1 1")


def ghz(num_qubits: int) -> Circuit:
    """A GHZ state, all qubits measured: outcomes 0 and 2**num_qubits - 1, half each."""
    pairs = [f"cx {k} {k + 1}" for k in range(num_qubits - 1)]
    reads = [f"measure {k} {k}" for k in range(num_qubits)]
    return _circuit(", ".join(["h 0", *pairs, *reads]), width=num_qubits)


def feed_forward() -> Circuit:
    """Measure, reset, and flip the other qubit after outcome 1: outcomes 0 and 3, half each."""
    condition = ((tk.CLBIT, 0, 0), (tk.END, 0, 0))
    return _circuit("h 0, measure 0 0, reset 0, if, x 1, end, h 0, measure 1 1", condition)
