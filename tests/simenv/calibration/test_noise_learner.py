"""Errors of layers from results of qiskit-ibm-runtime's NoiseLearner, its own classes and JSON."""

import base64
import io
import json
import math
import zlib
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest
from qiskit import QuantumCircuit
from qiskit.quantum_info import PauliList, SuperOp
from qiskit_aer.noise import PauliLindbladError as AerError
from qiskit_ibm_runtime import RuntimeEncoder
from qiskit_ibm_runtime.results import LayerError, NoiseLearnerResult, PauliLindbladError

from noise_models.calibration import CalibrationSnapshot, FitScope, LayerGate, NativeGate
from noise_models.layer_noise import noise_of_layer
from noise_models.layers import with_layers
from noise_models.snapshot import check, dump, load
from noise_models.strict_json import SnapshotError
from simenv.calibration.noise_learner import layers_of, read_layers

LABELS = ["IIX", "IZI", "YII", "IXZ", "ZYI", "YXI", "IIY"]
RATES = [0.01, 0.02, 0.005, 0.03, 0.0, 0.007, 0.001]


def learned(*pairs: tuple[int, int], qubits: tuple[int, ...] = (3, 2, 4)) -> LayerError:
    circuit = QuantumCircuit(3)
    for pair in pairs:
        circuit.ecr(*pair)
    circuit.barrier()
    return LayerError(circuit, qubits, PauliLindbladError(PauliList(LABELS), RATES))


def device(**changes: object) -> CalibrationSnapshot:
    base = CalibrationSnapshot(
        "chain", 5, native_gates=(NativeGate("sx", 1), NativeGate("ecr", 2)),
        coupling=((0, 1), (1, 2), (2, 3), (3, 4)),
    )  # fmt: skip
    return msgspec.structs.replace(base, **changes)


def test_objects_and_their_json_give_the_same_layers() -> None:
    result = NoiseLearnerResult([learned((0, 1)), LayerError(QuantumCircuit(1), [0])], {"x": 1})
    found = layers_of(result, calibrated="2026-02-26", source="a")
    (layer,) = found
    assert layer.gates == (LayerGate("ecr", (3, 2)),)
    assert (layer.qubits, layer.calibrated, layer.source) == ((3, 2, 4), "2026-02-26", "a")
    text = json.dumps(result, cls=RuntimeEncoder).encode()
    assert read_layers(text, calibrated="2026-02-26", source="a") == found
    text = json.dumps(list(result), cls=RuntimeEncoder).encode()
    assert read_layers(text, calibrated="2026-02-26", source="a") == found
    stored = load(dump(with_layers(device(), found)))
    assert stored.layers == found
    again = with_layers(stored, layers_of([learned((0, 1))], source="b"))
    assert [each.source for each in again.layers] == ["b"], "the same gates on the same qubits"


def test_circuits_outside_the_scope_of_a_fit_get_the_layers_too() -> None:
    found = layers_of([learned((0, 1))])
    fitted = device(fitted=FitScope("before", (3, 2), 1, 2, 1), outside=device(name="before"))
    stored = load(dump(with_layers(fitted, found)))
    assert (stored.layers, stored.outside.layers) == (found, found)


def test_the_channel_is_that_of_aer() -> None:
    """Aer's Pauli-Lindblad error of the same generators and rates, on the qubits of the circuit."""
    labels = [label for label in LABELS if label[0] == "I"]
    rates = [rate for label, rate in zip(LABELS, RATES, strict=True) if label[0] == "I"]
    circuit = QuantumCircuit(2)
    circuit.ecr(0, 1)
    own = PauliLindbladError(PauliList([label[1:] for label in labels]), rates)
    (layer,) = layers_of([LayerError(circuit, [2, 1], own)])
    (found,) = noise_of_layer(layer).channels
    assert found.qubits == (1, 2)
    expected = SuperOp(AerError(PauliList([label[1:] for label in labels]), rates)).data
    paulis = PauliList([a + b for a in "IXYZ" for b in "IXYZ"])  # b of the first qubit of `found`
    probabilities = found.channel.pauli_probabilities
    total = sum(
        p * np.kron(pauli.conj(), pauli)
        for p, pauli in zip(probabilities, paulis.to_matrix(array=True), strict=True)
    )
    swap = np.eye(4)[[0, 2, 1, 3]]  # qubit 0 of the circuit is 2, the second one of `found`
    turned = np.kron(swap, swap) @ total @ np.kron(swap, swap)
    assert np.abs(turned - expected).max() < 1e-7, "Aer leaves small probabilities out"


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"native_gates": (NativeGate("cz", 2),)}, "no native gate"),
        ({"coupling": ((0, 1), (2, 1), (3, 4))}, "not coupled"),
        ({"num_qubits": 4, "coupling": ((2, 3),)}, "qubit 4 is out of range"),
    ],
)
def test_layers_that_do_not_fit_the_device_are_refused(change: dict[str, Any], text: str) -> None:
    with pytest.raises(SnapshotError, match=text):
        check(with_layers(device(**change), layers_of([learned((0, 1))])))


