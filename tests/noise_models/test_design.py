"""Devices of a few numbers and a lattice."""

import msgspec
import numpy as np
import pytest
from failing import fails

from noise_models import atoms, calibration, library, snapshot, terms
from noise_models.design import TEMPLATE, DeviceDesign, lattice, snapshot_of
from noise_models.strict_json import SnapshotError


@pytest.mark.parametrize(
    ("text", "count", "qubits", "pairs"),
    [
        ("line", 5, 5, 4),
        ("ring", 5, 5, 5),
        ("ring", 2, 2, 1),
        ("grid:3x4", 0, 12, 17),
        ("grid", 12, 12, 17),
        ("heavy-hex:2x4", 0, 9, 8),
        ("heavy-hex", 156, 156, 176),
        ("all-to-all", 4, 4, 0),
        ("line", 1, 1, 0),
    ],
)
def test_lattice_has_its_qubits_and_pairs(text: str, count: int, qubits: int, pairs: int) -> None:
    layout = lattice(text, count)
    assert (layout.num_qubits, len(layout.couplings)) == (qubits, pairs)
    assert len({frozenset(pair) for pair in layout.couplings}) == pairs
    assert len(layout.coordinates) in (0, qubits)
    assert layout.all_to_all == (text == "all-to-all")


def test_heavy_hex_has_the_numbering_of_a_heron() -> None:
    if not library.resolve("fez"):
        pytest.skip("qiskit-ibm-runtime is not installed")
    measured = {tuple(sorted(pair)) for pair in library.load("fez").coupling}
    assert set(lattice("heavy-hex:8x16").couplings) == measured


@pytest.mark.parametrize(
    ("text", "count", "part"),
    [
        ("torus", 5, "unknown"),
        ("line", 0, "no number of qubits"),
        ("line:5", 0, "size '5'"),
        ("grid", 0, "no size"),
        ("grid", 7, "no grid has 7"),
        ("grid:2x", 0, "no size"),
        ("grid:99999x99999", 0, "more than"),
        ("grid:2x2", 5, "2x2 has 4"),
        ("heavy-hex", 127, "no heavy-hex has 127"),
        ("heavy-hex:3x5", 0, "of heavy-hex"),
        ("line", 10**9, "1000000000"),
    ],
)
def test_lattice_that_cannot_be_is_refused(text: str, count: int, part: str) -> None:
    fails(SnapshotError, part, lattice, text, count)


def chip(**changes: object) -> DeviceDesign:
    layout = lattice("line", 3)
    shape: dict[str, object] = {
        "couplings": layout.couplings, "coordinates": layout.coordinates,
    }  # fmt: skip
    shape |= {name: changes.pop(name) for name in ("couplings", "gates") if name in changes}
    return DeviceDesign("chip", 3, values=changes, **shape)  # type: ignore[arg-type]


def test_one_value_is_that_of_all_and_several_are_of_each() -> None:
    value, report = snapshot_of(
        chip(
            t1_us=(120.0,), t2_us=(80.0, 70.0, 60.0), error_2q=(0.006, 0.008), readout_error=(0.01,)
        )
    )
    assert [qubit.t1_us for qubit in value.qubits] == [120.0] * 3
    assert [qubit.t2_us for qubit in value.qubits] == [80.0, 70.0, 60.0]
    errors = {gate.qubits: gate.error for gate in value.gates if gate.name == "cz"}
    assert errors == {(0, 1): 0.006, (1, 0): 0.006, (1, 2): 0.008, (2, 1): 0.008}
    assert {line.field for line in report.missing} == {"durations", "gates.sx", "gates.x"}
    assert snapshot.load(snapshot.dump(value)) == value


