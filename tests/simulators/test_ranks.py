"""The cases of each folder, over real ranks."""

import functools
import importlib.util
from pathlib import Path

import pytest
from among_ranks import cases_of, outcomes

from testbed.ranks import mpirun

RANKS = {"pauli": (2, 4), "tensornetwork/mps": (2, 3), "tensornetwork/contraction": (2, 4)}

pytestmark = [
    pytest.mark.skipif(mpirun() is None, reason="there is no mpirun"),
    pytest.mark.skipif(importlib.util.find_spec("mpi4py") is None, reason="there is no mpi4py"),
]


@functools.cache
def names(folder: str) -> tuple[str, ...]:
    return tuple(cases_of(cases(folder))) if mpirun() else ()


def cases(folder: str) -> list[Path]:
    return [Path(__file__).parent / folder / "cases_ranks.py"]


@functools.cache
def over(folder: str, ranks: int) -> dict[str, str]:
    return outcomes(cases(folder), ranks, names(folder))


@pytest.mark.parametrize(
    ("folder", "ranks", "case"),
    [(folder, n, case) for folder, some in RANKS.items() for n in some for case in names(folder)],
)
def test_case_passes_on_each_rank(folder: str, ranks: int, case: str) -> None:
    if folder == "tensornetwork/contraction":
        pytest.importorskip("cotengra")
    assert over(folder, ranks)[case] == ""
