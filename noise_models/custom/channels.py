"""Channels of the entries of a custom model."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from noise_models.channel import (
    Channel,
    depolarizing,
    from_kraus,
    from_paulis,
    from_unitary,
    identity,
    relaxation,
    tensor,
)
from noise_models.custom.entries import ChannelEntry, Matrix, RelaxationTimes
from noise_models.errors import NoiseError

_SUM_TOLERANCE = 1e-9
FIELDS = ("kraus", "paulis", "unitary", "depolarizing", "relaxation")


def given_fields(entry: ChannelEntry) -> list[str]:
    """Return the names of the fields that give the channel; a valid entry has one."""
    return [name for name in FIELDS if getattr(entry, name) not in ((), {}, None)]


def entry_channel(entry: ChannelEntry, num_qubits: int, duration_ns: float) -> Channel:
    """Build the channel of an entry on 1 or 2 qubits. Raises NoiseError."""
    fields = given_fields(entry)
    if len(fields) != 1:
        result = " and ".join(fields) if fields else "none"
        raise NoiseError(f"{result} given", hint=f"give one of {', '.join(FIELDS)}")
    if entry.depolarizing is not None:
        return depolarizing(entry.depolarizing, num_qubits)
    if entry.relaxation is not None:
        single = relaxed(entry.relaxation, duration_ns)
        return single if num_qubits == 1 else tensor(single, single)
    if entry.paulis:
        built = _pauli_mixture(entry.paulis)
    elif entry.unitary:
        built = from_unitary(matrix(entry.unitary))
    else:
        built = from_kraus([matrix(each) for each in entry.kraus])
    if built.num_qubits != num_qubits:
        raise NoiseError(
            f"{fields[0]} of {built.num_qubits} qubits for {num_qubits}",
            hint="name the operands or qubits that the channel acts on",
        )
    return built


def channel_size(entry: ChannelEntry) -> int:
    """Return the number of qubits of an entry's channel; 0: any number. Raises NoiseError."""
    if entry.paulis:
        return len(next(iter(entry.paulis)))
    values = entry.unitary or (entry.kraus[0] if entry.kraus else ())
    return {0: 0, 2: 1, 4: 2}.get(len(values), -1)


def relaxed(times: RelaxationTimes, duration_ns: float) -> Channel:
    """Build the relaxation over a duration. Raises NoiseError."""
    t1_us = math.inf if times.t1_us is None else times.t1_us
    t2_us = min(math.inf if times.t2_us is None else times.t2_us, 2.0 * t1_us)
    return relaxation(duration_ns, t1_us, t2_us, times.excited) if duration_ns else identity(1)


def matrix(rows: Matrix) -> NDArray[np.complex128]:
    """Convert a matrix in rows to an array. Raises NoiseError."""
    if any(len(row) != len(rows) for row in rows):
        raise NoiseError("a matrix that is not square", hint="give 2x2 or 4x4 matrices")
    return np.array(
        [[complex(*each) if isinstance(each, tuple) else each for each in row] for row in rows],
        np.complex128,
    )


def _pauli_mixture(probabilities: dict[str, float]) -> Channel:
    letters = "IXYZ"
    size = len(next(iter(probabilities)))
    weights = np.zeros(4 ** min(size, 3))
    for name, probability in probabilities.items():
        if len(name) != size or size not in (1, 2) or any(each not in letters for each in name):
            raise NoiseError(
                f"Pauli {name[:20]!r}", hint="names of one length: X on one qubit, XI on two"
            )
        # The last letter acts on the first qubit, the low base-4 digit.
        weights[sum(letters.index(each) * 4**k for k, each in enumerate(reversed(name)))] = (
            probability
        )
    if not (weights >= 0.0).all() or abs(weights.sum() - 1.0) > _SUM_TOLERANCE:
        raise NoiseError(
            f"Pauli probabilities of sum {weights.sum():.12g}",
            hint="probabilities >= 0 whose sum is 1, that of I included",
        )
    return from_paulis(weights / weights.sum())
