"""Evolution of a circuit's gates into a matrix product state, by quimb.

Gates on the same one or two qubits are multiplied first: each call of the library costs about a
millisecond. quimb is imported without its numba functions: they compile for most of a minute on a
new machine, and spend their time in LAPACK either way.
"""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray

from simulators.circuit.ir import Circuit
from simulators.circuit.operations import matrix, operations
from simulators.control import RunControl
from simulators.execution import rng  # noqa: F401  # our kernels first: they are to be compiled
from simulators.tensornetwork.gate_fusion import GateFusion, Matrix
from simulators.tensornetwork.mps_state import MatrixProductState

numba.config.DISABLE_JIT = 1
try:
    from quimb.tensor import CircuitMPS
finally:
    numba.config.DISABLE_JIT = 0

__all__ = ["CircuitMPS"]


LEAST_CUTOFF = {"complex128": 0.0, "complex64": 1e-12}  # below it lies rounding, and fills bonds
ROUNDING = 1e-12  # a norm that is off by less was not truncated


def evolve(
    circuit: Circuit,
    params: NDArray[np.float64],
    *,
    bond: int,
    cutoff: float,
    dtype: str,
    control: RunControl,
) -> MatrixProductState:
    """The state after all gates; measurements are left out.

    `bond`: the largest bond kept; `cutoff`: the weight that may be cut off at a gate.
    """
    cutoff = max(cutoff, LEAST_CUTOFF[dtype])
    library = CircuitMPS(max(1, circuit.num_qubits), max_bond=bond, cutoff=cutoff, dtype=dtype)

    def apply(qubits: tuple[int, ...], gate: Matrix) -> None:
        shaped = gate.astype(dtype).reshape((2,) * (2 * len(qubits)))
        library.apply_gate_raw(shaped, list(qubits[::-1]))  # the highest bit comes first

    fused = GateFusion(apply)
    phase = 1.0 + 0.0j
    for operation in operations(circuit, params):
        control.check()
        if not operation.is_gate:
            continue
        found = matrix(circuit, operation)
        if operation.qubits:
            fused.take(operation.qubits, found)
        else:
            phase *= complex(found[0, 0])
    if not circuit.num_qubits:
        return MatrixProductState((), 0.0, phase)
    fused.flush()
    lost = float(library.error_estimate())
    truncation = lost if lost > ROUNDING else 0.0
    return MatrixProductState(_tensors(library), truncation, phase)


def warm_up() -> None:
    """Load what the library loads when first used: splits of neighbours, swaps, wide gates."""
    library = CircuitMPS(4, max_bond=4, cutoff=1e-10)
    for qubits in ((0, 1), (0, 3), (0, 1, 3)):
        size = 2 ** len(qubits)
        library.apply_gate_raw(np.eye(size).reshape((2,) * (2 * len(qubits))), list(qubits))
    library.error_estimate()


def _tensors(library: CircuitMPS) -> tuple[Matrix, ...]:
    """quimb's tensors as plain arrays, all but the last left-canonical."""
    state = library.psi
    last = state.L - 1
    state.canonicalize_(last)
    found = []
    for site in range(state.L):
        left = [state.bond(site - 1, site)] if site else []
        right = [state.bond(site, site + 1)] if site < last else []
        tensor = state[site]
        array = tensor.to_dense(left, [state.site_ind(site)], right)
        found.append(np.ascontiguousarray(array.reshape(-1, 2, array.shape[-1] if right else 1)))
    return tuple(found)
