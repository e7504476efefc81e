"""The inverse quantum Fourier transform on several QPUs, compiled from the circuit of one."""

from __future__ import annotations

import itertools
import math
from argparse import Namespace
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from qiskit import QuantumCircuit
from qiskit.synthesis.qft import synth_qft_full

import simenv
from bench.engine.linked import Machine
from bench.harness import SEED, Report, benchmark
from bench.harness.environments import home
from noise_models import snapshot as snapshots
from simenv.client.client import Client

CASES = ((8, 2), (8, 4), (12, 2), (12, 3), (16, 2))  # qubits and modules
PAIRS = {(8, 2): 4, (8, 4): 12, (12, 2): 6, (12, 3): 12, (16, 2): 8}  # qubits x other modules / 2
IDEAL_SHOTS = 100_000
RUNS = 3  # on one QPU, to compare with one another
FIDELITIES = {8: (0.999, 0.99, 0.97, 0.94), 12: (0.99, 0.94), 16: (0.97,)}  # of links, beside 1
SHOTS = {8: 2_000, 12: 400, 16: 80}


@benchmark(seed=SEED, most_qubits=(16, 8))
def linked_qft(report: Report, options: Namespace) -> None:
    """The inverse QFT on 2 to 4 linked QPUs, compared with one QPU, and its loss by links.

    Modules are fully coupled ions, all of them linked, as those of `linked_engines`; partition,
    remote gates and placement are the compiler's. Ideal runs of a random product state: the total
    variation distance to runs on one QPU relative to that of such runs to one another, which is
    sampling error. With noise: the share of shots that find an encoded number, by fidelity of the
    links; and the relative loss of this share by each pair and unit of infidelity, from all runs.
    """
    random = np.random.default_rng(options.seed)
    ratios, slopes = [], []
    with home() as folder:
        (folder / "devices").mkdir()
        with simenv.local(workers=1) as client:
            for case in (each for each in CASES if each[0] <= options.most_qubits):
                report.at_most("pairs", _pairs(client, folder, case) / PAIRS[case], f"{case}")
                ratios.append(_ideal(client, case, random))
                slopes += _noisy(client, folder, case, random)
    report.at_most("distance", max(ratios))
    losses, variances = np.array(slopes).T
    loss = float(np.average(losses, weights=1.0 / variances))
    report.at_most("loss_most", loss)
    report.at_least("loss_least", loss)


def _circuit(phases: Iterable[float], angle: float = math.pi / 2) -> QuantumCircuit:
    """Inverse QFT without swaps of qubits that are turned by an angle from |0>, with a phase
    each."""
    phases = list(phases)
    num_qubits = len(phases)
    result = QuantumCircuit(num_qubits)
    for qubit, phase in enumerate(phases):
        result.ry(angle, qubit)
        result.p(phase, qubit)
    result.compose(synth_qft_full(num_qubits, do_swaps=False, inverse=True), inplace=True)
    result.measure_all()
    return result


def _encoded(num_qubits: int, number: int) -> QuantumCircuit:
    """The circuit that finds a number."""
    return _circuit(math.tau * number / 2 ** (qubit + 1) for qubit in range(num_qubits))


def _store(folder: Path, case: tuple[int, int], fidelity: float) -> str:
    """Write the device of a case; return its name."""
    num_qubits, modules = case
    links = list(itertools.combinations(range(modules), 2))
    machine = Machine((num_qubits // modules,) * modules, links, fidelity)
    name = f"qft{num_qubits}_{modules}_{round(1e3 * fidelity)}"
    (folder / "devices" / f"{name}.json").write_bytes(snapshots.dump(machine.snapshot))
    return name


def _pairs(client: Client, folder: Path, case: tuple[int, int]) -> int:
    """Bell pairs of a shot."""
    name = _store(folder, case, 1.0)
    explanation = client.explain(_encoded(case[0], 1), device=name, shots=1)
    return sum(each.pairs for each in explanation.links)


def _ideal(client: Client, case: tuple[int, int], random: np.random.Generator) -> float:
    """Mean distance of the machine's run to those of one QPU, relative to the mean distance of
    these to one another."""
    circuit = _circuit(random.uniform(0.0, math.tau, case[0]).tolist(), angle=0.9)
    seeds = random.integers(2**32, size=RUNS + 1).tolist()
    alone = [client.run(circuit, shots=IDEAL_SHOTS, seed=seed).counts for seed in seeds[:RUNS]]
    device = f"qft{case[0]}_{case[1]}_1000"
    joined = client.run(
        circuit, device=device, noise="off", engine="statevector", shots=IDEAL_SHOTS, seed=seeds[-1]
    ).counts
    own = np.mean([_distance(a, b) for a, b in itertools.combinations(alone, 2)])
    other = np.mean([_distance(joined, each) for each in alone])
    print(f"{case}: distance to one QPU {other:.4f}, of two runs there {own:.4f}")
    return float(other / own)


def _distance(first: Mapping[str, int], second: Mapping[str, int]) -> float:
    keys = first.keys() | second.keys()
    return sum(abs(first.get(key, 0) - second.get(key, 0)) for key in keys) / (2 * IDEAL_SHOTS)


def _noisy(
    client: Client, folder: Path, case: tuple[int, int], random: np.random.Generator
) -> list[tuple[float, float]]:
    """Print the success by fidelity of the links; return the loss relative to perfect links, of a
    pair and unit of infidelity, and its variance."""
    num_qubits = case[0]
    number = int(random.integers(2**num_qubits))
    circuit, shots = _encoded(num_qubits, number), SHOTS[num_qubits]
    found = {}
    for fidelity in (1.0, *FIDELITIES[num_qubits]):
        counts = client.run(
            circuit, device=_store(folder, case, fidelity), engine="statevector", shots=shots,
            seed=int(random.integers(2**32)),
        ).counts  # fmt: skip
        found[fidelity] = counts.get(f"{number:0{num_qubits}b}", 0) / shots
    print(f"{case}: " + ", ".join(f"F {key:g}: {value:.3f}" for key, value in found.items()))
    least = min(found)
    if not found[1.0] or not found[least]:
        return []
    unit = PAIRS[case] * (1.0 - least)
    variance = sum((1.0 / found[key] - 1.0) / shots for key in (1.0, least))
    return [(math.log(found[1.0] / found[least]) / unit, variance / unit**2)]
