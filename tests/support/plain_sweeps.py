"""What a table of passes means, in plain numpy: the reference of planner and kernels."""

import numpy as np
from numpy.typing import NDArray

from simulators.statevector.planning import tables as s
from simulators.statevector.planning.tables import LANE_WIRES, LANES, SweepTable

Amplitudes = NDArray[np.complex128]


def run(plan: SweepTable, floats: NDArray[np.float64], state: Amplitudes) -> Amplitudes:
    """The state after all passes."""
    result = state.astype(np.complex128).copy()
    for number in range(len(plan.starts) - 1):
        _pass(plan, number, floats, result)
    return result


def _pass(plan: SweepTable, number: int, floats: NDArray[np.float64], state: Amplitudes) -> None:
    places = [int(wire) for wire in plan.places[number, : plan.width]]
    assert places[:LANE_WIRES] == list(range(LANE_WIRES))
    assert len(set(places)) == plan.width
    inside = sum(1 << wire for wire in places)
    offsets = np.zeros(1 << plan.width, np.int64)
    for j, wire in enumerate(places):
        offsets |= (np.arange(offsets.size) >> j & 1) << wire
    live = int(plan.live[number])
    begin, end = int(plan.starts[number]), int(plan.starts[number + 1])
    for base in range(1 << plan.num_wires):
        if base & inside:
            continue
        if base & ~live:
            assert not state[base | offsets].any(), "a tile that is not live holds something"
            continue
        tile = state[base | offsets].reshape(-1, LANES)  # [row, lane]
        for op in plan.ops[begin:end].tolist():
            tile = _apply(plan, op, floats, base, tile)
        state[base | offsets] = tile.reshape(-1)


def _apply(
    plan: SweepTable, op: list[int], floats: NDArray[np.float64], base: int, tile: Amplitudes
) -> Amplitudes:
    rows = np.arange(len(tile))
    kind = op[s.KIND]
    if kind == s.SWAP_LANE_ROW:
        at = rows[:, None] * LANES + np.arange(LANES)
        lane, row = op[s.A], op[s.B] + LANE_WIRES
        differ = (at >> lane ^ at >> row) & 1
        return tile.reshape(-1)[at ^ (differ << lane | differ << row)]
    if base & op[s.OUTER_MASK] != op[s.OUTER_VALUE]:
        return tile
    out = tile.copy()
    if kind == s.PERMUTE_ROWS:
        item = rows[rows & op[s.ROW_MASK] == op[s.ROW_VALUE]]
        value = item ^ op[s.ROW_VALUE] ^ op[s.ROW_OTHER]
        out[item], out[value] = tile[value], tile[item]
        return out
    fits = rows & op[s.ROW_MASK] == op[s.ROW_VALUE]
    if kind == s.PHASE:
        out[fits] *= _phases(plan, op, floats, base, len(tile))[fits]
        return out
    width = kind - (s.REAL if kind > s.REAL else s.DENSE)
    size = 1 << width
    entry = floats[op[s.AT] :]
    if kind > s.REAL:
        matrix = entry[: size * size].reshape(size, size).astype(np.complex128)
    else:
        pairs = entry[: 2 * size * size].reshape(size, size, 2)
        matrix = pairs[:, :, 0] + 1j * pairs[:, :, 1]
    bits = [op[s.A + k] for k in range(width)]
    targets = sum(1 << bit for bit in bits)
    assert not targets & op[s.ROW_MASK]
    for row in rows[fits & (rows & targets == 0)]:
        group = [row | sum((k >> j & 1) << bit for j, bit in enumerate(bits)) for k in range(size)]
        out[group] = matrix @ tile[group]
    return out


def _phases(
    plan: SweepTable, op: list[int], floats: NDArray[np.float64], base: int, rows: int
) -> Amplitudes:
    at = op[s.AT]
    table = floats[at : at + 2 * rows].reshape(rows, 2)
    factor = (table[:, 0] + 1j * table[:, 1])[:, None] * np.ones(LANES)
    at += 2 * rows
    crossing = [bit for bit in range(32) if op[s.CROSS] >> bit & 1]
    assert len(crossing) <= s.MOST_CROSS
    choice = sum((np.arange(rows) >> bit & 1) << k for k, bit in enumerate(crossing))
    lanes = floats[at : at + (2 * LANES << len(crossing))].reshape(-1, 2, LANES)
    factor *= (lanes[:, 0] + 1j * lanes[:, 1])[choice]
    at += 2 * LANES << len(crossing)
    index = np.arange(rows * LANES).reshape(rows, LANES)
    for k in range(op[s.TERMS]):
        mask, place = plan.terms[op[s.FIRST_TERM] + k].tolist()
        if base & mask == mask:
            value = complex(floats[at + 2 * k], floats[at + 2 * k + 1])
            result = np.ones_like(index, bool) if place == s.SCALAR else index >> place & 1 == 1
            factor[result] *= value
    return factor
