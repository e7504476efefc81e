"""Batches, merged evolution and counts of small circuits."""

import math
import threading

import engine_runs
import msgspec
import numba
import numpy as np
import pytest
from arrays import Arrays
from failing import fails
from hypothesis import given, settings, strategies as st

from simulators.circuit.gates import ANY, GATES
from simulators.circuit.ir import Circuit
from simulators.compiler import simd
from simulators.engine import BindingResult, PauliSum, Request, RunControl
from simulators.errors import Stopped
from simulators.statevector.engine import StatevectorEngine
from simulators.statevector.small import batch
from simulators.statevector.small.gate_kernels import cosine_and_sine
from simulators.statevector.small.merged_evolution import (
    MIN_OPERATIONS,
    MIN_QUBITS,
    WIDE_OPERATIONS,
    WIDE_QUBITS,
    is_merged,
)

ENGINE, DENSE = StatevectorEngine(), StatevectorEngine(small=False)
SEED = 2**64 - 3


def run(
    circuit: Circuit, bindings: np.ndarray | None = None, outputs: tuple[str, ...] = ("counts",),
    shots: int = 300, observables: tuple[PauliSum, ...] = (), binding: int = 5,
    engine: StatevectorEngine = ENGINE, control: RunControl | None = None,
) -> list[BindingResult]:  # fmt: skip
    request = Request(shots, SEED, outputs, observables, bindings, binding)
    result = engine_runs.run(engine, circuit, request, control=control)
    return [result.row(k) for k in range(result.count)]


def unremarked(rows: list[BindingResult]) -> list[BindingResult]:
    """What is remarked is remarked of all rows of a sweep together."""
    return [msgspec.structs.replace(row, remark="") for row in rows]


@st.composite
def sweeps(draw: st.DrawFn) -> tuple[Circuit, np.ndarray]:
    """A circuit of any gates with free parameters, measured in any order, and rows for it."""
    n, clbits = draw(st.integers(1, 9)), draw(st.integers(1, 20))
    arrays = Arrays(n, clbits)
    for _ in range(draw(st.integers(1, 25))):
        gate = draw(st.sampled_from(list(GATES.values())))
        count = gate.qubits if gate.qubits != ANY else draw(st.integers(1, n))
        if count > n:
            continue
        wires = draw(st.permutations(range(n)))[:count]
        arrays.add(gate.name, wires, (), [draw(st.floats(-4, 4)) for _ in range(gate.params)])
        if gate.params and draw(st.booleans()):
            arrays.free(draw(st.integers(0, 3)))
    if draw(st.booleans()):
        arrays.add("reset", [0])
    for qubit in draw(st.permutations(range(n)))[: draw(st.integers(1, n))]:
        if qubit or "reset" not in [name for name, *_ in arrays.table]:
            arrays.add("measure", [qubit], [draw(st.integers(0, clbits - 1))])
    if not arrays.clbits:
        arrays.add("barrier", [0]).add("measure", [n - 1], [0])
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    rows = draw(st.sampled_from([1, 2, 7, 8, 9, 17]))
    return arrays.circuit(), rng.normal(size=(rows, arrays.num_slots))


@settings(derandomize=True, deadline=None)
@given(sweep=sweeps())
def test_counts_of_row_are_independent_of_other_rows(sweep: tuple[Circuit, np.ndarray]) -> None:
    circuit, bindings = sweep
    together = unremarked(run(circuit, bindings))
    for k, row in enumerate(together):
        assert unremarked(run(circuit, bindings[k : k + 1], binding=5 + k)) == [row]
    last = run(circuit, bindings[-1:], binding=4 + len(bindings), engine=DENSE)
    assert unremarked(last) == together[-1:]


@settings(derandomize=True, deadline=None, max_examples=80)
@given(sweep=sweeps(), shots=st.sampled_from([0, 1, 6, 1000]))
def test_exact_outputs_of_sweep_row_are_independent_of_other_rows(
    sweep: tuple[Circuit, np.ndarray], shots: int
) -> None:
    circuit, bindings = sweep
    n = circuit.num_qubits
    sums = (
        PauliSum(("Z" * n, "I" * n), np.array([0.5, -2.0])),
        PauliSum(("I" * (n - 1) + "Z",), np.ones(1)),
    )
    table = {"outputs": ("expectation", "probabilities"), "shots": shots, "observables": sums}
    together = unremarked(run(circuit, bindings, **table))  # type: ignore[arg-type]
    for k, row in enumerate(together):
        alone = run(circuit, bindings[k : k + 1], binding=5 + k, **table)  # type: ignore[arg-type]
        assert unremarked(alone) == [row]
    (other,) = run(circuit, bindings[:1], engine=DENSE, **table)  # type: ignore[arg-type]
    first = together[0]
    assert other.probability_outcomes == first.probability_outcomes
    np.testing.assert_allclose(
        np.frombuffer(other.probabilities), np.frombuffer(first.probabilities), atol=1e-12
    )
    np.testing.assert_allclose(other.expectations, first.expectations, atol=1e-12)


