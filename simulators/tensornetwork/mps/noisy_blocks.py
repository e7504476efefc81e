"""Blocks of gates of a chain, with the errors that may act in them.

An error is multiplied into the block that holds the last gate before it on its site; errors on two
sites into the block of their gate.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from noise_models.channel import paulis
from simulators.chain import right_canonical
from simulators.chain.right_canonical import Block, BlockPart, Matrix
from simulators.circuit.gates import UNITARY
from simulators.trajectories.locations import NoisyCircuit
from simulators.trajectories.noise_table import COUNT, FIRST, PAULI, NoiseTable


class Insert(msgspec.Struct, frozen=True, gc=False):
    """Error in a block. `number`: its row in the noise table; `after`: number of the block's parts
    that act before it; `operators`: on neighbours from site `first` on; several: one is drawn.
    `swapped`: its first qubit is the highest bit."""

    number: int
    after: int
    first: int
    operators: tuple[Matrix, ...]
    swapped: bool = False


Step = BlockPart | Insert


class NoisyBlocks:
    """Blocks of a circuit, layer by layer, and the block of each error."""

    def __init__(
        self, located: NoisyCircuit, params: NDArray[np.float64], sites: tuple[int, ...]
    ) -> None:
        self._table, self._sites = located.table, sites
        self._rows = located.table.table.tolist()
        self._known: dict[int, list[tuple[Block, Insert]]] = {}
        joined = self._join(located)
        built = right_canonical.gate_blocks(located.circuit, params, sites, joined)
        last = [*built.singles.values()]
        self.layers = [*built.layers, last]
        self._gates = built.gates
        # Parts on each site, in order of action, and the block and the number of parts of each.
        self._orders: list[list[int]] = [[] for _ in sites]
        self._places: list[list[tuple[Block, int]]] = [[] for _ in sites]
        for block in (block for layer in self.layers for block in layer):
            for number, part in enumerate(block.parts):
                for site in range(part.first, part.first + len(part.matrix).bit_length() - 1):
                    self._orders[site].append(part.order)
                    self._places[site].append((block, number + 1))
        for site, places in enumerate(self._places):
            if not places:
                last.append(Block(site, 1, [], matrix=_ONE))
                places.append((last[-1], 0))

    def _join(self, located: NoisyCircuit) -> dict[int, list[tuple[int, int]]]:
        """Pairs of qubits with an error that is no Pauli string, if they are not those of the gate
        before it, by the operation before it. Also sets the order of each error."""
        circuit, locations = located.circuit, located.table.draw_locations.tolist()
        codes, counts = circuit.table.rows[circuit.ops, :2].T
        begins = np.cumsum(counts) - counts
        wires = circuit.qubits.tolist()
        results: dict[int, list[tuple[int, int]]] = {}
        self._order: list[int] = []
        taken = dict[int, int]()  # location that acts in the block of an operation
        last = -1
        for location, (after, which, _, _, first, second) in zip(
            locations, self._rows, strict=True
        ):
            own = results.setdefault(after, [])
            if which != PAULI and second >= 0 and location != last:
                at = int(begins[after])
                is_gate = after >= 0 and codes[after] >= UNITARY and counts[after] == 2
                same = is_gate and {first, second} == {*wires[at : at + 2]}
                if own or not same or taken.setdefault(after, location) != location:
                    own.append((first, second))
                last = location
            self._order.append(right_canonical.order_of(after, len(own)))
        return results

    def inserts(self, number: int) -> list[tuple[Block, Insert]]:
        """Blocks in which an error acts, a row of the noise table: a Pauli string in one or two."""
        if number not in self._known:
            self._known[number] = self._located(number)
        return self._known[number]

    def _located(self, number: int) -> list[tuple[Block, Insert]]:
        _, which, x, z, *qubits = self._rows[number]
        places = [self._sites[qubit] for qubit in qubits if qubit >= 0]
        if which == PAULI:  # masks refer to the qubits of the location
            letters = [_LETTERS[x >> j & 1, z >> j & 1] for j in range(len(places))]
            return [
                self._on_site(number, site, (paulis(1)[letter],))
                for letter, site in zip(letters, places, strict=True)
                if letter
            ]
        members = _members(self._table, which, len(places))
        if len(places) == 1:
            return [self._on_site(number, places[0], members)]
        block, parts = self._gates[self._order[number]]
        # Inside the block the two are neighbours, whatever their distance in the chain.
        order = [0, 1] if places[0] < places[1] else [1, 0]
        turned = tuple(right_canonical.on_neighbours(order, each)[2] for each in members)
        first = block.parts[parts - 1].first
        return [(block, Insert(number, parts, first, turned, places[0] < places[1]))]

    def _on_site(
        self, number: int, site: int, operators: tuple[Matrix, ...]
    ) -> tuple[Block, Insert]:
        """Error on one site, after the last part there that acts before it."""
        at = bisect_right(self._orders[site], self._order[number])
        block, parts = self._places[site][at - 1] if at else (self._places[site][0][0], 0)
        return block, Insert(number, parts, site, operators)


def _members(table: NoiseTable, which: int, width: int) -> tuple[Matrix, ...]:
    """Operators of a set: one, or those from which one is drawn."""
    sets = table.operators.sets[which]
    at, count, size = int(sets[FIRST]), int(sets[COUNT]), 2 << 2 * width
    data = table.operators.matrices[at : at + count * size].view(np.complex128)
    return tuple(data.reshape(count, 1 << width, 1 << width))


_LETTERS = {(0, 0): 0, (1, 0): 1, (1, 1): 2, (0, 1): 3}
_ONE: Matrix = np.eye(2, dtype=complex)


def steps_of(block: Block, inserts: Sequence[Insert]) -> list[Step]:
    """Parts of a block and its errors, in order of action."""
    steps: list[Step] = []
    done = 0
    for insert in sorted(inserts, key=lambda each: (each.after, each.number)):
        steps += block.parts[done : insert.after]
        steps.append(insert)
        done = insert.after
    return [*steps, *block.parts[done:]]


def as_part(step: Step, choice: int = 0) -> BlockPart:
    """Part, or an error as one, with this operator."""
    return step if isinstance(step, BlockPart) else BlockPart(0, step.first, step.operators[choice])
