"""Frontends of other frameworks over an environment: the time they add, and their peers."""

from __future__ import annotations

import json
import statistics
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from qiskit.circuit.library import real_amplitudes
from qiskit.primitives.containers.sampler_pub import SamplerPub
from qiskit.quantum_info import SparsePauliOp, random_pauli_list

import simenv
from bench import harness
from bench.circuits import measured, wide_circuit
from bench.harness.environments import HttpConnection, served
from bench.peers.libraries import simulator as aer_simulator
from simenv.client.client import Client
from simenv.frontends.qiskit import SimenvBackend, SimenvEstimator, SimenvSampler

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
import vqls as example

Array = NDArray[np.float64]
SHOTS, CIRCUITS = 1_024, 480
WIDTH, OBSERVABLES, TERMS, SETS = 8, 50, 4, 200
PUBS, GATES = 100, 45  # three layers of ry with a ladder of cx
JOB_FACTOR, POLL_S = 1.3, 0.005  # of the frontend's own time; between two looks at a job
PREFIX = "/experimental/api/v1"


# --- gradient steps of the solver of examples/vqls.py ---------------------------------------------


def _steps(
    ways: Mapping[str, Callable[[Array], Any]], rounds: int, check: Callable[[dict[str, Any]], None]
) -> harness.Times:
    """Return the seconds of a gradient step in each round, scaled to 480 circuits: seven sets of
    angles with 72 Hadamard tests each. A way goes from a step's angles to its result; `check` is
    given the results of each round."""
    rng, results = np.random.default_rng(5), dict[str, Any]()
    angles = rng.uniform(0, 3, (rounds + 1, 3))

    def taken(name: str, turn: int) -> float:
        seconds, results[name] = harness.timed(lambda: ways[name](angles[turn]))
        if name == list(ways)[-1]:
            check(results)
        return seconds * CIRCUITS / (7 * len(example.ROWS))

    times = harness.in_rounds({name: partial(taken, name) for name in ways}, rounds)
    harness.print_times(times)
    return times


def _gradient_of(means: Callable[[Array], Any]) -> Callable[[Array], Array]:
    """Return a way to the gradient from one to the means of all tests, whose parameters it gets,
    float64 [504, 11]."""

    def way(angles: Array) -> Array:
        table = np.array(means(example.bindings_of(example.shifted(angles))))
        table = table.reshape(-1, len(example.ROWS))
        example.cost(table[0])
        return example.gradient(table[0], table[1:])

    return way


def _same_slopes(slopes: dict[str, Any]) -> None:
    assert np.all(np.ptp(list(slopes.values()), axis=0) < 1.0), slopes  # shot noise


@harness.benchmark(rounds=(15, 3))
def vqls(report: harness.Report, options: Namespace) -> None:
    """One step of a variational linear solver: from the parameter vector to the gradient.

    504 circuits of 4 qubits and 1,024 shots (examples/vqls.py), scaled to 480: the angles of the
    shifted circuits, binding, the whole path through the service with accepts on disk, counts,
    means, cost and gradient; by one sweep of bindings, and by a bound QuantumCircuit for each test.
    Aer binds at run time in this process in the same rounds: no service, no journal.
    """
    circuit = example.hadamard_test()

    def means(client: Client, work: Callable[[Array], Any], bindings: Array) -> list[float]:
        tasks = client.submit_many(work(bindings), shots=SHOTS)
        return [example.mean(task.result()) for task in tasks]

    def aer(bindings: Array) -> list[float]:
        binds = [{p: list(bindings[:, k]) for k, p in enumerate(circuit.parameters)}]
        simulator = aer_simulator(runtime_parameter_bind_enable=True)
        result = simulator.run(circuit, parameter_binds=binds, shots=SHOTS).result()
        counts = (result.get_counts(k) for k in range(len(bindings)))
        return [(each.get("0", 0) - each.get("1", 0)) / SHOTS for each in counts]

    def bound(bindings: Array) -> list[Any]:
        return [circuit.assign_parameters(row) for row in bindings]

    with simenv.local(workers=2, durability="accepted") as client:
        ways = {"one sweep": partial(means, client, lambda bindings: (circuit, bindings)),
                "each bound": partial(means, client, bound)}  # fmt: skip
        if harness.installed("qiskit_aer"):
            ways["aer"] = aer
        steps = {name: _gradient_of(way) for name, way in ways.items()}
        times = _steps(steps, options.rounds, _same_slopes)
    for name in ("one sweep", "each bound"):
        report.seconds("step_s", times[name], name)


