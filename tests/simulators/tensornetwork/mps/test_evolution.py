"""Matrix product states: evolution, branches, noise."""

from collections.abc import Iterable

import engine_runs
import msgspec
import numpy as np
import pytest
from arrays import Arrays, measured
from engine_runs import probabilities
from hypothesis import assume, given
from noisy import p_value
from random_circuits import QUIET, dynamic_circuits

from noise_models.library import load
from simulators import registry
from simulators.chain import right_canonical
from simulators.chain.right_canonical import full_split, row_space
from simulators.circuit import ir
from simulators.circuit.analysis.profiler import chain_order, cuthill_mckee, profile
from simulators.circuit.gates import FOR, STORE, SWITCH, WHILE
from simulators.circuit.ir import Circuit
from simulators.engine import BindingResult, EngineResult, PauliSum, Request
from simulators.errors import TooManyBranches, TooManySteps, TruncatedState, Unsupported
from simulators.simulate import counts_of, simulate


def brickwork(
    num_qubits: int, depth: int, wires: list[int] | None = None, *, seed: int = 1
) -> Arrays:
    """Random gates on each qubit, then on pairs of neighbours of a chain through `wires`."""
    random = np.random.default_rng(seed)
    wires = list(range(num_qubits)) if wires is None else wires
    arrays = Arrays(num_qubits, num_qubits)
    for layer in range(depth):
        for wire in wires:
            arrays.add("u", [wire], (), random.uniform(0, 6, 3).tolist())
        for k in range(layer % 2, num_qubits - 1, 2):
            arrays.add("cz", [wires[k], wires[k + 1]])
    return arrays


def values(found: EngineResult) -> np.ndarray:
    return np.frombuffer(found.expectations).reshape(-1, 2)[:, 0]


def strings(num_qubits: int, count: int, seed: int = 5) -> tuple[PauliSum, ...]:
    random = np.random.default_rng(seed)
    letters = random.choice(list("IXYZ"), (count, num_qubits))
    letters[random.random((count, num_qubits)) < 0.6] = "I"
    return tuple(PauliSum(("".join(each),), np.ones(1)) for each in letters)


@pytest.mark.parametrize("precision", ["double", "single"])
def test_expectation_values_and_amplitudes_are_those_of_the_statevector(precision: str) -> None:
    circuit = brickwork(10, 8).add("ccx", [7, 0, 4]).add("swap", [2, 9]).add("cx", [8, 1]).circuit()
    table = {"observables": strings(10, 40), "outputs": ("expectation", "statevector")}
    result = simulate(circuit, shots=0, engine="mps", precision=precision, **table)  # type: ignore[call-overload]
    exact = simulate(circuit, shots=0, engine="statevector", **table)  # type: ignore[call-overload]
    near = 1e-10 if precision == "double" else 1e-4
    assert np.abs(values(result) - values(exact)).max() < near
    assert result.statevector is not None
    assert np.abs(result.statevector - exact.statevector).max() < near
    assert result.truncation == 0.0


def test_shuffled_chain_is_ordered_and_has_the_values_of_the_chain() -> None:
    wires = np.random.default_rng(3).permutation(40).tolist()
    shuffled, straight = brickwork(40, 8, wires).circuit(), brickwork(40, 8).circuit()
    assert profile(shuffled).bond_bits == profile(straight).bond_bits
    assert profile(shuffled).longest == 1
    order = chain_order(shuffled)
    assert order is not None
    assert chain_order(straight) is None
    steps = np.abs(np.diff([order[wire] for wire in wires]))
    assert (steps == 1).all()
    pairs = strings(40, 30)
    moved = tuple(PauliSum(("".join(_moved(p.labels[0], wires)),), p.coefficients) for p in pairs)
    one = simulate(straight, shots=0, engine="mps", outputs=("expectation",), observables=pairs)
    two = simulate(shuffled, shots=0, engine="mps", outputs=("expectation",), observables=moved)
    assert np.abs(values(one) - values(two)).max() < 1e-8
    assert two.remark == one.remark


def _moved(label: str, wires: list[int]) -> list[str]:
    entries = ["I"] * len(label)
    for qubit, wire in enumerate(wires):
        entries[len(label) - 1 - wire] = label[len(label) - 1 - qubit]
    return entries


def test_counts_of_ordered_qubits_have_their_correlations() -> None:
    """Pairs of far qubits: in order they are neighbours; bits go back to their own places."""
    arrays = Arrays(50, 50)
    for qubit in range(25):
        arrays.add("h", [qubit]).add("cx", [qubit, 49 - qubit])
    result = simulate(measured(arrays), shots=300, seed=2, engine="mps")
    assert result.remark == "bond 2"
    for outcome in counts_of(result.row(0)):
        bits = f"{outcome:050b}"
        assert bits == bits[::-1]


