"""Snippets of README.md and of the documentation's pages run as they are pasted, page by page."""

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from live import Live, environment
from snippets import NAMED, STATUS, blocks, every_block, script

from simenv.cli.app import run

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
NEEDED = {"pennylane.md": "pennylane", "qrmi.md": "qrmi"}  # packages that simenv does not bring
# qfw.md: inside a QFw; qpm.md: test_qpm_docs.py runs its blocks, each in a process of its own
ELSEWHERE = ("qfw.md", "qpm.md", "shared_environment.md")
BY_USERS = ("shared_environment.md", "identity.md")  # below, and in test_identity_guide.py
SHARED = ROOT / "docs" / "guides" / "shared_environment.md"
CLONE = "git clone URL "


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
SHELL_PAGES = [page for page in PAGES if shell_lines(page) and page.name not in BY_USERS]


@pytest.fixture(scope="module")
def up() -> Iterator[Live]:
    with environment(pools=[{"name": "main", "min": 2, "max": 2}]) as live:
        yield live


@pytest.fixture(scope="module")
def forks() -> Iterator[subprocess.Popen[str]]:
    """A process that forks for each page."""
    pipe, program = subprocess.PIPE, ROOT / "tests" / "support" / "pages.py"
    argv = [sys.executable, program, "simenv.client.client", "qiskit", "qiskit.circuit.library"]
    with subprocess.Popen(argv, stdin=pipe, stdout=pipe, text=True, cwd=ROOT) as process:
        yield process


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Go to a folder with what the lines name, and a home of its own."""
    (tmp_path / ".venv").symlink_to(sys.prefix)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.setenv("SIMENV_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_pages_have_snippets() -> None:
    assert len(PYTHON_PAGES) >= 7
    assert len(SHELL_PAGES) >= 7


@pytest.mark.parametrize("page", PYTHON_PAGES, ids=lambda page: page.name)
def test_python_snippets_of_a_page_run_in_one_process(
    page: Path, up: Live, tmp_path: Path, forks: subprocess.Popen[str]
) -> None:
    if page.name in NEEDED:
        pytest.importorskip(NEEDED[page.name])
    output, code = tmp_path / "output", "\n".join(blocks(page, "python"))
    request = [code, str(output), {"SIMENV_SERVICE": str(up.home / "connection.json")}]
    assert forks.stdin is not None
    assert forks.stdout is not None
    forks.stdin.write(json.dumps(request) + "\n")
    forks.stdin.flush()
    ended = forks.stdout.readline()
    text = output.read_text()
    assert ended == "0\n", text
    promised = re.findall(r"print\(.*\)\s+# (\{.*\})$", page.read_text(), re.MULTILINE)
    for counts in promised:
        assert counts in text


@pytest.mark.parametrize("page", SHELL_PAGES, ids=lambda page: page.name)
def test_shell_lines_of_a_page_succeed_in_their_order(
    page: Path, checkout: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for body in blocks(page, "toml"):
        if named := NAMED.match(body):
            (checkout / named[1]).write_text(body)
    try:
        for line in shell_lines(page):
            status = STATUS.search(line)
            ended = run(shlex.split(line, comments=True)[1:])
            assert ended == int(status[1] if status else 0), f"{line}\n{capfd.readouterr()}"
    finally:
        for folder in (checkout / "home").glob("*/"):
            run(["down", "--now", "--name", folder.name])
    assert not list((checkout / "home").glob("*/connection.json"))


def test_guide_of_a_shared_environment_runs_as_it_is_pasted(checkout: Path) -> None:
    """All but its clone: files, lines of bash, and Python, in the order of the page."""
    try:
        for language, body in every_block(SHARED):
            if language == "toml":
                named = NAMED.match(body)
                assert named
                (checkout / named[1]).write_text(body)
            elif CLONE not in body:
                argv = (
                    [".venv/bin/python", "-c", body] if language else ["bash", "-c", script(body)]
                )
                done = subprocess.run(argv, capture_output=True, text=True, check=False)
                assert done.returncode == 0, f"{body}\n{done.stdout}\n{done.stderr}"
    finally:
        run(["down", "--now"])


@pytest.mark.timeout(1_200)  # packages are fetched and installed, kernels compiled
def test_clone_of_the_guide_installs_and_runs_a_demonstration(tmp_path: Path) -> None:
    (first, *_) = blocks(SHARED, "")
    assert first.startswith(CLONE)
    line = first.replace("URL", shlex.quote(ROOT.as_uri()))
    done = subprocess.run(
        ["bash", "-ec", line], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "simenv" / "demo.png").exists()
    program = tmp_path / "simenv" / ".venv" / "bin" / "simenv"
    assert subprocess.run([program, "--version"], check=False).returncode == 0
