"""Probabilities of bit strings in a state on a graph, with what runs around its loops.

With all bits fixed a message is a vector, and the product of all of them is the amplitude on a
tree. The first term of the loop series multiplies it by 1 + the trace of each loop without its
messages (Chertkov and Chernyak, Phys. Rev. E 73, 065102, 2006; Evenbly et al., arXiv:2409.03108),
which is exact for one loop.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from simulators.engine import RunControl
from simulators.tensornetwork.peps.loops import Loop
from simulators.tensornetwork.peps.simple_update import GraphState, Tensor

_ITERATIONS = 60
_CONVERGED = 1e-9
_TINY = 1e-150


class Amplitudes:
    """Amplitudes of some bit strings, uint8 [rows, qubits], of a state in the Vidal gauge."""

    def __init__(self, state: GraphState, bits: NDArray[np.uint8]) -> None:
        self._state, self._rows = state, len(bits)
        self._members = [(np.flatnonzero(column == 0), np.flatnonzero(column)) for column in bits.T]
        self._messages: dict[tuple[int, int], Tensor] = {}
        for bond, sites in enumerate(state.ends):
            first = np.zeros((self._rows, state.weights[bond].size), state.dtype)
            first[:, 0] = 1.0
            for site in sites:
                self._messages[bond, site] = first

    def logs(self, loops: list[Loop], control: RunControl) -> NDArray[np.float64]:
        """Logarithm of the probability of each row, relative to the norm of the state by belief
        propagation: float64 [rows]."""
        self._converge(control)
        state = self._state
        values = [self._contracted(site, ()) for site in range(len(state.near))]
        overlaps = [
            np.einsum("rx,rx->r", self._messages[bond, a], self._messages[bond, b])
            for bond, (a, b) in enumerate(state.ends)
        ]
        result = np.zeros(self._rows)
        for each in values:
            result += _logs(each)
        for each in overlaps:
            result -= _logs(each)
        for sites, bonds in loops:
            control.check()
            around: Tensor | None = None
            share = np.ones(self._rows, state.dtype)
            for site, before, after in zip(sites, [bonds[-1], *bonds], bonds, strict=False):
                part = self._contracted(site, (before, after))
                toward = self._messages[after, state.other(after, site)]
                back = self._messages[after, site]
                along = np.einsum("rab,rb->ra", part, back) / _safe(overlaps[after])[:, None]
                part = part - along[:, :, None] * toward[:, None, :]
                around = part if around is None else np.matmul(around, part)
                share = share * values[site] / _safe(overlaps[after])
            assert around is not None
            result += _logs(1.0 + np.einsum("raa->r", around) / _safe(share))
        return 2.0 * result - _norm(state)

    def _converge(self, control: RunControl) -> None:
        """Make the messages a fixed point, as far as there is one."""
        state = self._state
        for _ in range(_ITERATIONS):
            control.check()
            change = 0.0
            for site, near in enumerate(state.near):
                for bond in near:
                    key = bond, state.other(bond, site)
                    message = self._contracted(site, (bond,))
                    message /= np.maximum(np.linalg.norm(message, axis=1), _TINY)[:, None]
                    before = self._messages[key]
                    phase = np.einsum("rx,rx->r", before.conj(), message)
                    phase /= np.maximum(np.abs(phase), _TINY)
                    message *= phase.conj()[:, None]
                    change = max(change, float(np.abs(message - before).max()))
                    self._messages[key] = message
            if change < _CONVERGED:
                return

    def _contracted(self, site: int, out: tuple[int, ...]) -> Tensor:
        """Tensor of a site of each row, with the messages of its bonds but `out`: [rows, *out]."""
        near = self._state.near[site]
        shape = [self._state.weights[bond].size for bond in out]
        result = np.empty((self._rows, *shape), self._state.dtype)
        inputs = [bond for bond in near if bond not in out]
        for bit, own in enumerate(self._members[site]):
            if not own.size:
                continue
            order = [near.index(bond) for bond in (*inputs, *out)]
            tensor = self._state.tensors[site][bit].transpose(order)
            if not inputs:
                result[own] = tensor
                continue
            left = self._messages[inputs[0], site][own] @ tensor.reshape(len(tensor), -1)
            for number, bond in enumerate(inputs[1:], 1):
                left = left.reshape(own.size, tensor.shape[number], -1)
                left = np.einsum("rx,rxy->ry", self._messages[bond, site][own], left)
            result[own] = left.reshape(own.size, *shape)
        return result


def _norm(state: GraphState) -> float:
    """Logarithm of the norm of a state by its messages, the weights."""
    sites = (np.sum(np.abs(state.scaled(site)) ** 2) for site in range(len(state.near)))
    bonds = (np.sum(weights**2) for weights in state.weights)
    return float(sum(map(np.log, sites)) - sum(map(np.log, bonds)))


def _safe(values: Tensor) -> Tensor:
    return np.where(np.abs(values) < _TINY, _TINY, values)


def _logs(values: Tensor) -> NDArray[np.float64]:
    logs: NDArray[np.float64] = np.log(np.maximum(np.abs(values), _TINY))
    return logs
