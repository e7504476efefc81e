"""Adjoint differentiation: gradients of expectation values by all parameters in one reverse pass.

With b = O a for the final state a, both states are taken back gate by gate; at a gate with a free
parameter the derivative is an inner product of the two (Jones and Gacon 2020). So two states are
held, whatever the number of parameters. With U the 2x2 matrix of a factor, the derivative of <O> is

    2 Im <b| G |a>,   G = i (dU/dparameter) U^-1, which is Hermitian.

Let p, q, r and s be conj(b0) a0, conj(b1) a1, conj(b0) a1 and conj(b1) a0, summed over all pairs
(0, 1) that the factor acts on. Then the four sums Im p, Im q, Im (r + s), Re (r - s) suffice for
any G; `weights` combines them.
"""

from __future__ import annotations

import cmath
import math

import msgspec
import numpy as np
from numpy.typing import NDArray

from simulators.circuit import gates
from simulators.circuit.ir import Circuit
from simulators.compiler.simd import LANES
from simulators.engine import PauliSum
from simulators.execution import outputs
from simulators.statevector.backend.gate_list import place_all
from simulators.statevector.backend.matrix import PlacedMatrix, by_columns, multiply, place
from simulators.statevector.gradient import reverse_kernel
from simulators.statevector.small.gate_kernels import COUNTS
from simulators.statevector.state import BlockExecutor, State

Matrix = NDArray[np.complex128]


def weights(
    piece: gates.TwoLevelFactor, params: tuple[float, ...], which: int
) -> NDArray[np.float64]:
    """Weights of the four sums for parameter number `which` of the operation; all 0 if the piece
    does not depend on it."""
    if piece.source == gates.FIXED:
        return np.zeros(4)
    if piece.source == gates.P_GATE:
        return np.array([-2.0 * piece.scale, 0.0, 0.0, 0.0])
    unitary = np.array(gates.matrix_of(piece, params)).reshape(2, 2)
    g = 1j * _derivative(piece, params, which) @ unitary.conj().T
    return 2.0 * np.array([g[0, 0].real, g[1, 1].real, g[0, 1].real, g[0, 1].imag])


def _derivative(piece: gates.TwoLevelFactor, params: tuple[float, ...], which: int) -> Matrix:
    """Derivative of `gates.matrix_of`, element by element."""
    half = 0.5 * piece.scale
    if piece.source == gates.U2:
        theta, phi, lam, gamma, names = 0.5 * math.pi, params[0], params[1], 0.0, "pl"
    elif piece.source in (gates.ROTATION, gates.RY, gates.XY_ROTATION):
        tilt = {gates.ROTATION: 0.0, gates.RY: 0.5 * math.pi}.get(piece.source)
        if tilt is None:
            tilt = params[1]
        theta, phi, gamma, names = piece.scale * params[0], tilt - 0.5 * math.pi, 0.0, "tx"
        lam = -phi
    else:
        theta, phi, lam, names = piece.scale * params[0], params[1], params[2], "tplg"
        gamma = params[3] if piece.source == gates.CU else 0.0
    c, s = math.cos(0.5 * theta), math.sin(0.5 * theta)
    turn, up, down = cmath.exp(1j * gamma), cmath.exp(1j * phi), cmath.exp(1j * lam)
    by = {
        "t": [-half * s, -half * c * down, half * c * up, -half * s * up * down],
        "p": [0, 0, 1j * s * up, 1j * c * up * down],
        "l": [0, -1j * s * down, 0, 1j * c * up * down],
        "x": [0, 1j * s * down, 1j * s * up, 0],  # phi = -lam
        "g": [1j * c, -1j * s * down, 1j * s * up, 1j * c * up * down],
    }
    return turn * np.array(by[names[which]]).reshape(2, 2)


GROUPS = 256  # groups of tiles with separate sums
_ADJOINT = np.array([0, 1, 4, 5, 2, 3, 6, 7])  # source of each number of the adjoint matrix
_CONJUGATE = np.array([1.0, -1.0] * 4)
_BY_CODE: dict[int, gates.Gate] = {gate.code: gate for gate in gates.GATES.values()}

