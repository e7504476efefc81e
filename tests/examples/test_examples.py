"""The examples run as they stand and show what they say."""

from __future__ import annotations

import ast
import math
import os
import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).parents[2] / "examples"


def shown(name: str, folder: Path) -> str:
    """What an example prints, started in a folder of its own."""
    done = subprocess.run(
        [sys.executable, EXAMPLES / name],
        cwd=folder,
        env=os.environ,
        capture_output=True,
        text=True,
        check=True,
    )
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