def test_relaxation_without_durations_is_named() -> None:
    def lacking(**changes: object) -> list[str]:
        report = snapshot_of(chip(error_1q=(1e-3,), error_2q=(1e-2,), **changes))[1]
        return [line.note for line in report.missing if line.field == "durations"]

    note = "no duration of {}: T1 and T2 do not act while they run"
    assert lacking(t1_us=(120.0,)) == [note.format("sx, x, cz")]
    assert lacking(t2_us=(80.0,), duration_2q_ns=(68.0,)) == [note.format("sx, x")]
    assert lacking(t1_us=(120.0,), duration_1q_ns=(32.0,), duration_2q_ns=(68.0,)) == []
    assert lacking() == []  # nothing acts in time


def test_readout_of_one_state_alone_is_named() -> None:
    report = snapshot_of(chip(p10=(0.1,)))[1]
    notes = [line.note for line in report.missing if line.field == "measure"]
    assert notes == ["no p01 on 0, 1, 2: 0 is read exactly"]
    report = snapshot_of(chip(p10=(0.1,), readout_error=(0.06,)))[1]
    assert "measure" not in {line.field for line in report.missing}


_GIVEN = {
    "jumps_per_hour": 2.0, "jump_dwell_s": 600.0, "jump_factor": 0.3, "zz_khz": 40.0,
    "p01": 0.01, "p10": 0.02, "readout_error": 0.015, "joint_flip": 0.03,
}  # fmt: skip


def test_every_value_is_that_of_the_snapshot() -> None:
    given = {each.name: _GIVEN.get(each.name, 0.25) for each in terms.VALUES}
    value, _ = snapshot_of(chip(**{name: (number,) for name, number in given.items()}))
    found = {each.name: each for each in terms.measured(value)}
    joint = found["joint_flip"]
    assert (joint.places, joint.values) == (((0, 1), (1, 2)), pytest.approx([0.03, 0.03]))
    for each in terms.VALUES:
        names = [each.name]
        if each.kind == "gate":
            gate, word = ("sx", "cz")[each.size - 1], each.key.replace("over_", "over-")
            names = [f"{gate} {part}" for part in (word, word.rpartition("_")[0])]
            names += [f"{gate} rotation {each.key}"]
        if each.kind != "device":
            [name] = [name for name in names if name in found]
            same = [given[each.name]] * len(found[name].values)
            assert list(found[name].values) == pytest.approx(same), name
            assert found[name].unit == each.unit
    assert (value.dt_ns, snapshot.load(snapshot.dump(value))) == (0.25, value)


def test_every_number_of_a_snapshot_can_be_given_and_is_listed() -> None:
    kinds = {
        "qubit": calibration.QubitCalibration, "jumps": calibration.T1Jumps,
        "gate": calibration.GateCalibration, "crosstalk": calibration.MeasurementCrosstalk,
    }  # fmt: skip
    for kind, owner in kinds.items():
        numbers = {each.name for each in msgspec.structs.fields(owner) if "float" in str(each.type)}
        assert numbers <= {each.key for each in terms.VALUES if each.kind == kind}


def test_values_of_pairs_are_those_of_each_pair() -> None:
    value, _ = snapshot_of(chip(zz_khz=(10.0, 20.0), measurement_crosstalk_rad=(0.1, 0.2)))
    assert value.acting_zz_khz == {(0, 1): 10.0, (1, 2): 20.0}
    angles = {each.qubits: each.angle_rad for each in value.measurement_crosstalk}
    assert angles == {(0, 1): 0.1, (1, 0): 0.1, (1, 2): 0.2, (2, 1): 0.2}


