"""What the noise models of all documents have in common."""

from __future__ import annotations

import functools
import hashlib
import math
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any, ClassVar

import msgspec

from noise_models import channel as channels
from noise_models.model import UNDISTURBED, Disturbance, LayerNoise, LocatedChannel
from noise_models.network import Network
from noise_models.options import NoiseOptions

MOST_CHANNELS = 4096  # cached channels, one for each qubit or pair and duration: 2 KiB each


class DocumentModel(ABC):
    """Model of a document under noise options; see `NoiseModel` for the methods. Each channel is
    computed at its first use and cached."""

    VERSION: ClassVar[bytes]  # version of the construction, part of every digest
    layers: tuple[LayerNoise, ...] = ()

    def __init__(self, document: Any, options: NoiseOptions, relaxes: Iterable[bool]) -> None:
        """Set the common values. `document`: snapshot, or document of channels; `relaxes`: whether
        a qubit relaxes during idle time, for each."""
        self.options = options
        self.num_qubits = document.num_qubits
        self.dt_ns = document.dt_ns
        self.feed_forward_ns = document.feed_forward_ns
        self._document = document
        self._after: dict[tuple[str, tuple[int, ...]], tuple[LocatedChannel, ...]] = {}
        self._idle: dict[tuple[int, float], channels.Channel | None] = {}
        self._crosstalk: dict[tuple[int, int, float], channels.Channel] = {}
        factor = options.factor("gate.crosstalk") if options.idle else 0.0
        self._zz_khz = {
            pair: rate * factor
            for pair, rate in document.acting_zz_khz.items()
            if rate * factor != 0.0
        }
        self.crosstalk_pairs = tuple(sorted(self._zz_khz))
        components = ("qubit.idle", "link.wait")[: 1 if self.network is None else 2]
        waits = any(relaxes) and any(options.factor(each) > 0.0 for each in components)
        waits |= any(map(self.detuning, range(self.num_qubits)))
        waits |= any(self._jump(qubit, 1.0) for qubit in range(self.num_qubits))
        # True if a qubit relaxes, is detuned or interacts with a neighbour, during idle time.
        self.has_idle_noise = options.idle and (waits or bool(self.crosstalk_pairs))

    @functools.cached_property
    def digest(self) -> bytes:
        """SHA-256 of the document, the options and the version of the construction."""
        options = msgspec.json.encode(self.options.wire())
        return hashlib.sha256(self.VERSION + self._document.digest + options).digest()

    def after_gate(self, name: str, qubits: tuple[int, ...]) -> tuple[LocatedChannel, ...]:
        """Return the channels after a gate on these qubits, in the order they act."""
        key = (name, qubits)
        result = self._after.get(key)
        if result is None:
            result = self._after[key] = self._compute(name, qubits)
        return result

    def during_layer(self, name: str, qubit: int) -> tuple[LocatedChannel, ...]:
        """Return the channels of `after_gate`: the document has no layers."""
        return self.after_gate(name, (qubit,))

    def idle(self, qubit: int, duration_ns: float) -> channels.Channel | None:
        """Return the relaxation of an idle qubit; None: no noise."""
        key = (qubit, duration_ns)
        if key not in self._idle:
            if len(self._idle) >= MOST_CHANNELS:
                self._idle.clear()
            scaled_ns = duration_ns * self.options.factor("qubit.idle")
            jump = self._jump(qubit, duration_ns)
            self._idle[key] = channels.product(self._relax(qubit, scaled_ns), jump)
        return self._idle[key]

    network: Network | None = None

    def during_readout(
        self,
        qubit: int,  # noqa: ARG002
        duration_ns: float,  # noqa: ARG002
    ) -> channels.Channel | None:
        """Return the relaxation of a measured qubit during a part of its readout; None: none."""
        return None

    def crosstalk(self, pair: tuple[int, int], duration_ns: float) -> channels.Channel | None:
        """Return the channel of diag(1, 1, 1, exp(-2 pi i rate t)). This is the ZZ interaction in
        the frame in which a qubit's frequency is its frequency with all neighbours in |0>."""
        key = (*pair, duration_ns)
        result = self._crosstalk.get(key)
        if result is None:
            angle = 2e-6 * math.pi * self._zz_khz.get(pair, 0.0) * duration_ns
            if angle == 0.0:
                return None
            if len(self._crosstalk) >= MOST_CHANNELS:
                self._crosstalk.clear()
            result = self._crosstalk[key] = channels.controlled_phase(-angle)
        return result

    def readout(self) -> channels.Readout | None:
        """Return the confusion of all qubits, and of each group with correlations."""
        return self._cached_readout

    @functools.cached_property
    def _cached_readout(self) -> channels.Readout | None:
        return self._compute_readout()

    def detuning(self, qubit: int) -> float:  # noqa: ARG002
        """Return 0.0: no detuning."""
        return 0.0

    def memory(self, qubit: int, layers: int) -> channels.Channel | None:  # noqa: ARG002
        """Return None: layers add no noise."""
        return None

    def by_measurement(self, name: str, qubit: int) -> tuple[LocatedChannel, ...]:  # noqa: ARG002
        """Return (): a measurement changes nothing else."""
        return ()

    disturbs = False

    def disturbance(self, qubit: int) -> Disturbance:  # noqa: ARG002
        """Return UNDISTURBED: a measurement acts on its own qubit."""
        return UNDISTURBED

    leaks = False

    def leakage(
        self,
        name: str,  # noqa: ARG002
        qubits: tuple[int, ...],  # noqa: ARG002
    ) -> tuple[float, float]:
        """Return (0.0, 0.0): no leakage."""
        return 0.0, 0.0

    def seepage(self, qubit: int, duration_ns: float) -> tuple[float, float]:  # noqa: ARG002
        """Return (0.0, 0.0): no leakage."""
        return 0.0, 0.0

    def leaked_readout(self, qubit: int) -> float:  # noqa: ARG002
        """Return 1.0: as |1>."""
        return 1.0

    def before_decision(self, name: str, qubit: int) -> channels.Channel | None:  # noqa: ARG002
        """Return None: the outcome is decided at the beginning."""
        return None

    decides = False

    def flips_inside(self, name: str, qubit: int) -> tuple[float, float] | None:  # noqa: ARG002
        """Return None: measurements inside a circuit have the confusion of others."""
        return None

    def flips_of(self, name: str, qubit: int) -> tuple[float, float] | None:  # noqa: ARG002
        """Return None: every measurement has the confusion of its qubit."""
        return None

    def _jump(self, qubit: int, duration_ns: float) -> channels.Channel | None:  # noqa: ARG002
        """Return None: T1 does not jump."""
        return None

    @abstractmethod
    def _compute(self, name: str, qubits: tuple[int, ...]) -> tuple[LocatedChannel, ...]: ...

    @abstractmethod
    def _relax(self, qubit: int, duration_ns: float) -> channels.Channel | None: ...

    @abstractmethod
    def _compute_readout(self) -> channels.Readout | None: ...
