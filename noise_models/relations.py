"""Relations of noise models: composition of two, and comparison."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from noise_models.calibration import CalibrationSnapshot
from noise_models.channel import Channel, Readout, ReadoutGroup, dephasing, identity, tensor
from noise_models.confusion import independent_confusion
from noise_models.custom import channel_size
from noise_models.document import Document, model
from noise_models.link_waits import WaitPart
from noise_models.model import Disturbance, LayerNoise, LocatedChannel, NoiseModel
from noise_models.options import NoiseOptions
from noise_models.strict_json import NoiseError

# Comparison of two noise models, place by place.

_DEFAULT = NoiseOptions()
_IDLE_NS = 1000.0


class Difference(msgspec.Struct, frozen=True):
    """Difference of two noise models at one place.

    `kind`: gate, layer, idle, crosstalk, detuning, memory, measurement, preparation, reset or
    readout. Infidelities are average gate infidelities, with the leakage of a gate; for a readout,
    the mean probability of a wrong record. `distance`: half the trace norm of the difference of the
    Choi states, 0 to 1, where what leaks is orthogonal to the rest; for a readout, the largest
    total variation of the records of a state. Half the diamond distance lies between `distance` and
    2^n times `distance` (Watrous, The Theory of Quantum Information, chapter 3). `qubits` of a
    measurement: the measured one, and another one if the channel is that of the other; of a
    readout: all that are read together if a model has a group of them.
    """

    kind: str
    name: str  # name of a gate, or the gates of a layer; "" for the other kinds
    qubits: tuple[int, ...]
    first_infidelity: float
    second_infidelity: float
    distance: float


def distance(first: Channel, second: Channel) -> float:
    """Return half the trace norm of the difference of two Choi states: 0 to 1. What a channel does
    not keep is in a state beside the others."""
    lost = abs(float(first.ptm[0, 0] - second.ptm[0, 0]))
    return float(np.abs(np.linalg.eigvalsh(first.choi - second.choi)).sum() + lost) / 2.0


def compare(
    first: Document,
    second: Document,
    options: tuple[NoiseOptions, NoiseOptions] = (_DEFAULT, _DEFAULT),
) -> tuple[Difference, ...]:
    """Return the differences of the models of two documents, the largest distance first. Places are
    the gates on the qubits that either document names, the channels of each layer of gates that has
    its own, pairs with a ZZ interaction (1 us), groups that are read together, and each qubit of
    the smaller device or named (1 us of idle time and of a detuning, one layer, a measurement,
    preparation, reset and readout). Raises NoiseError."""
    models = (model(first, options[0]), model(second, options[1]))
    sizes = [each.num_qubits for each in models if each.num_qubits]
    gates = dict.fromkeys((*_gates(first), *_gates(second)))
    readouts = (each.readout() for each in models)
    named = [max(qubits) + 1 for _, qubits in gates]
    named += [len(each.p01) - 1 for each in readouts if each is not None]
    num_qubits = min(sizes, default=max(named, default=1) or 1)
    rows = [
        _row("gate", name, qubits, *(_after_gate(each, name, qubits) for each in models))
        for name, qubits in gates
        if max(qubits) < num_qubits and len(qubits) <= 2
    ]
    for qubit in range(num_qubits):
        rows += _of_qubit(models, qubit)
    rows += [*_of_layers(models), *_of_pairs(models), *_of_groups(models)]
    rows = [row for row in rows if max(row.qubits) < num_qubits]
    return tuple(sorted(rows, key=lambda row: (-row.distance, row.kind, row.name, row.qubits)))


def _gates(document: Document) -> Iterable[tuple[str, tuple[int, ...]]]:
    """Iterate over the gates with their qubits; a gate on all qubits is placed on the first
    ones."""
    if isinstance(document, CalibrationSnapshot):
        sizes = {gate.name: gate.num_qubits for gate in document.all_gates}
        for gate in document.gates:
            yield gate.name, gate.qubits or tuple(range(sizes.get(gate.name, 1)))
    else:
        for entry in document.channels:
            if entry.gate not in ("reset", "preparation"):
                size = max(channel_size(entry), len(entry.operands), 1)
                yield entry.gate, entry.qubits or tuple(range(size))


def _after_gate(noise: NoiseModel, name: str, qubits: tuple[int, ...]) -> Channel:
    """Compose the channels of a gate on its own qubits, and what its leakage leaves; channels on
    neighbours are omitted."""
    result = identity(len(qubits))
    for located in noise.after_gate(name, qubits):
        channel = located.channel
        if located.qubits == qubits:
            result = result.then(channel)
        elif located.qubits == qubits[::-1]:
            result = result.then(channel.reversed())
        elif located.qubits[0] == qubits[0] and len(located.qubits) == 1:
            result = result.then(tensor(channel, identity(1)))
        elif located.qubits[0] == qubits[-1] and len(located.qubits) == 1:
            result = result.then(tensor(identity(1), channel))
    leaks = noise.leakage(name, qubits)[0] if noise.leaks else 0.0
    if not leaks:
        return result
    stays = _stays(leaks)
    return result.then(stays if len(qubits) == 1 else tensor(stays, stays))


def _stays(leaks: float) -> Channel:
    """Return the map of the shots in which a qubit does not leak from |1>: diag(1, sqrt(1 - p))."""
    result = np.diag((1.0 - 0.5 * leaks, *(math.sqrt(1.0 - leaks),) * 2, 1.0 - 0.5 * leaks))
    result[0, 3] = result[3, 0] = 0.5 * leaks
    return Channel(result)


_Models = tuple[NoiseModel, NoiseModel]


def _of_layers(models: _Models) -> list[Difference]:
    """Return the differences of the channels of each layer, place by place. Where a model does not
    have the layer, its gates have their own channels."""
    rows = []
    for gates in dict.fromkeys(layer.gates for each in models for layer in each.layers):
        name = ", ".join(f"{gate} {'-'.join(map(str, qubits))}" for gate, qubits in gates)
        found = [_of_layer(each, gates) for each in models]
        for qubits in dict.fromkeys((*found[0], *found[1])):
            none = identity(len(qubits))
            channels = [each.get(qubits, none) for each in found]
            rows.append(_row("layer", name, qubits, channels[0], channels[1]))
    return rows


def _of_layer(
    noise: NoiseModel, gates: tuple[tuple[str, tuple[int, ...]], ...]
) -> dict[tuple[int, ...], Channel]:
    """Return the channels of gates that act at the same time, by their qubits in order."""
    results: dict[tuple[int, ...], Channel] = {}
    own = next((each for each in noise.layers if each.gates == gates), None)
    if own is None:
        for name, qubits in gates:
            channel = _after_gate(noise, name, qubits)
            is_sorted = qubits == tuple(sorted(qubits))
            results[tuple(sorted(qubits))] = channel if is_sorted else channel.reversed()
        return results
    for located in own.channels:
        before = results.get(located.qubits, identity(len(located.qubits)))
        results[located.qubits] = before.then(located.channel)
    return results


def _of_pairs(models: _Models) -> list[Difference]:
    """Return the differences of ZZ interactions."""
    rows = []
    for pair in sorted({*models[0].crosstalk_pairs, *models[1].crosstalk_pairs}):
        channels = [
            (each.crosstalk(pair, _IDLE_NS) if pair in each.crosstalk_pairs else None)
            or identity(2)
            for each in models
        ]
        rows.append(_row("crosstalk", "", pair, channels[0], channels[1]))
    return rows


def _of_groups(models: _Models) -> list[Difference]:
    """Return the differences of the confusion of qubits that are read together."""
    rows = []
    known = [each.readout() for each in models]
    groups = [{group.qubits: group for group in each.groups} if each else {} for each in known]
    for qubits in dict.fromkeys((*groups[0], *groups[1])):
        confusions = []
        for noise, own in zip(models, groups, strict=True):
            flips = np.array([_flips(noise, qubit) for qubit in qubits])
            group = own.get(qubits)
            confusions.append(independent_confusion(flips) if group is None else group.confusion)
        wrong = [1.0 - float(np.diag(each).mean()) for each in confusions]
        largest = float(np.abs(confusions[0] - confusions[1]).sum(axis=0).max()) / 2.0
        rows.append(Difference("readout", "", qubits, wrong[0], wrong[1], largest))
    return rows


def _of_qubit(models: tuple[NoiseModel, NoiseModel], qubit: int) -> list[Difference]:
    """Return the differences of one qubit."""
    first, second = models
    none = identity(1)
    rows = [
        _row(kind, "", (qubit,), left or none, right or none)
        for kind, left, right in (
            ("idle", first.idle(qubit, _IDLE_NS), second.idle(qubit, _IDLE_NS)),
            ("preparation", first.preparation(qubit), second.preparation(qubit)),
            ("reset", first.after_reset(qubit), second.after_reset(qubit)),
        )
    ]
    detuned = [_detuned(each, qubit) for each in models]
    if any(detuned):
        rows.append(_row("detuning", "", (qubit,), *(each or none for each in detuned)))
    after = [_by_measurement(each, qubit) for each in models]
    for other in sorted(after[0].keys() | after[1].keys()):
        place = (qubit,) if other == qubit else (qubit, other)
        rows.append(_row("measurement", "", place, *(each.get(other, none) for each in after)))
    layers = [each.memory(qubit, 1) for each in models]
    if any(layers):
        rows.append(_row("memory", "", (qubit,), *(each or none for each in layers)))
    flips = [_flips(each, qubit) for each in models]
    means = [float(each.mean()) for each in flips]
    largest = float(np.abs(flips[0] - flips[1]).max())
    rows.append(Difference("readout", "", (qubit,), means[0], means[1], largest))
    return rows


def _by_measurement(noise: NoiseModel, qubit: int) -> dict[int, Channel]:
    """Return the channels of qubits after a measurement of one, without its relaxation."""
    results: dict[int, Channel] = {}
    for each in noise.by_measurement("measure", qubit):
        results[qubit] = results.get(qubit, identity(1)).then(each.channel)
    disturbance = noise.disturbance(qubit)
    for other in range(noise.num_qubits) if disturbance.acts else ():
        channel = disturbance.on(other)
        if other != qubit and channel is not None:
            results[other] = channel
    return results


def _detuned(noise: NoiseModel, qubit: int) -> Channel | None:
    """Return the mean channel of a qubit's detuning over an idle time; None: it has none."""
    rate = noise.detuning(qubit)
    return dephasing(math.exp(-0.5 * (rate * _IDLE_NS) ** 2)) if rate else None


