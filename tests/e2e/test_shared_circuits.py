"""Circuits from elsewhere, through the command line and a real environment, judged by their
references. They lie beside the project and are no part of it; without them this is skipped."""

import sys
from pathlib import Path

import pytest
from interpreter import python
from live import environment

FOLDER = Path(__file__).parents[3] / "shared" / "circuits"
SHOTS = 10_000

pytestmark = [
    pytest.mark.usefixtures("no_leaks"),
    pytest.mark.skipif(not FOLDER.is_dir(), reason=f"there is no {FOLDER}"),
]


def test_shared_circuits_pass_check_counts_and_invalid_one_is_refused() -> None:
    with environment() as live:
        simenv = Path(sys.executable).with_name("simenv")
        command = f"{simenv} submit {{qasm}} --shots {{shots}} --seed {{seed}} --wait --json"
        command += f" --name {live.name}"
        words = ["--set", "dev", "--cmd", command, "--shots", str(SHOTS)]
        done = python(FOLDER / "check_counts.py", *words, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    verdicts = [line.split()[0] for line in done.stdout.splitlines()[:-1]]
    assert len(verdicts) == len(list((FOLDER / "dev" / "qasm").iterdir())) + 1
    assert set(verdicts) == {"pass"}
    assert "(traceback)" not in done.stdout
