"""Trials of a matrix product state: how far the bonds of a circuit really grow.

The bound of the profile counts gates across a cut; repeated layers and small angles stay far below
it. A trial applies the gates in single precision, without measurements and noise, and counts
operations: it ends at a number of them, of bytes, or at a bond, never by a clock. Free parameters
take fixed values that are multiples of nothing. A pure function of circuit and limits, up to the
rounding of LAPACK.
"""

from __future__ import annotations

import math

import msgspec
import numpy as np
from numpy.typing import NDArray

from simulators.chain.gate_blocks import Block, gate_blocks
from simulators.chain.right_canonical import RightCanonicalChain
from simulators.circuit.analysis.profile import ChainTrial
from simulators.circuit.analysis.qubit_order import chain_order
from simulators.circuit.ir import Circuit
from simulators.control import RunControl

_CUTOFF = 1e-12  # weight; below it lies rounding in single precision
_GOLDEN = (math.sqrt(5.0) - 1.0) / 2.0
# What is no arithmetic, in operations of it, of which a core does about ten in a nanosecond.
_GATE = 100_000  # a gate, until it is in a block
_BLOCK = 100_000
_SPLIT = 100  # a split, for each of rows, columns and rank
_CALL = 1_500_000  # blocks of equal shape in one layer


class TrialLimits(msgspec.Struct, frozen=True):
    """Where a trial ends."""

    operations: int
    bond: int  # beyond it the trial ends
    memory_bytes: int = 2**26  # of the tensors


def chain_trial(circuit: Circuit, limits: TrialLimits) -> ChainTrial:
    """Run gates of an admissible circuit whose measurements are final until a limit is reached."""
    order = chain_order(circuit) or tuple(range(circuit.num_qubits - 1, -1, -1))
    spent = _GATE * circuit.ops.size
    if spent > limits.operations:
        return ChainTrial(bond=1, done=False, part=0.0, operations=spent)
    blocks = gate_blocks(circuit, _parameters(circuit), order)
    chain = RightCanonicalChain(len(order), bond=limits.bond + 1, cutoff=_CUTOFF, dtype="complex64")
    control = RunControl()
    total, applied = sum(map(len, blocks.layers)), 0
    for layer in blocks.layers:
        spent += layer_operations(chain, layer)
        full = 8 * chain.size > limits.memory_bytes or chain.widest > limits.bond
        if full or spent > limits.operations:
            return ChainTrial(chain.widest, False, applied / total, spent, 2 * 8 * chain.size)
        chain.apply_layer(layer, control)
        applied += len(layer)
    return ChainTrial(chain.widest, chain.widest <= limits.bond, 1.0, spent, 2 * 8 * chain.size)


def layer_operations(chain: RightCanonicalChain, layer: list[Block]) -> int:
    """Operations of a layer: products with the tensors, and the splits of bonds."""
    calls, total = set(), 0
    for block in layer:
        last = block.first + block.count - 1
        left, right = chain.tensors[block.first].shape[0], chain.tensors[last].shape[2]
        middle = max(chain.tensors[k].shape[2] for k in range(block.first, last))
        calls.add((left, middle, right, block.count))
        rows, columns = left << (block.count - 1), 2 * right
        rank = min(rows, columns, 2 * middle)
        total += _BLOCK + (block.count - 1) * _SPLIT * rows * columns * rank
    return total + _CALL * len(calls)


def _parameters(circuit: Circuit) -> NDArray[np.float64]:
    """The circuit's parameters; free ones differ, in no ratio that cancels anything."""
    if not circuit.slots_data:
        return circuit.params
    params = circuit.params.copy()
    slots = circuit.slots[1::2].astype(np.float64)
    params[circuit.slots[0::2]] = 2.0 * math.pi * np.mod(_GOLDEN * (slots + 1.0), 1.0)
    return params
