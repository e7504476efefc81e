"""Counts, shot for shot, against the reference given the same random numbers."""

from collections import Counter
from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
from arrays import Arrays
from clifford import assert_alike
from device_models import DeviceModel
from engine_runs import probabilities
from engines import Runner, threaded_width
from failing import fails
from hypothesis import HealthCheck, assume, given, settings
from random_circuits import QUIET, dynamic_circuits, random_static
from reference import Reference

from simulators.circuit import ir
from simulators.circuit.ir import Circuit, bell, feed_forward, outcome_width
from simulators.circuit.noise import NoiseProgram
from simulators.circuit.passes.attach_noise import attach_noise
from simulators.engine import BindingResult, Request, RunControl, RunOptions
from simulators.errors import Unsupported
from simulators.execution.packing import unpack
from simulators.simulate import counts_of


@pytest.mark.parametrize(
    ("n", "clbits"), [(1, 1), (2, 5), (5, 3), (6, 6), (7, 9), (9, 64), (11, 80)]
)
def test_counts_of_static_circuits_equal_reference(drawn_run: Runner, n: int, clbits: int) -> None:
    circuit = random_static(n, 40, n, clbits)
    result = drawn_run(circuit, shots=3000, seed=2**64 - 5, binding=3)
    assert counts_of(result) == Reference(circuit, 2**64 - 5, 3, 3000).counts()
    keys = unpack(result.outcomes, result.outcome_width)
    assert keys == sorted(set(keys))
    assert result.outcome_width == outcome_width(clbits)


@QUIET
@given(circuit=dynamic_circuits())
def test_counts_of_dynamic_circuits_equal_reference(run: Runner, circuit: Circuit) -> None:
    result = run(circuit, shots=200, seed=1, binding=2)
    assert counts_of(result) == Reference(circuit, 1, 2, 200).counts()


@settings(QUIET, max_examples=50)
@given(circuit=dynamic_circuits())
def test_distribution_of_dynamic_circuit_is_reference(run: Runner, circuit: Circuit) -> None:
    odds = probabilities(run(circuit, outputs=("probabilities",)))
    assert sum(odds.values()) == pytest.approx(1.0, abs=1e-12)
    shots = 4000
    assert_alike(Reference(circuit, 3, 0, shots).counts(), odds, shots)


def test_counts_equal_reference_on_both_sides_of_small_circuit_limit(drawn_run: Runner) -> None:
    for n in (12, 13):
        circuit = random_static(n, 120, n, n)
        expected = Reference(circuit, 5, 0, 2000).counts()
        assert counts_of(drawn_run(circuit, shots=2000, seed=5)) == expected


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_counts_are_equal_for_1_2_3_threads(dense_run: Runner, threads: int) -> None:
    result = of_threads(dense_run, threads)
    alone = of_one_thread(dense_run)
    assert (result.outcomes, result.counts) == (alone.outcomes, alone.counts)


def of_threads(dense_run: Runner, threads: int) -> BindingResult:
    width = threaded_width(dense_run.name)
    return dense_run(random_static(width, 60, 1, width), shots=5000, seed=5, threads=threads)


@cache
def of_one_thread(dense_run: Runner) -> BindingResult:
    return of_threads(dense_run, 1)


def test_counts_of_fewer_shots_are_subset_of_counts_of_more(run: Runner) -> None:
    circuit = feed_forward()
    few, result = counts_of(run(circuit, shots=100)), counts_of(run(circuit, shots=1000))
    assert all(few[key] <= result[key] for key in few)


def test_each_binding_has_counts_of_its_bound_circuit(drawn_run: Runner) -> None:
    arrays = Arrays(3, 3).add("rx", [0], (), [0.0])
    arrays.free(1)
    arrays.add("ry", [1], (), [0.0])
    arrays.free(0)
    arrays.add("cu", [0, 2], (), [0.1, 0.2, 0.3, 0.4])
    arrays.free(1)
    arrays.measure(range(3))
    values = np.array([[0.3, 1.2], [2.0, -0.4], [0.0, 3.0]])
    outcome = drawn_run.all(arrays.circuit(), shots=500, bindings=values, binding=10)
    for row, result in enumerate(outcome):
        bound = Arrays(3, 3).add("rx", [0], (), [values[row, 1]])
        bound.add("ry", [1], (), [values[row, 0]])
        bound.add("cu", [0, 2], (), [0.1, 0.2, 0.3, values[row, 1]])
        assert (
            counts_of(result)
            == Reference(bound.measure(range(3)).circuit(), 7, 10 + row, 500).counts()
        )
        (again,) = drawn_run.all(arrays.circuit(), shots=500, bindings=values[row : row + 1],
                           binding=10 + row)  # fmt: skip
        assert again == result


