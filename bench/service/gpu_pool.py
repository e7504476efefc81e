"""A pool on GPUs through the service: client, IBM's client, QPM, killed workers, mixed tasks."""

from __future__ import annotations

import os
import signal
import time
from argparse import Namespace
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from qiskit import QuantumCircuit, qasm2, transpile
from qiskit.quantum_info import SparsePauliOp

import simenv
from bench.circuits import kicked, measured
from bench.harness import SEED, Report, benchmark, timed
from bench.harness.environments import home, ibm_client, qpm_plugin, served
from bench.peers.base import Gate
from simenv.client.client import Client
from simenv.client.tasks.task import Task
from simulators.gpu.devices.detect import find_gpu, refusal

POOL, PATIENCE_S = "g", 900.0
KEYS = ("wrong", "lost", "client_s", "sampler_s", "qpm_s", "sweep_s", "tasks_per_s", "aer", "cudaq")
SAMPLER = """
import json, sys, time, warnings
warnings.filterwarnings("ignore")
from qiskit import qasm2
from qiskit_ibm_runtime import QiskitRuntimeService, SamplerV2
circuit = qasm2.loads(sys.stdin.read(), custom_instructions=qasm2.LEGACY_CUSTOM_INSTRUCTIONS)
sampler = SamplerV2(mode=QiskitRuntimeService().backend(POOL))
for _ in range(2):
    begun = time.perf_counter()
    counts = sampler.run([circuit], shots=SHOTS).result()[0].data.c.get_counts()
    seconds = time.perf_counter() - begun
assert sum(counts.values()) == SHOTS
print(json.dumps(seconds))
"""
Random = np.random.Generator


@benchmark(seed=SEED, minutes=(10.0, 0.5), qubits=(28, 14), swept=(127, 8), shots=(1_000, 40),
           kills=(5, 1))  # fmt: skip
def gpu_pool(report: Report, options: Namespace) -> None:
    """A pool on GPUs through the service: client, IBM's client, QPM, killed workers, mixed tasks.

    On a machine with a GPU: an environment whose pool has a worker for each GPU. Counts are
    compared with those of the processor, workers are killed during tasks, and mixed tasks are
    submitted for `--minutes`: wide states, many small circuits, trajectories, sweeps of wide noisy
    circuits (`--swept` qubits), expectation values. Qiskit Aer's and CUDA-Q's GPU backends run the
    wide circuit beside it where they are installed. `--quick` is a rehearsal with narrow circuits.
    """
    reason = refusal(find_gpu())
    if reason is not None:
        for key in KEYS:
            report.not_measured(key, key, reason[0])
        return
    random, n, shots = np.random.default_rng(options.seed), options.qubits, options.shots
    pools = ("main:workers=1", f"{POOL}:engine=gpu,workers=auto")
    with home(), served(1, *pools) as (url, tokens), simenv.connect("bench") as client:
        work = _Work(client, shots)
        wide, swept = _layered(n, 4, random), _chain(options.swept, 3, random)
        narrow, few = _layered(min(n, 18), 4, random), _chain(min(options.swept, 40), 2, random)
        pairs = [(work.ideal(narrow), work.ideal(narrow, "statevector")),
                 (work.noisy(few), work.noisy(few, "sweep"))]  # fmt: skip
        wrong = sum(one.result(PATIENCE_S).counts != two.result(PATIENCE_S).counts
                    for one, two in pairs)  # fmt: skip
        report.at_most("wrong", wrong, "results that differ from the processor's")
        own_s = _seconds(lambda: work.ideal(wide).result(PATIENCE_S))
        report.at_most("client_s", own_s, f"client, {n} qubits, s")
        for key, prepare in (("aer", _aer), ("cudaq", _cudaq)):
            try:
                job = prepare(wide, shots)
            except (ImportError, LookupError) as error:
                report.not_measured(key, f"{key} on the GPU", str(error))
            else:
                label = f"of the time of {key} on the GPU, wide state"
                report.at_most(key, own_s / _seconds(job), label)
        seconds = _seconds(lambda: work.noisy(swept).result(PATIENCE_S))
        report.at_most("sweep_s", seconds, f"noisy counts, {options.swept} qubits, 3 layers, s")
        text, program = qasm2.dumps(wide), f"POOL, SHOTS = {POOL!r}, {shots}\n{SAMPLER}"
        seconds = ibm_client(url, tokens[0], program, text)
        report.at_most("sampler_s", float(seconds), "SamplerV2 of IBM's client, s")
        environ = {"SIMENV_SERVICE": client.service, "SIMENV_QPM_POOL": POOL}
        info = {"num_qubits": n, "num_shots": shots, "qasm": text, "seed": 1}
        with qpm_plugin(None, 2, **environ, SIMENV_QPM_RESERVATIONS="optional") as methods:
            seconds = _seconds(lambda: methods.sync_run(dict(info)))
        report.at_most("qpm_s", seconds, "QPM plugin, s")
        lost = work.killed(_layered(n, 40, random), options.kills)
        report.at_most("lost", lost, f"tasks without their result after {options.kills} kills")
        small, noisy = _layered(8, 3, random), _layered(13, 2, random)
        bare = wide.remove_final_measurements(inplace=False)
        values = {"outputs": ("expectation",), "observables": [SparsePauliOp("Z" * n)]}
        kinds: dict[str, Callable[..., Task]] = {
            "wide": partial(work.ideal, wide), "small": partial(work.ideal, small),
            "noisy": partial(work.noisy, noisy, "gpu"), "sweep": partial(work.noisy, swept),
            "expectation": partial(client.submit, bare, shots=None, engine="gpu", **values),
        }  # fmt: skip
        begun, done = time.perf_counter(), Counter[str]()
        while time.perf_counter() < begun + 60 * options.minutes:
            names = [*kinds, *["small"] * 20]
            tasks = [kinds[name](seed=int(random.integers(2**32))) for name in names]
            for task in tasks:
                task.result(PATIENCE_S)
            done.update(names)
        rate = done.total() / (time.perf_counter() - begun)
        print("mixed tasks:", dict(done))
        report.at_least("tasks_per_s", rate, "mixed tasks/s")


