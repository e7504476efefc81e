"""What values are over ranks, and in one process: the same; see `among_ranks`."""

from typing import Any

import numpy as np
from arrays import Arrays

from simulators.circuit.ir import Circuit
from simulators.engine import EngineResult, PauliSum, Request, RunControl, RunOptions
from simulators.errors import Stopped, TruncatedState
from simulators.pauli.engine import PauliEngine


def chain(layers: int) -> Circuit:
    arrays = Arrays(70, 0)
    for _ in range(layers):
        for qubit in range(70):
            arrays.add("rx", [qubit], (), [0.7])
        for qubit in range(69):
            arrays.add("rzz", [qubit, qubit + 1], (), [0.9])
    return arrays.circuit()


def request() -> Request:
    labels = ["I" * (69 - q) + "Z" + "I" * q for q in range(0, 70, 10)]
    return Request(0, 3, ("expectation",), tuple(PauliSum((each,), np.ones(1)) for each in labels))


def run(
    comm: Any, *, layers: int = 2, stop: bool = False, **settings: float
) -> EngineResult | None:
    options = RunOptions(settings=tuple(settings.items()))
    engine, control = PauliEngine(comm), RunControl()
    if stop:
        control.stop()
    try:
        circuit = chain(layers)
        plan = engine.plan(circuit, None, options)
        return engine.run(plan, circuit, request(), options, control)
    finally:
        engine.close()


def case_values_equal_those_of_one_process(comm: Any) -> None:
    value, shared = run(None), run(comm)
    assert value is not None
    assert (shared is None) == (comm.Get_rank() > 0)
    if shared is not None:
        assert shared.expectations == value.expectations
        assert shared.remark == value.remark


def case_refusal_of_one_rank_is_that_of_all(comm: Any) -> None:
    try:
        run(comm, layers=5, tolerance=1e-6, strings=1_024)
    except TruncatedState as refused:
        assert "with 1024 strings: Z" in refused.message  # noqa: PT017  # in a rank, no pytest
    else:
        raise AssertionError


def case_stop_ends_all_ranks(comm: Any) -> None:
    try:
        run(comm, stop=not comm.Get_rank())
    except Stopped:
        return
    raise AssertionError
