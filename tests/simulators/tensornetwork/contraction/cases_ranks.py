"""What contractions give over ranks, and in one process: the same; see `among_ranks`."""

import time
from typing import Any

import numpy as np
from arrays import Arrays

from simulators.circuit.ir import Circuit
from simulators.engine import EngineResult, PauliSum, Request, RunControl, RunOptions
from simulators.errors import OutOfMemory, Stopped, Unsupported
from simulators.tensornetwork.contraction import contractor, engine as contraction
from simulators.tensornetwork.contraction.engine import ContractionEngine


def regular(num_qubits: int, layers: int, *, measured: bool = True) -> Circuit:
    random = np.random.default_rng(5)
    arrays = Arrays(num_qubits, num_qubits)
    for qubit in range(num_qubits):
        arrays.add("h", [qubit])
    for _ in range(layers):
        for _ in range(3):
            for one, two in random.permutation(num_qubits).reshape(-1, 2).tolist():
                arrays.add("rzz", [one, two], (), [0.6])
        for qubit in range(num_qubits):
            arrays.add("rx", [qubit], (), [0.8])
    return arrays.measure(range(num_qubits if measured else 0)).circuit()


def observables(num_qubits: int) -> tuple[PauliSum, ...]:
    labels = ["Z" * k + "I" * (num_qubits - k) for k in (1, 2)]
    return tuple(PauliSum((label,), np.ones(1)) for label in labels)


def run(
    comm: Any, circuit: Circuit, request: Request, *, stop: bool = False, **settings: int
) -> EngineResult | None:
    options = RunOptions(settings=tuple(settings.items()))
    engine = ContractionEngine(comm)
    control = RunControl()
    if stop:
        control.stop()
    try:
        return engine.run(engine.plan(circuit, None, options), circuit, request, options, control)
    finally:
        engine.close()


def case_sliced_values_equal_those_of_one_process(comm: Any) -> None:
    contraction.CONE_QUBITS = 0
    contractor._SPREAD_WIDTH = 2
    circuit = regular(22, 2)
    request = Request(0, 1, ("expectation",), observables(22))
    value = run(None, circuit, request)
    shared = run(comm, circuit, request)
    assert value is not None
    assert (shared is None) == (comm.Get_rank() > 0)
    if shared is not None:
        assert "slices" in shared.remark
        one, two = (np.frombuffer(each.expectations) for each in (value, shared))
        assert np.abs(one - two).max() < 1e-10


def case_shares_over_ranks_add_up_to_the_values_of_one_process(comm: Any) -> None:
    contraction.CONE_QUBITS = 0
    contractor._SPREAD_WIDTH = 2
    circuit = regular(22, 2)
    request = Request(0, 1, ("expectation",), observables(22))
    value = run(None, circuit, request)
    shares = [run(comm, circuit, request, shares=2, share=share) for share in range(2)]
    assert value is not None
    if comm.Get_rank() == 0:
        total = sum(np.frombuffer(each.expectations) for each in shares if each is not None)
        assert np.abs(np.frombuffer(value.expectations) - total).max() < 1e-10
        assert all("partial sum" in each.remark for each in shares if each is not None)


def case_counts_equal_those_of_one_process(comm: Any) -> None:
    circuit = regular(22, 1)
    value = run(None, circuit, Request(20, 3))
    shared = run(comm, circuit, Request(20, 3))
    sliced = run(comm, circuit, Request(20, 3), width=5)
    assert value is not None
    for each in (shared, sliced):
        if each is not None:
            assert (each.outcomes, each.counts) == (value.outcomes, value.counts)


def case_narrow_circuits_run_in_all_ranks(comm: Any) -> None:
    circuit = regular(6, 1)
    value = run(None, circuit, Request(100, 3))
    shared = run(comm, circuit, Request(100, 3))
    assert value is not None
    if shared is not None:
        assert (shared.outcomes, shared.counts) == (value.outcomes, value.counts)


def case_refusals_are_raised_in_all_ranks(comm: Any) -> None:
    contraction.CONE_QUBITS = 0
    circuit = regular(22, 2)
    request = Request(0, 1, ("expectation",), observables(22))
    for settings, stop, kind in (
        ({"width": 4, "slices": 1}, False, OutOfMemory),
        ({}, comm.Get_rank() == 0, Stopped),
    ):
        try:
            run(comm, circuit, request, stop=stop, **settings)
        except kind:
            continue
        raise AssertionError(kind)
    try:
        run(comm, circuit, Request(0, 1))
    except Unsupported:
        return
    raise AssertionError("counts of no shots")


def case_amplitudes_equal_those_of_one_process(comm: Any) -> None:
    contractor._SPREAD_WIDTH = 2
    circuit = regular(22, 2, measured=False)
    random = np.random.default_rng(8)
    far = random.integers(0, 2, (40, 22)).astype(np.uint8)
    near = np.tile(far[0], (8, 1))
    near[:, [3, 9, 20]] = [[k >> 2, k >> 1 & 1, k & 1] for k in range(8)]
    for bits, settings in ((far[:9], {}), (far[:2], {"width": 8}), (near, {"width": 8})):
        request = Request(0, 1, ("amplitudes",), amplitudes=bits)
        value = run(None, circuit, request)
        shared = run(comm, circuit, request, **settings)
        shares = [run(comm, circuit, request, shares=2, share=k, **settings) for k in range(2)]
        assert value is not None
        if shared is None:
            continue
        assert ("slices" in shared.remark) == bool(settings)
        total = sum(each.amplitudes for each in shares if each is not None)
        for result in (shared.amplitudes, total):
            assert np.abs(result - value.amplitudes).max() < 1e-12


def case_a_stop_in_the_middle_of_slices_stops_all_ranks(comm: Any) -> None:
    """The first rank alone is asked to stop, in its first slice; the others leave theirs too, and
    the communicator works again."""
    contraction.CONE_QUBITS = 0
    contractor._SPREAD_WIDTH = 2
    circuit, control = regular(22, 2), RunControl()
    contracted, steps = contractor._slice, []

    def stopping(*arguments: Any) -> Any:
        steps.append(1)
        if comm.Get_rank() == 0:
            control.stop()
        else:
            time.sleep(0.05)
        return contracted(*arguments)

    engine = ContractionEngine(comm)
    request, options = (
        Request(0, 1, ("expectation",), observables(22)),
        RunOptions(settings=(("width", 6),)),
    )
    contractor._slice = stopping
    try:
        engine.run(engine.plan(circuit, None, options), circuit, request, options, control)
    except Stopped:
        pass
    else:
        raise AssertionError("not stopped")
    finally:
        contractor._slice = contracted
    assert len(steps) <= 3, steps
    control.clear()
    shared = engine.run(engine.plan(circuit, None, options), circuit, request, options, control)
    engine.close()
    value = run(None, circuit, request)
    assert value is not None
    if shared is not None:
        one, two = (np.frombuffer(each.expectations) for each in (value, shared))
        assert np.abs(one - two).max() < 1e-10
