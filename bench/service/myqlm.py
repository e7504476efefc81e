"""simenv-myqlm without myQLM: what its own half adds to the HTTP API."""

from __future__ import annotations

import json
import statistics
import sys
import time
from argparse import Namespace
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from bench import harness
from bench.harness.environments import HttpConnection, served

sys.path.insert(0, str(Path(__file__).parents[2] / "distributions" / "simenv-myqlm"))

JOBS, QUBITS, LAYERS, SHOTS = 100, 4, 5, 1_000
EVALUATIONS = 20


@harness.benchmark(rounds=(15, 3), seed=harness.SEED)
def myqlm(report: harness.Report, options: Namespace) -> None:
    """A batch of 100 jobs of myQLM relative to the HTTP API's own time for the same programs.

    Records of circuits of 4 qubits, in their two forms: 100 with the same gates and random angles,
    which are one sweep, and 100 different ones; and CPU time of single evaluations of an
    observable, one after the other. The API's own time is that of requests whose bodies were
    written before, over as many connections, whose answers are decoded and not looked at. myQLM's
    own classes, which nothing of simenv installs, take part in neither.
    """
    from simenv_myqlm.gateway import GatewayConnection
    from simenv_myqlm.records import Circuit, Gate, Job, Observable, Term
    from simenv_myqlm.runner import MAX_REQUESTS, Runner

    random = np.random.default_rng(options.seed)

    def same_gates() -> Circuit:
        gates = []
        for _ in range(LAYERS):
            turns = zip(random.uniform(-3, 3, QUBITS), range(QUBITS), strict=True)
            gates += [Gate("RY", (angle,), (qubit,)) for angle, qubit in turns]
            gates += [Gate("CNOT", (), (k, k + 1)) for k in range(QUBITS - 1)]
        return Circuit(QUBITS, tuple(gates))

    def other_gates() -> Circuit:
        gates = []
        for _ in range(LAYERS * QUBITS):
            first, second = map(int, random.permutation(QUBITS)[:2])
            gates.append(Gate(str(random.choice(["RX", "RY", "RZ"])), (random.random(),), (first,)))
            gates.append(Gate("CNOT", (), (first, second)))
        return Circuit(QUBITS, tuple(gates))

    energy = Observable((Term(0.5, "ZZ", (0, 1)), Term(0.2, "XX", (1, 2)), Term(0.1, "Y", (3,))))
    cases = {
        "sweep": [Job(same_gates(), SHOTS) for _ in range(JOBS)],
        "programs": [Job(other_gates(), SHOTS) for _ in range(JOBS)],
    }
    steps = [Job(same_gates(), observable=energy) for _ in range(EVALUATIONS)]
    with ExitStack() as stack:
        _, url, (token,) = stack.enter_context(served(1))
        connection = stack.enter_context(closing(GatewayConnection(url, token)))
        runner = Runner(connection, seed=options.seed)
        own = _Recorded(connection)
        threads = stack.enter_context(ThreadPoolExecutor(MAX_REQUESTS))

        def opened() -> list[HttpConnection]:  # when they are used: idle ones are closed
            made = [HttpConnection(url, token) for _ in range(MAX_REQUESTS)]
            return [stack.enter_context(closing(each)) for each in made]

        for name, jobs in cases.items():
            bodies = own.bodies(runner, jobs)
            assert len(bodies) == (1 if name == "sweep" else JOBS)
            raw = _sweep if name == "sweep" else _programs
            https = opened()
            ways = {"records": partial(runner.run, jobs),
                    "HTTP": partial(raw, https, threads, bodies)}  # fmt: skip
            times = harness.rounds_of(ways, options.rounds, 2)
            print(f"{JOBS} jobs, {name}:")
            harness.print_times(times)
            ours, theirs = (statistics.median(times[way]) for way in ways)
            report.at_most(f"{name}_share", ours / theirs)
        bodies = [own.bodies(runner, [job])[0] for job in steps]
        https = opened()
        times = harness.rounds_of(
            {"records": lambda: [runner.run([job]) for job in steps],
             "HTTP": lambda: [_post(https[0], body) for body in bodies]}, options.rounds, 2,
            time.process_time,  # both wait for the same gateway: its time is none of the difference
        )  # fmt: skip
    print(f"{EVALUATIONS} evaluations:")
    harness.print_times(times)
    gap = statistics.median(times["records"]) - statistics.median(times["HTTP"])
    report.seconds("evaluation_extra_ms", gap / EVALUATIONS)


class _Recorded:
    """Bodies of the submissions of a connection."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def bodies(self, runner: Any, jobs: list[Any]) -> list[bytes]:
        """Run jobs; return the bodies that were posted, in any order."""
        send, found = self._connection.request, list[bytes]()

        def request(method: str, path: str, body: Any = None, key: str = "") -> Any:
            if body is not None:
                found.append(json.dumps(body).encode())
            return send(method, path, body, key)

        self._connection.request = request
        try:
            runner.run(jobs)
        finally:
            del self._connection.request
        return found


def _post(http: HttpConnection, body: bytes) -> Any:
    return json.loads(http.request("POST", "/api/v1/tasks?wait=60", body))


def _programs(
    https: list[HttpConnection], threads: ThreadPoolExecutor, bodies: list[bytes]
) -> None:
    def some(number: int) -> list[Any]:
        return [_post(https[number], body) for body in bodies[number :: len(https)]]

    list(threads.map(some, range(len(https))))


def _sweep(https: list[HttpConnection], _: ThreadPoolExecutor, bodies: list[bytes]) -> None:
    (body,) = bodies
    (task,) = json.loads(https[0].request("POST", "/api/v1/sweeps", body))["tasks"]
    path = f"/api/v1/tasks/{task['id']}/result?wait=60&limit={JOBS}"
    page = json.loads(https[0].request("GET", path))
    assert len(page["results"]) == JOBS
