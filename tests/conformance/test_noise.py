"""Noise against exact density matrices, for every engine whose card accepts noise."""

import functools

import msgspec
import numpy as np
import pytest
from arrays import Arrays
from device_models import DeviceModel
from engine_runs import probabilities
from engines import Runner
from hypothesis import assume, given, settings, strategies as st
from noisy import Exact, after_gates, p_value, program
from noisy_runs import DYNAMIC, LEAST_P, RATIOS, device_noise, dynamic_noise, layers
from random_circuits import QUIET, dynamic_circuits, random_static

from noise_models.channel import Readout, ReadoutGroup, depolarizing, from_paulis, relaxation
from simulators.circuit.ir import Circuit
from simulators.circuit.noise import NoiseProgram
from simulators.circuit.passes.attach_noise import attach_noise
from simulators.engine import PauliSum
from simulators.errors import Unsupported
from simulators.simulate import counts_of

P01, P10 = np.array([0.02, 0.1, 0.0, 0.05]), np.array([0.07, 0.0, 0.03, 0.2])
CONFUSION = np.random.default_rng(5).dirichlet(np.ones(4), 4).T * 0.3 + 0.7 * np.eye(4)
MODELS: list[dict[str, object]] = [
    {"gate_error": 0.02, "t2_by_t1": 0.5, "idle": False},
    {"gate_error": 0.01, "t2_by_t1": 1.0, "excited": 0.1, "preparation_error": 0.03},
    {"gate_error": 0.03, "t2_by_t1": 1.9, "over_rotation": 0.2, "readout": (0.03, 0.08)},
    {"crosstalk_pairs": ((0, 1), (1, 2)), "feed_forward_ns": 400.0, "readout": (0.01, 0.2)},
    {"t2_by_t1": 2.0, "readout": (0.02, 0.05), "groups": (ReadoutGroup((0, 1), CONFUSION),)},
]
DAMPED = (0, 1, 2)  # models of devices of any width, without correlated readout
PAULIS = {"I": np.eye(2), "X": np.array([[0, 1], [1, 0]]), "Y": np.array([[0, -1j], [1j, 0]]),
          "Z": np.diag([1, -1])}  # fmt: skip


def noisy_layers(
    run: Runner, seed: int, ratio: float, angle: float
) -> tuple[Circuit, NoiseProgram]:
    """A circuit and noise that the engine accepts: Pauli noise where it has no other."""
    random = np.random.default_rng(seed)
    readout = Readout(P01, P10, (ReadoutGroup((3, 1), CONFUSION),))
    arrays = Arrays(4, 4).add("h", [3]).add("cx", [3, 0])
    if run.card.method == "clifford":
        for layer in range(4):
            for qubit in range(4):
                arrays.add(("h", "s", "sx", "y")[int(random.integers(4))], [qubit])
            arrays.add(("cx", "cz")[layer % 2], [layer % 4, (layer + 1) % 4])
    else:
        if run.card.gate_qubits == 2:
            arrays.add("cx", [0, 2])
        else:
            arrays.add("ccx", [0, 3, 2])
        for layer in range(2):
            for qubit in range(4):
                arrays.add("u", [qubit], (), random.uniform(0, 6, 3).tolist())
            arrays.add("cx", [layer, layer + 2]).add("cz", [3, 1])
    circuit = arrays.measure(range(4)).circuit()
    if "kraus" in run.card.noise.kinds:
        located = [*device_noise(circuit, ratio, angle), (-1, (2,), depolarizing(0.1, 1))]
        return circuit, program(located, readout)
    one = from_paulis(np.array([0.9, 0.05, 0.01, 0.04]))
    pair = from_paulis(random.dirichlet(np.append(60, np.ones(15))))
    located = after_gates(
        circuit,
        lambda row: (
            [] if row.name == "measure" else [(row.qubits, pair if len(row.qubits) == 2 else one)]
        ),
    )
    result = program([*located, (-1, (0,), one)], readout)
    return circuit, msgspec.structs.replace(result, kinds=result.kinds - {"kraus"})


