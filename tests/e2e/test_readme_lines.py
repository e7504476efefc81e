"""The README's shell lines work as they are pasted, one after the other."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
BLOCKS = [
    block
    for language, block in FENCED.findall((ROOT / "README.md").read_text())
    if not language and block.startswith(".venv/bin/simenv")
]

PYTHON = [
    block
    for language, block in FENCED.findall((ROOT / "README.md").read_text())
    if language == "python"
]


def test_the_blocks_are_not_found() -> None:
    assert len(BLOCKS) >= 4
    assert len(PYTHON) >= 4


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout to type in: what the lines name, and a home of its own."""
    (tmp_path / ".venv").symlink_to(sys.prefix)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.setenv("SIMENV_HOME", str(tmp_path / "home"))
    return tmp_path


def test_a_pasted_line_fails(place: Path) -> None:
    """All blocks in their order; a block that ends nothing is ended by the next."""
    lines = [line for block in BLOCKS for line in block.splitlines() if line.startswith(".venv")]
    try:
        for line in lines:
            words = shlex.split(line, comments=True)
            done = subprocess.run(
                words, cwd=place, capture_output=True, text=True, timeout=120, check=False
            )
            assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
    finally:
        for folder in (place / "home").glob("*"):
            down = [str(place / ".venv/bin/simenv"), "down", "--now", "--name", folder.name]
            subprocess.run(down, capture_output=True, timeout=60, check=False)
    assert not list((place / "home").glob("*/connection.json"))


def test_python_snippets_run_twice_in_one_environment(place: Path) -> None:
    """All of them, in one interpreter, against the environment of `simenv up`; then once more."""
    simenv = str(place / ".venv/bin/simenv")
    subprocess.run([simenv, "up", "--workers", "2"], cwd=place, check=True, timeout=120)
    try:
        for _ in range(2):
            done = subprocess.run(
                [sys.executable, "-W", "error", "-c", "\n".join(PYTHON)],
                cwd=place,
                capture_output=True,
                text=True,
                timeout=120,
                check=False,
            )
            assert done.returncode == 0, done.stderr
            assert "{'11': 100}" in done.stdout
    finally:
        subprocess.run([simenv, "down", "--now"], cwd=place, check=True, timeout=60)
