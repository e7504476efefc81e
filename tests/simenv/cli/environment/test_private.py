"""`simenv exec` with nothing up: an environment of its own, gone with it."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import pytest
from shell import Answer

from simenv.cli.app import run

BELL = Path(__file__).parents[4] / "examples" / "bell.qasm"
SUBMITS = f"""
import simenv
with simenv.connect() as env:
    print(env.name, env.run({str(BELL)!r}, shots=10, seed=1).shots)
"""


def test_run_without_environment_uses_private_one_and_removes_it(
    capfd: pytest.CaptureFixture[str], no_leaks: None, tmp_path: Path
) -> None:
    assert not list(Path(tempfile.gettempdir()).glob("simenv-local-*"))
    code = run(["exec", "--workers", "1", "--", sys.executable, "-c", SUBMITS])
    answer = Answer(code, *capfd.readouterr())
    assert (answer.code, answer.out) == (0, "local 10\n"), answer.err
