"""Engine `dmt`: exact where nothing is cut off, within its stated error elsewhere, and refusals."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
from arrays import Arrays
from engine_runs import run
from noisy import Exact, after_gates, p_value, program
from reference import Operation
from swept import counts_of

from noise_models.channel import Channel, Readout, depolarizing, relaxation
from simulators.circuit import ir
from simulators.circuit.ir import Circuit
from simulators.circuit.noise import NoiseProgram
from simulators.densitymatrix.dmt.engine import DmtEngine
from simulators.engine import BindingResult, ErrorEstimate, PauliSum, Request
from simulators.errors import OutOfMemory, TooManyBranches, TruncatedState, Unsupported
from simulators.pauli.engine import PauliEngine
from simulators.statevector.engine import StatevectorEngine
from simulators.tensornetwork.sweep.engine import SweepEngine

Edges = list[tuple[int, int]]
LINE: Edges = list(pairwise(range(6)))
TREE: Edges = [(0, 1), (1, 2), (1, 3), (3, 4), (3, 5), (0, 6)]
SHUFFLED: Edges = [(3, 0), (0, 5), (5, 1), (1, 4), (4, 2)]  # a line in another order
SHOTS = 20_000
PAULIS = ("II", "XX", "YY", "ZZ")


def matchings(edges: Edges) -> list[Edges]:
    """Pairs that act together."""
    layers: list[Edges] = []
    for edge in edges:
        for layer in layers:
            if all(set(edge).isdisjoint(other) for other in layer):
                layer.append(edge)
                break
        else:
            layers.append([edge])
    return layers


def random_circuit(edges: Edges, layers: int, seed: int, *, measure: bool) -> Circuit:
    random = np.random.default_rng(seed)
    width = 1 + max(map(max, edges))
    arrays = Arrays(width, width if measure else 0)
    groups = matchings(edges)
    for k in range(layers):
        for qubit in range(width):
            arrays.add("u", [qubit], (), random.uniform(0, 6, 3).tolist())
        for pair in groups[k % len(groups)]:
            name = ("cz", "rzz", "ecr", "swap", "cp")[int(random.integers(5))]
            arrays.add(name, list(pair), (), [0.7] if name in ("rzz", "cp") else [])
    for qubit in range(width):
        arrays.add("u", [qubit], (), random.uniform(0, 6, 3).tolist())
    return (arrays.measure(range(width)) if measure else arrays).circuit()


def kicked_ising(edges: Edges, layers: int, *, measure: bool = False) -> Circuit:
    width = 1 + max(map(max, edges))
    arrays, groups = Arrays(width, width if measure else 0), matchings(edges)
    for k in range(layers):
        for qubit in range(width) if k % len(groups) == 0 else ():
            arrays.add("rx", [qubit], (), [0.6])
        for pair in groups[k % len(groups)]:
            arrays.add("rzz", list(pair), (), [-np.pi / 2])
    return (arrays.measure(range(width)) if measure else arrays).circuit()


def noise_of(circuit: Circuit, factor: float = 1.0, *, readout: bool = False) -> NoiseProgram:
    """Depolarizing pairs, relaxation of each qubit of its own, maybe readout errors."""
    two = depolarizing(0.003 * factor, 2)
    idle = [
        relaxation(100.0 * factor, 60.0 + 10.0 * qubit, 50.0 + 9.0 * qubit)
        for qubit in range(circuit.num_qubits)
    ]

    def rule(row: Operation) -> Sequence[tuple[tuple[int, ...], Channel]]:
        if row.name == "measure" or not row.qubits:
            return []
        after = [((qubit,), idle[qubit]) for qubit in row.qubits]
        return [(row.qubits, two), *after] if len(row.qubits) == 2 else after

    flips = np.linspace(0.01, 0.05, circuit.num_qubits)
    return program(after_gates(circuit, rule), Readout(flips, 2 * flips) if readout else None)


def valued(
    circuit: Circuit, strings: Sequence[str], noise: NoiseProgram, **settings: float
) -> BindingResult:
    request = Request(0, 1, ("expectation",), tuple(PauliSum((s,), np.ones(1)) for s in strings))
    return run(DmtEngine(), circuit, request, noise, settings=tuple(settings.items())).row(0)


def counted(
    circuit: Circuit, shots: int, noise: NoiseProgram | None, seed: int = 5, threads: int = 1,
    **settings: float,
) -> BindingResult:  # fmt: skip
    request = Request(shots, seed, ("counts", "memory"))
    options = {"settings": tuple(settings.items()), "threads": threads}
    return run(DmtEngine(), circuit, request, noise, **options).row(0)


def values(result: BindingResult) -> np.ndarray:
    return np.array(result.expectations)[:, 0]


def exact_values(circuit: Circuit, strings: Sequence[str], noise: NoiseProgram) -> np.ndarray:
    """Of a density matrix by the definition, in numpy."""
    rho = Exact(circuit, noise).rho
    letters = {
        "I": np.eye(2), "X": np.array([[0, 1], [1, 0]]), "Y": np.array([[0, -1j], [1j, 0]]),
        "Z": np.diag([1, -1]),
    }  # fmt: skip
    result = []
    for string in strings:
        operator = np.ones((1, 1))
        for letter in string:
            operator = np.kron(operator, letters[letter])
        result.append(float(np.trace(operator @ rho).real))
    return np.array(result)


@pytest.mark.parametrize("edges", [LINE, TREE, SHUFFLED], ids=["line", "tree", "shuffled"])
@pytest.mark.parametrize("seed", range(2))
def test_values_are_those_of_the_density_matrix_where_nothing_is_cut_off(
    edges: Edges, seed: int
) -> None:
    circuit = random_circuit(edges, 4, seed, measure=False)
    noise = noise_of(circuit, 10.0)
    random = np.random.default_rng(seed)
    strings = ["".join(random.choice(list("IXYZ"), circuit.num_qubits)) for _ in range(16)]
    result = valued(circuit, strings, noise, bond=256)
    expected = exact_values(circuit, strings, noise)
    assert np.abs(expected).max() > 0.05
    assert values(result) == pytest.approx(expected, abs=1e-10)
    assert (result.truncation, result.error) == (0.0, None)


@pytest.mark.parametrize("edges", [LINE, TREE], ids=["line", "tree"])
@pytest.mark.parametrize("seed", range(2))
def test_counts_are_those_of_the_density_matrix_where_nothing_is_cut_off(
    edges: Edges, seed: int
) -> None:
    circuit = random_circuit(edges, 4, seed, measure=True)
    noise = noise_of(circuit, 10.0, readout=True)
    result = counted(circuit, SHOTS, noise, seed=seed, bond=256)
    assert p_value(Exact(circuit, noise).probs, counts_of(result)) > 0.001
    assert result.error is None


def test_the_stated_error_of_a_narrow_line_is_its_true_error() -> None:
    edges = list(pairwise(range(8)))
    circuit = random_circuit(edges, 14, 3, measure=False)
    noise = noise_of(circuit)
    strings = ["I" * (7 - q) + "Z" + "I" * q for q in range(8)]
    strings += ["I" * (6 - q) + "ZZ" + "I" * q for q in range(7)]
    expected = exact_values(circuit, strings, noise)
    errors = []
    for bond in (16, 48):
        result = valued(circuit, strings, noise, bond=bond, tolerance=1.0)
        error = result.error
        assert error is not None
        off = values(result) - expected
        assert error.local_rms == pytest.approx(np.sqrt(np.mean(off**2)), rel=1e-6)
        assert error.local_max == pytest.approx(np.abs(off).max(), rel=1e-6)
        assert (error.local_standard_error, error.subset_bits) == (0.0, 8)
        assert (error.regions, error.region_qubits) == (1, 8)
        assert "nothing is said about correlations of more than 8 bits" in result.remark
        errors.append(error.local_rms)
    assert 1e-4 < errors[1] < errors[0] < 0.1


def test_the_bound_of_a_subset_covers_its_true_distance() -> None:
    circuit = random_circuit(list(pairwise(range(8))), 14, 3, measure=True)
    noise = noise_of(circuit, 0.5)
    result = counted(circuit, SHOTS, noise, bond=24, tolerance=1.0)
    exact = Exact(circuit, noise).probs
    drawn = counts_of(result)
    distance = 0.5 * sum(abs(p - drawn.get(bits, 0) / SHOTS) for bits, p in exact.items())
    noise_of_shots = 0.5 * sum(np.sqrt(2 * p / np.pi / SHOTS) for p in exact.values())
    assert result.error is not None
    assert distance - 1.5 * noise_of_shots < result.error.subset_tvd < 1.0


def test_values_of_a_wide_line_are_those_of_pauli_propagation() -> None:
    width = 30
    circuit = kicked_ising(list(pairwise(range(width))), 8)
    noise = noise_of(circuit, 2.0)
    strings = ["I" * (width - 1 - q) + "Z" + "I" * q for q in (0, 7, 14, 29)]
    strings += ["I" * (width - 2 - q) + "ZZ" + "I" * q for q in (3, 15)]
    request = Request(0, 1, ("expectation",), tuple(PauliSum((s,), np.ones(1)) for s in strings))
    propagated = np.array(run(PauliEngine(), circuit, request, noise).row(0).expectations)
    result = valued(circuit, strings, noise)
    assert np.abs(propagated[:, 0]).min() > 0.01
    assert np.abs(values(result) - propagated[:, 0]).max() < 3e-3 + 3.0 * propagated[:, 1].max()


def test_counts_of_a_tree_beyond_the_density_matrix_are_those_of_sweeps() -> None:
    edges = [*pairwise(range(10)), (2, 10), (10, 11), (5, 12), (7, 13), (13, 14)]
    circuit = kicked_ising(edges, 9, measure=True)
    noise = noise_of(circuit, 3.0, readout=True)
    shots = 4_000
    ours = bits_of(counted(circuit, shots, noise), 15)
    request = Request(shots, 9, ("counts", "memory"))
    others = bits_of(run(SweepEngine(), circuit, request, noise).row(0), 15)
    for mine, theirs in ((ours, others), (pairs_of(ours), pairs_of(others))):
        difference = mine.mean(axis=0) - theirs.mean(axis=0)
        sigma = np.sqrt((mine.var(axis=0) + theirs.var(axis=0)) / shots)
        assert np.abs(difference / sigma).max() < 5.0
        assert np.sqrt(np.mean((difference / sigma) ** 2)) < 1.5


def bits_of(result: BindingResult, width: int) -> np.ndarray:
    """Bits [shots, width] of the memory as values +1 and -1."""
    rows = np.frombuffer(result.memory, np.uint8).reshape(-1, -(-width // 8))
    bits = np.unpackbits(rows, axis=1, bitorder="little")[:, :width]
    return 1.0 - 2.0 * bits


def pairs_of(bits: np.ndarray) -> np.ndarray:
    return np.array([a * b for a, b in pairwise(bits.T)]).T


def test_fewer_shots_are_a_prefix_and_threads_change_nothing() -> None:
    edges = [*pairwise(range(8)), (0, 7), (3, 8)]
    circuit = random_circuit(edges, 6, 2, measure=True)
    noise = noise_of(circuit)
    results = [
        counted(circuit, shots, noise, threads=threads, bond=24, tolerance=1.0)
        for shots, threads in ((1_500, 1), (1_500, 3), (700, 1))
    ]
    assert results[0].memory == results[1].memory
    assert results[0].memory[: 2 * 700] == results[2].memory
    assert counted(circuit, 700, noise, seed=6, bond=24, tolerance=1.0).memory != results[2].memory


def test_a_ring_whose_loop_matters_is_refused_with_its_error() -> None:
    ring = [(q, (q + 1) % 10) for q in range(10)]
    circuit = kicked_ising(ring, 32)
    noise = noise_of(circuit, 0.3)
    with pytest.raises(TruncatedState, match="values on one and two qubits have an error of"):
        valued(circuit, ["IIIIIIIIIZ"], noise, bond=32)
    result = valued(circuit, ["IIIIIIIIIZ"], noise, bond=32, tolerance=1.0)
    assert result.error is not None
    assert result.error.local_rms > 0.05


def test_regions_of_a_lattice_hold_a_hexagon_and_its_neighbours() -> None:
    hexagon = [(q, (q + 1) % 12) for q in range(12)]
    tails = [(2 * k, 12 + k) for k in range(6)]
    more = [(12 + k, 18 + k) for k in range(6)]
    circuit = kicked_ising([*hexagon, *tails, *more], 4, measure=True)
    result = counted(circuit, 200, noise_of(circuit), bond=16, tolerance=0.2)
    error = result.error
    assert isinstance(error, ErrorEstimate)
    assert (error.region_qubits, error.regions, error.trajectories) == (18, 2, 200)
    assert error.local_standard_error > 0.0


def test_wide_gates_are_refused_by_name() -> None:
    wide = Arrays(3, 3).add("ccx", [0, 1, 2]).measure(range(3)).circuit()
    with pytest.raises(Unsupported, match="ccx on 3 qubits"):
        counted(wide, 10, None)


def dynamic_circuit(edges: Edges, seed: int, *, measure: bool) -> Circuit:
    """Layers with measurements between them; their bits decide about gates on one and two qubits,
    some qubits are reset, and one bit is read by nothing but the result."""
    random = np.random.default_rng(seed)
    width, bits = 1 + max(map(max, edges)), 3
    arrays = Arrays(width, bits + (width if measure else 0))
    for layer in range(3):
        for qubit in range(width):
            arrays.add("u", [qubit], (), random.uniform(0, 6, 3).tolist())
        for pair in edges:
            arrays.add("cp", list(pair), (), [1.3])
        qubit = int(random.integers(width))
        arrays.add("measure", [qubit], [layer])
        if layer == 1:
            arrays.add("reset", [qubit])
        pair = edges[int(random.integers(len(edges)))]
        for bit in range(layer + 1) if layer < 2 else ():
            arrays.begin((ir.CLBIT, bit, 0)).add("sx", [pair[0]]).add("cz", list(pair))
            arrays.add("else").add("h", [pair[1]]).add("end")
    for qubit in range(width):
        arrays.add("ry", [qubit], (), [0.4])
        if measure:
            arrays.add("measure", [qubit], [bits + qubit])
    return arrays.circuit()


@pytest.mark.parametrize("edges", [LINE[:4], TREE[:4]], ids=["line", "tree"])
@pytest.mark.parametrize("seed", range(3))
def test_dynamic_circuits_are_those_of_the_density_matrix_where_nothing_is_cut_off(
    edges: Edges, seed: int
) -> None:
    circuit = dynamic_circuit(edges, seed, measure=True)
    noise = noise_of(circuit, 10.0, readout=True)
    results = [
        counted(circuit, SHOTS, noise, seed=seed, bond=256, threads=threads) for threads in (1, 3)
    ]
    assert results[0].memory == results[1].memory
    assert p_value(Exact(circuit, noise).probs, counts_of(results[0])) > 0.001
    assert "8 histories" in results[0].remark
    circuit = dynamic_circuit(edges, seed, measure=False)
    noise = noise_of(circuit, 10.0, readout=True)
    random = np.random.default_rng(seed)
    strings = ["".join(random.choice(list("IXYZ"), circuit.num_qubits)) for _ in range(16)]
    expected = exact_values(circuit, strings, noise)
    assert np.abs(expected).max() > 0.03
    assert values(valued(circuit, strings, noise, bond=256)) == pytest.approx(expected, abs=1e-6)


def random_dynamic_circuit(edges: Edges, seed: int) -> Circuit:
    """Random gates, resets, measurements that use bits again, and nested conditions."""
    random = np.random.default_rng(seed)
    width, bits = 4, 3
    arrays = Arrays(width, bits)

    def block(depth: int) -> None:
        for _ in range(int(random.integers(2, 6))):
            kind, qubit = int(random.integers(6)), int(random.integers(width))
            if kind == 0:
                arrays.add("u", [qubit], (), random.uniform(0, 6, 3).tolist())
            elif kind == 1:
                arrays.add("cp", list(edges[int(random.integers(len(edges)))]), (), [1.3])
            elif kind == 2:
                arrays.add("cx", list(edges[int(random.integers(len(edges)))]))
            elif kind == 3:
                arrays.add("measure", [qubit], [int(random.integers(bits))])
            elif kind == 4:
                arrays.add("reset", [qubit])
            elif depth < 2:
                arrays.begin((ir.CLBIT, int(random.integers(bits)), 0))
                block(depth + 1)
                if random.random() < 0.6:
                    arrays.add("else")
                    block(depth + 1)
                arrays.add("end")

    for qubit in range(width):
        arrays.add("u", [qubit], (), random.uniform(0, 6, 3).tolist())
    block(0)
    block(0)
    for qubit in range(bits):
        arrays.add("ry", [qubit], (), [0.5])
        if random.random() < 0.5:
            arrays.add("measure", [qubit], [qubit])
    return arrays.circuit()


@pytest.mark.parametrize("seed", range(12))
def test_random_dynamic_circuits_have_the_records_of_the_density_matrix(seed: int) -> None:
    circuit = random_dynamic_circuit(([(0, 1), (1, 2), (1, 3)], LINE[:3])[seed % 2], seed)
    noise = noise_of(circuit, 10.0, readout=True)
    result = counted(circuit, 4_000, noise, seed=seed, bond=256)
    assert p_value(Exact(circuit, noise).probs, counts_of(result)) > 1e-4


def test_a_bit_that_is_measured_again_has_its_last_outcome() -> None:
    arrays = Arrays(3, 1).add("x", [0]).add("measure", [0], [0])
    arrays.begin((ir.CLBIT, 0, 0)).add("x", [1]).add("end")
    circuit = arrays.add("x", [1]).add("cx", [1, 2]).add("measure", [2], [0]).circuit()
    assert counts_of(counted(circuit, 100, None)) == {0: 100}


@pytest.mark.parametrize("again", [False, True])
def test_one_qubit_alone_is_counted(again: bool) -> None:
    arrays = Arrays(1, 2).add("h", [0]).add("measure", [0], [0])
    if again:
        arrays.begin((ir.CLBIT, 0, 0)).add("x", [0]).add("end").add("measure", [0], [1])
    circuit = arrays.circuit()
    assert set(counts_of(counted(circuit, 100, noise_of(circuit)))) == {0, 1}


@pytest.mark.parametrize("again", [False, True])
def test_an_error_is_stated_where_the_bonds_are_as_large_as_their_limit(again: bool) -> None:
    """A bond of 64 keeps eight values for what it protects."""
    edges = list(pairwise(range(12)))
    random = np.random.default_rng(1)
    arrays = Arrays(12, 12)
    for layer in range(6):
        for qubit in range(12):
            arrays.add("u", [qubit], (), random.uniform(0, 6, 3).tolist())
        for pair in edges[layer % 2 :: 2]:
            arrays.add("cz", list(pair))
    if again:
        arrays.add("measure", [5], [0])
        arrays.begin((ir.CLBIT, 0, 0)).add("x", [6]).add("end")
    circuit = arrays.measure(range(12)).circuit()
    result = counted(circuit, 50, noise_of(circuit, 10.0))
    assert result.error is not None
    assert 0.0 < result.error.local_rms < 0.01


def test_the_error_of_a_dynamic_circuit_is_that_of_the_branch_that_it_takes() -> None:
    """Resets that never happen hide no error, and gates that never act make none."""
    width, edges = 9, list(pairwise(range(9)))
    errors = []
    for is_dynamic in (False, True):
        random = np.random.default_rng(3)
        arrays = Arrays(width, width + 1)
        if is_dynamic:
            arrays.add("measure", [0], [width])
        for layer in range(12):
            for qubit in range(width):
                arrays.add("u", [qubit], (), random.uniform(0, 6, 3).tolist())
            for pair in edges[layer % 2 :: 2]:
                arrays.add("cz", list(pair))
        if is_dynamic:
            arrays.begin((ir.CLBIT, width, 0))
            for qubit in range(width):
                arrays.add("reset", [qubit])
            arrays.add("end")
        circuit = arrays.measure(range(width)).circuit()
        noise = noise_of(circuit, 0.3)
        result = counted(circuit, 200, noise, bond=16, tolerance=1.0)
        assert result.error is not None
        errors.append(result.error.local_rms)
    assert errors[1] == pytest.approx(errors[0], rel=0.3)
    assert errors[0] > 0.005


def test_a_dynamic_circuit_on_a_lattice_is_near_that_of_another_engine() -> None:
    hexagon = [(q, (q + 1) % 12) for q in range(12)]
    random = np.random.default_rng(4)
    arrays = Arrays(12, 14)
    for layer in range(6):
        for qubit in range(12):
            arrays.add("rx", [qubit], (), [float(random.uniform(0.3, 0.7))])
        for pair in matchings(hexagon)[layer % 2]:
            arrays.add("rzz", list(pair), (), [-np.pi / 2])
        if layer in (2, 4):
            arrays.add("measure", [3 * layer // 2], [12 + layer // 4])
            arrays.begin((ir.CLBIT, 12 + layer // 4, 0)).add("x", [layer]).add("end")
    circuit = arrays.measure(range(12)).circuit()
    noise = noise_of(circuit, readout=True)
    ours = bits_of(counted(circuit, 4_000, noise, tolerance=0.1), 14)
    request = Request(4_000, 9, ("counts", "memory"))
    others = bits_of(run(StatevectorEngine(), circuit, request, noise).row(0), 14)
    difference = ours.mean(axis=0) - others.mean(axis=0)
    sigma = np.sqrt((ours.var(axis=0) + others.var(axis=0)) / 4_000)
    assert np.abs(difference / sigma).max() < 5.0


def test_values_of_more_histories_than_are_allowed_are_refused() -> None:
    bits = 50
    arrays = Arrays(2, bits)
    for bit in range(bits):
        arrays.add("h", [0]).add("measure", [0], [bit])
        arrays.begin((ir.CLBIT, bit, 0)).add("x", [1]).add("end")
    request = Request(0, 1, ("expectation",), (PauliSum(("ZI",), np.ones(1)),))
    circuit = arrays.circuit()
    with pytest.raises(TooManyBranches, match="more than 16 histories"):
        run(DmtEngine(), circuit, request, noise_of(circuit), max_branches=16)


def test_a_qubit_with_many_partners_is_refused_with_the_way_out() -> None:
    everyone = [(p, q) for q in range(9) for p in range(q)]
    circuit = random_circuit(everyone, 40, 1, measure=True)
    with pytest.raises(OutOfMemory, match="pairs with 8 others") as refusal:
        counted(circuit, 10, None)
    assert "device" in refusal.value.hint
