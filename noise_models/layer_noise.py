"""Pauli-Lindblad channels of layers: gates that act at the same time.

The channel exp(sum_k rate_k (P_k rho P_k - rho)) is a product of commuting Pauli channels. It
multiplies a Pauli Q by its fidelity exp(-2 sum of the rates of all P_k that anticommute with Q).
Generators on one pair, and those on its single qubits, make one channel. (van den Berg et al.,
arXiv 2201.09866, sect. II; ranges and places are checked in `layers`.)
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from noise_models import channel as channels
from noise_models.calibration import LayerCalibration, PauliGenerator
from noise_models.layers import MAX_RATE, gate_key, pauli_numbers
from noise_models.model import LayerNoise, LocatedChannel, NoiseModel


def noise_of_layer(layer: LayerCalibration, factor: float = 1.0) -> LayerNoise:
    """Return the noise of a layer, its rates multiplied by a factor."""
    groups: dict[tuple[int, ...], list[PauliGenerator]] = {}
    wide = dict.fromkeys(tuple(sorted(each.qubits)) for each in layer.generators)
    place = {qubit: pair for pair in wide if len(pair) == 2 for qubit in pair}
    for each in layer.generators:
        qubits = tuple(sorted(each.qubits))
        groups.setdefault(place.get(qubits[0], qubits) if len(qubits) == 1 else qubits, []).append(
            each
        )
    found = []
    for qubits, generators in sorted(groups.items()):
        fidelities = pauli_fidelities(generators, qubits, factor)
        made = channels.Channel(np.diag(fidelities))
        if not made.is_identity:
            found.append(LocatedChannel(qubits, made))
    gates = tuple(sorted(gate_key(gate.name, gate.qubits) for gate in layer.gates))
    return LayerNoise(gates, frozenset(layer.qubits), tuple(found))


def own_errors(model: NoiseModel, layer: LayerCalibration) -> tuple[PauliGenerator, ...]:
    """Return the generators of the Pauli twirl of what happens during a layer without errors of its
    own: the gates' own errors, and the relaxation of waiting qubits. (Errors act before the gates;
    those of one gate are taken as if they commuted with it.)"""
    duration = max(model.duration_ns(each.name, each.qubits) for each in layer.gates)
    waiting = set(layer.qubits).difference(*(each.qubits for each in layer.gates))
    parts = [part for each in layer.gates for part in model.after_gate(each.name, each.qubits)]
    for qubit in sorted(waiting):
        if (relaxed := model.idle(qubit, duration)) is not None:
            parts.append(LocatedChannel((qubit,), relaxed))
    rates: dict[tuple[tuple[int, ...], str], float] = {}
    for part in parts:
        for pauli, qubits, rate in _rates(part):
            rates[qubits, pauli] = rates.get((qubits, pauli), 0.0) + rate
    return tuple(
        PauliGenerator(pauli, qubits, min(rate, MAX_RATE))
        for (qubits, pauli), rate in sorted(rates.items())
    )


def _rates(part: LocatedChannel) -> Iterator[tuple[str, tuple[int, ...], float]]:
    """Iterate over the positive rates of the Pauli twirl of a channel: of P the mean over all
    Paulis Q of ln f_Q, with the sign -1 where they anticommute."""
    size = len(part.qubits)
    logs = np.log(np.maximum(np.diag(part.channel.ptm), math.exp(-2.0 * MAX_RATE)))
    numbers = np.arange(4**size)
    for number in range(1, 4**size):
        letters = [number >> 2 * k & 3 for k in range(size)]
        anticommutes = np.zeros(numbers.size, np.bool_)
        for k, letter in enumerate(letters):
            other = numbers >> 2 * k & 3
            anticommutes ^= (letter != 0) & (other != 0) & (other != letter)
        rate = float(np.where(anticommutes, -logs, logs).mean())
        if rate > _ROUNDING:
            acting = [k for k, letter in enumerate(letters) if letter]
            pauli = "".join("IXYZ"[letters[k]] for k in acting)
            yield pauli, tuple(part.qubits[k] for k in acting), rate


_ROUNDING = 1e-15


def pauli_fidelities(
    generators: Iterable[PauliGenerator], qubits: tuple[int, ...], factor: float = 1.0
) -> NDArray[np.float64]:
    """Return the fidelity of each Pauli on one or two qubits, by its number: exp(-2 sum of the
    rates of the generators that anticommute with it)."""
    exponents = np.zeros(4 ** len(qubits))
    numbers = np.arange(exponents.size)
    for each in generators:
        anticommutes = np.zeros(exponents.size, np.bool_)
        for number, qubit in zip(pauli_numbers(each.pauli), each.qubits, strict=True):
            other = numbers >> 2 * qubits.index(qubit) & 3
            anticommutes ^= (other != 0) & (other != number)
        exponents[anticommutes] += each.rate
    return np.exp(-2.0 * factor * exponents)
