"""Modules of one thought and of two, as `scripts/unconnected_groups.py` tells them apart."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "unconnected_groups.py"
LINES = "\n".join(f"    x = {number}" for number in range(70))


def function(name: str, uses: str) -> str:
    return f"def {name}(a, b):\n{LINES}\n    return {uses}\n"


def judged(folder: Path, text: str) -> tuple[int, str]:
    path = folder / "module.py"
    path.write_text(text)
    command = [sys.executable, SCRIPT, path]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert not result.stderr
    return result.returncode, result.stdout


@pytest.mark.parametrize(
    "between",
    [
        pytest.param("import math\n" + function("second", "math.pi"), id="one import"),
        pytest.param("log = logging.getLogger()\n" + function("second", "log"), id="one logger"),
        pytest.param(function("second", "[first for first in b]"), id="a variable of that name"),
        pytest.param(function("second", "lambda first: first"), id="an argument of that name"),
        pytest.param("__all__ = ['first', 'second']\n" + function("second", "b"), id="one list"),
    ],
)
def test_two_groups_are_an_error_that_names_both(tmp_path: Path, between: str) -> None:
    code, told = judged(tmp_path, "import logging\n" + function("first", "log, math") + between)
    assert code == 1
    assert "module.py: 2 groups" in told
    assert {each.rpartition(": ")[2] for each in told.splitlines()[1:]} == {"first", "second"}


@pytest.mark.parametrize(
    "second",
    [
        pytest.param(function("second", "first(a, b)"), id="a call"),
        pytest.param("WAYS = (first,)\n" + function("second", "WAYS"), id="by a constant"),
        pytest.param(
            "def near():\n    return first\n\n\n" + function("second", "near"), id="by a third"
        ),
        pytest.param("@first\n" + function("second", "b"), id="a decorator"),
        pytest.param("def second() -> first: ...\n", id="less than a group"),
        pytest.param("@harness.benchmark(n=2)\n" + function("second", "b"), id="two benchmarks"),
    ],
)
def test_connected_definitions_are_one_group(tmp_path: Path, second: str) -> None:
    decorated = "@benchmark\n" if "benchmark" in second else ""
    assert judged(tmp_path, decorated + function("first", "a") + "\n\n" + second) == (0, "")
