"""Evolution of a circuit's gates into a matrix product state."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from simulators.chain.gate_blocks import gate_blocks
from simulators.chain.product_state import MatrixProductState, truncation_of
from simulators.chain.right_canonical import RightCanonicalChain
from simulators.circuit.ir import Circuit
from simulators.control import RunControl
from simulators.tensornetwork.mps.limits import ChainLimits


def site_order(num_qubits: int, order: tuple[int, ...] | None) -> tuple[int, ...]:
    """Site of each qubit; without an order, the highest qubit is at the first site, so that sites
    are sampled in the order of the statevector engine."""
    return tuple(range(num_qubits - 1, -1, -1)) if order is None else order


def evolve(
    circuit: Circuit,
    params: NDArray[np.float64],
    order: tuple[int, ...] | None,
    limits: ChainLimits,
    control: RunControl,
) -> MatrixProductState:
    """State after all gates; measurements are ignored. Raises TruncatedState, OutOfMemory.

    `order`: site of each qubit, see `qubit_order`.
    """
    sites = site_order(circuit.num_qubits, order)
    blocks = gate_blocks(circuit, params, sites)
    chain = RightCanonicalChain(
        len(sites), bond=limits.bond, cutoff=limits.cutoff, dtype=limits.dtype
    )
    for number, layer in enumerate(blocks.layers):
        chain.apply_layer(layer, control)
        limits.check_size(chain.size)
        limits.check_weight(
            1.0 - chain.fidelity, f" in {(number + 1) / len(blocks.layers):.0%} of its gates"
        )
    for site, gate in blocks.singles.items():
        chain.apply_single(site, gate)
    control.check()
    return MatrixProductState(
        tuple(chain.tensors), sites, truncation_of(chain.fidelity), blocks.phase
    )
