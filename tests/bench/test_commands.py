"""The command `python -m bench`."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from bench import __main__ as command
from bench.harness.report import GOALS

ROOT = Path(__file__).parents[2]
WITHOUT_GOALS = {"tiles", "trajectories"}


def test_list_names_every_benchmark_without_importing_it() -> None:
    argv = [sys.executable, "-X", "importtime", "-m", "bench", "list"]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=True)
    names = [line.split()[0] for line in done.stdout.splitlines()]
    assert names == sorted(command._files())
    assert "bench.service" not in done.stderr


def test_every_benchmark_has_options_a_run_function_and_goals() -> None:
    goals = tomllib.loads(GOALS.read_text())
    for name, path in command._files().items():
        tree = ast.parse(path.read_text())
        assigned = {
            ast.unparse(node.targets[0]) for node in tree.body if isinstance(node, ast.Assign)
        }
        functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
        assert "OPTIONS" in assigned, name
        assert "run" in functions, name
        assert (name in goals) != (name in WITHOUT_GOALS), name


def test_options_of_one_benchmark_are_refused_for_several() -> None:
    with pytest.raises(SystemExit, match="--rounds 1, need a single NAME"):
        command.main(["run", "small", "wide", "--rounds", "1"])


def test_unknown_benchmark_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command.main(["run", "nothing"])
    assert "invalid choice: 'nothing'" in capsys.readouterr().err
