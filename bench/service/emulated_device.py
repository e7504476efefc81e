"""Circuits on an emulated device of 127 qubits: the first one, the next ones, and a flood.

The device is the Eagle processor that qiskit-ibm-runtime ships as `brisbane`, with all components
of its noise. An H gate on one qubit, which is compiled, is run by a service that has not used the
device before (snapshot, target, passes and model are made within the call; Qiskit is imported
before), then with all of them cached. The flood consists of 1,000 different structures of about 100
native gates on five coupled qubits with 4,096 shots, as fast as the two workers run them, from
QuantumCircuit objects to dicts of counts.
"""

from __future__ import annotations

import statistics
from argparse import Namespace
from collections.abc import Sequence

import numpy as np
from qiskit import QuantumCircuit

import simenv
from bench.circuits import measured
from bench.harness import Option, Report, repeated_s, rounds, timed, timed_s
from simenv.client.client import Client
from simenv.transpiler.transpiler import target_of

DEVICE = "brisbane"
QUBITS = 127
SHOTS = 4_096
LAYERS = 9  # in each layer two one-qubit gates per qubit and two two-qubit gates
SINGLE = 30  # one-gate circuits per round
OPTIONS = (
    rounds(5, quick=1),
    Option("--circuits", default=1_000, quick=100, help="of a round of the flood"),
)


def run(options: Namespace) -> Report:
    report = Report("emulated_device", f"{DEVICE}: {QUBITS} qubits, {SHOTS:,} shots, 2 workers")
    first_times, cached, rates = [], [], []
    for number in range(options.rounds):
        with simenv.local(workers=2) as client:
            client.run(_one_gate("x"), shots=16)  # load kernels and Qiskit
            first_times.append(_timed_s(client))
            cached += [_timed_s(client) for _ in range(SINGLE)]
            device = client.device(DEVICE)
            path, pairs = _five_qubits(device.coupling)
            rng = np.random.default_rng(1_000 + number)
            _flood(client, [_native(path, pairs, rng) for _ in range(100)])  # warm-up
            circuits = [_native(path, pairs, rng) for _ in range(options.circuits)]
            took_s = timed_s(lambda client=client, work=circuits: _flood(client, work))
            rates.append(len(circuits) / took_s)
    print(f"operations of a circuit: {sum(circuits[0].count_ops().values())}")
    report.at_most("cold_ms", 1e3 * statistics.median(first_times), "one gate, first sight, ms")
    report.at_most("cached_ms", 1e3 * statistics.median(cached), "one gate, all cached, ms")
    target_s = statistics.median(repeated_s(lambda: target_of(device), 3))
    report.at_most("target_s", target_s, f"Target of {QUBITS} qubits, s")
    report.at_least("flood_per_s", statistics.median(rates), "different 5-qubit circuits a second")
    return report


def _one_gate(name: str) -> QuantumCircuit:
    return measured(1, [(name, (0,), ())])


def _timed_s(client: Client) -> float:
    circuit = _one_gate("h")
    took_s, counts = timed(lambda: client.run(circuit, shots=SHOTS, device=DEVICE).counts)
    assert sum(counts.values()) == SHOTS
    return took_s


def _five_qubits(coupling: Sequence[tuple[int, int]]) -> tuple[list[int], list[tuple[int, int]]]:
    """Return a chain of five coupled qubits, and its pairs in the direction of the device's
    gate."""
    neighbours: dict[int, set[int]] = {}
    for a, b in coupling:
        neighbours.setdefault(a, set()).add(b)
        neighbours.setdefault(b, set()).add(a)
    chain = [0]
    while len(chain) < 5:
        chain.append(min(neighbours[chain[-1]] - set(chain)))
    return chain, [pair for pair in coupling if set(pair) <= set(chain)]


def _native(
    chain: list[int], pairs: list[tuple[int, int]], rng: np.random.Generator
) -> QuantumCircuit:
    """Return a random circuit of native gates."""
    circuit = QuantumCircuit(QUBITS, len(chain))
    for _ in range(LAYERS):
        for qubit in chain:
            circuit.rz(rng.uniform(0, 2 * np.pi), qubit)
            circuit.sx(qubit) if rng.random() < 0.7 else circuit.x(qubit)
        for k in rng.choice(len(pairs), 2, replace=False).tolist():
            circuit.ecr(*pairs[k])
    circuit.measure(chain, range(len(chain)))
    return circuit


def _flood(client: Client, circuits: list[QuantumCircuit]) -> None:
    """Run the circuits and read all counts."""
    for task in client.submit_many(circuits, shots=SHOTS, device=DEVICE):
        assert len(task.result().counts) > 1
