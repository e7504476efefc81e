"""Clifford circuits with few other gates and noise, through the service, against Qiskit Aer."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping
from typing import Any

import numpy as np
from qiskit import QuantumCircuit, transpile
from scipy.stats import chi2_contingency

import simenv
from bench.harness import SEED, Report, benchmark, timed
from bench.harness.report import installed
from simenv.client.client import Client

WIDE, NARROW, NOISY, T_GATES, LAYERS, SHOTS = 40, 20, 12, 20, 12, 1_000
COMPARED_SHOTS, PARITIES = 20_000, 6
CLIFFORD = ("h", "s", "sx", "id")
Random = np.random.Generator


@benchmark(seed=SEED, circuits=(20, 3), compared=(6, 1))
def near_clifford(report: Report, options: Namespace) -> None:
    """Circuits of Clifford gates and 20 T gates on 40 qubits with noise, through the service.

    Twelve layers of random Clifford gates on each qubit and CX on random pairs, depolarizing noise
    after each, 1,000 shots by `auto`: submission to counts, and the forecast. Then circuits of the
    same kind on 20 qubits without noise and on 12 with it, whose counts of six random parities are
    compared with those of Aer's state vector by a chi-square test.
    """
    if not installed("ticit") or not installed("qiskit_aer"):
        return
    random, model = np.random.default_rng(options.seed), _noise()
    with simenv.local(workers=1) as client:
        client.run(_circuit(30, 2, random), noise=model, shots=10, engine="near_clifford")
        times, factors = [], []
        for _ in range(options.circuits):
            circuit, seed = _circuit(WIDE, T_GATES, random), int(random.integers(2**32))
            forecast = client.explain(circuit, noise=model, shots=SHOTS).engines[0].seconds
            how: dict[str, Any] = {"noise": model, "shots": SHOTS, "seed": seed}
            seconds, result = timed(lambda c=circuit, h=how: client.run(c, **h))
            assert result.engine == "near_clifford", result.engine_reason
            print(f"{seconds:.3f} s, forecast {forecast:.3f} s, {result.remark}")
            times.append(seconds)
            factors.append(max(seconds / forecast, forecast / seconds))
        report.seconds("counts_s", times)
        report.at_most("slowest_s", max(times))
        report.at_most("forecast_factor", float(np.median(factors)))
        for key, width, noise in (
            ("least_p_value", NARROW, None),
            ("least_noisy_p_value", NOISY, model),
        ):
            values = [
                _compared(client, _circuit(width, T_GATES, random), noise, random)
                for _ in range(options.compared)
            ]
            report.at_least(key, min(values))


def _compared(client: Client, circuit: QuantumCircuit, model: Any, random: Random) -> float:
    """Return p of the counts of the engine and of Aer under one distribution."""
    seed = int(random.integers(2**32))
    how: dict[str, Any] = {} if model is None else {"noise": model}
    result = client.run(circuit, engine="near_clifford", shots=COMPARED_SHOTS, seed=seed, **how)
    return _p_value(result.counts, _of_aer(circuit, model, seed), random)


def _circuit(width: int, t_gates: int, random: Random) -> QuantumCircuit:
    """Return layers of random gates on all qubits, all of them measured."""
    circuit = QuantumCircuit(width, width)
    places = set(random.choice(LAYERS * width, t_gates, replace=False).tolist())
    for layer in range(LAYERS):
        for qubit in range(width):
            getattr(circuit, str(random.choice(CLIFFORD)))(qubit)
            if layer * width + qubit in places:
                circuit.t(qubit)
        order = random.permutation(width).tolist()
        for control, target in zip(order[::2], order[1::2], strict=True):
            circuit.cx(control, target)
    circuit.measure(range(width), range(width))
    return circuit


def _noise() -> Any:
    from qiskit_aer.noise import NoiseModel, depolarizing_error

    model = NoiseModel()
    model.add_all_qubit_quantum_error(depolarizing_error(0.003, 2), ["cx"])
    model.add_all_qubit_quantum_error(depolarizing_error(0.0005, 1), ["h", "sx"])
    return model


def _of_aer(circuit: QuantumCircuit, model: Any, seed: int) -> dict[str, int]:
    from qiskit_aer import AerSimulator

    simulator = AerSimulator(method="statevector", noise_model=model, seed_simulator=seed)
    lowered = transpile(circuit, simulator, optimization_level=0)
    counts: dict[str, int] = simulator.run(lowered, shots=COMPARED_SHOTS).result().get_counts()
    return counts


def _p_value(ours: Mapping[str, int], theirs: Mapping[str, int], random: Random) -> float:
    """Return p of two samples' random parities under one distribution."""
    masks = [int(mask) for mask in random.integers(1, 2**NOISY, PARITIES)]
    table = np.zeros((2, 2**PARITIES))
    for row, counts in enumerate((ours, theirs)):
        for outcome, count in counts.items():
            bits = int(outcome.replace(" ", ""), 2)
            index = sum(((bits & mask).bit_count() & 1) << k for k, mask in enumerate(masks))
            table[row, index] += count
    return float(chi2_contingency(table[:, table.sum(axis=0) > 0]).pvalue)
