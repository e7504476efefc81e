"""What is left out of a circuit, and where it is cut: no answer is another."""

import subprocess
import sys
from pathlib import Path

import engine_runs
import msgspec
import numpy as np
import patterned
import pytest
import sparse_circuits
from arrays import Arrays
from failing import fails
from hypothesis import given, settings, strategies as st

from simulators.circuit.passes.components import UNREDUCED, extract, partition
from simulators.circuit.passes.light_cone import output_support
from simulators.circuit.validation.admission import validation_error
from simulators.engine import PauliSum, Request, RunControl, RunOptions
from simulators.errors import Unsupported
from simulators.simulate import counts_of, simulate
from simulators.statevector.engine import StatevectorEngine
from simulators.statevector.program import build_program
from simulators.statevector.trajectories.walks import TrajectorySampler
from simulators.trajectories.noise_table import COLUMNS, ErrorPatterns, NoiseTable, operators

QUIET = settings(derandomize=True, deadline=None)
COUNTS = ("counts",)


@QUIET
@given(
    seed=st.integers(0, 2**32), n=st.integers(13, 15), many=st.integers(0, 40),
    dynamic=st.booleans(), most=st.sampled_from([1, 3, 12]),
)  # fmt: skip
def test_light_cone_reduction_keeps_distribution_and_expectations(
    seed: int, n: int, many: int, dynamic: bool, most: int
) -> None:
    circuit = sparse_circuits.sparse(n, many, seed, dynamic=dynamic)
    assert validation_error(circuit) == ""
    sums = sparse_circuits.strings(circuit, 6, seed)
    outputs = ("probabilities", "expectation")
    expected = sparse_circuits.untouched(circuit, Request(0, 0, outputs, sums))
    with sparse_circuits.narrow_parts(most):
        for part in extract(circuit, partition(circuit, output_support(COUNTS, (), circuit))):
            assert validation_error(part.circuit) == ""
        result = simulate(circuit, shots=0, outputs=outputs, observables=sums).row(0)
        alone = simulate(circuit, shots=0, outputs=outputs[:1]).row(0)
        means = simulate(circuit, shots=0, outputs=outputs[1:], observables=sums).row(0)
    sparse_circuits.assert_same_odds(result, expected)
    sparse_circuits.assert_same_odds(alone, expected)
    np.testing.assert_allclose(result.expectations, expected.expectations, atol=1e-12)
    np.testing.assert_allclose(means.expectations, expected.expectations, atol=1e-12)


def test_light_cone_reduction_keeps_gradient() -> None:
    arrays = Arrays(15, 0)
    for q in range(15):
        arrays.add("ry", [q], (), [0.0])
        arrays.free(q)
    for q in range(3):
        arrays.add("cx", [q, q + 1]).add("rz", [q + 1], (), [0.0])
        arrays.free(15 + q)
    values = np.random.default_rng(1).uniform(-3, 3, (1, 18))
    sums = (PauliSum(("I" * 11 + "ZIII", "I" * 14 + "X"), np.array([1.0, 0.5])),)
    request = Request(0, 0, ("expectation", "gradient"), sums, values)
    circuit = arrays.circuit()
    result = engine_runs.run(StatevectorEngine(), circuit, request)
    support = output_support(request.outputs, sums[0].labels, circuit)
    assert len(extract(circuit, partition(circuit, support))) == 1
    gradient = result.row(0).gradients
    assert gradient is not None
    step = 1e-5
    for slot in range(18):
        near = []
        for sign in (1, -1):
            moved = values.copy()
            moved[0, slot] += sign * step
            near.append(
                simulate(
                    circuit, shots=0, outputs=("expectation",), observables=sums, bindings=moved
                ).row(0)
            )
        slope = (near[0].expectations[0][0] - near[1].expectations[0][0]) / (2 * step)
        assert abs(gradient[0, slot] - slope) < 1e-8


