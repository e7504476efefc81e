"""A job that explodes when it is read ends its process alone; the others run once."""

import base64
import io
import json
import re
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pytest
from gateway_stand_in import GatewayStandIn, gateway_of
from qiskit import QuantumCircuit
from qiskit.circuit.library import PauliEvolutionGate
from qiskit.quantum_info import SparsePauliOp
from qiskit.synthesis import SuzukiTrotter
from qiskit_ibm_runtime import RuntimeEncoder
from waiting import until

from simenv.client.client import Client
from simenv.gateway import ibm
from simenv.gateway.ibm import processes
from simenv.gateway.ibm.endpoints import PREFIX
from simenv.transpiler.qpy import write_qpy
from simenv.wire.messages.credentials import TokenCertificate, TokenInfo

WAIT_S = 120.0
TRACE = "0af7651916cd43dd8448eb211c80319c"


class Api:
    """The API of a gateway in this process."""

    def __init__(self, url: str) -> None:
        self.client = httpx.Client(base_url=url + PREFIX, timeout=60.0)

    def submit(self, pubs: list[Any], program: str = "sampler", **fields: Any) -> httpx.Response:
        params = {"pubs": pubs, "version": 2, "support_qiskit": False}
        body = {"program_id": program, "backend": "main", "params": params, **fields}
        return self.client.post("/jobs", content=json.dumps(body, cls=RuntimeEncoder))

    def accepted(self, pubs: list[Any], **fields: Any) -> str:
        answer = self.submit(pubs, **fields)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["id"])

    def job(self, number: str) -> dict[str, Any]:
        result: dict[str, Any] = self.client.get(f"/jobs/{number}").json()
        return result

    def ended(self, number: str) -> dict[str, Any]:
        until(lambda: self.job(number)["status"] not in ("Queued", "Running"), WAIT_S)
        return self.job(number)


async def certificate(*_: object) -> TokenCertificate:
    """That of the environment's own user, whose processes connect without one."""
    return TokenCertificate(0, TokenInfo("1", "", "", "admin", "", 0.0, 0.0), "", "", 3_600.0)


@pytest.fixture
def api(env: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Api]:
    monkeypatch.setattr(GatewayStandIn, "certificate", certificate, raising=False)
    with gateway_of(env, tmp_path, ibm.routes) as gateway:
        opened = Api(gateway.url)
        yield opened
        opened.client.close()
    for child in psutil.Process().children():
        with suppress(psutil.Error):  # it has ended
            if "job_process" in " ".join(child.cmdline()):
                child.kill()


def bell() -> QuantumCircuit:
    circuit = QuantumCircuit(2)
    circuit.h(0)
    circuit.cx(0, 1)
    circuit.measure_all()
    return circuit


def encoded(data: bytes, kind: str) -> dict[str, str]:
    return {"__type__": kind, "__value__": base64.b64encode(zlib.compress(data)).decode()}


def large_claim() -> bytes:
    """A file whose gate has a definition that says it has two thousand million qubits."""
    inner = QuantumCircuit(1)
    inner.h(0)
    circuit = QuantumCircuit(1, 1)
    circuit.append(inner.to_gate(label="g"), [0])
    circuit.measure(0, 0)
    data = bytearray(write_qpy(circuit))
    place = [each.start() for each in re.finditer(rb"..f\0\x08\0\0\0\x01", data, re.DOTALL)][1]
    data[place + 5 : place + 9] = (2**31 - 1).to_bytes(4, "big")
    return bytes(data)


def long_definition() -> bytes:
    """A file with a gate of a few bytes, whose definition has 5^9 steps of three terms."""
    terms = SparsePauliOp(["XYZ", "ZZX", "YIY"])
    circuit = QuantumCircuit(3, 1)
    circuit.append(PauliEvolutionGate(terms, 1.0, synthesis=SuzukiTrotter(order=20)), range(3))
    circuit.measure(0, 0)
    return write_qpy(circuit)


def test_a_job_runs_and_its_samples_keep_their_order(api: Api, env: Client) -> None:
    number = api.accepted([[bell(), None, 50]])
    assert api.ended(number)["status"] == "Completed"
    result = api.client.get(f"/jobs/{number}/results")
    assert result.headers["content-type"].startswith("text/plain")
    samples = result.json()["results"][0]["data"]["meas"]["samples"]
    seed = result.json()["metadata"]["simenv"][0]["seed"]
    own = env.run(bell(), shots=50, seed=seed, outputs="memory")
    assert [int(sample, 16) for sample in samples] == [int(s, 2) for s in own.memory_strings()]


