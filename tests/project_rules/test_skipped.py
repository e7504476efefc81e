"""A run says what it did not test; in CI nothing of root, a network or namespaces is skipped."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TESTS = """
import pytest

def test_root():
    pytest.skip("only root can mount")

def test_network():
    pytest.skip("there is no network")

def test_namespaces():
    pytest.skip("no user namespaces here")

@pytest.mark.parametrize("number", range(3))
def test_program(number):
    pytest.skip("g++ is not installed")
"""


@pytest.mark.parametrize(("ci", "failed"), [("", 0), ("true", 3)])
def test_run_ends_with_what_was_skipped(tmp_path: Path, ci: str, failed: int) -> None:
    (tmp_path / "test_few.py").write_text(TESTS)
    (tmp_path / "none.ini").write_text("[pytest]\n")
    words = ["-m", "pytest", "-q", "-p", "no:xdist", "-p", "skipped", "-c", "none.ini", "."]
    environ = {**os.environ, "CI": ci, "PYTHONPATH": str(ROOT / "tests" / "support")}
    ended = subprocess.run(
        [sys.executable, *words], cwd=tmp_path, env=environ, capture_output=True, text=True
    )
    assert ended.returncode == bool(failed), ended.stdout
    assert f"{6 - failed} tests were skipped" in ended.stdout
    assert re.search(r"^ +3  g\+\+ is not installed$", ended.stdout, re.MULTILINE)
    assert ended.stdout.count("which CI=true forbids") >= failed


def test_number_of_tests_that_run_twice_is_one_number() -> None:
    script = (ROOT / "scripts" / "test.sh").read_text()
    few = re.search(r"^few=(\d+)$", script, re.MULTILINE)
    assert few is not None
    text = " ".join((ROOT / "CONTRIBUTING.md").read_text().split())
    assert f"Tests that failed, {few[1]} at most, run a second time" in text
    assert f"when more than {few[1]} fail at once" in text
