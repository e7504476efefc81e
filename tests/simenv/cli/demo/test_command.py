"""The demo: every algorithm right, the loop converged, the picture drawn."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from simenv.cli import demo
from simenv.cli.app import run
from simenv.cli.demo_runs import DemoRow, top
from simenv.library import algorithms


@pytest.mark.usefixtures("no_leaks")
def test_demo_has_no_fault_and_a_plot(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["demo", "--out", str(tmp_path / "shown"), "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    count = len(algorithms())
    acts, whole, loop, *compared, noisy = (rows[:count], *rows[count:])
    assert (whole["qubits"], whole["engine"], whole["fault"]) == (127, "sweep", "")
    assert sorted(act["circuit"] for act in acts) == sorted(each.name for each in algorithms())
    assert ([act["fault"] for act in acts], loop["circuits"]) == ([""] * len(acts), 480)
    assert loop["energies"][-1] == pytest.approx(loop["ground"], abs=0.15)
    assert [each["circuit"] for each in compared] == ["ghz-5", "bernstein-vazirani-4", "grover-3"]
    for each in compared:
        assert 0.5 < each["right_emulated"] < each["right_ideal"]
        assert 0.5 < each["hellinger"] < 0.999
    assert loop["energies"][-1] < noisy["energies"][-1] < noisy["energies"][0]
    assert (tmp_path / "shown" / "demo.png").read_bytes().startswith(b"\x89PNG")


def test_demo_without_matplotlib_draws_no_plot_and_prints_install_command(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    assert demo._draw([], None, [], None, tmp_path) is None  # type: ignore[arg-type]
    assert "pip install 'simenv[plots]'" in capsys.readouterr().err


def test_most_frequent_counts_are_shown_first() -> None:
    counts = {"0 0": 1, "0 1": 5, "1 0": 3, "1 1": 4}
    act = DemoRow("bell", "t-1", 2, "statevector", 0.1, 0.1, 0.2, counts, "", "")
    assert top(act) == "01:5  11:4  10:3"


COMPILE = """
import io, sys
class Terminal(io.StringIO):
    def isatty(self):
        return True
shown = sys.stderr = Terminal()
from simenv.cli import demo
demo._compile_kernels()
print(shown.getvalue())
"""


def test_kernels_are_compiled_before_the_first_circuit_with_a_bar(tmp_path: Path) -> None:
    kernels = tmp_path / "kernels"
    shutil.copytree(os.environ["SIMENV_KERNELS"], kernels)
    for done in kernels.rglob("pauli.done"):  # as if the kernels of one group had to be compiled
        done.unlink()
    environ = {**os.environ, "SIMENV_KERNELS": str(kernels)}
    shown = subprocess.run(
        [sys.executable, "-c", COMPILE], env=environ, capture_output=True, text=True, check=True
    ).stdout
    assert "compiling kernels, once on this machine" in shown
    assert "[####################]" in shown
    assert re.search(r"(\d+) of \1 kernels, 100 %", shown)
    assert "kernels are compiled, after 0:" in shown
    again = subprocess.run(
        [sys.executable, "-c", COMPILE], env=environ, capture_output=True, text=True, check=True
    ).stdout
    assert again.strip() == ""
