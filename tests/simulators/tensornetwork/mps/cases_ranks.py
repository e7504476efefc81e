"""What matrix product states give over ranks, and in one process: the same; see `among_ranks`."""

import time
from typing import Any

import numpy as np
import pytest
from arrays import Arrays
from noisy import program
from noisy_runs import device_noise

from noise_models.channel import Readout
from simulators.chain import right_canonical
from simulators.circuit.ir import Circuit
from simulators.circuit.noise import NoiseProgram
from simulators.engine import EngineResult, PauliSum, Request, RunControl, RunOptions
from simulators.errors import OutOfMemory, Stopped, TooManyBranches, TruncatedState
from simulators.tensornetwork.mps import engine as mps, trajectories
from simulators.tensornetwork.mps.engine import MpsEngine

QUBITS = 14
right_canonical.LEAST_SHARED = 1e4


def brickwork(depth: int = 6, num_qubits: int = QUBITS, *, splits: bool = False) -> Circuit:
    """Random gates, a wide one and one between distant qubits; `splits`: with outcomes on the
    way."""
    random, arrays = np.random.default_rng(3), Arrays(num_qubits, num_qubits)
    for layer in range(depth):
        for qubit in range(num_qubits):
            arrays.add("u", [qubit], (), random.uniform(0, 6, 3).tolist())
        for qubit in range(layer % 2, num_qubits - 1, 2):
            arrays.add("cx", [qubit, qubit + 1])
        if layer == 2:
            arrays.add("ccx", [1, 3, 2]).add("cz", [0, num_qubits - 1])
            if splits:
                arrays.add("measure", [4], [4])
                arrays.add("reset", [4])
    return arrays.measure(range(num_qubits)).circuit()


def run(
    comm: Any, circuit: Circuit, request: Request, noise: NoiseProgram | None = None,
    control: RunControl | None = None, **options: Any,
) -> EngineResult | None:  # fmt: skip
    terms = RunOptions(**options)
    engine = MpsEngine(comm)
    try:
        plan = engine.plan(circuit, noise, terms)
        return engine.run(plan, circuit, request, terms, control or RunControl())
    finally:
        engine.close()


def both(
    comm: Any, circuit: Circuit, request: Request, noise: NoiseProgram | None = None, **given: Any
) -> tuple[EngineResult, EngineResult] | None:
    """Results of one process and of the ranks; None in ranks that have none."""
    value, shared = (run(each, circuit, request, noise, **given) for each in (None, comm))
    assert value is not None
    assert (shared is None) == (comm.Get_rank() > 0)
    return None if shared is None else (value, shared)


def sums(num_qubits: int = QUBITS) -> tuple[PauliSum, ...]:
    labels = ["I" * k + "ZXY" + "I" * (num_qubits - k - 3) for k in range(num_qubits - 2)]
    return tuple(PauliSum((label,), np.ones(1)) for label in labels)


def noisy() -> tuple[Circuit, NoiseProgram]:
    """Depolarizing and relaxation: operators are drawn."""
    circuit = brickwork(4, 6)
    return circuit, program(
        [*device_noise(circuit, 1.9, 0.1)], Readout(np.full(6, 0.02), np.full(6, 0.05))
    )


def case_counts_are_those_of_one_process(comm: Any) -> None:
    known = mps.are_alike
    for precision, alike in (("double", True), ("single", True), ("double", False)):
        mps.are_alike = known if alike else _different
        pair = both(comm, brickwork(), Request(300, 5, ("counts", "memory")), precision=precision)
        if pair is not None:
            one, many = pair
            assert (one.outcomes, one.counts) == (many.outcomes, many.counts)
            assert (one.memory, one.remark) == (many.memory, many.remark)


def _different(comm: Any) -> bool:
    """What ranks on different processors find."""
    return False


def case_counts_of_a_truncated_state_are_those_of_one_process(comm: Any) -> None:
    pair = both(comm, brickwork(12), Request(300, 5), settings=(("bond", 12),))
    if pair is not None:
        one, many = pair
        assert one.truncation > 0
        assert (one.outcomes, one.counts, one.truncation) == (
            many.outcomes, many.counts, many.truncation
        )  # fmt: skip


def case_values_are_those_of_one_process(comm: Any) -> None:
    arrays = Arrays(QUBITS, QUBITS)
    for qubit in range(QUBITS):
        arrays.add("ry", [qubit], (), [0.3 + qubit])
    for qubit in range(QUBITS - 1):
        arrays.add("cx", [qubit, qubit + 1])
    pair = both(comm, arrays.circuit(), Request(0, 1, ("expectation",), sums()))
    if pair is not None:
        one, many = (np.frombuffer(each.expectations) for each in pair)
        assert np.abs(one - many).max() < 1e-12


