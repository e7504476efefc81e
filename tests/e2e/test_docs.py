"""Snippets of README.md and of the documentation's pages run as they are pasted, page by page."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from live import Live, environment

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NEEDED = {"pennylane.md": "pennylane", "qrmi.md": "qrmi"}  # packages that simenv does not bring
# qfw.md: inside a QFw; qpm.md: test_qpm_docs.py runs its blocks, each in a process of its own
ELSEWHERE = ("qfw.md", "qpm.md")


def blocks(page: Path, language: str) -> list[str]:
    """Return the code blocks of a page in one language, `""` for those without."""
    return [body for value, body in FENCED.findall(page.read_text()) if value == language]


def shell_lines(page: Path) -> list[str]:
    """Return the lines of a page that call the command line of a checkout."""
    program = ".venv/bin/simenv "
    return [
        line
        for block in blocks(page, "")
        for line in block.splitlines()
        if block.startswith(program) and line.startswith(program)
    ]


PYTHON_PAGES = [page for page in PAGES if blocks(page, "python") and page.name not in ELSEWHERE]
SHELL_PAGES = [page for page in PAGES if shell_lines(page)]


@pytest.fixture(scope="module")
def up() -> Iterator[Live]:
    with environment(pools=[{"name": "main", "min": 2, "max": 2}]) as live:
        yield live


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder with what the lines name, and a home of its own."""
    (tmp_path / ".venv").symlink_to(sys.prefix)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.setenv("SIMENV_HOME", str(tmp_path / "home"))
    return tmp_path


def test_pages_have_snippets() -> None:
    assert len(PYTHON_PAGES) >= 7
    assert len(SHELL_PAGES) >= 7


@pytest.mark.parametrize("page", PYTHON_PAGES, ids=lambda page: page.name)
def test_python_snippets_of_a_page_run_in_one_interpreter(page: Path, up: Live) -> None:
    if page.name in NEEDED:
        pytest.importorskip(NEEDED[page.name])
    done = subprocess.run(
        [sys.executable, "-W", "error::SyntaxWarning", "-c", "\n".join(blocks(page, "python"))],
        env={**os.environ, "SIMENV_SERVICE": str(up.home / "connection.json")},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    promised = re.findall(r"print\(.*\)\s+# (\{.*\})$", page.read_text(), re.MULTILINE)
    for counts in promised:
        assert counts in done.stdout


@pytest.mark.parametrize("page", SHELL_PAGES, ids=lambda page: page.name)
def test_shell_lines_of_a_page_succeed_in_their_order(page: Path, checkout: Path) -> None:
    try:
        for line in shell_lines(page):
            done = subprocess.run(
                shlex.split(line, comments=True),
                cwd=checkout,
                capture_output=True,
                text=True,
                timeout=120,
                check=False,
            )
            assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
    finally:
        for folder in (checkout / "home").glob("*/"):
            down = [str(checkout / ".venv/bin/simenv"), "down", "--now", "--name", folder.name]
            subprocess.run(down, capture_output=True, timeout=60, check=False)
    assert not list((checkout / "home").glob("*/connection.json"))
