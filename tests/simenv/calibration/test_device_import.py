"""Devices from objects of Pulser and Qiskit, and from files, are what these say."""

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from noise_models import snapshot as snapshots
from noise_models.strict_json import SnapshotError
from simenv.calibration import device_files
from simenv.calibration.device_import import import_device
from simenv.errors import ConfigError, OptionError, SimenvError
from simenv.transpiler.atoms import machine_of, on_machine

pulser = pytest.importorskip("pulser")
NOISE = pulser.NoiseModel(
    temperature=50.0, amp_sigma=0.03, laser_waist=100.0, relaxation_rate=0.1, dephasing_rate=0.2,
    p_false_pos=0.01, p_false_neg=0.05, state_prep_error=0.02,
)  # fmt: skip


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SIMENV_HOME", str(tmp_path))
    return tmp_path


def virtual(**changes: Any) -> Any:
    """A device without any limit, with a map of detunings and the noise above."""
    given: dict[str, Any] = {
        "name": "Lab 3", "dimensions": 3, "rydberg_level": 60, "noise_model": NOISE,
        "channel_objects": (
            pulser.channels.Rydberg.Global(None, None), pulser.channels.Raman.Local(None, None),
        ),
        "dmm_objects": (pulser.channels.dmm.DMM(bottom_detuning=-100.0),),
    }  # fmt: skip
    return pulser.devices.VirtualDevice(**given | changes)


def stacked() -> Any:
    """A device of two planes of traps."""
    traps = [(6.0 * x, 6.0 * y, 6.0 * z) for x in range(3) for y in range(2) for z in range(2)]
    return pulser.devices.Device(
        name="stacked", dimensions=3, rydberg_level=60, min_atom_distance=5.0, max_atom_num=6,
        max_radial_distance=30, channel_objects=(pulser.channels.Rydberg.Global(20.0, 10.0),),
        pre_calibrated_layouts=(pulser.register.RegisterLayout(traps),),
    )  # fmt: skip


@pytest.mark.parametrize(
    "device", [pulser.AnalogDevice, pulser.DigitalAnalogDevice, pulser.MockDevice, stacked()]
)
def test_machine_of_a_device_of_pulser_is_that_device(device: Any) -> None:
    made = import_device(device)
    assert made.name == device.name.lower()
    stored = snapshots.load(device_files.path_of(made.name).read_bytes())
    assert stored == made.snapshot
    assert stored.analog is not None
    assert machine_of(msgspec.json.encode(stored.analog.device).decode()) == device
    assert len(stored.analog.uncalibrated) == 9, "no noise model: nothing was measured"
    assert {line.field for line in made.report.missing} == {"noise"}


def test_noise_model_of_a_device_is_its_calibration() -> None:
    made = import_device(virtual())
    assert (made.name, made.snapshot.num_qubits, made.snapshot.max_shots) == ("lab-3", 256, 0)
    analog = made.snapshot.analog
    assert analog is not None
    assert (analog.temperature_uk, analog.amplitude_sigma, analog.laser_waist_um) == (50, 0.03, 100)
    assert (analog.t1_us, analog.t_phi_us) == pytest.approx((10.0, 5.0))
    assert (analog.p_false_pos, analog.p_false_neg, analog.state_prep_error) == (0.01, 0.05, 0.02)
    machine = machine_of(msgspec.json.encode(analog.device).decode())
    assert machine == virtual(noise_model=None)
    other = import_device(virtual(), "other", noise=pulser.NoiseModel(relaxation_rate=0.5))
    assert other.snapshot.analog is not None
    assert other.snapshot.analog.t1_us == 2.0
    assert other.snapshot.analog.temperature_uk is None
    assert [line.field for line in other.report.ignored][:1] == ["default_noise_model"]


def test_sequences_of_a_device_run_on_its_import() -> None:
    device = stacked()
    analog = import_device(device).snapshot.analog
    assert analog is not None
    register = device.pre_calibrated_layouts[0].define_register(0, 3, 5)
    sequence = pulser.Sequence(register, device)
    sequence.declare_channel("drive", "rydberg_global")
    sequence.add(pulser.Pulse.ConstantPulse(100, 1.0, 0.0, 0.0), "drive")
    placed = on_machine(sequence, msgspec.json.encode(analog.device).decode(), strict=True)
    assert placed.device == device


def test_files_give_what_the_objects_give(tmp_path: Path) -> None:
    path, noise = tmp_path / "device.json", tmp_path / "noise.json"
    path.write_text(virtual().to_abstract_repr())
    noise.write_text(pulser.NoiseModel(relaxation_rate=0.5).to_abstract_repr())
    analog = import_device(virtual()).snapshot.analog
    assert import_device(path, "a").snapshot.analog == analog
    assert import_device({"x.json": path.read_bytes()}, "b").snapshot.analog == analog
    both = import_device([str(path), noise], "c").snapshot.analog
    assert both == import_device(
        virtual(), "d", noise=pulser.NoiseModel(relaxation_rate=0.5)
    ).snapshot.analog  # fmt: skip


def test_backend_of_qiskit_is_imported() -> None:
    backends = pytest.importorskip("qiskit_ibm_runtime.fake_provider")
    made = import_device(backends.FakeLimaV2(), "lima-today")
    assert (made.name, made.snapshot.num_qubits) == ("lima-today", 5)
    assert made.report.format == "qiskit-target"


class Unwritable:
    """A device whose author wrote a bad method."""

    channels: tuple[Any, ...] = ()

    def to_abstract_repr(self) -> str:
        raise RuntimeError("a\nmessage")


REFUSED: list[tuple[Any, dict[str, Any], type[Exception], str]] = [
    (5, {}, OptionError, "no device can be read from 5"),
    (NOISE, {}, OptionError, "no device can be read from NoiseModel"),
    ([pulser.AnalogDevice], {}, OptionError, "no device can be read from"),
    ({"a": "text"}, {}, OptionError, "not bytes by name"),
    ({}, {}, SnapshotError, "no file"),
    ("missing.json", {}, OptionError, "cannot read missing.json: No such file"),
    ("nul\0.json", {}, OptionError, "cannot read"),
    (Unwritable(), {}, SnapshotError, "pulser cannot write it: RuntimeError: a message"),
    (pulser.AnalogDevice, {"noise": 0.1}, OptionError, "noise=0.1"),
    (pulser.AnalogDevice, {"name": "../x"}, ConfigError, "name '../x' is not allowed"),
    (pulser.AnalogDevice, {"name": "neutral-atoms-analog"}, ConfigError, "bundled profile"),
    (virtual(name="Ω"), {}, ConfigError, "is not allowed"),
]


@pytest.mark.parametrize(("source", "given", "error", "text"), REFUSED)
def test_what_is_no_device_is_refused_by_name(
    source: Any, given: dict[str, Any], error: type[Exception], text: str, home: Path
) -> None:
    with pytest.raises(error, match=re.escape(text)) as found:
        import_device(source, **given)
    if isinstance(found.value, SimenvError):
        assert found.value.hint
    assert not (home / "devices").exists()


def test_noise_that_a_snapshot_cannot_hold_is_refused_by_its_field() -> None:
    noise = pulser.NoiseModel(eff_noise_rates=(0.1,), eff_noise_opers=([[1, 0], [0, -1]],))
    with pytest.raises(SnapshotError, match="eff_noise"):
        import_device(virtual(noise_model=noise))
    made = import_device(virtual(noise_model=noise), allow_ignored=True)
    assert made.snapshot.unread == ("default_noise_model.eff_noise",)