def test_bell_outcomes_are_equally_likely(run: Runner) -> None:
    shots = 100_000
    for circuit in (bell(), feed_forward()):
        result = counts_of(run(circuit, shots=shots))
        assert set(result) == {0, 3}
        assert abs(result[0] - shots / 2) < 5 * np.sqrt(shots / 4)


def test_conditions_on_300_bit_register_are_evaluated_exactly(run: Runner) -> None:
    arrays = Arrays(2, 301, [("c", 300), ("d", 1)])
    arrays.add("x", [0]).add("measure", [0], [299]).add("measure", [0], [1])
    arrays.begin(*arrays.equals(0, 2**299 + 2)).add("x", [1]).add("end")
    arrays.begin(*arrays.equals(0, 2**299 + 3)).add("x", [1]).add("end")
    width = 300
    shift = ((ir.REGISTER, 0, width), (ir.VALUE, arrays.value(298), 64), (ir.SHIFT_RIGHT, 0, width))
    cast = ((ir.CAST, 0, 8), (ir.VALUE, arrays.value(2), 8), (ir.NOT_EQUAL, 0, 0))
    arrays.begin(*shift, *cast).add("x", [1]).add("end")
    arrays.add("measure", [1], [300])
    assert counts_of(run(arrays.circuit(), shots=9)) == {2**300 + 2**299 + 2: 9}


