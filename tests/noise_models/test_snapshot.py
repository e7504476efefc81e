"""Calibration snapshots: canonical JSON, strict loading, ranges."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import msgspec
import pytest

from noise_models import library, snapshot
from noise_models.errors import SnapshotError


def small(**changes: Any) -> snapshot.CalibrationSnapshot:
    """A device of two qubits, with some fields replaced."""
    base = snapshot.CalibrationSnapshot(
        name="pair",
        num_qubits=2,
        technology="superconducting",
        calibrated="2026-01-02T03:04:05+00:00",
        native_gates=(snapshot.NativeGate("sx", 1), snapshot.NativeGate("cz", 2)),
        coupling=((0, 1), (1, 0)),
        qubits=(
            snapshot.QubitCalibration(t1_us=100.0, t2_us=80.0, p01=0.01, p10=0.03),
            snapshot.QubitCalibration(t1_us=90.0, t2_us=70.0, readout_error=0.02),
        ),
        gates=(
            snapshot.GateCalibration("sx", (), 3e-4, 32.0),
            snapshot.GateCalibration("cz", (0, 1), 5e-3, 68.0),
        ),
        zz=(snapshot.ZZCoupling((0, 1), 12.5),),
        correlated_readout=(
            snapshot.CorrelatedReadout(
                (0, 1),
                (
                    (0.97, 0.02, 0.02, 0.0),
                    (0.01, 0.97, 0.01, 0.02),
                    (0.01, 0.01, 0.96, 0.03),
                    (0.01, 0.0, 0.01, 0.95),
                ),
            ),
        ),
        dates={"qubits[0].t1_us": "2026-01-01T00:00:00+00:00"},
    )
    return msgspec.structs.replace(base, **changes)


def values(given: snapshot.CalibrationSnapshot) -> dict[str, Any]:
    document = json.loads(snapshot.dump(given))
    assert isinstance(document, dict)
    return document


def test_dump_and_load_return_the_same_snapshot_and_bytes() -> None:
    result = small()
    data = snapshot.dump(result)
    assert snapshot.load(data) == result
    assert snapshot.dump(snapshot.load(data)) == data
    assert result.digest == hashlib.sha256(data).digest()


def test_layout_of_json_does_not_change_the_digest() -> None:
    result = small()
    turned = dict(reversed(values(result).items()))
    assert snapshot.load(json.dumps(turned, indent=3).encode()).digest == result.digest


@pytest.mark.parametrize(
    ("path", "value", "field"),
    [
        (("qubits", 1, "t1_us"), "long", "qubits[1].t1_us"),
        (("qubits", 1, "t1_us"), -1.0, "qubits[1].t1_us"),
        (("qubits", 1, "t1_us"), 0.0, "qubits[1].t1_us"),
        (("qubits", 1, "t1_us"), float("nan"), "qubits[1].t1_us"),
        (("qubits", 1, "t2_us"), float("inf"), "qubits[1].t2_us"),
        (("qubits", 0, "p01"), 1.5, "qubits[0].p01"),
        (("qubits", 0, "p01"), True, "qubits[0].p01"),
        (("qubits", 0, "colour"), 1, "qubits[0].colour"),
        (("qubits",), [], None),
        (("qubits",), [{}], "qubits"),
        (("gates", 1, "qubits"), [0, 2], "gates[1].qubits"),
        (("gates", 1, "qubits"), [1, 1], "gates[1].qubits"),
        (("gates", 1, "qubits"), [0], "gates[1].qubits"),
        (("gates", 1, "error"), 10**30, "gates[1].error"),
        (("gates", 1, "name"), "c\x00z", "gates[1].name"),
        (("gates", 1, "duration_ns"), 1e300, "gates[1].duration_ns"),
        (("coupling", 1), [0, 1], "coupling[1]"),
        (("coupling", 0, 1), 10**40, "coupling[0]"),
        (("num_qubits",), 0, "num_qubits"),
        (("num_qubits",), 10**9, "num_qubits"),
        (("name",), "a\ud800", "name"),
        (("name",), "a" * 101, "name"),
        (("technology",), "abacus", "technology"),
        (("calibrated",), "yesterday", "calibrated"),
        (("dates",), {"qubits[0].t1_us": "noon"}, "dates['qubits[0].t1_us']"),
        (("dates",), {"../x": "2026-01-01"}, "dates['../x']"),
        (("zz", 0, "rate_khz"), 1e9, "zz[0].rate_khz"),
        (("correlated_readout", 0, "confusion"), [[1.0]], "correlated_readout[0].confusion"),
        (
            ("correlated_readout", 0, "confusion", 0, 0),
            0.5,
            "correlated_readout[0].confusion",
        ),
        (("format",), 2, "format"),
        (("kind",), "channels", "kind"),
        (("all_to_all",), True, "coupling"),
    ],
)
def test_a_wrong_value_is_refused_by_the_name_of_its_field(
    path: tuple[str | int, ...], value: object, field: str | None
) -> None:
    tree: Any = values(small())
    at = tree
    for step in path[:-1]:
        at = at[step]
    at[path[-1]] = value
    data = json.dumps(tree).encode()
    if field is None:
        assert snapshot.load(data).qubits == ()
        return
    with pytest.raises(SnapshotError) as caught:
        snapshot.load(data)
    assert caught.value.field == field


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\xfe",
        b"[]",
        b"{",
        b"[" * 100_000,
        b'{"kind": ' * 50_000,
        b'{"kind": "snapshot", "name": "a", "name": "b"}',
        b'{"kind": "snapshot", "num_qubits": ' + b"9" * 5_000 + b"}",
        snapshot.dump(small())[:-20],
    ],
)
def test_damaged_json_is_a_snapshot_error(data: bytes) -> None:
    with pytest.raises(SnapshotError) as caught:
        snapshot.load(data)
    assert caught.value.field


def test_dump_refuses_what_load_would_refuse() -> None:
    wrong = small(dt_ns=float("nan"))
    with pytest.raises(SnapshotError, match="dt_ns"):
        snapshot.dump(wrong)


def test_t2_above_2_t1_is_stored_as_measured_and_reported_as_a_clamp() -> None:
    qubits = (
        snapshot.QubitCalibration(t1_us=50.0, t2_us=130.0),
        snapshot.QubitCalibration(t1_us=50.0, t2_us=100.0),
    )
    document = snapshot.load(snapshot.dump(small(qubits=qubits)))
    assert document.qubits[0].t2_us == 130.0
    assert document.qubits[0].t2_limited_us == 100.0
    assert [field for field, _ in snapshot.clamps(document)] == ["qubits[0].t2_us"]


def test_the_error_of_a_gate_that_does_not_work_is_reported_as_a_clamp() -> None:
    gates = (
        snapshot.GateCalibration("cz", (0, 1), 1.0),
        snapshot.GateCalibration("cz", (1, 0), 0.8),
        snapshot.GateCalibration("sx", (0,), 0.7),
    )
    result = snapshot.clamps(small(gates=gates))
    assert [field for field, _ in result] == ["gates[0].error", "gates[2].error"]


def test_confusion_keeps_its_asymmetry_and_completes_a_missing_half() -> None:
    first, second = small().qubits
    assert first.confusion == (0.01, 0.03)
    assert second.confusion == (0.02, 0.02)
    half = snapshot.QubitCalibration(p01=0.01, readout_error=0.03)
    assert half.confusion == pytest.approx((0.01, 0.05))
    assert snapshot.QubitCalibration().confusion is None


@pytest.mark.parametrize("name", library.BUNDLED)
def test_bundled_profiles_load_without_clamps(name: str) -> None:
    document = library.load(name)
    assert document.name == name
    assert snapshot.clamps(document) == ()
    assert document.all_to_all is not bool(document.coupling)
    native = {gate.name for gate in document.native_gates}
    assert {gate.name for gate in document.gates} <= native


def test_library_refuses_an_unknown_name_with_the_known_ones() -> None:
    with pytest.raises(SnapshotError, match="no device 'abacus'") as caught:
        library.load("abacus")
    assert "trapped-ions" in caught.value.hint


def test_fields_that_exist_are_named_for_an_unknown_one() -> None:
    rotation = {"paul": "X"}
    values: dict[str, Any] = {"kind": "snapshot", "name": "x", "num_qubits": 1}
    values["gates"] = [{"name": "x", "rotations": [rotation]}]
    with pytest.raises(SnapshotError, match=r"^gates\[0\].rotations\[0\].paul: ") as caught:
        snapshot.from_values(values)
    assert caught.value.hint == "did you mean pauli? known: pauli, angle_rad"
