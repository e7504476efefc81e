"""A pool on GPUs through the service: client, IBM's client, QPM, killed workers, mixed tasks.

One command on a machine with a GPU: `python -m bench run gpu_pool` brings an environment up whose
pool has a worker for each GPU, compares counts with those of the processor, kills workers during
tasks, and submits mixed tasks for `--minutes`: wide states, many small circuits, trajectories,
sweeps of wide noisy circuits, expectation values. Qiskit Aer's and CUDA-Q's GPU backends run the
wide circuit beside it where they are installed. Without a GPU nothing is measured, and the exit
status is 1. `--quick` has narrow circuits and half a minute, for a rehearsal.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from argparse import Namespace
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from qiskit import QuantumCircuit, qasm2, transpile
from qiskit.quantum_info import SparsePauliOp

import simenv
from bench.harness import Report, timed
from bench.harness.environments import home, served, simenv as command
from bench.harness.options import SEED, Option
from simenv.cli.admin.gateway import variables
from simenv.client.client import Client
from simenv.client.tasks.task import Task
from simenv.qpm_check.plugin import PluginTarget
from simulators.gpu.devices.detect import find_gpu, refusal

POOL, PATIENCE_S = "g", 900.0
OPTIONS = (
    SEED,
    Option("--minutes", default=10.0, help="of mixed tasks", quick=0.5),
    Option("--qubits", default=28, help="of the wide states", quick=14),
    Option("--swept", default=127, help="qubits of the noisy circuits on a lattice", quick=8),
    Option("--shots", default=1_000, help="of each task", quick=40),
    Option("--kills", default=5, help="workers that are killed", quick=1),
)
_SHOTS = [1_000]  # of each task
KEYS = ("wrong", "lost", "client_s", "sampler_s", "qpm_s", "sweep_s", "tasks_per_s", "aer", "cudaq")
_SAMPLER = """
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


def run(options: Namespace) -> Report:
    report = Report("gpu_pool", "a pool on GPUs through the service")
    reason = refusal(find_gpu())
    if reason is not None:
        for key in KEYS:
            report.not_measured(key, key, reason[0])
        return report
    random = np.random.default_rng(options.seed)
    _SHOTS[0] = options.shots
    with ExitStack() as stack:
        stack.enter_context(home())
        pools = ("main:workers=1", f"{POOL}:engine=gpu,workers=auto")
        url, tokens = stack.enter_context(served(1, *pools))
        client = stack.enter_context(simenv.connect("bench"))
        wide, swept = _layered(options.qubits, 4, random), _chain(options.swept, 3, random)
        wrong = _agreement(client, options, random)
        report.at_most("wrong", wrong, "results that differ from the processor's")
        seconds = _seconds(lambda: _submit(client, wide, "gpu").result(PATIENCE_S))
        report.at_most("client_s", seconds, f"client, {options.qubits} qubits, s")
        _peers(report, wide, seconds)
        seconds = _seconds(lambda: _noisy(client, swept).result(PATIENCE_S))
        report.at_most("sweep_s", seconds, f"noisy counts, {options.swept} qubits, 3 layers, s")
        report.at_most("sampler_s", _ibm(url, tokens[0], wide), "SamplerV2 of IBM's client, s")
        report.at_most("qpm_s", _qpm(client, wide), "QPM plugin, s")
        lost = _killed(client, _layered(options.qubits, 40, random), options.kills)
        report.at_most("lost", lost, f"tasks without their result after {options.kills} kills")
        rate = _mixed(client, options, random)
        report.at_least("tasks_per_s", rate, "mixed tasks/s")
    return report


def _layered(qubits: int, layers: int, random: np.random.Generator) -> QuantumCircuit:
    """Rotations, and cx on a ring."""
    result = QuantumCircuit(qubits, qubits)
    for layer in range(layers):
        for qubit in range(qubits):
            result.u(*random.uniform(0, 6, 3), qubit)
        for qubit in range(layer % 2, qubits - 1, 2):
            result.cx(qubit, qubit + 1)
        result.cx(qubits - 1, 0)
    result.measure(range(qubits), range(qubits))
    return result


def _chain(qubits: int, layers: int, random: np.random.Generator) -> QuantumCircuit:
    """A kicked Ising chain."""
    result = QuantumCircuit(qubits, qubits)
    for angle in random.uniform(0.3, 0.9, layers):
        result.rx(angle, range(qubits))
        for qubit in range(qubits - 1):
            result.rzz(-np.pi / 2, qubit, qubit + 1)
    result.measure(range(qubits), range(qubits))
    return result


def _seconds(call: Callable[[], object]) -> float:
    """Return the seconds of the second call: the first one loads kernels and plans."""
    call()
    return timed(call)[0]


def _submit(client: Client, circuit: QuantumCircuit, engine: str, seed: int = 1) -> Task:
    return client.submit(circuit, shots=_SHOTS[0], seed=seed, engine=engine)


def _noisy(
    client: Client, circuit: QuantumCircuit, engine: str = "gpu_sweep", seed: int = 1
) -> Task:
    return client.submit(circuit, shots=_SHOTS[0], seed=seed, engine=engine, device="fez")


def _agreement(client: Client, options: Namespace, random: np.random.Generator) -> int:
    """Return the results on GPUs that are not those of the processor for the same seed."""
    narrow = _layered(min(options.qubits, 18), 4, random)
    swept = _chain(min(options.swept, 40), 2, random)
    pairs = [
        (_submit(client, narrow, "gpu"), _submit(client, narrow, "statevector")),
        (_noisy(client, swept), _noisy(client, swept, "sweep")),
    ]
    counts = [tuple(task.result(PATIENCE_S).counts for task in pair) for pair in pairs]
    return sum(one != two for one, two in counts)


