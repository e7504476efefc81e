"""The cases beside this file, over real ranks."""

import functools
import importlib.util
from pathlib import Path

import pytest
from among_ranks import cases_of, outcomes
from hypothesis import Phase, given, settings
from hypothesis.strategies import SearchStrategy
from looped_circuits import looped_circuits
from random_circuits import dynamic_circuits

from simulators.circuit.ir import Circuit
from testbed.ranks import mpirun

_FILES = ("values", "errors", "executor", "noise")
CASES = [Path(__file__).with_name(f"cases_{name}.py") for name in _FILES]
ALL = tuple(cases_of(CASES))
WIDE = (  # what differs with the number of ranks most
    "case_exchange_swaps_qubit_positions",
    "case_unitary_matrices_equal_single_rank",
    "case_counts_of_each_seed_equal_single_rank",
    "case_expectation_values_equal_single_rank",
    "case_statevector_is_bit_identical_to_single_rank",
    "case_sent_bytes_equal_planned_bytes",
    "case_probabilities_equal_single_rank",
    "case_surplus_ranks_stay_unused",
)
CHOSEN = {2: WIDE, 3: WIDE[-1:] + WIDE[2:3], 4: ALL, 8: WIDE}
REST_OF_TWO = tuple(case for case in ALL if case not in WIDE)  # four ranks run them always

pytestmark = [
    pytest.mark.skipif(mpirun() is None, reason="there is no mpirun"),
    pytest.mark.skipif(importlib.util.find_spec("mpi4py") is None, reason="there is no mpi4py"),
]


@functools.cache
def over(ranks: int, cases: tuple[str, ...]) -> dict[str, str]:
    circuits = drawn(looped_circuits(), 12) + drawn(dynamic_circuits(), 12)
    return outcomes(CASES, ranks, cases, [each for each in circuits if each.clbits.size])


def drawn(circuits: SearchStrategy[Circuit], number: int) -> list[Circuit]:
    entries: list[Circuit] = []

    @settings(derandomize=True, deadline=None, max_examples=number, phases=[Phase.generate])
    @given(circuit=circuits)
    def draw(circuit: Circuit) -> None:
        entries.append(circuit)

    draw()
    return entries


@pytest.mark.parametrize(
    ("ranks", "case"), [(ranks, case) for ranks, cases in CHOSEN.items() for case in cases]
)
def test_distributed_case_passes_on_each_rank(ranks: int, case: str) -> None:
    assert over(ranks, CHOSEN[ranks])[case] == ""


@pytest.mark.slow
@pytest.mark.parametrize("case", REST_OF_TWO)
def test_distributed_case_passes_on_each_of_two_ranks(case: str) -> None:
    assert over(2, REST_OF_TWO)[case] == ""
