"""The threat table of the security guide names tests that exist."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GUIDE = ROOT / "docs" / "guides" / "security.md"
TEST = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")
BENCH = re.compile(r"`python -m bench run (\w+)`")
TOPICS = ("Neighbours on a node", "The network", "Holders of keys", "Hostile messages")


def rows() -> list[tuple[str, str, str]]:
    """Threat, prevention and tests of each row."""
    text = GUIDE.read_text()
    section = text.partition("## Threats,")[2].partition("\n## ")[0]
    assert all(f"### {topic}" in section for topic in TOPICS)
    lines = [line for line in section.splitlines() if line.startswith("| ")]
    cells = [line.strip("| ").split(" | ") for line in lines]
    assert all(len(row) == 3 for row in cells)
    return [(row[0], row[1], row[2]) for row in cells if row[0] != "threat"]


def problem(named: str) -> str:
    """The fault of a cell with tests: a test or benchmark that does not exist, or none named."""
    tests, benchmarks = TEST.findall(named), BENCH.findall(named)
    if not tests:
        return "no test is named"
    for path, name in tests:
        file = ROOT / path
        if not file.is_file():
            return f"there is no {path}"
        if name not in {
            node.name for node in ast.parse(file.read_text()).body
            if isinstance(node, ast.FunctionDef)
        }:  # fmt: skip
            return f"{path} has no {name}"
    modules = {path.stem for path in (ROOT / "bench").rglob("*.py")}
    return next((f"there is no benchmark {name}" for name in benchmarks if name not in modules), "")


def test_every_threat_names_tests_that_exist() -> None:
    found = rows()
    assert len(found) >= 40
    assert {threat: fault for threat, _, named in found if (fault := problem(named))} == {}
    assert len({threat for threat, _, _ in found}) == len(found)


@pytest.mark.parametrize(
    "named",
    [
        "simenv doctor",
        "`tests/simenv/test_files.py`",
        "`tests/no/test_such.py::test_it`",
        "`tests/simenv/test_files.py::test_that_does_not_exist`",
        "`tests/simenv/test_files.py::test_regular_file_is_refused_as_folder`,"
        " `python -m bench run no_such_benchmark`",
    ],
)
def test_missing_test_is_detected(named: str) -> None:
    assert problem(named)
