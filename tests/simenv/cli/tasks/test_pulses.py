"""Pulse sequences on the command line: found by their content, run, shown and saved."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from shell import Shell

pulser = pytest.importorskip("pulser")


@pytest.fixture
def sequence(tmp_path: Path) -> str:
    """A file with a pulse of free amplitude on three atoms."""
    register = pulser.Register.from_coordinates([(5.5 * k, 0) for k in range(3)], prefix="a")
    made = pulser.Sequence(register, pulser.MockDevice)
    made.declare_channel("global", "rydberg_global")
    rabi = made.declare_variable("rabi")
    made.add(pulser.Pulse.ConstantPulse(120, rabi, 1.0, 0.3), "global")
    file = tmp_path / "sequence.txt"
    file.write_text("\n " + made.to_abstract_repr())
    return str(file)


def test_sequence_runs_with_values_noise_and_observables(
    shell: Shell, sequence: str, tmp_path: Path
) -> None:
    model = tmp_path / "noise.json"
    model.write_text(pulser.NoiseModel(p_false_pos=0.5, p_false_neg=0.5).to_abstract_repr())
    asked = ("--param", "rabi=2*pi", "--shots", "4000", "--seed", "3", "--observable", "ZII")
    clean = shell("run", sequence, *asked, "--json").object["pulses"]
    noisy = shell("run", sequence, *asked, "--noise", str(model), "--json").object["pulses"]
    assert clean["atoms"] == ["a0", "a1", "a2"]
    assert clean["expectation"] == pytest.approx([1 - 2 * clean["occupations"][0]])
    assert sum(clean["counts"].values()) == 4_000
    assert "111" not in clean["counts"]  # neighbours are in blockade
    assert noisy["counts"]["111"] == pytest.approx(500, abs=5 * 21)  # each bit is a coin


def test_outputs_at_times_are_asked_for_by_name(shell: Shell, sequence: str) -> None:
    asked = ("--param", "rabi=6", "--output", "energy", "--evaluation-times", "0.25,0.5", "--json")
    found = shell("run", sequence, *asked).object["pulses"]
    assert found["evaluation_times"] == [0.25, 0.5, 1.0]
    assert found["energy"][0] == pytest.approx(0.0, abs=1e-3)  # a constant drive conserves it
    assert found["occupation"][0][0] < found["occupation"][2][0] == found["occupations"][0]
    assert "ascending" in shell("run", sequence, "--evaluation-times", "x").err


def test_explain_counts_atoms(shell: Shell, sequence: str) -> None:
    asked = ("--param", "rabi=6", "--device", "neutral-atoms-analog")
    found = shell("explain", sequence, *asked, code=0).out
    assert "sequence.txt: 3 atoms" in found
    assert "s on the device" in found


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (("--plan",), "a plan of passes is of circuits"),
        (("--ledger", "--device", "neutral-atoms-analog"), "a ledger of losses is of circuits"),
    ],
)
def test_what_is_of_circuits_alone_says_so(
    shell: Shell, sequence: str, asked: tuple[str, ...], said: str
) -> None:
    error = shell("explain", sequence, *asked, code=2).err
    assert f"{said}, and this is a pulse sequence" in error
    assert f"simenv explain {sequence}" in error


def test_submitted_sequence_is_shown_and_saved_by_its_id(
    shell: Shell, sequence: str, tmp_path: Path
) -> None:
    task = shell("submit", sequence, "--param", "rabi=6", "--shots", "0", code=0).out.strip()
    file = tmp_path / "result.json"
    shown = shell("result", task, "--save", str(file), code=0)
    saved: Any = json.loads(file.read_text())
    assert "exact" in shown.err
    assert "3 atoms" in shown.err
    assert len(saved["pulses"]["occupations"]) == 3
    assert saved["pulses"]["counts"] is None
    printed = shell("result", task, code=0)
    assert [line.split()[0] for line in printed.out.splitlines()] == ["a0", "a1", "a2"]
    arrays = tmp_path / "result.npz"
    shell("result", task, "--save", str(arrays), code=0)
    with np.load(arrays) as stored:
        assert stored["pulses/occupation"][-1].tolist() == saved["pulses"]["occupations"]
        assert "pulses/counts/counts" not in stored


def test_json_that_is_no_sequence_is_refused_by_name(
    shell: Shell, sequence: str, tmp_path: Path
) -> None:
    other = tmp_path / "other.json"
    other.write_text('{"qubits": 3}')
    broken = tmp_path / "broken.json"
    broken.write_text('{"register": 1, "channels": 2, "operations": 3}')
    assert "JSON without register, channels, operations" in shell("run", str(other), code=2).err
    assert "refused by pulser" in shell("run", str(broken)).err
    model = tmp_path / "model.json"
    model.write_text('{"type": "BinaryQuadraticModel"}')
    assert "annealing is not emulated" in shell("run", str(model)).err
    assert "no values of the variables rabi" in shell("run", sequence).err
    assert "NAME=A,B,C" in shell("run", sequence, "--param", "rabi=x").err
    assert "runs in an environment" in shell("simulate", sequence).err


def test_all_outputs_are_shown_with_their_observables_and_times(
    shell: Shell, sequence: str
) -> None:
    asked = ("--param", "rabi=6", "--shots", "0", "--output", "energy", "--output", "correlation")
    times = ("--observable", "ZII:2", "--evaluation-times", "0.5")
    task = shell("submit", sequence, *asked, *times, code=0).out.strip()
    lines = shell("result", task, code=0).out.splitlines()
    found = shell("result", task, "--json", code=0)
    pulses = found.object["pulses"]
    assert found.object["num_qubits"] == 3
    values = {line.split(" = ")[0]: float(line.split(" = ")[1].split()[0]) for line in lines[:2]}
    assert values["ZII:2"] == pytest.approx(pulses["expectation"][0])
    assert values["energy"] == pytest.approx(pulses["energy"][1])
    table = [line.split() for line in lines]
    assert table[2] == ["BOTH", "1", "a0", "a1", "a2"]
    assert float(table[3][3]) == pytest.approx(pulses["correlation"][1][0][2], abs=1e-4)
    assert table[-3] == ["NS", "ATOMS", "IN", "1", "ENERGY", "RAD/US", "VARIANCE", "ZII:2"]
    assert float(table[-2][0]) == 60.0
    assert float(table[-2][-1]) == pytest.approx(pulses["expectation_at"][0][0], rel=1e-4)


def test_traps_of_a_mapped_register_are_typed_as_they_are_named(
    shell: Shell, tmp_path: Path
) -> None:
    layout = pulser.register.special_layouts.TriangularLatticeLayout(30, 6.0)
    made = pulser.Sequence(layout.make_mappable_register(2), pulser.MockDevice)
    made.declare_channel("global", "rydberg_global")
    made.add(pulser.Pulse.ConstantPulse(100, 3.0, 0.0, 0.0), "global")
    file = tmp_path / "mapped.json"
    file.write_text(made.to_abstract_repr())
    refused = shell("run", str(file)).err
    assert "--param qubits=q0:3,q1:7" in refused
    found = shell("run", str(file), "--param", "qubits=q0:3,q1:7", "--json", code=0).object
    assert found["pulses"]["atoms"] == ["q0", "q1"]


def test_a_variable_that_the_sequence_lacks_is_refused(shell: Shell, sequence: str) -> None:
    for asked in (["--param", "rab=6"], ["--param", "rabi=6", "--param", "rab=6"]):
        refused = shell("run", sequence, *asked, code=2).err
        assert "no variables rab" in refused
        assert "its variables are rabi" in refused
    assert "rabi=nan" in shell("run", sequence, "--param", "rabi=nan", code=2).err


def test_a_bundle_of_a_sequence_runs_again_to_the_same_bit_strings(
    shell: Shell, sequence: str, tmp_path: Path
) -> None:
    asked = ("--param", "rabi=6", "--shots", "200", "--observable", "ZII")
    task = shell("submit", sequence, *asked, code=0).out.strip()
    folder, archive = tmp_path / "bundle", tmp_path / "bundle.zip"
    first = shell("result", task, "--json", "--bundle", str(folder), code=0).object["pulses"]
    shell("result", task, "--bundle", str(archive), code=0)
    for place in (folder, archive):
        again = shell("run", str(place), "--json", code=0).object["pulses"]
        assert again == first
    assert json.loads((folder / "result.json").read_text())["pulses"] == first
    text = (folder / "sequence.json").read_text()
    assert pulser.Sequence.from_abstract_repr(text).declared_variables


def test_a_bundle_has_no_calibration_of_a_device(
    shell: Shell, sequence: str, tmp_path: Path
) -> None:
    asked = ("--param", "rabi=6", "--device", "neutral-atoms-analog", "--shots", "10")
    task = shell("submit", sequence, *asked, code=0).out.strip()
    refused = shell("result", task, "--bundle", str(tmp_path / "bundle")).err
    assert "calibration of a device, which a bundle does not have" in refused
    assert not (tmp_path / "bundle").exists()
