"""Exact distributions of circuits with noise, by density matrices in numpy; noise for tests."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from reference import OWNERS, Operation, apply, evaluate, expressions, matrix, operations
from scipy.stats import chi2

from noise_models.channel import Channel, Readout
from simulators.circuit.ir import Circuit
from simulators.circuit.noise import NoiseProgram

Matrix = NDArray[np.complex128]
Located = tuple[int, tuple[int, ...], Channel]  # operation it follows, qubits
_SILENT = {"barrier", "delay", "delay_dt", "id", "global_phase"}
_OPENERS = {"if", "while", "for", "switch"}
_LEAST = 5.0  # expected shots of an outcome that is compared on its own


def program(located: Sequence[Located], readout: Readout | None = None) -> NoiseProgram:
    """A noise program of these channels, in order."""
    channels: list[Channel] = []
    rows = []
    for after, qubits, channel in sorted(located, key=lambda item: item[0]):
        number = next((k for k, value in enumerate(channels) if value is channel), len(channels))
        if number == len(channels):
            channels.append(channel)
        rows.append((after, number, qubits[0], qubits[1] if len(qubits) > 1 else -1))
    kinds = frozenset({"kraus", "pauli"} | ({"readout"} if readout is not None else set()))
    locations = np.array(rows, np.int64).reshape(-1, 4)
    return NoiseProgram(b"", kinds, locations, tuple(channels), readout)  # type: ignore[arg-type]


def after_gates(
    circuit: Circuit, channels: Callable[[Operation], Sequence[tuple[tuple[int, ...], Channel]]]
) -> list[Located]:
    """The channels that a rule gives for each operation."""
    return [
        (k, qubits, channel)
        for k, row in enumerate(operations(circuit))
        for qubits, channel in channels(row)
    ]


class Exact:
    """Probability of each classical record (an integer) of a circuit without `while` and `switch`;
    `rho` is the final density matrix where nothing is measured."""

    def __init__(self, circuit: Circuit, noise: NoiseProgram) -> None:
        circuit = noise.located(circuit)
        self.circuit, self.noise, self.n = circuit, noise, circuit.num_qubits
        self.rows = operations(circuit)
        self.expressions = expressions(circuit)
        owners = [k for k, row in enumerate(self.rows) if row.name in OWNERS]
        self.expression_of = dict(zip(owners, range(len(owners)), strict=True))
        self.after: dict[int, list[tuple[list[Matrix], tuple[int, ...]]]] = {}
        kraus = [list(channel.kraus()) for channel in noise.channels]
        for after, channel, one, two in noise.locations.tolist():
            qubits = (one,) if two < 0 else (one, two)
            self.after.setdefault(after, []).append((kraus[channel], qubits))
        zero = np.zeros(4**self.n, complex)
        zero[0] = 1.0
        self.records = self._block(0, len(self.rows), self._noise(-1, {0: zero}))
        self.rho = sum(self.records.values()).reshape(2**self.n, 2**self.n).T
        self.probs = {bits: self._trace(rho) for bits, rho in self.records.items()}
        for group in () if noise.readout is None else noise.readout.groups:
            self._confuse(group.qubits, group.confusion)

    def _trace(self, rho: Matrix) -> float:
        return float(np.trace(rho.reshape(2**self.n, -1)).real)

    def _map(self, operators: Sequence[Matrix], qubits: tuple[int, ...], rho: Matrix) -> Matrix:
        """Qubit q of the kets is bit q of an index, that of the bras bit n + q."""
        bras = tuple(q + self.n for q in qubits)
        return sum(apply(apply(rho, k, qubits), k.conj(), bras) for k in operators)

    def _noise(self, k: int, states: dict[int, Matrix]) -> dict[int, Matrix]:
        for operators, qubits in self.after.get(k, ()):
            states = {bits: self._map(operators, qubits, rho) for bits, rho in states.items()}
        return states

    def _end(self, k: int) -> tuple[int, int]:
        """The `else` (or end) and the end of the block that begins at k."""
        depth, other = 0, -1
        for j in range(k, len(self.rows)):
            name = self.rows[j].name
            depth += (name in _OPENERS) - (name == "end")
            if name == "else" and depth == 1:
                other = j
            if not depth:
                return (j if other < 0 else other), j
        raise AssertionError("a block without an end")

    def _block(self, first: int, last: int, states: dict[int, Matrix]) -> dict[int, Matrix]:
        k = first
        while k < last:
            row = self.rows[k]
            if row.name == "if":
                middle, end = self._end(k)
                tokens = self.expressions[self.expression_of[k]]
                table = {b: r for b, r in states.items() if evaluate(self.circuit, tokens, b)}
                other = {b: r for b, r in states.items() if b not in table}
                table = self._block(k + 1, middle, self._noise(k, table))
                if middle < end:
                    other = self._block(middle + 1, end, self._noise(middle, other))
                states = _joined(table, other)
                k = end
            elif row.name == "for":
                _, end = self._end(k)
                token = self.expressions[self.expression_of[k]][0]
                for _ in range(int.from_bytes(self.circuit.constants[token[1]], "little")):
                    states = self._block(k + 1, end, self._noise(k, states))
                k = end
            else:
                states = self._one(row, states)
            states = self._noise(k, states)
            k += 1
        return states

    def _one(self, row: Operation, states: dict[int, Matrix]) -> dict[int, Matrix]:
        if row.name in _SILENT:
            return states
        if row.name == "reset":
            down = [np.array([[1, 0], [0, 0]], complex), np.array([[0, 1], [0, 0]], complex)]
            return {bits: self._map(down, row.qubits, rho) for bits, rho in states.items()}
        if row.name == "measure":
            return self._measured(row, states)
        gate = [matrix(row.name, row.params, len(row.qubits))]
        return {bits: self._map(gate, row.qubits, rho) for bits, rho in states.items()}

    def _measured(self, row: Operation, states: dict[int, Matrix]) -> dict[int, Matrix]:
        table: dict[int, Matrix] = {}
        (qubit,), (clbit,) = row.qubits, row.clbits
        readout = self.noise.readout
        grouped = readout is not None and any(qubit in group.qubits for group in readout.groups)
        for outcome in (0, 1):
            projector = np.diag([1.0 - outcome, outcome]).astype(complex)
            flip = 0.0
            if readout is not None and not grouped:
                flip = float((readout.p10 if outcome else readout.p01)[qubit])
            for read, probs in ((outcome, 1.0 - flip), (1 - outcome, flip)):
                for bits, rho in states.items():
                    new = bits & ~(1 << clbit) | read << clbit
                    part = probs * self._map([projector], row.qubits, rho)
                    table[new] = table[new] + part if new in table else part
        return table

    def _confuse(self, qubits: tuple[int, ...], confusion: NDArray[np.float64]) -> None:
        """Correlated readout of measurements at the end."""
        clbit = {row.qubits[0]: row.clbits[0] for row in self.rows if row.name == "measure"}
        places = [clbit[q] for q in qubits]
        table: dict[int, float] = {}
        for bits, probs in self.probs.items():
            true = sum((bits >> place & 1) << j for j, place in enumerate(places))
            for read in range(len(confusion)):
                new = bits
                for j, place in enumerate(places):
                    new = new & ~(1 << place) | (read >> j & 1) << place
                table[new] = table.get(new, 0.0) + probs * float(confusion[read, true])
        self.probs = table


def _joined(one: dict[int, Matrix], two: dict[int, Matrix]) -> dict[int, Matrix]:
    table = dict(one)
    for bits, rho in two.items():
        table[bits] = table[bits] + rho if bits in table else rho
    return table


def p_value(probs: dict[int, float], counts: dict[int, int]) -> float:
    """Pearson's chi-square test of counts; outcomes that are hardly expected count as one."""
    shots = sum(counts.values())
    expected = {bits: shots * p for bits, p in probs.items()}
    assert all(expected.get(bits, 0.0) > 1e-9 for bits in counts), "an impossible outcome"
    rare = {bits for bits, value in expected.items() if value < _LEAST}
    pairs = [(counts.get(b, 0), e) for b, e in expected.items() if b not in rare]
    left = sum(expected[b] for b in rare)
    if left:
        pairs.append((sum(counts.get(b, 0) for b in rare), left))
    statistic = sum((result - value) ** 2 / value for result, value in pairs if value > 1e-9)
    return float(chi2.sf(statistic, max(1, len(pairs) - 1)))
