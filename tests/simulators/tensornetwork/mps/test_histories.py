"""Noisy circuits that measure, reset and branch before their end: exact distributions, and the seed
contract."""

import numpy as np
import pytest
from arrays import Arrays
from device_models import DeviceModel
from msgspec.structs import replace
from noisy import after_gates, program
from noisy_runs import bit, dynamic_noise
from reference import Operation

from noise_models.channel import Channel, Readout, depolarizing, from_paulis
from simulators.circuit.ir import Circuit
from simulators.circuit.noise import NoiseProgram
from simulators.circuit.passes.attach_noise import attach_noise
from simulators.engine import EngineResult, PauliSum, Request, RunControl, RunOptions
from simulators.errors import TooManySteps
from simulators.simulate import counts_of, simulate
from simulators.tensornetwork.mps.engine import MpsEngine


def _run(
    circuit: Circuit, noise: NoiseProgram, shots: int, engine: str = "mps", **given: object
) -> EngineResult:
    return simulate(circuit, shots=shots, noise=noise, engine=engine, **{"seed": 3, **given})  # type: ignore[arg-type]


def _dynamic(num_qubits: int, seed: int) -> Circuit:
    """Gates at random; in between a qubit is measured, gates depend on it, another one is reset."""
    random, arrays = np.random.default_rng(seed), Arrays(num_qubits, num_qubits)
    for layer in range(3):
        for qubit in range(num_qubits):
            arrays.add("u", [qubit], (), random.uniform(0, 6, 3).tolist())
        for qubit in range(layer % 2, num_qubits - 1, 2):
            arrays.add("cx", [qubit, qubit + 1])
        arrays.add("cz", [0, num_qubits - 1])
        mine, other, third = random.permutation(num_qubits)[:3].tolist()
        arrays.add("measure", [mine], [mine])
        arrays.begin(bit(mine)).add("ry", [other], (), [1.1]).add("cx", [other, third])
        arrays.add("else").add("h", [third]).add("end")
        arrays.add("reset", [third])
    return arrays.measure(range(num_qubits)).circuit()


def _teleported(hops: int) -> Circuit:
    """A state that is teleported along a chain; each hop corrects by the bits of its own."""
    n = 2 * hops + 1
    arrays = Arrays(n, n).add("u", [0], (), [1.0, 0.4, 0.2])
    for hop in range(hops):
        a, b, c = 2 * hop, 2 * hop + 1, 2 * hop + 2
        arrays.add("h", [b]).add("cx", [b, c]).add("cx", [a, b]).add("h", [a])
        arrays.add("measure", [a], [a]).add("measure", [b], [b])
        arrays.begin(bit(b)).add("x", [c]).add("end").begin(bit(a)).add("z", [c]).add("end")
    return arrays.add("ry", [n - 1], (), [0.3]).add("measure", [n - 1], [n - 1]).circuit()


def _repetition_code(distance: int, rounds: int) -> Circuit:
    """Parities of neighbours, measured by a qubit between them that is reset, then all data."""
    checks = distance - 1
    arrays = Arrays(distance + checks, rounds * checks + distance)
    for turn in range(rounds):
        for k in range(checks):
            arrays.add("cx", [2 * k, 2 * k + 1]).add("cx", [2 * k + 2, 2 * k + 1])
        for k in range(checks):
            arrays.add("measure", [2 * k + 1], [turn * checks + k]).add("reset", [2 * k + 1])
    for k in range(distance):
        arrays.add("measure", [2 * k], [rounds * checks + k])
    return arrays.circuit()


def _readout(num_qubits: int) -> Readout:
    random = np.random.default_rng(2)
    return Readout(random.uniform(0, 0.1, num_qubits), random.uniform(0, 0.2, num_qubits))


@pytest.mark.parametrize(("num_qubits", "ratio"), [(4, 0.5), (6, 1.9), (8, 2.0)])
def test_shots_are_those_of_the_statevector_engine_for_a_seed(
    num_qubits: int, ratio: float
) -> None:
    """Errors, operators, outcomes and what is read are drawn by the same numbers."""
    circuit = _dynamic(num_qubits, num_qubits)
    noise = dynamic_noise(circuit, ratio, _readout(num_qubits))
    asked = {"outputs": ("counts", "memory")}
    own, other = (_run(circuit, noise, 150, name, **asked) for name in ("mps", "statevector"))
    assert own.memory == other.memory
    assert len(counts_of(own)) > 8
    assert own.memory.startswith(_run(circuit, noise, 40, **asked).memory)  # fewer shots: a prefix


