"""Operations and noise that act under a condition."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from simulators.circuit.gates import END_BLOCK, IF
from simulators.circuit.ir import Circuit
from simulators.circuit.noise import AFTER_OP, NoiseProgram


def branch_depth(circuit: Circuit) -> NDArray[np.int64]:
    """Number of `if` blocks around each operation, int64 [operations]."""
    codes = circuit.table.rows[circuit.ops, 0]
    return np.cumsum((codes == IF).astype(np.int64) - (codes == END_BLOCK))


def has_conditional_noise(circuit: Circuit, noise: NoiseProgram) -> bool:
    """Return whether a channel acts after an operation inside an `if` block."""
    after = noise.locations[:, AFTER_OP]
    return bool(branch_depth(circuit)[after[after >= 0]].any())
