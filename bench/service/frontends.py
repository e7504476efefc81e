"""Frontends of other frameworks: the time they add to the plain client, and their peers.

Qiskit's frontend runs an estimator's PUB of 50 observables and 200 sets of parameter values, a
sampler's PUBs, a step of the variational loop of `vqls`, and a backend of 156 qubits. The estimator
of Qiskit Aer runs in this process in the same rounds; it has no service and no journal.
"""

from __future__ import annotations

import statistics
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from qiskit.circuit.library import real_amplitudes
from qiskit.quantum_info import SparsePauliOp, random_pauli_list

import simenv
from bench.circuits import measured, wide_circuit
from bench.harness import Report, installed, rounds, timed
from bench.harness.comparison import rounds_of
from bench.harness.gradient_steps import SHOTS, Array, example, print_times, step, timed_steps
from simenv.client.client import Client
from simenv.frontends.qiskit import SimenvBackend, SimenvEstimator, SimenvSampler

WIDTH, OBSERVABLES, TERMS, SETS = 8, 50, 4, 200
PUBS, GATES = 100, 45  # three layers of ry with a ladder of cx
OPTIONS = (rounds(9, quick=3),)


def run(options: Namespace) -> Report:
    report = Report("frontends", "frontends: Qiskit's primitives and backend over an environment")
    with simenv.local(workers=2, durability="accepted") as client:
        for key, when in (("device_first_s", "the first time"), ("device_cached_s", "again")):
            seconds, target = timed(lambda: SimenvBackend("fez", client).target)
            assert target.num_qubits == 156
            report.at_most(key, seconds, f"SimenvBackend('fez') with its Target, {when}, s")
        backend = SimenvBackend(env=client)
        _estimator(report, client, backend, options.rounds)
        _sampler(report, client, backend, options.rounds)
        _variational(report, backend, options.rounds)
    return report


def _estimator(report: Report, client: Client, backend: SimenvBackend, rounds: int) -> None:
    rng = np.random.default_rng(1)
    circuit = real_amplitudes(WIDTH, reps=3)
    sums = [
        SparsePauliOp(random_pauli_list(WIDTH, TERMS, seed=k, phase=False), rng.normal(size=TERMS))
        for k in range(OBSERVABLES)
    ]
    values = rng.uniform(0, 2 * np.pi, (SETS, circuit.num_parameters))
    pub = (circuit, [[each] for each in sums], values)
    simenv_estimator = SimenvEstimator(backend)
    methods: dict[str, Callable[[], Any]] = {"simenv": lambda: simenv_estimator.run([pub]).result()}
    if installed("qiskit_aer"):
        from qiskit_aer.primitives import EstimatorV2

        methods["aer"] = lambda: EstimatorV2().run([pub]).result()
    with _count_messages(client) as messages:
        reference = methods["simenv"]()[0].data.evs
    report.at_most("messages", len(messages), "messages with tasks of an estimator's PUB")
    times = rounds_of(methods, min(rounds, 3))  # Aer takes seconds
    for name, method in methods.items():
        assert np.allclose(method()[0].data.evs, reference, atol=1e-9), name
    print(f"estimator, {OBSERVABLES} observables, {SETS} sets of values, {WIDTH} qubits")
    print_times(times)
    ours, *peers = (statistics.median(times[name]) for name in methods)
    label = "time of that PUB, in shares of Aer's EstimatorV2"
    report.share("estimator_share", ours, peers, label, "qiskit-aer is not installed")


@contextmanager
def _count_messages(client: Client) -> Iterator[list[int]]:
    """Yield a list that receives the number of tasks of each submit message sent meanwhile."""
    session, sizes = client.session, list[int]()
    send = session.send_submit

    def counting(*arguments: Any) -> Any:
        sizes.append(len(arguments[3]))
        return send(*arguments)

    session.send_submit = counting
    try:
        yield sizes
    finally:
        session.send_submit = send


def _sampler(report: Report, client: Client, backend: SimenvBackend, rounds: int) -> None:
    circuits = [measured(WIDTH, wide_circuit("ansatz", WIDTH, k)[:GATES]) for k in range(PUBS)]
    simenv_sampler = SimenvSampler(backend, default_shots=SHOTS)

    def plain() -> None:
        tasks = client.submit_many(circuits, shots=SHOTS, outputs=("memory",))
        for task in tasks:
            _ = task.result().memory

    methods: dict[str, Callable[[], Any]] = {
        "plain client": plain,
        "simenv": lambda: simenv_sampler.run(circuits).result(),
    }
    rounds_of(methods, 1)  # warm-up
    times = rounds_of(methods, rounds)
    print(f"sampler, {PUBS} PUBs of 8 qubits, {SHOTS} shots")
    print_times(times)
    gap_s = float(np.median(np.subtract(times["simenv"], times["plain client"])))
    label = "SimenvSampler, a PUB, beyond the plain client, ms"
    report.at_most("sampler_ms", 1e3 * gap_s / PUBS, label)


def _variational(report: Report, backend: SimenvBackend, rounds: int) -> None:
    """Time a gradient step of the variational loop, in seconds for 480 circuits."""
    circuit = example.hadamard_test().remove_final_measurements(inplace=False)
    observable = SparsePauliOp.from_sparse_list([("Z", [example.ANCILLA], 1.0)], example.WIDTH + 1)
    estimator = SimenvEstimator(backend, default_precision=SHOTS**-0.5)

    def single(bindings: Array) -> Array:
        (result,) = estimator.run([(circuit, observable, bindings)]).result()
        return np.asarray(result.data.evs)

    def each(bindings: Array) -> Array:
        result = estimator.run([(circuit, observable, row) for row in bindings]).result()
        return np.array([float(pub.data.evs) for pub in result])

    times = timed_steps({"one PUB": step(single), "a PUB for each": step(each)}, rounds)
    print("a gradient step of 480 circuits through SimenvEstimator")
    print_times(times)
    for name, result in times.items():
        report.at_most("vqls_estimator_s", statistics.median(result), f"such a step, {name}, s")
