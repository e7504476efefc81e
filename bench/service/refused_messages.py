"""Memory of the service after large messages of a client that were refused.

A client with a key of role client sends messages of up to 7 MiB over CURVE and waits for each
refusal: one series for each path that a message takes. Some are refused by their size or as they
are decoded; others are well-formed, and refused when all of them was read. A path is an entry of
`BODIES` in `bench.testbed.attacks`. Then a user of the gateway sends tasks for an unknown device,
and jobs as qiskit-ibm-runtime encodes them for a missing backend. The figure is the growth of the
memory of the service in a series, and of the gateway in the last two.
"""

from __future__ import annotations

import base64
import json
import tempfile
from argparse import Namespace
from collections.abc import Callable
from contextlib import ExitStack
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import numpy as np
import psutil

import simenv
from bench.harness import Option, Report, installed
from bench.harness.environments import home, remote_key, service_process, simenv as command
from bench.service.gateway import served
from bench.service.gateway_jobs import PREFIX, encoded
from bench.testbed.attacks import BODIES, WARM_UP_MESSAGES, growth_bytes
from simenv.model import Program

MATRIX_QUBITS = 9
JOB_GATES = 640_000  # whose QPY takes 7 MiB in a job, compressed
OPTIONS = (Option("--messages", default=200, quick=30),)


def run(options: Namespace) -> Report:
    report = Report("refused_messages", f"{options.messages} refused messages on each path")
    with (
        tempfile.TemporaryDirectory() as folder,
        simenv.local(workers=1, listen="tcp://127.0.0.1:0") as client,
    ):
        _, user_key = remote_key(client, "mallory", folder)
        service = service_process(client)
        for name in BODIES:
            growth = growth_bytes(service, user_key, name, options.messages)
            report.at_most("growth_mib", growth / 2**20, f"{name}: growth of the service, MiB")
    with ExitStack() as stack:
        stack.enter_context(home())
        url, (secret,) = stack.enter_context(served(1))
        client = stack.enter_context(simenv.connect("bench"))
        status = json.loads(command(["gateway", "status", "--name", "bench", "--json"]))
        processes = {"service": service_process(client), "gateway": psutil.Process(status["pid"])}
        paths: dict[str, tuple[str, str, Callable[[int], bytes]]] = {
            "http_task": ("/api/v1/tasks", "Bearer", _task)
        }
        if installed("qiskit_ibm_runtime"):
            paths["http_job"] = PREFIX + "/jobs", "apikey", _jobs()
        else:
            label = "http_job: growth of the service, MiB"
            report.not_measured("growth_mib", label, "qiskit-ibm-runtime is not installed")
        for name, (path, scheme, body) in paths.items():
            headers = {"Authorization": f"{scheme} {secret}", "Content-Type": "application/json"}
            before = {}
            for number in range(WARM_UP_MESSAGES + options.messages):
                if number == WARM_UP_MESSAGES:
                    before = {key: each.memory_info().rss for key, each in processes.items()}
                _refused(Request(url + path, body(number), headers))
            for key, each in processes.items():
                growth = each.memory_info().rss - before[key]
                report.at_most("growth_mib", growth / 2**20, f"{name}: growth of the {key}, MiB")
    return report


def _task(number: int) -> bytes:
    """Return a task of 5.6 MiB, with a matrix: the gateway refuses as many gates by their time."""
    size = 1 << MATRIX_QUBITS
    matrix = np.diag(np.exp(1e-6j * number * np.arange(size)))
    program = Program(
        *(2, MATRIX_QUBITS, 1, (("c", 1),), ("unitary", "measure")),
        np.array([[MATRIX_QUBITS, 0, 0], [1, 1, 0]], np.uint16).tobytes(),
        np.array([0, 1], np.uint16).tobytes(),
        np.array([*range(MATRIX_QUBITS), 0], np.uint16).tobytes(),
        *(bytes(2), b""),
        matrices=(matrix.tobytes(),),
    )
    packed = base64.b64encode(program.packed()).decode()
    return json.dumps({"packed": packed, "shots": 1, "device": f"none-{number}"}).encode()


def _jobs() -> Callable[[int], bytes]:
    """Return the function that gives the body of a job, a valid one but for its backend."""
    from qiskit import QuantumCircuit

    circuit = QuantumCircuit(1)
    for angle in np.random.default_rng(1).random(JOB_GATES).tolist():
        circuit.ry(angle, 0)
    circuit.measure_all()
    job = json.loads(encoded([circuit]))
    return lambda number: json.dumps(job | {"backend": f"none-{number}"}).encode()


def _refused(request: Request) -> None:
    """Send a request. Raises SystemExit unless its device or backend is answered as unknown."""
    try:
        with urlopen(request) as answer:
            raise SystemExit(f"{request.full_url} was accepted: {answer.read(1_000)!r}")
    except HTTPError as error:
        if error.code != 404:
            raise SystemExit(f"{request.full_url}: {error.code} {error.read(1_000)!r}") from error