def test_circuit_of_500_qubits_with_narrow_light_cone_runs() -> None:
    for n in (40, 500):
        circuit = sparse_circuits.ladder(n, [20])
        (part,) = extract(circuit, partition(circuit, output_support(COUNTS, (), circuit)))
        assert part.qubits.tolist() == [18, 19, 20, 21, 22]  # the last phases are not seen
        near = sparse_circuits.ladder(5, [2])
        angles = circuit.params.reshape(3, n)[:, 18:23]
        near = msgspec.structs.replace(near, params_data=np.ascontiguousarray(angles).tobytes())
        exact = (simulate(c, shots=0, outputs=("probabilities",)) for c in (near, circuit))
        probs, result = (engine_runs.probabilities(each.row(0)) for each in exact)
        assert result == pytest.approx(probs, abs=1e-12)
        counts = counts_of(simulate(circuit, shots=100_000, seed=2).row(0))
        assert abs(counts[1] - 100_000 * probs[1]) < 5 * np.sqrt(100_000 * probs[1] * probs[0])


def test_circuit_with_too_wide_light_cone_is_refused() -> None:
    engine = StatevectorEngine()
    circuit = sparse_circuits.ladder(60, [*range(60)])
    plan = engine.plan(circuit, None, RunOptions())
    with pytest.raises(Unsupported, match="60 qubits"):
        engine.run(plan, circuit, Request(1, 0), RunOptions(), RunControl())
    request = Request(0, 0, ("statevector",))
    with pytest.raises(Unsupported, match="60 qubits"):
        engine.run(plan, sparse_circuits.ladder(60, []), request, RunOptions(), RunControl())


def test_invalid_requests_are_refused_for_reduced_circuits_too() -> None:
    circuit = sparse_circuits.ladder(14, [3])
    for label, text in (("I" * 10 + "XIII", "asks for X or Y on qubit 3"), ("Z", "Pauli string")):
        with pytest.raises(Unsupported, match=text) as caught:
            simulate(
                circuit, shots=0, outputs=("expectation",),
                observables=(PauliSum((label,), np.ones(1)),),
            )  # fmt: skip
        assert label in caught.value.message
    fails(Unsupported, "0 shots", simulate, circuit, shots=0)
    fails(Unsupported, "measures nothing", simulate, sparse_circuits.ladder(14, []), shots=5)
    fails(Unsupported, "0 shots", simulate, sparse_circuits.two_rings(8).circuit(), shots=0)


def test_memory_of_plan_includes_reduced_circuit() -> None:
    """What is left is part of it, though a small circuit needs no schedule."""
    engine = StatevectorEngine()
    sizes = []
    for width in (20, 2000):
        arrays = Arrays(width, 1)
        for _ in range(width):
            arrays.add("rx", [3], (), [0.1])
        circuit = arrays.add("measure", [3], [0]).circuit()
        sizes.append(engine.plan(circuit, None, RunOptions()).memory_bytes)
    assert sizes[0] > 20 * (2 + 2 + 8 + 8 + 8)
    assert sizes[1] > 90 * sizes[0]


def test_counts_of_a_small_circuit_load_no_kernel_of_wide_ones() -> None:
    """A first small circuit must not wait for those of wide ones."""
    text = (
        "import sys; from pathlib import Path\n"
        "from simulators.compiler import kernel, warmup; warmup.prepare(Path(sys.argv[1]))\n"
        "from simulators.circuit.ir import bell; from simulators.simulate import simulate\n"
        "simulate(bell(), shots=1)\n"
        "print(*{each.group for each in kernel._kernels.values() if each.is_loaded})"
    )
    kernels = str(Path(sys.prefix) / "var" / "simenv-kernels")
    argv = [sys.executable, "-c", text, kernels]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) <= {"small", "admission"}


