"""Counts and values over ranks, held against those of one process; see `among_ranks`."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
from both_ways import agree, run, width
from frozen_circuits import DYNAMIC, STATIC, with_parameters

from simulators.circuit.ir import Circuit
from simulators.engine import Request, RunOptions
from simulators.simulate import counts_of

_SPEC = importlib.util.spec_from_file_location("frozen", Path(__file__).with_name("test_counts.py"))
assert _SPEC is not None
assert _SPEC.loader is not None
frozen = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(frozen)


def _hold(comm: Any, table: str, circuits: dict[str, Circuit]) -> None:
    expected = frozen.stored(table)
    shared = {name: each for name, each in circuits.items() if each.num_qubits >= width(comm)}
    assert shared
    for name, circuit in shared.items():
        result = run(circuit, Request(frozen.SHOTS, frozen.SEED), RunOptions(threads=1))
        same = result is None or frozen.digest([counts_of(result.row(0))]) == expected[name]
        assert agree(comm, same), name


def case_static_circuits(comm: Any) -> None:
    _hold(comm, "static circuits, double precision", STATIC)


def case_circuits_with_branches(comm: Any) -> None:
    _hold(comm, "circuits with branches, double precision", DYNAMIC)


def case_values(comm: Any) -> None:
    expected = frozen.stored("expectation values and gradients")["15 qubits, exact, row 1"]
    circuit = with_parameters(15, 1, measured=False)
    request = Request(
        0, frozen.SEED, ("expectation",), frozen.observables(15), frozen.angles(circuit, 2)
    )
    result = run(circuit, request)
    values = [] if result is None else frozen.rounded(result.row(1).expectations)
    same = not values or np.allclose(
        values, expected["expectations"], rtol=0, atol=frozen.TOLERANCE
    )
    assert agree(comm, same)
