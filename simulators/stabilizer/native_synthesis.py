"""Synthesis of Clifford gates from the native gates of a device.

A gate on one qubit is the cheapest product of native gates among the 24 Clifford gates (Dijkstra's
algorithm over the group). A gate on two qubits is a product of at most three native gates on the
pair, with gates on one qubit before, between and after them, as few of the former as possible (of
gates in the class of CX or iSWAP, three always suffice: Vidal and Dawson, arXiv quant-ph/0307177).
Angles of native gates are multiples of a quarter turn. Global phases are dropped.
"""

from __future__ import annotations

import functools
import heapq
import itertools
from collections.abc import Iterator

import msgspec
import stim

from simulators.circuit.gates import ANY, GATES, QUARTER_TURN
from simulators.stabilizer.convert import Instruction, instructions

_MOST_PARAMS = 3
_MOST_PAIRED = 3  # native gates on two qubits of one gate
_COMPARED = 64  # decompositions with several native gates on two qubits whose costs are compared
_BOUND_SLACK = 1e-9  # rad
# The 6 Clifford gates on one qubit that differ by more than a Pauli.
_CLASSES = ("", "H", "S", "H S", "S H", "H S H")

Cost = tuple[float, int, int]  # duration in ns, gates that have an error or a duration, all gates
_FREE: Cost = (0.0, 0, 0)


class NativeMove(msgspec.Struct, frozen=True):
    """A native gate of a device on some qubits, as the search takes it. `bounds_rad`: of its
    angles; (): any. `reversed`: it acts on the pair in the other order."""

    name: str
    duration_ns: float
    is_noisy: bool
    bounds_rad: tuple[tuple[float, float], ...] = ()
    reversed: bool = False

    @property
    def cost(self) -> Cost:
        return self.duration_ns, int(self.is_noisy or self.duration_ns > 0.0), 1


class NativeStep(msgspec.Struct, frozen=True):
    """A native gate with its angles, in quarter turns, on some of the qubits of the gate that it is
    a part of; and the same in stim's instructions, on its own qubits."""

    name: str
    operands: tuple[int, ...]
    turns: tuple[int, ...]
    written: tuple[Instruction, ...]

    @property
    def angles_rad(self) -> tuple[float, ...]:
        return tuple(turn * QUARTER_TURN for turn in self.turns)


def single(
    tableau: stim.Tableau, moves: tuple[NativeMove, ...]
) -> tuple[tuple[NativeStep, ...], Cost] | None:
    """Return the steps of a Clifford gate on one qubit, and their cost; None if the native gates do
    not generate it."""
    return _singles(moves).get(str(tableau))


@functools.lru_cache(maxsize=256)
def _singles(
    moves: tuple[NativeMove, ...],
) -> dict[str, tuple[tuple[NativeStep, ...], Cost]]:
    """Cheapest steps of each gate on one qubit that native gates generate, by its tableau."""
    edges = [(step, tableau, move.cost) for move in moves for step, tableau in _variants(move, 1)]
    results: dict[str, tuple[tuple[NativeStep, ...], Cost]] = {}
    order = itertools.count()
    queue: list[tuple[Cost, int, stim.Tableau, tuple[NativeStep, ...]]] = [
        (_FREE, next(order), stim.Tableau(1), ())
    ]
    while queue:
        cost, _, reached, steps = heapq.heappop(queue)
        if str(reached) in results:
            continue
        results[str(reached)] = steps, cost
        for step, tableau, more in edges:
            place = (_sum(cost, more), next(order), reached.then(tableau), (*steps, step))
            heapq.heappush(queue, place)
    return results


def pair(
    tableau: stim.Tableau,
    first: tuple[NativeMove, ...],
    second: tuple[NativeMove, ...],
    paired: tuple[NativeMove, ...],
) -> tuple[NativeStep, ...] | None:
    """Return the steps of a Clifford gate on two qubits. `first`, `second`: native gates on each of
    them; `paired`: on both. None if these do not generate it within _MOST_PAIRED gates."""
    return _pair(_written(tableau), first, second, paired)


@functools.lru_cache(maxsize=4096)
def _pair(
    text: str,
    first: tuple[NativeMove, ...],
    second: tuple[NativeMove, ...],
    paired: tuple[NativeMove, ...],
) -> tuple[NativeStep, ...] | None:
    target, moves = _tableau_of(text), (first, second)
    local = _local(target)
    if local is not None:
        return _joined([local], None, _FREE, moves)[0]
    for count in range(1, _MOST_PAIRED + 1):
        found: list[tuple[Cost, int, tuple[NativeStep, ...]]] = []
        for number, (locals_, step, cost) in enumerate(_solutions(target, count, paired)):
            steps, total = _joined(locals_, step, cost, moves)
            if steps is not None:
                found.append((total, number, steps))
            if count > 1 and number >= _COMPARED * len(paired):
                break
        if found:
            return min(found, key=lambda each: each[:2])[2]
    return None


_Locals = tuple[stim.Tableau, stim.Tableau]  # gates on the first and on the second qubit


