"""Frontends of other frameworks: the time they add to the plain client, and their peers.

Qiskit's frontend runs an estimator's PUB of 50 observables and 200 sets of parameter values, a
sampler's PUBs, a step of the variational loop of `vqls`, and a backend of 156 qubits. Peers run in
this process in the same rounds: the primitives of Qiskit Aer and Qiskit's StatevectorSampler and
StatevectorEstimator; they have no service and no journal.

    python -m bench run frontends [--rounds 9]
"""

from __future__ import annotations

import statistics
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from qiskit import QuantumCircuit
from qiskit.circuit.library import real_amplitudes
from qiskit.primitives import StatevectorEstimator, StatevectorSampler
from qiskit.quantum_info import SparsePauliOp, random_pauli_list

import simenv
from bench.harness.comparison import rounds_of
from bench.harness.options import Option
from bench.harness.report import Report, installed
from simenv.client.client import Client
from simenv.frontends.qiskit import SimenvBackend, SimenvEstimator, SimenvSampler

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
import vqls as example

WIDTH, OBSERVABLES, TERMS, SETS = 8, 50, 4, 200
PUBS, SHOTS = 100, 1_024
CIRCUITS = 480  # circuits of a step of the variational loop, as in `vqls`
Array = NDArray[np.float64]
Timed = dict[str, list[float]]
OPTIONS = (Option("--rounds", type=int, default=9, quick=3),)


def run(options: Namespace) -> Report:
    """Run the benchmark."""
    report = Report("frontends", "frontends: Qiskit's primitives and backend over an environment")
    with simenv.local(workers=2, durability="accepted") as client:
        _devices(report, client)
        backend = SimenvBackend(env=client)
        _estimator(report, client, backend, options.rounds)
        _sampler(report, client, backend, options.rounds)
        _variational(report, backend, options.rounds)
    return report


def _devices(report: Report, client: Client) -> None:
    """Time a backend of a device and its Target, made for the first time and again."""
    for key, when in (("device_first_s", "the first time"), ("device_cached_s", "again")):
        begin = time.perf_counter()
        target = SimenvBackend("fez", client).target
        seconds = time.perf_counter() - begin
        assert target.num_qubits == 156
        report.at_most(key, seconds, f"SimenvBackend('fez') with its Target, {when}, s")


def _estimator(report: Report, client: Client, backend: SimenvBackend, rounds: int) -> None:
    rng = np.random.default_rng(1)
    circuit = real_amplitudes(WIDTH, reps=3)
    sums = [
        SparsePauliOp(random_pauli_list(WIDTH, TERMS, seed=k, phase=False), rng.normal(size=TERMS))
        for k in range(OBSERVABLES)
    ]
    observables = [[each] for each in sums]
    values = rng.uniform(0, 2 * np.pi, (SETS, circuit.num_parameters))
    pub = (circuit, observables, values)
    simenv_estimator = SimenvEstimator(backend)
    methods: dict[str, Callable[[], Any]] = {"simenv": lambda: simenv_estimator.run([pub]).result()}
    if installed("qiskit_aer"):
        from qiskit_aer.primitives import EstimatorV2

        methods["aer"] = lambda: EstimatorV2().run([pub]).result()
    with _count_messages(client) as messages:
        reference = methods["simenv"]()[0].data.evs
    report.at_most("messages", len(messages), "messages with tasks of an estimator's PUB")
    times = rounds_of(methods, min(rounds, 3))  # Aer takes seconds
    entries = {name: method()[0].data.evs for name, method in methods.items()}
    for name, each in entries.items():
        assert np.allclose(each, reference, atol=1e-9), name
    few = (circuit, observables, values[:4])  # it evolves each pair separately
    begin = time.perf_counter()
    StatevectorEstimator().run([few]).result()
    times["StatevectorEstimator"] = [(time.perf_counter() - begin) * SETS / 4]
    title = f"{OBSERVABLES} observables, {SETS} sets of values, {WIDTH} qubits"
    _print(f"estimator, {title}", times)
    label = "time of that PUB, in shares of Aer's EstimatorV2"
    if "aer" not in times:
        report.not_measured("estimator_share", label, "qiskit-aer is not installed")
        return
    share = statistics.median(times["simenv"]) / statistics.median(times["aer"])
    report.at_most("estimator_share", share, label)


