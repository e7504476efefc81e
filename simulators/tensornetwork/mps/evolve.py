"""Evolution of a circuit's gates into a matrix product state."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from simulators.circuit.ir import Circuit
from simulators.control import RunControl
from simulators.tensornetwork.mps.gate_blocks import gate_blocks
from simulators.tensornetwork.mps.mps_state import MatrixProductState
from simulators.tensornetwork.mps.right_canonical import RightCanonicalChain

DTYPES = {"double": "complex128", "single": "complex64"}
LEAST_CUTOFF = {"complex128": 0.0, "complex64": 1e-12}  # below it lies rounding, and fills bonds
ROUNDING = 1e-12  # a norm that is off by less was not truncated


def site_order(num_qubits: int, order: tuple[int, ...] | None) -> tuple[int, ...]:
    """Site of each qubit; without an order, the highest qubit is at the first site, so that sites
    are sampled as the statevector engine reads its basis states."""
    return tuple(range(num_qubits - 1, -1, -1)) if order is None else order


def truncation_of(fidelity: float) -> float:
    """The loss of fidelity that a result reports."""
    lost = 1.0 - fidelity
    return lost if lost > ROUNDING else 0.0


def evolve(
    circuit: Circuit,
    params: NDArray[np.float64],
    order: tuple[int, ...] | None,
    *,
    bond: int,
    cutoff: float,
    dtype: str,
    control: RunControl,
) -> MatrixProductState:
    """The state after all gates; measurements are left out.

    `order`: site of each qubit, see `qubit_order`; `bond`: the largest bond kept; `cutoff`: the
    weight that may be cut off at a gate.
    """
    sites = site_order(circuit.num_qubits, order)
    blocks = gate_blocks(circuit, params, sites)
    cutoff = max(cutoff, LEAST_CUTOFF[dtype])
    chain = RightCanonicalChain(len(sites), bond=bond, cutoff=cutoff, dtype=dtype)
    for layer in blocks.layers:
        chain.apply_layer(layer, control)
    for site, gate in blocks.singles.items():
        chain.apply_single(site, gate)
    control.check()
    return MatrixProductState(
        tuple(chain.tensors), sites, truncation_of(chain.fidelity), blocks.phase
    )
