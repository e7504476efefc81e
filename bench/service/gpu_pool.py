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
from qiskit import QuantumCircuit, transpile
from qiskit.quantum_info import SparsePauliOp

from bench.circuits import brickwork, kicked, measured
from bench.harness import SEED, Report, benchmark, timed
from bench.harness.environments import ibm_seconds, qpm_s, served
from simenv.client.client import Client
from simenv.client.tasks.task import Task
from simulators.gpu.devices.detect import find_gpu, refusal

POOL, PATIENCE_S = "g", 900.0
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
        return report.none_measured(reason[0])
    random, n, shots = np.random.default_rng(options.seed), options.qubits, options.shots
    layered = lambda width, depth: measured(width, brickwork(width, depth, options.seed))  # noqa: E731
    pools = ("main:workers=1", f"{POOL}:engine=gpu,workers=auto")
    with served(1, *pools) as (client, url, tokens):
        work = _Work(client, shots)
        wide, swept = layered(n, 4), _chain(options.swept, 3, random)
        narrow, few = layered(min(n, 18), 4), _chain(min(options.swept, 40), 2, random)
        pairs = [(work.ideal(narrow), work.ideal(narrow, "statevector")),
                 (work.noisy(few), work.noisy(few, "sweep"))]  # fmt: skip
        wrong = sum(one.result(PATIENCE_S).counts != two.result(PATIENCE_S).counts
                    for one, two in pairs)  # fmt: skip
        report.at_most("wrong", wrong)
        own_s = _seconds(lambda: work.ideal(wide).result(PATIENCE_S))
        report.seconds("client_s", own_s)
        for key, prepare in (("aer", _aer), ("cudaq", _cudaq)):
            try:
                job = prepare(wide, shots)
            except (ImportError, LookupError) as error:
                report.not_measured(key, str(error))
            else:
                report.at_most(key, own_s / _seconds(job))
        report.seconds("sweep_s", _seconds(lambda: work.noisy(swept).result(PATIENCE_S)))
        report.seconds("sampler_s", ibm_seconds(url, tokens[0], POOL, wide, shots)["sampler_s"])
        report.seconds("qpm_s", qpm_s(client, POOL, wide, shots))
        report.at_most("lost", work.killed(layered(n, 40), options.kills))
        small, noisy = layered(8, 3), layered(13, 2)
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
        print("mixed tasks:", dict(done))
        report.at_least("tasks_per_s", done.total() / (time.perf_counter() - begun))


def _chain(qubits: int, layers: int, random: Random) -> QuantumCircuit:
    pairs = [(q, q + 1) for q in range(qubits - 1)]
    kicks = random.uniform(0.3, 0.9, layers)
    return measured(qubits, [gate for kick in kicks for gate in kicked(qubits, pairs, 1, kick)])


def _seconds(call: Callable[[], object]) -> float:
    """Return the seconds of the second call: the first one loads kernels and plans."""
    call()
    return timed(call)[0]


class _Work:
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
