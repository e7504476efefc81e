"""The threat table of the security guide names tests that continuous integration runs, and no test
holds many threats."""

import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pytest
from spread import may_have_drills

from bench.harness.benchmark import titles

ROOT = Path(__file__).parents[2]
GUIDE = ROOT / "docs" / "reference" / "security.md"
TEST = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")
# By both `make test` and `make drills`, which .ci/run calls; what takes long takes turns besides.
LEFT_OUT = "not slow and not gpu"
MAX_ROWS = 2  # that name one test
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


def collected(marks: str, files: Iterable[str]) -> set[str]:
    """Test functions of these files that pytest selects by the marks, as `FILE::FUNCTION`."""
    argv = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider"]
    argv += ["-m", marks, *sorted(files)]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return {line.partition("[")[0] for line in done.stdout.splitlines() if "::" in line}


@pytest.fixture(scope="module")
def tests_of_ci() -> set[str]:
    """Tests in the files that the table or WRONG names."""
    text = GUIDE.read_text() + " ".join(WRONG)
    files = {file for file, _ in TEST.findall(text) if (ROOT / file).is_file()}
    drills = filter(may_have_drills, files)  # `make drills` reads no other
    return collected(f"drill and {LEFT_OUT}", drills) | collected(
        f"not drill and {LEFT_OUT}", files
    )


def problem(named: str, tests_of_ci: set[str]) -> str:
    """The fault of a cell with tests: a test or benchmark that does not exist or that continuous
    integration does not run, or none named."""
    tests, benchmarks = TEST.findall(named), BENCH.findall(named)
    if not tests:
        return "no test is named"
    for path, name in tests:
        if f"{path}::{name}" not in tests_of_ci:
            return f"continuous integration runs no {path}::{name}"
    unknown = (name for name in benchmarks if name not in titles())
    return next((f"there is no benchmark {name}" for name in unknown), "")


def test_every_threat_names_tests_that_continuous_integration_runs(tests_of_ci: set[str]) -> None:
    found = rows()
    assert len(found) >= 40
    faults = {threat: problem(named, tests_of_ci) for threat, _, named in found}
    assert {threat: fault for threat, fault in faults.items() if fault} == {}
    assert len({threat for threat, _, _ in found}) == len(found)


def test_no_test_is_named_by_many_threats() -> None:
    counter = Counter(test for _, _, named in rows() for test in set(TEST.findall(named)))
    assert {test: count for test, count in counter.items() if count > MAX_ROWS} == {}


def test_marks_are_those_of_continuous_integration() -> None:
    stages = re.findall(r"^make --no-print-directory (\w+) ", (ROOT / ".ci/run").read_text(), re.M)
    assert stages == ["test", "drills"]
    script = (ROOT / "scripts" / "test.sh").read_text()
    assert f'-m "$marks and {LEFT_OUT} and not other_shard"' in script
    assert set(re.findall(r'marks="(.+)"', script)) == {"drill", "not drill"}


WRONG = {
    "simenv doctor": "no test is named",
    "`tests/simenv/test_files.py`": "no test is named",
    "`tests/no/test_such.py::test_it`": "runs no",
    "`tests/simenv/test_files.py::test_that_does_not_exist`": "runs no",
    "`tests/simenv/test_files.py::loose_umask`": "runs no",  # a fixture
    "`tests/simulators/circuit/validation/test_mutated_circuits.py"  # slow
    "::test_many_mutated_circuits_leave_memory_use_bounded`": "runs no",
    "`tests/simenv/test_files.py::test_regular_file_is_refused_as_folder`,"
    " `python -m bench run no_such_benchmark`": "no benchmark",
}


@pytest.mark.parametrize("named", WRONG)
def test_wrong_name_is_detected(named: str, tests_of_ci: set[str]) -> None:
    assert WRONG[named] in problem(named, tests_of_ci)
