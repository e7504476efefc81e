"""Runs of circuits whose qubits have detunings that are constant during a shot.

The circuit has its rotations as gates with free parameters (`passes.detuning`); values of the
detunings are bindings of them. What a circuit does is, in the detuning x of one qubit in units of
its standard deviation, a sum of exp(i a x) with |a| at most the largest phase of the qubit. A
quadrature of K nodes that integrates all of these is the Gaussian mixture, whatever the circuit
does: exact results are weighted sums over a grid of all qubits (`quadrature.exact_grid`), whose
error they state. For sampled results the nodes of each shot are drawn by their weights, and shots
with equal nodes run together; a qubit that needs many nodes, or that rotates in a loop, has
Gaussian detunings instead. Qubits whose rotations the outputs do not depend on are left out. Shots
of parts that no gate and no channel
connects are drawn part by part: each has sets of detunings of its own; exact probabilities
and means of Pauli strings are products of those of the parts.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from simulators import engine as engines
from simulators.circuit.analysis.measurements import TERMINAL, measurement_layout
from simulators.circuit.analysis.profile import max_sets
from simulators.circuit.analysis.quadrature import (
    EXACT_ERRORS,
    MOST_NODES,
    SAMPLED_ERROR,
    Grid,
    exact_grid,
    nodes,
    reaches,
)
from simulators.circuit.gates import MEASURE, RESET
from simulators.circuit.ir import Circuit, num_words, used_qubits
from simulators.circuit.noise import Detunings, NoiseProgram
from simulators.circuit.passes.components import Subcircuit, active_part, split
from simulators.circuit.passes.light_cone import OutputSupport
from simulators.circuit.passes.rotated_circuit import RotatedCircuit, inserted
from simulators.engine import (
    BINDINGS,
    COMPONENTS,
    SAMPLED,
    EngineResult,
    PauliSum,
    Request,
    RunControl,
    RunOptions,
    ShotValues,
)
from simulators.errors import Unsupported
from simulators.execution import packing, part_caches, requests
from simulators.execution.readout import ReadoutStage

MAX_OUTCOMES = 1 << 24  # of exact probabilities
_BINDINGS_AT_ONCE = 1 << 16  # values of parameters
_MOST_NUMBERS = 1 << 62  # of sets of detunings
_ROUNDING = 1e-15  # smaller sums of weights of both signs are 0
_SETS, _PIECES = 0x71756173, 0x71756174  # domains of random numbers

Array = NDArray[np.float64]


class _Pieces(msgspec.Struct, frozen=True, eq=False):
    """Unconnected parts of a circuit with their plans; (): the circuit is run as one."""

    parts: tuple[tuple[Subcircuit, engines.Plan], ...] = ()
    readout: ReadoutStage | None = None  # of joint records


class DetunedPlan:
    """Plan of a circuit with detunings: that of its rotated form, by the same engine."""

    is_hidden = True  # a mixture over what is hidden during a shot

    def __init__(
        self, engine: engines.Engine, circuit: Circuit, noise: NoiseProgram, options: RunOptions
    ) -> None:
        assert noise.detunings is not None
        self._engine, self._options = engine, options
        self._detunings = noise.detunings
        self._circuit, self._noise = circuit, noise
        self._rotated = inserted(circuit, noise)
        self._plan = engine.plan(self._rotated.circuit, self._rotated.noise, options)
        self._acting: part_caches.SupportCache[NDArray[np.bool_]] = part_caches.SupportCache()
        self._pieces: part_caches.SupportCache[_Pieces] = part_caches.SupportCache()

    @property
    def memory_bytes(self) -> int:
        own = self._plan.memory_bytes + 24 * self._detunings.angles.size
        pieces = (plan for each in self._pieces.values() for _, plan in each.parts)
        return own + sum(plan.memory_bytes for plan in pieces)

    def run(
        self,
        engine: engines.Engine,
        circuit: Circuit,
        request: Request,
        options: RunOptions,
        control: RunControl,
    ) -> EngineResult:
        """Run as `Engine.run`. Raises Unsupported for an exact result that needs too many nodes."""
        number = requests.num_bindings(circuit, request)
        if SAMPLED.issuperset(request.outputs):
            pieces = self._pieces.of(circuit, request, self._split)
            if pieces.parts:
                return self._joined(engine, pieces, circuit, request, control)
        pieces = _Pieces()
        means = request.outputs == ("expectation",) and not request.shots
        if means or (request.outputs == ("probabilities",) and circuit.clbits_data):
            pieces = self._pieces.of(circuit, request, self._split)
        acting = self._acting.of(circuit, request, self._support)
        run = _Run(engine, self._plan, self._rotated, self._detunings, acting, options, control)
        results = []
        for row in control.divide(number, BINDINGS):
            if pieces.parts and means:
                result = run.means(pieces, circuit, request, row)
            elif pieces.parts:
                result = run.product(pieces, circuit, request, row)
            else:
                result = run.row(circuit, request, row)
            if result is None:  # another rank has the result
                continue
            results.append(result)
        return EngineResult.joined(results) if results else None  # type: ignore[return-value]

    def _split(self, support: OutputSupport | None) -> _Pieces:
        """Parts of a circuit that measures at its end only."""
        if self._circuit.conditions_data:
            return _Pieces()
        part, noise = active_part(self._circuit, self._noise, support)
        layout = measurement_layout(part.circuit, noise)
        codes = part.circuit.table.rows[:, 0][part.circuit.ops]
        if (np.isin(codes, (MEASURE, RESET)) & (layout.roles != TERMINAL)).any():
            return _Pieces()
        pieces = split(part, noise, packed=1)
        if len(pieces) == 1:
            return _Pieces()
        plan, options = self._engine.plan, self._options
        return _Pieces(
            tuple((piece, plan(piece.circuit, own, options)) for piece, own in pieces),
            ReadoutStage.of(layout, noise.readout, part.operations),
        )

    def _joined(
        self,
        engine: engines.Engine,
        pieces: _Pieces,
        circuit: Circuit,
        request: Request,
        control: RunControl,
    ) -> EngineResult:
        """Sample each part on its own, and join the bits of each shot."""
        rng = _generator(request, _PIECES)
        joint: NDArray[np.uint64] | None = None
        for number in control.divide(len(pieces.parts), COMPONENTS):
            piece, plan = pieces.parts[number]
            asked = msgspec.structs.replace(
                request, outputs=("memory",), seed=int(rng.integers(1 << 63))
            )
            result = engine.run(plan, piece.of(circuit), asked, self._options, control)
            if result is None:
                return None
            width = packing.shot_bytes(circuit.num_clbits)
            bits = _records(result.memory, width, circuit.num_clbits)
            joint = bits if joint is None else joint | bits
        assert joint is not None
        results = []
        rows = joint.reshape(-1, request.shots, joint.shape[1])
        for row, records in enumerate(np.ascontiguousarray(rows)):
            if pieces.readout is not None:
                pieces.readout.flip(records, 0, (request.seed, request.binding + row))
            counts, memory = packing.Counts(circuit.num_clbits), b""
            counts.add(records)
            if "memory" in request.outputs:
                kept = packing.Memory(circuit.num_clbits)
                kept.add(records)
                memory = kept.packed()
            packed = counts.packed() if "counts" in request.outputs else (0, b"", b"")
            remark = f"{len(pieces.parts)} components"
            results.append(engines.BindingResult(*packed, memory=memory, remark=remark))
        return EngineResult.joined(results)

    def _support(self, support: OutputSupport | None) -> NDArray[np.bool_]:
        rotated: RotatedCircuit = self._rotated
        part, _ = active_part(rotated.circuit, rotated.noise, support)
        return np.isin(rotated.places, part.operations)


class _Run(msgspec.Struct, frozen=True, eq=False):
    engine: engines.Engine
    plan: engines.Plan
    rotated: RotatedCircuit
    detunings: Detunings
    acting: NDArray[np.bool_]
    options: RunOptions
    control: RunControl

    def product(
        self, pieces: _Pieces, circuit: Circuit, request: Request, row: int
    ) -> engines.BindingResult | None:
        """Exact probabilities of one binding: products of those of the parts."""
        request, words = _of_row(request, row), num_words(circuit.num_clbits)
        records, probs = np.zeros((1, words), np.uint64), np.ones(1)
        remarks = [f"{len(pieces.parts)} components"]
        truncation = 0.0
        for piece, plan in pieces.parts:
            bound = piece.of(circuit)
            result = self.engine.run(plan, bound, request, self.options, self.control)
            if result is None:
                return None
            part = result.row(0)
            truncation = max(truncation, part.truncation)
            remarks.append(part.remark)
            own = _records(part.probability_outcomes, part.probability_width, circuit.num_clbits)
            values = np.frombuffer(part.probabilities)
            if len(probs) * len(values) > MAX_OUTCOMES:
                text = f"exact probabilities of {len(probs) * len(values)} outcomes"
                raise Unsupported(text, hint=f"ask for counts; at most {MAX_OUTCOMES} outcomes")
            records = (records[:, None] | own).reshape(-1, words)
            probs = np.outer(probs, values).ravel()
        if pieces.readout is not None:
            records, probs = pieces.readout.confuse((records, probs))
        records, probs = packing.tally(records, probs)
        outcomes, width = packing.pack(records, circuit.num_clbits)
        return engines.BindingResult(
            probability_outcomes=outcomes, probability_width=width, probabilities=probs.tobytes(),
            truncation=truncation, remark="; ".join(dict.fromkeys(filter(None, remarks))),
        )  # fmt: skip

    def means(
        self, pieces: _Pieces, circuit: Circuit, request: Request, row: int
    ) -> engines.BindingResult | None:
        """Exact expectation values of one binding: sums of products of those of the parts."""
        request, sums = _of_row(request, row), request.observables
        labels = tuple(label for each in sums for label in each.labels)
        values, truncation = np.ones(len(labels)), 0.0
        remarks = [f"{len(pieces.parts)} components"]
        for piece, plan in pieces.parts:
            own = piece.labels(labels, circuit.num_qubits)
            distinct = tuple(dict.fromkeys(own))
            asked = msgspec.structs.replace(
                request, observables=tuple(PauliSum((each,), np.ones(1)) for each in distinct)
            )
            bound = piece.of(circuit)
            result = self.engine.run(plan, bound, asked, self.options, self.control)
            if result is None:
                return None
            part = result.row(0)
            truncation = max(truncation, part.truncation)
            remarks.append(part.remark)
            found = dict(zip(distinct, part.expectations, strict=True))
            values *= [found[each][0] for each in own]
        ends = np.cumsum([len(each.labels) for each in sums])[:-1]
        parts = zip(sums, np.split(values, ends), strict=True)
        return engines.BindingResult(
            expectations=tuple((float(each.coefficients @ own), 0.0) for each, own in parts),
            truncation=truncation, remark="; ".join(dict.fromkeys(filter(None, remarks))),
        )  # fmt: skip

    def row(self, circuit: Circuit, request: Request, row: int) -> engines.BindingResult | None:
        """All outputs of one binding."""
        whole, request = self.rotated.of(circuit), _of_row(request, row)
        averaged = {"expectation"} if request.shots else set()
        drawn = tuple(each for each in request.outputs if each in SAMPLED | averaged)
        rest = tuple(o for o in request.outputs if o not in drawn)
        parts = []
        if drawn:
            parts.append(
                self._sampled(whole, msgspec.structs.replace(request, outputs=drawn), circuit)
            )
        if rest:
            parts.append(self._exact(whole, msgspec.structs.replace(request, outputs=rest)))
        if any(part is None for part in parts):
            return None
        first, *others = (part for part in parts if part is not None)
        for other in others:
            first = msgspec.structs.replace(
                first, probability_outcomes=other.probability_outcomes,
                probability_width=other.probability_width, probabilities=other.probabilities,
                truncation=max(first.truncation, other.truncation),
            )  # fmt: skip
        return first

    def _bindings(self, request: Request, owners: list[int], x: Array) -> Array:
        """Bindings [rows, slots] of detunings x [rows, owners]; others are 0."""
        assert request.bindings is not None
        scaled = np.zeros((len(x), self.detunings.angles.size))
        for column, qubit in enumerate(owners):
            mine = self.detunings.qubits == qubit
            scaled[:, mine] = np.outer(x[:, column], self.detunings.angles[mine])
        return np.hstack((np.repeat(request.bindings, len(x), axis=0), scaled))

    def _batches(
        self, whole: Circuit, request: Request, owners: list[int], x: Array
    ) -> Iterator[EngineResult | None]:
        """Results for detunings x [rows, owners], a few rows at once."""
        size = max(1, _BINDINGS_AT_ONCE // max(1, self.rotated.circuit.num_slots))
        begin = request.binding
        for first in range(0, len(x), size):
            part = x[first : first + size]
            asked = msgspec.structs.replace(
                request, bindings=self._bindings(request, owners, part), binding=begin + first
            )
            yield self.engine.run(self.plan, whole, asked, self.options, self.control)

    def _exact(self, whole: Circuit, request: Request) -> engines.BindingResult | None:
        found = reaches(self.detunings, self.acting)
        if any(math.isinf(reach) for reach in found.values()):
            text = "an exact result of a qubit with a detuning (T2* beside T2) in a loop"
            raise Unsupported(text, hint="ask for counts, or noise={'qubit.quasistatic': 0}")
        most = max_sets(used_qubits(self.rotated.circuit).size)
        chosen = exact_grid(list(found.values()), most)
        if chosen is None:
            text = f"an exact result over the detunings (T2* beside T2) of {len(found)} qubits: a"
            text += f" quadrature with an error of {EXACT_ERRORS[-1]:g} has more than {most}"
            hint = "ask for counts or for expectation values by shots; or take fewer qubits, or"
            hint += " shorter waiting times; noise={'qubit.quasistatic': 0} leaves detunings out"
            raise Unsupported(f"{text} nodes", hint=hint)
        owners, mix = list(found), _Mixture(chosen)
        for result in self._batches(whole, request, owners, chosen.x):
            if result is None:
                return None
            mix.add(result)
        return mix.result()

    def _sampled(
        self, whole: Circuit, request: Request, circuit: Circuit
    ) -> engines.BindingResult | None:
        """Counts, memory and estimates: a run for each set of detunings that shots have."""
        shots = request.shots
        rng = _generator(request, _SETS)
        inner_seed = int(rng.integers(1 << 63))
        found = reaches(self.detunings, self.acting)
        owners = list(found)
        rules = [nodes(reach, SAMPLED_ERROR, MOST_NODES) for reach in found.values()]
        values, owner = _drawn_sets(rng, rules, shots, self.control)
        sizes = np.bincount(owner, minlength=len(values))
        one = self._bindings(request, owners, np.zeros((1, len(owners))))
        asked = msgspec.structs.replace(request, seed=inner_seed, bindings=one)
        takes = getattr(self.engine, "takes_shot_values", None)
        if takes is not None and takes(self.plan, whole, asked, self.options):
            return self._together(whole, asked, owners, values, owner)
        order = np.argsort(sizes, kind="stable")
        tally = _Tally(request, circuit.num_clbits)
        at = 0
        for size in np.unique(sizes).tolist():
            count = int((sizes == size).sum())
            members = order[at : at + count]
            asked = msgspec.structs.replace(request, shots=size, seed=inner_seed, binding=at)
            done = 0
            for result in self._batches(whole, asked, owners, values[members]):
                if result is None:
                    return None
                tally.add(result, size, members[done : done + result.count], owner)
                done += result.count
            at += count
        return tally.result(len(values))

    def _together(
        self,
        whole: Circuit,
        request: Request,
        owners: list[int],
        values: Array,
        owner: NDArray[np.int64],
    ) -> engines.BindingResult | None:
        """Sampled results of shots with detunings `values` [sets, owners] in one run; `owner`: the
        set of each shot."""
        found = self.detunings
        column = np.full(self.rotated.circuit.num_qubits, -1)
        column[owners] = np.arange(len(owners))
        mine = np.flatnonzero(column[found.qubits] >= 0)
        first = self.rotated.circuit.num_slots - found.angles.size
        asked = msgspec.structs.replace(
            request,
            shot_values=ShotValues(
                values, owner, first + mine, column[found.qubits[mine]], found.angles[mine]
            ),
        )
        result = self.engine.run(self.plan, whole, asked, self.options, self.control)
        if result is None:
            return None
        return msgspec.structs.replace(result.row(0), remark=f"{len(values)} sets of detunings")


def _of_row(request: Request, row: int) -> Request:
    """Request of one binding."""
    values = np.zeros(0) if request.bindings is None else request.bindings[row]
    return msgspec.structs.replace(
        request, bindings=values.reshape(1, -1), binding=request.binding + row
    )


def _generator(request: Request, domain: int) -> np.random.Generator:
    key = np.array([request.seed, request.binding], np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=[0, 0, domain, 0]))


def _drawn_sets(
    rng: np.random.Generator,
    rules: Sequence[tuple[Array, Array] | None],
    shots: int,
    control: RunControl,
) -> tuple[Array, NDArray[np.int64]]:
    """Draw a detuning of each rule (nodes and weights; None: Gaussian) for each shot: the distinct
    sets [sets, rules] in lexicographic order, and the set of each shot. Raises Stopped."""
    sets, number = np.zeros((1, 0)), np.zeros(shots, np.int64)
    pending: list[Array] = []  # nodes of the columns that `number` has beside the row of `sets`
    width = 1  # of the numbers

    def merge() -> None:
        nonlocal sets, number, width
        control.check()
        rows, number = np.unique(number, return_inverse=True)
        columns = []
        for x in reversed(pending):
            rows, node = np.divmod(rows, x.size)
            columns.append(x[node])
        sets = np.column_stack((sets[rows], *reversed(columns)))
        width = len(sets)
        pending.clear()

    for rule in rules:
        control.check()
        if rule is None:
            x, node = np.unique(rng.standard_normal(shots), return_inverse=True)
        else:
            x, weights = rule
            node = np.searchsorted(weights.cumsum(), rng.random(shots))
            np.minimum(node, x.size - 1, out=node)
        if width * x.size > _MOST_NUMBERS:
            merge()
        number *= x.size
        number += node
        width *= x.size
        pending.append(x)
    merge()
    return sets, number


def _records(outcomes: bytes, width: int, bits: int) -> NDArray[np.uint64]:
    """Packed outcomes as records [outcomes, words]."""
    raw = np.frombuffer(outcomes, np.uint8).reshape(-1, width)
    padded = np.zeros((len(raw), 8 * num_words(bits)), np.uint8)
    padded[:, :width] = raw
    return padded.view("<u8")


class _Mixture:
    """Weighted sum of exact results."""

    def __init__(self, chosen: Grid) -> None:
        self._grid = chosen
        self._done = 0
        self._width = 0
        self._records: NDArray[np.uint64] | None = None
        self._sums = np.zeros(0)
        self._means: list[Array] = []
        self._truncation = 0.0

    def add(self, result: EngineResult) -> None:
        weights = self._grid.weights[self._done : self._done + result.count]
        self._done += result.count
        self._truncation = max(self._truncation, result.truncation)
        for k, weight in enumerate(weights.tolist()):
            row = result.row(k)
            if row.expectations:
                self._means.append(weight * np.array(row.expectations)[:, 0])
            if row.probability_width:
                self._width = row.probability_width
                records = _records(row.probability_outcomes, self._width, 8 * self._width)
                probs = weight * np.frombuffer(row.probabilities)
                if self._records is not None:
                    records = np.concatenate((self._records, records))
                    probs = np.concatenate((self._sums, probs))
                self._records, self._sums = packing.tally(records, probs)

    def result(self) -> engines.BindingResult:
        means = np.sum(self._means, axis=0).tolist() if self._means else []
        outcomes = b""
        if self._records is not None:
            is_there = self._sums > (_ROUNDING if (self._grid.weights < 0.0).any() else 0.0)
            self._records, self._sums = self._records[is_there], self._sums[is_there]
            outcomes, _ = packing.pack(self._records, 8 * self._width)
        return engines.BindingResult(
            probability_outcomes=outcomes, probability_width=self._width,
            probabilities=self._sums.tobytes() if self._width else b"",
            expectations=tuple((value, 0.0) for value in means),
            truncation=self._truncation,
            remark=f"{len(self._grid.x)} sets of detunings, quadrature error at most"
            f" {self._grid.error:.0e}",
        )  # fmt: skip


class _Tally:
    """Sum of sampled results."""

    def __init__(self, request: Request, num_clbits: int) -> None:
        self._request = request
        self._bits = num_clbits
        self._counts = packing.Counts(num_clbits)
        size = packing.shot_bytes(num_clbits)
        rows = request.shots if "memory" in request.outputs else 0
        self._memory = np.zeros((rows, size), np.uint8)
        self._sums = np.zeros((2, len(request.observables)))  # of values, and of their squares
        self._truncation = 0.0

    def add(
        self, result: EngineResult, shots: int, members: NDArray[np.intp], owner: NDArray[np.intp]
    ) -> None:
        """Add results of sets of detunings `members`, each of so many shots; `owner`: the set of
        each shot of the request."""
        self._truncation = max(self._truncation, result.truncation)
        if result.outcomes:
            records = _records(result.outcomes, result.outcome_width, self._bits)
            self._counts.add(records, np.frombuffer(result.counts, np.uint32).astype(np.int64))
        if len(self._memory):
            rows = np.frombuffer(result.memory, np.uint8).reshape(result.count * shots, -1)
            place = np.full(int(owner.max()) + 1, -1)
            place[members] = np.arange(members.size)
            mine = np.flatnonzero(place[owner] >= 0)
            self._memory[mine[np.argsort(place[owner[mine]], kind="stable")]] = rows
        if result.expectations:
            table = np.frombuffer(result.expectations).reshape(result.count, -1, 2)
            means, errors = table[:, :, 0], np.nan_to_num(table[:, :, 1])
            self._sums[0] += shots * means.sum(axis=0)
            self._sums[1] += shots * (means**2 + shots * errors**2).sum(axis=0)

    def result(self, count: int) -> engines.BindingResult:
        shots, outputs = self._request.shots, self._request.outputs
        width, outcomes, tallies = 0, b"", b""
        if "counts" in outputs:
            width, outcomes, tallies = self._counts.packed()
        expectations: tuple[tuple[float, float], ...] = ()
        if "expectation" in outputs:
            mean = self._sums[0] / shots
            spread = np.maximum(self._sums[1] / shots - mean**2, 0.0) / max(1, shots - 1)
            expectations = tuple(zip(mean.tolist(), np.sqrt(spread).tolist(), strict=True))
        return engines.BindingResult(
            width, outcomes, tallies, expectations=expectations, truncation=self._truncation,
            remark=f"{count} sets of detunings", memory=self._memory.tobytes(),
        )  # fmt: skip
