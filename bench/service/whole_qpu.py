"""Counts on all qubits of an emulated QPU, with every calibrated channel, by each way in.

Kicked Ising circuits on the lattice of `fez` (156 qubits) and on parts of it that breadth-first
search finds, in the device's native cz and rz, 1,000 shots, submission to counts; the first of each
is new to the service. A chain of 156 qubits runs ten layers of random gates with cz between
neighbours. The same circuits run through IBM's unmodified client and through the QPM; all values
<Z> of the counts are compared with those of Pauli propagation.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from argparse import Namespace
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from qiskit import QuantumCircuit, qasm2
from qiskit.quantum_info import SparsePauliOp

import simenv
from bench.circuits import disjoint_layers
from bench.harness import Option, Report, timed
from bench.harness.environments import home, simenv as command
from bench.harness.options import SEED
from bench.service.gateway import served
from simenv.cli.admin.gateway import variables
from simenv.client.client import Client
from simenv.frontends.qiskit import SimenvBackend
from simenv.qpm_check.plugin import PluginTarget

DEVICE, WIDTH, SHOTS = "fez", 156, 1_000
KICK = 0.6
_MORE = 4_000  # shots of the comparison with propagation
# Qubits, steps, key of the goal.
ROWS = (
    (30, 2, "ising_30x2_s"), (60, 3, "ising_60x3_s"), (100, 3, "ising_100x3_s"),
    (WIDTH, 2, "ising_156x2_s"), (WIDTH, 3, "ising_156x3_s"), (WIDTH, 4, "ising_156x4_s"),
    (WIDTH, 5, "ising_156x5_s"),
)  # fmt: skip
OPTIONS = (
    SEED,
    Option("--deepest", default=5, help="steps of the deepest circuit on 156 qubits", quick=4),
)
_PRIMITIVES = """
import json, sys, time, warnings
warnings.filterwarnings("ignore")
from qiskit import qasm2
from qiskit.quantum_info import SparsePauliOp
from qiskit_ibm_runtime import EstimatorV2, QiskitRuntimeService, SamplerV2
backend = QiskitRuntimeService().backend("fez")
circuit = qasm2.loads(sys.stdin.read(), custom_instructions=qasm2.LEGACY_CUSTOM_INSTRUCTIONS)
sampler = SamplerV2(mode=backend)
for _ in range(2):
    begun = time.perf_counter()
    data = sampler.run([circuit], shots=SHOTS).result()[0].data
    sampler_s = time.perf_counter() - begun
assert sum(data.c.get_counts().values()) == SHOTS
bare = circuit.remove_final_measurements(inplace=False)
every = [SparsePauliOp.from_sparse_list([("Z", [q], 1.0)], bare.num_qubits)
         for q in range(bare.num_qubits)]
estimator = EstimatorV2(mode=backend)
for _ in range(2):
    begun = time.perf_counter()
    values = estimator.run([(bare, every)]).result()[0].data
    estimator_s = time.perf_counter() - begun
