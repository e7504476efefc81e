"""Merging of phase gadgets: CX, phases on the target, CX becomes one parity phase.

Many circuits write rzz this way. As a parity phase it moves no amplitude, and any number of them
merges into one diagonal operation.
"""

from __future__ import annotations

from simulators.compiler.kernel import I64, INT, INTS2, device_function, kernel
from simulators.statevector.planning import fusion as f
from simulators.statevector.planning.real_rotations import P_MASK, P_PARITY

_MOST_APART = 256  # largest number of elements between the two CX


@device_function
def _is_cx(elements, e):  # type: ignore[no-untyped-def]
    moves, looks = elements[e, f.TARGET_MASK], elements[e, f.DIAGONAL_MASK]
    is_single = moves & (moves - 1) == 0 and looks != 0 and looks & (looks - 1) == 0
    return (
        elements[e, f.KIND] == f.PERMUTING and is_single and elements[e, f.CONTROL_VALUE] == looks
    )


@kernel(INTS2, INT, INTS2, I64, I64, returns=INT, group="wide")
def merge_phase_gadgets(elements, size, pieces, opened, moved):  # type: ignore[no-untyped-def]
    """Remove such CX; returns the number of remaining elements. `opened`, `moved`: scratch, int64
    [64]: for each wire, the CX on it after which only phases on it alone followed, and the last
    element that moves amplitude along it."""
    for wire in range(64):
        opened[wire] = moved[wire] = -1
    for e in range(size):
        moves, looks = elements[e, f.TARGET_MASK], elements[e, f.DIAGONAL_MASK]
        cx = _is_cx(elements, e)
        alone = elements[e, f.KIND] == f.DIAGONAL and looks & (looks - 1) == 0
        mask = moves | looks
        before = -1
        wire = 0
        while mask >> wire:
            bit = mask >> wire & 1
            if bit and cx and moves >> wire & 1:
                before = opened[wire]
                opened[wire] = e
            elif bit and not alone:
                opened[wire] = -1
            wire += 1
        last = -1
        wire = 0
        while mask >> wire:
            if looks >> wire & 1:
                last = max(last, moved[wire])
            if moves >> wire & 1:
                moved[wire] = e
            wire += 1
        if before <= last or elements[before, f.DIAGONAL_MASK] != looks or e - before > _MOST_APART:
            continue
        elements[before, f.KIND] = elements[e, f.KIND] = -1
        wire = 0
        while not moves >> wire & 1:
            wire += 1
        opened[wire] = -1
        for d in range(before + 1, e):
            if elements[d, f.KIND] == f.DIAGONAL and elements[d, f.DIAGONAL_MASK] == moves:
                elements[d, f.DIAGONAL_MASK] = mask
                elements[d, f.CONTROL_MASK] = elements[d, f.CONTROL_VALUE] = 0
                for p in range(elements[d, f.FIRST], elements[d, f.LAST]):
                    pieces[p, P_MASK] = mask
                    pieces[p, P_PARITY] = 1
    kept = 0
    for e in range(size):
        if elements[e, f.KIND] >= 0:
            for c in range(f.COLUMNS):
                elements[kept, c] = elements[e, c]
            kept += 1
    return kept
