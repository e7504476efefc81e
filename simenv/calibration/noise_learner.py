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
import re
import zlib
from collections.abc import Iterable, Sequence
from numbers import Integral, Real
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from noise_models import strict_json
from noise_models.calibration import LayerCalibration, LayerGate, PauliGenerator
from noise_models.layers import MAX_GENERATORS, MAX_LAYERS, MAX_RATE
from noise_models.strict_json import SnapshotError, known_names, short_repr
from simenv.errors import SimenvError
from simenv.transpiler import qpy

SOURCE = "qiskit-ibm-runtime NoiseLearner"
_MAX_BYTES = 64 << 20  # of a circuit or an array that is decompressed
# The file header of numpy's format .npy, versions 1 and 2: real numbers in one dimension.
_HEADER = re.compile(
    rb"\x93NUMPY(?:\x01\x00..|\x02\x00....)\{'descr': '([<>][fi][248])', "
    rb"'fortran_order': (?:False|True), 'shape': \((\d{1,9}),\), \} *\n",
    re.DOTALL,
)


def layers_of(
    errors: Iterable[Any], *, calibrated: str = "", source: str = SOURCE
) -> tuple[LayerCalibration, ...]:
    """Convert errors of layers, objects with `circuit`, `qubits` and `error`. One without an error
    is left out, and so are rates of 0 and gates on one qubit, whose errors belong to the layer.
    `calibrated`: date, ISO 8601. Raises SnapshotError for what is no layer."""
    results = []
    found = list(errors)
    strict_json.check_entries("data", found, MAX_LAYERS)
    for index, each in enumerate(found):
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
    qubits = []
    for index, qubit in enumerate(_entries(f"{field}.qubits", learned.qubits)):
        if isinstance(qubit, bool) or not isinstance(qubit, Integral):
            text = f"{short_repr(qubit)} is no number of a qubit"
            raise SnapshotError(f"{field}.qubits[{index}]", text, hint="give an integer")
        qubits.append(int(qubit))
    strict_json.check_qubits(f"{field}.qubits", qubits, 0)
    circuit = learned.circuit
    _check_has(f"{field}.circuit", circuit, ("num_qubits", "data"), "QuantumCircuit")
    _check_has(f"{field}.error", learned.error, ("generators", "rates"), "PauliLindbladError")
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
    rates = _rates(f"{field}.error.rates", learned.error.rates)
    labels = _labels(f"{field}.error.generators", learned.error.generators)
    if len(labels) != len(rates):
        text = f"{len(labels)} generators with {len(rates)} rates"
        raise SnapshotError(f"{field}.error", text, hint="give one rate for each generator")
    generators = []
    for number, (label, rate) in enumerate(zip(labels, rates, strict=True)):
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


def _check_has(field: str, value: object, names: Iterable[str], kind: str) -> None:
    """Check that a value has the attributes of its class."""
    if not all(hasattr(value, name) for name in names):
        raise SnapshotError(field, f"{short_repr(value)} is no {kind}", hint=f"give a {kind}")


def _entries(field: str, values: object) -> Sequence[object]:
    """Return the entries of a list or an array."""
    if isinstance(values, np.ndarray) and values.ndim:
        values = values.tolist()
    if isinstance(values, str | bytes) or not isinstance(values, Sequence):
        raise SnapshotError(field, f"{short_repr(values)} is no list", hint="give a list")
    strict_json.check_entries(field, values, MAX_GENERATORS)
    return values


def _rates(field: str, values: object) -> list[float]:
    """Return real numbers from 0 to the largest rate."""
    results = []
    for index, value in enumerate(_entries(field, values)):
        place = f"{field}[{index}]"
        if isinstance(value, bool) or not isinstance(value, Real):
            raise SnapshotError(place, f"{short_repr(value)} is no real number", hint="give one")
        strict_json.check_range(place, value, (0.0, MAX_RATE))  # type: ignore[arg-type]
        results.append(float(value))
    return results


def _labels(field: str, generators: Any) -> list[str]:
    """Return the labels of a PauliList."""
    labels = generators.to_labels() if hasattr(generators, "to_labels") else generators
    results = []
    for index, label in enumerate(_entries(field, labels)):
        if not isinstance(label, str):
            text = f"{short_repr(label)} is no Pauli operator"
            raise SnapshotError(f"{field}[{index}]", text, hint="give its letters")
        results.append(label)
    return results


