"""Conversion of a noise program for the walk: errors, their probabilities, unitary operations.

Consecutive channels without an operation between them on their qubits are composed first: that
leaves the least weight to the part that is drawn from the state. A composed location has the number
of its first channel.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from noise_models.channel import Channel, identity, tensor
from noise_models.normal_form import NormalForm, norm_based_form, normal_form
from simulators.circuit.analysis.measurements import MeasurementLayout
from simulators.circuit.gates import BARRIER, DELAY, DELAY_DT
from simulators.circuit.ir import Circuit, table_of
from simulators.circuit.noise import NoiseProgram
from simulators.circuit.passes.leakage_flags import MIX, READ, RETURN, FlagChannel
from simulators.trajectories import noise_table
from simulators.trajectories.flags import FlagSteps, can_be_drawn, form_of, with_flags
from simulators.trajectories.mid_circuit import MidCircuit
from simulators.trajectories.pattern_sampling import FIRST_DRAW, ErrorTable, location_draws

_SAME, _SWAPPED, _ON_FIRST, _ON_SECOND = range(4)  # position of a channel's qubits in a term
_LEAST_IDENTITY = 0.95  # with a smaller weight of the identity, shots share little
_NO_WEIGHT = 1e-9  # below it shots share everything
DRAW_COST = 3.0  # in operations of a small state: reduced density matrix, operator, selection
_PASSIVE = (BARRIER, DELAY, DELAY_DT)


class NoisyCircuit(msgspec.Struct, frozen=True, eq=False):
    """A circuit with the unitary parts of its noise, and its errors."""

    circuit: Circuit
    table: noise_table.NoiseTable
    errors: ErrorTable
    fresh: NDArray[np.bool_]  # [operations]: True for a unitary part of noise
    flags: FlagSteps | None = None  # of qubits that leak
    amid: MidCircuit | None = None  # None: no measurement, reset or condition before the end

    @property
    def error_weight(self) -> float:
        """Sum of -log(1 - p) over the locations, each at most 36."""
        kept = np.maximum(1.0 - self.errors.probabilities, 2.0**-53)
        return float(-np.log(kept).sum())


class ComposedChannels(msgspec.Struct, eq=False):
    """Composed channels at one location."""

    number: int
    after: int
    qubits: tuple[int, ...]
    parts: list[tuple[int, int]] = []  # channel and its position, in order

    def add(self, channel: int, qubits: tuple[int, ...]) -> None:
        """Add a channel on the term's qubits, or on one of them."""
        if qubits == self.qubits:
            how = _SAME
        elif len(qubits) == 2:
            how = _SWAPPED
        else:
            how = _ON_FIRST if qubits[0] == self.qubits[0] else _ON_SECOND
        self.parts.append((channel, how))


class NormalForms:
    """Normal forms of composed channels, each made once."""

    def __init__(self, channels: tuple[Channel, ...]) -> None:
        self._channels = channels
        self._made: dict[tuple[tuple[int, int], ...], NormalForm] = {}
        self._drawn: dict[tuple[tuple[int, int], ...], NormalForm] = {}

    def of(self, parts: tuple[tuple[int, int], ...], num_qubits: int) -> NormalForm:
        """Normal form of these channels one after the other."""
        result = self._made.get(parts)
        if result is None:
            result = self._made[parts] = normal_form(self._compose(parts, num_qubits))
        return result

    def drawn(self, parts: tuple[tuple[int, int], ...], num_qubits: int) -> NormalForm:
        """Norm-based form of these channels."""
        result = self._drawn.get(parts)
        if result is None:
            result = self._drawn[parts] = norm_based_form(self._compose(parts, num_qubits))
        return result

    def _compose(self, parts: tuple[tuple[int, int], ...], num_qubits: int) -> Channel:
        full = identity(num_qubits)
        for channel, how in parts:
            full = full.then(self._placed(self._channels[channel], how))
        return full

    @staticmethod
    def _placed(channel: Channel, how: int) -> Channel:
        if how == _SAME:
            return channel
        if how == _SWAPPED:
            return channel.reversed()
        pair = (channel, identity(1)) if how == _ON_FIRST else (identity(1), channel)
        return tensor(*pair)


