"""From a noise program to what the walk reads: errors, their probabilities, unitary operations.

Channels with nothing between them on their qubits are composed first: that loses the least weight
to the part that is drawn from the state. A composed location has the number of its first channel.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import msgspec
import numpy as np
from numpy.typing import NDArray

from noise_models.channel import Channel, identity, tensor
from noise_models.normal_form import NormalForm, norm_based_form, normal_form
from simulators.circuit.gates import BARRIER, DELAY, DELAY_DT, MEASURE, RESET
from simulators.circuit.ir import Circuit, table_of
from simulators.circuit.noise import NoiseProgram
from simulators.trajectories.noise_table import (
    COLUMNS,
    PAULI,
    NoiseTable,
    operators,
)
from simulators.trajectories.pattern_sampling import ErrorTable

_SAME, _SWAPPED, _ON_FIRST, _ON_SECOND = range(4)  # how a channel acts on the qubits of a term
_LEAST_IDENTITY = 0.95  # a smaller weight of the identity leaves little to share
_NO_WEIGHT = 1e-9  # below it all shots share all
DRAW_COST = 3.0  # of a small state: its reduced density matrix, an operator, and their selection
_PASSIVE = (BARRIER, DELAY, DELAY_DT)


class NoisyCircuit(msgspec.Struct, frozen=True, eq=False):
    """A circuit with the unitary parts of its noise, and its errors."""

    circuit: Circuit
    table: NoiseTable
    errors: ErrorTable
    fresh: NDArray[np.bool_]  # [operations]: is it a unitary part?

    @property
    def error_weight(self) -> float:
        """Sum of -log(1 - p) over the locations, each at most 36."""
        kept = np.maximum(1.0 - self.errors.probabilities, 2.0**-53)
        return float(-np.log(kept).sum())


class Term:
    """Channels composed at one location."""

    __slots__ = ("after", "number", "parts", "qubits")

    def __init__(self, number: int, after: int, qubits: tuple[int, ...]) -> None:
        self.number = number
        self.after = after
        self.qubits = qubits
        self.parts: list[tuple[int, int]] = []  # channel and how it acts, in order

    def add(self, channel: int, qubits: tuple[int, ...]) -> None:
        """A channel on its qubits, or one of them."""
        if qubits == self.qubits:
            how = _SAME
        elif len(qubits) == 2:
            how = _SWAPPED
        else:
            how = _ON_FIRST if qubits[0] == self.qubits[0] else _ON_SECOND
        self.parts.append((channel, how))


class Forms:
    """Normal forms of composed channels, each made once."""

    def __init__(self, channels: tuple[Channel, ...]) -> None:
        self._channels = channels
        self._made: dict[tuple[tuple[int, int], ...], NormalForm] = {}
        self._drawn: dict[tuple[tuple[int, int], ...], NormalForm] = {}

    def of(self, parts: tuple[tuple[int, int], ...], num_qubits: int) -> NormalForm:
        """The normal form of these channels one after the other."""
        found = self._made.get(parts)
        if found is None:
            found = self._made[parts] = normal_form(self._whole(parts, num_qubits))
        return found

    def drawn(self, parts: tuple[tuple[int, int], ...], num_qubits: int) -> NormalForm:
        """Their norm-based form."""
        found = self._drawn.get(parts)
        if found is None:
            found = self._drawn[parts] = norm_based_form(self._whole(parts, num_qubits))
        return found

    def _whole(self, parts: tuple[tuple[int, int], ...], num_qubits: int) -> Channel:
        whole = identity(num_qubits)
        for channel, how in parts:
            whole = whole.then(self._placed(self._channels[channel], how))
        return whole

    @staticmethod
    def _placed(channel: Channel, how: int) -> Channel:
        if how == _SAME:
            return channel
        if how == _SWAPPED:
            return channel.reversed()
        pair = (channel, identity(1)) if how == _ON_FIRST else (identity(1), channel)
        return tensor(*pair)


def locate(
    circuit: Circuit, noise: NoiseProgram, *, local: bool = False, draw_cost: float = DRAW_COST
) -> NoisyCircuit | None:
    """The errors of a circuit without mid-circuit operations. None if a channel acts on a measured
    qubit and another one, or on one that is reset first: such a circuit is run as a dynamic one.

    `local`: masks of Paulis count the qubits of their location, so there may be any number.
    `draw_cost`: operations that take as long as to draw one Kraus operator and apply it.
    """
    terms = _terms(circuit, noise)
    if terms is None:
        return None
    forms = Forms(noise.channels)
    made = [forms.of(tuple(t.parts), len(t.qubits)) for t in terms]
    made = walked_forms(terms, made, forms, circuit.ops.size, draw_cost)
    return build(circuit, terms, made, local=local)


def walked_forms(
    terms: list[Term], made: list[NormalForm], forms: Forms, operations: int, draw_cost: float
) -> list[NormalForm]:
    """The forms that trajectories walk: norm-based ones at locations whose identity has little
    weight, where these cost less.

    A shot follows the path of the likeliest terms, which all shots share, for a mean part
    (1 - e^-L) / L of the circuit, L = -sum log p of their probabilities. It runs the rest and the
    draws there for itself.
    """
    chosen = [k for k, form in enumerate(made) if form.probabilities[0] < _LEAST_IDENTITY]
    if not chosen:
        return made
    drawn = made.copy()
    for k in chosen:
        drawn[k] = forms.drawn(tuple(terms[k].parts), len(terms[k].qubits))

    def cost(each: list[NormalForm]) -> float:
        weight = -sum(math.log(form.leading_probability) for form in each)
        shared = -math.expm1(-weight) / weight if weight > _NO_WEIGHT else 1.0
        draws = sum(form.rest_weight for form in each)
        return (1.0 - shared) * (operations + draw_cost * draws)

    return drawn if cost(drawn) < cost(made) else made


def _terms(circuit: Circuit, noise: NoiseProgram) -> list[Term] | None:
    """Composed channels by the operation they follow."""
    codes = circuit.table.rows[circuit.ops]
    begins = np.cumsum(codes[:, 1]) - codes[:, 1]
    kinds, counts, wires = codes[:, 0].tolist(), codes[:, 1].tolist(), circuit.qubits.tolist()
    done = 0
    ended, begun = set[int](), set[int]()
    resets = _resets(kinds, counts, wires)
    open_: dict[int, Term] = {}  # by qubit, if no operation came after it
    found: list[Term] = []
    for number, (after, channel, one, two) in enumerate(noise.locations.tolist()):
        while done <= after:
            kind, at = kinds[done], int(begins[done])
            if kind not in _PASSIVE:
                for q in wires[at : at + counts[done]]:
                    open_.pop(q, None)
                    if kind == MEASURE:
                        ended.add(q)
                    elif kind == RESET:
                        begun.add(q)
            done += 1
        qubits = (one,) if two < 0 else (one, two)
        gone = [q in ended or (q in resets and q not in begun) for q in qubits]
        if all(gone):
            continue
        if any(gone):
            return None
        term = _joined(number, after, qubits, open_, found)
        term.add(channel, qubits)
    return [term for term in found if term.parts]


def compose(noise: NoiseProgram) -> list[Term]:
    """Channels composed where they follow the same operation, whatever the circuit is."""
    open_: dict[int, Term] = {}
    found: list[Term] = []
    here = -2
    for number, (after, channel, one, two) in enumerate(noise.locations.tolist()):
        if after != here:
            open_.clear()
            here = after
        qubits = (one,) if two < 0 else (one, two)
        _joined(number, after, qubits, open_, found).add(channel, qubits)
    return [term for term in found if term.parts]


def _resets(kinds: list[int], counts: list[int], wires: list[int]) -> set[int]:
    """Qubits that are reset before anything else."""
    found, touched = set[int](), set[int]()
    at = 0
    for kind, count in zip(kinds, counts, strict=True):
        if kind == RESET and wires[at] not in touched:
            found.add(wires[at])
        if kind not in _PASSIVE:
            touched.update(wires[at : at + count])
        at += count
    return found


def _joined(
    number: int, after: int, qubits: tuple[int, ...], open_: dict[int, Term], found: list[Term]
) -> Term:
    """The term that a channel on these qubits becomes part of."""
    before = [open_.get(q) for q in qubits]
    first = before[0]
    if first is not None and set(qubits) <= set(first.qubits) and before[-1] is first:
        return first
    term = Term(number, after, qubits)
    if len(qubits) == 2:
        for q, each in zip(qubits, before, strict=True):
            if each is not None and len(each.qubits) == 1:  # it acts here as well as there
                for channel, _ in each.parts:
                    term.add(channel, (q,))
                term.number = min(term.number, each.number)
                each.parts = []
    found.append(term)
    for q in qubits:
        open_[q] = term
    return term


def build(
    circuit: Circuit, terms: Iterable[Term], forms: list[NormalForm], *, local: bool = False
) -> NoisyCircuit:
    """The errors of these forms, and the circuit with their unitary parts; see `locate`."""
    rows: list[NDArray[np.int64]] = []
    kinds: dict[int, tuple[int, int]] = {}  # of a form: first edge, kinds of errors
    edges: list[float] = []
    sets: list[NDArray[np.complex128]] = []
    set_of: dict[int, int] = {}
    unitaries: list[tuple[int, tuple[int, ...], NDArray[np.complex128]]] = []
    probabilities, first_insert, begins, numbers = [], [], [], []
    count = 0
    for term, form in zip(terms, forms, strict=True):
        if form.unitary is not None:
            unitaries.append((term.after, term.qubits, form.unitary))
        weights = np.append(form.probabilities[1:], form.rest_weight)
        chosen = np.flatnonzero(weights)
        if not chosen.size:
            continue
        if id(form) not in kinds:
            kinds[id(form)] = len(edges), chosen.size
            edges += np.append(np.cumsum(weights[chosen])[:-1] / weights.sum(), 1.0).tolist()
            if form.rest_weight:
                set_of[id(form)] = len(sets)
                sets.append(form.rest)
        rest = set_of.get(id(form), PAULI)
        rows.append(_rows(term, chosen + 1, len(form.probabilities), rest, local=local))
        rows[-1][:, 0] += len(unitaries)  # those that are operations now, up to this term
        probabilities.append(min(1.0, float(weights.sum())))
        first_insert.append(count)
        begins.append(kinds[id(form)][0])
        numbers.append(np.full(chosen.size, term.number))
        count += chosen.size
    table = np.concatenate([np.zeros((0, COLUMNS), np.int64), *rows])
    expanded, fresh = _expanded(circuit, unitaries)
    located = np.concatenate([np.zeros(0, np.int64), *numbers])
    errors = ErrorTable(
        np.array(probabilities, np.float64),
        np.array(first_insert, np.int64),
        np.array(begins, np.int64),
        np.array(edges, np.float64),
        np.array([int(part[0]) for part in numbers], np.int64),
    )
    return NoisyCircuit(
        expanded,
        NoiseTable(table, operators([list(members) for members in sets]), located),
        errors,
        fresh,
    )


def _rows(
    term: Term, kinds: NDArray[np.int64], size: int, rest: int, *, local: bool
) -> NDArray[np.int64]:
    """The inserts of a term: kinds 1 .. size - 1 are Paulis, `size` is the rest."""
    found = np.zeros((kinds.size, COLUMNS), np.int64)
    two = term.qubits[1] if len(term.qubits) > 1 else -1
    found[:, 0] = term.after
    found[:, 1] = PAULI
    if local:
        found[:, 4], found[:, 5] = term.qubits[0], two
    for j, q in enumerate(range(len(term.qubits)) if local else term.qubits):
        letter = kinds >> 2 * j & 3
        found[:, 2] |= ((letter == 1) | (letter == 2)).astype(np.int64) << q
        found[:, 3] |= (letter >= 2).astype(np.int64) << q
    last = kinds == size
    found[last] = (term.after, rest, 0, 0, term.qubits[0], two)
    return found


def _expanded(
    circuit: Circuit, unitaries: list[tuple[int, tuple[int, ...], NDArray[np.complex128]]]
) -> tuple[Circuit, NDArray[np.bool_]]:
    """The circuit with these operations, and which of its operations they are."""
    total = circuit.ops.size
    if not unitaries:
        return circuit, np.zeros(total, np.bool_)
    table = circuit.table
    names, arities = list(table.names), table.rows[:, 1:].tolist()
    matrices, known = list(circuit.matrices), dict[bytes, int]()
    rows: list[int] = []
    for _, qubits, matrix in unitaries:
        data = np.ascontiguousarray(matrix, np.complex128).tobytes()
        if data not in known:
            known[data] = len(names)
            names.append("unitary")
            arities.append([len(qubits), 0, 0])
            matrices.append(data)
        rows.append(known[data])
    after = np.array([where for where, _, _ in unitaries])
    counts = table.rows[circuit.ops, 1]
    # Positions in the new list: of operation k, and of each unitary, which comes after its one.
    moved = np.arange(total) + np.searchsorted(after, np.arange(total), side="left")
    placed = after + 1 + np.arange(after.size)
    ops = np.empty(total + after.size, np.uint16)
    ops[moved], ops[placed] = circuit.ops, rows
    fresh = np.zeros(ops.size, np.bool_)
    fresh[placed] = True
    ends = np.cumsum(counts)
    wires = np.split(circuit.qubits, ends[:-1]) if total else []
    pieces: list[NDArray[np.uint16]] = [np.zeros(0, np.uint16)] * ops.size
    for k, piece in zip(moved.tolist(), wires, strict=True):
        pieces[k] = piece
    for k, (_, qubits, _) in zip(placed.tolist(), unitaries, strict=True):
        pieces[k] = np.array(qubits, np.uint16)
    expanded = msgspec.structs.replace(
        circuit,
        table=table_of(tuple(names), np.array(arities, np.uint16).tobytes()),
        ops_data=ops.tobytes(),
        qubits_data=np.concatenate(pieces).tobytes(),
        matrices=tuple(matrices),
    )
    return expanded, fresh