def _solutions(
    target: stim.Tableau, count: int, paired: tuple[NativeMove, ...]
) -> Iterator[tuple[list[_Locals], NativeStep, Cost]]:
    """Iterate over the gates on one qubit around `count` equal native gates whose product is
    `target`, with the native gate and its cost; each native gate in turn."""
    searches = [
        (step, move.cost, _around(target, count, _prefixes(_written(tableau))))
        for move in paired
        for step, tableau in _variants(move, 2)
    ]
    while searches:
        left = []
        for step, cost, search in searches:
            locals_ = next(search, None)
            if locals_ is not None:
                yield locals_, step, cost
                left.append((step, cost, search))
        searches = left


def _around(
    target: stim.Tableau, count: int, prefixes: tuple[tuple[_Locals, stim.Tableau], ...]
) -> Iterator[list[_Locals]]:
    if not count:
        local = _local(target)
        if local is not None:
            yield [local]
        return
    for before, undone in prefixes:
        for rest in _around(undone.then(target), count - 1, prefixes):
            yield [before, *rest]


@functools.lru_cache(maxsize=256)
def _prefixes(text: str) -> tuple[tuple[_Locals, stim.Tableau], ...]:
    """Gates on one qubit up to Paulis, each with the inverse of it and then a native gate."""
    gate = _tableau_of(text)
    results = []
    for names in itertools.product(_CLASSES, repeat=2):
        first, second = map(_single_tableau, names)
        both = first + second
        results.append(((first, second), both.then(gate).inverse()))
    return tuple(results)


def _joined(
    locals_: list[_Locals],
    step: NativeStep | None,
    step_cost: Cost,
    moves: tuple[tuple[NativeMove, ...], tuple[NativeMove, ...]],
) -> tuple[tuple[NativeStep, ...] | None, Cost]:
    """Return the steps of gates on one qubit with a native gate between each two of them."""
    steps: list[NativeStep] = []
    cost = _FREE
    for number, each in enumerate(locals_):
        if number and step is not None:
            steps.append(step)
            cost = _sum(cost, step_cost)
        for operand in (0, 1):
            found = single(each[operand], moves[operand])
            if found is None:
                return None, cost
            steps += [msgspec.structs.replace(part, operands=(operand,)) for part in found[0]]
            cost = _sum(cost, found[1])
    return tuple(steps), cost


@functools.lru_cache(maxsize=1024)
def _variants(move: NativeMove, width: int) -> tuple[tuple[NativeStep, stim.Tableau], ...]:
    """A native gate at each of its Clifford angles, without those that do nothing."""
    gate = GATES.get(move.name)
    if gate is None or gate.qubits not in (width, ANY) or gate.params > _MOST_PARAMS:
        return ()
    results: dict[str, tuple[NativeStep, stim.Tableau]] = {}
    for turns in itertools.product((0, 1, 2, -1), repeat=gate.params):
        written = instructions(move.name, width, tuple(turn % 8 for turn in turns))
        if written is None or not _within(turns, move.bounds_rad):
            continue
        operands = (1, 0) if move.reversed else tuple(range(width))
        tableau = _tableau_of(
            "\n".join(f"{name} {' '.join(str(operands[k]) for k in at)}" for name, at in written),
            width,
        )
        if tableau != stim.Tableau(width):
            step = NativeStep(move.name, operands, turns, written)
            results.setdefault(str(tableau), (step, tableau))
    return tuple(results.values())


def _within(turns: tuple[int, ...], bounds_rad: tuple[tuple[float, float], ...]) -> bool:
    return all(
        low - _BOUND_SLACK <= turn * QUARTER_TURN <= high + _BOUND_SLACK
        for turn, (low, high) in zip(turns, bounds_rad, strict=False)
    )


def _local(target: stim.Tableau) -> _Locals | None:
    """Return the factors of a tensor product of gates on one qubit each; None for another gate."""
    factors = []
    for qubit in (0, 1):
        images = target.x_output(qubit), target.z_output(qubit)
        if any(image[1 - qubit] for image in images):
            return None
        x, z = (image.sign * stim.PauliString([image[qubit]]) for image in images)
        factors.append(stim.Tableau.from_conjugated_generators(xs=[x], zs=[z]))
    return factors[0], factors[1]


@functools.lru_cache(maxsize=1024)
def _single_tableau(names: str) -> stim.Tableau:
    return _tableau_of("\n".join(f"{name} 0" for name in names.split()), 1)


@functools.lru_cache(maxsize=1024)
def _tableau_of(text: str, width: int = 2) -> stim.Tableau:
    """Tableau of a circuit on qubits 0 .. width - 1."""
    return (stim.Circuit(text) + stim.Circuit(f"I {width - 1}")).to_tableau()


def _written(tableau: stim.Tableau) -> str:
    """A circuit of a gate, the same for equal gates."""
    return str(tableau.to_circuit("elimination"))


def _sum(first: Cost, second: Cost) -> Cost:
    return first[0] + second[0], first[1] + second[1], first[2] + second[2]
