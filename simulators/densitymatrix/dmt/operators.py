"""Density operators of all parts of a circuit that maps on pairs connect."""

from __future__ import annotations

import copy

import numpy as np
from numpy.typing import NDArray

from simulators.catalog.costs import dmt_bond
from simulators.densitymatrix.dmt.graph import GraphOperator
from simulators.densitymatrix.dmt.line import LineOperator
from simulators.densitymatrix.dmt.pair_maps import Maps, Matrix, PairComponent, components
from simulators.densitymatrix.dmt.truncation import PROTECTED
from simulators.engine import OPERATIONS, RunControl, ThreadPool
from simulators.errors import OutOfMemory
from simulators.execution import outputs, philox

_FIRST_DRAW = 2**33  # qubit q has draw 2**33 + q
_EXACT = 1e-12  # relative squares that are rounding
_MOST_VALUES = 2**27  # of the tensors of a graph
_UNBOUNDED = 2**40  # values of a bond
_COPIES = 32  # bytes of memory for each of them


class DensityOperators:
    """Density operators of all components of a circuit, at first of |0>."""

    def __init__(
        self,
        maps: Maps,
        bond: int,
        control: RunControl,
        memory_bytes: int,
        lines: bool = True,
    ) -> None:
        """Set up. `maps`: all that will be applied; `bond`: the largest, 0: the default; `lines`:
        False holds components on a line as graphs, too. Raises OutOfMemory."""
        self.num_qubits = len(maps.last)
        self.components = components(self.num_qubits, maps)
        self._control = control
        self._states: list[LineOperator | GraphOperator] = []
        self._place: dict[int, int] = {}  # of a qubit's component
        for number, component in enumerate(self.components):
            self._place.update(dict.fromkeys(component.order, number))
            if component.is_line and (lines or len(component.order) == 1):
                self._states.append(LineOperator(component, dmt_bond(bond, is_line=True)))
            else:
                most = dmt_bond(bond, is_line=False)
                _check_room(component, most, maps, memory_bytes)
                self._states.append(GraphOperator(component, most, self.num_qubits))

    def evolve(self, maps: Maps, pool: ThreadPool) -> None:
        """Apply maps on pairs, then those on each qubit."""

        def advance() -> None:
            self._control.check()
            self._control.advance(OPERATIONS)

        for state in self._states:
            if isinstance(state, LineOperator):
                state.evolve(maps, advance)
            else:
                state.evolve(maps, pool, advance)

    @property
    def memory_bytes(self) -> int:
        return sum(state.memory_bytes for state in self._states)

    def copy(self) -> DensityOperators:
        """Return operators that change by themselves."""
        result = copy.copy(self)
        result._states = [state.copy() for state in self._states]
        return result

    def apply(self, qubit: int, matrix: Matrix) -> None:
        """Apply a map [4, 4] in the Pauli basis on a qubit, which need not preserve the trace."""
        self._states[self._place[qubit]].apply(qubit, matrix)

    @property
    def bond(self) -> int:
        """The largest bond."""
        return max((state.bond for state in self._states), default=1)

    @property
    def approximate(self) -> tuple[PairComponent, ...]:
        """Components with loops, or where something was cut off."""
        pairs = zip(self.components, self._states, strict=True)
        return tuple(
            component for component, state in pairs
            if state.lost > _EXACT or len(component.edges) >= len(component.order)
        )  # fmt: skip

    def value(self, x: int, z: int) -> float:
        """Expectation value of a Pauli string by its masks."""
        value, digits = 1.0, {}
        for q in range((x | z).bit_length()):
            if (x | z) >> q & 1:
                digits[q] = (0, 1, 3, 2)[(x >> q & 1) + 2 * (z >> q & 1)]
        for component, state in zip(self.components, self._states, strict=True):
            letters = {q: digits[q] for q in component.order if q in digits}
            if letters:
                value *= state.value(letters)
        return float(np.clip(value, -1.0, 1.0))

    def sample(
        self, shots: NDArray[np.int64], key: outputs.SeedKey
    ) -> tuple[NDArray[np.uint8], float]:
        """Bits [shots, qubits] of the shots with these numbers, and the sum of what was clipped."""
        draws = np.empty(shots.size)

        def draw(qubit: int) -> NDArray[np.float64]:
            philox.uniforms(*key, _FIRST_DRAW + qubit, shots, draws)
            return draws

        bits = np.zeros((shots.size, self.num_qubits), np.uint8)
        clipped = sum(float(state.sample(shots.size, draw, bits).sum()) for state in self._states)
        return bits, clipped


def _check_room(component: PairComponent, bond: int, maps: Maps, memory_bytes: int) -> None:
    """Raises OutOfMemory for tensors beyond the memory."""
    sizes = _bond_sizes(component, bond, maps)
    values = dict.fromkeys(component.order, 4.0)
    partners = dict.fromkeys(component.order, 0)
    for edge, size in sizes.items():
        for q in edge:
            values[q] *= size
            partners[q] += 1
    most = min(_MOST_VALUES, memory_bytes // _COPIES) if memory_bytes else _MOST_VALUES
    total = sum(values.values())
    if total > most:
        widest = max(values, key=values.__getitem__)
        raise OutOfMemory(
            f"engine 'dmt': tensors of {total:.1e} values, at most {most}: a qubit has pairs with"
            f" {partners[widest]} others, each a bond of up to {bond}",
            hint="compile the circuit for a device, whose qubits have few neighbours, or lower the"
            " option bond",
        )


def may_be_cut(component: PairComponent, bond: int, maps: Maps) -> bool:
    """Return whether a component has loops, or bonds that may exceed their limit."""
    if len(component.edges) >= len(component.order):
        return True
    most = dmt_bond(bond, is_line=component.is_line)
    # Beside the values that truncation protects there is room for so many directions.
    free = most - PROTECTED
    return any(size > free for size in _bond_sizes(component, _UNBOUNDED, maps).values())


def _bond_sizes(component: PairComponent, bond: int, maps: Maps) -> dict[tuple[int, int], float]:
    """Bounds of the bonds: by the option, by the terms of the maps, by the other bonds of a
    qubit."""
    sizes = dict.fromkeys(component.edges, 1.0)
    for pair in maps.pairs:
        edge = pair.low, pair.high
        if edge in sizes:
            sizes[edge] = min(float(bond), sizes[edge] * len(pair.first))
    changed = True
    while changed:
        changed = False
        around: dict[int, float] = dict.fromkeys(component.order, 4.0)
        for edge, size in sizes.items():
            for q in edge:
                around[q] *= size
        for edge, size in sizes.items():
            most = min(around[q] / size for q in edge)
            if most < size:
                sizes[edge], changed = most, True
                for q in edge:
                    around[q] *= most / size
    return sizes
