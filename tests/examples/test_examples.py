"""The examples run as they stand and show what they say."""

import ast
import importlib.util
import json
import math
import re
from pathlib import Path

import pytest
from interpreter import python

EXAMPLES = Path(__file__).parents[2] / "examples"


def shown(name: str, folder: Path, *arguments: str) -> str:
    """What an example prints, started in a folder of its own."""
    done = python(EXAMPLES / name, *arguments, cwd=folder, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_laptop_example_does_not_run(tmp_path: Path) -> None:
    counts = ast.literal_eval(shown("laptop.py", tmp_path))
    assert set(counts) == {"00", "11"}
    assert sum(counts.values()) == 4096


def test_the_sweep_is_no_cosine(tmp_path: Path) -> None:
    lines = shown("sweep.py", tmp_path).splitlines()
    assert len(lines) == 25
    for line in lines:
        angle, value, _, cosine = line.split()
        assert abs(float(cosine) - math.cos(float(angle))) < 2e-3
        assert abs(float(value) - float(cosine)) < 5 / math.sqrt(2000)


def test_the_phase_of_each_run_is_the_energy_of_the_state_it_left(tmp_path: Path) -> None:
    energies, *runs = shown("phase_estimation.py", tmp_path, "--seeds", "3").splitlines()
    exact = [float(word) for word in energies.split()[1:]]
    assert len(runs) == 3
    for line in runs:
        by_bits, left = (float(word) for word in re.findall(r"[+-]\d\.\d{4}", line))
        assert abs(by_bits - left) < 2 * math.pi / 2**7
        assert min(abs(left - energy) for energy in exact) < 0.05


def test_the_linear_system_has_one_cost_through_all_interfaces(tmp_path: Path) -> None:
    pytest.importorskip("pennylane")
    text = shown("vqls_frontends.py", tmp_path, "--steps", "2")
    rows = {line.split()[0]: line.split() for line in text.splitlines()[1:] if line}
    exact = [rows[way] for way in ("client", "qpm", "estimator", "pennylane")]
    assert [row[1] for row in exact] == ["2"] * 4
    assert all(float(row[2]) > 0.0 for row in exact)
    assert len({row[4][:12] for row in exact}) == 1
    assert float(exact[0][4]) < float(exact[0][3])  # a cost that falls
    assert "exact costs after 2 steps agree" in text
    if importlib.util.find_spec("pennylane_qiskit") is None:
        assert "left out: pennylane_qiskit is not installed" in text
    else:
        assert float(rows["pennylane-qiskit"][3]) == pytest.approx(float(exact[0][3]), abs=0.02)


@pytest.mark.parametrize("pattern", ["quantum", "classical", "balanced"])
def test_patterns_of_applications_report_their_use(tmp_path: Path, pattern: str) -> None:
    text = shown("patterns.py", tmp_path, "--only", pattern, "--json", "use.json")
    (use,) = json.loads((tmp_path / "use.json").read_text())
    assert pattern in text
    assert f"{use['tasks']}" in text
    assert 0.0 < use["pool_busy"] <= 1.0
    assert 0.0 <= use["wait_median_s"] <= use["wait_longest_s"] <= use["wall_s"]
    low, high = {"quantum": (0.0, 0.35), "classical": (0.65, 1.0), "balanced": (0.1, 0.9)}[pattern]
    assert low <= use["classical_share"] <= high
    assert use["error"] < use["error_limit"]


@pytest.mark.parametrize(
    ("arguments", "steps"),
    [(("--steps", "15"), "15 steps of 504"), (("--form", "cobyla"), "steps of 72")],
    ids=["gradient", "cobyla"],
)
def test_system_is_not_solved(tmp_path: Path, arguments: tuple[str, ...], steps: str) -> None:
    text = shown("vqls.py", tmp_path, *arguments)
    fidelity = re.search(r"fidelity (\d\.\d+)", text)
    assert fidelity is not None
    assert float(fidelity[1]) > 0.97
    assert f"{steps} circuits, sent as one sweep" in text


def test_a_sweep_and_single_circuits_give_different_costs(tmp_path: Path) -> None:
    few = ("--form", "cobyla", "--steps", "2", "--shots", "500")
    costs = [
        shown("vqls.py", tmp_path, *few, "--way", way).partition("basis")[0]
        for way in ("sweep", "each")
    ]
    assert costs[0] == costs[1]
    assert len(set(costs[0].split())) > 4  # a heading, and a cost for each of several steps


def test_hydrogen_is_not_found_to_chemical_accuracy(tmp_path: Path) -> None:
    shots = ("--steps", "5", "--shots", "50000")
    text = shown("vqe_h2.py", tmp_path, *shots, "--stages", "ideal", "noisy")
    assert text.count(": within 1.6 mHa") == 2
    assert text.count("exact diagonalisation:      -1.137306") == 2
    assert error_mha(text, "noisy") > 20.0  # with readout errors and relaxation


def error_mha(text: str, stage: str) -> float:
    """What a stage on a device prints as its error."""
    match = re.search(rf"^{stage}, .* error ([+-]\d+\.\d+) mHa", text, re.MULTILINE)
    assert match is not None, text
    return float(match[1])


def test_hydrogen_by_mitigation_is_not_far_from_exact(tmp_path: Path) -> None:
    pytest.importorskip("mitiq", reason="mitiq is not installed")
    text = shown("vqe_h2.py", tmp_path, "--steps", "5", "--stages", "noisy", "mitigated")
    # About six standard errors of the extrapolation at 100,000 shots a basis and scale.
    assert abs(error_mha(text, "mitigated")) < 6.0 < error_mha(text, "noisy")


def test_the_notebook_does_not_run_as_a_script(tmp_path: Path) -> None:
    text = shown("notebook.py", tmp_path)
    assert "10 qubits: 2 different outcomes" in text
    assert "8 completions read and acknowledged" in text
    assert "3 qubits: " in text
    if importlib.util.find_spec("matplotlib") is not None:
        assert (tmp_path / "counts.png").read_bytes().startswith(b"\x89PNG")
    assert "done in time" in text


def test_the_long_run_is_not_random(tmp_path: Path) -> None:
    text = shown("long_run.py", tmp_path, "--qubits", "16", "--layers", "100")
    squared = re.search(r"probabilities: (\d\.\d+)", text)
    assert squared is not None
    assert float(squared[1]) == pytest.approx(2.0, abs=0.1)  # its spread is 4 / sqrt(D) = 0.016
    assert "norm 1.000000000" in text


def test_larger_codes_have_no_fewer_errors_below_threshold(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    text = shown("error_correction.py", tmp_path, "plot.png", "--shots", "3000", "--points", "2")
    rates = {
        (code, int(distance), float(rate)): float(share)
        for code, distance, rate, share in re.findall(
            r"(repetition|surface) code\s+d = (\d)\s+p = (\S+)\s+(\S+)", text
        )
    }
    assert len(rates) == 2 * (4 + 3)
    assert rates["surface", 7, 0.013] > rates["surface", 3, 0.013], "above the threshold"
    assert rates["repetition", 9, 0.01] < rates["repetition", 3, 0.01], "below it"
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_a_whole_qpu_gives_counts_and_a_cut_that_is_better_than_chance(tmp_path: Path) -> None:
    text = shown("whole_qpu.py", tmp_path, "qaoa")
    assert "qaoa: 1000 shots in" in text
    mean, edges = re.findall(r"cut ([\d.]+) of (\d+) edges", text)[0]
    assert float(mean) > 0.55 * int(edges)
