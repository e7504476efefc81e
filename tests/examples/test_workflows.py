"""The recipes for libraries of workflows run as they stand."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

WORKFLOWS = Path(__file__).parents[2] / "examples" / "workflows"


def shown(name: str, folder: Path) -> list[str]:
    """The lines that an example prints, started in a folder of its own."""
    done = subprocess.run(
        [sys.executable, WORKFLOWS / name],
        cwd=folder,
        env=os.environ,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize(
    ("package", "name"), [("distributed", "dask_sweep.py"), ("parsl", "parsl_sweep.py")]
)
def test_results_of_tasks_pass_through_the_library(package: str, name: str, tmp_path: Path) -> None:
    pytest.importorskip(package, reason=f"{package} is not installed")
    lines = shown(name, tmp_path)
    assert len(lines) == 16
    for line in lines:
        angle, share, _, _ = line.split()
        right = math.sin(float(angle) / 2) ** 2
        assert abs(float(share) - right) < 5 * math.sqrt(0.25 / 2000)


def test_units_of_a_pilot_share_one_environment(tmp_path: Path) -> None:
    lines = shown("pilot.py", tmp_path)
    assert sorted(int(line.split(":")[0].removeprefix("unit-")) for line in lines) == list(
        range(12)
    )