def read_layers(
    data: bytes, *, calibrated: str = "", source: str = SOURCE, trusted: bool = True
) -> tuple[LayerCalibration, ...]:
    """Convert the JSON of a NoiseLearnerResult, or of a list of LayerError, as RuntimeEncoder
    writes it. `trusted`: see `simenv.transpiler.qpy.parse`. Raises SnapshotError."""
    tree = strict_json.parse(data)
    if isinstance(tree, dict) and tree.get("__type__") == "NoiseLearnerResult":
        tree = tree.get("__value__")
    errors = tree["data"] if isinstance(tree, dict) and "data" in tree else tree
    if not isinstance(errors, list):
        hint = "json.dumps(result, cls=RuntimeEncoder) of a NoiseLearnerResult"
        raise SnapshotError("data", f"{short_repr(errors)} is no list of layers", hint=hint)
    strict_json.check_entries("data", errors, MAX_LAYERS)
    read = [_layer_error(each, f"data[{k}]", trusted) for k, each in enumerate(errors)]
    return layers_of(read, calibrated=calibrated, source=source)


# Objects of RuntimeEncoder: a `__type__` and its `__value__`, and the `__class__` where the type is
# general. Only what a layer has is read, each at its place: files nest as deep as these functions.


def _layer_error(tree: Any, field: str, trusted: bool) -> SimpleNamespace:
    values = _fields(tree, field, "LayerError", ("circuit", "qubits", "error"))
    circuit = _value(values["circuit"], f"{field}.circuit", "QuantumCircuit")
    error = values["error"]
    if error is not None:
        error = _pauli_error(error, f"{field}.error")
    try:
        place = f"{field}.circuit"
        read = qpy.parse(_decompressed(circuit, place), place, trusted=trusted)
    except SimenvError as reason:
        raise SnapshotError(place, reason.message, hint=reason.hint) from reason
    qubits = _numbers(values["qubits"], f"{field}.qubits")
    return SimpleNamespace(circuit=read, qubits=qubits, error=error)


def _pauli_error(tree: Any, field: str) -> SimpleNamespace:
    values = _fields(tree, field, "PauliLindbladError", ("generators", "rates"))
    paulis = _fields(values["generators"], f"{field}.generators", "PauliList", ("data",))
    rates = _numbers(values["rates"], f"{field}.rates")
    return SimpleNamespace(generators=paulis["data"], rates=rates)


def _numbers(tree: Any, field: str) -> Any:
    """Return a list, or an array with its numbers or, of objects, with a list."""
    values = tree if isinstance(tree, list) else _value(tree, field, "ndarray")
    return values if isinstance(values, list) else _array(values, field)


def _fields(tree: Any, field: str, kind: str, names: Sequence[str]) -> dict[str, Any]:
    """Return the fields of an object, which has all of these and no other."""
    values = _value(tree, field, kind)
    if not isinstance(values, dict):
        text = f"{short_repr(values)} is no value of a {kind}"
        raise SnapshotError(field, text, hint=f"its fields are {', '.join(names)}")
    for name in names:
        if name not in values:
            hint = f"the fields of a {kind} are {', '.join(names)}"
            raise SnapshotError(f"{field}.{name}", "is missing", hint=hint)
    for name in values:
        if name not in names:
            text = f"{short_repr(name)} is no field of a {kind}"
            raise SnapshotError(field, text, hint=known_names(name, names))
    return values


def _value(tree: Any, field: str, kind: str) -> Any:
    """Return the value of an object of a type or class."""
    if not isinstance(tree, dict):
        text = f"{short_repr(tree)} is no {kind}"
        raise SnapshotError(field, text, hint="write the file with RuntimeEncoder")
    name = tree.get("__class__", tree.get("__type__"))
    if name != kind:
        raise SnapshotError(field, f"{short_repr(name)} is not read", hint=f"this is a {kind}")
    return tree.get("__value__")


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


def _array(value: Any, field: str) -> NDArray[Any]:
    """Return an array of RuntimeEncoder. Its header is read here: `np.load` evaluates it, and
    requests the memory that it announces."""
    data = _decompressed(value, field)
    header = _HEADER.match(data)
    if header is None:
        hint = "write the file anew with RuntimeEncoder"
        raise SnapshotError(field, "no array of real numbers in one dimension", hint=hint)
    dtype, size = np.dtype(header[1].decode()), int(header[2])
    if len(data) - header.end() != size * dtype.itemsize:
        text = f"{len(data) - header.end()} bytes of {size} numbers"
        raise SnapshotError(field, text, hint=f"{dtype.itemsize} bytes for each")
    if size > MAX_GENERATORS:
        raise SnapshotError(field, f"{size} entries", hint=f"at most {MAX_GENERATORS}")
    return np.frombuffer(data, dtype, size, header.end())