@pytest.mark.parametrize("n", range(1, 13))
def test_counts_of_uniform_distribution_equal_inverse_cdf_reference(n: int) -> None:
    """Equal odds: every edge lies on the border of a cell of the table."""
    arrays = Arrays(n, n)
    for q in range(n):
        arrays.add("h", [q]).add("measure", [q], [q])
    circuit = arrays.circuit()
    shots = 20_001
    (value,) = run(circuit, shots=shots)
    generator = np.random.Generator(np.random.Philox(key=np.array([SEED, 5], np.uint64)))
    (exact,) = run(circuit, outputs=("probabilities",), shots=0)
    edges = np.cumsum(np.frombuffer(exact.probabilities))
    draws = generator.random(shots)
    near = np.abs(draws[:, None] - edges[None, :]).min(axis=1) < 1e-14 if n < 8 else np.zeros(1)
    assert not near.any()  # otherwise the seed is a bad choice
    result = np.bincount(np.searchsorted(edges / edges[-1], draws, side="right"), minlength=1 << n)
    assert np.frombuffer(value.counts, np.uint32).tolist() == result[result > 0].tolist()


def test_rows_of_sweep_longer_than_one_kernel_call_equal_rows_alone() -> None:
    """Rows beyond the room of one call of the kernel, none with as many outcomes as the next."""
    arrays = Arrays(10, 10)
    for q in range(10):
        arrays.add("ry", [q], (), [0.0])
        arrays.free(0)
        arrays.add("measure", [q], [q])
    angles = np.linspace(0.0, 1.6, 300)[:, None]
    rows = run(arrays.circuit(), angles, shots=1024)
    sizes = [len(row.counts) // 4 for row in rows]
    assert sizes[0] == 1
    assert len(set(sizes)) > 50
    assert len(rows) > batch._ROOM // 1024
    for k in (0, 63, 64, 65, 299):
        assert run(arrays.circuit(), angles[k : k + 1], shots=1024, binding=5 + k) == [rows[k]]


def test_sweep_can_be_stopped_and_its_control_reused() -> None:
    arrays = Arrays(12, 12)
    for _ in range(60):
        for q in range(12):
            arrays.add("ry", [q], (), [0.0])
            arrays.free(q)
            arrays.add("cx", [q, (q + 1) % 12])
    arrays.measure(range(12))
    control = RunControl()
    timer = threading.Timer(0.2, control.stop)
    timer.start()
    fails(Stopped, "", run, arrays.circuit(), np.ones((4096, 12)), control=control)
    timer.join()
    control.clear()
    assert len(run(arrays.circuit(), np.ones((3, 12)), control=control)) == 3


@pytest.mark.parametrize("outputs", [("counts",), ("expectation",)])
@pytest.mark.parametrize("rows", [1, 2])
def test_run_of_very_many_shots_can_be_stopped(outputs: tuple[str, ...], rows: int) -> None:
    circuit = Arrays(1, 1).add("h", [0]).add("measure", [0], [0]).circuit()
    control = RunControl()
    timer = threading.Timer(0.1, control.stop)
    timer.start()
    sums = (PauliSum(("Z",), np.ones(1)),)
    fails(Stopped, "", run, circuit, np.empty((rows, 0)), outputs, 2**31 - 1, sums, control=control)
    timer.join()


def test_sweep_rows_of_dynamic_circuit_equal_rows_alone() -> None:
    arrays = Arrays(2, 2).add("ry", [0], (), [0.0])
    arrays.free(0)
    arrays.add("measure", [0], [0]).add("h", [0]).add("measure", [0], [1])
    angles = np.array([[0.0], [1.0], [3.0]])
    together = run(arrays.circuit(), angles)
    for k in range(3):
        (alone,) = run(arrays.circuit(), angles[k : k + 1], binding=5 + k)
        assert (alone.outcomes, alone.counts) == (together[k].outcomes, together[k].counts)
    assert together[0].remark == "1 branch, 2 branches"  # of all rows


@pytest.mark.parametrize("outputs", [("counts",), ("counts", "probabilities")])
def test_sweep_with_measurement_in_loop_gives_outcomes(outputs: tuple[str, ...]) -> None:
    arrays = Arrays(1, 1).add("ry", [0], (), [0.0])
    arrays.free(0)
    circuit = arrays.repeat(2).add("measure", [0], [0]).add("end").circuit()
    rows = run(circuit, np.array([[0.0], [np.pi]]), outputs)
    assert [row.outcomes for row in rows] == [b"\0", b"\1"]


def test_final_reset_affects_expectations_but_not_counts() -> None:
    circuit = Arrays(2, 1).add("x", [0]).add("x", [1]).add("reset", [0]).add("measure", [1], [0])
    sums = (PauliSum(("IZ",), np.ones(1)), PauliSum(("ZI",), np.ones(1)))
    entries = ("counts", "expectation")
    (result,) = run(circuit.circuit(), None, entries, 10, sums)
    assert result.outcomes == b"\1"
    assert [value for value, _ in result.expectations] == [1.0, -1.0]


MERGED, ONE_BY_ONE = StatevectorEngine(), StatevectorEngine(small=False)
SHOTS, MERGED_SEED, BINDING = 500, 11, 3
HERON, IONS = ("rz", "sx", "x", "cz"), ("r", "rz", "rzz", "rxx")
EAGLE, ANY_GATE = ("rz", "sx", "x", "ecr"), tuple(GATES)
REAL, DIAGONAL = ("ry", "h", "x", "cx", "cz"), ("rz", "cz", "cp", "rzz", "h", "t")


def circuit(
    names: tuple[str, ...], num_qubits: int, seed: int, *, free: bool = False, measured: bool = True
) -> Circuit:
    """Random gates of these names, enough to be merged; pairs are often the same or neighbours."""
    random = np.random.default_rng(seed)
    arrays = Arrays(num_qubits, num_qubits)
    while len(arrays.ops) < 2 * MIN_OPERATIONS:
        gate = GATES[names[int(random.integers(len(names)))]]
        count = gate.qubits if gate.qubits != ANY else int(random.integers(1, 5))
        first = int(random.integers(num_qubits - count + 1))
        wires = (first + random.permutation(count)).tolist()
        if random.random() < 0.3:
            wires = random.permutation(num_qubits)[:count].tolist()
        for _ in range(int(random.integers(1, 4))):
            angles = random.uniform(-3, 3, gate.params).tolist()
            arrays.add(gate.name, wires, (), angles)
            if free and gate.params and random.random() < 0.5:
                arrays.free(int(random.integers(4)))
        if random.random() < 0.02:
            arrays.add("barrier", wires)
    result = arrays.measure(range(num_qubits if measured else 0)).circuit()
    assert is_merged(num_qubits, result.ops.size)
    return result


def run_merged(engine: StatevectorEngine, given: Circuit, request: Request) -> list[BindingResult]:
    """Results of all rows, without remarks, which concern the path taken."""
    result = engine_runs.run(engine, given, request)
    return [msgspec.structs.replace(result.row(k), remark="") for k in range(result.count)]


@pytest.mark.parametrize(
    "names", [HERON, EAGLE, IONS, REAL, DIAGONAL, ANY_GATE], ids=lambda names: "-".join(names[:4])
)
@pytest.mark.parametrize("num_qubits", [MIN_QUBITS, 10, 12])
def test_counts_equal_those_of_gates_one_by_one(names: tuple[str, ...], num_qubits: int) -> None:
    for seed in range(4):
        result = circuit(names, num_qubits, seed)
        request = Request(SHOTS, MERGED_SEED + seed, binding=BINDING)
        expected = run_merged(ONE_BY_ONE, result, request)
        assert run_merged(MERGED, result, request) == expected
        fast = MERGED.fast_counts(result, SHOTS, MERGED_SEED + seed, BINDING, RunControl())
        assert fast is not None
        assert msgspec.structs.replace(fast.row(0), remark="") == expected[0]


@pytest.mark.parametrize("names", [HERON, EAGLE, IONS, ANY_GATE])
def test_exact_outputs_equal_those_of_gates_one_by_one(names: tuple[str, ...]) -> None:
    n = MIN_QUBITS
    labels = ("Z" * n, "XY" + "I" * (n - 2), "I" * (n - 1) + "Y", "ZX" * (n // 2))
    sums = (PauliSum(labels, np.array([0.5, -2.0, 1.0, 3.0])),)
    request = Request(0, MERGED_SEED, ("expectation", "probabilities"), sums)
    for seed in range(3):
        result = circuit(names, n, seed, measured=False)
        (found,), (expected,) = (run_merged(e, result, request) for e in (MERGED, ONE_BY_ONE))
        np.testing.assert_allclose(found.expectations, expected.expectations, atol=1e-12)
        assert found.probability_outcomes == expected.probability_outcomes
        np.testing.assert_allclose(
            np.frombuffer(found.probabilities), np.frombuffer(expected.probabilities), atol=1e-13
        )


@pytest.mark.parametrize("names", [HERON, IONS, ANY_GATE])
@pytest.mark.parametrize("outputs", [("counts",), ("counts", "probabilities")])
def test_row_of_sweep_equals_row_alone(names: tuple[str, ...], outputs: tuple[str, ...]) -> None:
    result = circuit(names, 9, 5, free=True)
    rows = np.random.default_rng(1).normal(size=(11, result.num_slots))
    together = run_merged(MERGED, result, Request(SHOTS, MERGED_SEED, outputs, (), rows, BINDING))
    for k in range(len(rows)):
        request = Request(SHOTS, MERGED_SEED, outputs, (), rows[k : k + 1], BINDING + k)
        assert run_merged(MERGED, result, request) == [together[k]]
        bound = run_merged(
            ONE_BY_ONE,
            result,
            Request(SHOTS, MERGED_SEED, ("counts",), (), rows[k : k + 1], BINDING + k),
        )
        assert (bound[0].outcomes, bound[0].counts) == (together[k].outcomes, together[k].counts)


def test_runs_beyond_the_table_of_costs_are_merged() -> None:
    arrays = Arrays(MIN_QUBITS, MIN_QUBITS)
    for k in range(5_000):
        arrays.add("ry", [k % MIN_QUBITS], (), [0.1 * k])
        arrays.add("cz", [k % MIN_QUBITS, (k + 1 + k % 3) % MIN_QUBITS])
    result, request = arrays.measure(range(MIN_QUBITS)).circuit(), Request(SHOTS, MERGED_SEED)
    assert run_merged(MERGED, result, request) == run_merged(ONE_BY_ONE, result, request)


def test_stopped_evolution_raises() -> None:
    result, control = circuit(HERON, MIN_QUBITS, 1), RunControl()
    control.stop()
    with pytest.raises(Stopped):
        engine_runs.run(MERGED, result, Request(SHOTS, MERGED_SEED), control=control)
    assert MERGED.fast_counts(result, SHOTS, MERGED_SEED, 0, control) is None


def test_circuit_with_mid_circuit_operations_takes_the_general_path() -> None:
    arrays = Arrays(MIN_QUBITS, MIN_QUBITS)
    for k in range(MIN_OPERATIONS):
        arrays.add("ry", [k % MIN_QUBITS], (), [0.1 * k])
    arrays.add("measure", [0], [0]).add("h", [0]).add("measure", [0], [1])
    result, request = arrays.circuit(), Request(SHOTS, MERGED_SEED)
    assert MERGED.fast_counts(result, SHOTS, MERGED_SEED, 0, RunControl()) is None
    assert run_merged(MERGED, result, request) == run_merged(ONE_BY_ONE, result, request)


EDGES = (
    *(0.0, -0.0, np.pi / 2, np.pi, -np.pi / 2, 2 * np.pi, 5e-324, 1e-9, 1e12, -1e12 * np.pi),
    *(simd.REDUCED, np.nextafter(simd.REDUCED, np.inf), -2 * simd.REDUCED, 3e5 * np.pi, 1e300),
)
ONE_ANGLE = tuple(name for name, gate in GATES.items() if gate.params == 1)


@pytest.mark.parametrize("num_qubits", [3, 5, MIN_QUBITS])
@pytest.mark.parametrize("most", [len(EDGES), 8], ids=["beyond the reduction", "within it"])
def test_rows_of_edge_angles_equal_gates_one_by_one(num_qubits: int, most: int) -> None:
    """In a vector of eight rows, one angle beyond the reduction takes all rows another way."""
    random = np.random.default_rng(num_qubits)
    arrays = Arrays(num_qubits, num_qubits)
    for _ in range(3):
        for name in random.permutation(ONE_ANGLE).tolist():
            count = GATES[name].qubits if GATES[name].qubits != ANY else 3
            arrays.add(name, random.permutation(num_qubits)[:count].tolist(), (), [0.3])
            arrays.free(int(random.integers(6)))
    given = arrays.measure(range(num_qubits)).circuit()
    rows = random.choice(EDGES[:most], (19, given.num_slots))
    outputs = ("counts", "probabilities")
    together = run_merged(MERGED, given, Request(SHOTS, 1, outputs, (), rows, BINDING))
    for k, row in enumerate(together):
        request = Request(SHOTS, 1, outputs, (), rows[k : k + 1], BINDING + k)
        assert run_merged(MERGED, given, request) == [row]
        (other,) = run_merged(ONE_BY_ONE, given, request)
        assert other.probability_outcomes == row.probability_outcomes
        np.testing.assert_allclose(
            np.frombuffer(other.probabilities), np.frombuffer(row.probabilities), atol=1e-13
        )


def test_cosines_and_sines_have_one_ulp_and_the_same_bits_in_vectors() -> None:
    random = np.random.default_rng(3)
    quarters = np.arange(-4_000, 4_000) * (np.pi / 2)
    tiny = random.uniform(-1, 1, 4_000) * 10.0 ** random.uniform(-300, 0, 4_000)
    edges = [0.0, -0.0, 5e-324, -5e-324, simd.REDUCED, -simd.REDUCED, math.pi, 0.25 * math.pi]
    usual, large = random.uniform(-7, 7, 8_000), random.uniform(-1, 1, 8_000) * simd.REDUCED
    angles = np.concatenate((usual, large, quarters, np.nextafter(quarters, 1), tiny, edges))
    numbers, vectors = np.empty((2, angles.size)), np.empty((2, angles.size))
    _fill_numbers(angles, *numbers)
    _fill_vectors(angles, *vectors)
    assert numbers.tobytes() == vectors.tobytes()
    for found, name in zip(numbers, (math.cos, math.sin), strict=True):
        exact = np.array([name(angle) for angle in angles.tolist()])  # to .55 ulp
        assert np.abs((found - exact) / np.spacing(np.abs(exact))).max() <= 1
    beyond = np.array([1e12, -1e300, 2 * simd.REDUCED])
    found = np.empty((2, 3))
    _fill_numbers(beyond, *found)
    assert found.tolist() == [[f(x) for x in beyond.tolist()] for f in (math.cos, math.sin)]


@numba.njit  # type: ignore[untyped-decorator]
def _fill_numbers(angles, cosines, sines):  # type: ignore[no-untyped-def]
    for k in range(angles.size):
        cosines[k], sines[k] = cosine_and_sine(angles[k])


@numba.njit  # type: ignore[untyped-decorator]
def _fill_vectors(angles, cosines, sines):  # type: ignore[no-untyped-def]
    for k in range(0, angles.size, simd.LANES):
        c, s = simd.cosine_sine(simd.load(angles, np.uint64(k)))
        simd.store(cosines, np.uint64(k), c)
        simd.store(sines, np.uint64(k), s)


@pytest.mark.parametrize("num_qubits", [WIDE_QUBITS - 1, WIDE_QUBITS, 12])
def test_short_circuits_of_many_qubits_are_merged(num_qubits: int) -> None:
    for seed in range(3):
        random = np.random.default_rng(seed)
        arrays = Arrays(num_qubits, num_qubits)
        while len(arrays.ops) < WIDE_OPERATIONS:
            for q in random.permutation(num_qubits).tolist():
                arrays.add("ry", [q], (), [random.uniform(-3, 3)])
                arrays.add("rz", [q], (), [random.choice(EDGES[:9])])
                arrays.add("cx", [q, (q + 1) % num_qubits])
        given = arrays.measure(range(num_qubits)).circuit()
        assert is_merged(num_qubits, given.ops.size) is (num_qubits >= WIDE_QUBITS)
        request = Request(SHOTS, MERGED_SEED + seed, binding=BINDING)
        assert run_merged(MERGED, given, request) == run_merged(ONE_BY_ONE, given, request)