def check(run: Runner, circuit: Circuit, noise: NoiseProgram, least_p: float, shots: int) -> None:
    """Compare an exact distribution exactly, and counts by their chi-square test."""
    expected = Exact(circuit, noise).probs
    if run.card.noise.exact:
        result = probabilities(run(circuit, outputs=("probabilities",), noise=noise))
        for outcome in {*result, *expected}:
            exact = pytest.approx(expected.get(outcome, 0.0), abs=1e-12)
            assert result.get(outcome, 0.0) == exact
    assert p_value(expected, counts_of(run(circuit, shots=shots, noise=noise))) > least_p


@pytest.mark.parametrize("angle", [0.0, 0.2])
@pytest.mark.parametrize("ratio", RATIOS)
def test_correlated_readout_matches_exact(noisy_run: Runner, ratio: float, angle: float) -> None:
    circuit, noise = noisy_layers(noisy_run, int(10 * ratio), ratio, angle)
    shots = 5_000 if noisy_run.card.method == "tensor_network" else 40_000
    check(noisy_run, circuit, noise, LEAST_P, shots)


@pytest.mark.slow
@pytest.mark.parametrize("ratio", RATIOS)
def test_a_million_shots_match_exact_distribution(noisy_run: Runner, ratio: float) -> None:
    circuit, noise = noisy_layers(noisy_run, int(10 * ratio), ratio, 0.15)
    check(noisy_run, circuit, noise, LEAST_P, 1_000_000)


@pytest.mark.parametrize("number", range(len(MODELS)))
@pytest.mark.parametrize("n", [3, 5])
def test_counts_under_a_device_model_are_exact(noisy_run: Runner, n: int, number: int) -> None:
    if noisy_run.card.method == "clifford":
        pytest.skip("the circuits are not Clifford")
    circuit = random_static(n, 24, n + number, n)
    noise = attach_noise(circuit, DeviceModel(n, **MODELS[number]))  # type: ignore[arg-type]
    check(noisy_run, circuit, noise, LEAST_P, 5_000)


def accepts_dynamic(run: Runner, *, loops: bool = False) -> None:
    card = run.card
    if card.method == "clifford" or not card.noise.dynamic or (loops and not card.control.loops):
        pytest.skip("its card refuses such circuits with noise")


@settings(QUIET, max_examples=30)
@given(circuit=dynamic_circuits(), number=st.sampled_from(DAMPED))
def test_random_dynamic_counts_are_exact(noisy_run: Runner, circuit: Circuit, number: int) -> None:
    accepts_dynamic(noisy_run)
    assume(circuit.table.rows[:, 1].max() <= (noisy_run.card.gate_qubits or 10))
    model = DeviceModel(circuit.num_qubits, **MODELS[number])  # type: ignore[arg-type]
    check(noisy_run, circuit, attach_noise(circuit, model), 1e-5, 1_000)


@pytest.mark.parametrize("ratio", RATIOS)
@pytest.mark.parametrize("name", DYNAMIC)
def test_counts_of_dynamic_circuits_are_exact(noisy_run: Runner, name: str, ratio: float) -> None:
    """Half of them with readout error, which flips what is recorded and not the state."""
    accepts_dynamic(noisy_run, loops=name == "loop")
    circuit = DYNAMIC[name]().circuit()
    n = circuit.num_qubits
    readout = Readout(P01[:n] + 0.1, P10[:n] + 0.1) if ratio < 1.9 else None
    check(noisy_run, circuit, dynamic_noise(circuit, ratio, readout), LEAST_P, 5_000)


