"""Plan of an estimator's PUB: the observables to compute for each set of values.

A PUB broadcasts its observables against its sets of values. All observables of one submission are
computed for all of its sets of values, so sets that need the same observables form a group. If that
would make many groups, and computing all pairs costs little more, there is one group.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import product
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from qiskit.primitives.containers.estimator_pub import EstimatorPub

from simenv.errors import LimitExceededError

MOST_OBSERVABLES = 4_096  # of one submission
MOST_TERMS = 100_000
_EXCESS = 16  # all pairs are computed if they are at most this multiple of the requested pairs
_FEW = 4_096  # or if they are at most this many

# Each letter of Qiskit's observables as a sum of Paulis, and the factor of each.
_LETTERS = {
    **{letter: ((letter, 1.0),) for letter in "IXYZ"},
    "0": (("I", 0.5), ("Z", 0.5)),
    "1": (("I", 0.5), ("Z", -0.5)),
    "+": (("I", 0.5), ("X", 0.5)),
    "-": (("I", 0.5), ("X", -0.5)),
    "r": (("I", 0.5), ("Y", 0.5)),
    "l": (("I", 0.5), ("Y", -0.5)),
}


class PubGroup(NamedTuple):
    """One submission: `observables` for the sets of values `rows`. Entry k of its result goes to
    `places[k]` of the flat PUB, from its row `row_of[k]` and its observable `column_of[k]`."""

    rows: NDArray[np.intp]
    observables: list[int]
    places: NDArray[np.intp]
    row_of: NDArray[np.intp]
    column_of: NDArray[np.intp]


_FIRST = np.zeros(1, np.intp)
_SINGLE = PubGroup(_FIRST, [0], _FIRST, _FIRST, _FIRST)


class PubPlan(NamedTuple):
    """Submissions of a PUB. `start`: float64 [size of the PUB], its values before those of the
    groups are entered."""

    observables: list[dict[str, float]]  # Pauli sums, in C order of the observables' array
    groups: list[PubGroup]
    start: NDArray[np.float64]


def plan_of(pub: EstimatorPub) -> PubPlan:
    """Plan the submissions of a PUB. Raises LimitExceededError for an observable of too many
    terms."""
    settings = pub.observables
    listed: Any = [settings.tolist()] if settings.shape == () else settings.ravel().tolist()
    observables = [_paulis(each) for each in listed]
    if pub.circuit.num_qubits and pub.size == settings.size == pub.parameter_values.size == 1:
        return PubPlan(observables, [_SINGLE], np.zeros(1))
    columns = np.broadcast_to(np.arange(settings.size).reshape(settings.shape), pub.shape).ravel()
    sets = pub.parameter_values
    rows = np.broadcast_to(np.arange(sets.size).reshape(sets.shape), pub.shape).ravel()
    if not pub.circuit.num_qubits:  # all terms are the number 1
        sums = np.array([sum(each.values()) for each in observables])
        return PubPlan(observables, [], sums[columns])
    groups = list(_groups(rows, columns, observables))
    return PubPlan(observables, groups, np.zeros(columns.size))


def _groups(
    rows: NDArray[np.intp], columns: NDArray[np.intp], observables: list[dict[str, float]]
) -> Iterator[PubGroup]:
    if not rows.size:
        return
    places = np.arange(rows.size)
    pairs = np.unique(rows).size * np.unique(columns).size
    if pairs <= max(_FEW, _EXCESS * rows.size):
        yield from _within_limits(rows, columns, places, observables)
        return
    needed: dict[int, set[int]] = {}
    for row, column in zip(rows.tolist(), columns.tolist(), strict=True):
        needed.setdefault(row, set()).add(column)
    alike: dict[frozenset[int], list[int]] = {}
    for row, wanted in needed.items():
        alike.setdefault(frozenset(wanted), []).append(row)
    for members in alike.values():
        mine = np.isin(rows, members)
        yield from _within_limits(rows[mine], columns[mine], places[mine], observables)


def _within_limits(
    rows: NDArray[np.intp],
    columns: NDArray[np.intp],
    places: NDArray[np.intp],
    observables: list[dict[str, float]],
) -> Iterator[PubGroup]:
    """Divide a group into several with a part of the observables each, if it exceeds the limits of
    a submission."""
    part: list[int] = []
    terms = 0
    for column in [*np.unique(columns).tolist(), -1]:
        size = len(observables[column]) if column >= 0 else 0
        if part and (column < 0 or len(part) >= MOST_OBSERVABLES or terms + size > MOST_TERMS):
            mine = np.isin(columns, part)
            used = np.unique(rows[mine])
            yield PubGroup(
                used,
                part,
                places[mine],
                np.searchsorted(used, rows[mine]),
                np.searchsorted(np.array(part), columns[mine]),
            )
            part, terms = [], 0
        part.append(column)
        terms += size


def _paulis(observable: dict[str, float]) -> dict[str, float]:
    """Convert an observable to a sum of Paulis: projectors on eigenstates, which Qiskit's labels
    may hold, are expanded."""
    if all(not label.strip("IXYZ") for label in observable):
        return observable
    total = sum(math.prod(len(_LETTERS[letter]) for letter in label) for label in observable)
    if total > MOST_TERMS:
        raise LimitExceededError(
            f"an observable of {total} Pauli strings; the limit is {MOST_TERMS}",
            hint="fewer projectors (0, 1, +, -, r, l) in one term",
        )
    entries: dict[str, float] = {}
    for label, weight in observable.items():
        for letters in product(*(_LETTERS[letter] for letter in label)):
            key = "".join(letter for letter, _ in letters)
            factor = math.prod(factor for _, factor in letters)
            entries[key] = entries.get(key, 0.0) + weight * factor
    return entries
