"""Rules about files that no linter knows."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WALL = 400
OURS = ("simenv", "simulators", "launcher", "tests", "bench", "examples", "scripts")
# Promises instead of code, and places that only one machine has.
UNWANTED = re.compile(
    "|".join(["TO" + "DO", "FIX" + "ME", "XX" + "X", "NotImplemented" + "Error", "/wo" + "rk/"])
)


def tracked() -> list[Path]:
    """Every file that is or would be in a checkout."""
    if shutil.which("git"):
        command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if listed.returncode == 0:
            return sorted({ROOT / name for name in listed.stdout.splitlines()})
    return sorted(path for top in OURS for path in (ROOT / top).rglob("*") if path.is_file())


FILES = [path for path in tracked() if path.is_file()]
PYTHON = [path for path in FILES if path.suffix == ".py"]


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", PYTHON, ids=name)
def test_a_file_does_more_than_one_thing(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= WALL


@pytest.mark.parametrize("path", PYTHON, ids=name)
def test_a_module_does_not_tell_its_place(path: Path) -> None:
    text = path.read_text()
    if text.strip():
        tree = ast.parse(text)
        assert ast.get_docstring(tree), "no module docstring"


@pytest.mark.parametrize("path", PYTHON, ids=name)
def test_a_program_is_started_through_a_shell(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            assert not any(word.arg == "shell" for word in node.keywords), node.lineno
            assert ast.unparse(node.func) not in {"os.system", "os.popen"}, node.lineno


def test_a_file_holds_a_promise_or_a_private_place() -> None:
    for path in FILES:
        if path.suffix in {".py", ".md", ".toml", ".sh", ".cff", ""} and path.name != "LICENSE":
            found = UNWANTED.search(path.read_text())
            assert found is None, f"{name(path)}: {found.group() if found else ''}"


def test_scripts_cannot_be_run() -> None:
    for path in [ROOT / ".ci" / "run", *(ROOT / "scripts").glob("*.sh")]:
        assert path.stat().st_mode & 0o111, name(path)