assert values.evs.shape == (bare.num_qubits,)
print(json.dumps({"sampler_s": sampler_s, "estimator_s": estimator_s}))
"""


def run(options: Namespace) -> Report:
    report = Report("whole_qpu", f"counts of {SHOTS:,} shots on emulated {DEVICE}, all channels")
    random = np.random.default_rng(options.seed)
    with ExitStack() as stack:
        stack.enter_context(home())
        url, tokens = stack.enter_context(
            served(1, "main:workers=1", f"emu:device={DEVICE},workers=1")
        )
        client = stack.enter_context(simenv.connect("bench"))
        pairs = sorted(
            {(min(pair), max(pair)) for pair in SimenvBackend(DEVICE, client).target["cz"]}
        )
        client.run(_kicked(pairs, 30, 2, 0.5), device=DEVICE, shots=10)  # loads the kernels
        for qubits, steps, key in ROWS:
            if steps > options.deepest:
                report.not_measured(key, _label(qubits, steps), "left out by --deepest")
                continue
            circuit = _kicked(pairs, qubits, steps, KICK + 1e-3 * random.random())
            _counts(report, client, circuit, key, _label(qubits, steps), random)
        chain = _chain(pairs, random)
        _counts(report, client, chain, "chain_s", "chain of 156 qubits, 10 layers, s", random)
        report.at_most("peak_gib", _peak_bytes(client) / 2**30, "peak memory of a worker, GiB")
        circuit = _kicked(pairs, WIDTH, 3, KICK)
        _agreement(report, client, circuit, random)
        _ibm(report, url, tokens[0], circuit)
        _qpm(report, client, circuit)
    return report


def _label(qubits: int, steps: int) -> str:
    return f"kicked Ising, {qubits} qubits, {steps} steps, s"


def _kicked(pairs: list[tuple[int, int]], qubits: int, steps: int, angle: float) -> QuantumCircuit:
    """Kicked Ising circuit on the first qubits that breadth-first search finds, in native gates:
    rzz(-pi/2) is cz and rz(pi/2), up to a phase."""
    chosen = _found(pairs, qubits)
    layers = disjoint_layers([pair for pair in pairs if {*pair} <= {*chosen}])
    circuit = QuantumCircuit(WIDTH, qubits)
    for _ in range(steps):
        for qubit in chosen:
            circuit.rz(np.pi / 2, qubit)
            circuit.sx(qubit)
            circuit.rz(angle + np.pi, qubit)
            circuit.sx(qubit)
            circuit.rz(np.pi / 2, qubit)
        for layer in layers:
            for one, two in layer:
                circuit.cz(one, two)
                circuit.rz(np.pi / 2, [one, two])
    circuit.measure(chosen, range(qubits))
    return circuit


def _found(pairs: list[tuple[int, int]], qubits: int) -> list[int]:
    """Qubits in breadth-first order; the isolated ones last."""
    near: dict[int, list[int]] = {}
    for one, two in pairs:
        near.setdefault(one, []).append(two)
        near.setdefault(two, []).append(one)
    result = [pairs[0][0]]
    for qubit in result:
        result += [each for each in sorted(near[qubit]) if each not in result]
    result += [qubit for qubit in range(WIDTH) if qubit not in result]
    return result[:qubits]


def _chain(pairs: list[tuple[int, int]], random: np.random.Generator) -> QuantumCircuit:
    """Ten layers of random gates on all qubits, with cz between neighbours of paths that cover the
    lattice."""
    edges = _paths(pairs)
    circuit = QuantumCircuit(WIDTH, WIDTH)
    for _ in range(10):
        for qubit in range(WIDTH):
            for angle in random.uniform(0, 2 * np.pi, 2):
                circuit.rz(angle, qubit)
                circuit.sx(qubit)
        for layer in disjoint_layers(edges):
            for pair in layer:
                circuit.cz(*pair)
    circuit.measure(range(WIDTH), range(WIDTH))
    return circuit


def _paths(pairs: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Pairs of disjoint paths: at most two at each qubit, and no cycle."""
    degree, root, result = [0] * WIDTH, list(range(WIDTH)), []

    def find(qubit: int) -> int:
        while root[qubit] != qubit:
            qubit = root[qubit]
        return qubit

    for one, two in pairs:
        if max(degree[one], degree[two]) < 2 and find(one) != find(two):
            root[find(one)] = find(two)
            degree[one] += 1
            degree[two] += 1
            result.append((one, two))
    return result


def _counts(
    report: Report,
    client: Client,
    circuit: QuantumCircuit,
    key: str,
    label: str,
    random: np.random.Generator,
) -> None:
    seed = int(random.integers(2**32))
    seconds, result = timed(lambda: client.run(circuit, device=DEVICE, shots=SHOTS, seed=seed))
    assert sum(result.counts.values()) == SHOTS
    timing = result.timing
    stages = (
        f"accepted {timing.accepted_s:.3f}, queued {timing.queued_s:.3f}, run {timing.run_s:.3f}"
    )
    print(f"{label[:-3]}: {result.engine}, {stages} s, compile {timing.compile_s}")
    report.at_most(key, seconds, label)