def case_dynamic_circuits_give_the_counts_of_one_process(comm: Any) -> None:
    for shots in (1, 301):  # fewer than ranks, too
        pair = both(comm, brickwork(splits=True), Request(shots, 5))
        if pair is not None:
            one, many = pair
            assert (one.outcomes, one.counts, one.remark) == (
                many.outcomes, many.counts, many.remark
            )  # fmt: skip
            assert abs(one.truncation - many.truncation) < 1e-12


def case_noisy_dynamic_circuits_give_the_shots_of_one_process(comm: Any) -> None:
    circuit = brickwork(4, 6, splits=True)
    noise = program(device_noise(circuit, 1.9, 0.1), Readout(np.full(6, 0.02), np.full(6, 0.05)))
    for shots in (1, 100):
        pair = both(comm, circuit, Request(shots, 5, ("counts", "memory")), noise)
        if pair is not None:
            one, many = pair
            assert (one.memory, one.outcomes, one.counts) == (
                many.memory, many.outcomes, many.counts
            )  # fmt: skip
            assert one.remark == many.remark


def case_exact_outputs_of_dynamic_circuits_are_those_of_one_process(comm: Any) -> None:
    arrays = Arrays(6, 6)
    for qubit in range(6):
        arrays.add("ry", [qubit], (), [0.4 + qubit]).add("cx", [qubit, (qubit + 1) % 6])
        arrays.add("measure", [qubit], [qubit]).add("ry", [qubit], (), [0.9])
    request = Request(0, 1, ("expectation",), sums(6))
    values = both(comm, arrays.circuit(), request)
    pair = both(comm, arrays.circuit(), Request(0, 1, ("probabilities",)))
    if pair is not None and values is not None:
        one, many = (np.frombuffer(each.expectations) for each in values)
        assert np.abs(one - many).max() < 1e-12
        assert values[0].remark == values[1].remark
        assert pair[0].probability_outcomes == pair[1].probability_outcomes
        one, many = (np.frombuffer(each.probabilities) for each in pair)
        assert np.abs(one - many).max() < 1e-12
    with pytest.raises(TooManyBranches):
        run(comm, arrays.circuit(), request, max_branches=2)
    comm.Barrier()


def case_engine_warms_up(comm: Any) -> None:
    MpsEngine(comm).warm_up()


def case_trajectories_are_those_of_one_process(comm: Any) -> None:
    circuit, noise = noisy()
    trajectories.ROWS_AT_ONCE = 64
    pair = both(comm, circuit, Request(500, 5), noise)
    if pair is not None:
        one, many = pair
        assert (one.outcomes, one.counts, one.remark) == (many.outcomes, many.counts, many.remark)
    values = both(
        comm, circuit, Request(200, 5, ("expectation",), (PauliSum(("IIIIIZ",), np.ones(1)),)),
        noise,
    )  # fmt: skip
    if values is not None:
        one, many = values
        assert one.expectations == many.expectations


def case_fewer_shots_than_ranks(comm: Any) -> None:
    pair = both(comm, brickwork(), Request(1, 5))
    if pair is not None:
        assert pair[0].outcomes == pair[1].outcomes


def case_refusals_are_raised_in_all_ranks(comm: Any) -> None:
    for given, kind in (
        ({"settings": (("bond", 4), ("tolerance", 1e-3))}, TruncatedState),
        ({"memory_bytes": 20_000}, OutOfMemory),
    ):
        with pytest.raises(kind, match="engine 'mps'"):
            run(comm, brickwork(10), Request(10, 1), **given)
    comm.Barrier()


def case_an_error_of_one_rank_is_raised_in_all(comm: Any) -> None:
    circuit, noise = noisy()
    ended = trajectories.ChainEvolution.ended

    def failing(*arguments: Any) -> Any:
        if comm.Get_rank() == comm.Get_size() - 1:
            raise MemoryError
        return ended(*arguments)

    trajectories.ChainEvolution.ended = failing  # type: ignore[method-assign]
    try:
        with pytest.raises(OutOfMemory, match="no memory"):
            run(comm, circuit, Request(500, 5), noise)
    finally:
        trajectories.ChainEvolution.ended = ended  # type: ignore[method-assign]
    comm.Barrier()


def case_a_stop_ends_all_ranks(comm: Any) -> None:
    """The first rank alone is asked to stop, in the middle; the communicator works again."""
    circuit, noise = noisy()
    control, ended = RunControl(), trajectories.ChainEvolution.ended

    def stopping(*arguments: Any) -> Any:
        if comm.Get_rank() == 0:
            control.stop()
        while True:
            arguments[0]._control.check()
            time.sleep(0.01)

    trajectories.ChainEvolution.ended = stopping  # type: ignore[method-assign]
    try:
        with pytest.raises(Stopped):
            run(comm, circuit, Request(500, 5), noise, control)
    finally:
        trajectories.ChainEvolution.ended = ended  # type: ignore[method-assign]
    control.clear()
    assert (run(comm, circuit, Request(50, 5), noise, control) is None) == (comm.Get_rank() > 0)
