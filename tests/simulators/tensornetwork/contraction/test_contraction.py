"""Tensor network contraction: values of light cones, samples, slices, refusals."""

import functools
import operator

import engine_runs
import numpy as np
import pytest
from arrays import Arrays
from clifford import assert_alike
from failing import fails

from simulators import registry
from simulators.circuit.analysis.profiler import contraction_size
from simulators.circuit.ir import Circuit
from simulators.engine import BindingResult, PauliSum, Request, RunControl
from simulators.errors import OutOfMemory, Stopped, Unsupported
from simulators.simulate import counts_of, simulate

pytest.importorskip("cotengra")

from simulators.tensornetwork.contraction import contractor, engine as contraction, samples
from simulators.tensornetwork.contraction.contractor import path_sets, sliced_indices
from simulators.tensornetwork.contraction.network import fused, gate_factors, permutation


@pytest.fixture
def contracted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Narrow circuits and cones go through networks, too."""
    monkeypatch.setattr(contraction, "DENSE_QUBITS", 0)
    monkeypatch.setattr(contraction, "CONE_QUBITS", 0)


def edges(random: np.random.Generator, num_qubits: int, degree: int) -> list[list[int]]:
    """Of a random graph, some of them more than once."""
    even = num_qubits // 2 * 2
    orders = [random.permutation(num_qubits)[:even].reshape(-1, 2) for _ in range(degree)]
    return np.concatenate(orders).tolist()


def regular(num_qubits: int, degree: int, *, layers: int = 1, seed: int = 3) -> Circuit:
    """QAOA-like layers on a random graph; with some gates that permute basis states."""
    random = np.random.default_rng(seed)
    arrays = Arrays(num_qubits, num_qubits)
    for qubit in range(num_qubits):
        arrays.add("h", [qubit])
    for _ in range(layers):
        for one, two in edges(random, num_qubits, degree):
            arrays.add("rzz", [one, two], (), [0.6])
        for qubit in range(num_qubits):
            arrays.add("rx", [qubit], (), [0.3 + 0.01 * qubit])
    return arrays.circuit()


def mixed(num_qubits: int, seed: int) -> Circuit:
    """Gates of every kind: diagonal ones, permutations, controls, gates on three qubits."""
    random = np.random.default_rng(seed)
    arrays = Arrays(num_qubits, num_qubits)
    for _ in range(3):
        for qubit in range(num_qubits):
            name = random.choice(["h", "t", "sx", "x", "y"])
            arrays.add(str(name), [qubit])
        for name in ("cx", "cz", "crx", "swap", "rxx", "cp"):
            wires = random.permutation(num_qubits)[:2].tolist()
            angles = [0.7] if name in ("crx", "rxx", "cp") else []
            arrays.add(name, wires, (), angles)
        arrays.add("ccx", random.permutation(num_qubits)[:3].tolist())
        arrays.add("global_phase", (), (), [0.4])
    return arrays.circuit()


def measured(circuit: Circuit) -> Circuit:
    arrays = Arrays(circuit.num_qubits, circuit.num_qubits)
    return _with_measurements(arrays, circuit)


def _with_measurements(arrays: Arrays, circuit: Circuit) -> Circuit:
    rows, names = circuit.table.rows.tolist(), circuit.table.names
    q = p = 0
    for row in circuit.ops.tolist():
        _, count, _, params = rows[row]
        wires = circuit.qubits[q : q + count].tolist()
        arrays.add(names[row], wires, (), circuit.params[p : p + params].tolist())
        q, p = q + count, p + params
    return arrays.measure(range(circuit.num_qubits)).circuit()


def sums(num_qubits: int, count: int) -> tuple[PauliSum, ...]:
    random = np.random.default_rng(5)
    letters = random.choice(list("IXYZ"), (count, num_qubits))
    letters[random.random((count, num_qubits)) < 0.5] = "I"
    return tuple(PauliSum(("".join(each),), np.ones(1)) for each in letters)


def run(
    circuit: Circuit, request: Request, control: RunControl | None = None, **options: object
) -> BindingResult:
    engine = registry.create("contraction")
    return engine_runs.run(engine, circuit, request, control=control, **options).row(0)


def values(found: BindingResult) -> np.ndarray:
    return np.array(found.expectations)[:, 0]


@pytest.mark.usefixtures("contracted")
@pytest.mark.parametrize("seed", range(4))
def test_contracted_values_are_those_of_the_statevector(seed: int) -> None:
    circuit, observables = mixed(7, seed), sums(7, 25)
    request = Request(0, 1, ("expectation",), observables)
    exact = simulate(circuit, shots=0, outputs=("expectation",), observables=observables)
    assert np.abs(values(run(circuit, request)) - values(exact.row(0))).max() < 1e-10
    single = values(run(circuit, request, precision="single"))
    assert np.abs(single - values(exact.row(0))).max() < 1e-4


@pytest.mark.usefixtures("contracted")
@pytest.mark.parametrize("seed", range(4))
def test_samples_follow_the_distribution(seed: int) -> None:
    circuit, shots = measured(mixed(5, seed)), 20_000
    exact = simulate(circuit, shots=0, outputs=("probabilities",)).row(0)
    counts = counts_of(run(circuit, Request(shots, 7 + seed)))
    assert_alike(counts, engine_runs.probabilities(exact), shots)


def test_light_cones_of_a_wide_circuit_have_its_values(monkeypatch: pytest.MonkeyPatch) -> None:
    circuit = regular(40, 3)
    labels = ["".join("Z" if 39 - k in (a, a + 1) else "I" for k in range(40)) for a in range(38)]
    labels += ["X" + "I" * 39, "I" * 20 + "XY" + "I" * 18, "I" * 40]
    observables = tuple(PauliSum((label,), np.ones(1)) for label in labels)
    request = Request(0, 1, ("expectation",), observables)
    dense = run(circuit, request)
    monkeypatch.setattr(contraction, "CONE_QUBITS", 2)
    assert np.abs(values(dense) - values(run(circuit, request))).max() < 1e-10


def test_samples_of_a_wide_circuit_have_its_expectation_values() -> None:
    circuit, shots = regular(40, 3), 200
    pairs = edges(np.random.default_rng(3), 40, 3)  # the values of others are near 0
    labels = ("".join("Z" if 39 - k in pair else "I" for k in range(40)) for pair in pairs)
    observables = tuple(PauliSum((label,), np.ones(1)) for label in labels)
    exact = values(run(circuit, Request(0, 1, ("expectation",), observables)))
    result = run(measured(circuit), Request(shots, 3))
    assert int(result.remark.split()[1]) <= 8  # that of one trial is wider: 20 times the work
    counts = counts_of(result)
    for (a, b), mean in zip(pairs, exact.tolist(), strict=True):
        parity = sum((1 - 2 * ((k >> a ^ k >> b) & 1)) * value for k, value in counts.items())
        assert abs(parity / shots - mean) < 5 * np.sqrt((1 - mean * mean) / shots) + 1e-9


def test_shots_are_a_function_of_seed_binding_and_number() -> None:
    circuit = measured(regular(24, 3))
    few, value = (run(circuit, Request(shots, 5, ("memory",))).memory for shots in (100, 300))
    assert value[: len(few)] == few
    assert run(circuit, Request(100, 5, ("memory",))).memory == few
    assert run(circuit, Request(100, 6, ("memory",))).memory != few
    assert run(circuit, Request(100, 5, ("memory",), binding=1)).memory != few


@pytest.mark.usefixtures("contracted")
def test_sliced_contraction_equals_the_whole_one() -> None:
    circuit = regular(16, 3, layers=2)
    request = Request(0, 1, ("expectation",), sums(16, 3))
    result = run(circuit, request)
    width = int(result.remark.split()[1])
    sliced = run(circuit, request, settings=(("width", width - 3),))
    assert "slices" in sliced.remark
    assert int(sliced.remark.split()[1].rstrip(",")) <= width - 3
    assert np.abs(values(result) - values(sliced)).max() < 1e-10


@pytest.mark.parametrize("cone_qubits", [0, 14])
@pytest.mark.parametrize("shares", [2, 3, 8])
def test_sum_of_shares_is_the_whole_value(
    shares: int, cone_qubits: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contraction, "CONE_QUBITS", cone_qubits)
    monkeypatch.setattr(contractor, "_SPREAD_WIDTH", 6)
    circuit = regular(16, 3, layers=2)
    labels = ("ZZ" + "I" * 14, "I" * 16, "X" + "I" * 15, "Y" * 16, "I" * 15 + "Z")
    observables = (*(PauliSum((label,), np.ones(1)) for label in labels), *sums(16, 3))
    request = Request(0, 1, ("expectation",), observables)
    exact = values(run(circuit, request))
    parts = [
        run(circuit, request, settings=(("shares", shares), ("share", share)))
        for share in range(shares)
    ]
    assert np.abs(sum(values(part) for part in parts) - exact).max() < 1e-10
    assert all(np.abs(values(part) - exact).max() > 1e-3 for part in parts)
    assert len({part.remark.partition("; ")[2] for part in parts}) == 1


def test_shares_are_of_exact_values_alone() -> None:
    circuit, shared = measured(regular(22, 1)), (("shares", 2), ("share", 1))
    with pytest.raises(Unsupported, match="output 'counts' with shares=2"):
        run(circuit, Request(10, 1), settings=shared)
    with pytest.raises(Unsupported, match="values of 10 shots"):
        run(circuit, Request(10, 1, ("expectation",), sums(22, 1)), settings=shared)
    fails(Unsupported, "share 1 of 1", run, circuit, Request(10, 1), settings=(("share", 1),))


@pytest.mark.usefixtures("contracted")
def test_samples_from_slices_are_those_of_whole_contractions() -> None:
    circuit = measured(regular(12, 5))
    result = run(circuit, Request(20, 5))
    sliced = run(circuit, Request(20, 5), settings=(("width", 4),))
    assert counts_of(result) == counts_of(sliced)
    assert "slices" in sliced.remark


@pytest.mark.usefixtures("contracted")
def test_contraction_beyond_its_limits_is_refused_with_its_bytes() -> None:
    circuit = regular(16, 4, layers=3)
    request = Request(0, 1, ("expectation",), sums(16, 3))
    with pytest.raises(OutOfMemory, match=r"2\^\d+ values, \d+ [KMG]iB: cut to 2\^4") as caught:
        run(circuit, request, settings=(("width", 4), ("slices", 8)))
    assert "width or slices" in caught.value.hint


def test_samples_beyond_limits_are_refused_uncontracted(monkeypatch: pytest.MonkeyPatch) -> None:
    def contracted(*_: object) -> None:
        raise AssertionError("a tensor was contracted")

    monkeypatch.setattr(samples.Samples, "sample", contracted)
    with pytest.raises(OutOfMemory, match=r"cut to 2\^4 it takes at least 2\^\d+ slices"):
        run(measured(regular(40, 3, layers=2)), Request(10, 1), settings=(("width", 4),))
    with pytest.raises(OutOfMemory, match=r"more than 2\^30 values in all orders"):
        run(measured(regular(60, 4, layers=6)), Request(10, 1))
    monkeypatch.setattr(samples, "SAMPLE_BYTES", 2**16)
    with pytest.raises(OutOfMemory, match=r"in 4 slices, of 4 that are allowed"):
        run(measured(regular(40, 3, layers=2)), Request(10, 1), settings=(("slices", 4),))


def test_paths_are_found_once_for_a_structure(monkeypatch: pytest.MonkeyPatch) -> None:
    searched: list[object] = []
    search = contractor.search

    def counted(
        structure: contractor.Structure, trials: int, width: int, check: contractor.Check
    ) -> contractor.ContractionPath:
        searched.append(structure)
        return search(structure, trials, width, check)

    monkeypatch.setattr(contractor, "search", counted)
    engine, circuit = registry.create("contraction"), regular(24, 3)
    monkeypatch.setattr(contraction, "CONE_QUBITS", 0)
    for seed in (1, 2):
        engine_runs.run(engine, circuit, Request(0, seed, ("expectation",), sums(24, 2)))
        if seed == 1:
            first = len(searched)
    assert first > 0
    assert len(searched) == first


def test_stop_is_honoured_in_the_search_for_a_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """The trials are done in batches; a stop in the fourth one ends the search before the fifth."""
    control, checks = RunControl(), []
    search = contractor.search

    def stopped_search(
        structure: contractor.Structure, _: int, width: int, check: contractor.Check
    ) -> contractor.ContractionPath:
        def stopping() -> None:
            checks.append(1)
            check()
            if len(checks) == 4:
                control.stop()

        batch = contractor._BATCH_TENSORS // len(structure[0])
        search(structure, 8 * batch, width, stopping)
        pytest.fail("the search was not stopped")

    monkeypatch.setattr(contractor, "search", stopped_search)
    request = Request(0, 1, ("expectation",), (PauliSum(("Z" + "I" * 59,), np.ones(1)),))
    fails(Stopped, "", run, regular(60, 4, layers=3), request, control)
    assert len(checks) == 5


@pytest.mark.usefixtures("contracted")
def test_stop_is_honoured_between_steps_of_a_contraction(monkeypatch: pytest.MonkeyPatch) -> None:
    control, steps = RunControl(), []
    einsum = contractor._LIBRARY.einsum

    def stopping(*operands: object) -> object:
        steps.append(1)
        control.stop()
        return einsum(*operands)

    monkeypatch.setattr(contractor, "_SMALL_VALUES", 0)
    monkeypatch.setattr(contractor._LIBRARY, "einsum", stopping)
    fails(Stopped, "", run, regular(24, 3), Request(0, 1, ("expectation",), sums(24, 1)), control)
    assert len(steps) == 1


def test_gates_on_one_qubit_are_multiplied_and_permutations_found() -> None:
    arrays = Arrays(2, 0).add("h", [0]).add("h", [0]).add("t", [1]).add("cx", [0, 1]).add("y", [1])
    circuit = arrays.circuit()
    factors, _ = gate_factors(circuit, circuit.params, "complex128")
    result = fused(factors)
    assert [each.qubits for each in result] == [(0,), (1,), (0, 1), (1,)]
    assert [each.moved for each in result] == [(True,), (False,), (False, True), (True,)]
    assert np.allclose(result[0].matrix, np.eye(2))
    moved = permutation(result[2])
    assert moved is not None
    assert moved.tolist() == [0, 3, 2, 1]


def test_width_bound_is_that_of_the_graph() -> None:
    assert contraction_size(regular(30, 1)).widest <= 3
    chain = Arrays(40, 0)
    for q in range(40):
        chain.add("h", [q])
    for q in range(39):
        chain.add("rzz", [q, q + 1], (), [0.3])
    for q in range(40):
        chain.add("rx", [q], (), [0.3])
    assert contraction_size(chain.circuit()).widest == 3  # with the index that is drawn
    assert 5 <= contraction_size(regular(40, 3)).widest <= 14
    assert contraction_size(regular(60, 4, layers=6)).widest == -1


def test_slices_are_chosen_by_their_operations() -> None:
    """A ring of four tensors; slices of any index of the largest one cost twice at most."""
    inputs = [(0, 1), (1, 2), (2, 3), (3, 0)]
    sets = path_sets(inputs, (), [(0, 1), (0, 1), (0, 1)])
    assert sets.width() == 2
    assert sets.operations() == 2**3 + 2**3 + 2**2
    cut = sum(sliced_indices(sets, 0, 1, 1))
    assert cut.bit_count() >= 1
    assert sets.width(cut) <= 1
    assert len(list(sliced_indices(sets, 0, 2, 4))) == 2
    assert not list(sliced_indices(sets, 0b1111, 1, 1))  # indices of the output are no slices


@pytest.mark.parametrize("seed", range(5))
def test_each_sliced_index_leaves_the_fewest_operations(seed: int) -> None:
    random = np.random.default_rng(seed)
    inputs = [tuple(random.permutation(12)[:4].tolist()) for _ in range(10)]
    path = [(0, int(random.integers(1, 10 - k))) for k in range(9)]
    sets, sliced = path_sets(inputs, (0,), path), 0
    for bit in sliced_indices(sets, 1, 2, 1):
        widest = [one for one in sets.largest if (one & ~sliced).bit_count() == sets.width(sliced)]
        large = functools.reduce(operator.or_, widest) & ~sliced & ~1
        others = [1 << k for k in range(12) if large >> k & 1]
        assert bit == min(others, key=lambda other: (sets.operations(sliced | other), other))
        sliced |= bit
    assert sets.width(sliced) <= 2 or not large & ~sliced


def test_deep_networks_are_contracted() -> None:
    """A chain of 400 qubits: thousands of tensors, each contracted after the one before."""
    arrays = Arrays(400, 400)
    for qubit in range(400):
        arrays.add("h", [qubit])
    for _ in range(2):
        for qubit in range(399):
            arrays.add("rzz", [qubit, qubit + 1], (), [0.6])
        for qubit in range(400):
            arrays.add("rx", [qubit], (), [0.4])
    circuit = arrays.circuit()
    labels = ("Z" * 400, "Z" + "I" * 398 + "Z")
    observables = tuple(PauliSum((label,), np.ones(1)) for label in labels)
    request = Request(0, 1, ("expectation",), observables)
    result = values(run(circuit, request))
    chain = simulate(
        circuit, shots=0, engine="mps", outputs=("expectation",), observables=observables
    )
    assert np.abs(result - values(chain.row(0))).max() < 1e-9
    sliced = values(run(circuit, request, settings=(("width", 5),)))
    assert np.abs(result - sliced).max() < 1e-9


def test_kept_paths_are_bounded_by_their_tensors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contractor, "PATH_TENSORS", 12)
    paths = contractor.PathCache()
    for length in range(2, 8):
        inputs = tuple((k, k + 1) for k in range(1, length + 1))
        paths.path((inputs, (1, length + 1)), 1, 30, lambda: None)
        assert sum(len(structure[0]) for structure, *_ in paths._paths) <= 12
    assert len(paths._paths) == 1
