"""Tasks over HTTP: the same tasks, results and refusals as those of the client."""

import base64
import io
import json
import os
import socket
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import h5py
import httpx
import numpy as np
import pytest
from gateway_stand_in import GatewayStandIn
from qiskit import QuantumCircuit
from qiskit.circuit import Parameter
from waiting import until

import simenv
from simenv.client.circuits import load
from simenv.client.client import Client
from simenv.gateway.context import Caller
from simenv.gateway.native import programs, schemas
from simenv.gateway.native.schemas import TaskRequest
from simenv.model.options import OF_STIM, SubmitOptions
from simenv.transpiler.qpy import write_qpy

HEAD = 'OPENQASM 2.0; include "qelib1.inc"; qreg q[2]; creg c[2];'
BELL = f"{HEAD} h q[0]; cx q[0],q[1]; measure q -> c;"
TURNED = """OPENQASM 3.0; include "stdgates.inc"; input float theta; qubit[1] q; bit[1] c;
rx(theta / 2) q[0]; c = measure q;"""
SLOW = f"{HEAD} " + "rx(0.1) q[0]; " * 50 + "measure q -> c;"


def submitted(api: httpx.Client, **fields: object) -> str:
    answer = api.post("/tasks", json=fields)
    assert answer.status_code == 201, answer.text
    assert answer.headers["location"] == f"/api/v1/tasks/{answer.json()['id']}"
    return str(answer.json()["id"])


def turned_circuit() -> QuantumCircuit:
    circuit = QuantumCircuit(1, 1)
    circuit.rx(Parameter("theta") / 2, 0)
    circuit.measure(0, 0)
    return circuit


def test_counts_over_http_are_those_of_the_client(api: httpx.Client, env: Client) -> None:
    answer = api.post("/tasks?wait=60", json={"program": BELL, "shots": 500, "seed": 7})
    assert answer.status_code == 200
    assert answer.json()["counts"] == env.run(BELL, shots=500, seed=7).counts
    assert answer.headers["location"] == f"/api/v1/tasks/{answer.json()['task']}"


def test_a_circuit_on_linked_qpus_has_its_own_bits_alone(api: httpx.Client, env: Client) -> None:
    link = simenv.Link("a.1", "b.0", fidelity=0.97, rate_hz=1e5)
    machine = env.device_name(simenv.Machine({"a": "ideal", "b": "trapped-ions"}, [link]))
    body = {"program": BELL, "device": machine, "partition": ["a", "b"], "shots": 400, "seed": 3}
    found = api.post("/tasks?wait=60", json=body).json()
    assert {len(bits) for bits in found["counts"]} == {2}
    assert (found["pairs"], found["modules"]) == ({"a.1-b.0": 1}, ["a", "b"])
    assert found["wait_s"] == pytest.approx(1e-5)
    described = api.get(f"/devices/{machine}").json()
    assert [each["name"] for each in described["modules"]] == ["a", "b"]
    assert described["links"][0]["pair"] == [1, 32]


def test_a_result_has_the_members_of_its_schema(api: httpx.Client) -> None:
    answer = api.post("/tasks?wait=60", json={"program": BELL})
    names = set(schemas.ResultRecord.__struct_fields__) - {"amplitudes", "error", "pulses"}
    assert set(answer.json()) == names


def test_options_have_the_names_of_the_client() -> None:
    ours = set(schemas.TaskRequest.__struct_fields__) - {"program", "qpy", "packed"}
    header_only = {"idempotency_key", "trace"}
    of_calls = set(OF_STIM)
    assert ours == SubmitOptions.__optional_keys__ - header_only - of_calls


@pytest.mark.parametrize(
    ("content", "media_type"),
    [
        (BELL.encode(), "text/plain"),
        (BELL.encode(), "application/x-www-form-urlencoded"),  # of curl --data-binary
        (write_qpy(QuantumCircuit.from_qasm_str(BELL)), "application/x-qpy"),
        (load(BELL).packed, "application/x-simenv-program"),
    ],
)
def test_a_program_is_a_body_with_options_in_the_query(
    api: httpx.Client, content: bytes, media_type: str
) -> None:
    answer = api.post(
        "/tasks?wait=60&shots=300&seed=5&outputs=counts&outputs=memory",
        content=content,
        headers={"content-type": media_type},
    )
    assert answer.status_code == 200, answer.text
    assert (sum(answer.json()["counts"].values()), len(answer.json()["memory"])) == (300, 300)
    assert answer.json()["seed"] == 5


