"""Noise model: the channels that a device adds to gates, idle time, preparation and readout."""

from __future__ import annotations

from typing import Protocol

import msgspec

from noise_models.channel import Channel
from noise_models.readout import Readout


class LocatedChannel(msgspec.Struct, frozen=True, eq=False):
    """Channel on one or two qubits; the first one is bit 0 of its matrices."""

    qubits: tuple[int, ...]
    channel: Channel


class NoiseModel(Protocol):
    """Noise of one device, with its options applied.

    A channel is computed at its first use for the qubits and gates of a circuit, never for a whole
    device; later calls with the same arguments are cheap.
    """

    @property
    def digest(self) -> bytes:
        """Identifier of the model, 32 bytes: models with equal digests have equal channels."""

    @property
    def num_qubits(self) -> int:
        """Number of qubits of the device; 0: any number."""

    @property
    def has_idle_noise(self) -> bool:
        """True if idle times matter, so that a circuit has to be scheduled."""

    @property
    def dt_ns(self) -> float:
        """Sampling time of the device, the unit of `delay_dt`; 0.0: not known."""

    @property
    def feed_forward_ns(self) -> float:
        """Latency from the end of a measurement to the start of a block that depends on it."""

    def after_gate(self, name: str, qubits: tuple[int, ...]) -> tuple[LocatedChannel, ...]:
        """Return the channels after a gate in the order they act, on its qubits or their
        neighbours.

        `measure`: channels on the qubit's state after a measurement that is not terminal.
        """

    def idle(self, qubit: int, duration_ns: float) -> Channel | None:
        """Return the channel of an idle time; None: no noise."""

    @property
    def crosstalk_pairs(self) -> tuple[tuple[int, int], ...]:
        """Pairs of qubits with a static ZZ interaction, the smaller number first."""

    def crosstalk(self, pair: tuple[int, int], duration_ns: float) -> Channel | None:
        """Return the channel of the ZZ interaction of one of `crosstalk_pairs` over a time.

        The channel is diag(1, 1, 1, e^{-i angle}): the identity while one of the qubits is in |0>.
        """

    def preparation(self, qubit: int) -> Channel | None:
        """Return the channel on |0> at the beginning of a circuit."""

    def after_reset(self, qubit: int) -> Channel | None:
        """Return the channel after a reset to |0>."""

    def readout(self) -> Readout | None:
        """Return the readout error of all qubits of the device; None: no error.

        For a device with any number of qubits, arrays of length 1 hold for each qubit.
        """

    def duration_ns(self, name: str, qubits: tuple[int, ...]) -> float:
        """Return the duration of a gate, `measure` or `reset`; 0.0: no time, or not known."""
