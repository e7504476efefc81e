"""Pulse sequences on emulated devices of neutral atoms, through a service."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import live
import msgspec
import pytest
from emulated import stored
from failing import fails

from noise_models import library
from noise_models.calibration import CalibrationSnapshot
from simenv.calibration import atom_certify
from simenv.calibration.atom_experiments import AtomShots
from simenv.calibration.certify import ClaimVerdict
from simenv.client.client import Client
from simenv.errors import InfeasibleError, OptionError, SimenvWarning

pulser = pytest.importorskip("pulser")
NAME = "neutral-atoms-analog"
Z = [[1.0, 0.0], [0.0, -1.0]]
BELL = 'OPENQASM 2.0; include "qelib1.inc"; qreg q[1]; creg c[1]; x q[0]; measure q -> c;\n'


def changed(**figures: Any) -> CalibrationSnapshot:
    """The bundled device with other figures."""
    snapshot = library.load(NAME)
    assert snapshot.analog is not None
    analog = msgspec.structs.replace(snapshot.analog, **figures)
    return msgspec.structs.replace(snapshot, analog=analog, rep_delay_ns=1e6)


def pulse(
    spacing: float = 20.0, rabi: float = 4 * math.pi, duration: int = 250, wait: int = 0
) -> Any:
    """A pulse of area `rabi * duration` on two atoms, then a wait."""
    register = pulser.Register.rectangle(1, 2, spacing=spacing, prefix="q")
    sequence = pulser.Sequence(register, pulser.MockDevice)
    sequence.declare_channel("global", "rydberg_global")
    sequence.add(pulser.Pulse.ConstantPulse(duration, rabi, 0.0, 0.0), "global")
    if wait:
        sequence.delay(wait, "global")
    return sequence


@pytest.fixture(scope="module")
def up() -> Iterator[live.Live]:
    pools = [
        {"name": "main", "min": 1, "max": 1},
        {"name": "lab", "device": "small-atoms", "pace": True, "min": 1, "max": 1},
    ]
    path = stored("small-atoms", changed(t1_us=5.0, temperature_uk=0.0, laser_waist_um=1e5))
    with live.environment(pools=pools, listen="tcp://127.0.0.1:0") as result:
        yield result
    path.unlink()


@pytest.mark.filterwarnings("ignore:acted as perfect")
def test_noise_of_the_snapshot_acts_and_scales(env: Client) -> None:
    def ones(noise: Any) -> float:
        result: Any = env.run(pulse(), device=NAME, shots=1_000, seed=3, noise=noise)
        return sum(bits.count("1") * n for bits, n in result.counts.items()) / 2_000

    # One error of detection in 0.08, of preparation in 0.01, of the pulse itself below 0.01.
    assert ones("off") > 0.99
    assert 0.86 < ones("on") < 0.93
    assert ones({"atom.detection": 0.0}) > 0.96
    assert ones({"atom.detection": 4.0}) < 0.75
    assert ones({"atom.p_false_neg": 0.5}) < 0.6


def test_result_names_the_snapshot_and_the_time_of_the_device(env: Client) -> None:
    task = env.submit(pulse(), device=NAME, shots=200, seed=1)
    with pytest.warns(SimenvWarning, match="has no value: Temperature, Waist"):
        details = task.details
    assert details.device == NAME
    assert details.snapshot == library.load(NAME).digest.hex()
    assert details.device_time_s == pytest.approx(200 * (0.2 + 250e-9))


def test_t1_of_the_snapshot_acts_while_atoms_wait(env: Client) -> None:
    sequence = pulse(wait=3_000)
    options: dict[str, Any] = {"device": "small-atoms", "shots": 1_000, "seed": 4}
    only = {"all": 1.0, "atom.detection": 0.0, "atom.preparation": 0.0, "atom.amplitude": 0.0}
    result: Any = env.run(sequence, noise=only, **options)
    assert result.occupations == pytest.approx(math.exp(-3.0 / 5.0), abs=0.1)
    halved: Any = env.run(sequence, noise={**only, "atom.t1_us": 2.5}, **options)
    assert halved.occupations == pytest.approx(math.exp(-3.0 / 2.5), abs=0.1)


def test_explain_lists_the_noise_that_acts_and_what_is_not_calibrated(env: Client) -> None:
    def noise_of(**options: Any) -> tuple[dict[str, float], tuple[str, ...]]:
        noise = env.explain(pulse(), shots=10, **options).noise
        assert noise is not None
        return {each.name: each.value for each in noise.figures}, noise.uncalibrated

    figures, lacking = noise_of(device=NAME, noise={"atom.detection": 0.5})
    assert figures["p_false_neg"] == pytest.approx(0.04)
    assert figures["relaxation_rate"] == pytest.approx(1 / 75)
    details = env.device(NAME).analog
    assert details is not None
    assert lacking == details.uncalibrated != ()
    replaced = noise_of(device=NAME, noise={"atom.temperature_uk": 20.0})
    assert replaced[0]["temperature"] == 20.0
    assert set(lacking) - set(replaced[1]) == {"Temperature"}
    assert noise_of(device=NAME, noise="off") == ({}, ()) == noise_of()
    model = pulser.NoiseModel(amp_sigma=0.05, eff_noise_rates=(0.1,), eff_noise_opers=(Z,))
    expected = {"amp_sigma": 0.05, "eff_noise[0]": 0.1}
    assert noise_of(noise=model) == (expected, ()) == noise_of(device=NAME, noise=model)
    strong = env.explain(pulse(), device=NAME, noise={"atom.detection": 1e3}, shots=10).noise
    assert strong is not None
    assert "above the physical limit" in strong.warnings[0]
    circuit = env.explain(BELL)
    assert circuit.noise is None


def test_what_the_machine_cannot_do_is_refused_by_name(env: Client) -> None:
    local = pulser.Sequence(pulser.Register.square(2, 8.0, prefix="q"), pulser.MockDevice)
    local.declare_channel("local", "rydberg_local", initial_target="q0")
    local.add(pulser.Pulse.ConstantPulse(250, 1.0, 0.0, 0.0), "local")
    for sequence, words in (
        (pulse(spacing=3.0), "minimal distance between atoms"),
        (pulse(spacing=90.0), "center of the array"),
        (pulse(rabi=20.0), "amplitude goes over the maximum"),
        (pulse(duration=4_500), "at most 4000 ns"),
        (pulse(duration=20), "duration"),
        (local, "No match for channel 'local'"),
    ):
        fails(
            InfeasibleError, f"device {NAME} cannot run.*{words}", env.submit, sequence, device=NAME
        )
    fails(OptionError, "takes 1000", env.submit, pulse(), device=NAME, shots=1_001)


def test_circuits_and_sequences_have_devices_of_their_own(env: Client) -> None:
    fails(OptionError, "runs pulse sequences, no circuits", env.submit, BELL, device=NAME)
    lattice = "superconducting-lattice"
    fails(OptionError, "runs circuits, no pulse sequences", env.submit, pulse(), device=lattice)
    fails(
        OptionError, "which runs pulse sequences",
        env.submit, pulse(), device=NAME, noise={"gate": 2.0},
    )  # fmt: skip
    fails(
        OptionError, "which runs circuits",
        env.submit, BELL, device=lattice, noise={"atom.detection": 2.0},
    )  # fmt: skip
    fails(OptionError, "without a device", env.submit, pulse(), noise={"atom.detection": 2.0})
    fails(OptionError, "no state vector", env.submit, pulse(), device=NAME, outputs="statevector")


def test_sequence_with_other_timings_runs_unless_that_is_refused(env: Client) -> None:
    register = pulser.Register.rectangle(1, 2, spacing=20.0, prefix="q")
    sequence = pulser.Sequence(register, pulser.AnalogDevice.to_virtual())
    sequence.declare_channel("global", "rydberg_global")
    sequence.add(pulser.Pulse.ConstantPulse(252, 4 * math.pi, 0.0, 0.0), "global")
    options: dict[str, Any] = {"device": NAME, "noise": "off", "shots": 10, "seed": 1}
    fails(InfeasibleError, "cannot run", env.submit, sequence, compile="never", **options)
    assert env.run(sequence, **options).counts


def test_pool_of_a_device_is_as_slow_as_the_machine(env: Client) -> None:
    task = env.submit(pulse(), pool="lab", shots=400, seed=2)
    details = task.details
    assert details.device == "small-atoms"
    assert details.device_time_s == pytest.approx(400 * (1e-3 + 250e-9))
    assert details.timing.begun_s > 0.0


@pytest.mark.filterwarnings("ignore:acted as perfect")
def test_sequence_of_another_user_gives_the_same_samples(up: live.Live, tmp_path: Path) -> None:
    with up.client() as own, live.with_keys(own, tmp_path, "ann") as others:
        options: dict[str, Any] = {"device": NAME, "shots": 100, "seed": 8}
        expected: Any = own.run(pulse(), **options)
        found: Any = others["ann"].run(pulse(), **options)
    assert found.counts == expected.counts


def test_certify_finds_that_t1_of_a_device_was_altered(env: Client) -> None:
    path = stored("altered-atoms", changed(t1_us=2.5))
    try:
        few = AtomShots(dark=20, flipped=40, ramsey=4, rabi=4)
        found = atom_certify.certify(env, "altered-atoms", changed(t1_us=25.0), effort=few, seed=1)
    finally:
        path.unlink()
    by_name = {each.quantity: each for each in found.comparisons}
    assert by_name["rydberg_t1_us"].verdict is ClaimVerdict.OUTSIDE
    assert by_name["rydberg_t1_us"].recovered == pytest.approx(2.5, rel=0.35)
    assert len(by_name) == 6
    assert not found.passed
    assert found.device_s == pytest.approx(found.shots * 1e-3, rel=0.01)
