"""Engine `sweep`: distributions of the density matrix, and results that are functions of shots."""

import itertools
import re
from collections.abc import Sequence

import numpy as np
import pytest
from arrays import Arrays
from engine_runs import run
from noisy import after_gates, program
from reference import Operation
from scipy.stats import unitary_group
from swept import (
    GRAPHS,
    LADDER,
    chi_square,
    counted,
    counts_of,
    noise_of,
    random_circuit,
)  # fmt: skip

from noise_models.channel import (
    Channel,
    depolarizing,
    from_kraus,
    from_unitary,
    relaxation,
    tensor,
)
from simulators.circuit import ir
from simulators.engine import Request
from simulators.errors import OutOfMemory, Unsupported
from simulators.lines.order import order_of
from simulators.lines.program import program_of
from simulators.tensornetwork.sweep.engine import SweepEngine


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("graph", GRAPHS)
def test_counts_have_the_distribution_of_the_density_matrix(graph: str, seed: int) -> None:
    random = np.random.default_rng([seed, len(graph)])
    layers = 1 if graph == "all" else int(random.integers(1, 4))  # else the tensors are wide
    circuit = random_circuit(GRAPHS[graph], layers, random)
    assert chi_square(circuit, noise_of(circuit, random), seed) > 0.001


def test_single_precision_has_the_same_distribution() -> None:
    random = np.random.default_rng(6)
    circuit = random_circuit(LADDER, 2, random)
    assert chi_square(circuit, noise_of(circuit, random), 6, precision="single") > 0.001


def test_without_noise_impossible_outcomes_do_not_occur() -> None:
    arrays = Arrays(40, 40).add("h", [0])
    for qubit in range(39):
        arrays.add("cx", [qubit, qubit + 1])
    circuit = arrays.measure(range(40)).circuit()
    counts = counts_of(counted(circuit, None, 1_000, 1))
    assert set(counts) == {0, 2**40 - 1}
    assert abs(counts[0] - 500) < 5 * 250**0.5


@pytest.mark.parametrize("name", ["ccx", "cswap", "rccx", "mcx", "unitary"])
def test_gates_on_more_qubits_with_noise(name: str) -> None:
    """Noise after a gate on three or four stays after it."""
    random = np.random.default_rng(len(name))
    arrays = Arrays(5, 5)
    for qubit in range(5):
        arrays.add("u", [qubit], (), random.uniform(0, 6, 3).tolist())
    if name == "unitary":  # under a control that is 0
        matrix = np.eye(8, dtype=complex)
        matrix[::2, ::2] = unitary_group.rvs(4, random_state=3)
        arrays.unitary(matrix, [3, 0, 2])
    else:
        arrays.add(name, [2, 0, 3, 1][: 4 if name == "mcx" else 3])
    for qubit in range(5):
        arrays.add("ry", [qubit], (), [float(random.uniform(0, 6))])
    circuit = arrays.add("cx", [4, 0]).measure(range(5)).circuit()
    relaxed, pair = relaxation(300, 4, 5, 0.1), depolarizing(0.05, 2)

    def rule(row: Operation) -> Sequence[tuple[tuple[int, ...], Channel]]:
        if len(row.qubits) < 3:
            return []
        return [(row.qubits[:2], pair), *(((q,), relaxed) for q in row.qubits)]

    assert chi_square(circuit, program(after_gates(circuit, rule)), 5) > 0.001


@pytest.mark.parametrize("place", ["after", "amid"])
def test_a_channel_that_moves_amplitude_acts_anywhere(place: str) -> None:
    """Relaxation to |+>, after a gate on one qubit and between gates on two."""
    turn = np.array([[1, 1], [1, -1]]) / np.sqrt(2)
    p = 0.3
    kraus = [
        turn @ k @ turn for k in (np.diag([1, (1 - p) ** 0.5]), np.array([[0, p**0.5], [0, 0]]))
    ]
    channel = from_kraus([each.astype(complex) for each in kraus])
    random = np.random.default_rng(8)
    arrays = Arrays(4, 4)
    for _ in range(2):
        for qubit in range(4):
            arrays.add("u", [qubit], (), random.uniform(0, 6, 3).tolist())
        for pair in ([0, 1], [1, 2], [2, 3]):
            arrays.add("cz", pair)
    circuit = arrays.measure(range(4)).circuit()
    name = "u" if place == "after" else "cz"

    def rule(row: Operation) -> Sequence[tuple[tuple[int, ...], Channel]]:
        return [((row.qubits[0],), channel)] if row.name == name else []

    assert chi_square(circuit, program(after_gates(circuit, rule)), 9) > 0.001