@harness.benchmark(rounds=(7, 2))
def frontends_pennylane(report: harness.Report, options: Namespace) -> None:
    """One step of a variational linear solver through PennyLane: 480 circuits, in three ways.

    `batch` writes out 504 tapes for `qml.execute`, including the time in which PennyLane makes
    them; `broadcast` is one QNode whose angles are arrays; `gradient` is the jacobian by parameter
    shifts of a QNode whose tests are broadcast (examples/vqls_frontends.py). PennyLane's
    default.qubit runs the same in the same rounds; simenv accepts tasks on disk.
    """
    if not harness.installed("pennylane"):
        return report.none_measured("no PennyLane")
    import pennylane as qml
    from vqls_frontends import hadamard_tests

    switches = example.switches()

    def node(tests: Callable[..., Any], device: Any, method: str | None) -> Any:
        return qml.set_shots(qml.QNode(tests, device, diff_method=method), SHOTS)

    def batch(device: Any, angles: Array) -> Any:
        make = qml.tape.make_qscript(hadamard_tests, shots=SHOTS)
        tapes = [make(row) for row in example.bindings_of(example.shifted(angles))]
        return qml.execute(tapes, device, diff_method=None)

    def broadcast(device: Any, angles: Array) -> Any:
        bindings = example.bindings_of(example.shifted(angles))
        return node(hadamard_tests, device, None)(list(bindings.T))

    def gradient(device: Any, angles: Array) -> Any:
        tests = node(lambda x: hadamard_tests([*x, *switches.T]), device, "parameter-shift")
        return qml.jacobian(tests)(qml.numpy.array(angles, requires_grad=True))

    ways = {"batch": batch, "broadcast": broadcast, "gradient": gradient}

    def check(results: dict[str, Any]) -> None:
        for way in ways:
            sums = [float(np.sum(each)) for name, each in results.items() if name.endswith(way)]
            assert np.ptp(sums) < 5 * np.sqrt(2 * 504 / SHOTS), (way, sums)

    with simenv.local(workers=2, durability="accepted") as client:
        devices = {"simenv": qml.device("simenv", wires=4, env=client, seed=1),
                   "default.qubit": qml.device("default.qubit", wires=4, seed=1)}  # fmt: skip
        steps = {f"{name} {way}": partial(ways[way], devices[name])
                 for name in devices for way in ways}  # fmt: skip
        times = _steps(steps, options.rounds, check)
    for way in ways:
        report.seconds(f"{way}_s", times[f"simenv {way}"])


# --- Qiskit's primitives --------------------------------------------------------------------------


@harness.benchmark(rounds=(9, 3))
def frontends(report: harness.Report, options: Namespace) -> None:
    """Frontends of other frameworks: the time they add to the plain client, and their peers.

    An estimator's PUB of 50 observables and 200 sets of parameter values, beside the estimator of
    Qiskit Aer in this process, without service and journal; a sampler's PUBs; a step of the
    variational loop of `vqls`; and a backend of 156 qubits.
    """
    with simenv.local(workers=2, durability="accepted") as client:
        for key in ("device_first_s", "device_cached_s"):
            seconds, target = harness.timed(lambda: SimenvBackend("fez", client).target)
            assert target.num_qubits == 156
            report.seconds(key, seconds)
        backend = SimenvBackend(env=client)
        _estimator(report, client, backend, min(options.rounds, 3))  # Aer takes seconds
        circuits = _sampled_circuits()
        sampler = SimenvSampler(backend, default_shots=SHOTS)

        def plain() -> None:
            for task in client.submit_many(circuits, shots=SHOTS, outputs=("memory",)):
                _ = task.result().memory

        ways = {"plain client": plain, "simenv": lambda: sampler.run(circuits).result()}
        times = harness.rounds_of(ways, options.rounds, 1)
        harness.print_times(times)
        gap_s = float(np.median(np.subtract(times["simenv"], times["plain client"])))
        report.seconds("sampler_ms", gap_s / PUBS)
        _variational(report, backend, options.rounds)


def _sampled_circuits() -> list[Any]:
    return [measured(WIDTH, wide_circuit("ansatz", WIDTH, k)[:GATES]) for k in range(PUBS)]


