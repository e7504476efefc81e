"""Trajectories of matrix product states: exact distributions, and the seed contract."""

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from arrays import Arrays
from noisy import Exact, after_gates, program
from noisy_runs import device_noise, layers, run
from reference import Operation, operations

from noise_models.channel import (
    Channel,
    Readout,
    ReadoutGroup,
    depolarizing,
    from_paulis,
    paulis,
    relaxation,
    tensor,
)  # fmt: skip
from simulators.chain import right_canonical
from simulators.circuit.ir import Circuit
from simulators.circuit.noise import NoiseProgram
from simulators.engine import EngineResult, PauliSum
from simulators.simulate import counts_of, simulate
from simulators.tensornetwork.mps import ensemble

PAULIS = dict(zip("IXYZ", paulis(1), strict=True))


def _run(circuit: Circuit, noise: NoiseProgram, shots: int, **given: object) -> EngineResult:
    return simulate(circuit, shots=shots, noise=noise, **{"seed": 1, "engine": "mps", **given})  # type: ignore[call-overload,no-any-return]


def _readout(random: np.random.Generator, num_qubits: int) -> Readout:
    confusion = random.dirichlet(np.ones(4), 4).T * 0.1 + 0.9 * np.eye(4)
    flips = random.uniform(0, 0.05, num_qubits), random.uniform(0, 0.1, num_qubits)
    return Readout(*flips, (ReadoutGroup((num_qubits - 1, 1), confusion),))


def _case(ratio: float, angle: float, seed: int = 0) -> tuple[Circuit, NoiseProgram]:
    random = np.random.default_rng(seed + int(10 * ratio))
    arrays = Arrays(4, 4)
    arrays.add("h", [3]).add("cx", [3, 0]).add("ccx", [0, 3, 2])  # between distant qubits
    for layer in range(2):
        for qubit in range(4):
            arrays.add("u", [qubit], (), random.uniform(0, 6, 3).tolist())
        arrays.add("cx", [layer, layer + 2]).add("cz", [3, 1])
    circuit = arrays.measure(range(4)).circuit()
    located = [*device_noise(circuit, ratio, angle), (-1, (2,), depolarizing(0.1, 1))]
    return circuit, program(located, _readout(random, 4))


def test_outcomes_are_those_of_the_statevector_engine_for_a_seed() -> None:
    circuit, noise = _case(1.9, 0.1)
    result, outcome = counts_of(_run(circuit, noise, 3_000)), counts_of(run(circuit, noise, 3_000))
    differ = sum(abs(result.get(k, 0) - outcome.get(k, 0)) for k in {*result, *outcome})
    assert differ <= 2 * 3  # rounding moves a shot at the edge of two outcomes


def test_a_shot_does_not_depend_on_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    circuit, noise = _case(2.0, 0.0)
    result = _run(circuit, noise, 600)
    monkeypatch.setattr("simulators.tensornetwork.mps.ensemble.MOST_VALUES", 500)
    monkeypatch.setattr("simulators.tensornetwork.mps.trajectories.ROWS_AT_ONCE", 50)
    monkeypatch.setattr("simulators.trajectories.shot_blocks.SHOTS_AT_ONCE", 70)
    parted = _run(circuit, noise, 600)
    assert (result.outcomes, result.counts) == (parted.outcomes, parted.counts)