def _flips(
    noise: NoiseModel, qubit: int, own: tuple[float, float] | None = None
) -> NDArray[np.float64]:
    """Return p01 and p10 of a qubit that is read alone; `own`: of a measurement that has its
    own."""
    if own is not None:
        return np.array(own)
    readout = noise.readout()
    if readout is None:
        return np.zeros(2)
    at = min(qubit, len(readout.p01) - 1)
    return np.array([readout.p01[at], readout.p10[at]])


def _flipped_twice(first: NDArray[np.float64], second: NDArray[np.float64]) -> tuple[float, float]:
    """Return p01 and p10 of two confusions, one after the other."""
    p01, p10 = first * (1.0 - second[::-1]) + (1.0 - first) * second
    return float(p01), float(p10)


def _row(
    kind: str, name: str, qubits: tuple[int, ...], first: Channel, second: Channel
) -> Difference:
    return Difference(
        kind, name, qubits, _infidelity(first), _infidelity(second), distance(first, second)
    )


def _infidelity(channel: Channel) -> float:
    """Return the average gate infidelity of a channel that does not keep the trace."""
    return channel.infidelity + (1.0 - float(channel.ptm[0, 0])) / (1 + (1 << channel.num_qubits))


# Composition of noise models: the channels of one after those of the other.


