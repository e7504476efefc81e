"""Errors of layers from the results of qiskit-ibm-runtime's NoiseLearner.

`layers_of` takes a `NoiseLearnerResult`, or a list of `LayerError`; `read_layers` takes the JSON
that `RuntimeEncoder` writes of them. The JSON is read here: `RuntimeDecoder` imports the modules
that a file names. A circuit in it is read by `simenv.transpiler.qpy`, and arrays without pickle.
Letter k of a generator, from the right, acts on qubit k of the circuit, which is `qubits[k]` of the
device.
"""

from __future__ import annotations

import base64
import binascii
import io
import zlib
from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

import numpy as np

from noise_models import strict_json
from noise_models.calibration import LayerCalibration, LayerGate, PauliGenerator
from noise_models.strict_json import SnapshotError, short_repr
from simenv.errors import SimenvError
from simenv.transpiler import qpy

SOURCE = "qiskit-ibm-runtime NoiseLearner"
_MAX_BYTES = 64 << 20  # of a circuit or an array that is decompressed
_CLASSES = ("LayerError", "PauliLindbladError", "PauliList")


def layers_of(
    errors: Iterable[Any], *, calibrated: str = "", source: str = SOURCE
) -> tuple[LayerCalibration, ...]:
    """Convert errors of layers, objects with `circuit`, `qubits` and `error`. One without an error
    is left out, and so are rates of 0 and gates on one qubit, whose errors belong to the layer.
    `calibrated`: date, ISO 8601. Raises SnapshotError for what is no layer."""
    results = []
    for index, each in enumerate(errors):
        if not all(hasattr(each, name) for name in ("circuit", "qubits", "error")):
            hint = "a NoiseLearnerResult, or a list of LayerError"
            raise SnapshotError(f"data[{index}]", f"{type(each).__name__} is no layer", hint=hint)
        if each.error is not None:
            results.append(_layer(f"data[{index}]", each, calibrated, source))
    if not results:
        hint = "NoiseLearner writes a LayerError with an error for each layer that it learned"
        raise SnapshotError("data", "no error of a layer", hint=hint)
    return tuple(results)


def _layer(field: str, learned: Any, calibrated: str, source: str) -> LayerCalibration:
    qubits = [int(qubit) for qubit in learned.qubits]
    circuit = learned.circuit
    if circuit.num_qubits != len(qubits):
        text = f"{len(qubits)} qubits of a circuit with {circuit.num_qubits}"
        raise SnapshotError(f"{field}.qubits", text, hint="name the qubit of each of the circuit")
    gates = []
    for instruction in circuit.data:
        operation, places = instruction.operation, instruction.qubits
        if operation.name == "barrier" or len(places) == 1:
            continue
        if len(places) != 2:
            text = f"{operation.name} on {len(places)} qubits"
            hint = "layers consist of gates on two qubits"
            raise SnapshotError(f"{field}.circuit", text, hint=hint)
        first, second = (qubits[circuit.find_bit(each).index] for each in places)
        gates.append(LayerGate(operation.name, (first, second)))
    rates = np.asarray(learned.error.rates, np.float64).ravel()
    labels = _labels(learned.error.generators)
    if len(labels) != rates.size:
        text = f"{len(labels)} generators with {rates.size} rates"
        raise SnapshotError(f"{field}.error", text, hint="give one rate for each generator")
    generators = []
    for number, (label, rate) in enumerate(zip(labels, rates.tolist(), strict=True)):
        place = f"{field}.error.generators[{number}]"
        if len(label) != len(qubits) or not set(label) <= set("IXYZ"):
            text = f"{short_repr(label)} on {len(qubits)} qubits"
            raise SnapshotError(place, text, hint="a letter I, X, Y or Z for each qubit")
        acting = [k for k, letter in enumerate(reversed(label)) if letter != "I"]
        if len(acting) > 2:
            text = f"{short_repr(label)} acts on {len(acting)} qubits"
            raise SnapshotError(place, text, hint="on one or two")
        if acting and rate:
            letters = "".join(label[-1 - k] for k in acting)
            generators.append(PauliGenerator(letters, tuple(qubits[k] for k in acting), rate))
    return LayerCalibration(tuple(gates), tuple(qubits), tuple(generators), calibrated, source)


def _labels(generators: Any) -> list[str]:
    """Return the labels of a PauliList."""
    return list(generators.to_labels() if hasattr(generators, "to_labels") else generators)


def read_layers(
    data: bytes, *, calibrated: str = "", source: str = SOURCE, trusted: bool = True
) -> tuple[LayerCalibration, ...]:
    """Convert the JSON of a NoiseLearnerResult, or of a list of LayerError, as RuntimeEncoder
    writes it. `trusted`: see `simenv.transpiler.qpy.parse`. Raises SnapshotError."""
    tree = strict_json.parse(data)
    value = _value(tree, "", trusted)
    errors = value["data"] if isinstance(value, dict) and "data" in value else value
    if not isinstance(errors, list):
        hint = "json.dumps(result, cls=RuntimeEncoder) of a NoiseLearnerResult"
        raise SnapshotError("data", f"{short_repr(errors)} is no list of layers", hint=hint)
    return layers_of(errors, calibrated=calibrated, source=source)


def _value(tree: Any, field: str, trusted: bool) -> Any:
    """Convert a tree of RuntimeEncoder: objects have a `__type__` and a `__value__`."""
    if isinstance(tree, list):
        return [_value(each, f"{field}[{k}]", trusted) for k, each in enumerate(tree)]
    if not isinstance(tree, dict):
        return tree
    if "__type__" not in tree:
        return {key: _value(each, f"{field}.{key}", trusted) for key, each in tree.items()}
    kind, inner = tree["__type__"], tree.get("__value__")
    at = field.removeprefix(".") or "data"
    if kind == "ndarray":
        return inner if isinstance(inner, list) else _array(inner, at)
    if kind == "QuantumCircuit":
        try:
            return qpy.parse(_decompressed(inner, at), at, trusted=trusted)
        except SimenvError as error:
            raise SnapshotError(at, error.message, hint=error.hint) from error
    if kind == "NoiseLearnerResult":
        return _value(inner, field, trusted)
    name = tree.get("__class__")
    if kind in ("_json", "settings") and name in _CLASSES and isinstance(inner, dict):
        values = {key: _value(each, f"{field}.{key}", trusted) for key, each in inner.items()}
        return values.get("data", []) if name == "PauliList" else SimpleNamespace(**values)
    text = f"{short_repr(name or kind)} is not read"
    raise SnapshotError(at, text, hint=f"results of NoiseLearner have {', '.join(_CLASSES)}")


def _decompressed(value: Any, field: str) -> bytes:
    try:
        stream = zlib.decompressobj()
        result = stream.decompress(base64.b64decode(value, validate=True), _MAX_BYTES)
    except (TypeError, ValueError, binascii.Error, zlib.error) as error:
        hint = "write the file anew with RuntimeEncoder"
        raise SnapshotError(field, f"data that cannot be read: {error}", hint=hint) from error
    if stream.unconsumed_tail or not stream.eof:
        hint = f"at most {_MAX_BYTES} bytes"
        raise SnapshotError(field, "data that is torn or too large", hint=hint)
    return result


def _array(value: Any, field: str) -> Any:
    data = _decompressed(value, field)
    try:
        return np.load(io.BytesIO(data), allow_pickle=False)
    except (ValueError, EOFError, OSError, MemoryError) as error:
        hint = "write the file anew with RuntimeEncoder"
        raise SnapshotError(field, f"no array: {error}", hint=hint) from error
