"""The output `memory`: the record of each shot, in order, against the reference and the counts."""

from collections import Counter

import numpy as np
import pytest
from arrays import Arrays
from device_models import DeviceModel
from engines import Runner, threaded_width
from hypothesis import given
from random_circuits import QUIET, dynamic_circuits, random_static
from reference import Reference

from simulators.circuit.ir import Circuit, bell, feed_forward
from simulators.circuit.noise import NoiseProgram
from simulators.circuit.passes.attach_noise import attach_noise
from simulators.engine import BindingResult, Request, RunControl, RunOptions
from simulators.errors import Unsupported
from simulators.simulate import counts_of

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
    with pytest.raises(Unsupported, match=r"'memory'.*0 shots"):
        counting_run(bell(), shots=0, outputs=("memory",))


def test_engine_without_order_of_shots_refuses_memory(any_run: Runner) -> None:
    if "memory" in any_run.card.outputs:
        pytest.skip("it has memory")
    with pytest.raises(Unsupported, match=f"engine '{any_run.name}' has no output 'memory'"):
        any_run(bell(), shots=10, outputs=("memory",))
