"""Prices of circuits: forecasts against runs, CPU time of a price, and the wait of others."""

from __future__ import annotations

import multiprocessing
import tempfile
import threading
import time
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
from qiskit import QuantumCircuit

import simenv
from bench.circuits import built, device_pairs, kicked_native
from bench.harness import SEED, Report, benchmark, probed
from bench.harness.environments import cores, cpu_s, service_process
from bench.service.devices import WIDTH, kicked_ising_circuit
from simenv.client.client import Client
from simenv.errors import SimenvError
from testbed.attackers import READY_S
from testbed.keys import remote_key

METHODS = multiprocessing.get_context("spawn")
DEVICE, SHOTS, STEPS = "fez", 1_000, 3
ORDINARY = (30, 60, 127, 154)  # qubits of kicked Ising circuits
DEEP = (8, 12, 16)  # steps of heavy circuits on the whole device
CONNECTIONS = 4  # of the user with heavy circuits
GONE_S, LOOK_S = 1.0, 2.0  # after the end of a client, and the time of the look
Random = np.random.Generator


@benchmark(seed=SEED, circuits=(1_000, 40), rows=(len(ORDINARY), 2))
def pricing(report: Report, options: Namespace) -> None:
    """Prices of circuits before they run: errors of forecasts, CPU time, and waits of other users.

    Kicked Ising circuits as in textbooks, rx and rzz with default options on parts of `fez`: the
    forecast of the engine's time against the run. CPU time of the service for the price of deep
    circuits on the whole device. Then a user with a key asks for the prices of such circuits over
    four connections, and another one submits a new circuit on 5 qubits, and one on 18 qubits, again
    and again: times until each is accepted, that is, priced. When the first user's process is
    killed, the cores that the service still uses a second later.
    """
    random = np.random.default_rng(options.seed)
    with (
        simenv.local(workers=1, listen="tcp://127.0.0.1:0") as near,
        tempfile.TemporaryDirectory() as folder,
    ):
        near.run(kicked_ising_circuit(DEVICE, 20, 2, 0.5), device=DEVICE, shots=10)  # loads kernels
        ratios = [_off_by(near, qubits, random) for qubits in ORDINARY[: options.rows]]
        report.at_most("forecast_off_by", max(ratios))
        service = service_process(near)
        spent: list[float] = []
        for steps in DEEP:
            circuit = _deep(steps, random.uniform(0.2, 1.2))
            before = cpu_s(service)
            with suppress(SimenvError):
                near.explain(circuit, device=DEVICE, shots=SHOTS, compile="never")
            spent.append(cpu_s(service) - before)
        report.at_most("price_cpu_s", max(spent))
        heavy, _ = remote_key(near, "heavy", folder)
        other, _ = remote_key(near, "other", folder)
        with simenv.connect(service=other) as client, _submitting(heavy, options.circuits) as user:
            questions = {
                f"{width}_qubits": partial(_submit_small, client, width, random.spawn(1)[0])
                for width in (5, 18)
            }
            with probed(questions, 0.01) as times:
                user.join()
            for name, each in times.items():
                print(f"{name}: {len(each)} accepted, longest {max(each) * 1e3:.0f} ms")
                report.p99_ms("wait_ms", each, name)
        with _submitting(heavy, 10**6) as user:
            time.sleep(5.0)
            user.kill()
            user.join()
            time.sleep(GONE_S)
            report.at_most("gone_cores", cores(LOOK_S, service)[0])


def _off_by(client: Client, qubits: int, random: Random) -> float:
    """Return the factor between the forecast of a circuit and its run, at least 1."""
    circuit = kicked_ising_circuit(DEVICE, qubits, STEPS, random.uniform(0.5, 0.7))
    how: dict[str, Any] = {"device": DEVICE, "shots": SHOTS}
    choice = client.explain(circuit, **how).engines[0]
    result = client.run(circuit, seed=int(random.integers(2**32)), **how)
    assert result.engine == choice.engine
    seconds = float(result.timing.run_s)
    print(f"{qubits} x {STEPS}: {choice.engine}, {choice.seconds:.2g} s, took {seconds:.2g} s")
    return max(choice.seconds / seconds, seconds / choice.seconds)


def _deep(steps: int, kick: float) -> QuantumCircuit:
    """Return a kicked Ising circuit on the whole device, in native gates."""
    pairs = device_pairs(DEVICE, working=True)
    qubits = sorted({qubit for pair in pairs for qubit in pair})
    circuit = built(WIDTH, kicked_native(qubits, pairs, steps, kick), len(qubits))
    circuit.measure(qubits, range(len(qubits)))
    return circuit


def _submit_small(client: Client, width: int, random: Random) -> None:
    circuit = QuantumCircuit(width, width)
    for qubit in range(width):
        circuit.sx(qubit)
        circuit.rz(random.uniform(0, 6), qubit)
        circuit.sx(qubit)
    circuit.measure(range(width), range(width))
    client.submit(circuit, device=DEVICE, shots=10, compile="never")


@contextmanager
def _submitting(file: Path, count: int) -> Iterator[BaseProcess]:
    """Start a process that asks about `count` heavy circuits, and yield it once it begins."""
    ready = METHODS.Barrier(2)
    process = METHODS.Process(target=_submit_heavy, args=(file, count, ready))
    process.start()
    try:
        ready.wait(READY_S)
        yield process
    finally:
        process.kill()
        process.join()


def _submit_heavy(file: Path, count: int, ready: Any) -> None:
    """Ask for prices of heavy circuits, over several connections at once."""

    def submit(numbers: range) -> None:
        with simenv.connect(service=file) as client:
            for number in numbers:
                with suppress(SimenvError):
                    circuit = _deep(DEEP[number % len(DEEP)], 0.2 + 1e-6 * number)
                    client.explain(circuit, device=DEVICE, shots=SHOTS, compile="never")

    parts = [range(k, count, CONNECTIONS) for k in range(CONNECTIONS)]
    threads = [threading.Thread(target=submit, args=(part,)) for part in parts]
    ready.wait(READY_S)
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