def test_template_lacks_nothing() -> None:
    value, report = snapshot_of(chip(**{field: (each,) for field, each in TEMPLATE.items()}))
    assert (report.missing, snapshot.load(msgspec.json.format(snapshot.dump(value)))) == ((), value)


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"t1_us": (1.0, 2.0)}, "2 values of 3 qubits"),
        ({"error_2q": (0.1, 0.1, 0.1)}, "3 values of 2 pairs"),
        ({"t1_us": (-1.0,)}, "t1_us"),
        ({"dt_ns": (1.0, 2.0)}, "2 values of 1 device"),
        ({"error_1q": (2.0,)}, "error"),
        ({"jumps_per_hour": (1.0,), "t1_us": (9.0,)}, "jump_dwell_s: jumps of T1 without it"),
        ({"joint_flip": (0.6,)}, "joint_flip"),
        ({"zz_khz": (1.0, 2.0, 3.0)}, "3 values of 2 pairs"),
        ({"couplings": (), "zz_khz": (9.0,)}, "zz_khz: no gate"),
        ({"measurement_crosstalk_error": (0.1, 0.1, 0.1)}, "3 values of 2 pairs"),
        ({"t3_us": (1.0,)}, "t3_us: no value of a device"),
        ({"couplings": ((0, 0),)}, "0-0 is no pair"),
        ({"couplings": ((0, 3),)}, "0-3 is no pair"),
        ({"couplings": ((0, 1), (1, 0))}, "a second time"),
        ({"gates": ("rz", "magic")}, "'magic'"),
        ({"gates": ("rz", "sx")}, "none on two qubits"),
        ({"gates": ("rz", "cz"), "error_1q": (0.1,)}, "error_1q: no gate"),
        ({"couplings": (), "error_2q": (0.1,)}, "error_2q: no gate"),
        ({"couplings": (), "duration_2q_ns": (9.0,)}, "duration_2q_ns: no gate"),
        ({"readout_error": (0.01,), "p01": (0.05,)}, "not the mean"),
        ({"readout_error": (0.01,), "p01": (0.01,), "p10": (0.02,)}, "not the mean"),
    ],
)
def test_numbers_that_cannot_be_are_refused(changes: dict[str, object], part: str) -> None:
    fails(SnapshotError, part, snapshot_of, chip(**changes))


def test_page_has_every_field_of_the_json() -> None:
    from pathlib import Path

    page = (Path(__file__).parents[2] / "docs/guides/own_devices.md").read_text()
    for each in terms.VALUES:
        assert f"`--{each.name.replace('_', '-')}`" in page, each.name
    for kind in (
        calibration.CalibrationSnapshot, calibration.QubitCalibration, calibration.NativeGate,
        calibration.GateCalibration, calibration.MeasurementCalibration, calibration.ZZCoupling,
        calibration.CorrelatedReadout, calibration.AngleBounds, calibration.PauliRotation,
        calibration.LayerCalibration, calibration.LayerGate, calibration.PauliGenerator,
    ):  # fmt: skip
        for field in kind.__struct_fields__:
            assert f"`{field}`" in page, field
    data = (Path(__file__).parents[2] / "docs/guides/device_data.md").read_text()
    for linked in (
        calibration.Module, calibration.Link, calibration.PauliError, calibration.LogicalOrigin,
    ):  # fmt: skip
        for field in linked.__struct_fields__:
            assert f"`{field}`" in data or f'"{field}"' in data, field
    data = (Path(__file__).parents[2] / "docs/guides/atom_devices.md").read_text()
    for field in atoms.AnalogCalibration.__struct_fields__:
        assert f"`{field}`" in data, field


def test_numbers_of_numpy_become_those_of_python() -> None:
    given = {"t1_us": (np.float64(80.0), np.float32(90.0)), "error_2q": np.array([1e-3])}
    ends, places = np.array([[0, 1]]), np.array([[0.0, 0.0], [1.0, 0.0]])
    made, _ = snapshot_of(DeviceDesign("np", np.int64(2), ends, False, places, values=given))
    plain = {"t1_us": (80.0, 90.0), "error_2q": (1e-3,)}
    same, _ = snapshot_of(
        DeviceDesign("np", 2, ((0, 1),), False, ((0.0, 0.0), (1.0, 0.0)), values=plain)
    )
    assert made.digest == same.digest
    assert snapshot.load(snapshot.dump(made)) == made


def test_a_value_that_is_no_number_is_refused_by_name() -> None:
    fails(SnapshotError, "t1_us", snapshot_of, DeviceDesign("d", 1, values={"t1_us": ("long",)}))