def test_cuthill_mckee_orders_every_component() -> None:
    pairs = np.array([[0, 5], [5, 2], [1, 3]])
    order = cuthill_mckee([{5: 1}, {3: 1}, {5: 1}, {1: 1}, {}, {0: 1, 2: 1}])
    assert sorted(order) == list(range(6))
    places = {qubit: place for place, qubit in enumerate(order)}
    assert all(abs(places[a] - places[b]) == 1 for a, b in pairs.tolist())


def _coupled(pairs: Iterable[tuple[int, int]], num_qubits: int) -> Circuit:
    arrays = Arrays(num_qubits, num_qubits)
    for a, b in pairs:
        arrays.add("cz", [a, b])
    return arrays.circuit()


@pytest.mark.parametrize(("size", "most"), [(30, 3), (60, 5), (100, 6), (127, 6)])
def test_order_of_a_heavy_hex_lattice_has_few_pairs_across_any_cut(size: int, most: int) -> None:
    """Parts of a device that breadth-first search finds."""
    couplings = {(min(a, b), max(a, b)) for a, b in load("superconducting-heavy-hex").coupling}
    found = [0]
    for qubit in found:
        near = sorted(a + b - qubit for a, b in couplings if qubit in (a, b))
        found += [each for each in near if each not in found][: size - len(found)]
    place = {qubit: k for k, qubit in enumerate(found)}
    pairs = np.array([[place[a], place[b]] for a, b in couplings if {a, b} <= {*found}])
    order = chain_order(_coupled(pairs.tolist(), len(found)))
    assert order is not None
    assert sorted(order) == list(range(len(found)))
    ends = np.sort(np.array(order)[pairs], axis=1)
    assert max(((ends[:, 0] <= k) & (ends[:, 1] > k)).sum() for k in range(len(found))) <= most


def test_order_of_scattered_components_keeps_each_together() -> None:
    """Rings of five qubits that are far apart, and qubits without a gate."""
    wires = np.random.default_rng(4).permutation(40).tolist()
    rings = [wires[k : k + 5] for k in range(0, 30, 5)]
    pairs = [(ring[k], ring[k - 1]) for ring in rings for k in range(5)]
    order = chain_order(_coupled(pairs, 40))
    assert order is not None
    assert sorted(order) == list(range(40))
    assert all(max(order[q] for q in ring) - min(order[q] for q in ring) == 4 for ring in rings)


def test_narrow_circuits_are_neither_reordered_nor_cut() -> None:
    """Up to 20 qubits the counts of all engines agree for a seed."""
    pairs = [(k, (7 * k + 3) % 20) for k in range(20)]
    assert chain_order(_coupled(pairs, 20)) is None
    assert chain_order(_coupled(pairs, 21)) is not None


def test_phases_before_measurement_make_no_bonds() -> None:
    arrays = Arrays(24, 24)
    for qubit in range(24):
        arrays.add("h", [qubit])
    for qubit in range(24):
        arrays.add("rzz", [qubit, (5 * qubit + 1) % 24], (), [0.7])
    assert profile(arrays.circuit(), ("expectation",), ("X" * 24,)).bond_bits > 1
    circuit = arrays.measure(range(24)).circuit()
    assert profile(circuit, ("counts",)).bond_bits == 0
    assert simulate(circuit, shots=10, engine="mps").remark == "bond 1"


def test_gates_outside_the_light_cone_are_left_out_and_change_no_outcome() -> None:
    """Three measured bits of 21 qubits, and strings of few letters."""
    arrays = brickwork(21, 3)
    for k, qubit in enumerate((3, 9, 10)):
        arrays.add("measure", [qubit], [k])
    circuit = arrays.circuit()
    exact = simulate(circuit, shots=0, outputs=("probabilities",))
    result = simulate(circuit, shots=4_000, engine="mps")
    assert p_value(probabilities(exact.row(0)), counts_of(result.row(0))) > 1e-4
    labels = ["I" * 11 + "ZZ" + "I" * 8, "I" * 19 + "XY", "IIIIX" + "I" * 16]
    sums = tuple(PauliSum((label,), np.ones(1)) for label in labels)
    circuit = brickwork(21, 3).circuit()
    one, two = (
        values(simulate(circuit, shots=0, engine=name, outputs=("expectation",), observables=sums))
        for name in ("mps", "statevector")
    )
    assert np.abs(one - two).max() < 1e-10


