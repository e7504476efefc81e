"""Blocks of gates for a chain of tensors, in layers of blocks that share no site.

Gates on one qubit wait for the next gate on a pair, gates on the same pair are multiplied, and
gates between distant sites become swaps of neighbours, there and back. Blocks of one layer act on
different sites, so that their tensors can be split together.
"""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from simulators.circuit.ir import Circuit
from simulators.circuit.operations import with_matrices

Matrix = NDArray[np.complex128]

SWAP: Matrix = np.eye(4, dtype=complex)[[0, 2, 1, 3]]


class Block(msgspec.Struct, gc=False):
    """Matrix [2**count, 2**count] on neighbouring sites; the first site is the highest bit."""

    first: int
    count: int
    layer: int
    matrix: Matrix


class GateBlocks(msgspec.Struct, frozen=True, gc=False):
    """Gates of a circuit: all blocks, layer by layer, then the remaining gates on single sites."""

    layers: list[list[Block]]
    singles: dict[int, Matrix]  # by site
    phase: complex


def gate_blocks(
    circuit: Circuit, params: NDArray[np.float64], sites: tuple[int, ...]
) -> GateBlocks:
    """Blocks of all gates of a circuit; `sites`: site of each qubit. Operations that are no gates
    are ignored."""
    builder = _Builder(len(sites))
    phase = 1.0 + 0.0j
    for operation, gate in with_matrices(circuit, params):
        if gate is None:
            continue
        if not operation.qubits:
            phase *= complex(gate[0, 0])
        elif len(operation.qubits) == 1:
            builder.single(sites[operation.qubits[0]], gate)
        else:
            builder.gate([sites[qubit] for qubit in operation.qubits], gate)
    return GateBlocks(builder.layers(), builder.singles, phase)


def on_neighbours(sites: list[int], gate: NDArray[Any]) -> tuple[list[int], Block]:
    """First sites of the swaps with the next site that bring these sites together, and the gate as
    a block on them. `gate`: its first qubit is the lowest bit."""
    count, order = len(sites), sorted(sites)
    first = order[0]
    swaps = [at for k, site in enumerate(order) for at in range(site - 1, first + k - 1, -1)]
    axes = [count - 1 - sites.index(site) for site in order]  # of each site's qubit
    shaped = gate.reshape((2,) * (2 * count)).transpose(*axes, *(count + a for a in axes))
    return swaps, Block(first, count, 0, shaped.reshape(1 << count, 1 << count))


class _Builder:
    """Blocks in the order of their first gates; disjoint blocks commute."""

    def __init__(self, num_sites: int) -> None:
        self.singles: dict[int, Matrix] = {}
        self._blocks: list[Block] = []
        self._open: list[Block | None] = [None] * num_sites  # the last block of each site
        self._layer = [0] * num_sites  # first free layer of each site

    def single(self, site: int, gate: Matrix) -> None:
        """Add a gate [2, 2], which waits for the next block."""
        before = self.singles.get(site)
        self.singles[site] = gate if before is None else gate @ before

    def gate(self, sites: list[int], gate: Matrix) -> None:
        """Add a gate whose qubits are at these sites, the first one being the lowest bit."""
        swaps, block = on_neighbours(sites, gate)
        for site in swaps:
            self._pair(site, SWAP)
        if block.count == 2:
            self._pair(block.first, block.matrix)
        else:
            self._block(block.first, block.count, block.matrix)
        for site in reversed(swaps):
            self._pair(site, SWAP)

    def _pair(self, site: int, gate: Matrix) -> None:
        """Add a gate on a site and the next one."""
        high, low = self.singles.pop(site, None), self.singles.pop(site + 1, None)
        if high is not None or low is not None:
            high = _ONE if high is None else high
            low = _ONE if low is None else low
            both = (high[:, None, :, None] * low[None, :, None, :]).reshape(4, 4)
            gate = gate @ both
        before = self._open[site]
        if before is not None and before is self._open[site + 1] and before.count == 2:
            before.matrix = gate @ before.matrix
            return
        self._append(site, 2, gate)

    def _block(self, first: int, count: int, gate: Matrix) -> None:
        """Add a gate on more than two neighbours."""
        for k in range(count):
            single = self.singles.pop(first + k, None)
            if single is not None:
                shaped = gate.reshape((1 << count) << k, 2, -1)
                gate = np.einsum("apb,pq->aqb", shaped, single).reshape(1 << count, 1 << count)
        self._append(first, count, gate)

    def _append(self, first: int, count: int, gate: Matrix) -> None:
        layer = max(self._layer[first : first + count])
        block = Block(first, count, layer, gate)
        self._blocks.append(block)
        for site in range(first, first + count):
            self._open[site] = block
            self._layer[site] = layer + 1

    def layers(self) -> list[list[Block]]:
        """Blocks by layer."""
        results: list[list[Block]] = [[] for _ in range(max(self._layer, default=0))]
        for block in self._blocks:
            results[block.layer].append(block)
        return results


_ONE: Matrix = np.eye(2, dtype=complex)
