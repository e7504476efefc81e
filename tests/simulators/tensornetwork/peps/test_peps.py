"""Engine `peps`: exact on trees, within its stated error on loops, and refusals."""

import itertools
from collections.abc import Sequence

import msgspec
import numpy as np
import pytest
from arrays import Arrays
from engine_runs import probabilities, run
from noisy import Located, after_gates, p_value, program
from reference import Operation
from swept import LINE, SHOTS, Edges, counts_of

from noise_models.channel import Channel, Readout, depolarizing, relaxation
from simulators.circuit.ir import Circuit
from simulators.circuit.noise import NoiseProgram
from simulators.densitymatrix.engine import DensityMatrixEngine
from simulators.engine import BindingResult, Engine, PauliSum, Request, RunControl
from simulators.errors import OutOfMemory, TruncatedState, Unsupported
from simulators.statevector.engine import StatevectorEngine
from simulators.tensornetwork.peps.engine import PepsEngine
from simulators.tensornetwork.peps.evolution import GraphCircuit, GraphLimits
from simulators.tensornetwork.peps.sampling import SampleProgram, sample

TREE = [(0, 1), (1, 2), (1, 3), (3, 4), (3, 5), (5, 6), (0, 7), (7, 8)]
TAILS = [(0, 12), (3, 13), (6, 14), (9, 15)]
HEXAGON = [*((q, (q + 1) % 12) for q in range(12)), *TAILS]  # of heavy-hex, with four tails
PAIRS = ("cz", "cx", "rzz", "ecr", "rxx", "cp", "swap")


def random_circuit(edges: Edges, layers: int, random: np.random.Generator) -> Circuit:
    width = 1 + max(map(max, edges))
    arrays = Arrays(width, width)
    for _ in range(layers):
        for qubit in range(width):
            arrays.add("u", [qubit], (), random.uniform(0, 6, 3).tolist())
        for number in random.permutation(len(edges)).tolist():
            name = PAIRS[int(random.integers(len(PAIRS)))]
            angles = [float(random.uniform(0, 6))] if name in ("rzz", "rxx", "cp") else []
            arrays.add(name, list(edges[number]), (), angles)
    for qubit in range(width):
        arrays.add("u", [qubit], (), random.uniform(0, 6, 3).tolist())
    return arrays.measure(range(width)).circuit()


def kicked_ising(edges: Edges, steps: int, angle: float = 0.6, *, measure: bool = True) -> Circuit:
    width = 1 + max(map(max, edges))
    arrays = Arrays(width, width if measure else 0)
    for step in range(steps):
        for qubit in range(width):
            arrays.add("rx", [qubit], (), [angle])
        for pair in edges if step < steps - 1 else ():  # diagonal: changes no bit at the end
            arrays.add("rzz", list(pair), (), [-np.pi / 2])
    return (arrays.measure(range(width)) if measure else arrays).circuit()


def heavy_hex(rows: int, columns: int) -> list[tuple[int, int]]:
    """Rows of 4 columns + 3 qubits, with a qubit between each two of them at every fourth one."""
    length = 4 * columns + 3
    edges = [(length * r + k, length * r + k + 1) for r in range(rows) for k in range(length - 1)]
    number = length * rows
    for row in range(rows - 1):
        for k in range(2 * (row % 2), length, 4):
            edges += [(length * row + k, number), (length * (row + 1) + k, number)]
            number += 1
    return edges


def counted(
    circuit: Circuit, shots: int, seed: int, noise: NoiseProgram | None = None, **options: object
) -> BindingResult:  # fmt: skip
    return run(PepsEngine(), circuit, Request(shots, seed), noise, None, **options).row(0)


@pytest.mark.parametrize("edges", [LINE, TREE], ids=["line", "tree"])
@pytest.mark.parametrize("seed", range(4))
def test_counts_on_a_tree_are_exact(edges: Edges, seed: int) -> None:
    random = np.random.default_rng(seed)
    circuit = random_circuit(edges, 3, random)
    exact = probabilities(
        run(StatevectorEngine(), circuit, Request(0, 1, ("probabilities",))).row(0)
    )
    result = counted(circuit, SHOTS, seed, settings=(("tolerance", 0.0),))
    assert p_value(exact, counts_of(result)) > 0.001
    assert result.truncation == 0.0