def test_a_form_carries_program_and_options(api: httpx.Client) -> None:
    answer = api.post(
        "/tasks?wait=60",
        files={"program": ("bell.qasm", BELL)},
        data={"options": json.dumps({"shots": 40})},
    )
    assert sum(answer.json()["counts"].values()) == 40


@pytest.mark.parametrize(
    ("path", "body", "words"),
    [
        ("/tasks?shots=40", {"json": {"program": BELL}}, "the query takes no 'shots'"),
        ("/tasks?qos=low", {"files": {"program": ("b", BELL)}}, "the query takes no 'qos'"),
        ("/tasks", {"files": {"program": ("b", BELL), "shots": (None, "40")}}, "no 'shots'"),
    ],
)
def test_an_option_in_a_place_without_effect_is_refused(
    api: httpx.Client, path: str, body: dict[str, Any], words: str
) -> None:
    refused = api.post(path, **body)
    assert refused.status_code == 400
    assert words in refused.json()["detail"]
    assert "`options`" in refused.json()["hint"] or "JSON" in refused.json()["hint"]


@pytest.mark.parametrize("path", ["/sweeps?wait=5", "/explain?wait=5"])
def test_a_wait_without_effect_is_refused(api: httpx.Client, path: str) -> None:
    for body in ({"json": {"program": BELL}}, {"content": BELL}):
        refused = api.post(path, **body)
        assert refused.status_code == 400
        assert refused.json()["detail"].startswith("the query has 'wait'")


def test_an_unknown_filter_is_refused(api: httpx.Client) -> None:
    refused = api.get("/tasks?stat=DONE")
    assert (refused.status_code, refused.json()["detail"]) == (400, "the query takes no 'stat'")
    assert refused.json()["hint"].startswith("there are: state, owner")
    assert api.get("/tasks?state=DONE&limit=1").status_code == 200
    assert api.get("/pools?limit=1").status_code == 400
    assert api.post("/reservations?workers=1", json={"pool": "main"}).status_code == 400


def test_parameters_are_bound_by_name_in_formulas(api: httpx.Client, env: Client) -> None:
    qpy = base64.b64encode(write_qpy(turned_circuit())).decode()
    expected = env.run(turned_circuit(), shots=400, seed=3, parameter_values=[2.5]).counts
    for program in ({"program": TURNED}, {"qpy": qpy}):
        fields = {"shots": 400, "seed": 3, "parameter_values": {"theta": 2.5}}
        answer = api.post("/tasks?wait=60", json={**program, **fields})
        assert answer.status_code == 200, answer.text
        assert answer.json()["counts"] == expected
    refused = api.post("/tasks", json={"program": TURNED})
    assert refused.status_code == 400
    assert "theta" in refused.json()["detail"]


def test_a_gradient_by_slots_is_refused_where_slots_are_formulas(api: httpx.Client) -> None:
    program = TURNED.replace("c = measure q;", "")
    fields = {"shots": None, "outputs": ["gradient"], "observables": "Z", "parameter_values": [0.5]}
    refused = api.post("/tasks", json={"program": program, **fields})
    assert refused.status_code == 400
    assert "formulas" in refused.json()["detail"]
    plain = program.replace("theta / 2", "theta")
    gradient = api.post("/tasks?wait=60", json={"program": plain, **fields}).json()["gradients"]
    assert gradient == [[pytest.approx(-np.sin(0.5))]]


def test_a_sweep_has_the_counts_of_the_clients(api: httpx.Client, env: Client) -> None:
    values = np.linspace(0, 3, 70)[:, None]
    fields = {"program": TURNED, "shots": 100, "seed": 9, "parameter_values": values.tolist()}
    answer = api.post("/sweeps", json=fields)
    assert answer.status_code == 201, answer.text
    sweep = answer.json()
    assert sweep["bindings"] == 70
    assert sum(part["bindings"] for part in sweep["tasks"]) == 70
    tasks = env.submit_many((turned_circuit(), values), shots=100, seed=9)
    expected = [task.result().counts for task in tasks]
    found: list[dict[str, int]] = []
    for part in sweep["tasks"]:
        page = api.get(f"/tasks/{part['id']}/result?wait=60&limit=1000").json()
        results = page.get("results", [page])
        found += [result["counts"] for result in results]
    assert found == expected
    part = next(part for part in sweep["tasks"] if part["bindings"] > 1)
    assert api.get(f"/tasks/{part['id']}.1/result").json()["counts"] == expected[part["first"] + 1]
    whole = api.get(f"/tasks/{part['id']}/result", headers={"accept": "application/x-npz"})
    assert whole.status_code == 400
    assert f"{part['id']}.0" in whole.json()["hint"]


