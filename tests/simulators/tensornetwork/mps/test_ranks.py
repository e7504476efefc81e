"""The cases beside this file, over real ranks."""

import functools
import importlib.util
from pathlib import Path

import pytest
from among_ranks import cases_of, outcomes

from testbed.ranks import mpirun

CASES = [Path(__file__).with_name("cases_ranks.py")]

pytestmark = [
    pytest.mark.skipif(mpirun() is None, reason="there is no mpirun"),
    pytest.mark.skipif(importlib.util.find_spec("mpi4py") is None, reason="there is no mpi4py"),
]


@functools.cache
def over(ranks: int) -> dict[str, str]:
    return outcomes(CASES, ranks, tuple(cases_of(CASES)))


@pytest.mark.parametrize("case", tuple(cases_of(CASES)) if mpirun() else ())
@pytest.mark.parametrize("ranks", [2, 3])
def test_matrix_product_state_over_ranks(ranks: int, case: str) -> None:
    assert over(ranks)[case] == ""