def _agreement(
    report: Report, client: Client, circuit: QuantumCircuit, random: np.random.Generator
) -> None:
    """Compare each <Z> of counts with the value by propagation, in its standard errors. Expectation
    values have no readout error, so neither have these counts."""
    without = {"qubit.readout": 0.0}
    seed = int(random.integers(2**32))
    result = client.run(circuit, device=DEVICE, shots=_MORE, seed=seed, noise=without)
    rows = np.array([[int(bit) for bit in key[::-1]] for key in result.counts], np.int64)
    sampled = 1.0 - 2.0 * (np.array(list(result.counts.values())) @ rows) / _MORE
    qubits = [
        circuit.find_bit(each.qubits[0]).index
        for each in circuit.data
        if each.operation.name == "measure"
    ]
    bare = circuit.remove_final_measurements(inplace=False)
    values = client.run(
        bare, device=DEVICE, shots=None, seed=seed, noise=without, outputs=("expectation",),
        observables=[SparsePauliOp.from_sparse_list([("Z", [q], 1.0)], WIDTH) for q in qubits],
        engine="pauli",
    )  # fmt: skip
    exact, stated = np.array(values.expectations), np.array(values.std_errors)
    off = (sampled - exact) / np.sqrt((1.0 - exact**2) / _MORE + stated**2)
    print(f"{result.engine} against {values.engine}: {values.remark}")
    label = f"<Z> of {_MORE:,} shots against propagation, 156 qubits, 3 steps, in standard errors"
    report.at_most("agreement_rms", float(np.sqrt(np.mean(off**2))), f"{label}: root mean square")
    report.at_most("agreement_most", float(np.abs(off).max()), f"{label}: largest")


def _peak_bytes(client: Client) -> int:
    """Largest resident memory that a worker has had."""
    peaks = []
    for worker in client.workers():
        status = Path(f"/proc/{worker.pid}/status").read_text()
        peaks.append(int(status.partition("VmHWM:")[2].split()[0]) << 10)
    return max(peaks)


def _ibm(report: Report, url: str, token: str, circuit: QuantumCircuit) -> None:
    """Time IBM's primitives in a process that knows the gateway's address alone."""
    found = variables(url, "bench", token, [])
    kept = ("PATH", "HOME", "TMPDIR", "LANG")
    environ = {name: os.environ[name] for name in kept if name in os.environ}
    ended = subprocess.run(
        [sys.executable, "-c", f"SHOTS = {SHOTS}\n{_PRIMITIVES}"], env={**environ, **found},
        input=qasm2.dumps(circuit), capture_output=True, text=True, check=False,
    )  # fmt: skip
    if ended.returncode:
        raise SystemExit(ended.stderr)
    answer = json.loads(ended.stdout.splitlines()[-1])
    for key, what in (("sampler_s", "SamplerV2"), ("estimator_s", "EstimatorV2, 156 values <Z>")):
        label = f"{what} of qiskit-ibm-runtime, 156 qubits, 3 steps, s"
        report.at_most(key, answer[key], label)


def _qpm(report: Report, client: Client, circuit: QuantumCircuit) -> None:
    """Time a call of the QPM plugin in the stand-in host."""
    environ = {"SIMENV_SERVICE": client.service, "SIMENV_QPM_POOL": "emu"}
    environ["SIMENV_QPM_RESERVATIONS"] = "optional"
    folder = Path(command(["qfw", "path"]).strip()).parent
    plugin = PluginTarget(folder.name, folder, environ)
    info = {
        "num_qubits": WIDTH, "num_shots": SHOTS, "qasm": qasm2.dumps(circuit), "seed": 1,
    }  # fmt: skip
    with plugin.open(2) as subject:
        methods = subject.connect().methods
        for _ in range(2):
            seconds, answer = timed(lambda: methods.sync_run(dict(info)))
    counts = answer["result"]["result"]["counts"]
    assert sum(counts.values()) == SHOTS
    report.at_most("qpm_s", seconds, "QPM plugin, 156 qubits, 3 steps, s")
