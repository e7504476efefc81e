"""Circuits of rotated surface codes: memory experiments, and transversal CX between patches.

The circuits have no noise of their own. Gates are H and CZ, and CX between patches; layers end with
TICK. The code has checks of X and of Z: what waiting does to the data qubits of a chip whose T2 is
short, errors of Z, is seen by checks of X alone, and a memory of X has more errors than one of Z.
(The XZZX form, Bonilla Ataides et al., arXiv 2009.07851, would share them.) An ancilla of X is the
control of its CX, one of Z the target; with H in a row left out, a round has four layers of H: of
the ancillas and one sublattice of data qubits at both ends, and of all data qubits after the first
and before the last CZ. Invariant: the detectors are deterministic without noise, for every sequence
of operations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import Literal

import msgspec
import stim

Basis = Literal["X", "Z"]
BASES: tuple[Basis, Basis] = ("Z", "X")
Records = frozenset[int]  # numbers of measurements whose parity is meant
MAX_DISTANCE = 25  # 1249 qubits of a patch


class StabilizerCheck(msgspec.Struct, frozen=True):
    """Stabilizer of the code with its ancilla. `data`: data qubits in the order of the four layers
    of CZ; None: the ancilla waits in this layer."""

    kind: Basis
    ancilla: int
    data: tuple[int | None, ...]


class SurfaceCode(msgspec.Struct, frozen=True):
    """Rotated surface code of one patch. Qubits: data qubits by rows, then ancillas.

    `sites`: coordinates of the qubits as stim's generated circuits have them, x and y odd for data
    qubits and even for ancillas; coupled qubits differ by 1 in both.
    """

    distance: int
    sites: tuple[tuple[int, int], ...]
    checks: tuple[StabilizerCheck, ...]

    @property
    def num_qubits(self) -> int:
        return len(self.sites)

    @property
    def num_data(self) -> int:
        return self.distance**2

    @property
    def pairs(self) -> tuple[tuple[int, int], ...]:
        """Pairs (ancilla, data qubit) that a round couples."""
        return tuple(
            (check.ancilla, qubit)
            for check in self.checks
            for qubit in check.data
            if qubit is not None
        )

    def logical(self, basis: Basis) -> tuple[int, ...]:
        """Data qubits whose parity in the basis is that of the logical qubit: a row for Z, which
        ends at checks of Z, a column for X."""
        d = self.distance
        return tuple(range(d)) if basis == "Z" else tuple(range(0, d * d, d))

    def begins_with_x(self, qubit: int) -> bool:
        """Return whether the first and last check of a data qubit in a round are of X."""
        row, column = divmod(qubit, self.distance)
        return (row + column) % 2 == 1


@cache
def rotated(distance: int) -> SurfaceCode:
    """Return the rotated surface code of an odd distance, 2 d^2 - 1 qubits.

    The order of the four layers makes an error of an ancilla spread to two data qubits across the
    logical operator of its kind, so that it does not shorten the code (Tomita and Svore, arXiv
    1404.3747).
    """
    d = distance
    sites = [(2 * column + 1, 2 * row + 1) for row in range(d) for column in range(d)]
    checks = []
    for row in range(-1, d):
        for column in range(-1, d):
            kind: Basis = "X" if (row + column) % 2 else "Z"
            inside = 0 <= row < d - 1 and 0 <= column < d - 1
            above_or_below = kind == "X" and row in (-1, d - 1) and 0 <= column < d - 1
            beside = kind == "Z" and column in (-1, d - 1) and 0 <= row < d - 1
            if not (inside or above_or_below or beside):
                continue
            corners = [(row, column), (row, column + 1), (row + 1, column), (row + 1, column + 1)]
            if kind == "Z":
                corners[1], corners[2] = corners[2], corners[1]
            data = tuple(r * d + c if 0 <= r < d and 0 <= c < d else None for r, c in corners)
            checks.append(StabilizerCheck(kind, len(sites), data))
            sites.append((2 * column + 2, 2 * row + 2))
    return SurfaceCode(d, tuple(sites), tuple(checks))


class PatchCircuit:
    """Circuit of one or more patches of a code, built operation by operation. Qubit q of patch p is
    p * code.num_qubits + q."""

    def __init__(self, code: SurfaceCode, patches: int) -> None:
        """Set up. Coordinates of the patches follow one another in x."""
        self.code, self.patches = code, patches
        self.circuit = stim.Circuit()
        self._records = 0
        # Parity of records that each check's next outcome equals; None: the outcome is random.
        self._expected: dict[tuple[int, int], Records | None] = {}
        width = 2 * code.distance + 2
        for patch in range(patches):
            for qubit, (x, y) in enumerate(code.sites):
                self.circuit.append(
                    "QUBIT_COORDS", [self._at(patch, qubit)], (x + patch * width, y)
                )
        every = range(patches)
        self._data = [self._at(patch, q) for patch in every for q in range(code.num_data)]
        self._ancillas = [self._at(patch, each.ancilla) for patch in every for each in code.checks]

    def prepare(self, bases: Sequence[Basis]) -> None:
        """Prepare each patch in |0> (basis Z) or |+> (basis X)."""
        self.circuit.append("R", range(self.patches * self.code.num_qubits))
        self._tick()
        self._turn(lambda patch: bases[patch])
        for patch in range(self.patches):
            for number, check in enumerate(self.code.checks):
                known = frozenset[int]() if check.kind == bases[patch] else None
                self._expected[patch, number] = known

    def rounds(self, count: int) -> None:
        """Measure all checks `count` times, at least once."""
        self._round(self.circuit)
        own = len(self._ancillas)
        for place, key in enumerate(self._keys()):
            record, expected = self._records + place, self._expected[key]
            if expected is not None:
                self._detector(key, expected ^ {record}, own)
            self._expected[key] = frozenset((record,))
        self._records += own
        if count > 1:
            body = stim.Circuit()
            self._round(body)
            for place, (patch, number) in enumerate(self._keys()):
                now = place - own
                targets = [stim.target_rec(now), stim.target_rec(now - own)]
                body.append("DETECTOR", targets, self._place(patch, number))
            self.circuit.append(stim.CircuitRepeatBlock(count - 1, body))
            self._records += (count - 1) * own
            for place, key in enumerate(self._keys()):
                self._expected[key] = frozenset((self._records - own + place,))

    def cx(self, control: int, target: int) -> None:
        """Apply CX to each data qubit of two patches, a layer; the control has the smaller number.
        Errors of X, and checks of Z, spread to the target, errors of Z to the control."""
        ends = (control, target)
        qubits = [self._at(patch, q) for q in range(self.code.num_data) for patch in ends]
        self.circuit.append("CX", qubits)
        self._tick()
        for number, check in enumerate(self.code.checks):
            source, changed = (control, target) if check.kind == "Z" else (target, control)
            known, spread = self._expected[changed, number], self._expected[source, number]
            both = None if known is None or spread is None else known ^ spread
            self._expected[changed, number] = both

    def measure(self, basis: Basis, observables: Iterable[Sequence[int]]) -> None:
        """Measure all data qubits. Observable k is the parity of the logical qubits of the patches
        in `observables[k]`."""
        self._turn(lambda _: basis)
        self.circuit.append("M", self._data)
        record = {qubit: self._records + place for place, qubit in enumerate(self._data)}
        for key in self._keys():
            patch, number = key
            check, expected = self.code.checks[number], self._expected[key]
            if check.kind == basis and expected is not None:
                own = {record[self._at(patch, q)] for q in check.data if q is not None}
                self._detector(key, expected ^ own, len(self._data))
        for index, patches in enumerate(observables):
            line = [record[self._at(p, q)] for p in patches for q in self.code.logical(basis)]
            targets = self._targets(line, len(self._data))
            self.circuit.append("OBSERVABLE_INCLUDE", targets, index)
        self._records += len(self._data)

    def _at(self, patch: int, qubit: int) -> int:
        return patch * self.code.num_qubits + qubit

    def _keys(self) -> list[tuple[int, int]]:
        """Patch and number of each check, in the order of its records."""
        return [(p, number) for p in range(self.patches) for number in range(len(self.code.checks))]

    def _tick(self) -> None:
        self.circuit.append("TICK")

    def _turn(self, basis: Callable[[int], Basis]) -> None:
        """Change the basis of the data qubits between Z and that of each patch."""
        qubits = [
            self._at(patch, q)
            for patch in range(self.patches)
            for q in range(self.code.num_data)
            if basis(patch) == "X"
        ]
        self.circuit.append("H", qubits)
        self._tick()

    def _round(self, circuit: stim.Circuit) -> None:
        def layer(name: str, qubits: Sequence[int]) -> None:
            circuit.append(name, qubits)
            circuit.append("TICK")

        every = range(self.patches)
        first = [self._at(p, q) for p in every for q in range(self.code.num_data)
                 if self.code.begins_with_x(q)]  # fmt: skip
        ends = sorted([*self._ancillas, *first])
        layer("H", ends)
        for step in range(4):
            pairs = []
            for patch in range(self.patches):
                for check in self.code.checks:
                    if (data := check.data[step]) is not None:
                        pairs += [self._at(patch, check.ancilla), self._at(patch, data)]
            layer("CZ", pairs)
            if step in (0, 2):
                layer("H", self._data)
        layer("H", ends)
        layer("M", self._ancillas)
        layer("R", self._ancillas)
        circuit.append("SHIFT_COORDS", [], (0, 0, 1))

    def _place(self, patch: int, number: int) -> tuple[int, ...]:
        """Coordinates of a detector: x, y, t, and the order and the kind by which
        `pymatching-sequential` matches: errors of X spread to patches of higher numbers."""
        check = self.code.checks[number]
        x, y = self.code.sites[check.ancilla]
        is_z = check.kind == "Z"
        order = patch if is_z else self.patches - 1 - patch
        return x + patch * (2 * self.code.distance + 2), y, 0, order, int(not is_z)

    def _detector(self, key: tuple[int, int], records: Iterable[int], new: int) -> None:
        """Append a detector. `new`: measurements that follow `self._records` already."""
        self.circuit.append("DETECTOR", self._targets(records, new), self._place(*key))

    def _targets(self, records: Iterable[int], new: int) -> list[stim.GateTarget]:
        now = self._records + new
        return [stim.target_rec(record - now) for record in sorted(records)]


def memory(code: SurfaceCode, basis: Basis, rounds: int) -> stim.Circuit:
    """Return the memory experiment of one patch: |0> or |+>, rounds, measurement in the basis."""
    patch = PatchCircuit(code, 1)
    patch.prepare((basis,))
    patch.rounds(rounds)
    patch.measure(basis, [(0,)])
    return patch.circuit


def product_cx(code: SurfaceCode, basis: Basis, rounds: Sequence[int]) -> stim.Circuit:
    """Return CX on two patches in |00> (basis Z) or |++> (basis X). `rounds`: before the first CX
    and after each. Observables: control, target, their parity."""
    patches = PatchCircuit(code, 2)
    patches.prepare((basis, basis))
    patches.rounds(rounds[0])
    for after in rounds[1:]:
        patches.cx(0, 1)
        patches.rounds(after)
    patches.measure(basis, [(0,), (1,), (0, 1)])
    return patches.circuit


def ghz(code: SurfaceCode, patches: int, basis: Basis, rounds: Sequence[int]) -> stim.Circuit:
    """Return a GHZ state of |+0...0> by CX from each patch to the next. `rounds`: before the first
    CX and after each. Observables: parities of neighbours (basis Z), parity of all (basis X)."""
    built = PatchCircuit(code, patches)
    bases: list[Basis] = ["Z"] * patches
    bases[0] = "X"
    built.prepare(bases)
    built.rounds(rounds[0])
    for first, after in zip(range(patches - 1), rounds[1:], strict=True):
        built.cx(first, first + 1)
        built.rounds(after)
    neighbours = [(first, first + 1) for first in range(patches - 1)]
    built.measure(basis, neighbours if basis == "Z" else [tuple(range(patches))])
    return built.circuit
