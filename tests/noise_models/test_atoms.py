"""Devices that run pulse sequences: snapshots, their noise, and their import."""

import json
from typing import Any

import calibration_samples as samples
import msgspec
import pytest

from noise_models import atoms, document, library, snapshot
from noise_models.atoms import AnalogCalibration
from noise_models.calibration import CalibrationSnapshot, NativeGate
from noise_models.drift import RandomWalk
from noise_models.importers import import_snapshot
from noise_models.options import NoiseOptions
from noise_models.strict_json import NoiseError, SnapshotError

CHANNEL = samples.ATOM_CHANNEL
MACHINE = samples.ATOM_MACHINE
NOISE: dict[str, Any] = {
    "noise_types": ["SPAM", "doppler", "relaxation"], "runs": None, "samples_per_run": 1,
    "state_prep_error": 0.0, "p_false_pos": 0.01, "p_false_neg": 0.05, "temperature": 20.0,
    "laser_waist": None, "amp_sigma": 0.0, "relaxation_rate": 0.02, "dephasing_rate": 0.0,
    "eff_noise": [],
}  # fmt: skip


def device(**noise: Any) -> CalibrationSnapshot:
    analog = AnalogCalibration(device=MACHINE, **noise)
    return CalibrationSnapshot(name="small", num_qubits=12, analog=analog)


def imported(**changes: Any) -> Any:
    files = {"device.json": json.dumps(MACHINE | changes).encode()}
    return import_snapshot(files)


def test_import_of_a_device_of_pulser_says_what_is_not_calibrated() -> None:
    result, report = imported(default_noise_model=NOISE)
    assert result.analog is not None
    assert (result.num_qubits, result.max_shots, result.format) == (12, 500, 2)
    assert result.analog.t1_us == pytest.approx(50.0)
    assert result.analog.state_prep_error == 0.0  # its type is listed: it was measured
    assert result.analog.amplitude_sigma is None  # its type is not
    assert "default_noise_model" not in result.analog.device
    said = " ".join(line.note for line in report.missing)
    assert "Rabi frequency" in said
    assert "T1" not in said
    assert [line.field for line in report.defaulted] == ["rep_delay_ns"]
    assert document.load(document.dump(result)) == result


def test_noise_model_in_a_file_of_its_own_is_the_calibration() -> None:
    files = {"a.json": json.dumps(MACHINE).encode(), "b.json": json.dumps(NOISE).encode()}
    result, _ = import_snapshot(files)
    assert result.analog is not None
    assert result.analog.temperature_uk == 20.0
    with pytest.raises(SnapshotError, match="not one device"):
        import_snapshot({"a.json": files["a.json"], "c.json": files["a.json"]})


def test_noise_that_a_snapshot_cannot_hold_is_not_lost_silently() -> None:
    noise = NOISE | {"eff_noise": [[0.1, [[0, 1], [0, 0]]]]}
    with pytest.raises(SnapshotError, match="eff_noise"):
        imported(default_noise_model=noise)
    files = {"d.json": json.dumps(MACHINE | {"default_noise_model": noise}).encode()}
    result, _ = import_snapshot(files, allow_ignored=True)
    assert result.unread == ("default_noise_model.eff_noise",)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"channels": []}, "channels"),
        ({"channels": [CHANNEL | {"max_amp": "x"}]}, "max_amp"),
        ({"max_atom_num": -1}, "num_qubits"),
        ({"max_atom_num": 10**9}, "num_qubits"),
        ({"min_atom_distance": float("nan")}, "analog.device"),
        ({"name": "a\nb"}, "name"),
        ({"short_description": "x" * 300_000}, "analog.device"),
    ],
)
def test_machines_out_of_form_are_refused_with_their_field(
    changes: dict[str, Any], field: str
) -> None:
    with pytest.raises(SnapshotError, match=field):
        imported(**changes)


def test_nested_machines_are_refused() -> None:
    deep: Any = 0
    for _ in range(40):
        deep = [deep]
    with pytest.raises(SnapshotError, match="nested"):
        imported(pre_calibrated_layouts=deep)