Weights = NDArray[np.float64]


class ReverseSegment(msgspec.Struct, frozen=True, eq=False):
    """Steps of a range of gates backwards, in passes, and the terms of its derivatives. shares[k]
    is (pass, column, slot, weights): of the sums in that column of that pass."""

    starts: NDArray[np.int64]
    tiles: NDArray[np.uint64]
    placed: NDArray[np.uint64]
    floats: NDArray[np.float64]
    columns: NDArray[np.int64]
    counts: list[int]  # columns of each pass
    shares: list[tuple[int, int, int, Weights]]


class AdjointPlan(msgspec.Struct, frozen=True, eq=False):
    """Reverse pass of a circuit without branching, with its parameters."""

    parts: list[ReverseSegment | PlacedMatrix]
    num_slots: int

    @property
    def passes(self) -> int:
        """Passes over both states for one observable, with one more for its application."""
        return 1 + sum(
            1 if isinstance(part, PlacedMatrix) else len(part.tiles) for part in self.parts
        )


def plan_adjoint(
    circuit: Circuit, params: NDArray[np.float64], tile_qubits: int = 0
) -> AdjointPlan:
    """Plan the reverse pass; measurements at the end and other operations without effect are left
    out. `tile_qubits`: of a backend whose tiles are smaller than the processor's; 0: the
    processor's."""
    rows = circuit.table.rows
    codes = rows[circuit.ops, 0]
    qubits = np.concatenate(([0], np.cumsum(rows[circuit.ops, 1])))
    places = np.concatenate(([0], np.cumsum(rows[circuit.ops, 3])))
    free: dict[int, list[tuple[int, int]]] = {}  # by operation: number among its parameters, slot
    at, slots = circuit.slots[0::2], circuit.slots[1::2].tolist()
    ops = np.searchsorted(places[:-1], at, side="right") - 1
    for op, place_, slot in zip(ops.tolist(), at.tolist(), slots, strict=True):
        free.setdefault(op, []).append((place_ - int(places[op]), slot))
    parts: list[ReverseSegment | PlacedMatrix] = []
    first = 0
    for k in [*np.flatnonzero(codes == gates.UNITARY).tolist(), circuit.ops.size]:
        if COUNTS[codes[first:k]].any():
            parts.append(_stretch(circuit, params, first, k, qubits, places, free, tile_qubits))
        if k < circuit.ops.size:
            row = int(circuit.ops[k])
            width = int(rows[row, 1])
            matrix = np.frombuffer(circuit.matrices[int(circuit.table.matrix[row])], np.complex128)
            inverse = matrix.reshape(1 << width, -1).conj().T.copy()
            wires = circuit.qubits[int(qubits[k]) : int(qubits[k]) + width].tolist()
            parts.append(place(by_columns(inverse.tobytes(), width), wires))
        first = k + 1
    return AdjointPlan(parts[::-1], circuit.num_slots)


def gradient(
    sweeper: BlockExecutor, way: AdjointPlan, state: State, other: State, observable: PauliSum
) -> NDArray[np.float64]:
    """Derivatives of the observable's expectation value by each slot: float64 [slots]. `state`: the
    final one; it is evolved back to the beginning. `other`: memory for a second state. Raises
    Stopped."""
    result = np.zeros(way.num_slots)
    strings = outputs.terms((observable,), state.num_qubits)
    reverse_kernel.apply(sweeper, state, other, strings, observable.coefficients)
    sweeper.passed(1)
    for part in way.parts:
        if isinstance(part, PlacedMatrix):
            multiply(sweeper, state, part)
            multiply(sweeper, other, part)
            sweeper.check()
            sweeper.passed(1)
            continue
        sums = [_taken_back(sweeper, part, p, state, other) for p in range(len(part.tiles))]
        for p, column, slot, weighted in part.shares:
            result[slot] += weighted @ sums[p][column]
    return result


