"""The README's first example prints what it says, and its commands are commands."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import typer.main

from simenv.cli.app import application

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def test_the_first_example_prints_something_else() -> None:
    found = re.search(r"```python\n(.*?)```", README, re.DOTALL)
    assert found is not None
    program = found.group(1)
    promised = re.findall(r"print\(.*\)\s+# (\{.*\})", program)
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env=os.environ,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == promised


def test_a_command_in_the_readme_does_not_exist() -> None:
    named = set(re.findall(r"simenv ([a-z]+)\b", "\n".join(commands())))
    assert named
    assert named <= set(typer.main.get_command(application()).commands)


def commands() -> list[str]:
    """Code spans and shell lines that call the command line."""
    spans = re.findall(r"`(simenv [^`]*)`", README)
    lines = re.findall(r"^\.venv/bin/(simenv .*)$", README, re.MULTILINE)
    return spans + lines


def test_a_link_leads_nowhere() -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / target).exists(), target


def test_files_that_the_commands_write_are_ignored_by_git() -> None:
    words = [command.split() for command in commands()]
    options = ("--out", "--bundle", "--save")
    written = [
        after
        for line in words
        for before, after in itertools.pairwise(line)
        if before in options and "FILE" not in after
    ]
    assert {"ana.simenv", "t-1.zip", "large.h5"} <= set(written)
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("not a checkout, or no git")
    command = ["git", "check-ignore", "--no-index", *written]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert set(done.stdout.split()) == set(written)