def test_what_it_cannot_run_is_refused_with_the_way_out() -> None:
    wide = Arrays(6, 6).add("mcx", range(6)).measure(range(6)).circuit()
    with pytest.raises(Unsupported, match="mcx on 6 qubits; engine 'sweep' takes gates on at most"):
        counted(wide, None, 10, 1)
    dense = Arrays(3, 3).unitary(unitary_group.rvs(8, random_state=3), [0, 1, 2])
    with pytest.raises(OutOfMemory, match=r"would pass over 2\^\d+ values"):  # 21 cx
        counted(dense.measure(range(3)).circuit(), None, 10, 1)
    random = np.random.default_rng(1)
    deep = random_circuit(list(itertools.combinations(range(12), 2)), 3, random)
    with pytest.raises(OutOfMemory, match=r"would pass over 2\^\d+ values in \d+ layers"):
        counted(deep, None, 10, 1)


def test_bindings_of_a_circuit_share_its_program() -> None:
    """Other angles compile no other order and program; their counts are those of each alone."""
    arrays = Arrays(4, 4)
    for slot, qubit in enumerate(range(4)):
        arrays.add("ry", [qubit], (), [0.0])
        arrays.free(slot)
    for qubit in range(3):
        arrays.add("cz", [qubit, qubit + 1])
    for qubit in range(4):
        arrays.add("sx", [qubit])
    circuit = arrays.measure(range(4)).circuit()
    values = np.random.default_rng(4).uniform(0.1, 3.0, (5, 4))
    order_of.cache_clear()
    program_of.cache_clear()
    together = run(SweepEngine(), circuit, Request(500, 3, bindings=values))
    assert (order_of.cache_info().misses, program_of.cache_info().misses) == (1, 1)
    for k, row in enumerate(values):
        alone = run(SweepEngine(), circuit, Request(500, 3, bindings=row[None], binding=k))
        assert counts_of(alone.row(0)) == counts_of(together.row(k))


@pytest.mark.parametrize("graph", ["ladder", "hexagon", "star"])
def test_slices_of_a_shot_change_no_count(graph: str) -> None:
    """With less memory than the tensors of eight shots take, down to a slice in each lane."""
    random = np.random.default_rng([len(graph), 5])
    circuit = random_circuit(GRAPHS[graph], 3, random)
    noise = noise_of(circuit, random)
    whole = counted(circuit, noise, 3_000, 2)
    axes = int(whole.remark.split()[2].removeprefix("2^"))
    for memory_bytes, slices in ((128 << axes, r"[248]"), (1, "8")):
        sliced = counted(circuit, noise, 3_000, 2, memory_bytes=memory_bytes)
        assert re.search(rf", {slices} slices$", sliced.remark)
        assert counts_of(sliced) == counts_of(whole)


def test_slices_of_a_dynamic_circuit_write_its_record_once() -> None:
    """A stored bit that is the opposite of itself, and a clbit that is measured twice."""
    arrays = Arrays(4, 4)
    for qubit in range(4):
        arrays.add("ry", [qubit], (), [0.5 + 0.3 * qubit])
    for _ in range(2):
        for qubit in range(3):
            arrays.add("cz", [qubit, qubit + 1])
        for qubit in range(4):
            arrays.add("ry", [qubit], (), [0.4 + 0.2 * qubit])
        arrays.add("measure", [1], [1])
        arrays.begin(
            (ir.CLBIT, 1, 0), (ir.LOGIC_NOT, 0, 0), (ir.SET_CLBIT, 1, 0), name="store"
        ).begin((ir.CLBIT, 1, 0)).add("h", [2]).add("end")
    circuit = arrays.add("measure", [0], [0]).add("measure", [3], [3]).circuit()
    whole = counted(circuit, None, 3_000, 2)
    sliced = counted(circuit, None, 3_000, 2, memory_bytes=1)
    assert sliced.remark.endswith(", 8 slices")
    assert counts_of(sliced) == counts_of(whole)


def test_factors_of_a_pair_that_relaxes_are_divided_out_where_its_value_is_drawn() -> None:
    """Operators on a pair damp the factors of its gate, to 0 for some values: of a hidden value,
    and the known last one of a line that is drawn later."""
    fast = relaxation(500, 0.4, 0.5)
    shifted = from_unitary(np.diag(np.exp(1j * np.array([0.0, 0.3, -0.2, 0.5]))))
    pair = tensor(fast, fast).then(shifted)
    random = np.random.default_rng(11)

    def turn(qubit: int) -> None:
        arrays.add("u", [qubit], (), random.uniform(0, 6, 3).tolist())

    arrays = Arrays(5, 5)
    for qubit in range(5):
        turn(qubit)
    for _ in range(7):
        ends = random.permutation(5)[:2].tolist()
        name = "rzz" if random.random() < 0.5 else "cz"
        arrays.add(name, ends, (), [0.3] if name == "rzz" else [])
        turn(int(random.integers(5)))
        turn(int(random.integers(5)))
    circuit = arrays.measure(range(5)).circuit()

    def rule(row: Operation) -> Sequence[tuple[tuple[int, ...], Channel]]:
        return [(row.qubits, pair)] if row.name == "rzz" else []

    assert chi_square(circuit, program(after_gates(circuit, rule)), 7, 500_000) > 0.001