@pytest.mark.parametrize("shape", [(150, 150), (200, 140), (130, 260), (160, 1500)])
def test_row_space_leaves_little_weight_outside(shape: tuple[int, int]) -> None:
    random = np.random.default_rng(1)
    left = np.linalg.qr(random.normal(size=(shape[0], 120)))[0]
    right = np.linalg.qr(random.normal(size=(shape[1], 120)))[0]
    wanted = 10.0 ** -np.linspace(0, 8, 120)
    matrix = ((left * wanted) @ right.T).astype(complex)
    basis = row_space(matrix, 60)
    assert np.abs(basis.conj().T @ basis - np.eye(60)).max() < 1e-12
    value = np.linalg.svd(matrix @ basis, compute_uv=False)
    assert np.abs(value - wanted[:60])[:40].max() < 1e-7
    rest = matrix - (matrix @ basis) @ basis.conj().T
    assert np.linalg.norm(rest) ** 2 < 10 * np.square(wanted[60:]).sum() + 1e-15


def test_split_that_does_not_converge_takes_another_way(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(2)
    matrices = random.normal(size=(2, 6, 8)) + 1j * random.normal(size=(2, 6, 8))
    values_, vectors = full_split(matrices)

    def fails(*_: object, **__: object) -> None:
        raise np.linalg.LinAlgError

    monkeypatch.setattr(right_canonical.np.linalg, "svd", fails)
    other, others = full_split(matrices)
    assert np.abs(values_ - other).max() < 1e-7
    overlap = np.abs(np.matmul(vectors, others.conj().transpose(0, 2, 1)))
    assert np.abs(overlap - np.eye(6)).max() < 1e-6


def test_large_bonds_split_in_subspaces_have_full_values(monkeypatch: pytest.MonkeyPatch) -> None:
    arrays = Arrays(18, 0)
    for _ in range(12):  # Trotter steps of an Ising chain: values fall off fast
        for first in (0, 1):
            for q in range(first, 17, 2):
                arrays.add("rzz", [q, q + 1], (), [0.6])
        for q in range(18):
            arrays.add("rx", [q], (), [0.7])
    circuit = arrays.circuit()
    monkeypatch.setattr(right_canonical, "_RANDOM_ROWS", 24)
    monkeypatch.setattr(right_canonical, "_LEAST_MORE", 4)
    used: list[int] = []

    def counted(matrix: np.ndarray, size: int) -> np.ndarray:
        used.append(size)
        return row_space(matrix, size)

    monkeypatch.setattr(right_canonical, "row_space", counted)
    table = {"observables": strings(18, 20), "outputs": ("expectation",), "shots": 0}
    result = simulate(circuit, engine="mps", settings=(("cutoff", 1e-13),), **table)  # type: ignore[call-overload]
    exact = simulate(circuit, engine="statevector", **table)  # type: ignore[call-overload]
    assert used
    assert np.abs(values(result) - values(exact)).max() < 1e-5
    assert result.truncation < 1e-9


def test_counts_are_equal_however_many_shots_are_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    circuit = measured(brickwork(40, 4))
    result = counts_of(simulate(circuit, shots=500, seed=3, engine="mps").row(0))
    monkeypatch.setattr("simulators.chain.product_state._SHOTS_AT_ONCE", 77)
    assert counts_of(simulate(circuit, shots=500, seed=3, engine="mps").row(0)) == result


@pytest.mark.parametrize("precision", ["double", "single"])
def test_rounding_is_no_truncation(precision: str) -> None:
    """A tolerance of 0 refuses what a bond cuts off, not the last bits of a norm."""
    circuit = measured(brickwork(10, 12))
    exact = (("tolerance", 0.0),)
    found = simulate(circuit, shots=10, engine="mps", precision=precision, settings=exact)
    assert found.row(0).truncation == 0.0
    with pytest.raises(TruncatedState, match=r"0\.0e\+00 is allowed"):
        simulate(circuit, shots=10, engine="mps", settings=(*exact, ("bond", 4)))


def run(circuit: Circuit, request: Request, **options: object) -> BindingResult:
    return engine_runs.run(registry.create("mps"), circuit, request, **options).row(0)


def histories(num_qubits: int) -> Circuit:
    """Each outcome turns a qubit by another angle, so histories stay different."""
    arrays = Arrays(num_qubits, num_qubits)
    for q in range(num_qubits):
        arrays.add("ry", [q], (), [0.9 + 0.1 * q]).add("cx", [q, (q + 1) % num_qubits])
        arrays.add("measure", [q], [q])
        arrays.begin((ir.CLBIT, q, 0)).add("rx", [q], (), [0.3 + q])
        arrays.add("else").add("ry", [(q + 1) % num_qubits], (), [0.2]).add("end")
    arrays.add("reset", [0]).add("h", [0]).add("cx", [0, 2])
    for q in range(num_qubits):
        arrays.add("measure", [q], [num_qubits - 1 - q])
    return arrays.circuit()


@QUIET
@given(circuit=dynamic_circuits())
def test_counts_are_those_of_the_statevector_engine(circuit: Circuit) -> None:
    codes = circuit.table.rows[circuit.ops, 0]
    assume(not np.isin(codes, (FOR, WHILE, SWITCH, STORE)).any())
    assume(not circuit.variables)
    result = simulate(circuit, shots=200, seed=4, binding=1, engine="mps")
    outcome = simulate(circuit, shots=200, seed=4, binding=1, engine="statevector")
    assert counts_of(result.row(0)) == counts_of(outcome.row(0))


def test_counts_memory_and_exact_results_match_the_statevector_engine() -> None:
    circuit = histories(5)
    sampled = {"shots": 400, "seed": 9, "outputs": ("counts", "memory")}
    result = simulate(circuit, engine="mps", **sampled)  # type: ignore[call-overload]
    outcome = simulate(circuit, engine="statevector", **sampled)  # type: ignore[call-overload]
    assert (result.outcomes, result.counts, result.memory) == (
        outcome.outcomes, outcome.counts, outcome.memory
    )  # fmt: skip
    assert int(result.remark.split()[-2]) > 20
    sums = tuple(PauliSum((label,), np.ones(1)) for label in ("ZZIII", "IIZIZ", "IIIII"))
    exact = {"shots": 0, "outputs": ("probabilities", "expectation"), "observables": sums}
    result = simulate(circuit, engine="mps", **exact)  # type: ignore[call-overload]
    outcome = simulate(circuit, engine="statevector", **exact)  # type: ignore[call-overload]
    assert result.probability_outcomes == outcome.probability_outcomes
    probs = [np.frombuffer(each.probabilities) for each in (result, outcome)]
    assert np.abs(probs[0] - probs[1]).max() < 1e-10
    means = [np.frombuffer(each.expectations) for each in (result, outcome)]
    assert np.abs(means[0] - means[1]).max() < 1e-10


def test_wide_circuit_teleports_a_qubit_along_a_chain() -> None:
    """80 qubits: each hop measures two of them and corrects the next one."""
    hops = 40
    arrays = Arrays(2 * hops + 1, 2 * hops + 1).add("ry", [0], (), [1.1])
    for hop in range(hops):
        a, b, c = 2 * hop, 2 * hop + 1, 2 * hop + 2
        arrays.add("h", [b]).add("cx", [b, c]).add("cx", [a, b]).add("h", [a])
        arrays.add("measure", [a], [a]).add("measure", [b], [b])
        arrays.begin((ir.CLBIT, b, 0)).add("x", [c]).add("end")
        arrays.begin((ir.CLBIT, a, 0)).add("z", [c]).add("end")
    last = 2 * hops
    arrays.add("ry", [last], (), [-1.1]).add("measure", [last], [last])
    counts = counts_of(simulate(arrays.circuit(), shots=20, seed=1, engine="mps").row(0))
    assert all(not outcome >> last for outcome in counts)
    assert len(counts) == 20


def test_reset_before_expectation_values_is_carried_out() -> None:
    circuit = Arrays(2, 0).add("h", [0]).add("cx", [0, 1]).add("reset", [0]).circuit()
    sums = tuple(PauliSum((label,), np.ones(1)) for label in ("IZ", "ZI", "ZZ"))
    result = simulate(circuit, shots=0, engine="mps", outputs=("expectation",), observables=sums)
    assert np.frombuffer(result.expectations)[0::2] == pytest.approx([1.0, 0.0, 0.0], abs=1e-12)


def test_limits_are_refused_with_the_way_out() -> None:
    circuit = histories(6)
    with pytest.raises(TooManyBranches, match="more than 3 histories") as caught:
        run(circuit, Request(0, 1, ("probabilities",)), max_branches=3)
    assert "ask for counts of shots, or raise max_branches" in caught.value.hint
    with pytest.raises(TooManySteps, match="in all histories"):
        run(circuit, Request(500, 1), max_steps=100)
    with pytest.raises(Unsupported, match="a statevector was asked for"):
        run(circuit, Request(0, 1, ("statevector",)))


def test_histories_share_no_state() -> None:
    """Fewer shots are a part of more."""
    circuit = histories(5)
    few, value = (run(circuit, Request(shots, 3, ("memory",))).memory for shots in (50, 400))
    assert value[: len(few)] == few
    assert msgspec.structs.replace(run(circuit, Request(50, 3)), remark="") == (
        msgspec.structs.replace(run(circuit, Request(50, 3)), remark="")
    )
