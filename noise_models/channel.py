"""Quantum channels, and readout errors."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from noise_models.strict_json import NoiseError

# Quantum channels on one and two qubits.
#
# A channel is stored as its Pauli transfer matrix: R[i, j] = tr(P_i E(P_j)) / 2^n, float64 [4^n,
# 4^n], with the Paulis in the order I, X, Y, Z. Index 4 * b + a of two qubits is Pauli a on the
# first qubit and b on the second; in matrices the first qubit is bit 0 of an index. Source:
# Greenbaum, Introduction to quantum gate set tomography (arXiv 1509.02921), section 2.

TOLERANCE = 1e-9  # largest deviation of an input from complete positivity and unit trace
_EXACT = 1e-14  # deviation of sum K^+ K from the identity that counts as rounding
_NEGLIGIBLE = 1e-15  # Kraus operators of smaller weight are dropped

_SINGLE = np.array(
    [[[1, 0], [0, 1]], [[0, 1], [1, 0]], [[0, -1j], [1j, 0]], [[1, 0], [0, -1]]], np.complex128
)


@functools.cache
def paulis(num_qubits: int) -> NDArray[np.complex128]:
    """Return the Pauli matrices, complex128 [4^n, 2^n, 2^n]."""
    if num_qubits == 1:
        return _SINGLE
    results = [np.kron(second, first) for second in _SINGLE for first in _SINGLE]
    return np.array(results)


def pauli_number(name: str) -> int:
    """Return the index in `paulis` of a Pauli such as `ZX`, whose first letter acts on the first
    qubit."""
    return sum("IXYZ".index(letter) << 2 * place for place, letter in enumerate(name))


class Channel(msgspec.Struct, frozen=True, eq=False):
    """Quantum channel as its Pauli transfer matrix."""

    ptm: NDArray[np.float64]

    @property
    def num_qubits(self) -> int:
        """Number of qubits: 1 or 2."""
        return 1 if len(self.ptm) == 4 else 2

    def then(self, other: Channel) -> Channel:
        """Return the composition of this channel and then `other`, on the same qubits."""
        return Channel(other.ptm @ self.ptm)

    def reversed(self) -> Channel:
        """Return this channel of two qubits with their order exchanged."""
        size = np.arange(16)
        order = (size & 3) << 2 | size >> 2
        return Channel(np.ascontiguousarray(self.ptm[np.ix_(order, order)]))

    @property
    def choi(self) -> NDArray[np.complex128]:
        """Choi matrix of trace 1: (1 / 4^n) sum_ij R[i, j] P_j^T (x) P_i, complex128 [4^n, 4^n].
        Index 2^n * r + s: r of the input, s of the output."""
        basis = paulis(self.num_qubits)
        size = len(basis)
        mapped = np.tensordot(self.ptm, basis, (0, 0))  # [j, c, d]: E(P_j)
        result = np.tensordot(basis, mapped, (0, 0)).transpose(1, 2, 0, 3)  # from [b, a, c, d]
        return np.asarray(result.reshape(size, size) / size, np.complex128)

    def kraus(self) -> NDArray[np.complex128]:
        """Return the Kraus operators in order of descending weight: complex128 [k, 2^n, 2^n]."""
        side = 1 << self.num_qubits
        weights, vectors = np.linalg.eigh(self.choi)
        order = [k for k in np.argsort(weights)[::-1] if weights[k] > _NEGLIGIBLE]
        results = [
            math.sqrt(side * weights[k]) * vectors[:, k].reshape(side, side).T for k in order
        ]
        return np.array(results)

    @property
    def cptp_error(self) -> float:
        """Deviation from a completely positive, trace-preserving map; 0 for an exact one."""
        first = np.zeros(len(self.ptm))
        first[0] = 1.0
        trace = float(np.abs(self.ptm[0] - first).max())
        return max(trace, -float(np.linalg.eigvalsh(self.choi)[0]))

    @property
    def is_identity(self) -> bool:
        """True if this is the identity channel, up to rounding."""
        return bool(np.abs(self.ptm - np.eye(len(self.ptm))).max() < 1e-15)

    @property
    def is_pauli(self) -> bool:
        """True if this channel is a mixture of Pauli operators."""
        off = self.ptm - np.diag(np.diag(self.ptm))
        return bool(np.abs(off).max() < 1e-12)

    @property
    def pauli_probabilities(self) -> NDArray[np.float64]:
        """Probability of each Pauli after a twirl, float64 [4^n]: the diagonal of chi."""
        return np.asarray(_signs(self.num_qubits) @ np.diag(self.ptm) / len(self.ptm))

    def twirled(self) -> Channel:
        """Return the Pauli twirl of this channel: the diagonal of its Pauli transfer matrix."""
        return Channel(np.diag(np.diag(self.ptm)))

    @property
    def infidelity(self) -> float:
        """Average gate infidelity to the identity."""
        side = 1 << self.num_qubits
        return float((side - np.trace(self.ptm) / side) / (side + 1))


@functools.cache
def _signs(num_qubits: int) -> NDArray[np.float64]:
    """Return +1 where two Paulis commute, -1 where they anticommute: float64 [4^n, 4^n]."""
    index = np.arange(4)
    commute = (index[:, None] == 0) | (index == 0) | (index[:, None] == index)
    single = np.where(commute, 1.0, -1.0)
    return single if num_qubits == 1 else np.asarray(np.kron(single, single))


def identity(num_qubits: int) -> Channel:
    """Return the identity channel."""
    return Channel(np.eye(4**num_qubits))


def from_kraus(operators: Sequence[NDArray[np.complex128]]) -> Channel:
    """Build the channel of Kraus operators on one or two qubits. Raises NoiseError. Operators that
    preserve the trace to 1e-9 are multiplied by (sum K^+ K)^(-1/2)."""
    inputs = [np.asarray(each, np.complex128) for each in operators]
    side = len(inputs[0]) if inputs else 0
    if side not in (2, 4) or any(each.shape != (side, side) for each in inputs):
        hint = "give the matrices of a channel on one or two qubits"
        raise NoiseError("Kraus operators that are not all 2x2 or all 4x4", hint=hint)
    if not all(np.isfinite(each).all() for each in inputs):
        hint = "give finite numbers"
        raise NoiseError("Kraus operators with an infinite element or NaN", hint=hint)
    off = float(np.abs(sum(each.conj().T @ each for each in inputs) - np.eye(side)).max())
    if not off <= TOLERANCE:
        text = f"Kraus operators that do not preserve the trace: off by {off:.2g}"
        raise NoiseError(text, hint="sum K^+ K must be the identity")
    stack = np.array(inputs)
    if off > _EXACT:
        values, kets = np.linalg.eigh((stack.conj().transpose(0, 2, 1) @ stack).sum(axis=0))
        stack = stack @ (kets / np.sqrt(values)) @ kets.conj().T
    basis = paulis(side // 2)
    mapped = (stack[:, None] @ basis @ stack.conj().transpose(0, 2, 1)[:, None]).sum(axis=0)
    size = len(basis)
    flat = basis.transpose(0, 2, 1).reshape(size, -1)
    return Channel(np.ascontiguousarray((flat @ mapped.reshape(size, -1).T).real / side))


def from_unitary(matrix: NDArray[np.complex128]) -> Channel:
    """Build the channel of one unitary. Raises NoiseError."""
    return from_kraus([matrix])


def controlled_phase(angle_rad: float) -> Channel:
    """Build the channel of diag(1, 1, 1, exp(i angle)), which is A + B cos(angle) + C
    sin(angle)."""
    constant, cosine, sine = _controlled_phase()
    return Channel(constant + math.cos(angle_rad) * cosine + math.sin(angle_rad) * sine)


@functools.cache
def _controlled_phase() -> tuple[NDArray[np.float64], ...]:
    """Return the matrices A, B and C of `controlled_phase`: float64 [16, 16]."""
    at_pi, at_half = (
        from_unitary(np.diag([1.0, 1.0, 1.0, np.exp(1j * angle)])).ptm
        for angle in (math.pi, math.pi / 2)
    )
    constant = (np.eye(16) + at_pi) / 2
    return constant, (np.eye(16) - at_pi) / 2, at_half - constant


def from_paulis(probabilities: NDArray[np.float64]) -> Channel:
    """Build a mixture of Paulis with these probabilities, float64 [4^n]. Raises NoiseError."""
    inputs = np.asarray(probabilities, np.float64)
    if (
        inputs.shape not in ((4,), (16,))
        or (inputs < 0.0).any()
        or abs(inputs.sum() - 1.0) > TOLERANCE
    ):
        hint = "4 or 16 of them, >= 0, whose sum is 1"
        raise NoiseError(f"Pauli probabilities {inputs.tolist()}", hint=hint)
    return Channel(np.diag(_signs(1 if inputs.size == 4 else 2) @ inputs))


def depolarizing(parameter: float, num_qubits: int) -> Channel:
    """Build the depolarizing channel rho -> (1 - p) rho + p I / 2^n, 0 <= p <= 4^n / (4^n - 1).
    Raises NoiseError for other p."""
    size = 4**num_qubits
    if not 0.0 <= parameter <= size / (size - 1):
        hint = f"0 to {size / (size - 1):.4f}"
        raise NoiseError(f"depolarizing parameter {parameter} on {num_qubits} qubits", hint=hint)
    diagonal = np.full(size, 1.0 - parameter)
    diagonal[0] = 1.0
    return Channel(np.diag(diagonal))


def dephasing(left: float) -> Channel:
    """Return the channel that multiplies X and Y by `left`."""
    return Channel(np.diag((1.0, left, left, 1.0)))


def transitions(rise: float, fall: float) -> Channel | None:
    """Return the channel of a qubit in |0> or |1> that becomes |1> with the probability `rise`, or
    |0> with `fall`; it leaves no superposition. None: no transition."""
    if rise <= 0.0 and fall <= 0.0:
        return None
    result = np.diag([1.0, 0.0, 0.0, 1.0 - rise - fall])
    result[3, 0] = fall - rise
    return Channel(result)


def relaxation(duration_ns: float, t1_us: float, t2_us: float, excited: float = 0.0) -> Channel:
    """Build thermal relaxation over a time; `excited`: population of |1> in equilibrium. T1 or T2
    may be infinite; T2 <= 2 T1. Raises NoiseError for other values. (Krantz et al., arXiv
    1904.06560, section III.B.)"""
    if not (duration_ns >= 0.0 and t1_us > 0.0 and t2_us > 0.0 and 0.0 <= excited <= 1.0):
        text = f"relaxation over {duration_ns} ns with T1 = {t1_us} us, T2 = {t2_us} us and"
        text += f" {excited} excited"
        raise NoiseError(text, hint="times > 0, a duration >= 0, a population from 0 to 1")
    if t2_us > 2.0 * t1_us * (1.0 + 1e-12):
        raise NoiseError(f"T2 = {t2_us} us > 2 T1 = {2 * t1_us} us", hint="T2 is at most 2 T1")
    decay = math.exp(-duration_ns / (1e3 * t1_us))
    dephasing = math.exp(-duration_ns / (1e3 * min(t2_us, 2.0 * t1_us)))
    return relaxed(decay, dephasing, excited)


def relaxed(decay: float, dephasing: float, excited: float) -> Channel:
    """Return the relaxation that keeps the part `decay` of Z and `dephasing` of X and Y."""
    result = np.diag([1.0, dephasing, dephasing, decay])
    result[3, 0] = (1.0 - decay) * (1.0 - 2.0 * excited)
    return Channel(result)


def tensor(first: Channel, second: Channel) -> Channel:
    """Return the tensor product of two one-qubit channels."""
    return Channel(np.asarray(np.kron(second.ptm, first.ptm), np.float64))


# Readout error: probabilities that a measurement returns another outcome.


class ReadoutGroup(msgspec.Struct, frozen=True, eq=False):
    """Correlated readout of a few qubits; it replaces their own errors if all of them are
    measured."""

    qubits: tuple[int, ...]
    confusion: NDArray[np.float64]  # [2^k, 2^k]: row read, column true; qubits[0] is bit 0


class Readout(msgspec.Struct, frozen=True, eq=False):
    """Readout error of each qubit. Of a model for any number of qubits, the last entry holds for
    all further ones."""

    p01: NDArray[np.float64]  # [qubits]: probability that 0 is read as 1
    p10: NDArray[np.float64]  # [qubits]: probability that 1 is read as 0
    groups: tuple[ReadoutGroup, ...] = ()
    # (p01, p10) of measurements that have them of their own, by the number of the operation in the
    # circuit; no group replaces them.
    own: Mapping[int, tuple[float, float]] = {}

    def flips(self, qubit: int, operation: int) -> tuple[float, float]:
        """Return p01 and p10 of a measurement of a circuit."""
        own = self.own.get(operation)
        if own is not None:
            return own
        at = min(qubit, len(self.p01) - 1)
        return float(self.p01[at]), float(self.p10[at])

    def __post_init__(self) -> None:
        for name, values in (("p01", self.p01), ("p10", self.p10)):
            if values.size and not (values.min() >= 0.0 and values.max() <= 1.0):  # or it is NaN
                raise NoiseError(f"{name} has a value outside 0 to 1", hint="give probabilities")

    @property
    def is_exact(self) -> bool:
        """True if there is no readout error."""
        return not (self.p01.any() or self.p10.any() or self.groups or self.own)

    def widened(self, num_qubits: int) -> Readout:
        """Return the readout of this number of qubits, or more, with the last entry repeated."""
        missing = num_qubits - len(self.p01)
        if missing <= 0:
            return self
        p01, p10 = (np.pad(each, (0, missing), "edge") for each in (self.p01, self.p10))
        return Readout(p01, p10, self.groups, self.own)

    def of(self, qubits: NDArray[np.int64]) -> Readout:
        """Return the readout of some qubits, renumbered in the given order. A group is kept if all
        of its qubits are among them."""
        new = {int(q): k for k, q in enumerate(qubits.tolist())}
        groups = tuple(
            ReadoutGroup(tuple(new[q] for q in group.qubits), group.confusion)
            for group in self.groups
            if all(q in new for q in group.qubits)
        )
        return Readout(self.p01[qubits], self.p10[qubits], groups, self.own)


def product(*parts: Channel | None) -> Channel | None:
    """Compose channels in the given order; None is the identity."""
    result: Channel | None = None
    for each in parts:
        if each is not None:
            result = each if result is None else result.then(each)
    return result
