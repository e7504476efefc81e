"""Outcome probabilities of a transfer program and their derivatives, in one pass.

The state is the vector of its Pauli coefficients: rho = 2^-n sum_P v[P] P. The probabilities of
the measured qubits are the Walsh-Hadamard transform of the coefficients of strings of I and Z.
Over detunings that are constant during a shot they are a mean over a quadrature; the derivatives,
which cost more, are means over a coarser one. That by the size of the detunings is a difference.
Source of the transfer matrices: Greenbaum, arXiv 1509.02921, section 2.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from simulators.circuit.analysis.quadrature import Grid, grid
from simulators.compiler.simd import LANES
from simulators.errors import Unsupported
from simulators.transfer import evolution
from simulators.transfer.evolution import (
    NUMBER,
    PARAM,
    ChainScratch,
    PairMatrices,
    QubitMatrices,
    evolve,
)
from simulators.transfer.program import Chain, ConstantTable, Rotations, TransferProgram

MAX_ENTRIES = 2**27  # limit of the state and its derivatives: 1 GiB
_IDENTITY = evolution.constant(np.eye(16))


class OutcomeDistribution(msgspec.Struct, frozen=True, eq=False):
    """Probabilities of all outcomes, and their derivatives. Bit k of an outcome is the k-th
    measured clbit. `jacobian` is [2^m, params]."""

    probabilities: NDArray[np.float64]  # [2^m]
    params: tuple[int, ...]
    jacobian: NDArray[np.float64]
    error: float = 0.0  # bound of the quadrature over detunings


class Precision(msgspec.Struct, frozen=True):
    """Largest errors of the quadrature over detunings (`quadrature.grid`), of the probabilities and
    of their derivatives, and the largest number of sets of detunings of either."""

    value: float
    slope: float
    most: int


FINE = Precision(1e-6, 1e-3, 8_192)


class Detuning(msgspec.Struct, frozen=True):
    """Factor of all detunings, and the number of the parameter that is its logarithm; -1: none."""

    factor: float = 1.0
    param: int = -1


_UNCHANGED = Detuning()


class ReadTogether(msgspec.Struct, frozen=True, eq=False):
    """Confusion of qubits that are read together, [2^k, 2^k] (row read, column true; qubits[0] is
    bit 0), in place of that of each of them, if each is measured once."""

    qubits: tuple[int, ...]
    confusion: evolution.DualMatrix


class JointFlip(msgspec.Struct, frozen=True):
    """Probability that the records of two qubits are both flipped, after all other errors of the
    readout, and the number of the parameter that it is; -1: none. A record that is read without the
    other is flipped with the same probability."""

    qubits: tuple[int, int]
    probability: float
    param: int = -1


class UniformPart(msgspec.Struct, frozen=True):
    """Part of the records of a circuit that are uniform over all outcomes, and the number of the
    parameter that it is; -1: none."""

    share: float = 0.0
    param: int = -1


class _PackedChannels(msgspec.Struct, frozen=True, eq=False):
    """Arrays of a channel set, as `evolution.evolve` takes them."""

    channels: QubitMatrices  # by number
    chain_params: int  # number of different parameters of channels on one qubit
    pairs: PairMatrices


_NOT_UNIFORM = UniformPart()


class ChannelSet:
    """Channels for one set of parameter values, packed for compiled code at the first use."""

    def __init__(
        self,
        channels: Sequence[evolution.DualMatrix | None],
        readout: Mapping[int, evolution.DualMatrix],
        table: ConstantTable,
        detuning: Detuning = _UNCHANGED,
        together: Sequence[ReadTogether] = (),
        joint: Sequence[JointFlip] = (),
        uniform: UniformPart = _NOT_UNIFORM,
    ) -> None:
        """Set up. `channels`: by the numbers in programs, None where no program has it. `readout`:
        confusion [2, 2] (row read, column true) of a qubit of the circuit; qubits without one are
        read exactly."""
        self.detuning = detuning
        self.together = together
        self.joint = joint
        self.uniform = uniform
        self.readout = readout
        self.table = table
        self._channels = channels
        self._packed: _PackedChannels | None = None

    def evaluable(self, rotations: Rotations | None, precision: Precision) -> ChannelSet:
        """These channels, or, where a program's rotations by such detunings have too many sets, the
        same with the strongest detunings that `precision` allows: the phases of stronger ones are
        spread over the circle as well. Their factor is no parameter there."""
        factor = self.detuning.factor
        while rotations is not None and not _has_grids(rotations, precision, factor):
            factor *= _WEAKER
        if factor == self.detuning.factor:
            return self
        result = ChannelSet(
            self._channels, self.readout, self.table, Detuning(factor), self.together, self.joint,
            self.uniform,
        )  # fmt: skip
        result._packed = self._packed
        return result

    def channel(self, number: int) -> evolution.DualMatrix:
        result = self._channels[number]
        assert result is not None
        return result

    def packed(self) -> _PackedChannels:
        """Arrays of all channels, and of the chains of pairs that the table has."""
        if self._packed is None or len(self._packed.pairs.first) <= 2 * len(self.table.pair_chains):
            # Channels on one qubit, [n, 1 + k, 16] with their derivatives, and their parameters.
            count = len(self._channels)
            on_one = [
                (number, each)
                for number, each in enumerate(self._channels)
                if each is not None and len(each.values[0]) <= 4
            ]
            size = max((len(each.params) for _, each in on_one), default=0)
            channels, params = np.zeros((count, 1 + size, 16)), np.full((count, size), -1, np.int64)
            for number, each in on_one:
                channels[number, : len(each.values)] = each.values.reshape(-1, 16)
                params[number, : len(each.params)] = each.params
            # Nonzero entries of chains, [16, 16], and of their derivatives: see `evolution.evolve`.
            first, entries, values = [0], [np.zeros((0, 3), np.int64)], [np.zeros(0)]
            for chain in self.table.pair_chains:
                product = self._product(chain)
                if product is None:
                    first += [first[-1], first[-1]]
                    continue
                slot, row, column = np.nonzero(product.values)
                owners = np.array((-1, *product.params))[slot]
                entries.append(np.column_stack((row, column, owners)))
                values.append(product.values[slot, row, column])
                first += [first[-1] + int((slot == 0).sum()), first[-1] + slot.size]
            pairs = PairMatrices(np.array(first), np.concatenate(entries), np.concatenate(values))
            matrices = QubitMatrices(channels, params)
            self._packed = _PackedChannels(matrices, np.unique(params).size, pairs)
        return self._packed

    def _product(self, ids: Chain) -> evolution.DualMatrix | None:
        """Product of a chain of pairs; None if no program has it."""
        if any(number >= 0 and self._channels[number] is None for number in ids):
            return None
        product = _IDENTITY
        for number in ids:
            step = self.table.matrices[~number] if number < 0 else self.channel(number)
            product = step.after(product)
        return product


def outcomes(
    program: TransferProgram, channels: ChannelSet, precision: Precision = FINE
) -> OutcomeDistribution:
    """Probabilities and derivatives. Raises Unsupported for a state that is too large, and for more
    sets of detunings than `precision` allows."""
    readout = Readout(program, channels)
    used = {param for number in program.channels for param in channels.channel(number).params}
    if program.rotations is not None and channels.detuning.param >= 0:
        used.add(channels.detuning.param)
    evolved = tuple(sorted(used))
    params = tuple(sorted(readout.params.union(evolved)))
    probabilities = np.zeros((1 << len(program.measured), 1 + len(params)))
    places = [0, *(1 + params.index(param) for param in evolved)]
    means, error = _means(program, channels, evolved, precision)
    probabilities[:, places] = walsh(means, len(program.measured))
    result = readout.applied(probabilities, params)
    return OutcomeDistribution(result[:, 0].copy(), params, result[:, 1:], error)


_WEAKER = 0.8  # steps of the factor of detunings that have too many sets


def _grids(
    rotations: Rotations, precision: Precision, factor: float
) -> tuple[Grid | None, Grid | None]:
    reaches = [reach * factor for reach in rotations.reaches]
    fine, coarse = (
        grid(reaches, error, precision.most) for error in (precision.value, precision.slope)
    )
    return fine, coarse


def _has_grids(rotations: Rotations, precision: Precision, factor: float) -> bool:
    return all(each is not None for each in _grids(rotations, precision, factor))


def grids(rotations: Rotations, precision: Precision, factor: float = 1.0) -> tuple[Grid, Grid]:
    """Sets of detunings for probabilities and for derivatives. Raises Unsupported."""
    fine, coarse = _grids(rotations, precision, factor)
    if fine is None or coarse is None:
        raise Unsupported(
            "the transfer simulator and the detunings (T2* beside T2) of"
            f" {len(rotations.reaches)} qubits",
            hint=f"a quadrature with an error of {precision.value:g} has more than"
            f" {precision.most} nodes: take fewer qubits or shorter waiting times",
        )
    return fine, coarse


def _means(
    program: TransferProgram,
    channels: ChannelSet,
    params: tuple[int, ...],
    precision: Precision,
) -> tuple[NDArray[np.float64], float]:
    """Means of the parities of each set of outcomes, and their derivatives, [2^m, 1 + params], and
    the error of the quadrature over the detunings."""
    packed, rotations = channels.packed(), program.rotations
    if rotations is None:
        return _evolved(program, channels, params, program.rows, packed), 0.0
    rows, count = program.rows.copy(), len(packed.channels.values)
    rows[rotations.rows, NUMBER] += count
    fine, coarse = grids(rotations, precision, channels.detuning.factor)
    own = channels.detuning.param
    others = tuple(each for each in params if each != own)

    def mean(chosen: Grid, factor: float, of: tuple[int, ...] = ()) -> NDArray[np.float64]:
        moved = _with_rotations(packed, len(rotations.rows), derivatives=bool(of))
        angles = factor * rotations.angles * chosen.x[:, rotations.owners]
        total = np.zeros((1 << len(program.measured), 1 + len(of)))
        for weight, row in zip(chosen.weights.tolist(), angles, strict=True):
            _turn(moved.channels.values[count:], row)
            total += weight * _evolved(program, channels, of, rows, moved)
        return total

    result = np.zeros((1 << len(program.measured), 1 + len(params)))
    factor = channels.detuning.factor
    result[:, :1] = mean(fine, factor)
    if others:
        columns = [1 + params.index(each) for each in others]
        result[:, columns] = mean(coarse, factor, others)[:, 1:]
    if own in params:  # the mean is nearly linear in the variance of weak detunings
        larger = mean(fine, factor * math.sqrt(1.0 + _STEP))
        result[:, 1 + params.index(own)] = (larger - result[:, :1])[:, 0] * 2.0 / _STEP
    return result, fine.error


_STEP = 1e-3  # relative, of the variance of the detunings
# Entries of a rotation about Z by an angle: its cosine, and its sine with these signs.
_EQUAL, _CROSSED, _SIGNS = [5, 10], [6, 9], np.array([-1.0, 1.0])


def _with_rotations(packed: _PackedChannels, count: int, *, derivatives: bool) -> _PackedChannels:
    """Channels with `count` rotations after them, whose angles are still to be set."""
    matrices, params = packed.channels
    pairs, chain_params = packed.pairs, packed.chain_params
    if not derivatives:
        values = pairs.entries[:, PARAM] < 0
        first = np.append(0, np.cumsum(values))[pairs.first]
        pairs = PairMatrices(first, pairs.entries[values], pairs.values[values])
        matrices, params, chain_params = matrices[:, :1], params[:, :0], 0
    turns = np.zeros((count, *matrices.shape[1:]))
    turns[:, 0, [0, 15]] = 1.0
    none = np.full((count, params.shape[1]), -1, np.int64)
    channels = QubitMatrices(np.concatenate((matrices, turns)), np.concatenate((params, none)))
    return _PackedChannels(channels, chain_params, pairs)


def _turn(rotations: NDArray[np.float64], angles: NDArray[np.float64]) -> None:
    """Set matrices [rotations, 1 + k, 16] to rotations about Z."""
    rotations[:, 0, _EQUAL] = np.cos(angles)[:, None]
    rotations[:, 0, _CROSSED] = np.sin(angles)[:, None] * _SIGNS


def _evolved(
    program: TransferProgram,
    channels: ChannelSet,
    params: tuple[int, ...],
    rows: NDArray[np.int64],
    packed: _PackedChannels,
) -> NDArray[np.float64]:
    """Means of the parities of each set of outcomes, and their derivatives: [2^m, 1 + params].
    `rows`, `packed`: with the rotations of one set of detunings."""
    num_qubits = program.num_qubits
    width = -(-(1 + len(params)) // LANES) * LANES if params else 1
    if width << 2 * num_qubits > MAX_ENTRIES:
        text = f"the transfer simulator and {num_qubits} qubits with {len(params)} parameters"
        raise Unsupported(text, hint=f"4^qubits times (1 + parameters) is at most {MAX_ENTRIES}")
    columns = np.zeros(max(params, default=0) + 1, np.int64)
    columns[list(params)] = np.arange(1, 1 + len(params))
    constants = channels.table.packed()
    data = np.zeros((*(4,) * num_qubits, width))
    every = (slice(None, None, 3),) * num_qubits  # I and Z
    data[every][..., 0] = 1.0
    fixed = QubitMatrices(constants, np.zeros((len(constants), 0), np.int64))
    scratch = ChainScratch.of(num_qubits, packed.chain_params, width)
    evolve(rows, fixed, packed.channels, packed.pairs, columns, scratch, width, data.reshape(-1))
    measured = set(program.measured)
    places = (slice(None, None, 3) if q in measured else 0 for q in range(num_qubits))
    classical = data[tuple(places)[::-1]]  # the highest digit is the first axis
    axes = sorted(measured, reverse=True)
    order = [axes.index(qubit) for qubit in program.measured[::-1]]
    moved = classical.transpose(*order, len(order))[..., : 1 + len(params)]
    return np.ascontiguousarray(moved).reshape(1 << len(order), -1)


def walsh(values: NDArray[np.float64], bits: int) -> NDArray[np.float64]:
    """Walsh-Hadamard transform 2^-m sum_S (-1)^(x S) values[S] of each column."""
    result = values
    for bit in range(bits):
        pairs = result.reshape(-1, 2, 1 << bit, result.shape[-1])
        result = np.stack((pairs[:, 0] + pairs[:, 1], pairs[:, 0] - pairs[:, 1]), axis=1)
    return result.reshape(values.shape) / float(1 << bits)


class Readout:
    """Confusion of the qubit of each measured bit, if it has one, then those of groups of qubits,
    then joint flips of pairs, then the uniform part."""

    def __init__(self, program: TransferProgram | ParityProgram, channels: ChannelSet) -> None:
        wires = [program.qubits[qubit] for qubit in program.measured]
        bits: dict[int, list[int]] = {}
        for bit, wire in enumerate(wires):
            bits.setdefault(wire, []).append(bit)
        self._matrices: list[tuple[list[int], evolution.DualMatrix]] = []
        grouped: set[int] = set()
        for each in channels.together:
            own = [bits.get(qubit, []) for qubit in each.qubits]
            if all(len(one) == 1 for one in own) and grouped.isdisjoint(each.qubits):
                self._matrices.append(([one[0] for one in own], each.confusion))
                grouped |= set(each.qubits)
        self._matrices += [
            ([bit], channels.readout[wire])
            for bit, wire in enumerate(wires)
            if wire in channels.readout and wire not in grouped
        ]
        self._joint: list[tuple[int, JointFlip]] = []  # with the mask of the bits that it flips
        for flip in channels.joint:
            own = [bits.get(qubit, []) for qubit in flip.qubits]
            if all(len(one) == 1 for one in own):
                self._joint.append((sum(1 << one[0] for one in own), flip))
            else:
                self._joint += [(1 << bit, flip) for one in own for bit in one]
        self.params = {param for _, matrix in self._matrices for param in matrix.params}
        self.params |= {flip.param for _, flip in self._joint if flip.param >= 0}
        self._uniform = channels.uniform
        self.params |= {self._uniform.param} - {-1}

    def applied(self, values: NDArray[np.float64], params: tuple[int, ...]) -> NDArray[np.float64]:
        """Apply the confusions to a distribution and its derivatives, [2^m, 1 + params]."""
        result, outcomes = values, np.arange(len(values))
        for bits, matrix in self._matrices:
            size = len(matrix.values[0])
            local = sum((outcomes >> bit & 1) << k for k, bit in enumerate(bits))
            spread = [sum((x >> k & 1) << bit for k, bit in enumerate(bits)) for x in range(size)]
            others = outcomes & ~sum(1 << bit for bit in bits)
            true = result[others[:, None] | np.array(spread)]  # [2^m, 2^k, 1 + params]
            result = np.einsum("xk,xkp->xp", matrix.values[0][local], true)
            for row, param in enumerate(matrix.params, 1):
                slope = np.einsum("xk,xk->x", matrix.values[row][local], true[..., 0])
                result[:, 1 + params.index(param)] += slope
        for mask, flip in self._joint:
            if flip.probability:
                swapped = result[outcomes ^ mask]
                result = result + flip.probability * (swapped - result)
        moved = result.copy() if self._joint else result
        for mask, flip in self._joint:
            if flip.param >= 0:  # d/dp of (1 - p) + p X, which commutes with the other flips
                change = result[outcomes ^ mask, 0] - result[:, 0]
                moved[:, 1 + params.index(flip.param)] += change / (1.0 - 2.0 * flip.probability)
        share, param = self._uniform.share, self._uniform.param
        if share or param >= 0:
            slope = 1.0 / len(moved) - moved[:, 0]
            moved = (1.0 - share) * moved
            moved[:, 0] += share / len(moved)
            if param >= 0:
                moved[:, 1 + params.index(param)] += slope
        return moved


# Outcome distributions of Clifford circuits with Pauli-twirled noise, from means of parities.
#
# The mean of (-1)^(sum of the bits in S) is that of the Pauli string Z_S at the end. Propagated
# back through a Clifford gate, a Pauli string is again one Pauli string with a sign; the twirl of a
# channel keeps the diagonal of its transfer matrix, so that it multiplies the mean by one number.
# All 2^m sets S of m outcomes are propagated at once; a Walsh-Hadamard transform of the means gives
# the distribution, to which the exact readout error is applied. Time and memory do not depend on
# the width of the circuit.
#
# Source: Flammia and Wallman, Efficient estimation of Pauli channels, arXiv 1907.12976, section II;
# Gottesman, arXiv quant-ph/9807006.

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
        return len(self.qubits)

    @property
    def channels(self) -> frozenset[int]:
        return frozenset(self.uses)


def parity_program(
    program: TransferProgram, table: ConstantTable, clbits: Sequence[int] = ()
) -> ParityProgram:
    """Make the program of a circuit whose gates are Clifford gates. `clbits`: of the distribution;
    (): all. Raises Unsupported for other gates, and for more than MAX_BITS bits."""
    chosen = tuple(sorted(clbits)) or program.clbits
    if len(chosen) > MAX_BITS:
        hint = f"at most {MAX_BITS} bits"
        raise Unsupported(f"a distribution of {len(chosen)} bits from parities", hint=hint)
    if program.rotations is not None:
        raise Unsupported(
            "a distribution from parities and a detuning of each shot (T2* beside T2)",
            hint="the transfer simulator takes them on fewer qubits",
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
        text = (
            "a distribution from parities of a circuit with resets or gates that are not Clifford"
        )
        raise Unsupported(text, hint="the transfer simulator takes all gates on fewer qubits")
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
    read = Readout(program, channels)
    params = tuple(sorted({*slopes, *read.params}))
    values = np.zeros((program.means.size, 1 + len(params)))
    values[alive, 0] = means
    for column, param in enumerate(params, 1):
        if param in slopes:
            values[alive, column] = means * slopes[param]
    result = read.applied(walsh(values, len(program.measured)), params)
    return OutcomeDistribution(result[:, 0].copy(), params, result[:, 1:])
