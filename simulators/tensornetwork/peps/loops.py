"""Short loops of a graph, and what a state in the Vidal gauge neglects around them."""

from __future__ import annotations

import math
from collections import deque

import numpy as np
from numpy.typing import NDArray

from simulators.tensornetwork.peps.simple_update import GraphState, Tensor

_LOOP_BOND = 8  # of a bond, the weights regarded around a loop
_PAULIS = np.array([[[1, 0], [0, 1]], [[1, 0], [0, -1]], [[0, 1], [1, 0]], [[0, -1j], [1j, 0]]])
Loop = tuple[list[int], list[int]]  # sites, and the bond after each one


def loops_of(near: list[list[int]], ends: list[tuple[int, int]]) -> list[Loop]:
    """A shortest loop through each bond that has one, each loop once."""
    found: dict[frozenset[int], Loop] = {}
    for bond, (first, last) in enumerate(ends):
        before: dict[int, tuple[int, int]] = {first: (-1, -1)}
        queue = deque([first])
        while queue and last not in before:
            site = queue.popleft()
            for other in near[site]:
                a, b = ends[other]
                to = b if site == a else a
                if other != bond and to not in before:
                    before[to] = site, other
                    queue.append(to)
        if last not in before:
            continue
        sites, bonds = [last], []
        while sites[-1] != first:
            site, other = before[sites[-1]]
            bonds.append(other)
            sites.append(site)
        found.setdefault(frozenset([*bonds, bond]), (sites, [*bonds, bond]))
    return list(found.values())


def around_loops(state: GraphState, loops: list[Loop]) -> float:
    """Estimate of the largest error that neglecting the loops makes in the mean of a Pauli matrix:
    for each loop the trace of its transfer matrix without the messages, with each matrix at each
    of its sites, relative to that without one; summed over the loops. Of each bond the largest
    weights alone are regarded. State in the Vidal gauge."""
    total = 0.0
    for loop in loops:
        steps, messages = _transfers(state, loop)
        count = len(steps)
        apart = [
            np.eye(each.size) - np.outer(each, each) / (each @ each) for each in messages
        ]  # without what goes on along the message
        plain = [each[0] @ apart[k] for k, each in enumerate(steps)]
        ahead = [np.eye(len(plain[0]))]  # products of the first ones
        for each in plain:
            ahead.append(ahead[-1] @ each)
        behind = [np.eye(plain[-1].shape[1])]  # and of the last ones
        for each in reversed(plain):
            behind.append(each @ behind[-1])
        values = [
            np.einsum("a,pab,b->p", messages[k - 1], step, messages[k])
            for k, step in enumerate(steps)
        ]
        norm = math.prod(
            each[0].real / (message @ message)
            for each, message in zip(values, messages, strict=True)
        )
        worst = 0.0
        for k, step in enumerate(steps):
            rest = apart[k] @ behind[count - k - 1] @ ahead[k]
            around = np.einsum("pab,ba->p", step, rest).real / norm
            means = values[k].real / values[k][0].real
            changed = (means + around) / (1.0 + around[0])
            worst = max(worst, float(np.abs(changed - means).max()))
        total += worst
    return total


def _transfers(state: GraphState, loop: Loop) -> tuple[list[Tensor], list[NDArray[np.floating]]]:
    """Of each site of a loop the transfer matrices [4, before, after] with I, Z, X and Y on it, and
    the message along the bond after it."""
    steps, messages = [], []
    sites, bonds = loop
    for site, before, after in zip(sites, [bonds[-1], *bonds], bonds, strict=False):
        tensor = state.scaled(site, without=(before, after))
        axes = [1 + state.near[site].index(bond) for bond in (before, after)]
        part = np.moveaxis(tensor, axes, (0, 1))[:_LOOP_BOND, :_LOOP_BOND]
        low, high = part.shape[:2]
        flat = np.moveaxis(part, 2, 0).reshape(2, low * high, -1)
        both = np.einsum("pax,qbx->pqab", flat, flat.conj(), optimize=True)
        turned = np.einsum("pqab,rqp->rab", both, _PAULIS)
        turned = turned.reshape(4, low, high, low, high).transpose(0, 1, 3, 2, 4)
        steps.append(turned.reshape(4, low * low, high * high))
        messages.append(np.diag(state.weights[after][:_LOOP_BOND]).ravel())
    return steps, messages