def test_figures_out_of_range_and_gates_beside_pulses_are_refused() -> None:
    for noise in ({"p_false_pos": 1.5}, {"t1_us": 0.0}, {"trap_waist_um": 1.0}):
        with pytest.raises(SnapshotError, match="analog"):
            snapshot.dump(device(**noise))
    mixed = msgspec.structs.replace(device(), native_gates=(NativeGate("rx", 1, 1),))
    with pytest.raises(SnapshotError, match="native_gates"):
        snapshot.dump(mixed)
    with pytest.raises(SnapshotError, match="sources"):
        snapshot.dump(device(sources={"t2": "a paper"}))


def test_factors_scale_rates_and_probabilities() -> None:
    analog = device(t1_us=50.0, p_false_neg=0.6, laser_waist_um=100.0, temperature_uk=20.0).analog
    assert analog is not None

    def arguments(**noise: float) -> dict[str, float]:
        names = {name.replace("_", ".", 1): value for name, value in noise.items()}
        return atoms.pulser_noise(analog, NoiseOptions.parse(names))

    plain = arguments()
    assert plain == {
        "relaxation_rate": 0.02, "p_false_neg": 0.6, "laser_waist": 100.0, "temperature": 20.0,
    }  # fmt: skip
    assert arguments(atom_relaxation=3.0)["relaxation_rate"] == pytest.approx(0.06)
    assert arguments(atom_detection=2.0)["p_false_neg"] == 1.0
    assert arguments(atom_waist=4.0)["laser_waist"] == pytest.approx(50.0)
    assert "laser_waist" not in arguments(atom_waist=0.0)
    assert arguments(atom_t1_us=10.0)["relaxation_rate"] == pytest.approx(0.1)
    assert arguments(all=0.0) == {}
    assert (
        "above the physical limit"
        in atoms.limited(analog, NoiseOptions.parse({"atom.detection": 2.0}))[0]
    )
    assert (
        "changes nothing"
        in atoms.limited(analog, NoiseOptions.parse({"atom.depolarizing": 2.0}))[0]
    )


@pytest.mark.parametrize("noise", [{"gate": 2.0}, {"qubit.t1_us": 3.0}, "aer", {"idle": False}])
def test_noise_of_gates_is_refused_on_atoms(noise: Any) -> None:
    with pytest.raises(NoiseError, match="neutral-atom device"):
        atoms.check_options(NoiseOptions.parse(noise))


def test_traps_act_with_a_temperature_alone() -> None:
    analog = device(trap_waist_um=1.0, trap_depth_uk=100.0, temperature_uk=30.0).analog
    assert analog is not None
    assert len(atoms.pulser_noise(analog, NoiseOptions())) == 3
    assert not atoms.pulser_noise(analog, NoiseOptions.parse({"atom.temperature": 0.0}))


def test_circuits_have_no_noise_of_a_device_of_atoms() -> None:
    with pytest.raises(NoiseError, match="runs pulse sequences"):
        document.model(device(t1_us=50.0))


def test_each_figure_of_the_bundled_device_has_a_source() -> None:
    bundled = library.load("neutral-atoms-analog")
    assert bundled.analog is not None
    measured = {parameter.name for parameter, _ in atoms.measured(bundled.analog)}
    assert measured | {"device"} == bundled.analog.sources.keys()
    assert bundled.max_shots == bundled.analog.machine.max_runs == 1_000
    assert bundled.num_qubits == bundled.analog.machine.max_atom_num


def test_each_figure_of_atoms_drifts_within_its_limits() -> None:
    base = device(t1_us=50.0, p_false_neg=0.4, temperature_uk=20.0)
    walk = RandomWalk(base, 3, 3_600.0, 1.0)
    found = [walk.snapshot(step).analog for step in range(1, 40)]
    assert walk.snapshot(0) == base
    for name in ("t1_us", "p_false_neg", "temperature_uk"):
        assert len({getattr(each, name) for each in found}) > 20
    assert max(each.p_false_neg or 0.0 for each in found if each) <= 0.5
    assert all(each is not None and each.p_false_pos is None for each in found)
    snapshot.check(walk.snapshot(39))
