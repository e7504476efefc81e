"""Samples by contraction: their distribution, one order for all prefixes, slices and threads."""

from collections.abc import Callable

import engine_runs
import numpy as np
import pytest
from arrays import Arrays

from simulators import registry
from simulators.circuit.analysis import elimination as orders
from simulators.circuit.ir import Circuit
from simulators.engine import Request
from simulators.simulate import counts_of, simulate

pytest.importorskip("cotengra")

from simulators.tensornetwork.contraction import engine as contraction, network as net
from simulators.tensornetwork.contraction.samples import Samples


def strides(num_qubits: int, layers: int, stride: int, shift: int) -> Circuit:
    """Layers of rotations and of cx from each qubit q to stride * q + shift, after a chain."""
    arrays = Arrays(num_qubits, num_qubits)
    for q in range(num_qubits):
        arrays.add("h", [q])
    for q in range(num_qubits - 1):
        arrays.add("rzz", [q, q + 1], (), [0.3])
    for layer in range(layers + 1):
        for q in range(num_qubits):
            arrays.add("rx", [q], (), [0.4])
        for q in range(num_qubits if layer else 0):
            if (other := (stride * q + shift) % num_qubits) != q:
                arrays.add("cx", [q, other])
    return arrays.measure(range(num_qubits)).circuit()


def several(num_qubits: int, seed: int) -> Circuit:
    """Gates that draw two and three qubits at once, and permutations between them."""
    random = np.random.default_rng(seed)
    arrays = Arrays(num_qubits, num_qubits)
    for _ in range(2 * num_qubits):
        a, b, c = random.permutation(num_qubits)[:3].tolist()
        arrays.add("rxx", [a, b], (), [random.uniform(0, 3)])
        arrays.add("ry", [c], (), [random.uniform(0, 3)])
        arrays.add(str(random.choice(["swap", "iswap", "cz"])), [b, c])
        arrays.add(str(random.choice(["ccx", "cswap"])), [c, a, b])
    return arrays.measure(range(num_qubits)).circuit()


CASES: dict[str, Callable[[], Circuit]] = {
    "strides 12": lambda: strides(12, 4, 7, 3), "strides 14": lambda: strides(14, 3, 5, 2),
    "strides 16": lambda: strides(16, 2, 7, 3), "several 5": lambda: several(5, 1),
    "several 6": lambda: several(6, 2),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("precision", ["double", "single"])
def test_samples_follow_the_statevector(
    case: str, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contraction, "DENSE_QUBITS", 0)
    circuit, shots = CASES[case](), 20_000
    exact = simulate(circuit, shots=0, outputs=("probabilities",)).row(0)
    engine, request = registry.create("contraction"), Request(shots, 11)
    counts = counts_of(engine_runs.run(engine, circuit, request, precision=precision).row(0))
    probs = engine_runs.probabilities(exact)
    assert counts.keys() <= probs.keys()
    width = circuit.num_qubits
    for first in range(0, width, 4):  # joint distributions of eight qubits, around the register
        places = [(first + k) % width for k in range(min(8, width))]
        seen, expected = np.zeros(1 << len(places)), np.zeros(1 << len(places))
        for values, bins in ((counts, seen), (probs, expected)):
            for key, value in values.items():
                bins[sum((key >> q & 1) << k for k, q in enumerate(places))] += value
        expected *= shots
        large = expected >= 5
        seen, expected = (np.append(each[large], each[~large].sum()) for each in (seen, expected))
        kept = expected > 0
        free = int(kept.sum()) - 1
        chi_square = float(((seen - expected)[kept] ** 2 / expected[kept]).sum())
        assert chi_square < free + 5 * np.sqrt(2 * max(1, free)) + 5


def test_one_order_is_found_for_all_amplitudes(monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[int] = []
    search = orders.least_fill

    def counted(network: orders.GateNetwork, nodes: int, free: np.ndarray) -> np.ndarray | None:
        found.append(nodes)
        return search(network, nodes, free)

    monkeypatch.setattr(orders, "least_fill", counted)
    circuit = strides(36, 20, 7, 3)
    result = simulate(circuit, shots=10, seed=1, engine="contraction")
    assert len(found) == 1
    assert sum(counts_of(result.row(0)).values()) == 10
    factors, _ = net.gate_factors(circuit, circuit.params, "complex128")
    samples = Samples.of(net.fused(factors), 36, "complex128", width=26, slices=1)
    assert samples.messages.widest <= 16
    assert samples.thread_bytes < 64 * 2**20


@pytest.mark.parametrize("threads", [1, 3])
def test_shots_do_not_depend_on_threads(threads: int) -> None:
    circuit = strides(24, 3, 5, 3)
    one = simulate(circuit, shots=100, seed=5, engine="contraction", outputs=("memory",))
    many = simulate(
        circuit, shots=300, seed=5, engine="contraction", outputs=("memory",), threads=threads
    )
    assert many.row(0).memory[: len(one.row(0).memory)] == one.row(0).memory


def test_slices_keep_factors_that_depend_on_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """A chain that a slice cuts leaves numbers that differ between slices."""
    monkeypatch.setattr(contraction, "DENSE_QUBITS", 0)
    circuit = strides(12, 3, 5, 3)
    whole = simulate(circuit, shots=500, seed=3, engine="contraction")
    settings = (("width", int(whole.remark.split()[1]) - 1),)
    sliced = simulate(circuit, shots=500, seed=3, engine="contraction", settings=settings)
    assert "slices" in sliced.remark
    assert counts_of(whole.row(0)) == counts_of(sliced.row(0))
