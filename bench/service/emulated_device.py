"""Circuits on an emulated device of 127 qubits: the first one, the next ones, and a flood.

The device is the Eagle processor that qiskit-ibm-runtime ships as `brisbane`, with all components
of its noise. An H gate on one qubit, which is compiled, is run by a service that has not used the
device before (snapshot, target, passes and model are made within the call; Qiskit is imported
before), then with all of them cached. The flood consists of 1,000 different structures of about 100
native gates on five coupled qubits with 4,096 shots, as fast as the two workers run them, from
QuantumCircuit objects to dicts of counts. Aer's density matrix runs circuits of the same kind with
its own model of the same snapshot, on two threads, in one call.

    python -m bench run emulated_device [--rounds 5] [--circuits 1000]
"""

from __future__ import annotations

import statistics
import time
from argparse import Namespace

import numpy as np
from qiskit import QuantumCircuit

import simenv
from bench.harness import Option, Report, installed, repeated_s, rounds, timed
from simenv.client.client import Client

DEVICE = "brisbane"
QUBITS = 127
SHOTS = 4_096
LAYERS = 9  # in each layer two one-qubit gates per qubit and two two-qubit gates
PEER_CIRCUITS = 40
SINGLE = 30  # one-gate circuits per round
OPTIONS = (
    rounds(5, quick=1),
    Option("--circuits", type=int, default=1_000, quick=100, help="of a round of the flood"),
)


def run(options: Namespace) -> Report:
    report = Report("emulated_device", f"{DEVICE}: {QUBITS} qubits, {SHOTS:,} shots, 2 workers")
    first_times, cached, rates, peers = [], [], [], []
    for number in range(options.rounds):
        with simenv.local(workers=2) as client:
            client.run(_one_gate("x"), shots=16)  # load kernels and Qiskit
            first_times.append(_timed_s(client))
            cached += [_timed_s(client) for _ in range(SINGLE)]
            path, pairs = _five_qubits(client)
            rng = np.random.default_rng(1_000 + number)
            _flood(client, [_native(path, pairs, rng) for _ in range(100)])  # warm-up
            circuits = [_native(path, pairs, rng) for _ in range(options.circuits)]
            rates.append(len(circuits) / _flood(client, circuits))
        if installed("qiskit_aer"):
            peers.append(_aer_rate([_native(path, pairs, rng) for _ in range(PEER_CIRCUITS)]))
    print(f"operations of a circuit: {sum(circuits[0].count_ops().values())}")
    print(f"simenv {statistics.median(rates):8.0f} circuits/s")
    if peers:
        print(f"Aer, density matrix {statistics.median(peers):8.0f} circuits/s\n")
    report.at_most("cold_ms", 1e3 * statistics.median(first_times), "one gate, first sight, ms")
    report.at_most("cached_ms", 1e3 * statistics.median(cached), "one gate, all cached, ms")
    report.at_most("target_s", _target_s(), f"Target of {QUBITS} qubits, s")
    report.at_least("flood_per_s", statistics.median(rates), "different 5-qubit circuits a second")
    return report


def _one_gate(name: str) -> QuantumCircuit:
    circuit = QuantumCircuit(1, 1)
    getattr(circuit, name)(0)
    circuit.measure(0, 0)
    return circuit


def _timed_s(client: Client) -> float:
    circuit = _one_gate("h")
    took_s, counts = timed(lambda: client.run(circuit, shots=SHOTS, device=DEVICE).counts)
    assert sum(counts.values()) == SHOTS
    return took_s


def _five_qubits(client: Client) -> tuple[list[int], list[tuple[int, int]]]:
    """Return a chain of five coupled qubits, and its pairs in the direction of the device's
    gate."""
    device = client.device(DEVICE)
    neighbours: dict[int, set[int]] = {}
    for a, b in device.coupling:
        neighbours.setdefault(a, set()).add(b)
        neighbours.setdefault(b, set()).add(a)
    chain = [0]
    while len(chain) < 5:
        chain.append(min(neighbours[chain[-1]] - set(chain)))
    return chain, [pair for pair in device.coupling if set(pair) <= set(chain)]


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


def _flood(client: Client, circuits: list[QuantumCircuit]) -> float:
    """Return the seconds until all counts are read."""
    begin = time.perf_counter()
    tasks = client.submit_many(circuits, shots=SHOTS, device=DEVICE)
    for task in tasks:
        assert len(task.result().counts) > 1
    return time.perf_counter() - begin


def _aer_rate(circuits: list[QuantumCircuit]) -> float:
    """Return the circuits per second of Aer's density matrix with its model of the snapshot."""
    from qiskit_aer import AerSimulator
    from qiskit_aer.noise import NoiseModel
    from qiskit_ibm_runtime import fake_provider

    backend = fake_provider.FakeBrisbane()
    simulator = AerSimulator(
        method="density_matrix", noise_model=NoiseModel.from_backend(backend),
        max_parallel_experiments=2, max_parallel_threads=2,
    )  # fmt: skip
    narrow = [_on_five_qubits(circuit) for circuit in circuits]
    simulator.run(narrow[:2], shots=SHOTS).result().get_counts(0)
    begin = time.perf_counter()
    result = simulator.run(narrow, shots=SHOTS).result()
    for k in range(len(narrow)):
        assert sum(result.get_counts(k).values()) == SHOTS
    return len(narrow) / (time.perf_counter() - begin)


def _on_five_qubits(circuit: QuantumCircuit) -> QuantumCircuit:
    """Return the circuit without its idle qubits.

    Aer would otherwise simulate the idle qubits. The remaining qubits get the noise of other qubits
    of the device, at the same cost.
    """
    used = sorted({circuit.find_bit(q).index for item in circuit.data for q in item.qubits})
    entry = QuantumCircuit(len(used), circuit.num_clbits)
    for item in circuit.data:
        qubits = [used.index(circuit.find_bit(q).index) for q in item.qubits]
        entry.append(item.operation, qubits, [circuit.find_bit(c).index for c in item.clbits])
    return entry


def _target_s() -> float:
    """Return the seconds to build the Target that circuits are transpiled against."""
    from simenv.transpiler.transpiler import target_of

    with simenv.local(workers=1) as client:
        client.run(_one_gate("x"), shots=16, device=DEVICE)
        device = client.device(DEVICE)
    return statistics.median(repeated_s(lambda: target_of(device), 3))
