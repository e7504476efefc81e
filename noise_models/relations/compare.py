"""Comparison of two noise models, place by place."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
import numpy as np
from numpy.typing import NDArray

from noise_models.calibration import CalibrationSnapshot
from noise_models.channel import Channel, identity, tensor
from noise_models.custom.channels import channel_size
from noise_models.document import Document, model
from noise_models.model import NoiseModel
from noise_models.options import NoiseOptions

_DEFAULT = NoiseOptions()
_IDLE_NS = 1000.0


class Difference(msgspec.Struct, frozen=True):
    """Difference of two noise models at one place.

    `kind`: gate, idle, preparation, reset or readout. Infidelities are average gate infidelities;
    for a readout, the mean of p01 and p10. `distance`: half the trace norm of the difference of the
    Choi states, 0 to 1; for a readout, the larger difference of p01 and p10. Half the diamond
    distance lies between `distance` and 2^n times `distance` (Watrous, The Theory of Quantum
    Information, chapter 3).
    """

    kind: str
    name: str  # name of a gate; "" for the other kinds
    qubits: tuple[int, ...]
    first_infidelity: float
    second_infidelity: float
    distance: float


def distance(first: Channel, second: Channel) -> float:
    """Return half the trace norm of the difference of two Choi states: 0 to 1."""
    return float(np.abs(np.linalg.eigvalsh(first.choi - second.choi)).sum() / 2.0)


def compare(
    first: Document,
    second: Document,
    options: tuple[NoiseOptions, NoiseOptions] = (_DEFAULT, _DEFAULT),
) -> tuple[Difference, ...]:
    """Return the differences of the models of two documents, the largest distance first.

    Places are the gates on the qubits that either document names, and each qubit of the smaller
    device or named (1 us of idle time, preparation, reset and readout). Raises NoiseError.
    """
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
    return tuple(sorted(rows, key=lambda row: (-row.distance, row.kind, row.name, row.qubits)))


def _gates(document: Document) -> Iterable[tuple[str, tuple[int, ...]]]:
    """Iterate over the gates with their qubits; a gate on all qubits is placed on the first
    ones."""
    if isinstance(document, CalibrationSnapshot):
        sizes = {gate.name: gate.num_qubits for gate in document.native_gates}
        for gate in document.gates:
            yield gate.name, gate.qubits or tuple(range(sizes.get(gate.name, 1)))
    else:
        for entry in document.channels:
            if entry.gate not in ("reset", "preparation"):
                size = max(channel_size(entry), len(entry.operands), 1)
                yield entry.gate, entry.qubits or tuple(range(size))


def _after_gate(noise: NoiseModel, name: str, qubits: tuple[int, ...]) -> Channel:
    """Compose the channels of a gate on its own qubits; channels on neighbours are omitted."""
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
    return result


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
    flips = [_flips(each, qubit) for each in models]
    means = [float(each.mean()) for each in flips]
    largest = float(np.abs(flips[0] - flips[1]).max())
    rows.append(Difference("readout", "", (qubit,), means[0], means[1], largest))
    return rows


def _flips(noise: NoiseModel, qubit: int) -> NDArray[np.float64]:
    """Return p01 and p10 of a qubit that is read alone."""
    readout = noise.readout()
    if readout is None:
        return np.zeros(2)
    at = min(qubit, len(readout.p01) - 1)
    return np.array([readout.p01[at], readout.p10[at]])


def _row(
    kind: str, name: str, qubits: tuple[int, ...], first: Channel, second: Channel
) -> Difference:
    return Difference(
        kind, name, qubits, first.infidelity, second.infidelity, distance(first, second)
    )
