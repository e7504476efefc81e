"""Pulse sequences over HTTP: run, swept, refused, and read by no process of the gateway itself."""

import io
import json
import sys
from pathlib import Path
from typing import Any

import h5py
import httpx
import numpy as np
import pytest
from failing import fails

from simenv.client.client import Client
from simenv.client.submission.pulses import PulseResult
from simenv.errors import OptionError
from simenv.gateway import request_process
from simenv.gateway.native import schemas

pulser = pytest.importorskip("pulser")


def sequence(amplitude: str = "rabi", size: int | None = None) -> str:
    register = pulser.Register.from_coordinates([(5.5 * k, 0) for k in range(3)], prefix="a")
    made = pulser.Sequence(register, pulser.MockDevice)
    made.declare_channel("global", "rydberg_global")
    rabi = made.declare_variable(amplitude, size=size)
    for each in [rabi] if size is None else rabi:
        made.add(pulser.Pulse.ConstantPulse(120, each, 1.0, 0.3), "global")
    return str(made.to_abstract_repr())


def ran(api: httpx.Client, **fields: object) -> dict[str, Any]:
    answer = api.post("/tasks?wait=60", json=fields)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_a_sequence_gives_the_result_of_the_client(api: httpx.Client, env: Client) -> None:
    asked: dict[str, Any] = {
        "parameter_values": {"rabi": 6.0},
        "shots": 300,
        "seed": 5,
        "observables": ["ZII"],
        "outputs": ["counts", "memory", "statevector"],
    }
    own: Any = env.run(sequence(), **asked)
    found = ran(api, program=sequence(), **asked)
    again = api.get(f"/tasks/{found['task']}/result").json()
    assert found["pulses"] == own.to_dict()
    assert set(found["pulses"]) == set(schemas.PulseRecord.__struct_fields__)
    assert again["pulses"] == found["pulses"]
    assert found["engine"] == "rydberg"
    assert found["counts"] is None


def test_a_plain_text_with_options_in_the_query_runs(api: httpx.Client) -> None:
    text = sequence("none").replace("none", "other")
    answer = api.post(
        "/tasks?shots=10&wait=60", content=text, headers={"Content-Type": "text/plain"}
    )
    assert answer.status_code == 400
    assert "no values of the variables other" in answer.json()["detail"]


def test_a_sweep_has_a_task_for_each_value_also_of_arrays(api: httpx.Client) -> None:
    rows = [[2.0, 3.0], [4.0, 5.0]]
    body = {"program": sequence(size=2), "parameter_values": {"rabi": rows}, "shots": None}
    made = api.post("/sweeps", json=body).json()
    assert made["bindings"] == 2
    found = [api.get(f"/tasks/{each['id']}/result?wait=60").json() for each in made["tasks"]]
    alone = ran(api, program=sequence(size=2), parameter_values={"rabi": rows[1]}, shots=None)
    assert found[1]["pulses"]["occupations"] == alone["pulses"]["occupations"]
    assert found[0]["pulses"]["occupations"] != alone["pulses"]["occupations"]


def test_traps_of_a_mapped_register_come_with_the_variables(api: httpx.Client) -> None:
    layout = pulser.register.special_layouts.TriangularLatticeLayout(30, 6.0)
    made = pulser.Sequence(layout.make_mappable_register(2), pulser.MockDevice)
    made.declare_channel("global", "rydberg_global")
    rabi = made.declare_variable("rabi")
    made.add(pulser.Pulse.ConstantPulse(200, rabi, 0.0, 0.0), "global")
    places = [{"q0": 3, "q1": 4}, {"q0": 3, "q1": 27}]
    asked = {"program": made.to_abstract_repr(), "shots": None}
    rows = {"rabi": [6.0, 6.0], "qubits": places}
    answer = api.post("/sweeps", json={**asked, "parameter_values": rows})
    swept = [
        api.get(f"/tasks/{each['id']}/result?wait=60").json()["pulses"]["occupations"]
        for each in answer.json()["tasks"]
    ]
    one = ran(api, parameter_values={"rabi": 6.0, "qubits": places[1]}, **asked)
    assert one["pulses"]["occupations"] == swept[1] != swept[0]
    refused = api.post("/tasks", json={**asked, "parameter_values": {"rabi": {"q0": 1}}})
    assert refused.status_code == 400
    circuit = "OPENQASM 3.0; input float a; qubit q; rx(a) q;"
    values = {"parameter_values": {"a": {"q0": 1}}}
    assert api.post("/tasks", json={"program": circuit, **values}).status_code == 400