def test_a_layer_of_drawn_operators_does_not_pass_the_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nothing tells 200 shots apart until an operator is drawn on every qubit for each of them."""
    most, sizes = 2_000, list[int]()
    monkeypatch.setattr(ensemble, "MOST_VALUES", most)
    apply = ensemble.ChainEvolution._apply

    def noted(own: ensemble.ChainEvolution, states: ensemble.ChainEnsemble, *given: Any) -> None:
        apply(own, states, *given)
        sizes.append(states.size)

    monkeypatch.setattr(ensemble.ChainEvolution, "_apply", noted)
    circuit = layers(8, 6, np.random.default_rng(5)).circuit()
    after = circuit.ops.size - 8 - 1
    damped = relaxation(400.0, 1.0, 1.0)
    noise = program([(after, (qubit,), damped) for qubit in range(8)])
    result = _run(circuit, noise, 200)
    assert sum(result.counts) == 200
    assert most < max(sizes) <= ensemble.LAYER_GROWTH * most


def test_an_error_costs_its_light_cone(monkeypatch: pytest.MonkeyPatch) -> None:
    """One error of each shot, at the first or at the last layer: the other blocks are shared."""
    applied: list[int] = []
    split = right_canonical.split_pairs

    def counted(
        pairs: Sequence[right_canonical.BlockProduct], *args: float, **given: bool
    ) -> object:
        applied.append(len(pairs))
        return split(pairs, *args, **given)

    monkeypatch.setattr(right_canonical, "split_pairs", counted)
    random = np.random.default_rng(1)
    arrays = Arrays(16, 16)
    for layer in range(6):
        for qubit in range(16):
            arrays.add("u", [qubit], (), random.uniform(0, 6, 3).tolist())
        for qubit in range(layer % 2, 15, 2):
            arrays.add("cx", [qubit, qubit + 1])
    circuit = arrays.measure(range(16)).circuit()

    def run(after: int, flipped: float) -> int:
        applied.clear()
        noise = program([(after, (8,), from_paulis(np.array([1.0 - flipped, flipped, 0, 0])))])
        assert _run(circuit, noise, 50).remark.endswith(f" {1 + (flipped > 0)} error patterns")
        return sum(applied)

    last = circuit.ops.size - 16 - 4  # the last gate on qubit 8 and another one
    assert operations(circuit)[last].qubits == (7, 8)
    assert [run(after, 0.5) - run(after, 0.0) for after in (last, 8)] == [1, 1 + 2 + 3 + 4 + 5 + 6]


def test_operators_are_drawn_on_any_pair_of_qubits() -> None:
    """Channels on pairs that no gate joins, before all gates, on overlapping pairs, and drawn for
    every shot: means of all Pauli strings of a pair are exact."""
    random = np.random.default_rng(2)
    arrays = Arrays(5, 0)
    for qubit in range(5):
        arrays.add("u", [qubit], (), random.uniform(0, 6, 3).tolist())
    arrays.add("cx", [0, 4]).add("barrier", [1, 3]).add("cx", [2, 1]).add("cz", [3, 0])
    arrays.add("u", [3], (), [0.3, 0.2, 0.1]).add("cx", [4, 3])
    circuit = arrays.circuit()
    damped = relaxation(300, 0.5, 0.6)
    pair = depolarizing(0.05, 2).then(tensor(damped, relaxation(900, 0.5, 1.0)))
    located = [(-1, (4, 1), pair), (5, (4, 0), pair), (5, (0, 2), pair), (6, (1, 3), pair)]
    located += [(8, (3, 0), pair), (8, (2, 0), pair), (8, (0, 3), pair), (9, (1,), damped)]
    located += [(10, (3, 4), pair), (10, (1, 2), pair)]
    noise = program(located)
    exact = Exact(circuit, noise).rho
    labels = ["IIIZZ", "ZIIIZ", "IZXII", "XIIIX", "YIYII", "IIZII", "ZZZZZ", "IXIXI"]
    sums = tuple(PauliSum((label,), np.ones(1)) for label in labels)
    result = _run(circuit, noise, 4_000, outputs=("expectation",), observables=sums)
    values = np.frombuffer(result.expectations).reshape(-1, 2)
    for label, (value, error) in zip(labels, values.tolist(), strict=True):
        operator = functools.reduce(np.kron, [PAULIS[letter] for letter in label])
        assert abs(value - np.trace(operator @ exact).real) < 5 * error, label


@pytest.mark.parametrize("kraus", [False, True])
def test_wide_circuit_has_the_moments_of_its_edges(kraus: bool) -> None:
    """Qubits at the ends of a chain of 40 depend on few others: their moments are exact."""
    width, depth = 40, 5
    circuit = layers(width, depth, np.random.default_rng(4)).circuit()
    located = device_noise(circuit, 1.2) if kraus else after_gates(circuit, _depolarizing)
    noise, shots = program(located), 400 if kraus else 1_000
    counts = counts_of(_run(circuit, noise, shots))
    for qubits in ((0,), (0, 1), (39,), (38, 39)):
        label = "".join("Z" if q in qubits else "I" for q in reversed(range(width)))
        given = {"outputs": ("expectation",), "observables": (PauliSum((label,), np.ones(1)),)}
        exact = _run(circuit, noise, 0, engine="densitymatrix", **given).expectations
        mask = sum(1 << qubit for qubit in qubits)
        odd = sum(count for key, count in counts.items() if (key & mask).bit_count() % 2)
        p = 0.5 - 0.5 * float(np.frombuffer(exact)[0])
        assert abs(odd - shots * p) < 5 * np.sqrt(shots * p * (1 - p)), label


def _depolarizing(row: Operation) -> list[tuple[tuple[int, ...], Channel]]:
    return [(row.qubits, depolarizing(0.02, len(row.qubits)))] if row.name != "measure" else []


def test_a_bounded_bond_is_reported_as_truncation() -> None:
    random = np.random.default_rng(3)
    circuit = layers(8, 10, random).circuit()
    noise = program([(0, (0,), depolarizing(0.01, 1)), (20, (4,), relaxation(300, 60, 60))])
    full = _run(circuit, noise, 20)
    cut = _run(circuit, noise, 20, settings=(("bond", 4),))
    assert full.truncation == 0.0
    assert 1e-3 < cut.truncation < 1.0
    assert cut.remark.startswith("bond 4,")