def _estimator(report: harness.Report, client: Client, backend: SimenvBackend, rounds: int) -> None:
    rng = np.random.default_rng(1)
    circuit = real_amplitudes(WIDTH, reps=3)
    paulis = [random_pauli_list(WIDTH, TERMS, seed=k, phase=False) for k in range(OBSERVABLES)]
    sums = [[SparsePauliOp(each, rng.normal(size=TERMS))] for each in paulis]
    pub = (circuit, sums, rng.uniform(0, 2 * np.pi, (SETS, circuit.num_parameters)))
    own = SimenvEstimator(backend)
    ways: dict[str, Callable[[], Any]] = {"simenv": lambda: own.run([pub]).result()}
    if harness.installed("qiskit_aer"):
        from qiskit_aer.primitives import EstimatorV2

        ways["aer"] = lambda: EstimatorV2().run([pub]).result()
    with _sent_messages(client) as messages:
        reference = ways["simenv"]()[0].data.evs
    report.at_most("messages", len(messages))
    times = harness.rounds_of(ways, rounds)
    for name, way in ways.items():
        assert np.allclose(way()[0].data.evs, reference, atol=1e-9), name
    harness.print_times(times)
    ours, *peers = (statistics.median(times[name]) for name in ways)
    report.share("estimator_share", ours, peers, reason="qiskit-aer is not installed")


@contextmanager
def _sent_messages(client: Client) -> Iterator[list[int]]:
    """Yield a list that receives the number of tasks of each submit message sent meanwhile."""
    session, sizes = client.session, list[int]()
    send = session.submits.send
    session.submits.send = lambda *words: (sizes.append(len(words[3])), send(*words))[1]
    try:
        yield sizes
    finally:
        session.submits.send = send


def _variational(report: harness.Report, backend: SimenvBackend, rounds: int) -> None:
    circuit = example.hadamard_test().remove_final_measurements(inplace=False)
    observable = SparsePauliOp.from_sparse_list([("Z", [example.ANCILLA], 1.0)], example.WIDTH + 1)
    estimator = SimenvEstimator(backend, default_precision=SHOTS**-0.5)

    def single(bindings: Array) -> Array:
        (result,) = estimator.run([(circuit, observable, bindings)]).result()
        return np.asarray(result.data.evs)

    def each(bindings: Array) -> Array:
        result = estimator.run([(circuit, observable, row) for row in bindings]).result()
        return np.array([float(pub.data.evs) for pub in result])

    ways = {"one PUB": _gradient_of(single), "a PUB for each": _gradient_of(each)}
    for name, seconds in _steps(ways, rounds, _same_slopes).items():
        report.seconds("vqls_estimator_s", seconds, name)


@harness.benchmark(rounds=(9, 3))
def gateway_jobs(report: harness.Report, options: Namespace) -> None:
    """Jobs of IBM's clients: what the gateway adds to the frontend that runs them.

    A sampler's job of 100 PUBs, encoded as qiskit-ibm-runtime does, is posted to the gateway, its
    state is asked for every 5 ms, and its result is read; in the same rounds `SimenvSampler` runs
    the same PUBs over the same environment. A job is on the disk before it is accepted.
    """
    with served(1) as (client, url, (secret,)):
        circuits = _sampled_circuits()
        sampler = SimenvSampler(SimenvBackend("main", client))
        body = encoded_job(circuits)
        ways = {"frontend": lambda: sampler.run(circuits, shots=SHOTS).result(),
                "job": partial(_job, HttpConnection(url, secret), body)}  # fmt: skip
        times = harness.rounds_of(ways, options.rounds, 1)  # the process of the user starts before
    harness.print_times(times)
    ours, own = (statistics.median(times[name]) for name in ("job", "frontend"))
    report.seconds("beyond_ms", ours - JOB_FACTOR * own)


def encoded_job(circuits: list[Any]) -> bytes:
    """Return a sampler's job as qiskit-ibm-runtime sends it."""
    from qiskit_ibm_runtime import RuntimeEncoder

    pubs = [SamplerPub.coerce(circuit, SHOTS) for circuit in circuits]
    params = {"pubs": pubs, "version": 2, "support_qiskit": True}
    job = {"program_id": "sampler", "backend": "main", "params": params}
    return json.dumps(job, cls=RuntimeEncoder).encode()


def _job(http: HttpConnection, body: bytes) -> bytes:
    """Run a job; return its result. Raises SystemExit if it fails."""
    number = json.loads(http.request("POST", f"{PREFIX}/jobs", body))["id"]
    state = {"status": "Queued"}
    while state["status"] in ("Queued", "Running"):
        time.sleep(POLL_S)
        answer = http.request("GET", f"{PREFIX}/jobs/{number}?exclude_params=true")
        state = json.loads(answer)["state"]
    if state["status"] != "Completed":
        raise SystemExit(f"the job failed: {state}")
    return http.request("GET", f"{PREFIX}/jobs/{number}/results")