def test_a_repeated_request_with_its_key_gives_the_same_tasks(api: httpx.Client) -> None:
    headers = {"Idempotency-Key": "pulses"}
    asked = {"program": sequence(), "parameter_values": {"rabi": 6.0}, "shots": 10}
    task = [api.post("/tasks", json=asked, headers=headers).json()["id"] for _ in range(2)]
    assert task[0] == task[1]
    assert api.post("/tasks", json=asked | {"shots": 9}, headers=headers).status_code == 409
    asked["parameter_values"] = {"rabi": [1.0, 2.0]}
    headers = {"Idempotency-Key": "swept pulses"}
    swept = [api.post("/sweeps", json=asked, headers=headers).json() for _ in range(2)]
    assert swept[0] == swept[1]


def test_a_noise_model_comes_as_json(api: httpx.Client) -> None:
    text = pulser.NoiseModel(p_false_pos=0.5, p_false_neg=0.5).to_abstract_repr()
    model = json.loads(text)
    found = ran(
        api, program=sequence(), parameter_values={"rabi": 6.0}, shots=4_000, seed=1, noise=model
    )
    assert found["pulses"]["counts"]["111"] == pytest.approx(500, abs=5 * 21)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"program": "{" * 100 + "}" * 100}, "nested 100 deep"),
        ({"program": '{"a": "' + "x" * 2**20 + '"}'}, "the limit is 1.0 MiB"),
        ({"program": '{"a": 1}'}, "refused by pulser"),
        ({"program": "{"}, "no JSON object"),
        ({"program": sequence(), "parameter_values": [1.0]}, "a pulse sequence"),
        ({"program": sequence(), "ranks": 2}, "of a pulse sequence"),
        ({"program": sequence(), "observables": ["ZII"] * 5_000}, "5000 observables"),
        ({"program": sequence(), "noise": {"noise_types": ["x"]}}, "the noise model"),
        ({"program": sequence(), "device": "neutral-atoms-analog", "shots": 10**6}, "shots"),
        ({"program": '{"type": "BinaryQuadraticModel"}'}, "annealing is not emulated"),
    ],
)
def test_what_cannot_run_is_refused_by_name(
    api: httpx.Client, fields: dict[str, Any], said: str
) -> None:
    fields = {"parameter_values": {"rabi": 6.0}} | fields
    answer = api.post("/tasks", json=fields)
    assert answer.status_code in (400, 413, 422), answer.text
    assert said in answer.json()["detail"]


@pytest.mark.parametrize("route", ["/tasks", "/sweeps", "/explain"])
def test_a_large_sequence_is_refused_by_its_device_when_it_is_sent(
    api: httpx.Client, route: str
) -> None:
    text = json.loads(sequence())
    text["operations"] = 250 * text["operations"]
    body = {"program": json.dumps(text), "parameter_values": {"rabi": 1.0}, "shots": 10}
    if route == "/sweeps":
        body["parameter_values"] = {"rabi": [1.0, 1.1]}
    assert len(body["program"]) > request_process.SMALL_BYTES
    answer = api.post(route, json={**body, "device": "neutral-atoms-analog"})
    assert answer.status_code == 422, answer.text
    assert "device neutral-atoms-analog cannot run the sequence" in answer.json()["detail"]


def test_explain_says_engine_and_time_on_a_device(api: httpx.Client) -> None:
    asked = {"program": sequence(), "parameter_values": {"rabi": 6.0}, "shots": 10}
    found = api.post("/explain", json={**asked, "device": "neutral-atoms-analog"}).json()
    assert (found["engine"], found["sizes"]["num_qubits"]) == ("rydberg", 3)
    assert "on the device" in found["engines"][0]["why"]