def _layered(qubits: int, layers: int, random: Random) -> QuantumCircuit:
    """Return rotations, and cx on a ring."""
    gates: list[Gate] = []
    for layer in range(layers):
        gates += [("u", (q,), tuple(random.uniform(0, 6, 3))) for q in range(qubits)]
        gates += [("cx", (q, q + 1), ()) for q in range(layer % 2, qubits - 1, 2)]
        gates.append(("cx", (qubits - 1, 0), ()))
    return measured(qubits, gates)


def _chain(qubits: int, layers: int, random: Random) -> QuantumCircuit:
    """Return a kicked Ising chain."""
    pairs = [(q, q + 1) for q in range(qubits - 1)]
    kicks = random.uniform(0.3, 0.9, layers)
    return measured(qubits, [gate for kick in kicks for gate in kicked(qubits, pairs, 1, kick)])


def _seconds(call: Callable[[], object]) -> float:
    """Return the seconds of the second call: the first one loads kernels and plans."""
    call()
    return timed(call)[0]


class _Work:
    """Tasks of one number of shots."""

    def __init__(self, client: Client, shots: int) -> None:
        self._client, self._shots = client, shots

    def ideal(self, circuit: QuantumCircuit, engine: str = "gpu", seed: int = 1) -> Task:
        return self._client.submit(circuit, shots=self._shots, seed=seed, engine=engine)

    def noisy(self, circuit: QuantumCircuit, engine: str = "gpu_sweep", seed: int = 1) -> Task:
        where = {"engine": engine, "device": "fez"}
        return self._client.submit(circuit, shots=self._shots, seed=seed, **where)

    def killed(self, circuit: QuantumCircuit, kills: int) -> int:
        """Kill the worker of a running task so many times; return the tasks that end without the
        counts of an undisturbed one. Only processes of this environment are killed."""
        expected, lost = self.ideal(circuit).result(PATIENCE_S).counts, 0
        for _ in range(kills):
            task, busy = self.ideal(circuit), list[Any]()
            while not task.done() and not busy:
                busy = [each for each in self._client.workers() if each.state == "BUSY"]
            for each in [each for each in busy if each.pool == POOL][:1]:
                os.kill(each.pid, signal.SIGKILL)
            lost += task.result(PATIENCE_S).counts != expected
        return lost


def _aer(circuit: QuantumCircuit, shots: int) -> Callable[[], object]:
    from qiskit_aer import AerSimulator

    backend = AerSimulator(method="statevector")
    if "GPU" not in backend.available_devices():
        raise LookupError("qiskit-aer here has no GPU: pip install qiskit-aer-gpu")
    backend.set_options(device="GPU")
    return lambda: backend.run(circuit, shots=shots).result().get_counts()


def _cudaq(circuit: QuantumCircuit, shots: int) -> Callable[[], object]:
    import cudaq

    if not cudaq.num_available_gpus():
        raise LookupError("CUDA-Q sees no GPU")
    cudaq.set_target("nvidia")
    kernel = cudaq.make_kernel()
    qubits = kernel.qalloc(circuit.num_qubits)
    for each in transpile(circuit, basis_gates=["rz", "ry", "cx"]).data:
        places = [qubits[circuit.find_bit(qubit).index] for qubit in each.qubits]
        name = each.operation.name
        if name in ("cx", "rz", "ry"):
            getattr(kernel, name)(*map(float, each.operation.params), *places)
    kernel.mz(qubits)
    return lambda: cudaq.sample(kernel, shots_count=shots)