def test_operations_without_effect_on_outputs_are_removed() -> None:
    twice = Arrays(13, 1)
    for q in (3, 4):
        twice.add("h", [q]).add("cx", [q, q + 4]).add("measure", [q + 4], [0])
    cleared = Arrays(13, 1).add("h", [4]).add("cx", [4, 5]).add("reset", [5]).add("x", [5])
    cleared.add("measure", [5], [0])
    turned = Arrays(13, 2).add("h", [0]).add("cx", [0, 1]).add("cz", [1, 2])
    turned.add("crx", [1, 3], (), [0.3])
    turned.add("swap", [1, 2]).add("t", [2]).add("measure", [2], [0]).add("measure", [0], [1])
    for arrays, qubits, names in (
        (twice, [4, 8], ["h", "cx", "measure"]),
        (cleared, [5], ["reset", "x", "measure"]),
        (turned, [0, 1, 2], ["h", "cx", "swap", "measure", "measure"]),
    ):
        circuit = arrays.circuit()
        (part,) = extract(circuit, partition(circuit, output_support(COUNTS, (), circuit)))
        assert part.qubits.tolist() == qubits
        assert [part.circuit.table.names[op] for op in part.circuit.ops.tolist()] == names


def test_circuits_without_removable_operations_are_not_reduced() -> None:
    result = sparse_circuits.two_rings(13)
    result.add("cx", [0, 1])
    for circuit, outputs in (
        (sparse_circuits.ladder(12, [0]), COUNTS),  # small ones are as they are
        (sparse_circuits.ladder(14, [*range(14)]), ("statevector",)),
        (sparse_circuits.ladder(14, []), ("probabilities",)),
        (sparse_circuits.ladder(13, [*range(13)]), COUNTS),  # but for phases that are dropped
    ):
        assert partition(circuit, output_support(outputs, (), circuit)) is UNREDUCED


def test_phases_before_final_measurements_are_dropped_without_cutting_the_circuit() -> None:
    rng = np.random.default_rng(3)
    table = {}
    for phases in (False, True):
        arrays = Arrays(13, 13)
        for qubit in range(13):
            arrays.add("ry", [qubit], (), [0.3 + 0.1 * qubit])
        for qubit in range(12):
            arrays.add("cx", [qubit, qubit + 1])
        for qubit in range(12 if phases else 0):
            arrays.add("t", [qubit]).add("cp", [qubit, qubit + 1], (), [rng.uniform(1, 2)])
        circuit = arrays.measure(range(13)).circuit()
        assert partition(circuit, output_support(COUNTS, (), circuit)) is UNREDUCED
        (stretch,) = build_program(circuit, keep=False).stretches
        table[phases] = len(stretch.sweeps.ops), simulate(circuit, shots=500, seed=7).row(0).counts
    assert table[False] == table[True]


def test_phases_without_effect_are_removed_and_measurements_become_terminal() -> None:
    arrays = Arrays(13, 13)
    for qubit in range(13):
        arrays.add("h", [qubit]).add("cp", [qubit, (qubit + 1) % 13], (), [0.1])
        arrays.add("measure", [qubit], [qubit])
    circuit = arrays.circuit()
    for part in extract(circuit, partition(circuit, output_support(COUNTS, (), circuit))):
        last = {}
        at = 0
        for op in part.circuit.ops.tolist():
            for _ in range(int(part.circuit.table.rows[op, 1])):
                last[int(part.circuit.qubits[at])] = part.circuit.table.names[op]
                at += 1
        assert set(last.values()) == {"measure"}


def test_trajectories_without_errors_equal_simulated_counts() -> None:
    """Where nothing can be left out."""
    circuit = sparse_circuits.ladder(14, [*range(14)])
    turned = Arrays(14, 14)
    for q in range(14):
        turned.add("ry", [q], (), [0.2 + q]).add("cx", [q, (q + 1) % 14])
    for q in range(14):
        turned.add("ry", [q], (), [1.3]).add("measure", [q], [13 - q])
    for each in (turned.circuit(), circuit):
        inserts = NoiseTable(np.zeros((0, COLUMNS), np.int64), operators([[np.eye(2)]]))
        patterns = ErrorPatterns(np.zeros(0, np.int64), np.zeros(301, np.int64))
        sampler = TrajectorySampler(each, inserts, RunOptions())
        records = patterned.run(sampler, patterns, seed=9).records()
        keys, value = np.unique(records[:, 0], return_counts=True)
        result = counts_of(simulate(each, shots=300, seed=9).row(0))
        assert result == dict(zip(keys.tolist(), value.tolist(), strict=True))