def test_counts_with_noise_are_equal_for_1_2_8_threads(noisy_run: Runner) -> None:
    if not noisy_run.card.parallel.threads:
        pytest.skip("it runs in one thread")
    circuit = layers(5, 3, np.random.default_rng(2)).circuit()
    noise = program(device_noise(circuit, 1.9, 0.1))
    alone = noisy_run(circuit, shots=3_000, noise=noise)
    for threads in (2, 8):
        assert noisy_run(circuit, shots=3_000, noise=noise, threads=threads) == alone


def mean(label: str, rho: np.ndarray) -> float:
    operator = functools.reduce(np.kron, (PAULIS[letter] for letter in label))
    return float(np.trace(operator @ rho).real)


def rotations(angles: list[float] | None) -> Circuit:
    """Rotations by free or by given angles, entangled; nothing is measured."""
    arrays = Arrays(3, 0)
    for qubit in range(3):
        arrays.add("ry", [qubit], (), [0.0 if angles is None else angles[qubit]])
        if angles is None:
            arrays.free(qubit)
    return arrays.add("cx", [0, 1]).add("cx", [1, 2]).add("rx", [0], (), [0.7]).circuit()


def pair_noise(circuit: Circuit) -> NoiseProgram:
    return program(
        after_gates(
            circuit,
            lambda row: [(row.qubits, PAIR), (row.qubits[:1], DAMPING)] if row.name == "cx" else [],
        )
    )


PAIR, DAMPING = depolarizing(0.1, 2), relaxation(300, 2, 3.5)
SUMS = (PauliSum(("ZZI", "IIX", "III"), np.array([1.0, 0.5, 0.25])), PauliSum(("ZIX",), np.ones(1)))


def test_expectation_values_with_noise_match_density_matrix_by_binding(noisy_run: Runner) -> None:
    card = noisy_run.card
    if not card.noise.expectation or "expectation" not in card.outputs:
        pytest.skip("its card has no expectation values with noise")
    circuit, table = rotations(None), np.random.default_rng(1).uniform(0, 3, (2, 3))
    shots = 0 if card.noise.exact else 4_000 if card.method == "tensor_network" else 20_000
    request = {"outputs": ("expectation",), "observables": SUMS, "bindings": table}
    rows = noisy_run.all(circuit, shots, noise=pair_noise(circuit), **request)  # type: ignore[arg-type]
    if card.parallel.threads:
        more = noisy_run.all(circuit, shots, noise=pair_noise(circuit), threads=3, **request)  # type: ignore[arg-type]
        assert more == rows
    for angles, row in zip(table.tolist(), rows, strict=True):
        bound = rotations(angles)
        rho = Exact(bound, pair_noise(bound)).rho
        for item, (value, error) in zip(SUMS, row.expectations, strict=True):
            terms = zip(item.labels, item.coefficients, strict=True)
            exact = sum(c * mean(label, rho) for label, c in terms)
            if card.noise.exact:
                assert value == pytest.approx(exact, abs=1e-12)
                assert error == 0.0
            else:
                assert 1e-5 < error < 2 / shots**0.5
                assert abs(value - exact) < 5 * error


@pytest.mark.parametrize(
    "outputs",
    [("probabilities",), ("statevector",), ("expectation",), ("expectation", "gradient")],
    ids="-".join,
)
def test_exact_outputs_with_noise_are_refused(noisy_run: Runner, outputs: tuple[str, ...]) -> None:
    card = noisy_run.card
    if card.noise.exact:
        pytest.skip("it computes exact distributions with noise")
    if "expectation" not in outputs:
        circuit, noise = noisy_layers(noisy_run, 1, 1.0, 0.0)
        request: dict[str, object] = {"shots": 10}
    elif card.noise.expectation and "expectation" in card.outputs:
        circuit = rotations(None)
        request, noise = {"observables": SUMS, "bindings": np.ones((1, 3))}, pair_noise(circuit)
    else:
        pytest.skip("its card has no expectation values with noise")
    with pytest.raises(
        Unsupported, match="gradient" if len(outputs) > 1 else "noise|statevector|no output"
    ):
        noisy_run(circuit, outputs=outputs, noise=noise, **request)
