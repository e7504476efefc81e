"""Random greedy search for contraction paths of networks whose indices have two values.

A pair of tensors a, b that becomes c has the score size(c) / w - w (size(a) + size(b)); the pair
with the lowest one is contracted next. Each trial draws w and a temperature T, and takes the score
sign(s) log |s| - T g, with g of Gumbel's distribution, in place of s, which is Boltzmann sampling
(Gray and Kourtis, Quantum 5, 410 (2021), sect. 4.3). The first trial has w = 1 and T = 0. What
shares no index is contracted last, from the smallest tensor on. Indices of more than MAX_HOLDERS
tensors pair none: they would pair all with all.

The result is a function of the network, the seed and the number of trials.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from simulators.compiler.kernel import I64, INTS2, REALS, device_function, kernel, record
from simulators.execution.philox import shot_uniform

MAX_HOLDERS = 16
_LOWEST, _RANGE = 0.1, 3.9  # of w, drawn uniformly
_LOG_LOWEST, _LOG_RANGE = math.log(0.001), math.log(1_000.0)  # of T, drawn in its logarithm
_MOST = 1_000  # bits of a size, as a double holds it
_LEAST = 2.0**-54  # added to a uniform number, whose logarithm is taken
_TOO_COSTLY, _NO_ROOM = -1.0, -2.0  # of a trial


@record
class Network(NamedTuple):
    """Tensors and their indices, as lists one after the other. Tensor t has the indices
    legs[begin[t] : begin[t + 1]], ascending; index i has the tensors
    holders[first[i] : first[i + 1]]."""

    begin: I64  # [tensors + 1]
    legs: I64
    first: I64  # [indices + 1]
    holders: I64
    is_open: I64  # [indices]: whether the result has it


@record
class SearchState(NamedTuple):
    """Room of a trial, for n tensors: 2n with the results of its steps."""

    begin: I64  # [2n]: of each tensor in `legs`
    end: I64  # [2n]
    legs: I64
    alive: I64  # [2n]
    seen: I64  # [2n]: the last tensor of which it was taken for a neighbour
    counts: I64  # [indices]: tensors that have it
    holders: I64  # as in the network; those in use come first
    scores: REALS  # heap of pairs
    pairs: INTS2  # [entries, 2]
    path: INTS2  # [n - 1, 2]: operands of each step; step k makes tensor n + k


class GreedySearch:
    """Search for one network; trials continue where the last ones ended."""

    def __init__(self, inputs: Sequence[Sequence[int]], output: Sequence[int], seed: int) -> None:
        """`inputs`: different indices of each of at least two tensors; `output`: of the result."""
        everywhere = set(inputs[0]).intersection(*inputs[1:])  # they only scale each size
        names = sorted({index for each in inputs for index in each} - everywhere)
        numbers = {index: number for number, index in enumerate(names)}
        legs = [sorted(numbers[index] for index in set(each) - everywhere) for each in inputs]
        holders: list[list[int]] = [[] for _ in names]
        for tensor, each in enumerate(legs):
            for index in each:
                holders[index].append(tensor)
        is_open = np.zeros(len(names), np.int64)
        is_open[[numbers[index] for index in output if index in numbers]] = 1
        self._network = Network(
            _begins(legs), _joined(legs), _begins(holders), _joined(holders), is_open
        )
        self._seed, self._trials = seed, 0
        self._room, self._entries = 4 * len(self._network.legs) + 1_024, 4 * len(inputs) + 1_024
        self._state = self._new_state()
        self.operations = (
            np.inf
        )  # of the best path: multiplications, but for indices of all tensors
        self.path: tuple[tuple[int, int], ...] = ()  # operands of each step, by number

    def run(self, trials: int) -> None:
        """Do more trials."""
        last = self._trials + trials
        while self._trials < last:
            found = _trial(self._network, self._state, self._seed, self._trials, self.operations)
            if found == _NO_ROOM:
                self._room, self._entries = 2 * self._room, 2 * self._entries
                self._state = self._new_state()
                continue
            self._trials += 1
            if found != _TOO_COSTLY:
                self.operations = found
                self.path = tuple((int(a), int(b)) for a, b in self._state.path)

    def _new_state(self) -> SearchState:
        count, indices = len(self._network.begin) - 1, len(self._network.first) - 1
        begin, end, alive, seen = np.zeros((4, 2 * count), np.int64)
        return SearchState(
            begin,
            end,
            np.zeros(self._room, np.int64),
            alive,
            seen,
            np.zeros(indices, np.int64),
            np.zeros(len(self._network.holders), np.int64),
            np.zeros(self._entries),
            np.zeros((self._entries, 2), np.int64),
            np.zeros((count - 1, 2), np.int64),
        )


def _joined(lists: Sequence[Sequence[int]]) -> NDArray[np.int64]:
    return np.array([each for one in lists for each in one], np.int64)


def _begins(lists: Sequence[Sequence[int]]) -> NDArray[np.int64]:
    return np.cumsum([0, *map(len, lists)], dtype=np.int64)


@device_function
def _sizes(network, state, a, b):  # type: ignore[no-untyped-def]
    """Numbers of indices of the product of two tensors, and of both together."""
    i, j = state.begin[a], state.begin[b]
    left, together = np.int64(0), np.int64(0)
    while i < state.end[a] or j < state.end[b]:
        in_a = j >= state.end[b] or (i < state.end[a] and state.legs[i] <= state.legs[j])
        in_b = i >= state.end[a] or (j < state.end[b] and state.legs[j] <= state.legs[i])
        index = state.legs[i] if in_a else state.legs[j]
        used = np.int64(in_a) + np.int64(in_b)
        together += 1
        if network.is_open[index] or state.counts[index] > used:
            left += 1
        i += np.int64(in_a)
        j += np.int64(in_b)
    return left, together


@device_function
def _push(state, entries, score, a, b):  # type: ignore[no-untyped-def]
    """Add a pair to the heap; returns the number of its entries."""
    at = entries
    while at > 0:
        above = (at - 1) // 2
        if state.scores[above] <= score:
            break
        state.scores[at] = state.scores[above]
        state.pairs[at, 0], state.pairs[at, 1] = state.pairs[above, 0], state.pairs[above, 1]
        at = above
    state.scores[at] = score
    state.pairs[at, 0], state.pairs[at, 1] = a, b
    return entries + 1


@device_function
def _pop(state, entries):  # type: ignore[no-untyped-def]
    """Remove the first entry of the heap; returns the number of the others."""
    entries -= 1
    score, a, b = state.scores[entries], state.pairs[entries, 0], state.pairs[entries, 1]
    at = 0
    while 2 * at + 1 < entries:
        below = 2 * at + 1
        if below + 1 < entries and state.scores[below + 1] < state.scores[below]:
            below += 1
        if score <= state.scores[below]:
            break
        state.scores[at] = state.scores[below]
        state.pairs[at, 0], state.pairs[at, 1] = state.pairs[below, 0], state.pairs[below, 1]
        at = below
    state.scores[at] = score
    state.pairs[at, 0], state.pairs[at, 1] = a, b
    return entries


@device_function
def _contract(network, state, a, b, c):  # type: ignore[no-untyped-def]
    """Make tensor c of a and b; returns whether there was room for its indices."""
    i, j, to = state.begin[a], state.begin[b], state.begin[c]
    if to + state.end[a] - i + state.end[b] - j > state.legs.size:
        return False
    while i < state.end[a] or j < state.end[b]:
        in_a = j >= state.end[b] or (i < state.end[a] and state.legs[i] <= state.legs[j])
        in_b = i >= state.end[a] or (j < state.end[b] and state.legs[j] <= state.legs[i])
        index = state.legs[i] if in_a else state.legs[j]
        i += np.int64(in_a)
        j += np.int64(in_b)
        at, begin = np.int64(0), network.first[index]
        for k in range(state.counts[index]):
            holder = state.holders[begin + k]
            if holder != a and holder != b:
                state.holders[begin + at] = holder
                at += 1
        if at > 0 or network.is_open[index]:
            state.holders[begin + at] = c
            at += 1
            state.legs[to] = index
            to += 1
        state.counts[index] = at
    state.end[c] = state.begin[c + 1] = to
    state.alive[a] = state.alive[b] = 0
    state.alive[c] = 1
    return True


@device_function
def _add_pairs(network, state, entries, tensor, weight, temperature, seed, trial, draw):  # type: ignore[no-untyped-def]
    """Add the pairs of a tensor with its neighbours of a lower number; returns the numbers of
    entries, and of draws. Entries beyond the room of the heap are counted alone."""
    size = 2.0 ** min(state.end[tensor] - state.begin[tensor], np.int64(_MOST))
    for at in range(state.begin[tensor], state.end[tensor]):
        index = state.legs[at]
        if state.counts[index] > MAX_HOLDERS:
            continue
        begin = network.first[index]
        for k in range(state.counts[index]):
            other = state.holders[begin + k]
            if other >= tensor or state.seen[other] == tensor:
                continue
            state.seen[other] = tensor
            if entries == state.scores.size:
                return entries + 1, draw
            left, _ = _sizes(network, state, tensor, other)
            rank = min(state.end[other] - state.begin[other], np.int64(_MOST))
            score = 2.0 ** min(left, np.int64(_MOST)) / weight - (size + 2.0**rank) * weight
            if score != 0.0:
                score = np.log(score) if score > 0.0 else -np.log(-score)
            u = shot_uniform(draw, np.uint64(trial), seed, np.uint64(0))
            draw += 1
            score += temperature * np.log(-np.log(u + _LEAST))
            entries = _push(state, entries, score, tensor, other)
    return entries, draw


@device_function
def _without_ended(state, entries):  # type: ignore[no-untyped-def]
    """Remove the pairs of tensors that were contracted; returns the number of the others."""
    left = 0
    for k in range(entries):
        a, b = state.pairs[k, 0], state.pairs[k, 1]
        if state.alive[a] and state.alive[b]:
            left = _push(state, left, state.scores[k], a, b)
    return left


@kernel("Network SearchState INT INT REAL -> REAL", group="sweeps")
def _trial(network, state, seed, trial, limit):  # type: ignore[no-untyped-def]
    """Fill the path; return its multiplications, or _TOO_COSTLY once they reach `limit`, or
    _NO_ROOM."""
    count = network.begin.size - 1
    for index in range(state.counts.size):
        state.counts[index] = network.first[index + 1] - network.first[index]
    for k in range(state.holders.size):
        state.holders[k] = network.holders[k]
    for k in range(network.legs.size):
        state.legs[k] = network.legs[k]
    for k in range(2 * count):
        state.seen[k] = -1
        state.alive[k] = np.int64(k < count)
    for k in range(count):
        state.begin[k], state.end[k] = network.begin[k], network.begin[k + 1]
    state.begin[count] = network.begin[count]
    key = np.uint64(seed)
    drawn = np.uint64(trial)
    weight, temperature = 1.0, 0.0
    if trial > 0:
        weight = _LOWEST + _RANGE * shot_uniform(np.int64(0), drawn, key, np.uint64(0))
        logarithm = _LOG_RANGE * shot_uniform(np.int64(1), drawn, key, np.uint64(0))
        temperature = np.exp(_LOG_LOWEST + logarithm)
    entries, draw = np.int64(0), np.int64(2)
    for tensor in range(count):
        entries, draw = _add_pairs(
            network, state, entries, tensor, weight, temperature, key, trial, draw
        )
        if entries > state.scores.size:
            return _NO_ROOM
    operations, step = 0.0, np.int64(0)
    by_size = False  # the tensors that are left share no index
    while step < count - 1:
        if entries == 0 or by_size:
            if not by_size:
                by_size = True
                for tensor in range(count + step):
                    if state.alive[tensor]:
                        rank = np.float64(state.end[tensor] - state.begin[tensor])
                        entries = _push(state, entries, rank, tensor, tensor)
            a = state.pairs[0, 0]
            entries = _pop(state, entries)
            b = state.pairs[0, 0]
        else:
            a, b = state.pairs[0, 0], state.pairs[0, 1]
        entries = _pop(state, entries)
        if not (state.alive[a] and state.alive[b]):
            continue
        _, together = _sizes(network, state, a, b)
        operations += 2.0 ** min(together, np.int64(_MOST))
        if operations >= limit:
            return _TOO_COSTLY
        state.path[step, 0], state.path[step, 1] = a, b
        tensor = count + step
        if not _contract(network, state, a, b, tensor):
            return _NO_ROOM
        step += 1
        if by_size:
            rank = np.float64(state.end[tensor] - state.begin[tensor])
            entries = _push(state, entries, rank, tensor, tensor)
            continue
        first = entries
        entries, draw = _add_pairs(
            network, state, entries, tensor, weight, temperature, key, trial, draw
        )
        if entries > state.scores.size:
            entries = _without_ended(state, first)
            if 2 * entries > state.scores.size:
                return _NO_ROOM
            for k in range(2 * count):
                state.seen[k] = -1
            entries, draw = _add_pairs(
                network, state, entries, tensor, weight, temperature, key, trial, draw
            )
            if entries > state.scores.size:
                return _NO_ROOM
    return operations
