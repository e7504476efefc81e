"""Means of Pauli strings on one and two qubits by the messages of belief propagation.

The mean on two qubits is contracted along a shortest path between them; all other bonds have their
messages. Where a second path exists, what it carries is added, and its size stated as an error.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from simulators.engine import RunControl
from simulators.errors import Unsupported
from simulators.tensornetwork.peps.simple_update import GraphState, Tensor

_PAULIS: dict[tuple[int, int], Tensor] = {
    (1, 0): np.array([[0, 1], [1, 0]], complex),
    (0, 1): np.array([[1, 0], [0, -1]], complex),
    (1, 1): np.array([[0, -1j], [1j, 0]]),
}
_ONE: Tensor = np.eye(2, dtype=complex)
_MOST = 2  # qubits of a string


class PauliMeans:
    """Means in one state, in the Vidal gauge."""

    def __init__(self, state: GraphState, control: RunControl) -> None:
        self._state, self._control = state, control
        self._singles: dict[int, NDArray[np.complex128]] = {}

    def values(
        self, strings: list[tuple[int, int]], progress: Callable[[float], None] = lambda _: None
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean of each Pauli string (x, z), and what a second path carries: float64 [strings].
        `progress`: called with the part of the strings that each is, of 1. Raises Unsupported for
        strings on more than two qubits."""
        values, errors = np.ones(len(strings)), np.zeros(len(strings))
        for number, (x, z) in enumerate(strings):
            self._control.check()
            progress(1.0 / len(strings))
            sites = [q for q in range((x | z).bit_length()) if (x | z) >> q & 1]
            if len(sites) > _MOST:
                raise Unsupported(
                    f"a Pauli string on {len(sites)} qubits; engine 'peps' gives those on at most"
                    f" {_MOST}",
                    hint="engine='pauli' takes wider ones",
                )
            letters = [_PAULIS[x >> q & 1, z >> q & 1] for q in sites]
            means = [self._single(q, letter) for q, letter in zip(sites, letters, strict=True)]
            values[number] = np.prod(means) if means else 1.0
            if len(sites) == _MOST:
                for which, path in enumerate(self._paths(*sites)):
                    joint = self._along(path, sites, letters)
                    carried = joint - means[0] * means[1]
                    values[number] += carried
                    errors[number] = abs(carried) if which else 0.0
        return np.clip(values, -1.0, 1.0), errors

    def _single(self, site: int, letter: Tensor) -> float:
        if site not in self._singles:
            flat = self._state.scaled(site).reshape(2, -1)
            rho = flat @ flat.conj().T
            self._singles[site] = rho / np.trace(rho)
        return float(np.trace(self._singles[site] @ letter).real)

    def _along(self, path: list[int], sites: list[int], letters: list[Tensor]) -> float:
        """Mean of letters on the two ends of a path of bonds from the first site to the second."""
        results = []
        for first, last in ((letters[0], letters[1]), (_ONE, _ONE)):
            state, site = self._state, sites[0]
            tensor = state.scaled(site, without=(path[0],))
            carried = _closed(tensor, first, state.near[site].index(path[0]))
            for before, after in itertools.pairwise(path):
                site = state.other(before, site)
                tensor = state.scaled(site, without=(before, after))
                axis = 1 + state.near[site].index(before)
                left = np.moveaxis(np.tensordot(carried, tensor, (0, axis)), 0, axis)
                carried = _overlap(left, tensor, state.near[site].index(after))
            site = state.other(path[-1], site)
            tensor = state.scaled(site, without=(path[-1],))
            other = _closed(tensor, last, state.near[site].index(path[-1]))
            results.append(np.sum(carried * other).real)
        return float(results[0] / results[1])

    def _paths(self, first: int, last: int) -> list[list[int]]:
        """A shortest path, and one that shares no bond with it, if there are such."""
        paths: list[list[int]] = []
        used: set[int] = set()
        for _ in range(2):
            before: dict[int, int] = {first: -1}
            queue = deque([first])
            while queue and last not in before:
                site = queue.popleft()
                for bond in self._state.near[site]:
                    to = self._state.other(bond, site)
                    if bond not in used and to not in before:
                        before[to] = bond
                        queue.append(to)
            if last not in before:
                break
            path, site = list[int](), last
            while site != first:
                path.append(before[site])
                site = self._state.other(path[-1], site)
            paths.append(path[::-1])
            used.update(path)
        return paths


def _closed(tensor: Tensor, letter: Tensor, axis: int) -> Tensor:
    """Matrix [bond, bond] of a tensor with a letter on its qubit."""
    return _overlap(np.tensordot(letter, tensor, (1, 0)), tensor, axis)


def _overlap(left: Tensor, right: Tensor, axis: int) -> Tensor:
    """Sum over all axes but one bond's of a tensor and a conjugated one."""
    size = right.shape[1 + axis]
    flat = np.moveaxis(left, 1 + axis, 0).reshape(size, -1)
    result: Tensor = flat @ np.moveaxis(right, 1 + axis, 0).reshape(size, -1).conj().T
    return result
