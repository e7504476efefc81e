"""A whole noisy QPU, three programs: a kicked Ising circuit on 127 qubits, the sampling step of
sample-based quantum diagonalization (SQD) on 52 qubits, and QAOA on 100 qubits.

Each runs on an emulated device with all its calibrated noise, and prints how long its counts took.
`python whole_qpu.py ising sqd qaoa` runs those that are named; SQD needs `pip install
qiskit-addon-sqd`.
"""

import importlib.util
import sys
import time

import numpy as np
from qiskit import QuantumCircuit, transpile
from qiskit.quantum_info import SparsePauliOp

import simenv
from simenv.frontends.qiskit import SimenvBackend

SHOTS = 1_000


def edges(target):
    """Coupled pairs of a device."""
    name = next(name for name in ("cz", "ecr") if name in target.operation_names)
    return sorted({tuple(sorted(pair)) for pair in target[name]})


def neighbours(target):
    """Coupled qubits of each qubit of a device."""
    near = {}
    for one, two in edges(target):
        near.setdefault(one, []).append(two)
        near.setdefault(two, []).append(one)
    return near


def native(circuit, target, places):
    """The circuit in the gates of a device, qubit k at places[k]."""
    return transpile(
        circuit, target=target, initial_layout=list(places), optimization_level=1,
        seed_transpiler=1,
    )  # fmt: skip


def counted(client, circuit, device, label):
    """Noisy counts, and a line about the time they took."""
    begin = time.perf_counter()
    result = client.run(circuit, device=device, shots=SHOTS, seed=7)
    seconds = time.perf_counter() - begin
    print(f"{label}: {SHOTS} shots in {seconds:.2f} s by {result.engine}")
    return result


def ising(client):
    """Kicked Ising circuit on a whole heavy-hex lattice, and the magnetization of its middle."""
    device, steps, qubit = "superconducting-heavy-hex", 3, 62
    target = SimenvBackend(device, client).target
    pairs = edges(target)
    circuit = QuantumCircuit(127)
    for _ in range(steps):
        circuit.rx(0.6, range(127))
        for pair in pairs:
            circuit.rzz(-np.pi / 2, *pair)
    circuit = native(circuit, target, range(127))
    observable = SparsePauliOp.from_sparse_list([("Z", [qubit], 1.0)], 127)
    begin = time.perf_counter()
    value = client.run(
        circuit, device=device, shots=None, outputs=("expectation",), observables=[observable]
    )
    seconds = time.perf_counter() - begin
    print(f"ising: <Z{qubit}> = {value.expectations[0]:.4f} in {seconds:.2f} s by {value.engine}")
    circuit.measure_all()
    result = counted(client, circuit, device, "ising")
    ones = sum(number for key, number in result.counts.items() if key[-1 - qubit] == "1")
    print(f"ising: <Z{qubit}> = {1 - 2 * ones / SHOTS:.3f} of the counts, readout included")


def sqd(client):
    """Samples of a Hubbard chain of 26 sites at half filling, and the energy in their subspace."""
    sites, hopping, repulsion = 26, 1.0, 4.0
    circuit = QuantumCircuit(2 * sites)
    for spin in range(2):
        first = spin * sites
        circuit.x(range(first + spin, first + sites, 2))
        for begin in (0, 1):
            for site in range(begin, sites - 1, 2):
                circuit.append(hop(0.2), [first + site, first + site + 1])
    circuit.cp(0.4, sites - 1, sites)
    circuit.measure_all()
    target = SimenvBackend("fez", client).target
    near = neighbours(target)
    path = longer([0], near, 2 * sites)
    result = counted(client, native(circuit, target, path), "fez", "sqd")
    if importlib.util.find_spec("qiskit_addon_sqd") is None:
        print("sqd: no energy: pip install qiskit-addon-sqd")
        return
    from qiskit_addon_sqd.counts import counts_to_arrays
    from qiskit_addon_sqd.fermion import solve_fermion
    from qiskit_addon_sqd.subsampling import postselect_by_hamming_right_and_left, subsample

    one_body = np.zeros((sites, sites))
    for site in range(sites - 1):
        one_body[site, site + 1] = one_body[site + 1, site] = -hopping
    two_body = np.zeros((sites,) * 4)
    two_body[(np.arange(sites),) * 4] = repulsion
    bits, weights = counts_to_arrays(result.counts)
    kept, weights = postselect_by_hamming_right_and_left(
        bits, weights, hamming_right=sites // 2, hamming_left=sites // 2
    )
    print(f"sqd: {len(kept)} of {len(bits)} bit strings have {sites} electrons")
    batch = subsample(kept, weights, 16, 1, rand_seed=1)[0] if len(kept) > 16 else kept
    begin = time.perf_counter()
    energy, *_ = solve_fermion(batch, one_body, two_body, open_shell=False)
    print(f"sqd: energy {energy:.3f} in {time.perf_counter() - begin:.1f} s")


def longer(path, near, length):
    """A path of so many qubits that continues this one; None if there is none."""
    if len(path) == length:
        return path
    for each in near[path[-1]]:
        if each not in path and (found := longer([*path, each], near, length)):
            return found
    return None


def hop(angle):
    """Rotation of an electron between two sites."""
    circuit = QuantumCircuit(2, name="hop")
    circuit.rxx(angle, 0, 1)
    circuit.ryy(angle, 0, 1)
    return circuit.to_gate()


def qaoa(client):
    """One layer of QAOA for a maximum cut of 100 qubits of fez."""
    device, width = "fez", 100
    target = SimenvBackend(device, client).target
    near, found = neighbours(target), [0]
    for qubit in found:
        found += [each for each in near[qubit] if each not in found]
    found = found[:width]
    pairs = [
        (found.index(one), found.index(two))
        for one in found for two in near[one] if one < two and two in found
    ]  # fmt: skip
    circuit = QuantumCircuit(width)
    circuit.h(range(width))
    for pair in pairs:
        circuit.rzz(0.8, *pair)
    circuit.rx(-1.2, range(width))
    circuit.measure_all()
    result = counted(client, native(circuit, target, found), device, "qaoa")
    cuts = [
        (sum(key[-1 - one] != key[-1 - two] for one, two in pairs), number)
        for key, number in result.counts.items()
    ]
    mean = sum(cut * number for cut, number in cuts) / SHOTS
    print(f"qaoa: cut {mean:.1f} of {len(pairs)} edges on average, {max(cuts)[0]} at best")


if __name__ == "__main__":
    with simenv.local() as local:
        for each in sys.argv[1:] or ("ising", "sqd", "qaoa"):
            globals()[each](local)
