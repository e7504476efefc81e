"""Outcome distributions of Clifford circuits with Pauli-twirled noise, from means of parities.

The mean of (-1)^(sum of the bits in S) is that of the Pauli string Z_S at the end. Propagated back
through a Clifford gate, a Pauli string is again one Pauli string with a sign; the twirl of a
channel keeps the diagonal of its transfer matrix, so that it multiplies the mean by one number. All
2^m sets S of m outcomes are propagated at once; a Walsh-Hadamard transform of the means gives the
distribution, to which the exact readout error is applied. Time and memory do not depend on the
width of the circuit.

Source: Flammia and Wallman, Efficient estimation of Pauli channels, arXiv 1907.12976, section II;
Gottesman, arXiv quant-ph/9807006.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from simulators.errors import Unsupported
from simulators.transfer.evaluate import ChannelSet, OutcomeDistribution, Readout, walsh
from simulators.transfer.program import ConstantTable, TransferProgram

MAX_BITS = 16  # bits of a distribution
_EXACT = 1e-9  # rounding tolerance of a transfer matrix that is a signed permutation


class ParityProgram(msgspec.Struct, frozen=True, eq=False):
    """Parities of one circuit. `means`: values without noise, 0 or +-1, of each set of bits."""

    qubits: tuple[int, ...]  # qubits of the circuit
    measured: tuple[int, ...]  # number in `qubits` of each bit
    clbits: tuple[int, ...]  # ascending; bit k of an outcome is clbits[k]
    means: NDArray[np.float64]  # [2^m]
    uses: dict[int, list[NDArray[np.uint8]]]  # by channel: index of the Pauli in each set, [2^m]

    @property
    def num_qubits(self) -> int:
        """Qubits of the circuit."""
        return len(self.qubits)

    @property
    def channels(self) -> frozenset[int]:
        """Numbers of its channels."""
        return frozenset(self.uses)


def parity_program(
    program: TransferProgram, table: ConstantTable, clbits: Sequence[int] = ()
) -> ParityProgram:
    """Make the program of a circuit whose gates are Clifford gates. `clbits`: of the distribution;
    (): all.

    Raises Unsupported for other gates, and for more than MAX_BITS bits.
    """
    chosen = tuple(sorted(clbits)) or program.clbits
    if len(chosen) > MAX_BITS:
        raise Unsupported(
            f"a distribution of {len(chosen)} bits from parities",
            hint=f"at most {MAX_BITS} bits",
        )
    place = {clbit: program.measured[k] for k, clbit in enumerate(program.clbits)}
    measured = tuple(place[clbit] for clbit in chosen)
    back = _BackwardPropagation(program.num_qubits, measured, table)
    for number, low, high in program.rows[::-1].tolist():
        if high < 0:
            back.chain((number,), (low,))
        else:
            back.chain(table.pair_chains[number], (low, high))
    return ParityProgram(program.qubits, measured, chosen, back.means(), back.uses)


class _BackwardPropagation:
    """Pauli strings of all sets of bits, from the end of a circuit to its beginning."""

    def __init__(self, num_qubits: int, measured: Sequence[int], table: ConstantTable) -> None:
        sets = np.arange(1 << len(measured))
        self._paulis = np.zeros((num_qubits, sets.size), np.uint8)
        for bit, qubit in enumerate(measured):
            self._paulis[qubit] = 3 * (sets >> bit & 1)
        self._signs = np.ones(sets.size)
        self._table = table
        self.uses: dict[int, list[NDArray[np.uint8]]] = {}

    def chain(self, ids: Sequence[int], qubits: tuple[int, ...]) -> None:
        """Propagate back through a chain on one qubit, or on a pair (low, high)."""
        for number in reversed(ids):
            index = self._paulis[qubits[0]]
            if len(qubits) == 2:
                index = index + 4 * self._paulis[qubits[1]]
            if number >= 0:
                self.uses.setdefault(number, []).append(index.copy())
                continue
            columns, signs = _signed_permutation(self._table.matrices[~number].values[0])
            moved = columns[index]
            self._signs *= signs[index]
            self._paulis[qubits[0]] = moved & 3
            if len(qubits) == 2:
                self._paulis[qubits[1]] = moved >> 2

    def means(self) -> NDArray[np.float64]:
        """Means in |0...0>: nonzero for strings of I and Z only."""
        classical = ((self._paulis == 0) | (self._paulis == 3)).all(axis=0)
        return np.where(classical, self._signs, 0.0)


def _signed_permutation(ptm: NDArray[np.float64]) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """Column and sign of each row of a Clifford gate's transfer matrix. Raises Unsupported."""
    columns = np.abs(ptm).argmax(axis=1)
    signs = np.sign(ptm[np.arange(len(ptm)), columns])
    exact = np.zeros(ptm.shape)
    exact[np.arange(len(ptm)), columns] = signs
    if np.abs(ptm - exact).max() > _EXACT:
        raise Unsupported(
            "a distribution from parities of a circuit with gates that are not Clifford gates",
            hint="the transfer simulator takes all gates on fewer qubits",
        )
    return columns.astype(np.uint8), signs


def parity_outcomes(program: ParityProgram, channels: ChannelSet) -> OutcomeDistribution:
    """Probabilities and derivatives under the Pauli twirl of the channels."""
    alive = np.flatnonzero(program.means)
    means = program.means[alive]
    slopes: dict[int, NDArray[np.float64]] = {}  # derivatives of the logarithm of each mean
    for number, uses in program.uses.items():
        channel = channels.channel(number)
        diagonal = np.einsum("kii->ki", channel.values)
        safe = np.where(diagonal[0] == 0.0, 1.0, diagonal[0])
        for index in uses:
            paulis = index[alive]
            means = means * diagonal[0][paulis]
            for row, param in enumerate(channel.params, 1):
                if param not in slopes:
                    slopes[param] = np.zeros(alive.size)
                slopes[param] += (diagonal[row] / safe)[paulis]
    read = Readout(program.qubits, program.measured, channels.readout)
    params = tuple(sorted({*slopes, *read.params}))
    values = np.zeros((program.means.size, 1 + len(params)))
    values[alive, 0] = means
    for column, param in enumerate(params, 1):
        if param in slopes:
            values[alive, column] = means * slopes[param]
    result = read.applied(walsh(values, len(program.measured)), params)
    return OutcomeDistribution(result[:, 0].copy(), params, result[:, 1:])
