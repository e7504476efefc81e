"""Flags of leaked qubits in trajectories that are drawn before they run.

A shot is a candidate to leak at a location with the probability of a leak from |1>; the state then
decides whether it leaks, by the probability of |1>. Which shots are candidates, where a leaked
qubit comes back, what mixes it and how it is read does not depend on the state, so it is drawn
before the run, for each time in which a shot may be leaked: `extended`. These inserts act only on
shots whose flag is set when they come to them; the last operator of their sets is the identity. See
`passes.leakage` for the process, and `prefix_tree.choose` for the flags.

Shots that do not leak have the operator diag(1, r), r^2 = 1 - leak, which is a part of the circuit.
So a candidate leaks with the weight |1> / r^2 beside that of |0>, and a leaked qubit has the
inverse of the operator at later locations. From its leak until it is first mixed, before a gate on
several qubits, it is a factor of the state, whose norm has no effect, and needs no inverse.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Sequence
from typing import Annotated, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from noise_models.channel import paulis
from noise_models.normal_form import NormalForm
from simulators.circuit.passes.leakage_flags import LEAK, MIX, READ, RETURN, FlagChannel
from simulators.compiler.kernel import (
    I64,
    INTS2,
    REALS2,
    integer_fields,
    kernel,
    record,
    structured,
)
from simulators.engine import RunControl
from simulators.trajectories.noise_table import (
    AFTER_OP,
    COLUMNS,
    CONDITIONAL,
    FIRST,
    FLAG_COLUMNS,
    LEAKS,
    Q0,
    Q1,
    RETURNS,
    SET,
    ErrorPatterns,
    NoiseTable,
    Operators,
)
from simulators.trajectories.prefix_tree import RandomDraws, number_of

FIRST_DRAW = 2**58  # number of the draw of a step at location 0
_MOST_LOSS = 600.0  # largest sum of -log r^2: the norm of a state stays a number
_MIXED = 0.75  # probability of a Pauli error of the completely mixed state

# Steps of a qubit: `kind`, `location`, and inserts (-1: none): `candidate` to leak, the first one
# for leaked qubits, and those that bring them back to |1> and to |0>.
_STEP = integer_fields("kind", "location", "candidate", "leaked", "one", "zero")
_INSERTS = ("candidate", "leaked", "one", "zero")

Matrix = NDArray[np.complex128]


class FlagSteps(msgspec.Struct, frozen=True, eq=False):
    """Steps of the flags of all qubits, one qubit after the other, in order of action."""

    steps: NDArray[np.void]  # [steps]: _STEP
    # [steps, 2]: to come back to |1>, to be mixed, to be read as |1>; and to come back to |0>
    probabilities: NDArray[np.float64]
    ends: NDArray[np.int64]  # [steps]: the end of the steps of its qubit
    mean_inserts: float  # of a shot: an upper bound

    def extended(
        self,
        patterns: ErrorPatterns,
        first: int,
        key: tuple[int, int],
        places: NDArray[np.int64],
        control: RunControl,
    ) -> ErrorPatterns:
        """Patterns of shots from `first` on with the inserts of shots that may be leaked. `places`:
        of each insert; `key`: seed and binding. Raises Stopped."""
        steps = self.steps.copy()
        for name in _INSERTS:
            there = steps[name] >= 0
            steps[name][there] = places[steps[name][there]]
        step_of = np.full(places.size + 1, -1)
        there = steps["candidate"] >= 0
        step_of[steps["candidate"][there]] = np.flatnonzero(there)
        count = int((step_of[patterns.entries] >= 0).sum())
        if not count:
            return patterns
        others = _others(places, self.steps)
        table = _StepTable(step_of, steps, others, self.probabilities, self.ends)
        room, draws = 16 * count + 64, RandomDraws.of(key, first)
        while True:
            shots, entries = np.empty(room, np.int64), np.empty(room, np.int64)
            done = np.zeros((steps.size + 1, 2), np.int64)
            found = _draw(
                patterns.ends, patterns.entries, table, draws, done, control.flag, shots, entries
            )
            control.check()
            if found <= room:
                break
            room = found
        sizes = np.diff(patterns.ends) + np.bincount(shots[:found], minlength=patterns.count)
        rows = np.repeat(np.arange(patterns.count), np.diff(patterns.ends))
        keys = np.concatenate((rows, shots[:found])) * places.size
        keys += np.concatenate((patterns.entries, entries[:found]))
        keys.sort()  # rows may be long
        keys %= places.size
        return ErrorPatterns(keys, np.append(0, sizes.cumsum()))


def _others(places: NDArray[np.int64], steps: NDArray[np.void]) -> NDArray[np.int64]:
    """Places of the second and the third insert for leaked qubits: int64 [steps, 2]."""
    first = np.maximum(steps["leaked"], 0)
    last = places.size - 1
    return np.column_stack([places[np.minimum(first + k, last)] for k in (1, 2)])


@record
class _StepTable(NamedTuple):
    """Steps of the flags of all qubits, with places in place of inserts; see `FlagSteps`."""

    step_of: I64  # [places + 1]: the step whose candidate is at a place, or -1
    steps: Annotated[NDArray[np.void], structured(_STEP)]
    others: INTS2  # [steps, 2]: places of the second and the third insert for leaked qubits
    probabilities: REALS2
    ends: I64


@kernel("I64 I64 _StepTable RandomDraws INTS2 I64 I64 I64 -> INT", group="trajectories")
def _draw(ends, entries, table, draws, done, stop, shots, places):  # type: ignore[no-untyped-def]
    """Draw the inserts of shots that may be leaked, and return their number; those beyond the room
    of the arrays are counted and not written. done [steps, 2]: scratch, zeros; for the end of a
    qubit's steps: a row, and the step up to which its inserts are drawn. stop[0]: whether to return
    before all are drawn."""
    step_of, others, probabilities = table.step_of, table.others, table.probabilities
    result = np.int64(0)
    for row in range(ends.size - 1):
        if stop[0]:
            break
        for k in range(ends[row], ends[row + 1]):
            begin = step_of[entries[k]]
            if begin < 0:
                continue
            end = table.ends[begin]
            if done[end, 0] == row + 1 and begin < done[end, 1]:
                continue
            step = begin + 1
            ahead = k + 1
            is_open, mixed = 1, 0
            while step < end and is_open:
                each = table.steps[step]
                u = 1.0
                if probabilities[step, 0] + probabilities[step, 1] > 0.0:
                    draw = np.uint64(FIRST_DRAW) + np.uint64(each.location)
                    u = number_of(draws.seed, draws.binding, draw, np.int64(draws.first + row))
                place = back = np.int64(-1)
                if each.kind == LEAK:
                    place = each.leaked if mixed else np.int64(-1)
                    if u < probabilities[step, 0]:
                        back = each.one
                    elif u < probabilities[step, 0] + probabilities[step, 1]:
                        back = each.zero
                    is_open = int(back < 0)
                    candidate = each.candidate
                    while ahead < ends[row + 1] and entries[ahead] < candidate:
                        ahead += 1
                    if ahead < ends[row + 1] and entries[ahead] == candidate:
                        is_open = 1
                elif each.kind == MIX:
                    mixed = 1
                    if u < probabilities[step, 0]:
                        which = np.int64(3.0 * u / probabilities[step, 0])
                        place = each.leaked if which == 0 else others[step, which - 1]
                else:
                    is_one = u < probabilities[step, 0]
                    place = others[step, 0] if is_one else each.leaked
                for drawn in (place, back):
                    if drawn >= 0:
                        if result < shots.size:
                            shots[result], places[result] = row, drawn
                        result += 1
                step += 1
            done[end, 0], done[end, 1] = row + 1, step
    return result


def _mean_inserts(qubits: Iterable[list[FlagChannel]]) -> float:
    """Mean number of inserts of a shot for leaked qubits, or more: times in which a qubit may be
    leaked are counted as if they did not overlap."""
    result = 0.0
    for steps in qubits:
        mixed = alone = 0.0  # inserts from a step on, of a qubit that is mixed or is not
        for channel in reversed(steps):
            if channel.kind == MIX:
                mixed += _MIXED
                alone = mixed
            elif channel.kind == READ:
                mixed, alone = mixed + 1.0, alone + 1.0
            else:
                result += channel.leak * alone
                back = channel.seep + channel.decay
                mixed = float(channel.leak > 0.0) + back + (1.0 - back) * mixed
                alone = back + (1.0 - back) * alone
    return result


@functools.lru_cache(maxsize=256)
def form_of(kind: int, leak: float) -> NormalForm:
    """Form of a step for `locations.build`: a candidate to leak is an error whose operators are
    |1><1| and |0><0|; the unitary part is what qubits have that do not leak."""
    none = np.zeros((0, 2, 2), np.complex128)
    if kind != LEAK or not leak:
        return NormalForm(None, np.array([1.0, 0.0, 0.0, 0.0]), none, 0.0)
    rest = np.array([np.diag([0.0, 1.0]), np.diag([1.0, 0.0])], np.complex128)
    stays = np.diag([1.0, math.sqrt(1.0 - leak)]).astype(np.complex128)
    return NormalForm(stays, np.array([1.0 - leak, 0.0, 0.0, 0.0]), rest, leak)


def can_be_drawn(steps: Sequence[FlagChannel]) -> bool:
    """Return whether shots can be drawn before they run: no flag is cleared by a reset, and the
    norm of a state stays a number."""
    if any(each.kind == RETURN or (each.kind == LEAK and each.leak >= 1.0) for each in steps):
        return False
    loss = -sum(math.log1p(-each.leak) for each in steps if each.kind == LEAK)
    return loss < _MOST_LOSS


class _Inserts:
    """Inserts of a table, and operator sets, to which those for leaked qubits are added."""

    def __init__(self, inserts: NoiseTable) -> None:
        self._old = inserts
        self._sets = inserts.operators.sets.tolist()
        self._matrices = [inserts.operators.matrices.copy()]
        self._effects = [inserts.operators.effects.copy()]
        self._size = inserts.operators.matrices.size
        self._known: dict[tuple[str, float], int] = {}
        self.rows: list[tuple[int, ...]] = []  # of the table, and columns of flags
        self.flags = np.zeros((len(inserts.table), FLAG_COLUMNS), np.int64)

    def candidate(self, insert: int, qubit: int, step: int, leak: float) -> None:
        """Make an insert one of candidates, in place: a shot leaks, or stays as it is."""
        self.flags[insert] = LEAKS, qubit, step
        at = int(self._old.operators.sets[self._old.table[insert, SET], FIRST])
        self._effects[0][at : at + 8] = _floats(np.diag([0.0, 1.0 / (1.0 - leak)]))
        self._matrices[0][at + 8 : at + 16] = _floats(np.eye(2))

    def add(
        self, kind: int, name: str, value: float, members: list[Matrix], place: tuple[int, ...]
    ) -> int:
        """Add an insert with these operators and the identity; return its number. `place`: the
        operation before it, qubit, step."""
        after, qubit, step = place
        which = self._known.get((name, value))
        if which is None:
            which = self._known[name, value] = len(self._sets)
            self._sets.append([self._size, 1, len(members) + 1])
            for each in members:
                self._matrices.append(_floats(each))
                self._effects.append(_floats(each.conj().T @ each))
            self._matrices.append(_floats(np.eye(2)))
            self._effects.append(np.zeros(8))  # only for shots without the flag
            self._size += 8 * (len(members) + 1)
        row = [0] * COLUMNS
        row[AFTER_OP], row[SET], row[Q0], row[Q1] = after, which, qubit, -1
        self.rows.append((*row, kind, qubit, step))
        return len(self._old.table) + len(self.rows) - 1

    def table(self, order: NDArray[np.int64], numbers: NDArray[np.int64]) -> NoiseTable:
        """All inserts in this order. `numbers`: of the draws of each."""
        more = np.array(self.rows, np.int64).reshape(-1, COLUMNS + FLAG_COLUMNS)
        rows = np.concatenate((self._old.table, more[:, :COLUMNS]))
        flags = np.concatenate((self.flags, more[:, COLUMNS:]))
        operators = Operators(
            np.array(self._sets, np.int64).reshape(-1, 3),
            np.concatenate(self._matrices), np.concatenate(self._effects),
        )  # fmt: skip
        return NoiseTable(rows[order], operators, numbers[order], flags[order])


def _floats(matrix: NDArray[np.complexfloating] | NDArray[np.floating]) -> NDArray[np.float64]:
    return np.ascontiguousarray(matrix, np.complex128).view(np.float64).ravel()


def with_flags(
    inserts: NoiseTable,
    after: NDArray[np.int64],
    numbers: Sequence[int],
    steps: Sequence[tuple[int, FlagChannel] | None],
) -> tuple[NoiseTable, FlagSteps, NDArray[np.int64]]:
    """Table with the inserts for leaked qubits, the steps of the flags, and the new number of each
    old insert. For each term in order of action: `after`, the operation that its errors follow;
    `numbers`, the number of its draws; `steps`: its qubit and channel; None: not a step."""
    built = _Inserts(inserts)
    term_of = {number: k for k, number in enumerate(numbers)}
    old_terms = [term_of[number] for number in inserts.draw_locations.tolist()]
    own = {term: insert for insert, term in enumerate(old_terms)}  # of candidates: one
    new_terms: list[int] = []
    of_qubit: dict[int, list[tuple[dict[str, int], tuple[float, float]]]] = {}
    letters = [np.ascontiguousarray(paulis(1)[k]) for k in (1, 2, 3)]
    resets = [[_unit(bit, 0), _unit(bit, 1)] for bit in range(2)]
    for term, step in enumerate(steps):
        if step is None:
            continue
        qubit, channel = step
        place = (int(after[term]), qubit, term)
        line = dict.fromkeys(_INSERTS, -1) | {"kind": channel.kind, "location": numbers[term]}
        value = (0.0, 0.0)
        before = len(built.rows)
        if channel.kind == MIX:
            added = [
                built.add(CONDITIONAL, "pauli", k, [letter], place)
                for k, letter in enumerate(letters)
            ]
            line["leaked"], value = added[0], (_MIXED, 0.0)
        elif channel.kind == READ:
            added = [built.add(RETURNS, "reset", k, each, place) for k, each in enumerate(resets)]
            line["leaked"], value = added[0], (channel.leak, 0.0)
        else:
            if channel.leak:
                line["candidate"] = own[term]
                built.candidate(own[term], qubit, term, channel.leak)
                inverse = np.diag([1.0, (1.0 - channel.leak) ** -0.5]).astype(np.complex128)
                line["leaked"] = built.add(CONDITIONAL, "inverse", channel.leak, [inverse], place)
            value = channel.seep, channel.decay
            for name, bit, back in (("one", 1, channel.seep), ("zero", 0, channel.decay)):
                if back:
                    line[name] = built.add(RETURNS, "reset", bit, resets[bit], place)
        new_terms += [term] * (len(built.rows) - before)
        of_qubit.setdefault(qubit, []).append((line, value))
    terms = np.array(old_terms + new_terms, np.int64)
    order = np.argsort(terms, kind="stable")
    moved = np.empty_like(order)
    moved[order] = np.arange(order.size)
    table = built.table(order, np.array(numbers, np.int64)[terms])
    names = _STEP.names or ()
    rows = [tuple(map(line.get, names)) for each in of_qubit.values() for line, _ in each]
    lines = np.array(rows, _STEP)
    for name in _INSERTS:
        there = lines[name] >= 0
        lines[name][there] = moved[lines[name][there]]
    values = np.array([value for each in of_qubit.values() for _, value in each])
    sizes = np.array([len(each) for each in of_qubit.values()])
    channels: dict[int, list[FlagChannel]] = {}
    for qubit, channel in filter(None, steps):
        channels.setdefault(qubit, []).append(channel)
    ends = np.repeat(sizes.cumsum(), sizes)
    return table, FlagSteps(lines, values, ends, _mean_inserts(channels.values())), moved


def _unit(row: int, column: int) -> Matrix:
    result = np.zeros((2, 2), np.complex128)
    result[row, column] = 1.0
    return result