@pytest.mark.parametrize("rows", [1, 7, 8, 9, 4096])
def test_result_of_sweep_row_equals_result_of_row_alone(drawn_run: Runner, rows: int) -> None:
    """Rows differ in their number of outcomes; a few are run alone."""
    if rows > 9 and drawn_run.name not in ("statevector", "fault"):  # those with a batch path
        rows = 20  # they loop over the rows
    arrays = Arrays(3, 3)
    for q in range(3):
        arrays.add("ry", [q], (), [0.0])
        arrays.free(q)
        arrays.add("measure", [q], [2 - q])
    circuit = arrays.circuit()
    values = np.random.default_rng(rows).choice([0.0, 0.7, np.pi], (rows, 3))
    keywords: dict[str, object] = {"shots": 64, "seed": 2**63 + 1}
    result = drawn_run.all(circuit, bindings=values, binding=2**40, **keywords)  # type: ignore[arg-type]
    assert len(result) == rows
    for k in sorted({0, rows // 2, rows - 1}):
        alone = drawn_run(circuit, bindings=values[k : k + 1], binding=2**40 + k, **keywords)
        assert alone == result[k]
    assert all(sum(counts_of(row).values()) == 64 for row in result)


SHOTS = 1024


@settings(
    derandomize=True, deadline=None, max_examples=30,
    suppress_health_check=[
        HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.filter_too_much,
    ],
)  # fmt: skip
@given(circuit=dynamic_circuits())
def test_aer_counts_are_exact(runner_of: Callable[[str], Runner], circuit: Circuit) -> None:
    try:
        result = counts_of(runner_of("aer")(circuit, shots=SHOTS, seed=4))
    except Unsupported:  # what it refuses by name
        assume(False)
    odds = probabilities(runner_of("statevector")(circuit, outputs=("probabilities",)))
    assert_alike(result, odds, SHOTS)


BOTH = ("counts", "memory")


def records(found: BindingResult, circuit: Circuit) -> list[int]:
    """Clbit 0 in bit 0."""
    width = -(-circuit.num_clbits // 8)
    data = found.memory
    return [int.from_bytes(data[k : k + width], "little") for k in range(0, len(data), width)]


def pairs(count: int) -> Circuit:
    """Bell pairs that nothing connects: the clbits of each agree in every shot."""
    arrays = Arrays(2 * count, 2 * count, [("a", count), ("b", count)])
    for k in range(count):
        arrays.add("h", [k]).add("cx", [k, count + k])
    for k in range(count):
        arrays.add("measure", [k], [k]).add("measure", [count + k], [count + k])
    return arrays.circuit()


@pytest.mark.parametrize(
    ("n", "clbits"), [(1, 1), (2, 5), (5, 3), (6, 6), (7, 9), (9, 64), (10, 17), (11, 80)]
)
def test_memory_of_static_circuits_equals_reference(drawn_run: Runner, n: int, clbits: int) -> None:
    circuit = random_static(n, 40, n, clbits)
    result = drawn_run(circuit, shots=1003, seed=2**64 - 5, binding=3, outputs=("memory",))
    assert records(result, circuit) == Reference(circuit, 2**64 - 5, 3, 1003).memory()
    assert not result.counts


@QUIET
@given(circuit=dynamic_circuits())
def test_memory_of_dynamic_circuits_equals_reference(run: Runner, circuit: Circuit) -> None:
    result = run(circuit, shots=200, seed=1, binding=2, outputs=("memory",))
    assert records(result, circuit) == Reference(circuit, 1, 2, 200).memory()


def test_memory_beside_counts_has_the_same_shots(counting_run: Runner) -> None:
    for circuit in (bell(), *([feed_forward()] if counting_run.card.control.dynamic else [])):
        result = counting_run(circuit, shots=3000, outputs=BOTH)
        alone = counting_run(circuit, shots=3000)
        assert (result.outcomes, result.counts) == (alone.outcomes, alone.counts)
        assert Counter(records(result, circuit)) == counts_of(result)


def test_memory_of_fewer_shots_is_prefix_of_memory_of_more(counting_run: Runner) -> None:
    circuit = bell()
    few, value = (counting_run(circuit, shots=k, outputs=("memory",)).memory for k in (100, 2500))
    assert value[:100] == few


def test_independent_components_are_paired_shot_by_shot(counting_run: Runner) -> None:
    circuit = pairs(8)  # wider than the path for small circuits
    result = records(counting_run(circuit, shots=2000, outputs=BOTH), circuit)
    assert all(record & 255 == record >> 8 for record in result)
    assert len(set(result)) > 200  # of 256, if the pairs are independent


@pytest.mark.parametrize("rows", [1, 9, 20])
def test_memory_of_sweep_row_equals_memory_of_row_alone(drawn_run: Runner, rows: int) -> None:
    arrays = Arrays(3, 11).add("rx", [0], (), [0.0])
    arrays.free(0)
    arrays.add("cx", [0, 2]).add("ry", [1], (), [0.4])
    for q in range(3):
        arrays.add("measure", [q], [10 - q])
    values = np.linspace(0.0, 3.0, rows).reshape(-1, 1)
    circuit = arrays.circuit()
    outcome = drawn_run.all(circuit, shots=77, bindings=values, binding=4, outputs=BOTH)
    for row, result in enumerate(outcome):
        (alone,) = drawn_run.all(
            circuit, shots=77, bindings=values[row : row + 1], binding=4 + row, outputs=BOTH
        )
        assert (result.memory, result.counts) == (alone.memory, alone.counts)
        assert Counter(records(result, circuit)) == counts_of(result)


def test_memory_is_equal_for_1_2_3_threads(dense_run: Runner) -> None:
    width = threaded_width(dense_run.name)
    circuit = random_static(width, 60, 1, width)
    entries = [
        dense_run(circuit, shots=500, threads=threads, outputs=("memory",)).memory
        for threads in (1, 2, 3)
    ]
    assert entries[0] == entries[1] == entries[2]


def noisy(circuit: Circuit) -> NoiseProgram:
    model = DeviceModel(circuit.num_qubits, gate_error=0.05, t2_by_t1=1.2, readout=(0.02, 0.1))
    return attach_noise(circuit, model)


@pytest.mark.parametrize("circuit", [bell(), feed_forward(), pairs(3)], ids=["2", "dynamic", "6"])
def test_memory_under_noise_has_the_shots_of_counts(counting_run: Runner, circuit: Circuit) -> None:
    if counting_run.name == "statevector-dense" or not counting_run.card.noise.kinds >= {
        "kraus",
        "readout",
    }:
        pytest.skip("it has no such noise, or only in wide states")
    noise, options = noisy(circuit), RunOptions()
    try:
        plan = counting_run.engine.plan(circuit, noise, options)
        both, alone = (
            counting_run.engine.run(
                plan, circuit, Request(2000, 5, outputs), options, RunControl()
            ).row(0)
            for outputs in (BOTH, ("counts",))
        )
    except Unsupported:
        assert not (counting_run.card.control.dynamic and counting_run.card.noise.dynamic)
        return
    assert counts_of(both) == counts_of(alone)
    assert Counter(records(both, circuit)) == counts_of(both)


def test_memory_of_circuit_without_measurement_or_shots_is_refused(counting_run: Runner) -> None:
    with pytest.raises(Unsupported, match=r"'memory'.*measures nothing"):
        counting_run(Arrays(2, 2).add("h", [0]).circuit(), shots=10, outputs=("memory",))
    fails(Unsupported, r"'memory'.*0 shots", counting_run, bell(), shots=0, outputs=("memory",))


def test_engine_without_order_of_shots_refuses_memory(any_run: Runner) -> None:
    if "memory" in any_run.card.outputs:
        pytest.skip("it has memory")
    with pytest.raises(Unsupported, match=f"engine '{any_run.name}' has no output 'memory'"):
        any_run(bell(), shots=10, outputs=("memory",))