def compose(first: NoiseModel, second: NoiseModel) -> NoiseModel:
    """Compose two noise models: at each place the channels of the first model act first. Durations,
    `dt_ns` and the feed-forward latency are those of the first model if it has them. Raises
    NoiseError for models of different numbers of qubits."""
    sizes = {first.num_qubits, second.num_qubits} - {0}
    if len(sizes) > 1:
        text = f"noise models of {first.num_qubits} and {second.num_qubits} qubits"
        raise NoiseError(text, hint="compose models of one device, or of any number of qubits")
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
        if first.layers or second.layers:
            hint = "take them out with the noise option gate.layer: 0"
            raise NoiseError("errors of layers in a composition of noise models", hint=hint)
        self.layers: tuple[LayerNoise, ...] = ()
        for each, other in ((first, second), (second, first)):
            if each.network and each.network.is_random and other.has_idle_noise:
                hint = "leave the idle noise of one out, with its option idle"
                raise NoiseError("idle noise beside waits for links, in a composition", hint=hint)
        linked = first if first.network else second
        self.network = linked.network
        if linked.network and not linked.has_idle_noise:
            self.network = msgspec.structs.replace(linked.network, awaiting=_no_noise)
        self._after: dict[tuple[str, tuple[int, ...]], tuple[LocatedChannel, ...]] = {}
        self._idle: dict[tuple[int, float], Channel | None] = {}
        self._memory: dict[tuple[int, int], Channel | None] = {}
        self._before: dict[tuple[str, int], Channel | None] = {}
        self._disturbances: dict[int, Disturbance] = {}
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

    def during_readout(self, qubit: int, duration_ns: float) -> Channel | None:
        """Compose the relaxation of a measured qubit."""
        first, second = self._first, self._second
        return _both(
            first.during_readout(qubit, duration_ns), second.during_readout(qubit, duration_ns)
        )

    def by_measurement(self, name: str, qubit: int) -> tuple[LocatedChannel, ...]:
        """Return the channels of the first model, then those of the second."""
        first, second = self._first, self._second
        return first.by_measurement(name, qubit) + second.by_measurement(name, qubit)

    @property
    def disturbs(self) -> bool:
        return self._first.disturbs or self._second.disturbs

    def disturbance(self, qubit: int) -> Disturbance:
        """Compose what the two models do to others."""
        if qubit not in self._disturbances:
            first, second = self._first.disturbance(qubit), self._second.disturbance(qubit)
            self._disturbances[qubit] = Disturbance(
                {
                    other: _both(first.on(other), second.on(other))
                    for other in (*first.own, *second.own)
                },
                _both(first.others, second.others),
            )
        return self._disturbances[qubit]

    def before_decision(self, name: str, qubit: int) -> Channel | None:
        """Compose the relaxation before a decision."""
        key = (name, qubit)
        if key not in self._before:
            first, second = self._first, self._second
            self._before[key] = _both(
                first.before_decision(name, qubit), second.before_decision(name, qubit)
            )
        return self._before[key]

    @property
    def decides(self) -> bool:
        return self._first.decides or self._second.decides

    def flips_inside(self, name: str, qubit: int) -> tuple[float, float] | None:
        """Apply the confusion of the second model to the outcomes of the first."""
        models = self._first, self._second
        own = [each.flips_inside(name, qubit) for each in models]
        if own == [None, None]:
            return None
        return _flipped_twice(
            *(
                _flips(model, qubit, model.flips_of(name, qubit) if each is None else each)
                for model, each in zip(models, own, strict=True)
            )
        )

    def crosstalk(self, pair: tuple[int, int], duration_ns: float) -> Channel | None:
        """Compose the two interactions of a pair."""
        results = [
            model.crosstalk(pair, duration_ns) if pair in model.crosstalk_pairs else None
            for model in (self._first, self._second)
        ]
        return _both(results[0], results[1])

    def detuning(self, qubit: int) -> float:
        """Return the standard deviation of the sum of two independent detunings."""
        return math.hypot(self._first.detuning(qubit), self._second.detuning(qubit))

    def memory(self, qubit: int, layers: int) -> Channel | None:
        """Compose the channels of a number of layers."""
        key = (qubit, layers)
        if key not in self._memory:
            first, second = self._first, self._second
            self._memory[key] = _both(first.memory(qubit, layers), second.memory(qubit, layers))
        return self._memory[key]

    @property
    def leaks(self) -> bool:
        return self._first.leaks or self._second.leaks

    def leakage(self, name: str, qubits: tuple[int, ...]) -> tuple[float, float]:
        """Return the leakage and the seepage of two gates one after the other, neither of which
        undoes the other's."""
        (p, s), (q, t) = (each.leakage(name, qubits) for each in (self._first, self._second))
        return p + q - p * q, s + t - s * t

    def during_layer(self, name: str, qubit: int) -> tuple[LocatedChannel, ...]:
        """Return the channels of `after_gate`: models with layers are not composed."""
        return self.after_gate(name, (qubit,))

    def seepage(self, qubit: int, duration_ns: float) -> tuple[float, float]:
        """Return the decay of the first model that leaks."""
        return self._leaking.seepage(qubit, duration_ns)

    def leaked_readout(self, qubit: int) -> float:
        """Return the probability of the first model that leaks."""
        return self._leaking.leaked_readout(qubit)

    @property
    def _leaking(self) -> NoiseModel:
        return self._first if self._first.leaks else self._second

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

    def flips_of(self, name: str, qubit: int) -> tuple[float, float] | None:
        """Apply the confusion of the second model to the outcomes of the first."""
        models = self._first, self._second
        own = [each.flips_of(name, qubit) for each in models]
        if own == [None, None]:
            return None
        return _flipped_twice(
            *(_flips(model, qubit, each) for model, each in zip(models, own, strict=True))
        )

    def duration_ns(self, name: str, qubits: tuple[int, ...]) -> float:
        """Return the duration of the first model, or else of the second."""
        return self._first.duration_ns(name, qubits) or self._second.duration_ns(name, qubits)


def _no_noise(qubit: int, parts: Sequence[WaitPart]) -> None:
    """Return None: a qubit that awaits a pair has no noise."""


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
            text = f"readout groups {group.qubits} and {qubits} of two composed models"
            raise NoiseError(text, hint="the groups of both must be equal or have no common qubit")
    at = np.minimum(qubits, len(readout.p01) - 1)
    return independent_confusion(np.column_stack([readout.p01[at], readout.p10[at]]))
