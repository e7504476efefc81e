"""The recipes for libraries of workflows run as they stand."""

import math
from pathlib import Path

import pytest

from tests.examples.test_examples import shown


@pytest.mark.parametrize(
    ("package", "name"), [("distributed", "dask_sweep.py"), ("parsl", "parsl_sweep.py")]
)
def test_results_of_tasks_pass_through_the_library(package: str, name: str, tmp_path: Path) -> None:
    pytest.importorskip(package, reason=f"{package} is not installed")
    lines = shown(f"workflows/{name}", tmp_path).splitlines()
    assert len(lines) == 16
    for line in lines:
        angle, share, _, _ = line.split()
        right = math.sin(float(angle) / 2) ** 2
        assert abs(float(share) - right) < 5 * math.sqrt(0.25 / 2000)


def test_units_of_a_pilot_share_one_environment(tmp_path: Path) -> None:
    lines = shown("workflows/pilot.py", tmp_path).splitlines()
    assert sorted(int(row.split(":")[0].removeprefix("unit-")) for row in lines) == list(range(12))
