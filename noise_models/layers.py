"""Layers of a device: gates that act at the same time; their places and rates.

The noise of a layer is made in `layer_noise`."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from noise_models import strict_json as checks
from noise_models.calibration import (
    SYMMETRIC,
    CalibrationSnapshot,
    LayerCalibration,
)
from noise_models.strict_json import SnapshotError, short_repr

MAX_LAYERS = 1_000
MAX_GENERATORS = 100_000  # of a layer: 3 of a qubit and 9 of a pair
MAX_RATE = 10.0  # e^-20 of a Pauli that anticommutes is left


def gate_key(name: str, qubits: tuple[int, ...]) -> tuple[str, tuple[int, ...]]:
    """Return a gate with its qubits, those of a symmetric gate in ascending order."""
    return name, tuple(sorted(qubits)) if name in SYMMETRIC else qubits


def pauli_numbers(letters: str) -> tuple[int, ...]:
    """Return the number of each letter: 1 X, 2 Y, 3 Z."""
    return tuple("IXYZ".index(letter) for letter in letters)


def check_layers(snapshot: CalibrationSnapshot) -> None:
    """Raise SnapshotError at the first layer that does not fit the device."""
    checks.check_entries("layers", snapshot.layers, MAX_LAYERS)
    wide = {gate.name for gate in snapshot.native_gates if gate.num_qubits == 2}
    coupled = {frozenset(pair) for pair in snapshot.coupling}
    seen: set[tuple[object, ...]] = set()
    for index, layer in enumerate(snapshot.layers):
        field = f"layers[{index}]"
        checks.check_qubits(f"{field}.qubits", layer.qubits, snapshot.num_qubits)
        for name in ("calibrated", "source"):
            checks.check_text(f"{field}.{name}", getattr(layer, name))
        if layer.calibrated:
            checks.check_date(f"{field}.calibrated", layer.calibrated)
        if not layer.gates:
            hint = "errors of single qubits are those of their gates"
            raise SnapshotError(f"{field}.gates", "no gate on two qubits", hint=hint)
        used: set[int] = set()
        for number, gate in enumerate(layer.gates):
            place = f"{field}.gates[{number}]"
            if gate.name not in wide:
                hint = f"native gates on two qubits: {', '.join(sorted(wide)) or 'none'}"
                text = f"{short_repr(gate.name)} is no native gate on two qubits"
                raise SnapshotError(f"{place}.name", text, hint=hint)
            checks.check_qubits(f"{place}.qubits", gate.qubits, snapshot.num_qubits)
            if not snapshot.all_to_all and frozenset(gate.qubits) not in coupled:
                text = f"{gate.name} on {list(gate.qubits)}, which are not coupled"
                raise SnapshotError(f"{place}.qubits", text, hint="name a pair of `coupling`")
            if not used.isdisjoint(gate.qubits):
                text = f"{list(gate.qubits)}: a qubit of two gates"
                hint = "gates of a layer act at the same time"
                raise SnapshotError(f"{place}.qubits", text, hint=hint)
            used.update(gate.qubits)
        if not used.issubset(layer.qubits):
            hint = f"list qubits {sorted(used.difference(layer.qubits))} too"
            raise SnapshotError(f"{field}.qubits", "without a qubit of the gates", hint=hint)
        key = layer_key(layer)
        if key in seen:
            hint = "give each set of gates and qubits once"
            raise SnapshotError(field, "a layer that is listed twice", hint=hint)
        seen.add(key)
        _check_generators(field, layer)


def _check_generators(field: str, layer: LayerCalibration) -> None:
    checks.check_entries(f"{field}.generators", layer.generators, MAX_GENERATORS)
    around = set(layer.qubits)
    seen: set[tuple[tuple[int, str], ...]] = set()
    for index, each in enumerate(layer.generators):
        place = f"{field}.generators[{index}]"
        size = len(each.pauli)
        if not (size in (1, 2) and set(each.pauli) <= set("XYZ") and len(each.qubits) == size):
            text = f"{each.pauli[:32]!r} on {len(each.qubits)} qubits"
            hint = "one letter X, Y or Z for each of one or two qubits"
            raise SnapshotError(f"{place}.pauli", text, hint=hint)
        if len(set(each.qubits)) < size or not around.issuperset(each.qubits):
            text = f"{list(each.qubits)} are not different qubits of the layer"
            raise SnapshotError(f"{place}.qubits", text, hint=f"those of {field}.qubits")
        key = tuple(sorted(zip(each.qubits, each.pauli, strict=True)))
        if key in seen:
            raise SnapshotError(place, "a generator that is listed twice", hint="give it once")
        seen.add(key)
        checks.check_range(f"{place}.rate", each.rate, (0.0, MAX_RATE))


def with_layers(
    snapshot: CalibrationSnapshot, layers: Iterable[LayerCalibration]
) -> CalibrationSnapshot:
    """Return a snapshot with these layers in place of its own with the same gates and qubits, and
    with its other layers; so for its calibration outside the scope of a fit."""
    new = {layer_key(layer): layer for layer in layers}
    others = tuple(layer for layer in snapshot.layers if layer_key(layer) not in new)
    outside = None if snapshot.outside is None else with_layers(snapshot.outside, new.values())
    return msgspec.structs.replace(snapshot, layers=(*others, *new.values()), outside=outside)


def layer_key(layer: LayerCalibration) -> tuple[object, ...]:
    """Return the gates and qubits of a layer, in no order."""
    gates = frozenset(gate_key(gate.name, gate.qubits) for gate in layer.gates)
    return gates, frozenset(layer.qubits)