def locate(
    circuit: Circuit,
    noise: NoiseProgram,
    *,
    local: bool = False,
    draw_cost: float = DRAW_COST,
    separate: bool = False,
    flags: bool = False,
) -> NoisyCircuit | None:
    """Errors of a circuit that its `measurement_layout` with this noise lets be run without
    branching. None if flags of qubits that leak cannot be drawn: it is run as a dynamic one.
    `local`: masks of Paulis refer to the qubits of their location, so the number of qubits is not
    limited. `draw_cost`: time to draw and apply one Kraus operator, in operations. `separate`:
    channels on one qubit are not composed with those on two, and forms are not those for the
    walk. `flags`: of qubits that leak are bits of the shots (`passes.leakage_flags.unflagged`)."""
    terms = _terms(circuit, noise, separate=separate, flags=flags)
    forms = NormalForms(noise.channels)
    steps = [_step_of(term, noise) if flags else None for term in terms]
    others = [term for term, step in zip(terms, steps, strict=True) if step is None]
    built = [forms.of(tuple(t.parts), len(t.qubits)) for t in others]
    if not separate:
        built = walked_forms(others, built, forms, circuit.ops.size, draw_cost)
    if len(others) == len(terms):
        return build(circuit, terms, built, local=local)
    if not can_be_drawn([step for _, step in filter(None, steps)]):
        return None
    rest = iter(built)
    built = [next(rest) if step is None else form_of(step[1].kind, step[1].leak) for step in steps]
    located = build(circuit, terms, built, local=local)
    after = np.array([term.after for term in terms])
    after += np.cumsum([form.unitary is not None for form in built])
    numbers = [term.number for term in terms]
    table, own, moved = with_flags(located.table, after, numbers, steps)
    errors = msgspec.structs.replace(located.errors, inserts=moved[located.errors.inserts])
    return msgspec.structs.replace(located, table=table, errors=errors, flags=own)


def _step_of(term: ComposedChannels, noise: NoiseProgram) -> tuple[int, FlagChannel] | None:
    channel = noise.channels[term.parts[0][0]]
    return (term.qubits[0], channel) if isinstance(channel, FlagChannel) else None


def locate_amid(
    circuit: Circuit,
    noise: NoiseProgram,
    layout: MeasurementLayout,
    operations: NDArray[np.int64],
) -> NoisyCircuit:
    """Errors of a circuit with mid-circuit operations and without loops, as `locate` with `local`
    and `separate`. `layout`: with this noise; `operations`: their numbers in the whole
    circuit."""
    terms = compose(noise, separate=True)
    forms = NormalForms(noise.channels)
    built = [forms.of(tuple(t.parts), len(t.qubits)) for t in terms]
    located = build(circuit, terms, built, local=True)
    amid = MidCircuit.of(layout, noise.readout, operations, located.fresh)
    return msgspec.structs.replace(located, amid=amid)


def walked_forms(
    terms: list[ComposedChannels],
    base_forms: list[NormalForm],
    forms: NormalForms,
    operations: int,
    draw_cost: float,
) -> list[NormalForm]:
    """Forms for the walk of trajectories: norm-based ones at locations whose identity has little
    weight, if these cost less. A shot follows the path of the likeliest terms, which all shots
    share, for a mean part (1 - e^-L) / L of the circuit, L = -sum log p of their probabilities. It
    runs the rest, with the draws there, alone."""
    chosen = [k for k, form in enumerate(base_forms) if form.probabilities[0] < _LEAST_IDENTITY]
    if not chosen:
        return base_forms
    drawn = base_forms.copy()
    for k in chosen:
        drawn[k] = forms.drawn(tuple(terms[k].parts), len(terms[k].qubits))

    def cost(each: list[NormalForm]) -> float:
        weight = -sum(math.log(form.leading_probability) for form in each)
        shared = -math.expm1(-weight) / weight if weight > _NO_WEIGHT else 1.0
        draws = sum(form.rest_weight for form in each)
        return (1.0 - shared) * (operations + draw_cost * draws)

    return drawn if cost(drawn) < cost(base_forms) else base_forms


def _terms(
    circuit: Circuit, noise: NoiseProgram, *, separate: bool, flags: bool
) -> list[ComposedChannels]:
    """Composed channels by the operation they follow."""
    rows = circuit.table.rows[circuit.ops]
    begins = (np.cumsum(rows[:, 1]) - rows[:, 1]).tolist()
    kinds, counts, wires = rows[:, 0].tolist(), rows[:, 1].tolist(), circuit.qubits.tolist()
    done = 0
    open_: dict[int, ComposedChannels] = {}  # by qubit, if no operation came after it
    results: list[ComposedChannels] = []
    for number, (after, channel, first, second) in enumerate(noise.locations.tolist()):
        while done <= after:
            if kinds[done] not in _PASSIVE:
                for q in wires[begins[done] : begins[done] + counts[done]]:
                    open_.pop(q, None)
            done += 1
        qubits = (first,) if second < 0 else (first, second)
        if flags and isinstance(noise.channels[channel], FlagChannel):
            open_.pop(first, None)
            results.append(ComposedChannels(number, after, qubits, [(channel, _SAME)]))
            continue
        term = _joined(number, after, qubits, open_, results, separate=separate)
        term.add(channel, qubits)
    return [term for term in results if term.parts]


