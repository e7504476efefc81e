"""Accounts over HTTP: each API charges the account of the token or of the request."""

from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from live import Live, trusted_gateway
from waiting import until

from simenv.client.client import Client
from simenv.errors import NotAllowedError
from simenv.gateway.ibm.endpoints import PREFIX
from testbed.gateway_users import MEASURE, PRX, QASM3

JOB_S = 120.0
QASM = 'OPENQASM 2.0; include "qelib1.inc"; qreg q[1]; creg c[1]; x q[0]; measure q -> c;'
OPTIONS = {
    "gateway": "127.0.0.1:0",
    "pools": [{"name": "main", "min": 2, "max": 2}],  # half of it may be reserved
    "accounts": {
        "bio": {"users": ["ana", "ben"], "qos": ["normal", "urgent"]},  # the default of both
        "chem": {"users": ["ana", "ben"]},
        "geo": {"users": ["cem"]},
    },
    "qos": {"normal": {}, "urgent": {"priority": 5}, "staff": {}},
}


Caller = Callable[[str, str], httpx.Client]


@pytest.fixture
def caller(up: Live, env: Client) -> Iterator[Caller]:
    """Make a client with a new token of a user for an account; "": the default of the user."""
    opened: list[httpx.Client] = []

    def connect(user: str, account: str) -> httpx.Client:
        secret = env.tokens.add(user, account=account).secret
        header = {"Authorization": f"Bearer {secret}"}
        with trusted_gateway(up) as gateway:
            opened.append(httpx.Client(base_url=gateway.url, headers=header, timeout=60.0))
        return opened[-1]

    yield connect
    for each in opened:
        each.close()


def by_native(http: httpx.Client, **fields: str) -> str:
    answer = http.post("/api/v1/tasks?wait=60", json={"program": QASM, "shots": 10, **fields})
    return "" if answer.status_code == 200 else str(answer.json()["detail"])


def by_ibm(http: httpx.Client) -> str:
    params = {"pubs": [[QASM3, None, 10]], "version": 2, "support_qiskit": False}
    body = {"program_id": "sampler", "backend": "main", "params": params}
    number = http.post(f"{PREFIX}/jobs", json=body).raise_for_status().json()["id"]
    state: dict[str, str] = {}

    def has_ended() -> bool:
        state.update(http.get(f"{PREFIX}/jobs/{number}").json()["state"])
        return state["status"] not in ("Queued", "Running")

    until(has_ended, JOB_S)
    return "" if state["status"] == "Completed" else state["reason"]


def by_iqm(http: httpx.Client) -> str:
    body = {"circuits": [{"name": "x", "instructions": [PRX, MEASURE]}], "shots": 10}
    number = http.post("/api/v1/jobs/main/circuit", json=body).raise_for_status().json()["id"]
    job: dict[str, Any] = {}

    def has_ended() -> bool:
        job.update(http.get(f"/api/v1/jobs/{number}?wait_until_terminal=true").json())
        return job["status"] not in ("waiting", "processing")

    until(has_ended, JOB_S)
    return "" if job["status"] == "completed" else str(job["errors"][0]["message"])


APIS: dict[str, Callable[[httpx.Client], str]] = {
    "native": by_native, "ibm": by_ibm, "iqm": by_iqm,
}  # fmt: skip


def last_terms(env: Client) -> tuple[str, str, str]:
    """Account and class that the newest task was submitted with, and the account it is charged."""
    (row,) = env.history.newest(1)
    terms = env.history.submitted(row.id).terms
    return terms.account, terms.qos, row.account


@pytest.mark.parametrize(("account", "charged"), [("chem", "chem"), ("", "bio")])
@pytest.mark.parametrize("api", APIS)
def test_the_account_of_the_token_is_charged(
    env: Client, caller: Caller, api: str, account: str, charged: str
) -> None:
    assert not APIS[api](caller("ana", account))
    assert last_terms(env) == (account, "", charged)


@pytest.mark.parametrize(("account", "charged"), [("chem", "chem"), ("", "bio")])
def test_session_charges_account(env: Client, caller: Caller, account: str, charged: str) -> None:
    ana, body = caller("ana", account), {"backend": "main", "mode": "dedicated"}
    session = ana.post(f"{PREFIX}/sessions", json=body).raise_for_status().json()["id"]
    newest = max(env.reservations(), key=lambda each: each.id)
    ana.delete(f"{PREFIX}/sessions/{session}/close").raise_for_status()
    assert (newest.owner, newest.account) == ("ana", charged)


def test_a_request_names_account_and_class(env: Client, caller: Caller) -> None:
    ana = caller("ana", "chem")
    assert not by_native(ana, account="bio", qos="urgent")
    assert last_terms(env) == ("bio", "urgent", "bio")
    for fields, said in (
        ({"account": "geo"}, "'ana' is not in the account 'geo'"),
        ({"account": "bio", "qos": "staff"}, "account 'bio' may not use the class of service"),
    ):
        assert said in by_native(ana, **fields)


@pytest.mark.parametrize("api", APIS)
def test_account_that_user_has_left_is_refused(env: Client, caller: Caller, api: str) -> None:
    env.accounts.set("chem", users=["ana", "ben"])
    ben = caller("ben", "chem")
    env.accounts.set("chem", users=["ana"])
    said = "'ben' is not in the account 'chem'"
    assert APIS[api](ben).startswith(f"{said}; yours: bio" if api != "native" else said)
    with pytest.raises(NotAllowedError, match="'ben' is not in the account 'chem'"):
        env.tokens.add("ben", account="chem")
