"""State, devices, accounts and reservations over HTTP are those of the client."""

import httpx
import pytest

from simenv.client.client import Client

LISTINGS = (
    "status", "pools", "nodes", "workers", "queue", "queue?ended=true", "engines", "devices",
    "accounts", "shares", "usage?by=pool&by=engine", "limits", "reservations", "events",
)  # fmt: skip


@pytest.mark.parametrize("path", LISTINGS)
def test_every_listing_answers(api: httpx.Client, path: str) -> None:
    answer = api.get(f"/{path}")
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/json"


def test_figures_are_those_of_the_client(api: httpx.Client, env: Client) -> None:
    assert api.get("/status").json()["pid"] == env.status().pid
    assert [pool["name"] for pool in api.get("/pools").json()] == list(env.pools())
    assert [node["name"] for node in api.get("/nodes").json()] == list(env.nodes())
    assert {each["name"] for each in api.get("/devices").json()} == set(env.device_names())


def test_device_has_map_and_null_where_nothing_was_measured(api: httpx.Client, env: Client) -> None:
    info, device = env.device("fez"), api.get("/devices/fez").json()
    assert device["num_qubits"] == info.num_qubits == len(device["qubits"])
    assert [tuple(pair) for pair in device["coupling"]] == list(info.coupling)
    assert device["qubits"][3]["t1_us"] == info.qubits[3].t1_us
    assert device["operations"][0]["error"] == info.operations[0].error
    assert set(device["gates"][0]) == {"name", "qubits", "params"}
    assert "NaN" not in api.get("/devices/fez").text
    pool = api.get("/devices/main").json()
    assert (pool["name"], pool["kind"]) == ("main", "ideal")
    missing = api.get("/devices/nothing")
    assert (missing.status_code, missing.json()["code"]) == (404, "not_found")


def test_a_reservation_is_made_renewed_and_ended(api: httpx.Client, env: Client) -> None:
    made = api.post("/reservations", json={"pool": "main", "for_s": 30, "count": 2})
    assert made.status_code == 201
    number = made.json()["id"]
    assert api.get(f"/reservations/{number}").json()["device"] == "main"
    renewed = api.post(f"/reservations/{number}/renew", json={"for_s": 90}).json()
    assert renewed["expires_ns"] > made.json()["expires_ns"]
    assert number in [each.id for each in env.reservations()]
    assert api.delete(f"/reservations/{number}").json() == {"running": []}
    for body in ({"workers": -1}, {"pool": "nowhere"}, {"for_s": "long"}, {"sum": 1}):
        assert api.post("/reservations", json=body).status_code in (400, 404, 409), body


def test_what_cannot_be_reserved_now_says_when_to_ask_again(api: httpx.Client) -> None:
    first = api.post("/reservations", json={"workers": 2, "for_s": 60}).json()["id"]
    try:
        refused = api.post("/reservations", json={"workers": 2, "for_s": 60})
        assert (refused.status_code, refused.json()["code"]) == (504, "timeout")
        assert "?wait=SECONDS" in refused.json()["hint"]
    finally:
        api.delete(f"/reservations/{first}")


def test_usage_is_summed_by_the_names_asked_for(api: httpx.Client, env: Client) -> None:
    env.run('OPENQASM 2.0; include "qelib1.inc"; qreg q[1]; creg c[1]; measure q->c;', shots=9)
    report = api.get("/usage", params={"by": ["pool"]}).json()
    assert report["by"] == ["pool"]
    assert ["main"] in [row["key"] for row in report["rows"]]
    assert api.get("/usage", params={"by": ["colour"]}).status_code == 400
