"""Noise models of small devices, without a calibration."""

import hashlib
from collections.abc import Mapping

import numpy as np

from noise_models import channel as channels
from noise_models.channel import Channel, Readout, ReadoutGroup
from noise_models.model import UNDISTURBED, Disturbance, LayerNoise, LocatedChannel
from noise_models.network import Network

DURATIONS_NS = {
    "sx": 35.0, "x": 35.0, "h": 35.0, "ry": 35.0, "cx": 300.0, "measure": 1000.0, "reset": 800.0,
}  # fmt: skip


class DeviceModel:
    """All qubits alike but for their relaxation times: 100 us and more for a higher number."""

    def __init__(
        self, num_qubits: int = 8, *, idle: bool = True, gate_error: float = 1e-3,
        t2_by_t1: float = 0.8, excited: float = 0.0, readout: tuple[float, float] = (0.0, 0.0),
        groups: tuple[ReadoutGroup, ...] = (), preparation_error: float = 0.0,
        feed_forward_ns: float = 0.0, over_rotation: float = 0.0,
        crosstalk_pairs: tuple[tuple[int, int], ...] = (),
        durations: Mapping[str, float] = DURATIONS_NS,
    ) -> None:  # fmt: skip
        self.num_qubits = num_qubits
        self.has_idle_noise = idle
        self.dt_ns = 4.0
        self.feed_forward_ns = feed_forward_ns
        self.crosstalk_pairs = crosstalk_pairs
        self.layers: tuple[LayerNoise, ...] = ()
        self.digest = hashlib.blake2b(
            repr(
                (num_qubits, idle, gate_error, t2_by_t1, excited, readout, over_rotation, excited)
            ).encode(),
            digest_size=32,
        ).digest()
        self._gate_error = gate_error
        self._t2_by_t1 = t2_by_t1
        self._excited = excited
        self._readout = Readout(*(np.full(num_qubits, p) for p in readout), groups)
        self._preparation = preparation_error
        self._over_rotation = over_rotation
        self._durations = durations
        self._gates: dict[tuple[str, tuple[int, ...]], tuple[LocatedChannel, ...]] = {}

    def after_gate(self, name: str, qubits: tuple[int, ...]) -> tuple[LocatedChannel, ...]:
        """Relaxation, then depolarizing, for gates of one and two qubits with a duration."""
        key = name, qubits
        if key not in self._gates:
            self._gates[key] = self._made(name, qubits)
        return self._gates[key]

    def _made(self, name: str, qubits: tuple[int, ...]) -> tuple[LocatedChannel, ...]:
        time = self.duration_ns(name, qubits)
        if not time or len(qubits) > 2 or name == "measure":
            return ()
        result = self._relaxation(qubits[0], time)
        if len(qubits) == 2:
            result = channels.tensor(result, self._relaxation(qubits[1], time))
        if self._over_rotation:
            cos, sin = np.cos(self._over_rotation / 2), np.sin(self._over_rotation / 2)
            turn = channels.from_unitary(np.array([[cos, -1j * sin], [-1j * sin, cos]]))
            if len(qubits) == 2:
                turn = channels.tensor(turn, channels.identity(1))
            result = turn.then(result)
        error = channels.depolarizing(self._gate_error, len(qubits))
        return (LocatedChannel(qubits, result.then(error)),)

    def _relaxation(self, qubit: int, time_ns: float) -> Channel:
        t1 = 100.0 + 10.0 * qubit
        return channels.relaxation(time_ns, t1, self._t2_by_t1 * t1, self._excited)

    def idle(self, qubit: int, duration_ns: float) -> Channel | None:
        """Relaxation."""
        return self._relaxation(qubit, duration_ns) if self.has_idle_noise else None

    network: Network | None = None

    leaks = False

    def leakage(self, name: str, qubits: tuple[int, ...]) -> tuple[float, float]:
        return 0.0, 0.0

    def during_layer(self, name: str, qubit: int) -> tuple[LocatedChannel, ...]:
        return self.after_gate(name, (qubit,))

    def seepage(self, qubit: int, duration_ns: float) -> tuple[float, float]:
        return 0.0, 0.0

    def leaked_readout(self, qubit: int) -> float:
        return 1.0

    def detuning(self, qubit: int) -> float:
        """None."""
        return 0.0

    def memory(self, qubit: int, layers: int) -> Channel | None:
        """None."""
        return None

    def by_measurement(self, name: str, qubit: int) -> tuple[LocatedChannel, ...]:
        """None."""
        return ()

    disturbs = False

    def disturbance(self, qubit: int) -> Disturbance:
        """None."""
        return UNDISTURBED

    def before_decision(self, name: str, qubit: int) -> Channel | None:
        """None."""
        return None

    decides = False

    def flips_inside(self, name: str, qubit: int) -> tuple[float, float] | None:
        """None."""
        return None

    def during_readout(self, qubit: int, duration_ns: float) -> Channel | None:
        """None."""
        return None

    def crosstalk(self, pair: tuple[int, int], duration_ns: float) -> Channel | None:
        """ZZ at 100 kHz."""
        return channels.from_unitary(np.diag([1, 1, 1, np.exp(-2j * np.pi * 1e-4 * duration_ns)]))

    def preparation(self, qubit: int) -> Channel | None:  # an interface
        """A bit flip."""
        p = self._preparation
        return channels.from_paulis(np.array([1 - p, p, 0, 0])) if p else None

    def after_reset(self, qubit: int) -> Channel | None:
        """That of a preparation."""
        return self.preparation(qubit)

    def readout(self) -> Readout | None:
        """The same of all qubits."""
        return None if self._readout.is_exact else self._readout

    def duration_ns(self, name: str, qubits: tuple[int, ...]) -> float:  # as above
        """By name."""
        return self._durations.get(name, 0.0)
