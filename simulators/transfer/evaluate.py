"""Outcome probabilities of a transfer program and their derivatives, in one pass.

The state is the vector of its Pauli coefficients: rho = 2^-n sum_P v[P] P. A step multiplies the 16
entries of two qubits by K; its derivative with respect to a parameter t is dv <- K dv + (dK/dt) v.
Source of the transfer matrices: Greenbaum, arXiv 1509.02921, section 2.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from simulators.errors import Unsupported
from simulators.transfer.dual import DualMatrix, constant
from simulators.transfer.program import Chain, ConstantTable, PairStep, TransferProgram

MAX_ENTRIES = 2**27  # limit of the state and its derivatives: 1 GiB
_IDENTITY = constant(np.eye(4))
_POPULATIONS = constant(np.array([[0.5, 0.0, 0.0, 0.5], [0.5, 0.0, 0.0, -0.5]]))
_TRACE = constant(np.array([[1.0, 0.0, 0.0, 0.0]]))


class OutcomeDistribution(msgspec.Struct, frozen=True, eq=False):
    """Probabilities of all outcomes, and their derivatives.

    Bit k of an outcome is the k-th measured clbit. `jacobian` is [2^m, params].
    """

    probabilities: NDArray[np.float64]  # [2^m]
    params: tuple[int, ...]
    jacobian: NDArray[np.float64]


class ChannelSet:
    """Channels for one set of parameter values, with a cache of their products."""

    def __init__(
        self,
        channels: Sequence[DualMatrix],
        readout: Mapping[int, DualMatrix],
        table: ConstantTable,
    ) -> None:
        """Set up. `channels`: by the numbers in chains. `readout`: confusion [2, 2] (row read,
        column true) of a qubit of the circuit; qubits without one are read exactly."""
        self.readout = readout
        self._channels = channels
        self._table = table
        self._chains: dict[Chain, DualMatrix] = {}
        self._steps: dict[tuple[Chain, Chain, Chain], DualMatrix] = {}

    def channel(self, number: int) -> DualMatrix:
        """Channel by number."""
        return self._channels[number]

    def chain(self, ids: Chain) -> DualMatrix:
        """Product of a chain on one qubit."""
        result = self._chains.get(ids)
        if result is None:
            result = self._chains[ids] = self._product(_IDENTITY, ids)
        return result

    def step(self, step: PairStep) -> DualMatrix:
        """Matrix of a step, [16, 16]."""
        key = (step.low_chain, step.high_chain, step.pair_chain)
        result = self._steps.get(key)
        if result is None:
            apart = self.chain(step.high_chain).tensor(self.chain(step.low_chain))
            result = self._steps[key] = self._product(apart, step.pair_chain)
        return result

    def _product(self, product: DualMatrix, ids: Chain) -> DualMatrix:
        for number in ids:
            table = self._table.matrices if number < 0 else self._channels
            product = table[~number if number < 0 else number].after(product)
        return product


def outcomes(program: TransferProgram, channels: ChannelSet) -> OutcomeDistribution:
    """Probabilities and derivatives. Raises Unsupported for a state that is too large."""
    matrices = [channels.step(step) for step in program.steps]
    finals = [channels.chain(chain) for chain in program.final]
    params = tuple(sorted({param for each in (*matrices, *finals) for param in each.params}))
    _refuse_size(program.num_qubits, len(params))
    evolution = _Evolution(program.num_qubits, params)
    for step, matrix in zip(program.steps, matrices, strict=True):
        evolution.act(matrix, (step.high, step.low))
    measured = set(program.measured)
    for qubit, final in enumerate(finals):
        seen = _POPULATIONS if qubit in measured else _TRACE
        evolution.act(seen.after(final), (qubit,))
    for qubit in program.measured:
        confusion = channels.readout.get(program.qubits[qubit])
        if confusion is not None:
            evolution.act(confusion, (qubit,))
    result = evolution.ordered(program.measured[::-1])
    return OutcomeDistribution(result[:, 0].copy(), evolution.params, result[:, 1:])


def _refuse_size(num_qubits: int, num_params: int) -> None:
    if 4**num_qubits * (1 + num_params) > MAX_ENTRIES:
        raise Unsupported(
            f"the transfer simulator and {num_qubits} qubits with {num_params} parameters",
            hint=f"4^qubits times (1 + parameters) is at most {MAX_ENTRIES}",
        )


class _Evolution:
    """Vector and its derivatives, [digits of the qubits in the order `axes`, 1 + params]."""

    def __init__(self, num_qubits: int, params: tuple[int, ...]) -> None:
        self.params = params
        self._axes = list(range(num_qubits))
        vector = np.ones(1)
        for _ in range(num_qubits):
            vector = np.multiply.outer(vector, np.array([1.0, 0.0, 0.0, 1.0])).ravel()
        self._data = np.zeros((*(4,) * num_qubits, 1 + len(params)))
        self._data[..., 0] = vector.reshape((4,) * num_qubits)

    def act(self, matrix: DualMatrix, qubits: tuple[int, ...]) -> None:
        """Multiply the digits of these qubits, the first one the highest; they become the first
        axes."""
        self._add_params(matrix.params)
        rest = [axis for axis in self._axes if axis not in qubits]
        order = [self._axes.index(axis) for axis in (*qubits, *rest)]
        moved = self._data.transpose(*order, len(order))
        shape = moved.shape
        before = moved.reshape(matrix.values.shape[2], -1)
        result = matrix.values[0] @ before
        if matrix.params:
            value = np.ascontiguousarray(before.reshape(len(before), -1, shape[-1])[..., 0])
            columns = result.reshape(len(result), -1, shape[-1])
            for number, param in enumerate(matrix.params):
                columns[..., 1 + self.params.index(param)] += matrix.values[1 + number] @ value
        digits = (len(result),) if len(qubits) == 1 else (4, 4)
        self._data = result.reshape(*digits, *shape[len(qubits) :])
        self._axes = [*qubits, *rest]

    def _add_params(self, params: tuple[int, ...]) -> None:
        new = tuple(param for param in params if param not in self.params)
        if new:
            zeros = np.zeros((*self._data.shape[:-1], len(new)))
            self._data = np.concatenate((self._data, zeros), axis=-1)
            self.params = (*self.params, *new)

    def ordered(self, qubits: tuple[int, ...]) -> NDArray[np.float64]:
        """Data as [outcomes, 1 + params]; the first of `qubits` is the highest bit."""
        rest = [axis for axis in self._axes if axis not in qubits]
        order = [self._axes.index(axis) for axis in (*qubits, *rest)]
        moved = self._data.transpose(*order, len(order))
        return np.asarray(moved.reshape(-1, moved.shape[-1]))
