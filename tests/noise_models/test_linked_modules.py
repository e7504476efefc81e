"""Modules, links, Pauli channels of gates and the origin of logical qubits in snapshots."""

import json
from typing import Any

import msgspec
import numpy as np
import pytest
from failing import fails
from msgspec.structs import replace

from noise_models import calibration as cal, snapshot
from noise_models.strict_json import SnapshotError
from tests.noise_models.snapshots import linked

LOGICAL = cal.LogicalOrigin(
    code="rotated surface code",
    distance=3,
    decoder="pymatching",
    chip="square-lattice",
    chip_digest="0f" * 32,
    options="rounds=12",
    shots=100_000,
    physical_qubits=17,
    round_ns=1_100.0,
    deadline_ns=2_000.0,
    suppression=(2.1, 1.9),
    patches=(tuple(range(17)), tuple(range(20, 37))),
)


def refused(path: tuple[str | int, ...], value: object, origin: bool = False) -> SnapshotError:
    """The error of a linked device with one value of its JSON replaced."""
    given = replace(linked(), logical=LOGICAL) if origin else linked()
    tree: Any = json.loads(snapshot.dump(given))
    at = tree
    for step in path[:-1]:
        at = at[step]
    at[path[-1]] = value
    error = fails(SnapshotError, "", snapshot.load, json.dumps(tree).encode())
    assert isinstance(error, SnapshotError)
    return error


def test_new_fields_are_of_format_2_and_others_stay_in_format_1() -> None:
    for given in (linked(), replace(linked(), modules=(), links=(), logical=LOGICAL)):
        data = snapshot.dump(given)
        assert json.loads(data)["format"] == 2
        assert snapshot.load(data) == given
    without = replace(linked(), modules=(), links=())
    plain = replace(without, gates=tuple(replace(g, paulis=()) for g in without.gates))
    assert "format" not in json.loads(snapshot.dump(plain))
    # A file that says 2 and needs only 1 is the same snapshot.
    tree = {**json.loads(snapshot.dump(plain)), "format": 2}
    assert snapshot.load(json.dumps(tree).encode()).digest == plain.digest


def test_fields_of_format_2_are_refused_in_a_file_of_format_1() -> None:
    error = refused(("format",), 1)
    assert error.field == "format"
    assert "paulis" in error.hint


@pytest.mark.parametrize(
    ("path", "value", "field", "named"),
    [
        (("links", 0, "pair"), [0, 1], "links[0].pair", "both in module 'a'"),
        (("links", 0, "pair"), [0, 3], "links[0].pair", "qubit 0 is no communication"),
        (("links", 0, "pair"), [1, 9], "links[0].pair", "qubit 9 is out of range"),
        (("links", 0, "fidelity"), 0.2, "links[0].fidelity", "0.2"),
        (("links", 0, "fidelity"), 1.01, "links[0].fidelity", "1.01"),
        (("links", 0, "rate_hz"), 0.0, "links[0].rate_hz", "0.0 is out of range"),
        (("links", 0, "rate_hz"), -1.0, "links[0].rate_hz", "-1.0"),
        (("links", 0, "herald_ns"), -1.0, "links[0].herald_ns", "-1.0"),
        (("links", 0, "herald_ns"), 0.0, "links[0].attempts_max", "no time"),
        (("links", 0, "latency_ns"), 1e300, "links[0].latency_ns", "1e+300"),
        (("links", 0, "paulis"), [{"pauli": "IZ", "probability": 0.1}], "links[0].fidelity", "and"),
        (("links", 0, "fidelity"), None, "links[0].fidelity", "neither"),
        (("modules",), [], "links[0].pair", "without modules"),
        (("modules", 1, "qubits"), [1, 3, 4, 5], "modules[1].qubits", "qubit 1 is in module 'a'"),
        (("modules", 1, "qubits"), [3, 4], "modules", "qubit 5"),
        (("modules", 1, "name"), "a", "modules[1].name", "a twice"),
        (("modules", 1, "communication"), [0], "modules[1].communication", "qubit 0 is none of"),
        (("modules", 1, "snapshot"), "abc", "modules[1].snapshot", "abc"),
        (("coupling",), [[0, 1], [1, 2]], "links[0].pair", "not coupled"),
        (("coupling",), [[0, 1], [1, 3], [0, 4]], "coupling[2]", "'a' and 'b'"),
        (("gates", 2, "qubits"), [], "gates[2].qubits", "cz acts on a link"),
        (("gates", 2, "qubits"), [1, 3], "gates[2].qubits", "cz acts on a link"),
        (("gates", 6, "qubits"), [3, 1], "links[0].pair", "no entry of rxx"),
        (("gates", 6, "error"), 0.04, "links[0].fidelity", "0.04"),
        (("native_gates", 0), {"name": "ecr", "num_qubits": 2}, "gates", "no entries of ecr"),
        (("gates", 2, "paulis", 0, "probability"), 1.5, "gates[2].paulis[0].probability", "1.5"),
        (("gates", 2, "paulis", 0, "pauli"), "III", "gates[2].paulis[0].pauli", "III"),
        (("gates", 2, "paulis", 0, "pauli"), "II", "gates[2].paulis[0].pauli", "II"),
        (("gates", 2, "paulis", 1, "pauli"), "ZI", "gates[2].paulis[1].pauli", "ZI twice"),
        (("gates", 2, "paulis", 1, "probability"), 0.999, "gates[2].paulis", "sum to 1.0"),
        (("gates", 2, "error"), 0.2, "gates[2].error", "0.2 beside"),
    ],
)
def test_a_wrong_link_or_module_is_refused_by_name(
    path: tuple[str | int, ...], value: object, field: str, named: str
) -> None:
    error = refused(path, value)
    assert (error.field, named in error.message, bool(error.hint)) == (field, True, True), error