def test_memory_of_a_repetition_code_has_the_syndromes_of_the_stabilizer_engine() -> None:
    circuit = _repetition_code(16, 3)
    flip = from_paulis(np.array([0.97, 0.03, 0.0, 0.0]))
    pair = depolarizing(0.02, 2)

    def rule(row: Operation) -> list[tuple[tuple[int, ...], Channel]]:
        if row.name == "cx":
            return [(row.qubits, pair)]
        return [(row.qubits, flip)] if row.name == "reset" else []

    readout = Readout(np.full(31, 0.02), np.full(31, 0.02))
    noise = program(after_gates(circuit, rule), readout)
    noise = replace(noise, kinds=noise.kinds - {"kraus"})
    means = []
    for name, shots in (("mps", 400), ("stabilizer", 100_000)):
        counts = counts_of(_run(circuit, noise, shots, name))
        bits = np.array([[k >> c & 1 for c in range(circuit.num_clbits)] for k in counts])
        weights = np.array(list(counts.values())) / shots
        pairs = [bits[:, k] ^ bits[:, k + 1] for k in range(circuit.num_clbits - 1)]
        means.append(weights @ np.column_stack([bits, *pairs]))
    own, other = means
    sigma = np.sqrt(other * (1 - other) / 400)
    assert (np.abs(own - other) < 5 * sigma).all()
    assert 0.02 < other.min() < other.max() < 0.5


def test_expectation_values_of_a_dynamic_circuit_match_the_density_matrix() -> None:
    circuit = _dynamic(4, 9)
    noise = dynamic_noise(circuit, 1.3, _readout(4))
    sums = (PauliSum(("ZZII", "IIZI"), np.array([1.0, 0.5])), PauliSum(("IIIZ",), np.ones(1)))
    asked = {"outputs": ("expectation",), "observables": sums}
    exact = _run(circuit, noise, 0, "densitymatrix", **asked)
    own = _run(circuit, noise, 800, **asked)
    for (value, error), (other, _) in zip(*map(_values, (own, exact)), strict=True):
        assert 1e-3 < error < 0.1
        assert abs(value - other) < 5 * error


def _values(result: EngineResult) -> list[list[float]]:
    return np.frombuffer(result.expectations).reshape(-1, 2).tolist()  # type: ignore[no-any-return]


def test_shots_of_a_wide_chain_share_histories_until_they_differ() -> None:
    """Without an error, and with an outcome of its own each, 61 qubits have one history a shot; and
    a chain whose outcomes are certain has one for all shots without an error."""
    circuit = _teleported(30)
    assert "60 branches" in _run(circuit, program([(0, (0,), depolarizing(1e-9, 1))]), 60).remark
    arrays = Arrays(61, 61)
    for qubit in range(61):
        arrays.add("x", [qubit]).add("measure", [qubit], [qubit])
        arrays.begin(bit(qubit)).add("x", [qubit]).add("end")
    flip = from_paulis(np.array([0.999, 0.001, 0.0, 0.0]))
    circuit = arrays.measure(range(61)).circuit()
    located = after_gates(circuit, lambda row: [(row.qubits, flip)] if row.name == "x" else [])
    result = _run(circuit, program(located), 1_000)
    branches = int(result.remark.split()[-2])
    assert 30 < branches < 200  # about 120 errors of 1,000 shots, some of them alike
    assert counts_of(result)[0] > 850


def test_a_limit_of_steps_counts_all_histories() -> None:
    circuit = _teleported(2)
    noise = attach_noise(circuit, DeviceModel(5))
    options = RunOptions(max_steps=100)
    engine = MpsEngine()
    plan = engine.plan(circuit, noise, options)
    with pytest.raises(TooManySteps, match="in all histories"):
        engine.run(plan, circuit, Request(100, 1), options, RunControl())
