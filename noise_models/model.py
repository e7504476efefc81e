"""Noise model: the channels that a device adds to gates, idle time, preparation and readout."""

from __future__ import annotations

from typing import Protocol

import msgspec

from noise_models.channel import Channel, Readout
from noise_models.network import Network


class LocatedChannel(msgspec.Struct, frozen=True, eq=False):
    """Channel on one or two qubits; the first one is bit 0 of its matrices."""

    qubits: tuple[int, ...]
    channel: Channel


def located(qubits: tuple[int, ...], channel: Channel | None) -> tuple[LocatedChannel, ...]:
    if channel is None or channel.is_identity:
        return ()
    return (LocatedChannel(qubits, channel),)


class Disturbance(msgspec.Struct, frozen=True, eq=False):
    """What a measurement of one qubit does to others, in channels diagonal in the basis of Z."""

    own: dict[int, Channel | None] = {}  # by qubit; None: no noise
    others: Channel | None = None  # that of each qubit that `own` lacks

    @property
    def acts(self) -> bool:
        return self.others is not None or any(each is not None for each in self.own.values())

    def on(self, qubit: int) -> Channel | None:
        """Return the channel on a qubit other than the measured one; None: no noise."""
        return self.own.get(qubit, self.others)


UNDISTURBED = Disturbance()


class LayerNoise(msgspec.Struct, frozen=True, eq=False):
    """Noise of two-qubit gates that act at the same time, in place of their own: channels before
    the gates. Waiting qubits of `qubits` do not relax meanwhile."""

    gates: tuple[tuple[str, tuple[int, ...]], ...]
    qubits: frozenset[int]
    channels: tuple[LocatedChannel, ...]


class NoiseModel(Protocol):
    """Noise of one device, with its options applied. A channel is computed at its first use for the
    qubits and gates of a circuit, never for a whole device; later calls with the same arguments are
    cheap."""

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
        neighbours. Of a measurement: channels on the qubit's state after one that is not
        terminal."""

    def during_layer(self, name: str, qubit: int) -> tuple[LocatedChannel, ...]:
        """Return the channels after a gate on a waiting qubit of a layer: those of `after_gate`
        without the relaxation, which is a part of the layer's noise."""

    def idle(self, qubit: int, duration_ns: float) -> Channel | None:
        """Return the channel of an idle time; None: no noise."""

    @property
    def network(self) -> Network | None:
        """Modules and links of the device; None: it is one QPU."""

    def during_readout(self, qubit: int, duration_ns: float) -> Channel | None:
        """Return the relaxation of a measured qubit during a part of its readout, which
        `after_gate` has for the whole one; None: no relaxation."""

    def by_measurement(self, name: str, qubit: int) -> tuple[LocatedChannel, ...]:
        """Return the transitions of a qubit after a measurement that is not terminal, before the
        channels of `during_readout`. `after_gate` has them too."""

    @property
    def disturbs(self) -> bool:
        """True if a measurement acts on qubits other than its own."""

    def disturbance(self, qubit: int) -> Disturbance:
        """Return what a measurement of a qubit does to others, which `after_gate` lacks."""

    def before_decision(self, name: str, qubit: int) -> Channel | None:
        """Return the relaxation of a qubit from the beginning of a measurement inside a circuit
        until its outcome is decided; `after_gate` has the rest. None: no relaxation."""

    @property
    def decides(self) -> bool:
        """True if `before_decision` has a channel for a measurement of any name."""

    def flips_inside(self, name: str, qubit: int) -> tuple[float, float] | None:
        """Return p01 and p10 of a measurement inside a circuit, of the state at its decision; None:
        as those of a measurement at the end."""

    @property
    def crosstalk_pairs(self) -> tuple[tuple[int, int], ...]:
        """Pairs of qubits with a static ZZ interaction, the smaller number first."""

    def crosstalk(self, pair: tuple[int, int], duration_ns: float) -> Channel | None:
        """Return the channel of the ZZ interaction of one of `crosstalk_pairs` over a time. The
        channel is diag(1, 1, 1, e^{-i angle}): the identity while one of the qubits is in |0>."""

    @property
    def layers(self) -> tuple[LayerNoise, ...]:
        """Noise of gates that act at the same time."""

    def detuning(self, qubit: int) -> float:
        """Return the standard deviation of the detuning of a qubit in rad per ns. The detuning is
        constant during a shot, Gaussian and independent from shot to shot and from qubit to qubit;
        it acts while the qubit waits and during gates. 0.0: none."""

    def memory(self, qubit: int, layers: int) -> Channel | None:
        """Return the channel of a number of layers: steps of a circuit in which gates on two or
        more qubits act, whether on this qubit or on others; None: no noise."""

    @property
    def leaks(self) -> bool:
        """True if a gate of the device leaves the computational states."""

    def leakage(self, name: str, qubits: tuple[int, ...]) -> tuple[float, float]:
        """Return the probabilities that a gate takes a qubit from |1> to a third level, and that it
        brings one back from there to |1>, alike for each of its qubits."""

    def seepage(self, qubit: int, duration_ns: float) -> tuple[float, float]:
        """Return the probabilities that a qubit in its third level is in |1>, and in |0>, after an
        idle time."""

    def leaked_readout(self, qubit: int) -> float:
        """Return the probability that a qubit in its third level is read as |1> is, and not as |0>
        is."""

    def preparation(self, qubit: int) -> Channel | None:
        """Return the channel on |0> at the beginning of a circuit."""

    def after_reset(self, qubit: int) -> Channel | None:
        """Return the channel after a reset to |0>."""

    def readout(self) -> Readout | None:
        """Return the readout error of all qubits of the device; None: no error. For a device with
        any number of qubits, arrays of length 1 hold for each qubit."""

    def flips_of(self, name: str, qubit: int) -> tuple[float, float] | None:
        """Return p01 and p10 of a measurement instruction with a name of its own, such as
        `measure_2`; None: those of `readout` hold."""

    def duration_ns(self, name: str, qubits: tuple[int, ...]) -> float:
        """Return the duration of a gate, a measurement or `reset`; 0.0: no time, or not known."""