def wide() -> LayerError:
    circuit = QuantumCircuit(3)
    circuit.ccx(0, 1, 2)
    return LayerError(circuit, [0, 1, 2], PauliLindbladError(PauliList(["IIX"]), [0.1]))


@pytest.mark.parametrize(
    ("errors", "text"),
    [
        ([], "no error of a layer"),
        ([LayerError(QuantumCircuit(1), [0])], "no error of a layer"),
        ([3], "int is no layer"),
        ([wide()], "ccx on 3 qubits"),
        (
            [
                LayerError(
                    QuantumCircuit(3), [0, 1, 2], PauliLindbladError(PauliList(["XXX"]), [0.1])
                )
            ],
            "acts on 3 qubits",
        ),
    ],
)
def test_what_is_no_layer_is_refused(errors: list[Any], text: str) -> None:
    with pytest.raises(SnapshotError, match=text):
        layers_of(errors)


def test_broken_json_is_refused_with_its_place() -> None:
    good = json.dumps([learned((0, 1))], cls=RuntimeEncoder)
    tree = json.loads(good)
    circuit = tree[0]["__value__"]["circuit"]
    for data, text in (
        (b"[1]", "no LayerError"), (b"{}", "no list of layers"), (b"nonsense", "JSON"),
        (good.replace("PauliList", "System").encode(), "'System' is not read"),
        (good.replace(circuit["__value__"], "eJwL").encode(), "cannot be read|torn"),
        (good.replace(circuit["__value__"], "&").encode(), "cannot be read"),
        (good.replace('"QuantumCircuit"', '"Estimator"').encode(), "'Estimator' is not read"),
        (good.replace("[3, 2, 4]", "[3, 2]").encode(), "2 qubits of a circuit with 3"),
    ):  # fmt: skip
        with pytest.raises(SnapshotError, match=text):
            read_layers(data)


def packed(data: bytes) -> dict[str, str]:
    """An array of RuntimeEncoder."""
    return {"__type__": "ndarray", "__value__": base64.b64encode(zlib.compress(data)).decode()}


def stored(values: object) -> dict[str, str]:
    out = io.BytesIO()
    np.save(out, np.asarray(values), allow_pickle=True)
    return packed(out.getvalue())


def announced(shape: str, dtype: str = "<f8", data: bytes = b"") -> dict[str, str]:
    """An array whose header announces this shape."""
    text = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return packed(b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode() + data)


def nested(depth: int) -> list[Any]:
    result: list[Any] = []
    for _ in range(depth):
        result = [result]
    return result


@pytest.mark.parametrize(
    ("field", "value", "text"),
    [
        ("qubits", "abc", r"^data\[0\].qubits: "),
        ("qubits", None, r"^data\[0\].qubits: "),
        ("qubits", ["a", "b", "c"], r"qubits\[0\]: 'a' is no number of a qubit"),
        ("qubits", [0.7, 1.2, 2.9], r"qubits\[0\]: 0.7 is no number of a qubit"),
        ("qubits", [True, 2, 3], r"qubits\[0\]: True is no number of a qubit"),
        ("qubits", [math.nan, 1, 2], r"qubits\[0\]: nan is no number of a qubit"),
        ("qubits", [1, math.inf, 2], r"qubits\[1\]: inf is no number of a qubit"),
        ("qubits", [-1, 1, 2], r"qubits: qubit -1 is out of range"),
        ("qubits", [1, 1, 2], r"qubits: a qubit twice"),
        ("qubits", stored([3.0, 2.0, 4.0]), r"qubits\[0\]: 3.0 is no number of a qubit"),
        ("circuit", "x", r"^data\[0\].circuit: 'x' is no QuantumCircuit"),
        ("circuit", None, r"^data\[0\].circuit: None is no QuantumCircuit"),
        ("error", "x", r"^data\[0\].error: 'x' is no PauliLindbladError"),
        ("error", 3, r"^data\[0\].error: 3 is no PauliLindbladError"),
        ("more", nested(700), r"^data\[0\]: 'more' is no field of a LayerError"),
        ("error.generators", [1] * 7, r"error.generators: a list of 7 is no PauliList"),
        ("error.generators", None, r"error.generators: None is no PauliList"),
        ("error.generators.data", [1] * 7, r"error.generators\[0\]: 1 is no Pauli operator"),
        ("error.generators.data", None, r"error.generators: None is no list"),
        ("error.rates", None, r"error.rates: None is no ndarray"),
        ("error.rates", {"a": 1}, r"error.rates: "),
        ("error.rates", ["a"] * 7, r"error.rates\[0\]: 'a' is no real number"),
        ("error.rates", [[1, 2], [3]], r"error.rates\[0\]: a list of 2 is no real number"),
        ("error.rates", [math.nan] * 7, r"error.rates\[0\]: nan is out of range"),
        ("error.rates", stored([0.1, math.inf]), r"error.rates\[1\]: inf is out of range"),
        ("error.rates", [10**400] * 7, r"error.rates\[0\]: an integer of .* is out of range"),
        ("error.rates", [-0.1] * 7, r"error.rates\[0\]: -0.1 is out of range"),
        ("error.rates", stored(np.ones(7) * 1j), r"error.rates: no array of real numbers"),
        ("error.rates", stored(["a"] * 7), r"error.rates: no array of real numbers"),
        ("error.rates", stored([None]), r"error.rates: no array of real numbers"),
        ("error.rates", stored(0.5), r"error.rates: no array of real numbers in one"),
        ("error.rates", announced("(10000000000,)"), r"error.rates: no array of real numbers"),
        ("error.rates", announced("(300000000,)"), r"error.rates: 0 bytes of 300000000 numbers"),
        ("error.rates", announced("(-1,)"), r"error.rates: no array of real numbers"),
        ("error.rates", announced("(1,", "<zz"), r"error.rates: no array of real numbers"),
        ("error.rates", announced(f"({10**30},)"), r"error.rates: no array of real numbers"),
        ("error.rates", stored(np.zeros(100_001)), r"error.rates: 100001 entries"),
        ("error.rates", packed(b"PK\3\4"), r"error.rates: no array of real numbers"),
    ],
)
def test_malformed_values_are_refused_with_their_field(field: str, value: Any, text: str) -> None:
    tree = json.loads(json.dumps([learned((0, 1))], cls=RuntimeEncoder))
    at, (*outer, name) = tree[0]["__value__"], field.split(".")
    for each in outer:
        at = at[each]["__value__"]
    at[name] = value
    with pytest.raises(SnapshotError, match=text):
        read_layers(json.dumps(tree).encode())