def compose(noise: NoiseProgram, *, separate: bool = False) -> list[ComposedChannels]:
    """Compose channels that follow the same operation, independent of the circuit. `separate`: see
    `locate`."""
    open_: dict[int, ComposedChannels] = {}
    results: list[ComposedChannels] = []
    last_after = -2
    for number, (after, channel, first, second) in enumerate(noise.locations.tolist()):
        if after != last_after:
            open_.clear()
            last_after = after
        qubits = (first,) if second < 0 else (first, second)
        if isinstance(noise.channels[channel], FlagChannel):
            open_.clear()
            results.append(ComposedChannels(number, after, qubits, [(channel, _SAME)]))
            continue
        _joined(number, after, qubits, open_, results, separate=separate).add(channel, qubits)
    return [term for term in results if term.parts]


class LocatedError(msgspec.Struct, frozen=True, eq=False):
    """Composed channels of one location in normal form, for runs that draw an error of each shot as
    they come to it: the unitary part, then a random error, Paulis first; if there are Kraus
    operators, the last error is one of these, drawn from the state."""

    number: int  # number of its random draws
    after: int  # the operation that it follows
    qubits: tuple[int, ...]
    unitary: NDArray[np.complex128] | None
    probability: float  # of any error
    edges: NDArray[np.float64]  # cumulative probabilities of the errors, to 1.0
    paulis: tuple[int, ...]  # in the order of `noise_models.channel.paulis`
    kraus: NDArray[np.complex128]  # [operators, 2^q, 2^q]; none: all errors are Paulis

    def struck(
        self, key: tuple[int, int], shots: NDArray[np.int64], passes: Sequence[int] = ()
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Places of the shots that have an error here, and the number of each one's error.
        `passes`: see `draw_number`."""
        number = FIRST_DRAW + 2 * self.number
        rows = np.flatnonzero(location_draws(key, number, passes, shots) < self.probability)
        choice = location_draws(key, number + 1, passes, shots[rows])
        return rows, np.searchsorted(self.edges, choice, side="right")

    def weights(self, rho: NDArray[np.complex128]) -> NDArray[np.float64]:
        """Probability of each Kraus operator if the qubits have this density matrix."""
        result = np.einsum("kab,bc,kac->k", self.kraus, rho, self.kraus.conj()).real
        return np.where(result > _NO_CHANCE * result.sum(), result, 0.0)

    @staticmethod
    def choose(weights: NDArray[np.float64], draws: NDArray[np.float64]) -> NDArray[np.int64]:
        """Kraus operator of each draw, never one of weight 0. `weights`: [operators], or those of
        each draw: [draws, operators]."""
        sums = np.cumsum(weights, axis=-1)
        operator = (sums <= draws[:, None] * sums[..., -1:]).sum(axis=1)
        return np.asarray(np.minimum(operator, np.argmax(sums, axis=-1)))


_NO_CHANCE = 1e-14  # smaller shares are rounding


class LocatedFlag(msgspec.Struct, frozen=True, eq=False):
    """Step of a qubit with a flag (see `passes.leakage`): shots without the flag leak from |1> with
    probability `leak`, those with it have the error `leaked`, which clears it if `clears`."""

    number: int  # number of its random draws
    after: int  # the operation that it follows
    qubit: int
    leak: float = 0.0
    leaked: LocatedError | None = None
    clears: bool = False

    def candidates(
        self, key: tuple[int, int], shots: NDArray[np.int64], passes: Sequence[int] = ()
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Places of the shots without the flag that leak if their state has |1>, and the least
        probability of |1> with which each does. `passes`: see `draw_number`."""
        draws = location_draws(key, FIRST_DRAW + 2 * self.number, passes, shots)
        rows = np.flatnonzero(draws < self.leak)
        return rows, draws[rows] / self.leak if rows.size else draws[rows]


def _flag_step(number: int, after: int, qubit: int, step: FlagChannel) -> LocatedFlag:
    """A step of the flag of a qubit, with the error of shots that have it."""

    def error(probability: float, operators: list[list[list[float]]]) -> LocatedError:
        kraus = np.array(operators, np.complex128)
        edges = np.ones(1)
        return LocatedError(number, after, (qubit,), None, probability, edges, (), kraus)

    if step.kind == MIX:
        thirds = np.array([1.0 / 3.0, 2.0 / 3.0, 1.0])
        none = np.zeros((0, 2, 2), np.complex128)
        mixed = LocatedError(number, after, (qubit,), None, 0.75, thirds, (1, 2, 3), none)
        return LocatedFlag(number, after, qubit, leaked=mixed)
    if step.kind == RETURN:
        return LocatedFlag(number, after, qubit, clears=True)
    if step.kind == READ:
        zero, one = math.sqrt(1.0 - step.leak), math.sqrt(step.leak)
        chosen = error(1.0, [
            [[zero, 0], [0, 0]], [[0, zero], [0, 0]], [[0, 0], [one, 0]], [[0, 0], [0, one]],
        ])  # fmt: skip
        return LocatedFlag(number, after, qubit, leaked=chosen)
    back = step.seep + step.decay
    zero, one = (math.sqrt(p / back) if back else 0.0 for p in (step.decay, step.seep))
    returns = error(back, [
        [[0, 0], [one, 0]], [[0, 0], [0, one]], [[zero, 0], [0, 0]], [[0, zero], [0, 0]],
    ])  # fmt: skip
    return LocatedFlag(number, after, qubit, step.leak, returns, clears=True)


def located_errors(noise: NoiseProgram) -> list[LocatedError]:
    """Errors of a noise program by the operation they follow, in order; flags are qubits."""
    return [each for each in _located(noise, steps=False) if isinstance(each, LocatedError)]


def located_steps(noise: NoiseProgram) -> list[LocatedError | LocatedFlag]:
    """Errors, and steps of flags that are bits of the shots, by the operation they follow."""
    return _located(noise, steps=True)


def _located(noise: NoiseProgram, *, steps: bool) -> list[LocatedError | LocatedFlag]:
    forms = NormalForms(noise.channels)
    results: list[LocatedError | LocatedFlag] = []
    for term in compose(noise):
        step = noise.channels[term.parts[0][0]]
        if steps and isinstance(step, FlagChannel):
            results.append(_flag_step(term.number, term.after, term.qubits[0], step))
            continue
        form = forms.of(tuple(term.parts), len(term.qubits))
        weights = np.append(form.probabilities[1:], form.rest_weight)
        chosen = np.flatnonzero(weights)
        if not chosen.size and form.unitary is None:
            continue
        edges = np.cumsum(weights[chosen]) / max(_TINY, weights.sum())
        edges[-1:] = 1.0
        results.append(
            LocatedError(
                term.number,
                term.after,
                term.qubits,
                form.unitary,
                min(1.0, float(weights.sum())),
                edges,
                tuple(k + 1 for k in chosen.tolist() if k + 1 < form.probabilities.size),
                np.ascontiguousarray(form.rest),
            )
        )
    return results


def _joined(
    number: int,
    after: int,
    qubits: tuple[int, ...],
    open_: dict[int, ComposedChannels],
    terms: list[ComposedChannels],
    *,
    separate: bool = False,
) -> ComposedChannels:
    """Term to which a channel on these qubits is added."""
    before = [open_.get(q) for q in qubits]
    first = before[0]
    if separate and (first is None or len(first.qubits) != len(qubits)):
        pass
    elif first is not None and set(qubits) <= set(first.qubits) and before[-1] is first:
        return first
    term = ComposedChannels(number, after, qubits)
    if len(qubits) == 2 and not separate:
        for q, each in zip(qubits, before, strict=True):
            if each is not None and len(each.qubits) == 1:  # it may act here as well
                for channel, _ in each.parts:
                    term.add(channel, (q,))
                term.number = min(term.number, each.number)
                each.parts = []
    terms.append(term)
    for q in qubits:
        open_[q] = term
    return term


def build(
    circuit: Circuit, terms: list[ComposedChannels], forms: list[NormalForm], *, local: bool = False
) -> NoisyCircuit:
    """Errors of these forms, and the circuit with their unitary parts; see `locate`."""
    unitaries = [
        (term.after, term.qubits, form.unitary)
        for term, form in zip(terms, forms, strict=True)
        if form.unitary is not None
    ]
    expanded, fresh = _expanded(circuit, unitaries)
    ids: dict[int, int] = {}
    distinct: list[NormalForm] = []
    form_of = np.empty(len(forms), np.int64)
    for k, form in enumerate(forms):
        number = ids.setdefault(id(form), len(distinct))
        if number == len(distinct):
            distinct.append(form)
        form_of[k] = number
    # [forms, kinds]: probability of each error; kind 0 is the identity, the last one the rest.
    weights = np.zeros((len(distinct), _KINDS))
    for row, form in zip(weights, distinct, strict=True):
        row[1 : form.probabilities.size] = form.probabilities[1:]
        row[-1] = form.rest_weight
    sets = np.full(len(distinct), noise_table.PAULI)
    drawn = np.flatnonzero(weights[:, -1])
    sets[drawn] = np.arange(drawn.size)
    operator_sets = noise_table.operators([list(distinct[k].rest) for k in drawn.tolist()])
    own, kinds = np.nonzero(weights)  # the errors of each form
    counts = np.bincount(own, minlength=len(distinct))
    begins = np.cumsum(counts) - counts
    totals = weights.sum(axis=1)
    edges = (np.cumsum(weights, axis=1) / np.maximum(totals, _TINY)[:, None])[own, kinds]
    edges[(begins + counts)[counts > 0] - 1] = 1.0

    with_errors = np.flatnonzero(counts[form_of])
    mine = form_of[with_errors]
    firsts = np.cumsum(counts[mine]) - counts[mine]
    which = np.repeat(np.arange(mine.size), counts[mine])  # location of each insert
    each = np.arange(which.size) - firsts[which] + begins[mine][which]  # error of its form
    rows = [
        (term.after, term.qubits[0], term.qubits[1] if len(term.qubits) > 1 else -1, term.number)
        for term in terms
    ]
    lines = np.array(rows, np.int64).reshape(-1, 4)  # operation, qubits (-1: none), number
    # A unitary part is now an operation, and errors follow that of their own term.
    is_turned = np.array([form.unitary is not None for form in forms], np.bool_)
    lines[:, 0] += np.cumsum(is_turned)
    lines = lines[with_errors]
    table = _table(lines[which], kinds[each], sets[mine][which], local=local)
    errors = ErrorTable(
        np.minimum(1.0, totals[mine]), firsts, begins[mine], edges, lines[:, 3].copy()
    )
    return NoisyCircuit(
        expanded, noise_table.NoiseTable(table, operator_sets, lines[which, 3]), errors, fresh
    )


_KINDS = 17  # columns of weights: the Paulis of a pair, and the rest
_TINY = 1e-300


def _table(
    lines: NDArray[np.int64], kinds: NDArray[np.int64], sets: NDArray[np.int64], *, local: bool
) -> NDArray[np.int64]:
    """Inserts of these kinds at the terms of these lines; `sets`: operator set of each one's
    rest."""
    result = np.zeros((kinds.size, noise_table.COLUMNS), np.int64)
    result[:, noise_table.AFTER_OP] = lines[:, 0]
    result[:, noise_table.SET] = noise_table.PAULI
    for j in range(2):
        letter = kinds >> 2 * j & 3
        shift = np.full(kinds.size, j) if local else np.maximum(lines[:, 1 + j], 0)
        result[:, noise_table.X] |= ((letter == 1) | (letter == 2)).astype(np.int64) << shift
        result[:, noise_table.Z] |= (letter >= 2).astype(np.int64) << shift
    if local:
        result[:, noise_table.Q0 :] = lines[:, 1:3]
    rest = kinds == _KINDS - 1
    result[rest, noise_table.SET] = sets[rest]
    result[rest, noise_table.X] = result[rest, noise_table.Z] = 0
    result[rest, noise_table.Q0 :] = lines[rest, 1:3]
    return result


def _expanded(
    circuit: Circuit, unitaries: list[tuple[int, tuple[int, ...], NDArray[np.complex128]]]
) -> tuple[Circuit, NDArray[np.bool_]]:
    """Circuit with these operations, and a mask of them."""
    total = circuit.ops.size
    if not unitaries:
        return circuit, np.zeros(total, np.bool_)
    table = circuit.table
    names, arities = list(table.names), table.rows[:, 1:].tolist()
    matrices, row_of = list(circuit.matrices), dict[bytes, int]()
    rows: list[int] = []
    for _, qubits, matrix in unitaries:
        data = np.ascontiguousarray(matrix, np.complex128).tobytes()
        if data not in row_of:
            row_of[data] = len(names)
            names.append("unitary")
            arities.append([len(qubits), 0, 0])
            matrices.append(data)
        rows.append(row_of[data])
    after = np.array([where for where, _, _ in unitaries])
    counts = table.rows[circuit.ops, 1]
    # Positions in the new list of operation k, and of each unitary, which follows its operation.
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
