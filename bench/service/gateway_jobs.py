"""Jobs of IBM's clients: what the gateway adds to the frontend that runs them.

A sampler's job of 100 PUBs, encoded as qiskit-ibm-runtime does, is posted to the gateway, its state
is asked for every 5 ms, and its result is read; in the same rounds `SimenvSampler` runs the same
PUBs over the same environment. The job is on the disk before it is accepted, and decoded from QPY.
"""

from __future__ import annotations

import json
import statistics
import time
from argparse import Namespace
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any
from urllib.request import Request, urlopen

from qiskit.primitives.containers.sampler_pub import SamplerPub

import simenv
from bench.circuits import measured, wide_circuit
from bench.harness import Report, rounds
from bench.harness.comparison import rounds_of
from bench.harness.environments import home
from bench.harness.gradient_steps import print_times
from bench.service.gateway import served
from simenv.frontends.qiskit import SimenvBackend, SimenvSampler

PUBS, WIDTH, GATES, SHOTS = 100, 8, 45, 1_024
FACTOR = 1.3  # of the frontend's own time
POLL_S = 0.005
PREFIX = "/experimental/api/v1"
OPTIONS = (rounds(9, quick=3),)


def run(options: Namespace) -> Report:
    report = Report("gateway_jobs", f"jobs of IBM's clients: {PUBS} PUBs of {WIDTH} qubits")
    with ExitStack() as stack:
        stack.enter_context(home())
        url, (secret,) = stack.enter_context(served(1))
        client = stack.enter_context(simenv.connect("bench"))
        circuits = [measured(WIDTH, wide_circuit("ansatz", WIDTH, k)[:GATES]) for k in range(PUBS)]
        sampler = SimenvSampler(SimenvBackend("main", client))
        body = encoded(circuits)
        methods: dict[str, Callable[[], Any]] = {
            "frontend": lambda: sampler.run(circuits, shots=SHOTS).result(),
            "job": lambda: _job(url, secret, body),
        }
        rounds_of(methods, 1)  # warm-up: the process of the user starts
        times = rounds_of(methods, options.rounds)
        print_times(times)
        ours, own = (statistics.median(times[name]) for name in ("job", "frontend"))
        label = f"a job of {PUBS} PUBs beyond {FACTOR} times SimenvSampler's time, ms"
        report.at_most("beyond_ms", 1e3 * (ours - FACTOR * own), label)
    return report


def encoded(circuits: list[Any]) -> bytes:
    from qiskit_ibm_runtime import RuntimeEncoder

    pubs = [SamplerPub.coerce(circuit, SHOTS) for circuit in circuits]
    params = {"pubs": pubs, "version": 2, "support_qiskit": True}
    job = {"program_id": "sampler", "backend": "main", "params": params}
    return json.dumps(job, cls=RuntimeEncoder).encode()


def _job(url: str, secret: str, body: bytes) -> bytes:
    """Run a job; return its result. Raises SystemExit if it fails."""

    def call(path: str, data: bytes | None = None) -> bytes:
        headers = {"Authorization": f"apikey {secret}", "Content-Type": "application/json"}
        with urlopen(Request(url + PREFIX + path, data, headers)) as answer:
            result: bytes = answer.read()
        return result

    number = json.loads(call("/jobs", body))["id"]
    state = {"status": "Queued"}
    while state["status"] in ("Queued", "Running"):
        time.sleep(POLL_S)
        state = json.loads(call(f"/jobs/{number}?exclude_params=true"))["state"]
    if state["status"] != "Completed":
        raise SystemExit(f"the job failed: {state}")
    return call(f"/jobs/{number}/results")