def test_results_are_sent_as_npz_and_hdf5(api: httpx.Client, gateway: GatewayStandIn) -> None:
    fields = {"program": f"{HEAD} h q[0]; cx q[0],q[1];", "shots": None, "outputs": "statevector"}
    task = submitted(api, **fields)
    expected = np.array([1, 0, 0, 1]) / np.sqrt(2)
    pairs = api.get(f"/tasks/{task}/result?wait=60").json()["statevector"]
    assert np.allclose([complex(*pair) for pair in pairs], expected)
    npz = api.get(f"/tasks/{task}/result", headers={"accept": "application/x-npz"})
    assert npz.headers["content-type"] == "application/x-npz"
    assert np.allclose(np.load(io.BytesIO(npz.content))["statevector"], expected)
    hdf5 = api.get(f"/tasks/{task}/result", headers={"accept": "application/x-hdf5"})
    with h5py.File(io.BytesIO(hdf5.content)) as file:
        assert np.allclose(file["statevector"][:], expected)
        assert file.attrs["task"] == task
    assert list(gateway.folder.iterdir()) == []
    assert api.get(f"/tasks/{task}/result", headers={"accept": "image/png"}).status_code == 400


def test_large_arrays_are_refused_in_json_with_the_way_out(api: httpx.Client) -> None:
    program = 'OPENQASM 2.0; include "qelib1.inc"; qreg q[18]; h q;'
    task = submitted(api, program=program, shots=None, outputs="statevector")
    answer = api.get(f"/tasks/{task}/result?wait=60")
    assert answer.status_code == 413
    assert answer.json()["hint"] == "Accept: application/x-npz, or application/x-hdf5"
    npz = api.get(f"/tasks/{task}/result", headers={"accept": "application/x-npz"})
    assert np.load(io.BytesIO(npz.content))["statevector"].shape == (2**18,)


def test_idempotency_key_gives_one_task_and_refuses_others(api: httpx.Client) -> None:
    headers = {"Idempotency-Key": "run-1"}
    first = api.post("/tasks", json={"program": BELL}, headers=headers)
    again = api.post("/tasks", json={"program": BELL}, headers=headers)
    assert first.json()["id"] == again.json()["id"]
    other = api.post("/tasks", json={"program": BELL, "shots": 3}, headers=headers)
    assert (other.status_code, other.json()["code"]) == (409, "key_conflict")
    assert api.post("/tasks", json={"program": BELL}, headers={"Idempotency-Key": "~x"}).is_error


def test_a_task_that_has_no_result_yet_answers_202_and_can_be_cancelled(api: httpx.Client) -> None:
    hours = f"{HEAD} " + "rx(0.1) q[0]; h q[1]; " * 200 + "measure q -> c;"
    reserved = api.post("/reservations", json={"for_s": 60, "workers": 2})
    assert reserved.status_code == 201, reserved.text
    number = reserved.json()["id"]
    try:
        answer = api.post("/tasks?wait=0.2", json={"program": hours, "name": "waits"})
        assert answer.status_code == 202
        task = answer.json()["id"]
        assert api.get(f"/tasks/{task}/result").status_code == 202
        waiting = api.get(f"/tasks/{task}").json()
        assert waiting["state"] == "QUEUED"
        assert waiting["reason"]
        queue = api.get("/queue").json()
        assert [each["id"] for each in queue["tasks"]] == [task]
        assert api.post(f"/tasks/{task}/cancel").json() == {"id": task, "outcome": "cancelled"}
        refused = api.get(f"/tasks/{task}/result")
        assert (refused.status_code, refused.json()["code"]) == (409, "task_cancelled")
        assert api.post(f"/tasks/{task}/cancel").json()["outcome"] == "final"
    finally:
        assert api.delete(f"/reservations/{number}").json() == {"running": []}
    assert api.post("/tasks/t-zzzz/cancel").status_code == 404