@contextmanager
def _count_messages(client: Client) -> Iterator[list[int]]:
    """Yield a list that receives the number of tasks of each submit message sent meanwhile."""
    session, sizes = client.session, list[int]()
    send = session.send_submit

    def counting(*arguments: Any) -> Any:
        sizes.append(len(arguments[3]))
        return send(*arguments)

    session.send_submit = counting  # type: ignore[method-assign]
    try:
        yield sizes
    finally:
        session.send_submit = send  # type: ignore[method-assign]


def _sampler(report: Report, client: Client, backend: SimenvBackend, rounds: int) -> None:
    circuits = [_random(k) for k in range(PUBS)]
    simenv_sampler = SimenvSampler(backend, default_shots=SHOTS)

    def plain() -> None:
        tasks = client.submit_many(circuits, shots=SHOTS, outputs=("memory",))
        for task in tasks:
            _ = task.result().memory

    methods: dict[str, Callable[[], Any]] = {
        "plain client": plain,
        "simenv": lambda: simenv_sampler.run(circuits).result(),
        "StatevectorSampler": lambda: (
            StatevectorSampler(default_shots=SHOTS).run(circuits).result()
        ),
    }
    if installed("qiskit_aer"):
        from qiskit_aer.primitives import SamplerV2

        methods["aer"] = lambda: SamplerV2(default_shots=SHOTS).run(circuits).result()
    rounds_of(methods, 1)  # warm-up
    times = rounds_of(methods, rounds)
    _print(f"sampler, {PUBS} PUBs of 8 qubits, {SHOTS} shots", times)
    gaps = np.subtract(times["simenv"], times["plain client"])
    report.at_most(
        "sampler_ms",
        1e3 * float(np.median(gaps)) / PUBS,
        "SimenvSampler, a PUB, beyond the plain client, ms",
    )


def _random(seed: int) -> QuantumCircuit:
    rng = np.random.default_rng(seed)
    circuit = QuantumCircuit(WIDTH)
    for _ in range(3):
        for qubit in range(WIDTH):
            circuit.ry(rng.uniform(0, 6), qubit)
        for qubit in range(WIDTH - 1):
            circuit.cx(qubit, qubit + 1)
    circuit.measure_all()
    return circuit


def _variational(report: Report, backend: SimenvBackend, rounds: int) -> None:
    """Time a gradient step of the variational loop, in seconds for 480 circuits."""
    circuit = example.hadamard_test().remove_final_measurements(inplace=False)
    observable = SparsePauliOp.from_sparse_list([("Z", [example.ANCILLA], 1.0)], example.WIDTH + 1)
    precision = SHOTS**-0.5
    estimator = SimenvEstimator(backend, default_precision=precision)
    rng = np.random.default_rng(5)

    def single(bindings: Array) -> Array:
        (result,) = estimator.run([(circuit, observable, bindings)]).result()
        return np.asarray(result.data.evs)

    def each(bindings: Array) -> Array:
        result = estimator.run([(circuit, observable, row) for row in bindings]).result()
        return np.array([float(pub.data.evs) for pub in result])

    methods = {"one PUB": single, "a PUB for each": each}
    times: Timed = {}
    for number in range(rounds + 1):
        angles = rng.uniform(0, 3, 3)
        for name, method in methods.items():
            seconds = _step(method, angles)
            if number:
                times.setdefault(name, []).append(seconds)
    _print("a gradient step of 480 circuits through SimenvEstimator", times)
    for name, result in times.items():
        report.at_most("vqls_estimator_s", statistics.median(result), f"such a step, {name}, s")


def _step(means: Callable[[Array], Array], angles: Array) -> float:
    begin = time.perf_counter()
    bindings = example.bindings_of(example.shifted(angles))
    table = means(bindings).reshape(-1, len(example.ROWS))
    example.gradient(table[0], table[1:])
    return (time.perf_counter() - begin) * CIRCUITS / len(bindings)


def _print(title: str, times: Timed) -> None:
    print(title)
    for name, result in times.items():
        median = statistics.median(result)
        print(f"  {name:22s}{median * 1e3:10.1f} ms  best {min(result) * 1e3:.1f}")
    print()