def test_process_of_jobs_has_no_variable_of_the_gateway(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SITE_PASSWORD", "of the gateway")
    assert api.ended(api.accepted([[bell(), None, 10]]))["status"] == "Completed"
    found = []
    for child in psutil.Process().children():
        with suppress(psutil.Error):  # it has ended
            if "job_process" in " ".join(child.cmdline()):
                found.append(child.environ())
    (environ,) = found
    assert "SITE_PASSWORD" not in environ
    assert environ["PATH"]


@pytest.mark.parametrize("program", ["sampler", "estimator"])
def test_tasks_of_job_continue_span_of_its_request(api: Api, env: Client, program: str) -> None:
    api.client.headers["traceparent"] = f"00-{TRACE}-b7ad6b7169203331-00"
    circuit = bell().remove_final_measurements(inplace=False)
    pub = [bell(), None, 50] if program == "sampler" else [circuit, "ZZ"]
    assert api.ended(api.accepted([pub], program=program))["status"] == "Completed"
    assert env.history.submitted(env.history.page(1)[0][0].id).terms.trace[3:35] == TRACE


def test_circuits_that_cannot_be_read_fail_their_jobs(api: Api) -> None:
    """In one process, which goes on."""
    buffer = io.BytesIO()  # an array of objects is serialized by pickle, which may run code
    np.save(buffer, np.array([{}], dtype=object), allow_pickle=True)
    odd = {"__module__": "os", "__class__": "x", "__value__": {}}
    cases: tuple[tuple[Any, Any, str], ...] = (
        (encoded(bytes(2**28 + 2**20), "ndarray"), None, "more than 256 MiB"),
        (encoded(b"QISKIT" + bytes(20), "QuantumCircuit"), None, "QPY of version 0"),
        (encoded(b"nothing", "QuantumCircuit"), None, "torn"),
        ({"__type__": "QuantumCircuit", "__value__": "!"}, None, "cannot be unpacked"),
        ({"__type__": "settings", **odd}, None, "PUB"),
        ({"__type__": "_json", **odd}, None, "'_json'"),
        ({"__type__": "Instruction", "__value__": ""}, None, "'Instruction'"),
        (bell(), encoded(buffer.getvalue(), "ndarray"), "allow_pickle=False"),
    )
    numbers = [api.accepted([[circuit, values, 10]]) for circuit, values, _ in cases]
    for number, (_, _, reason) in zip(numbers, cases, strict=True):
        state = api.ended(number)["state"]
        assert (state["status"], state["reason_code"]) == ("Failed", 1002), (reason, state)
        assert reason in state["reason"]


@pytest.mark.parametrize("bomb", [large_claim, long_definition])
def test_a_file_that_takes_memory_or_time_ends_its_process_alone(
    api: Api, monkeypatch: pytest.MonkeyPatch, bomb: Callable[[], bytes]
) -> None:
    monkeypatch.setattr(processes, "JOB_CPU_S", 3.0)
    first = api.accepted([[bell(), None, 10]])
    number = api.accepted([[encoded(bomb(), "QuantumCircuit"), None, 10]])
    last = api.accepted([[bell(), None, 10]])
    ended = api.ended(number)
    assert (ended["status"], ended["state"]["reason_code"]) == ("Failed", 1002)
    assert [api.ended(each)["status"] for each in (first, last)] == ["Completed", "Completed"]


def test_programs_and_fields_that_are_not_here_are_refused_by_name(api: Api) -> None:
    answer = api.submit([], "noise-learner")
    assert answer.status_code == 404
    assert "'noise-learner'" in answer.json()["errors"][0]["message"]
    for fields, name in (
        ({"backend": "nowhere"}, "nowhere"),
        ({"calibration_id": "old"}, "calibration_id='old'"),
        ({"tags": ["x"] * 9}, "tags"),
        ({"cost": -1}, "max_execution_time"),
        ({"start_session": True}, "start_session"),
        ({"session_id": "none"}, "Session not found"),
    ):
        answer = api.submit([[bell(), None, 10]], **fields)
        assert answer.status_code in (400, 404)
        assert name in answer.json()["error"]["message"]


def test_a_run_that_is_too_long_has_the_services_code(api: Api) -> None:
    wide = QuantumCircuit(22)
    for layer in range(400):
        for qubit in range(22):
            wide.rx(0.1 + layer, qubit)
        for qubit in range(21):
            wide.cx(qubit, qubit + 1)
    wide.measure_all()
    ended = api.ended(api.accepted([[wide, None, 1]], cost=1))
    assert (ended["status"], ended["state"]["reason_code"]) == ("Cancelled - Ran too long", 1305)


def test_the_limit_of_a_job_is_that_of_all_its_tasks(api: Api) -> None:
    """Each of them takes less."""
    wide = QuantumCircuit(19)
    for layer in range(30):
        for qubit in range(19):
            wide.rx(0.1 + layer, qubit)
        for qubit in range(18):
            wide.cx(qubit, qubit + 1)
    wide.measure_all()
    ended = api.ended(api.accepted([[wide, None, 1]] * 80, cost=2))
    assert (ended["status"], ended["state"]["reason_code"]) == ("Cancelled - Ran too long", 1305)
    assert "its tasks have run for more than 2 s" in ended["state"]["reason"]
