"""Noise program: the channels of a noise model at the locations of one circuit."""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import NDArray

from noise_models.channel import Channel
from noise_models.readout import Readout
from simulators.catalog import NoiseKind
from simulators.circuit.channel_facts import ChannelFacts, channel_facts

__all__ = ["AFTER_OP", "CHANNEL", "Q0", "Q1", "NoiseProgram", "Readout"]

AFTER_OP, CHANNEL, Q0, Q1 = range(4)  # columns of a location


class NoiseProgram(msgspec.Struct, frozen=True, eq=False):
    """Noise of one circuit; a plan depends on it through `digest`.

    Locations are in order of their action. AFTER_OP: the operation that a channel follows (-1:
    before the first one); CHANNEL: its number in `channels`; Q0 is bit 0 of its matrices; Q1 is -1
    for a channel on one qubit.
    """

    digest: bytes  # of the noise model and the locations: part of the key of a cached plan
    kinds: frozenset[NoiseKind]
    locations: NDArray[np.int64]  # [n, 4]
    channels: tuple[Channel, ...] = ()
    readout: Readout | None = None  # of the circuit's qubits, at each measurement
    known_facts: ChannelFacts | None = None  # facts of the channels, if known
    duration_ns: float = -1.0  # duration of the circuit's schedule; -1.0: not scheduled

    @property
    def facts(self) -> ChannelFacts:
        """Facts about the channels that passes need."""
        return channel_facts(self.channels) if self.known_facts is None else self.known_facts