@pytest.mark.parametrize(
    ("name", "value"),
    [("distance", 0), ("chip_digest", ""), ("round_ns", 0.0), ("suppression", [2.0, 0.0]),
     ("shots", -1), ("code", ""), ("options", "x" * 1001)],
)  # fmt: skip
def test_a_wrong_origin_is_refused_by_name(name: str, value: object) -> None:
    assert refused(("logical", name), value, origin=True).field == f"logical.{name}"


@pytest.mark.parametrize(
    ("patches", "place", "named"),
    [([[*range(16)]], 0, "16 qubits"), ([[*range(17)], [*range(16, 33)]], 1, "16 twice"),
     ([[*range(9_984, 10_001)]], 0, "10000")],
)  # fmt: skip
def test_wrong_patches_are_refused_by_name(patches: object, place: int, named: str) -> None:
    error = refused(("logical", "patches"), patches, origin=True)
    assert error.field == f"logical.patches[{place}]"
    assert named in error.message


def test_modules_are_not_coupled_all_to_all() -> None:
    given = replace(linked(), all_to_all=True, coupling=())
    assert fails(SnapshotError, "2 modules", snapshot.dump, given).field == "all_to_all"


def test_mean_wait_is_that_of_the_attempts() -> None:
    link = cal.Link((0, 1), fidelity=0.9, rate_hz=1e4, herald_ns=30e3)
    assert link.mean_wait_ns == pytest.approx(130e3)
    limited, p = replace(link, attempts_max=4), link.success
    weights = p * (1.0 - p) ** np.arange(4)
    mean = 30e3 * float(weights @ np.arange(1, 5)) / float(weights.sum())
    assert limited.mean_wait_ns == pytest.approx(mean)
    assert replace(link, rate_hz=None).mean_wait_ns == 30e3
    assert replace(link, attempts_max=10**9).mean_wait_ns == pytest.approx(130e3)


def test_infidelity_follows_from_pauli_errors() -> None:
    gate = cal.GateCalibration("cz", (0, 1), paulis=(cal.PauliError("ZI", 0.05),))
    assert gate.error == pytest.approx(0.04)
    errors = (cal.PauliError("IX", 0.02), cal.PauliError("ZZ", 0.1))  # the pair is one of ZZ = 1
    assert cal.Link((0, 1), paulis=errors).infidelity == pytest.approx(0.02)
    decoded = msgspec.json.decode(msgspec.json.encode(gate), type=cal.GateCalibration)
    assert decoded == gate