@pytest.mark.parametrize("seed", range(3))
def test_counts_on_a_tree_with_pauli_noise_are_those_of_the_density_matrix(seed: int) -> None:
    random = np.random.default_rng(seed)
    circuit = random_circuit(TREE, 1, random)
    one, two = depolarizing(0.02, 1), depolarizing(0.05, 2)

    def rule(row: Operation) -> Sequence[tuple[tuple[int, ...], Channel]]:
        return [(row.qubits, one if len(row.qubits) == 1 else two)] if row.qubits else []

    located: list[Located] = after_gates(circuit, rule)
    width = circuit.num_qubits
    noise = program(located, Readout(np.full(width, 0.02), np.full(width, 0.05)))
    noise = msgspec.structs.replace(noise, kinds=frozenset({"pauli", "readout"}))
    request = Request(0, 1, ("probabilities",))
    exact = probabilities(run(DensityMatrixEngine(), circuit, request, noise).row(0))
    result = counted(circuit, 1_500, seed, noise=noise)
    assert p_value(exact, counts_of(result)) > 0.001
    assert result.truncation == 0.0


def exact_and_drawn(circuit: Circuit, bond: int, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities of drawn bit strings, exact ones and those with which they were drawn."""
    state = GraphCircuit(circuit, circuit.params).evolved(
        GraphLimits(bond, 1e-14, 0, "complex128"), RunControl()
    )
    random = np.random.default_rng(7)
    bits, logs = sample(
        state, SampleProgram.of(state), rows,
        lambda _site, ones: random.random(ones.size) < ones, RunControl(),
    )  # fmt: skip
    vector = run(StatevectorEngine(), circuit, Request(0, 1, ("statevector",))).row(0).statevector
    assert vector is not None
    places = bits.astype(np.int64) @ (1 << np.arange(bits.shape[1]))
    return np.abs(vector[places]) ** 2, np.exp(logs)


@pytest.mark.parametrize(("steps", "bond"), [(4, 8), (5, 16), (6, 16), (6, 8)])
def test_stated_error_of_counts_covers_the_real_one_on_a_hexagon(steps: int, bond: int) -> None:
    settings = (("bond", bond), ("tolerance", 1.0))
    stated = counted(kicked_ising(HEXAGON, steps), 200, 3, settings=settings).truncation
    exact, drawn = exact_and_drawn(kicked_ising(HEXAGON, steps, measure=False), bond, 1_000)
    real = float(np.mean(np.abs(1.0 - exact / drawn))) / 2.0
    assert stated > 0.0
    assert real < 2.0 * stated + 1e-6


def test_counts_that_depend_on_a_whole_loop_are_refused() -> None:
    """A ring's cluster state measured along X: each cone is open, yet parities go around."""
    arrays = Arrays(6, 6)
    for qubit in range(6):
        arrays.add("h", [qubit])
    for qubit in range(6):
        arrays.add("cz", [qubit, (qubit + 1) % 6])
    for qubit in range(6):
        arrays.add("h", [qubit])
    circuit = arrays.measure(range(6)).circuit()
    with pytest.raises(TruncatedState, match="total variation distance of its counts is"):
        counted(circuit, 100, 1)


def means_of(
    engine: Engine, circuit: Circuit, labels: Sequence[str], **options: object
) -> BindingResult:
    sums = tuple(PauliSum((label,), np.ones(1)) for label in labels)
    request = Request(0, 1, ("expectation",), sums)
    return run(engine, circuit, request, None, None, **options).row(0)


def label_of(width: int, **letters: str) -> str:
    spelled = ["I"] * width
    for place, letter in letters.items():
        spelled[width - 1 - int(place[1:])] = letter
    return "".join(spelled)


@pytest.mark.parametrize(("steps", "bond"), [(4, 8), (6, 32), (7, 16), (8, 16)])
def test_means_on_a_hexagon_are_within_the_stated_error(steps: int, bond: int) -> None:
    circuit = kicked_ising(HEXAGON, steps, measure=False)
    labels = [label_of(16, **{f"q{q}": letter}) for q in (0, 1, 5, 12) for letter in "XYZ"]
    pairs = [(0, 1), (0, 6), (1, 3), (12, 13), (2, 9)]
    labels += [label_of(16, **{f"q{a}": "Z", f"q{b}": "Y"}) for a, b in pairs]
    labels += [label_of(16, **{f"q{a}": "Z", f"q{b}": "Z"}) for a, b in pairs]
    exact = means_of(StatevectorEngine(), circuit, labels)
    settings = (("bond", bond), ("tolerance", 1.0))
    mine = means_of(PepsEngine(), circuit, labels, settings=settings)
    for (value, _), (other, _), label in zip(
        mine.expectations, exact.expectations, labels, strict=True
    ):
        assert abs(value - other) < mine.truncation + 1e-9, label


def test_means_of_a_whole_device_are_those_of_exact_cones() -> None:
    edges = heavy_hex(7, 3)
    circuit = kicked_ising(edges, 4, measure=False)
    width = circuit.num_qubits
    assert width == 129
    labels = [label_of(width, **{f"q{q}": "Z"}) for q in (0, 7, 40, 62, width - 1)]
    labels.append(label_of(width, q7="Z", q8="Z"))
    exact = means_of(StatevectorEngine(), circuit, labels)
    mine = means_of(PepsEngine(), circuit, labels, settings=(("tolerance", 0.0),))
    assert mine.truncation == 0.0
    np.testing.assert_allclose(
        [value for value, _ in mine.expectations], [value for value, _ in exact.expectations],
        atol=1e-9,
    )  # fmt: skip


def test_a_shot_is_a_function_of_the_seed_and_its_number() -> None:
    circuit = random_circuit(HEXAGON, 1, np.random.default_rng(2))
    settings = (("tolerance", 1.0),)

    def memory(shots: int, seed: int) -> bytes:
        request = Request(shots, seed, ("memory",))
        return run(PepsEngine(), circuit, request, settings=settings).memory

    alone = memory(200, 3)
    assert alone.startswith(memory(30, 3))
    assert memory(30, 4) != memory(30, 3)


def test_what_the_engine_cannot_do_is_refused() -> None:
    circuit = random_circuit(TREE, 1, np.random.default_rng(1))
    relaxed = program(after_gates(circuit, lambda row: [((row.qubits[0],), relaxation(300, 4, 3))]))
    assert isinstance(relaxed, NoiseProgram)
    with pytest.raises(Unsupported, match="has no kraus noise"):
        counted(circuit, 10, 1, noise=relaxed)
    with pytest.raises(Unsupported, match="a Pauli string on 3 qubits"):
        means_of(PepsEngine(), kicked_ising(TREE, 1, measure=False), ["ZZZIIIIII"])
    with pytest.raises(Unsupported, match="no output 'statevector'"):
        run(PepsEngine(), circuit, Request(0, 1, ("statevector",)))
    star = kicked_ising([(0, q) for q in range(1, 25)], 2)
    with pytest.raises(OutOfMemory, match="a tensor of a qubit has 16777216 values"):
        counted(star, 10, 1)
    deep = kicked_ising(HEXAGON, 6, 1.2)
    with pytest.raises(TruncatedState, match=r"with bonds of up to 2; 1\.0e-03 is allowed"):
        counted(deep, 100, 1, settings=(("bond", 2), ("tolerance", 1e-3)))
    with pytest.raises(TruncatedState, match="error of its expectation values"):
        means_of(
            PepsEngine(), kicked_ising(HEXAGON, 6, 1.2, measure=False), [label_of(16, q3="Z")],
            settings=(("bond", 2), ("tolerance", 1e-3)),
        )  # fmt: skip


def test_unconnected_qubits_and_single_ones() -> None:
    arrays = Arrays(5, 5).add("h", [0]).add("cx", [0, 1]).add("x", [3]).add("h", [4])
    counts = counts_of(counted(arrays.measure(range(5)).circuit(), 1_000, 1))
    assert set(counts) == {8 | a | b for a, b in itertools.product((0, 3), (0, 16))}
