"""`simenv limits` and `simenv policy` against a running environment."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import live
import pytest
from shell import Shell

from simenv.client.client import Client

POOLS = [{"name": "main", "min": 0, "max": 1}]  # nothing is run here
OPTIONS = {"listen": "tcp://127.0.0.1:0"}
Call = Callable[..., list[str]]


@pytest.fixture(scope="module")
def env(environment: live.Live) -> Iterator[Client]:
    with environment.client() as client:
        client.keys.add("ana", "client")
        yield client


@pytest.fixture
def call(env: Client, shell: Shell) -> Call:
    def called(*words: str, code: int = 0) -> list[str]:
        answer = shell(*words)
        assert answer.code == code, answer
        return (answer.out or answer.err).splitlines()

    return called


def test_limits_are_listed_with_use(call: Call) -> None:
    rows = [json.loads(line) for line in call("limits", "--owner", "ana", "--json")]
    table = {row["limit"]: row for row in rows}
    assert table["max_queued_tasks"] == {
        "owner": "ana",
        "role": "client",
        "limit": "max_queued_tasks",
        "used": 0,
        "maximum": 250_000,
    }
    assert table["max_priority"]["used"] is None
    assert table["max_running_slots"]["maximum"] is None


def test_a_limit_is_set_and_reset(call: Call, env: Client) -> None:
    call("limits", "set", "ana", "max_kept_bytes=2GiB", "max_running_slots=3")
    assert env.limits()["ana"].limits.max_kept_bytes == 2 * 2**30
    (row,) = [json.loads(line) for line in call("keys", "list", "--json")]
    assert row["limits"]["max_running_slots"] == 3
    call("limits", "reset", "ana")
    assert env.limits()["ana"].limits.max_running_slots == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("max_tasks=3",), "no limit 'max_tasks'"),
        (("max_priority",), "KEY=VALUE"),
        (("max_priority=-1",), "is not a whole number"),
    ],
)
def test_invalid_limit_is_refused(call: Call, words: tuple[str, ...], said: str) -> None:
    assert said in "\n".join(call("limits", "set", "ana", *words, code=2))


def test_audit_log_is_selected_by_event_kind(call: Call) -> None:
    call("limits", "set", "ana", "max_priority=5")
    rows = [json.loads(line) for line in call("events", "--kind", "audit", "--json")]
    assert rows[-1]["kind"] == "audit.limits.set"
    assert "by the environment's own user from process" in rows[-1]["message"]
    assert {row["kind"].partition(".")[0] for row in rows} == {"audit"}


def test_policies_are_listed_and_set(call: Call, env: Client) -> None:
    call("policy", "queue", "main", "ordered", "--keys", "shortest,fifo")
    call("policy", "admission", "all", "credit", "--total-credits", "50")
    rows = {row["pool"]: row for row in map(json.loads, call("policy", "--json"))}
    assert rows["main"]["keys"] == ["shortest", "fifo"]
    assert (rows["all"]["admission"], rows["all"]["credits"]) == ("credit", 50)
    env.policies.set_admission("all", "unlimited")
    env.policies.set_queue("main", "priority")
    assert env.policies.of("main").queue == "priority"


def test_unknown_queue_policy_is_refused(call: Call) -> None:
    assert "there is no queue policy 'lifo'" in "\n".join(
        call("policy", "queue", "main", "lifo", code=2)
    )
