"""Samples of a circuit, gate by gate, in blocks of shots over threads and ranks.

Shot s takes uniform s of draw 1 + k for the gate of operation k, whatever the blocks.
"""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from simulators.catalog.costs import SAMPLE_BYTES
from simulators.circuit.analysis import elimination as orders
from simulators.circuit.analysis.elimination import Elimination
from simulators.compiler.simd import LANES, aligned
from simulators.engine import SHOTS, ThreadPool
from simulators.errors import OutOfMemory
from simulators.tensornetwork.contraction import network as net, sample_kernel as kernel
from simulators.tensornetwork.contraction.contractor import too_many_slices

_GRAIN = 4 * LANES  # shots of a range
_VALUE = 2 * LANES  # numbers of a complex value of each shot


class Samples(msgspec.Struct, frozen=True, eq=False):
    """Messages of a circuit's amplitudes, with the numbers of its gates."""

    messages: Elimination
    line: NDArray[np.int64]  # last index of each qubit, or -1
    num_indices: int
    gates: NDArray[np.float64]  # values of the nodes
    images: NDArray[np.int64]  # of the basis states of nodes that permute them
    nodes: NDArray[np.int64]  # [3, nodes]: where these begin, and the operation of each node
    dtype: str  # of a real number

    @classmethod
    def of(
        cls, factors: list[net.Factor], num_qubits: int, dtype: str, *, width: int, slices: int
    ) -> Samples:
        """Order of these factors. It is sliced if a tensor has more than 2^width values, or if
        those of a thread take more than SAMPLE_BYTES. Raises OutOfMemory if there are more slices
        than `slices`."""
        real = np.zeros(0, dtype).real.dtype
        network = orders.gate_network(
            num_qubits, [(each.qubits, each.moved, _kind(each)) for each in factors]
        )
        messages = orders.elimination(
            network, most_values=SAMPLE_BYTES // (_VALUE * real.itemsize), most_bits=width,
            most_slices=slices,
        )  # fmt: skip
        _check(messages, width, slices, real.itemsize)
        nodes = net.StateNetwork(num_qubits, factors).nodes
        values = [_numbers(node.array) for node in nodes] or [np.zeros(0)]
        images = [np.zeros(0, np.int64)] * len(nodes)
        for k in np.flatnonzero(network.kinds == orders.PERMUTING).tolist():
            image = net.permutation(factors[network.places[k]])
            images[k] = images[k] if image is None else image
        places = [factors[k].place for k in network.places.tolist()]
        return cls(
            messages, np.array(network.line, np.int64), network.size, np.concatenate(values),
            np.concatenate([*images, np.zeros(0, np.int64)]),
            np.array([_begins(values)[: len(nodes)], _begins(images)[:-1], places]), real.name,
        )  # fmt: skip

    @property
    def thread_bytes(self) -> int:
        """Bytes of the arrays of one thread."""
        messages = self.messages
        values = messages.slots + messages.table_values + (1 << messages.drawn)
        lookups = messages.operands * self._lookups + kernel.HEAD
        return _VALUE * np.dtype(self.dtype).itemsize * values + 8 * lookups

    @property
    def remark(self) -> str:
        """Remark of a result."""
        text = f"width {self.messages.widest}"
        if self.messages.slices > 1:
            text += f", {self.messages.slices} slices"
        return text

    @property
    def _lookups(self) -> int:
        """Numbers of the lookups of an operand."""
        return (1 << kernel.LOW_BITS) + (1 << max(0, self.messages.widest - kernel.LOW_BITS))

    def sample(
        self, first: int, last: int, key: tuple[int, int], pool: ThreadPool, flag: NDArray[np.int64]
    ) -> NDArray[np.uint8]:
        """Bits of shots first .. last - 1: uint8 [shots, qubits]."""
        messages, qubits = self.messages, self.line.size
        out = np.zeros((last - first) * qubits, np.uint8)
        sums = _VALUE * messages.slots
        tables = sums + (_VALUE << messages.drawn)
        run = kernel.double if self.dtype == "float64" else kernel.single
        buffers: dict[int, tuple[NDArray[Any], NDArray[np.int64], NDArray[np.uint8]]] = {}

        def work(begin: int, end: int, thread: int) -> None:
            if thread not in buffers:
                count = tables + _VALUE * messages.table_values
                tensor = aligned(count * np.dtype(self.dtype).itemsize).view(self.dtype)
                lookups = np.zeros(kernel.HEAD + messages.operands * self._lookups, np.int64)
                values = np.zeros(LANES * (self.num_indices + 1), np.uint8)
                buffers[thread] = tensor, lookups, values
            span = np.array(
                [first + begin, first + end, 0, 0, first, sums, tables, self._lookups], np.int64
            )
            span[2:4] = np.array(key, np.uint64).view(np.int64)
            run(
                messages.code, self.gates, self.images, self.nodes, self.line, span,
                *buffers[thread], out, flag,
            )  # fmt: skip

        pool.run(work, last - first, _GRAIN, SHOTS)
        return out.reshape(last - first, qubits)


def _kind(factor: net.Factor) -> int:
    if not any(factor.moved):
        return orders.DIAGONAL
    if net.is_swap(factor):
        return orders.RELABELING
    return orders.DRAWN if net.permutation(factor) is None else orders.PERMUTING


def _numbers(array: NDArray[Any]) -> NDArray[np.float64]:
    return np.ascontiguousarray(array, np.complex128).view(np.float64).ravel()


def _begins(arrays: list[NDArray[Any]]) -> NDArray[np.int64]:
    return np.cumsum([0, *map(len, arrays)])


def _check(messages: Elimination, width: int, slices: int, itemsize: int) -> None:
    """Raise OutOfMemory if the messages exceed the limits."""
    if messages.widest < 0:
        raise OutOfMemory(
            f"the largest tensor has more than 2^{orders.MOST_BITS} values in all orders tried",
            hint="fewer layers, or engine='mps', which truncates",
        )
    needed = messages.slots * _VALUE * itemsize
    if messages.widest > width:
        sliced = len(messages.sliced) + messages.widest - width
        raise too_many_slices(messages.whole, width, sliced, slices, 2 * itemsize)
    if needed > SAMPLE_BYTES:
        text = f"the tensors of {LANES} shots take {needed >> 20} MiB in {messages.slices} slices,"
        text += f" of {slices} that are allowed, and all together may take {SAMPLE_BYTES >> 20} MiB"
        raise OutOfMemory(text, hint="raise the option slices, or engine='mps', which truncates")
