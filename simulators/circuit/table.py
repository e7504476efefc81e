"""The table of operation names of a circuit, resolved once for names that come again and again.

Most circuits of a flood share a handful of tables, so resolving names costs one dictionary look-up.
"""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import NDArray

from simulators.circuit.gates import ANY, GATES, MAX_UNITARY_QUBITS, OTHERS, UNITARY, UNKNOWN

MAX_NESTING = 100  # of blocks
FINDINGS = 14  # numbers that `survey.bounds` reports
FOUND = FINDINGS + MAX_NESTING  # what it needs to work in
FOUND_WIDE = FOUND + 65_536  # the same for a table with operations on more than 8 qubits

_KEPT = 1024  # tables kept; the cache is emptied when full, so a hostile client cannot grow it
_KEPT_ROWS = 64  # a larger table is not kept

_cache: dict[tuple[tuple[str, ...], bytes], Table] = {}


class Table(msgspec.Struct, frozen=True, eq=False):
    """Names with their codes and arities; `problem` says what is wrong with it, or is empty."""

    names: tuple[str, ...]
    rows: NDArray[np.int64]  # [names, 4]: code (UNKNOWN: no such), qubits, clbits, parameters
    matrix: NDArray[np.int64]  # [names]: which matrix of the circuit a row stands for, or -1
    problem: str
    found_size: int  # what `survey.bounds` needs for its findings


def table_of(names: tuple[str, ...], arities: bytes) -> Table:
    """The table of `names` and their `arities` (uint16 [names, 3]); never raises."""
    key = (names, arities)
    found = _cache.get(key)
    if found is None:
        found = _build(names, arities)
        if len(names) <= _KEPT_ROWS:
            if len(_cache) >= _KEPT:
                _cache.clear()
            _cache[key] = found
    return found


def _build(names: tuple[str, ...], arities: bytes) -> Table:
    if len(arities) != 6 * len(names):
        text = f"{len(names)} operation names with {len(arities)} bytes of arities, not 6 each"
        return Table(names, np.zeros((0, 4), np.int64), np.zeros(0, np.int64), text, FOUND)
    rows = np.empty((len(names), 4), np.int64)
    rows[:, 1:] = np.frombuffer(arities, np.uint16).reshape(-1, 3)
    problem = ""
    for row, name in zip(rows, names, strict=True):
        row[0], fault = _resolve(name, int(row[1]), int(row[2]), int(row[3]))
        problem = problem or fault
    widest = int(rows[:, 1].max(initial=0))
    own = rows[:, 0] == UNITARY
    matrix = np.where(own, np.cumsum(own) - 1, -1)
    return Table(names, rows, matrix, problem, FOUND_WIDE if widest > 8 else FOUND)


def _resolve(name: str, qubits: int, clbits: int, params: int) -> tuple[int, str]:
    gate = GATES.get(name)
    if gate is not None:
        code, wanted = gate.code, (gate.qubits, 0, gate.params)
    elif name in OTHERS:
        code, wanted = OTHERS[name][0], OTHERS[name][1:]
    else:
        return UNKNOWN, f"unknown gate {name[:64]!r}"
    least = 1 if code == UNITARY or (gate is not None and gate.qubits == ANY) else 0
    if code == UNITARY and qubits > MAX_UNITARY_QUBITS:
        return code, f"a matrix on {qubits} qubits; the limit is {MAX_UNITARY_QUBITS}"
    fits = qubits == wanted[0] or (wanted[0] == ANY and qubits >= least)
    if fits and (clbits, params) == wanted[1:]:
        return code, ""
    count = "any number of" if wanted[0] == ANY else str(wanted[0])
    return code, (
        f"{name!r} takes {count} qubits, {wanted[1]} clbits and {wanted[2]} parameters,"
        f" not {qubits}, {clbits} and {params}"
    )
