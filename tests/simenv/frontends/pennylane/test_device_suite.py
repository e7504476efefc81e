"""PennyLane's own device suite passes, and each skip has its reason in the documentation."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("pennylane")
pytest.importorskip("pytest_mock")
pytest.importorskip("flaky")

PAGE = Path(__file__).parents[4] / "docs" / "reference" / "pennylane_suite.md"
SKIPPED = re.compile(r"^SKIPPED \[\d+\] \S+: (.*)$", re.MULTILINE)
EXPECTED = re.compile(r"^XFAIL \S+ - (?:reason:)?(.*)$", re.MULTILINE)
FAST = ("test_measurements.py", "test_wires.py", "test_tracker.py", "test_return_system.py")


def reasons() -> tuple[str, ...]:
    """The reasons for skips that the documentation gives."""
    return tuple(re.findall(r"^\| `([^`]+)` \|", PAGE.read_text(), re.MULTILINE))


def run_suite(shots: int | None, files: tuple[str, ...] = ()) -> str:
    """What the suite prints; it must not fail."""
    from pennylane.devices.tests import get_device_tests

    folder = Path(get_device_tests())
    command = [sys.executable, "-m", "pytest", *(files or (".",)), "-q", "-rsx"]
    command += ["-p", "no:cacheprovider", "-W", "ignore", "--no-flaky-report", "--skip-ops"]
    command += ["--device=simenv", f"--shots={shots}"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4_000:] + done.stderr[-2_000:]
    return done.stdout


def check(printed: str, least: int) -> None:
    """So many passed, and each skip is known."""
    assert int(re.search(r"(\d+) passed", printed)[1]) >= least
    matches = SKIPPED.findall(printed) + EXPECTED.findall(printed)
    result = reasons()
    assert [reason for reason in matches if not reason.startswith(result)] == []


@pytest.mark.timeout(900)
@pytest.mark.parametrize(("shots", "least"), [(None, 70), (20_000, 70)], ids=["exact", "shots"])
def test_measurements_wires_and_tracker_of_the_suite(shots: int | None, least: int) -> None:
    check(run_suite(shots, FAST), least)


@pytest.mark.slow
@pytest.mark.timeout(1_800)
@pytest.mark.parametrize(("shots", "least"), [(None, 380), (20_000, 365)], ids=["exact", "shots"])
def test_whole_suite(shots: int | None, least: int) -> None:
    check(run_suite(shots), least)
