"""The cases of `cases_ranks.py`, over 2 and 4 real ranks with a device each that g++ compiles."""

import functools
import importlib.util
from pathlib import Path

import pytest
from among_ranks import cases_of, outcomes

from testbed.ranks import mpirun

FILES = [Path(__file__).with_name("cases_ranks.py")]

pytestmark = [
    pytest.mark.skipif(mpirun() is None, reason="there is no mpirun"),
    pytest.mark.skipif(importlib.util.find_spec("mpi4py") is None, reason="there is no mpi4py"),
]


@functools.cache
def over(ranks: int) -> dict[str, str]:
    return outcomes(FILES, ranks, tuple(cases_of(FILES)))


@pytest.mark.parametrize("case", cases_of(FILES))
@pytest.mark.parametrize("ranks", [2, 4])
def test_case_over_devices_passes_on_each_rank(ranks: int, case: str, library: Path) -> None:
    assert over(ranks)[case] == ""
