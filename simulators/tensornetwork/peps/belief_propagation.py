"""Belief propagation: messages of a state, and the gauge that makes them diagonal.

A message along a bond is what the tensors behind it contribute to the norm, [bond, bond]. Messages
are exact on a tree; where bonds close a loop, their fixed point neglects what runs around it
(Leifer and Poulin, Annals of Physics 323, 1899, 2008; Alkabetz and Arad, Phys. Rev. Research 3,
023073, 2021). In the Vidal gauge all messages are the bond's weights (Tindall and Fishman, SciPost
Phys. 15, 222, 2023), which the rest of this package relies on.
"""

from __future__ import annotations

import numpy as np

from simulators.engine import RunControl
from simulators.errors import TruncatedState
from simulators.tensornetwork.peps.simple_update import GraphState, Tensor

_ITERATIONS = 500
_CONVERGED = {"complex128": 1e-11, "complex64": 1e-5}
_LEAST = {"complex128": 1e-14, "complex64": 1e-6}  # relative weight that is rounding


def to_vidal_gauge(state: GraphState, control: RunControl) -> None:
    """Bring a state into the gauge in which the messages are the weights. Raises TruncatedState if
    the messages have no fixed point."""
    messages = _messages(state, control)
    least = _LEAST[state.dtype]
    for bond, sites in enumerate(state.ends):
        roots = []
        for site in reversed(sites):  # the message to one end is made of the other one's side
            values, vectors = np.linalg.eigh(messages[bond, site].T)
            kept = values > values[-1] * least
            roots.append((np.sqrt(values[kept]), vectors[:, kept]))
        (low, left), (high, right) = roots
        middle = (low[:, None] * left.conj().T) @ (high[:, None] * right.conj().T).T
        u, values, v = np.linalg.svd(middle, full_matrices=False)
        kept = values > values[0] * least
        root = np.sqrt(values[kept])
        turns = (left / low) @ (u[:, kept] * root), (right / high) @ (v[kept].T * root)
        for site, turn in zip(sites, turns, strict=True):
            axis = 1 + state.near[site].index(bond)
            turned = np.moveaxis(np.tensordot(state.tensors[site], turn, (axis, 0)), -1, axis)
            state.tensors[site] = np.ascontiguousarray(turned)
        state.weights[bond] = values[kept]
    for site in range(len(state.near)):  # each site's norm is one
        state.tensors[site] /= np.linalg.norm(state.scaled(site))
    for bond, values in enumerate(state.weights):
        state.weights[bond] = values / np.linalg.norm(values)


def _messages(state: GraphState, control: RunControl) -> dict[tuple[int, int], Tensor]:
    """Fixed point of the messages: of each bond to each of its ends."""
    result = {
        (bond, site): np.diag(state.weights[bond]).astype(state.dtype)
        for bond, sites in enumerate(state.ends)
        for site in sites
    }
    for _ in range(_ITERATIONS):
        control.check()
        fresh = {}
        for site, near in enumerate(state.near):
            tensor = state.tensors[site]
            for axis, bond in enumerate(near):
                part = tensor
                for k, other in enumerate(near):
                    if k != axis:
                        part = np.tensordot(part, result[other, site], (1 + k, 0))
                        part = np.moveaxis(part, -1, 1 + k)
                size = tensor.shape[1 + axis]
                left = np.moveaxis(part, 1 + axis, 0).reshape(size, -1)
                right = np.moveaxis(tensor, 1 + axis, 0).reshape(size, -1)
                message = left @ right.conj().T
                fresh[bond, state.other(bond, site)] = message / np.trace(message).real
        change = max(
            (float(np.abs(fresh[key] - result[key] / np.trace(result[key]).real).max())
             for key in fresh), default=0.0,
        )  # fmt: skip
        result = fresh
        if change < _CONVERGED[state.dtype]:
            return result
    raise TruncatedState(
        f"the messages of belief propagation change by {change:.1e} after {_ITERATIONS} iterations:"
        " what runs around the graph's loops is not small",
        hint="take fewer layers, or engine='mps' where the bonds of a chain suffice",
    )
