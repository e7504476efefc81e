"""One script, two pools: an ideal one, and a fake of a machine of 27 qubits."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import live

ROOT = Path(__file__).parents[2]
POOLS = [
    {"name": "main", "min": 1, "max": 1},
    {"name": "qpu", "engine": "hardware", "provider": "examples.machine:montreal"},
]


def shown(environment: live.Live, pool: str) -> str:
    done = subprocess.run(
        [sys.executable, ROOT / "examples" / "qpu_cutover.py", pool],
        env={**os.environ, "SIMENV_SERVICE": str(environment.home / "connection.json")},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def test_the_script_must_be_changed_for_a_machine() -> None:
    with live.environment(pools=POOLS) as environment:
        ideal, machine = shown(environment, "main"), shown(environment, "qpu")
    assert ideal.startswith("main: ideal, ")
    assert ideal.count(": 1.000 of the shots agree") == 3
    assert machine.startswith("qpu: hardware, fake_montreal, 27 qubits")
    right = [float(share) for share in re.findall(r"on hardware: (0\.\d+) of", machine)]
    assert len(right) == 3
    assert all(0.5 < share < 1.0 for share in right)
