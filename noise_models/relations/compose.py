"""Composition of noise models: the channels of one after those of the other."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from noise_models.channel import Channel
from noise_models.errors import NoiseError
from noise_models.model import LocatedChannel, NoiseModel
from noise_models.readout import Readout, ReadoutGroup


def compose(first: NoiseModel, second: NoiseModel) -> NoiseModel:
    """Compose two noise models: at each place the channels of the first model act first.

    Durations, `dt_ns` and the feed-forward latency are those of the first model if it has them.
    Raises NoiseError for models of different numbers of qubits.
    """
    sizes = {first.num_qubits, second.num_qubits} - {0}
    if len(sizes) > 1:
        raise NoiseError(
            f"noise models of {first.num_qubits} and {second.num_qubits} qubits",
            hint="compose models of one device, or of any number of qubits",
        )
    return _Composition(first, second)


class _Composition:
    """Composition of two noise models; see `NoiseModel` for the methods."""

    def __init__(self, first: NoiseModel, second: NoiseModel) -> None:
        self._first, self._second = first, second
        self.num_qubits = first.num_qubits or second.num_qubits
        self.dt_ns = first.dt_ns or second.dt_ns
        self.feed_forward_ns = first.feed_forward_ns or second.feed_forward_ns
        self.digest = hashlib.sha256(b"composition" + first.digest + second.digest).digest()
        pairs = {*first.crosstalk_pairs, *second.crosstalk_pairs}
        self.crosstalk_pairs = tuple(sorted(pairs))
        self.has_idle_noise = first.has_idle_noise or second.has_idle_noise
        self._after: dict[tuple[str, tuple[int, ...]], tuple[LocatedChannel, ...]] = {}
        self._idle: dict[tuple[int, float], Channel | None] = {}
        self._readout: tuple[Readout | None] | None = None

    def after_gate(self, name: str, qubits: tuple[int, ...]) -> tuple[LocatedChannel, ...]:
        """Return the channels of the first model, then those of the second."""
        key = (name, qubits)
        if key not in self._after:
            first, second = self._first, self._second
            self._after[key] = first.after_gate(name, qubits) + second.after_gate(name, qubits)
        return self._after[key]

    def idle(self, qubit: int, duration_ns: float) -> Channel | None:
        """Compose the channels of an idle time; a model without idle noise has none."""
        key = (qubit, duration_ns)
        if key not in self._idle:
            results = [
                model.idle(qubit, duration_ns) if model.has_idle_noise else None
                for model in (self._first, self._second)
            ]
            self._idle[key] = _both(results[0], results[1])
        return self._idle[key]

    def crosstalk(self, pair: tuple[int, int], duration_ns: float) -> Channel | None:
        """Compose the two interactions of a pair."""
        results = [
            model.crosstalk(pair, duration_ns) if pair in model.crosstalk_pairs else None
            for model in (self._first, self._second)
        ]
        return _both(results[0], results[1])

    def preparation(self, qubit: int) -> Channel | None:
        """Compose the two channels at the start of a circuit."""
        return _both(self._first.preparation(qubit), self._second.preparation(qubit))

    def after_reset(self, qubit: int) -> Channel | None:
        """Compose the two channels after a reset."""
        return _both(self._first.after_reset(qubit), self._second.after_reset(qubit))

    def readout(self) -> Readout | None:
        """Apply the second confusion to the outcomes of the first. Raises NoiseError."""
        if self._readout is None:
            self._readout = (_read_again(self._first.readout(), self._second.readout()),)
        return self._readout[0]

    def duration_ns(self, name: str, qubits: tuple[int, ...]) -> float:
        """Return the duration of the first model, or else of the second."""
        return self._first.duration_ns(name, qubits) or self._second.duration_ns(name, qubits)


def _both(first: Channel | None, second: Channel | None) -> Channel | None:
    if first is None or second is None:
        return first or second
    return first.then(second)


def _read_again(first: Readout | None, second: Readout | None) -> Readout | None:
    """Compose two readouts: the confusion of the first, then of the second. Raises NoiseError."""
    if first is None or second is None:
        return first or second
    size = max(len(first.p01), len(second.p01))
    first, second = first.widened(size), second.widened(size)
    groups: dict[tuple[int, ...], NDArray[np.float64]] = {}
    for qubits in dict.fromkeys(group.qubits for group in (*first.groups, *second.groups)):
        groups[qubits] = _confusion(second, qubits) @ _confusion(first, qubits)
    p01 = first.p01 * (1.0 - second.p10) + (1.0 - first.p01) * second.p01
    p10 = first.p10 * (1.0 - second.p01) + (1.0 - first.p10) * second.p10
    return Readout(p01, p10, tuple(ReadoutGroup(key, each) for key, each in groups.items()))


def _confusion(readout: Readout, qubits: tuple[int, ...]) -> NDArray[np.float64]:
    """Return the confusion matrix of some qubits. Raises NoiseError if groups overlap but
    differ."""
    for group in readout.groups:
        if group.qubits == qubits:
            return group.confusion
        if set(group.qubits) & set(qubits):
            raise NoiseError(
                f"readout groups {group.qubits} and {qubits} of two composed models",
                hint="the groups of both must be equal or have no common qubit",
            )
    result = np.ones((1, 1))
    for qubit in qubits:
        at = min(qubit, len(readout.p01) - 1)
        p01, p10 = float(readout.p01[at]), float(readout.p10[at])
        result = np.kron(np.array([[1.0 - p01, p10], [p01, 1.0 - p10]]), result)
    return result
