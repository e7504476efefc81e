"""Samples of a state on a graph: site by site, each from messages of belief propagation.

Once the bit of a site is drawn, its tensor loses its first axis. What changes then are the messages
that the site's own ones reach; those that a later draw needs are made anew, over at most `_REACH`
bonds where bonds close a loop, and over all of them on a tree, where the draws are exact. Which
messages these are depends on the order of the sites alone, so the shots are the rows of one
program. On a graph with loops the bits have a distribution of their own, close to that of the
state; the logarithm of each shot's probability in it is returned beside its bits.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import msgspec
import numpy as np
from numpy.typing import NDArray

from simulators.engine import RunControl
from simulators.tensornetwork.peps.simple_update import GraphState, Tensor

_REACH = 8  # bonds over which a drawn bit is taken into account where bonds close a loop
_STARTS = 6  # first sites that are tried
_BYTES = 1 << 27  # messages of the rows that are drawn together, about
_MOST_ROWS = 512
_TINY = 1e-300

Key = tuple[int, int]  # of a message: its bond, and the site that it goes to
Draw = Callable[[int, NDArray[np.float64]], NDArray[np.bool_]]


class SampleStep(msgspec.Struct, frozen=True):
    """A message along `bond`, or (`bond` < 0) the draw of the bit of `site`. `inputs`: bonds of the
    site whose messages are not the weights; `last`: messages that no later step reads."""

    site: int
    bond: int
    inputs: tuple[int, ...]
    drawn: bool  # the site's bit
    last: tuple[Key, ...] = ()


class SampleProgram(msgspec.Struct, frozen=True):
    """Steps that draw all sites, and the largest number of messages held at once."""

    steps: tuple[SampleStep, ...]
    held: int

    @classmethod
    def of(cls, state: GraphState) -> SampleProgram:
        """The cheapest program among those of several orders."""
        count = len(state.near)
        starts = range(0, count, max(1, count // _STARTS))
        orders = [_depth_first(state, start) for start in starts]
        programs = [_steps(state, order) for order in orders]
        best = min(programs, key=lambda steps: sum(_cost(state, step) for step in steps))
        return cls(*_with_ends(state, best))

    def rows(self, state: GraphState) -> int:
        """Number of rows that are drawn together."""
        each = 4 * self.held * state.bond**2 * np.dtype(state.dtype).itemsize
        return max(1, min(_MOST_ROWS, _BYTES // max(1, each)))


def sample(
    state: GraphState,
    program: SampleProgram,
    rows: int,
    draw: Draw,
    control: RunControl,
    progress: Callable[[float], None] = lambda _: None,
) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """Bits of the qubits, uint8 [rows, qubits], and the logarithm of the probability with which
    each row was drawn. `draw(site, probability of 1 [rows])`: the bits of a site. `progress`:
    called with the part of the steps that each is, of 1. State in the Vidal gauge."""
    bits = np.zeros((rows, len(state.near)), np.uint8)
    logs = np.zeros(rows)
    messages: dict[Key, Tensor] = {}
    members: list[tuple[NDArray[np.int64], ...]] = [()] * len(state.near)
    tensors: dict[tuple[int, tuple[int, ...]], Tensor] = {}
    for step in program.steps:
        control.check()
        site, near = step.site, state.near[step.site]
        key = site, (step.bond, *step.inputs)
        if key not in tensors:
            tensors[key] = state.scaled(site, without=key[1])
        tensor = tensors[key]
        inputs = [(near.index(bond), messages[bond, site]) for bond in step.inputs]
        if step.bond < 0:
            weights = np.stack([_norms(tensor[bit], inputs, rows) for bit in (0, 1)], axis=1)
            weights = np.maximum(weights, 0.0)
            ones = weights[:, 1] / np.maximum(weights.sum(axis=1), _TINY)
            drawn = draw(site, ones)
            bits[:, site] = drawn
            logs += np.log(np.maximum(np.where(drawn, ones, 1.0 - ones), _TINY))
            members[site] = np.flatnonzero(~drawn), np.flatnonzero(drawn)
        else:
            axis = near.index(step.bond)
            size = tensor.shape[1 + axis]
            message = np.empty((rows, size, size), state.dtype)
            if step.drawn:
                for bit, own in enumerate(members[site]):
                    if own.size:
                        part = [(k, each[own]) for k, each in inputs]
                        message[own] = _passed(tensor[bit], axis, part, own.size)
            else:
                shifted = [(1 + k, each) for k, each in inputs]
                message[:] = _passed(tensor, 1 + axis, shifted, rows)
            traces = np.einsum("raa->r", message).real
            message /= np.maximum(traces, _TINY)[:, None, None]
            messages[step.bond, state.other(step.bond, site)] = message
        for gone in step.last:
            del messages[gone]
        progress(1.0 / len(program.steps))
    return bits, logs


def _passed(tensor: Tensor, axis: int, inputs: list[tuple[int, Tensor]], rows: int) -> Tensor:
    """Sum over all axes but one of a tensor, messages [rows, bond, bond] of some of them, and the
    conjugated tensor: [rows, axis, axis]."""
    size = tensor.shape[axis]
    right = np.moveaxis(tensor, axis, 0).reshape(size, -1).conj().T
    if not inputs:
        result = np.moveaxis(tensor, axis, 0).reshape(size, -1) @ right
        return np.broadcast_to(result, (rows, size, size))
    left: Tensor = tensor[None]
    for k, message in inputs:
        moved = np.moveaxis(left, 1 + k, 1)
        flat = moved.reshape(len(moved), moved.shape[1], -1)
        turned = message.transpose(0, 2, 1)
        if len(moved) == 1:  # one product of all rows
            product = turned.reshape(-1, moved.shape[1]) @ flat[0]
        else:
            product = np.matmul(turned, flat)
        left = np.moveaxis(product.reshape(rows, *moved.shape[1:]), 1, 1 + k)
    left = np.moveaxis(left, 1 + axis, 1).reshape(rows * size, -1)
    return (left @ right).reshape(rows, size, size)


def _norms(tensor: Tensor, inputs: list[tuple[int, Tensor]], rows: int) -> NDArray[np.floating]:
    """Norm of a tensor with messages of some of its axes: [rows]."""
    if not inputs:
        return np.broadcast_to(np.sum(np.abs(tensor) ** 2), (rows,))
    (axis, message), *others = inputs
    matrices = _passed(tensor, axis, others, rows)
    values: NDArray[np.floating] = np.einsum("rab,rab->r", matrices, message).real
    return values


def _depth_first(state: GraphState, start: int) -> list[int]:
    """All sites, depth first, those of other components after them."""
    order: list[int] = []
    seen = [False] * len(state.near)
    for first in [start, *range(len(state.near))]:
        stack = [first]
        while stack:
            site = stack.pop()
            if seen[site]:
                continue
            seen[site] = True
            order.append(site)
            stack += [state.other(bond, site) for bond in reversed(state.near[site])]
    return order


def _steps(state: GraphState, order: list[int]) -> list[SampleStep]:
    """Steps that draw the sites in this order."""
    near = state.near
    drawn = [False] * len(near)
    looped = _looped(state)
    made: set[Key] = set()
    stale: set[Key] = set()
    steps: list[SampleStep] = []

    def renew(key: Key, above: frozenset[Key]) -> None:
        """Make a message anew, after those that it is made of, unless nothing has changed it."""
        if key not in stale or key in above:
            return
        stale.discard(key)
        bond, to = key
        site = state.other(bond, to)
        others = [each for each in near[site] if each != bond]
        for each in others:
            renew((each, site), above | {key})
        inputs = tuple(each for each in others if (each, site) in made)
        made.add(key)
        steps.append(SampleStep(site, bond, inputs, drawn[site]))

    for site in order:
        for bond in near[site]:
            renew((bond, site), frozenset())
        inputs = tuple(bond for bond in near[site] if (bond, site) in made)
        steps.append(SampleStep(site, -1, inputs, drawn=False))
        drawn[site] = True
        # Messages that depend on the bit, nearest first.
        queue = deque([(site, -1, 1)])
        seen: set[Key] = set()
        while queue:
            at, came, distance = queue.popleft()
            for bond in near[at]:
                to = state.other(bond, at)
                if bond == came or (bond, to) in seen:
                    continue
                seen.add((bond, to))
                stale.add((bond, to))
                if distance < _REACH or not looped[at]:
                    queue.append((to, bond, distance + 1))
    return steps


def _looped(state: GraphState) -> list[bool]:
    """Mask of the sites whose component has a loop."""
    result = [False] * len(state.near)
    seen = [False] * len(state.near)
    for first in range(len(state.near)):
        if seen[first]:
            continue
        seen[first] = True
        members = [first]
        for site in members:
            for bond in state.near[site]:
                to = state.other(bond, site)
                if not seen[to]:
                    seen[to] = True
                    members.append(to)
        is_tree = sum(len(state.near[site]) for site in members) == 2 * (len(members) - 1)
        for site in members:
            result[site] = not is_tree
    return result


def _cost(state: GraphState, step: SampleStep) -> float:
    """Multiplications of a step, for a row."""
    size = float(state.tensors[step.site].size)
    return 1e3 + size * sum(state.weights[bond].size for bond in (*step.inputs, step.bond))


def _with_ends(state: GraphState, steps: list[SampleStep]) -> tuple[tuple[SampleStep, ...], int]:
    """Steps with the messages that end with each, and the largest number of messages at once."""
    last: dict[Key, int] = {}
    for number, step in enumerate(steps):
        for bond in step.inputs:
            last[bond, step.site] = number
        if step.bond >= 0:
            last[step.bond, state.other(step.bond, step.site)] = number
    gone: list[list[Key]] = [[] for _ in steps]
    for key, number in last.items():
        gone[number].append(key)
    held, count, live = 1, 0, set[Key]()
    for number, step in enumerate(steps):
        if step.bond >= 0:
            live.add((step.bond, state.other(step.bond, step.site)))
        count = len(live)
        held = max(held, count)
        live -= set(gone[number])
    return tuple(
        msgspec.structs.replace(step, last=tuple(ends))
        for step, ends in zip(steps, gone, strict=True)
    ), held