def test_pages_of_tasks_follow_one_another_without_gaps(api: httpx.Client) -> None:
    ids = [submitted(api, program=BELL, name=f"page-{k}", shots=10) for k in range(7)]
    found: list[str] = []
    cursor = ""
    while len(found) < 7:
        page = api.get("/tasks", params={"limit": 3, "cursor": cursor}).json()
        found += [task["id"] for task in page["tasks"]]
        cursor = page["next"]
        assert len(page["tasks"]) == 3
    assert found[:7] == ids[::-1]
    other = api.get("/tasks", params={"cursor": cursor, "pool": "other"})
    assert (other.status_code, other.json()["option"]) == (400, "cursor")
    for wrong in ("x", "AAAA", "_" * 100):
        assert api.get("/tasks", params={"cursor": wrong}).status_code == 400
    filters = {"state": ["FAILED", "EXPIRED"], "since_s": time.time() + 10}
    assert api.get("/tasks", params=filters).json() == {"tasks": [], "next": ""}
    for window in ({"since_s": 2.0, "until_s": 1.0}, {"since_s": 4e9}):
        assert api.get("/tasks", params=window).status_code == 400
    pool = api.get("/tasks", params={"pool": "main", "limit": 2, "state": "DONE"}).json()
    assert {task["pool"] for task in pool["tasks"]} == {"main"}


def test_one_task_has_its_stages_receipt_circuit_and_events(api: httpx.Client) -> None:
    task = submitted(api, program=BELL, name="story")
    assert api.get(f"/tasks/{task}/result?wait=60").status_code == 200
    record = api.get(f"/tasks/{task}").json()
    assert (record["state"], record["name"], record["attempts"]) == ("DONE", "story", 1)
    assert record["timing"]["run_us"] > 0
    receipt = api.get(f"/tasks/{task}/receipt").json()
    assert sum(receipt["waits_us"].values()) == receipt["waited_us"]
    circuit = api.get(f"/tasks/{task}/circuit").json()
    assert circuit["operations"] == 4
    assert "┤ H ├" in circuit["drawing"]
    assert "cx q[0], q[1];" in circuit["openqasm3"]
    assert api.get(f"/tasks/{task}/events").json() == []
    assert api.get("/tasks/t-zzzz").json()["code"] == "not_found"
    assert api.get("/tasks/nonsense").json()["code"] == "not_found"


def test_errors_are_problem_documents_with_value_and_way_out(api: httpx.Client) -> None:
    wrong = api.post("/tasks", json={"program": BELL, "precision": "half"})
    assert wrong.headers["content-type"] == "application/problem+json"
    assert wrong.json() == {
        "type": "urn:simenv:error:option", "title": "Bad Request", "status": 400,
        "detail": wrong.json()["detail"], "code": "option", "hint": wrong.json()["hint"],
        "option": "precision", "value": "'half'",
    }  # fmt: skip
    syntax = api.post("/tasks", json={"program": f"{HEAD} nothing q[0];"}).json()
    assert syntax["code"] == "program"
    assert "line 1" in syntax["detail"]
    for body in ({}, {"program": BELL, "packed": "AAAA"}, {"program": BELL, "shot": 1}, []):
        assert api.post("/tasks", json=body).status_code == 400
    assert api.post("/tasks", content=b"{" * 10_000).status_code == 400
    unknown = api.post("/tasks", content=b"x", headers={"content-type": "image/png"})
    assert "image/png" in unknown.json()["detail"]
    assert api.put("/tasks").status_code == 405
    assert api.get("/tasks?limit=0").status_code == 400


def test_a_text_is_never_a_path(api: httpx.Client, tmp_path: object) -> None:
    file = f"{tmp_path}/bell.qasm"
    with open(file, "w", encoding="utf-8") as out:
        out.write(BELL)
    answer = api.post("/tasks", json={"program": file})
    assert answer.status_code == 400
    assert "version" in answer.json()["detail"]


def test_a_body_beyond_the_limit_is_not_read(api: httpx.Client) -> None:
    assert api.post("/tasks", content=b" " * (21 * 2**20)).status_code == 413


def test_a_program_that_lies_about_its_sizes_is_refused(api: httpx.Client) -> None:
    import msgspec

    from simenv.model import decode_program

    program = decode_program(load(BELL).packed)
    for changes in (
        {"num_slots": 2**40},
        {"num_qubits": 2**40},
        {"qubits": b"\xff" * 7},
        {"ops": b"\xff\xff"},
        {"arities": b""},
    ):
        packed = msgspec.structs.replace(program, **changes).packed()
        answer = api.post("/tasks", json={"packed": base64.b64encode(packed).decode()})
        assert answer.status_code in (400, 413), (changes, answer.text)


