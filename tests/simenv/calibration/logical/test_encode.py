"""Logical devices: options, snapshots from known error rates, and a device of an environment."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest
from failing import fails

pytest.importorskip("pymatching")

from qiskit import QuantumCircuit, transpile

from noise_models import library, snapshot as snapshots
from noise_models.build import build
from noise_models.calibration import CalibrationSnapshot, Module
from simenv import files
from simenv.calibration import device_files
from simenv.calibration.logical import encode as encoding
from simenv.calibration.logical.cx_errors import expected_contrasts
from simenv.calibration.logical.encode import (
    MAX_PATCHES,
    Encoder,
    checked_options,
    encode,
)
from simenv.calibration.logical.error_rates import MemoryRate, round_errors
from simenv.calibration.logical.experiments import DecodedShots, Experiment
from simenv.calibration.logical.options import EncodeOptions
from simenv.calibration.logical.surface_code import rotated
from simenv.cli.app import run as command
from simenv.client.client import Client
from simenv.errors import ConfigError, OptionError, SimenvError
from simenv.frontends.qiskit import SimenvBackend

CHIP = "superconducting-lattice"
ROUND_NS = 1_000.0


class KnownErrors:
    """Outcomes of patches with known errors: of a round by distance, and of CX."""

    def __init__(self, rates: dict[int, float], shots: int, parity: float = 0.0) -> None:
        self._rates, self._shots, self._parity = rates, shots, parity
        self.distances: list[int] = []

    def __call__(self, experiments: Sequence[Experiment]) -> list[DecodedShots]:
        return [self._outcome(each) for each in experiments]

    def _outcome(self, experiment: Experiment) -> DecodedShots:
        circuit = experiment.circuit
        patches = 2 if circuit.num_observables == 3 else 1
        distance = math.isqrt((circuit.num_qubits // patches + 1) // 2)
        self.distances.append(distance)
        ancillas = patches * (distance**2 - 1)
        data = patches * distance**2
        rounds = (circuit.num_measurements - data) // ancillas
        error = self._rates[distance]
        values = [(1.0 - 2.0 * error) ** rounds]
        if patches == 2:  # the basis does not matter
            rate = MemoryRate(error, 0.0, resolved=True)
            count = rounds - 2 * distance + 1
            layout = (distance, *(1,) * (count - 1), distance)
            first, alone, both = expected_contrasts("Z", rate, rate, layout)
            flip = 1.0 - 2.0 * self._parity  # errors of the target alone; CX exchanges the two
            values = [first, alone * flip**count, both * flip**count]
        errors = tuple(round(0.5 * (1.0 - each) * self._shots) for each in values)
        return DecodedShots(errors, self._shots, rounds * ROUND_NS)


def made(run: KnownErrors, **options: object) -> tuple[CalibrationSnapshot, list[str]]:
    encoder = Encoder(library.load(CHIP), checked_options(options), run)
    result = encoder.snapshot("device")
    snapshots.check(result)
    return result, encoder.warnings


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"distance": 4}, "distance=4"),
        ({"distance": 1}, "distance=1"),
        ({"code": "colour"}, "code='colour'"),
        ({"qubits": 0}, "qubits=0"),
        ({"decoder": ""}, "decoder"),
        ({"t_error": math.nan}, "t_error"),
        ({"shots": "many"}, "shots"),
        ({"speed": 1}, "speed"),
        ({"interconnect": "tea"}, "interconnect='tea'"),
        ({"interconnect": "real-time", "deadline_us": 1.0}, "together"),
    ],
)
def test_options_are_refused_by_name(options: dict[str, object], message: str) -> None:
    with pytest.raises(OptionError, match=message) as caught:
        checked_options(options)
    assert caught.value.hint


def test_a_chip_that_holds_no_patch_is_refused_by_name_if_nothing_may_be_drawn() -> None:
    options = EncodeOptions(placement="chip")
    with pytest.raises(OptionError, match=f"{CHIP} holds 0 of 2 patches of distance 3") as caught:
        Encoder(library.load(CHIP), options, KnownErrors({}, 1))
    assert "placement" in caught.value.hint


def test_a_snapshot_has_the_error_rates_of_its_experiments() -> None:
    run = KnownErrors({3: 4e-3, 5: 1e-3}, 10**8, parity=0.02)
    snapshot, warnings = made(run, distance=3, qubits=MAX_PATCHES + 4, cx="transversal")
    origin = snapshot.logical
    assert origin is not None
    assert origin.suppression == pytest.approx((4.0, 4.0), rel=0.01)
    assert (origin.round_ns, origin.physical_qubits, origin.extrapolated) == (ROUND_NS, 17, False)
    assert f"of {MAX_PATCHES} patches in turn" in origin.options
    assert round_errors(snapshot.qubits[5], ROUND_NS) == pytest.approx((4e-3, 4e-3), rel=0.01)
    assert len(warnings) == 1  # the patches are drawn
    model = build(snapshot)
    gates = {gate.name: model.duration_ns(gate.name, (0, 1)[: gate.num_qubits]) / ROUND_NS
             for gate in snapshot.native_gates}  # fmt: skip
    assert gates == {"x": 0, "z": 0, "h": 3, "s": 3, "sdg": 3, "cx": 1, "t": 15, "tdg": 15}
    (cx,) = (gate for gate in snapshot.gates if (gate.name, gate.qubits) == ("cx", (0, 1)))
    flipped = sum(e.probability for e in cx.paulis if (e.pauli[0] in "XY") != (e.pauli[1] in "XY"))
    assert flipped == pytest.approx(0.02, rel=0.05)


def test_patches_on_the_chip_are_stored_by_their_qubits() -> None:
    chip = library.load("superconducting-square")
    encoder = Encoder(chip, EncodeOptions(qubits=7), KnownErrors({3: 0.01, 5: 0.003}, 10**9))
    origin = encoder.snapshot("device").logical
    assert origin is not None
    assert 0 < len(origin.patches) < 7  # there is no room for more
    assert f"{len(origin.patches)} patches on the chip" in origin.options
    coupled = set(chip.coupled) | {pair[::-1] for pair in chip.coupled}
    for patch in origin.patches:
        assert all((patch[a], patch[b]) in coupled for a, b in rotated(3).pairs)
    drawn, _ = made(KnownErrors({3: 0.01, 5: 0.003}, 10**9))  # no place on this chip
    assert drawn.logical is not None
    assert drawn.logical.patches == ()


def test_surgery_takes_two_d_rounds_without_errors_of_its_own() -> None:
    run = KnownErrors({3: 4e-3, 5: 1e-3}, 10**6)
    snapshot, _ = made(run, distance=3, qubits=2, cx="surgery")
    (cx,) = (gate for gate in snapshot.gates if gate.name == "cx")
    assert (cx.duration_ns, cx.paulis) == (6 * ROUND_NS, ())


def test_rare_errors_are_extrapolated_by_lambda() -> None:
    rates = {3: 1e-3, 5: 1e-4, 7: 1e-5, 9: 1e-6}
    run = KnownErrors(rates, 100_000)
    snapshot, warnings = made(run, distance=9, qubits=2)
    origin = snapshot.logical
    assert origin is not None
    assert origin.extrapolated
    assert 5 in run.distances
    assert round_errors(snapshot.qubits[0], ROUND_NS)[0] == pytest.approx(1e-6, rel=0.3)
    assert any("extrapolated by Lambda" in each for each in warnings)


def test_rare_errors_of_distance_3_are_upper_limits() -> None:
    snapshot, warnings = made(KnownErrors({3: 1e-8, 5: 1e-9}, 10_000), distance=3, qubits=1)
    assert round_errors(snapshot.qubits[0], ROUND_NS)[0] == pytest.approx(3 / 10_000 / 12)
    assert any("upper limits" in each for each in warnings)


def test_a_chip_above_the_threshold_is_made_with_a_warning_that_names_lambda() -> None:
    _, warnings = made(KnownErrors({3: 0.02, 5: 0.04}, 10**6), distance=5, qubits=1)
    assert any("threshold" in each and "Lambda is 0.50" in each for each in warnings)


def test_lost_contrast_gives_no_lambda_and_is_named() -> None:
    for distance in (3, 5):
        snapshot, warnings = made(
            KnownErrors({3: 0.2, 5: 0.3}, 50_000, parity=0.2), distance=distance, qubits=2
        )
        assert snapshot.logical is not None
        assert snapshot.logical.suppression is None
        assert any("above the threshold" in each and "Lambda is not" in each for each in warnings)


def test_devices_that_are_no_chip_are_refused_by_name(tmp_path: Path) -> None:
    logical, _ = made(KnownErrors({3: 4e-3, 5: 1e-3}, 10**6), distance=3)
    chip = library.load(CHIP)
    half = chip.num_qubits // 2
    modules = tuple(
        Module(name, tuple(own))
        for name, own in (("a", range(half)), ("b", range(half, chip.num_qubits)))
    )
    linked = msgspec.structs.replace(chip, modules=modules)
    for device, text in ((logical, "logical already"), (linked, "2 linked QPUs")):
        with pytest.raises(OptionError, match=text) as caught:
            encoding.stored_device(device, "x", EncodeOptions(), store=tmp_path)
        assert caught.value.hint
        with pytest.raises(OptionError, match=text):
            Encoder(device, EncodeOptions(), KnownErrors({}, 1))


def test_the_place_of_the_decoder_is_its_latency_and_is_named() -> None:
    run = KnownErrors({3: 4e-3, 5: 1e-3}, 10**6)
    plain, _ = made(run, distance=3)
    for level, late_ns in (("real-time", 4e3), ("near-time", 63e3), ("scale-out", 1e6)):
        late, _ = made(run, distance=3, interconnect=level)
        assert late.feed_forward_ns - plain.feed_forward_ns == pytest.approx(late_ns)
        assert late.logical is not None
        assert late.logical.deadline_ns == pytest.approx(late_ns)
        assert f"interconnect {level}" in late.logical.options


def test_other_versions_of_stim_decoder_and_build_sample_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chip, options = library.load(CHIP), EncodeOptions()
    paths = {encoding.device_path(chip, options, tmp_path)}
    monkeypatch.setattr(encoding.stim, "__version__", "0.0")
    paths.add(encoding.device_path(chip, options, tmp_path))
    monkeypatch.setattr(encoding, "named_decoder", lambda card: f"{card.name} 0")
    paths.add(encoding.device_path(chip, options, tmp_path))
    monkeypatch.setattr(encoding, "_build", lambda: "0+other")
    paths.add(encoding.device_path(chip, options, tmp_path))
    assert len(paths) == 4


def test_a_deadline_lengthens_conditions_and_t_gates() -> None:
    run = KnownErrors({3: 4e-3, 5: 1e-3}, 10**6)
    plain, _ = made(run, distance=3)
    late, _ = made(run, distance=3, deadline_us=2.0)
    assert late.feed_forward_ns - plain.feed_forward_ns == 2_000.0
    longer = {
        a.name for a, b in zip(late.gates, plain.gates, strict=True)
        if a.duration_ns != b.duration_ns
    }  # fmt: skip
    assert longer == {"t", "tdg"}


def test_a_device_is_sampled_once_and_programs_run_on_it(
    home: Path, client: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    first = encode(client, library.load(CHIP), "l3", shots=2_000, seed=7)
    words = ["devices", "encode", CHIP, "--name", "L3", "--shots", "2000", "--seed", "7", "--json"]
    assert command(words) == 0
    again = json.loads(capsys.readouterr().out)
    assert (again["stored"], again["digest"]) == (True, first.snapshot.digest.hex())
    assert (again["name"], again["num_qubits"]) == ("l3", 2)
    bell = QuantumCircuit(2)
    bell.h(0)
    bell.cx(0, 1)
    bell.measure_all()
    found = client.run(bell, device="l3", engine="stabilizer", shots=4_000, seed=1)
    how = {"engine": "densitymatrix", "shots": None, "outputs": ("probabilities",)}
    exact = client.run(bell, device="l3", **how)
    wrong = sum(found.counts.get(bits, 0) for bits in ("01", "10")) / 4_000
    expected = sum(exact.probabilities[bits] for bits in ("01", "10"))
    assert 0.01 < expected < 0.3
    assert abs(wrong - expected) < 5 * math.sqrt(expected / 4_000)


def test_a_saved_device_is_one_of_the_environment(home: Path, client: Client) -> None:
    made = encode(client, library.load(CHIP), "kept", shots=200)
    saved = device_files.save(made.snapshot)
    assert (saved.path, saved.replaced) == (home / "devices" / "kept.json", False)
    assert client.device("kept").calibration_id == made.snapshot.digest.hex()
    assert device_files.save(made.snapshot, "other").path == device_files.path_of("other")
    assert device_files.save(made.snapshot).earlier is None  # it is the same
    fails(ConfigError, "bundled profile", device_files.save, made.snapshot, CHIP)


def test_rotations_become_t_gates_in_every_interface(home: Path, client: Client) -> None:
    made = encode(client, library.load(CHIP), "turned", qubits=2, shots=500, t_error=0.0)
    path = files.private_folder(home / "devices") / "turned.json"
    path.write_bytes(snapshots.dump(made.snapshot))
    circuit = QuantumCircuit(1, 1)
    circuit.h(0)
    circuit.rz(0.3, 0)
    circuit.h(0)
    circuit.measure(0, 0)
    result = client.run(
        circuit, device="turned", shots=None, outputs=("probabilities",), noise="off"
    )
    assert result.probabilities["1"] == pytest.approx(math.sin(0.15) ** 2, abs=1e-3)
    with pytest.raises(SimenvError, match="rz on qubit 0"):
        client.run(circuit, device="turned", compile="never")
    backend = SimenvBackend("turned", env=client)
    compiled = transpile(circuit, backend, optimization_level=1)
    assert compiled.count_ops()["t"] > 10
    assert set(compiled.count_ops()) <= set(backend.target.operation_names)


def test_a_stored_device_of_another_format_is_sampled_anew(tmp_path: Path, client: Client) -> None:
    how = {"distance": 3, "qubits": 1, "shots": 1_000}
    chip = library.load(CHIP)
    assert not encode(client, chip, store=tmp_path, **how).stored
    assert encode(client, chip, store=tmp_path, **how).stored
    (path,) = tmp_path.glob("*.json")
    values = msgspec.json.decode(path.read_bytes())
    path.write_bytes(msgspec.json.encode(values | {"format": 99}))
    assert not encode(client, chip, store=tmp_path, **how).stored
