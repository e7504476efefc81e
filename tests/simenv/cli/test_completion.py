"""Shell completion, short help and `python -m simenv`, typed in a process of their own."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

import simenv


def typed(*words: str, **environment: str) -> str:
    """What `python -m simenv` prints for a command line."""
    done = subprocess.run(
        [sys.executable, "-m", "simenv", *words],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_package_runs_as_a_module() -> None:
    assert typed("--version").strip() == simenv.__version__


@pytest.mark.parametrize("line", [(), ("submit",), ("keys", "add")])
def test_short_help_option_equals_long_one(line: tuple[str, ...]) -> None:
    assert typed(*line, "-h") == typed(*line, "--help")


@pytest.mark.parametrize(
    ("line", "word"), [("simenv sub", "submit"), ("simenv submit --sh", "--shots")]
)
def test_bash_completes_commands_and_options(line: str, word: str) -> None:
    index = str(len(line.split()) - 1)
    result = typed(_SIMENV_COMPLETE="complete_bash", COMP_WORDS=line, COMP_CWORD=index)
    assert result.split() == [word]


def test_the_completion_script_can_be_shown() -> None:
    assert "complete_bash" in typed("--show-completion", "bash")