def test_results_are_sent_and_saved_as_npz_and_hdf5(
    api: httpx.Client, env: Client, tmp_path: Path
) -> None:
    outputs = ["counts", "memory", "statevector", "correlation", "energy"]
    asked = {"program": sequence(), "parameter_values": {"rabi": 6.0}, "shots": 10, "seed": 3}
    found = ran(api, outputs=outputs, observables=["ZII"], evaluation_times=[0.5], **asked)
    path = f"/tasks/{found['task']}/result"
    npz = api.get(path, headers={"Accept": "application/x-npz"})
    hdf5 = api.get(path, headers={"Accept": "application/x-hdf5"})
    assert (npz.headers["content-type"], hdf5.status_code) == ("application/x-npz", 200)
    own, pulses = env.task(found["task"]).result(), found["pulses"]
    result = PulseResult(own.value)
    with np.load(io.BytesIO(npz.content)) as stored, h5py.File(io.BytesIO(hdf5.content)) as file:
        names = sorted(set(stored) - {"metadata"})
        assert all((file[name][...] == stored[name]).all() for name in names)
        at = {name.removeprefix("pulses/"): stored[name] for name in names}
        assert json.loads(str(stored["metadata"]))["pulses"] == json.loads(file.attrs["pulses"])
        assert json.loads(file.attrs["pulses"])["duration_ns"] == pulses["duration_ns"]
    assert [name.decode() for name in at["atoms"]] == pulses["atoms"]
    assert at["times"].tolist() == pulses["evaluation_times"]
    for name in ("occupation", "correlation"):
        assert at[name].tolist() == pulses[name]
    assert at["energy"][:, 0].tolist() == pulses["energy"]
    assert at["expectation"].tolist() == pulses["expectation_at"]
    assert (at["statevector"] == result.statevector_at).all()
    for row, counts in enumerate(result.counts_at):
        chosen = at["counts/times"] == row
        texts = [format(int(each), "03b") for each in at["counts/outcomes"][chosen, 0]]
        assert dict(zip(texts, at["counts/counts"][chosen].tolist(), strict=True)) == counts
    memory = [[format(int(each), "03b") for each in row] for row in at["memory"][:, :, 0]]
    assert memory == result.memory_at
    own.save(tmp_path / "r.npz")
    assert (tmp_path / "r.npz").stat().st_size == len(npz.content)
    fails(OptionError, "pulse sequence", own.save, tmp_path / "r.json")


def test_standard_errors_are_arrays_in_the_shape_of_their_values(
    env: Client, tmp_path: Path
) -> None:
    noise = pulser.NoiseModel(temperature=50.0)
    outputs = ("energy", "counts")
    task: Any = env.submit(
        sequence(), parameter_values={"rabi": 6.0}, shots=20, noise=noise, outputs=outputs
    )
    result = task.result()
    task.details.save(tmp_path / "r.h5")
    with h5py.File(tmp_path / "r.h5") as file:
        errors = file["pulses/standard_errors"]
        assert (errors["occupation"][...] == result.standard_error("occupation")).all()
        assert (errors["energy"][:, 1] == result.standard_error("energy_second_moment")).all()


def test_a_sequence_has_no_circuit(api: httpx.Client) -> None:
    found = ran(api, program=sequence(), parameter_values={"rabi": 6.0}, shots=10)
    circuit = api.get(f"/tasks/{found['task']}/circuit")
    assert (circuit.status_code, circuit.json()["code"]) == (404, "not_found")


def test_the_gateway_reads_sequences_in_the_process_of_the_user(
    api: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise AssertionError("read by the gateway")

    monkeypatch.setattr(sys.modules["pulser"].Sequence, "from_abstract_repr", fails)
    found = ran(api, program=sequence(), parameter_values={"rabi": 6.0}, shots=10)
    assert sum(found["pulses"]["counts"].values()) == 10