@pytest.mark.parametrize("name", ["generators", "rates"])
def test_a_missing_field_is_named(name: str) -> None:
    tree = json.loads(json.dumps([learned((0, 1))], cls=RuntimeEncoder))
    del tree[0]["__value__"]["error"]["__value__"][name]
    with pytest.raises(SnapshotError, match=rf"^data\[0\].error.{name}: is missing"):
        read_layers(json.dumps(tree).encode())


def test_deep_and_many_lists_are_refused() -> None:
    for depth in (300, 900, 100_000):
        with pytest.raises(SnapshotError, match=r"no LayerError|nested too deeply"):
            read_layers(b"[" * depth + b"]" * depth)
    with pytest.raises(SnapshotError, match="data: 1001 entries"):
        read_layers(json.dumps([0] * 1001).encode())


@pytest.mark.parametrize(
    ("rates", "text"),
    [
        (np.ones(1) * 1j, "1j is no real number"),
        ([math.nan], r"rates\[0\]: nan is out of range"),
        (np.ones((1, 1)), "a list of 1 is no real number"),
        (3.0, "3.0 is no list"),
    ],
)
def test_rates_of_objects_are_checked(rates: object, text: str) -> None:
    error = SimpleNamespace(generators=["IX"], rates=rates)
    layer = SimpleNamespace(circuit=QuantumCircuit(2), qubits=np.array([1, 2]), error=error)
    with pytest.raises(SnapshotError, match=text):
        layers_of([layer])


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"gates": ()}, "no gate on two qubits"),
        ({"gates": (LayerGate("ecr", (2, 3)), LayerGate("ecr", (3, 4)))}, "a qubit of two gates"),
        ({"qubits": (2, 4)}, "without a qubit of the gates"),
        ({"qubits": (2, 2, 3)}, "twice"),
        ({"calibrated": "yesterday"}, "is not a date"),
        ({"generators": (("XI", (2, 3), 0.1),)}, "'XI' on 2 qubits"),
        ({"generators": (("XX", (2, 2), 0.1),)}, "different qubits"),
        ({"generators": (("XX", (2, 1), 0.1),)}, "different qubits of the layer"),
        ({"generators": (("X", (2,), -0.1),)}, "out of range"),
        ({"generators": (("X", (2,), math.nan),)}, "out of range"),
        ({"generators": (("XY", (2, 3), 0.1), ("YX", (3, 2), 0.2))}, "listed twice"),
    ],
)
def test_values_of_layers_are_checked(changes: dict[str, Any], text: str) -> None:
    from noise_models.calibration import PauliGenerator

    (layer,) = layers_of([learned((0, 1))])
    if "generators" in changes:
        made = tuple(PauliGenerator(*each) for each in changes["generators"])
        changes = {"generators": made}
    wrong = msgspec.structs.replace(layer, **changes)
    with pytest.raises(SnapshotError, match=text):
        check(device(layers=(wrong,)))
    with pytest.raises(SnapshotError, match="layer that is listed twice"):
        check(device(layers=(layer, layer)))