def _taken_back(
    sweeper: BlockExecutor, part: ReverseSegment, number: int, state: State, other: State
) -> NDArray[np.float64]:
    """Run one pass over both states; returns the sums of its columns: float64 [columns, 4]."""
    unit = min(reverse_kernel.TILE_QUBITS, state.num_qubits)
    tiles = 1 << (state.num_qubits - unit)
    groups = min(GROUPS, tiles)
    sums = np.empty((groups, part.counts[number], 4))
    size = 4 * max(1 << unit, LANES) + LANES

    pass_ = reverse_kernel.ReversePass(
        part.tiles[number], int(part.starts[number]), int(part.starts[number + 1]), part.placed,
        part.floats, part.columns,
    )  # fmt: skip

    def work(first: int, last: int, thread: int) -> None:
        reverse_kernel.apply_inverse(
            *state.arrays, *other.arrays, state.num_qubits, pass_, tiles // groups, first, last,
            sweeper.flag, sweeper.scratch(thread, size), sums,
        )  # fmt: skip

    sweeper.thread_pool.run(work, groups, max(1, groups // (4 * sweeper.thread_pool.size)))
    sweeper.passed(1)
    return np.cumsum(sums, axis=0)[-1]  # type: ignore[no-any-return]


def _stretch(
    circuit: Circuit,
    params: NDArray[np.float64],
    first: int,
    last: int,
    qubits: NDArray[np.int64],
    places: NDArray[np.int64],
    free: dict[int, list[tuple[int, int]]],
    tile_qubits: int,
) -> ReverseSegment:
    """Reverse segment of operations first .. last - 1; `qubits`, `places`: indices of their first
    qubits and parameters."""
    rows = circuit.table.rows
    codes = rows[circuit.ops[first:last], 0]
    begins = np.concatenate(([0], np.cumsum(COUNTS[codes])))
    steps = int(begins[-1])
    ints, floats = np.empty((steps, 4), np.uint64), np.zeros((steps, 8))
    place_all(
        rows, circuit.ops, circuit.qubits, params, first, last, int(qubits[first]),
        int(places[first]), ints, floats,
    )  # fmt: skip
    ints = ints[::-1].copy()
    floats = np.ascontiguousarray(floats[::-1, _ADJOINT] * _CONJUGATE)
    weighed: dict[int, list[tuple[int, Weights]]] = {}  # by step, counted backwards
    for op in range(first, last):
        if op in free:
            gate, at = _BY_CODE.get(int(codes[op - first])), int(places[op])
            own = tuple(params[at : int(places[op + 1])].tolist())
            for k, piece in enumerate(() if gate is None else gate.pieces):
                step = steps - 1 - (int(begins[op - first]) + k)
                weighed[step] = [(slot, weights(piece, own, which)) for which, slot in free[op]]
    num_qubits = circuit.num_qubits
    room = min(tile_qubits or reverse_kernel.TILE_QUBITS, num_qubits)
    scratch, starts = np.empty(steps + 1, np.int64), np.empty(steps + 1, np.int64)
    tiles, placed = np.empty((steps, 1), np.uint64), np.empty((steps, 7), np.uint64)
    low = (1 << reverse_kernel.LOW_QUBITS) - 1
    passes = reverse_kernel.arrange(ints, num_qubits, room, low, scratch, starts, tiles, placed)
    columns = np.full(steps, -1)
    counts: list[int] = []
    shares: list[tuple[int, int, int, Weights]] = []
    for p in range(passes):
        column = 0
        for row in range(int(starts[p]), int(starts[p + 1])):
            parts = weighed.get(int(placed[row, reverse_kernel.STEP]))
            if parts is not None:
                columns[row] = column
                shares += [(p, column, slot, weighted) for slot, weighted in parts]
                column += 1
        counts.append(column)
    return ReverseSegment(
        starts[: passes + 1].copy(), tiles[:passes, 0].copy(), placed, floats, columns, counts,
        shares,
    )  # fmt: skip