def test_nested_definitions_end_the_callers_process_and_no_other(api: httpx.Client) -> None:
    levels = "".join(f"gate g{k + 1} a {{ g{k} a; g{k} a; }} " for k in range(40))
    bomb = f"{HEAD} gate g0 a {{ x a; }} {levels} g40 q[0]; measure q -> c;"
    answer = api.post("/tasks", json={"program": bomb}, headers={"Authorization": "Bearer eve"})
    assert answer.status_code in (400, 413), answer.text
    assert api.post("/tasks?wait=60", json={"program": TURNED, "parameter_values": [1]}).is_success


def test_many_callers_wait_without_a_thread_each(api: httpx.Client) -> None:
    before = threading.active_count()
    with httpx.Client(base_url=api.base_url, timeout=60) as other:
        reserved = other.post("/reservations", json={"for_s": 60, "workers": 2}).json()
        task = submitted(api, program=SLOW)
        answers: list[int] = []

        def wait() -> None:
            url = f"{api.base_url}tasks/{task}/result?wait=60"
            answers.append(httpx.get(url, timeout=60).status_code)

        threads = [threading.Thread(target=wait) for _ in range(24)]
        for thread in threads:
            thread.start()
        assert other.get("/events", params={"limit": 0}).is_success
        assert threading.active_count() - before - len(threads) <= 8
        other.delete(f"/reservations/{reserved['id']}")
        for thread in threads:
            thread.join()
        assert answers == [200] * 24


def test_explain_names_the_engine_and_runs_nothing(api: httpx.Client, env: Client) -> None:
    before = env.status().done
    answer = api.post("/explain", json={"program": BELL, "shots": 100})
    assert answer.json()["engine"] == env.explain(BELL, shots=100).engine
    assert answer.json()["sizes"]["gates_2q"] == 1
    assert api.post("/explain", json={"program": TURNED}).json()["sizes"]["num_qubits"] == 1
    assert env.status().done == before


def test_task_runs_in_the_reservation_of_its_token_unless_it_names_another_place() -> None:
    caller = Caller("ana", "", "client", "1", 17, "main")

    def chosen(**fields: Any) -> tuple[object, object]:
        options = programs._options(TaskRequest(program="x", **fields), caller, None)
        return options.get("pool"), options.get("reservation")

    assert chosen() == chosen(pool="main") == ("main", 17)
    assert chosen(pool="other") == ("other", None)
    assert chosen(reservation=3) == (None, 3)
    assert chosen(device="fez") == (None, None)


PROGRAM = 'OPENQASM 2.0; include "qelib1.inc"; qreg q[21]; h q;'  # 32 MiB of amplitudes


def result_files() -> int:
    """Return how many descriptors and mappings of result files this process has."""
    opened = 0
    for entry in os.listdir("/proc/self/fd"):
        try:
            opened += os.readlink(f"/proc/self/fd/{entry}").endswith(".h5")
        except OSError:  # it was closed meanwhile
            continue
    return opened + Path("/proc/self/maps").read_text().count(".h5\n")


def test_client_who_leaves_frees_its_descriptors(
    api: httpx.Client, gateway: GatewayStandIn
) -> None:
    fields = {"program": PROGRAM, "shots": None, "outputs": "statevector"}
    task = api.post("/tasks", json=fields).json()["id"]
    url, path = urlsplit(gateway.url), f"/api/v1/tasks/{task}/result"
    npz = api.get(f"/tasks/{task}/result?wait=60", headers={"accept": "application/x-npz"})
    assert np.load(io.BytesIO(npz.content))["statevector"].shape == (2**21,)
    hdf5 = api.get(f"/tasks/{task}/result", headers={"accept": "application/x-hdf5"})
    assert int(hdf5.headers["content-length"]) == len(hdf5.content)
    with h5py.File(io.BytesIO(hdf5.content)) as file:
        assert file["statevector"].shape == (2**21,)
    until(lambda: result_files() == 0, 10.0)
    request = f"GET {path} HTTP/1.1\r\nHost: a\r\nAccept: application/x-npz\r\n\r\n"
    with ExitStack() as stack:
        for _ in range(4):
            client = stack.enter_context(socket.create_connection((url.hostname, url.port)))
            client.sendall(request.encode())
            client.recv(1)
        assert result_files() > 0  # they are read as the clients read
        assert list(gateway.folder.iterdir()) == []
    until(lambda: result_files() == 0, 10.0)