def _ibm(url: str, token: str, circuit: QuantumCircuit) -> float:
    """Return the seconds of a job of IBM's unmodified client, in a process of its own."""
    found = variables(url, "bench", token, [])
    kept = ("PATH", "HOME", "TMPDIR", "LANG", "LD_LIBRARY_PATH")
    environ = {name: os.environ[name] for name in kept if name in os.environ}
    ended = subprocess.run(
        [sys.executable, "-c", f"POOL, SHOTS = {POOL!r}, {_SHOTS[0]}\n{_SAMPLER}"],
        env={**environ, **found}, input=qasm2.dumps(circuit), capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    if ended.returncode:
        raise SystemExit(ended.stderr)
    return float(json.loads(ended.stdout.splitlines()[-1]))


def _qpm(client: Client, circuit: QuantumCircuit) -> float:
    """Return the seconds of a call of the QPM plugin in the stand-in host."""
    environ = {"SIMENV_SERVICE": client.service, "SIMENV_QPM_POOL": POOL}
    environ["SIMENV_QPM_RESERVATIONS"] = "optional"
    folder = Path(command(["qfw", "path"]).strip()).parent
    info = {
        "num_qubits": circuit.num_qubits, "num_shots": _SHOTS[0], "qasm": qasm2.dumps(circuit),
        "seed": 1,
    }  # fmt: skip
    with PluginTarget(folder.name, folder, environ).open(2) as subject:
        methods = subject.connect().methods
        return _seconds(lambda: methods.sync_run(dict(info)))


def _killed(client: Client, circuit: QuantumCircuit, kills: int) -> int:
    """Kill the worker of a running task so many times; return the tasks that end without the counts
    of an undisturbed one. Only processes of this environment are killed."""
    expected = _submit(client, circuit, "gpu").result(PATIENCE_S).counts
    lost = 0
    for _ in range(kills):
        task = _submit(client, circuit, "gpu")
        workers = [each for each in _busy(client, task) if each.pool == POOL]
        if workers:
            os.kill(workers[0].pid, signal.SIGKILL)
        lost += task.result(PATIENCE_S).counts != expected
    return lost


def _busy(client: Client, task: Task) -> list:  # type: ignore[type-arg]
    """Wait until a worker runs the task, or it has ended; return the busy workers."""
    while not task.done():
        if busy := [each for each in client.workers() if each.state == "BUSY"]:
            return busy
    return []


def _mixed(client: Client, options: Namespace, random: np.random.Generator) -> float:
    """Return the tasks per second while tasks of all kinds are submitted, some at once."""
    wide, swept = _layered(options.qubits, 4, random), _chain(options.swept, 3, random)
    small, noisy = _layered(8, 3, random), _layered(13, 2, random)
    bare = wide.remove_final_measurements(inplace=False)
    values = [SparsePauliOp("Z" * options.qubits)]
    kinds: dict[str, Callable[[int], Task]] = {
        "wide": lambda seed: _submit(client, wide, "gpu", seed),
        "small": lambda seed: _submit(client, small, "gpu", seed),
        "noisy": lambda seed: _noisy(client, noisy, "gpu", seed),
        "sweep": lambda seed: _noisy(client, swept, seed=seed),
        "expectation": lambda seed: client.submit(
            bare, shots=None, seed=seed, engine="gpu", outputs=("expectation",), observables=values
        ),
    }
    end, begun = time.perf_counter() + 60 * options.minutes, time.perf_counter()
    done: Counter[str] = Counter()
    while time.perf_counter() < end:
        names = [*kinds, *["small"] * 20]
        tasks = [(name, kinds[name](int(random.integers(2**32)))) for name in names]
        for name, task in tasks:
            task.result(PATIENCE_S)
            done[name] += 1
    print("mixed tasks:", ", ".join(f"{number} {name}" for name, number in sorted(done.items())))
    return sum(done.values()) / (time.perf_counter() - begun)


def _peers(report: Report, circuit: QuantumCircuit, own_s: float) -> None:
    """Compare with the GPU backends of Qiskit Aer and CUDA-Q, where they are installed."""
    for key, prepare in (("aer", _aer), ("cudaq", _cudaq)):
        try:
            job = prepare(circuit)
        except (ImportError, LookupError) as error:
            report.not_measured(key, f"{key} on the GPU", str(error))
            continue
        report.at_most(key, own_s / _seconds(job), f"of the time of {key} on the GPU, wide state")


def _aer(circuit: QuantumCircuit) -> Callable[[], object]:
    from qiskit_aer import AerSimulator

    backend = AerSimulator(method="statevector")
    if "GPU" not in backend.available_devices():
        raise LookupError("qiskit-aer here has no GPU: pip install qiskit-aer-gpu")
    backend.set_options(device="GPU")
    return lambda: backend.run(circuit, shots=_SHOTS[0]).result().get_counts()


def _cudaq(circuit: QuantumCircuit) -> Callable[[], object]:
    import cudaq

    if not cudaq.num_available_gpus():
        raise LookupError("CUDA-Q sees no GPU")
    cudaq.set_target("nvidia")
    kernel = cudaq.make_kernel()
    qubits = kernel.qalloc(circuit.num_qubits)
    for each in transpile(circuit, basis_gates=["rz", "ry", "cx"]).data:
        places = [qubits[circuit.find_bit(qubit).index] for qubit in each.qubits]
        name = each.operation.name
        if name == "cx":
            kernel.cx(*places)
        elif name in ("rz", "ry"):
            getattr(kernel, name)(float(each.operation.params[0]), places[0])
    kernel.mz(qubits)
    return lambda: cudaq.sample(kernel, shots_count=_SHOTS[0])
