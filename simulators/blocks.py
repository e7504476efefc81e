"""Seeds for engines with a generator of their own: they run fixed blocks of shots.

Invariant: shot s belongs to block s // size whatever the number of shots, so fewer shots are the
first of more; a block's seed is a function of (seed, binding, block) alone. The size is
BLOCK_SHOTS, or less where the circuit alone asks for it.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from simulators.control import Control

BLOCK_SHOTS = 1024
_DOMAIN = 1  # third word of the counter: no draw of the house's own has it
_BITS = 62  # such libraries take signed 64-bit seeds, and count up from them


def block_seed(seed: int, binding: int, block: int) -> int:
    """The seed of one block, by Philox 4x64-10 with key (seed, binding)."""
    key = np.array([seed, binding], np.uint64)  # a list would become doubles
    bits = np.random.Philox(key=key, counter=[0, block, _DOMAIN, 0])
    return int(bits.random_raw()) >> (64 - _BITS)


def blocks(
    shots: int, seed: int, binding: int, control: Control, size: int = BLOCK_SHOTS
) -> Iterator[tuple[int, int]]:
    """(seed, shots wanted) of each block, after a look at the control flag."""
    for block, first in enumerate(range(0, shots, size)):
        control.check()
        yield block_seed(seed, binding, block), min(size, shots - first)
