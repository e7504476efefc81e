"""Accounts and classes of service of a real environment: commands, users, every interface."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pennylane as qml
import pytest
from circuits import bell
from failing import fails
from live import Live, environment, with_keys
from shell import Shell

from simenv.client.client import Client
from simenv.errors import (
    ConfigError,
    LimitExceededError,
    NotAllowedError,
    NotFoundError,
    OptionError,
    SimenvError,
)
from simenv.frontends.qiskit import SimenvBackend, SimenvEstimator, SimenvSampler
from simenv.frontends.qrmi import Payload, QuantumResource
from simenv.model.accounts import Account, Qos
from simenv.qpm.contract import ExecutionError

QASM = 'OPENQASM 2.0; include "qelib1.inc"; qreg q[1]; creg c[1]; x q[0]; measure q -> c;'
QASM3 = 'OPENQASM 3.0; include "stdgates.inc"; bit[1] c; qubit[1] q; x q[0]; c[0] = measure q[0];'
WAIT_S = 120.0
OPTIONS = {
    "listen": "tcp://127.0.0.1:0",
    "pools": [{"name": "main", "min": 1, "max": 1}, {"name": "calls", "engine": "functions"}],
    "accounts": {"bio": {"users": ["ana"], "qos": ["idle", "urgent"]}},
    "qos": {"urgent": {"priority": 5}, "idle": {}},
}


@pytest.fixture(scope="module")
def ana(up: Live, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A client with the key of a user."""
    with up.client() as client, with_keys(client, tmp_path_factory.mktemp("keys"), "ana") as keys:
        yield keys["ana"]


def account_of(client: Client, task: Any) -> tuple[str, str]:
    terms = client.history.submitted(task).terms
    return terms.account, terms.qos


def test_accounts_are_added_listed_changed_moved_and_removed(shell: Shell, env: Client) -> None:
    added = shell(
        *("accounts", "add", "chem", "--share", "2", "--add-user", "ben", "--add-user", "@lab"),
        *("--budget-slot-h", "10", "--qos", "urgent,idle", "max_queued_bytes=1GiB"),
    )
    assert (added.code, added.out.splitlines()[0].split()) == (0, ["account", "chem"])
    assert env.accounts.listed()["chem"] == Account(
        share=2.0, users=("ben", "@lab"), budget_slot_h=10.0, qos=("urgent", "idle"),
        limits={"max_queued_bytes": 2**30},
    )  # fmt: skip
    words = ("--remove-user", "@lab", "--qos", "", "--cut", "max_queued_bytes=0", "max_run_s=5")
    row = shell("accounts", "set", "chem", *words, "--json").object
    assert row == {
        "account": "chem", "parent": "", "share": 2.0, "budget_slot_h": 10.0, "cut": True,
        "users": ["ben"], "coordinators": [], "qos": [], "limits": {"max_run_s": 5},
    }  # fmt: skip
    assert shell("accounts", "move", "bio", "chem").code == 0
    rows = shell("accounts", "list", "--json").objects
    assert [(each["account"], each["parent"]) for each in rows] == [("chem", ""), ("bio", "chem")]
    table = [line.split("\t") for line in shell("accounts").out.splitlines()]
    assert (table[0][:3], table[2][:3]) == (["ACCOUNT", "PARENT", "SHARE"], ["bio", "chem", "1"])
    refused = shell("accounts", "remove", "chem")
    assert (refused.code, "'chem' has accounts below it: bio" in refused.err) == (2, True)
    assert shell("accounts", "move", "bio", "-").code == 0
    assert shell("accounts", "remove", "chem", "--json").object == {"name": "chem", "removed": True}
    assert list(env.accounts.listed()) == ["bio"]
    kinds = [row["kind"] for row in shell("events", "--kind", "audit", "--json").objects]
    assert kinds[-1] == "audit.accounts.remove"
    assert "audit.accounts.set" in kinds


def test_classes_are_set_listed_and_removed(shell: Shell, env: Client) -> None:
    words = ("--usage-factor", "0.5", "--preempt", "--max-run-s", "60", "max_queued_tasks=3")
    assert shell("qos", "set", "night", "--priority", "-5", *words).code == 0
    night = Qos(-5, 0.5, preempt=True, max_run_s=60, limits={"max_queued_tasks": 3})
    assert env.qos.listed()["night"] == night
    assert shell("qos", "set", "night", "--no-preempt", "--json").object["preempt"] is False
    rows = {row["qos"]: row for row in shell("qos", "--json").objects}
    assert rows["night"]["limits"] == {"max_queued_tasks": 3}
    assert shell("qos", "remove", "night").code == 0
    assert set(env.qos.listed()) == {"urgent", "idle"}
    assert shell("qos", "remove", "urgent").code == 2  # bio names it


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("accounts", "add", "bio"), 2, "there is an account 'bio' already"),
        (("accounts", "set", "geo", "--share", "2"), 4, "simenv accounts add geo"),
        (("accounts", "move", "geo", "bio"), 4, "there is no account 'geo'"),
        (("accounts", "remove", "geo"), 4, "there is no account 'geo'"),
        (("accounts", "set", "bio", "--remove-user", "zoe"), 4, "'zoe' is not one of its users"),
        (("accounts", "set", "bio", "max_queued_tasks"), 2, "KEY=VALUE"),
        (("qos", "set", "x", "--usage-factor", "-1"), 2, "usage_factor = -1.0 is outside"),
        (("qos", "remove", "x"), 4, "there is no class of service 'x'"),
    ],
)
def test_bad_command_is_refused(shell: Shell, words: tuple[str, ...], code: int, said: str) -> None:
    answer = shell(*words)
    assert answer.code == code
    assert said in answer.err


def test_wrong_changes_in_python_are_refused_by_name(env: Client, ana: Client) -> None:
    fails(OptionError, "no setting 'shares'", env.accounts.set, "bio", shares=2)
    fails(OptionError, "Expected `float`", env.accounts.set, "bio", share="much")
    fails(
        OptionError, "'2XB' is not a size", env.accounts.set, "x",
        limits={"max_queued_bytes": "2XB"},
    )  # fmt: skip
    fails(ConfigError, "account name 'X' is not allowed", env.accounts.set, "X")
    fails(NotAllowedError, "SetAccount", ana.accounts.set, "bio", share=2)
    fails(NotAllowedError, "SetQos", ana.qos.remove, "idle")


def test_user_runs_in_the_own_account_alone(ana: Client) -> None:
    assert list(ana.accounts.listed()) == ["bio"]
    assert ana.submit(bell(), shots=10).result(WAIT_S).counts
    assert account_of(ana, ana.submit(bell(), account="bio", qos="urgent")) == ("bio", "urgent")
    error = fails(
        NotAllowedError, "not in the account 'physics'", ana.submit, bell(), account="physics"
    )
    assert error.hint == "yours: bio"
    fails(NotFoundError, "no class of service 'fast'", ana.submit, bell(), qos="fast")


def test_spent_budget_is_refused_with_both_numbers(ana: Client, env: Client) -> None:
    env.accounts.set("bio", budget_slot_h=1e-9)
    words = r"bio: \S+ slot-h left until 1 \w+, this needs about \S+"
    fails(LimitExceededError, words, ana.submit, bell(), shots=10**6)
    env.accounts.set("bio", budget_slot_h=0)
    ana.submit(bell())


def test_accounts_and_tasks_survive_death_of_service(up: Live, env: Client, ana: Client) -> None:
    env.accounts.set("geo", users=["ana"], share=3)
    up.crash()
    up.up()
    assert env.accounts.listed()["geo"] == Account(users=("ana",), share=3.0)
    assert ana.submit(bell(), account="geo").result(WAIT_S).counts
    env.accounts.remove("geo")


def test_usage_and_ranks_survive_the_death_of_the_service(up: Live, env: Client) -> None:
    """But for their decay, which halves them in a week."""
    for account, shots in (("bio", 200_000), ("root", 1_000)):
        assert env.submit(bell(), shots=shots, account=account).result(WAIT_S).counts
    before = env.shares()
    up.crash()
    up.up()
    after = env.shares()
    assert [(row.account, row.user, row.rank) for row in after] == [
        (row.account, row.user, row.rank) for row in before
    ]
    assert [row.usage for row in after] == pytest.approx([row.usage for row in before], rel=1e-3)
    assert [row.norm_usage for row in after] == pytest.approx(
        [row.norm_usage for row in before], rel=1e-3
    )
    assert {row.account for row in before if row.usage > 0.0} >= {"bio", "root"}


def test_variables_are_defaults_of_submissions(
    env: Client, shell: Shell, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "x.qasm"
    file.write_text(QASM)
    monkeypatch.setenv("SIMENV_ACCOUNT", "bio")
    monkeypatch.setenv("SIMENV_QOS", "urgent")
    assert account_of(env, env.submit(bell())) == ("bio", "urgent")
    assert account_of(env, env.submit(bell(), qos="idle")) == ("bio", "idle")
    assert account_of(env, shell("submit", str(file), "--json").object["task"]) == ("bio", "urgent")
    chosen = shell("submit", str(file), "-A", "root", "--qos", "idle", "--json")
    assert account_of(env, chosen.object["task"]) == ("root", "idle")
    monkeypatch.setenv("SIMENV_QOS", "Not A Name")
    fails(ConfigError, "SIMENV_QOS", env.submit, bell())
    monkeypatch.setenv("SIMENV_QOS", "")
    assert account_of(env, env.submit(bell())) == ("bio", "")


def of_qrmi(env: Client, by: str, account: str, **options: str) -> Any:
    """The result of a task of the QRMI resource, by variables or by options of the payload."""
    given = {"account": account, **options}
    environ = {"main_QRMI_SIMENV_SERVICE": env.service}
    if by == "variables":
        environ |= {f"main_QRMI_SIMENV_{name.upper()}": value for name, value in given.items()}
        given = {}
    resource = QuantumResource("main", environ=environ)
    pubs = {"pubs": [[QASM3, None, 10]], "options": {"simenv": given}}
    try:
        return resource.task_result(resource.task_start(Payload(json.dumps(pubs), "sampler")))
    finally:
        resource.close()


def of_pennylane(env: Client, **terms: str) -> Any:
    device = qml.device("simenv", wires=1, env=env, **terms)

    @qml.qnode(device)
    def circuit() -> Any:
        return qml.expval(qml.Z(0))

    return circuit()


def of_stream(env: Client, **terms: str) -> Any:
    from simenv.client.stream import Stream

    with Stream(env, **terms) as stream:  # type: ignore[arg-type]
        return stream.submit(bell(), shots=10).result()


CALLS: dict[str, Callable[..., Any]] = {
    "submit": lambda env, **terms: env.submit(bell(), **terms).result(WAIT_S),
    "post": lambda env, **terms: env.post(bell(), **terms).result(WAIT_S),
    "submit_many": lambda env, **terms: env.submit_many([bell()], **terms)[0].result(WAIT_S),
    "submit_part": lambda env, **terms: env.submit_part(bell(), **terms).result(WAIT_S),
    "transpile": lambda env, **terms: env.transpile(bell(), "fez", **terms),
    "functions": lambda env, **terms: env.functions(**terms).submit(abs, -1).result(WAIT_S),
    "stream": of_stream,
    "qiskit": lambda env, **terms: SimenvBackend(env=env, **terms).run(bell()).result(),
    "sampler": lambda env, **terms: (
        SimenvSampler(SimenvBackend(env=env), **terms).run([bell()]).result()
    ),
    "estimator": lambda env, **terms: (
        SimenvEstimator(SimenvBackend(env=env), **terms)
        .run([(bell().remove_final_measurements(inplace=False), "ZZ")])
        .result()
    ),
    "pennylane": of_pennylane,
    "qpm": lambda env, **terms: env.qpm.sync_run({"qasm": QASM, "num_shots": 10, **terms}),
    "qrmi": lambda env, **terms: of_qrmi(env, "variables", **terms),
    "qrmi options": lambda env, **terms: of_qrmi(env, "options", **terms),
}


@pytest.mark.parametrize("interface", CALLS)
def test_each_interface_names_the_account_and_the_class(env: Client, interface: str) -> None:
    before = len(list(env.history.tasks()))
    CALLS[interface](env, account="bio", qos="urgent")  # not the default of bio
    rows = list(env.history.tasks())[before:]
    assert rows
    assert {account_of(env, row.id) for row in rows} == {("bio", "urgent")}
    for terms, said in (
        ({"account": "geo"}, "there is no account 'geo'"),
        ({"account": "bio", "qos": "fast"}, "there is no class of service 'fast'"),
    ):
        fails((SimenvError, Exception), said, CALLS[interface], env, **terms)


@pytest.mark.parametrize(("asked", "used"), [("urgent", "urgent"), ("normal", "")])
def test_qpm_uses_terms_that_the_caller_may_use(env: Client, asked: str, used: str) -> None:
    info = {"qasm": QASM, "num_shots": 10}
    request = {"account": "bio", "qos": asked, "ttl_ns": 60 * 10**9, "num_shots": 10}
    number = env.qpm.reserve(request=request)["reservation_id"]
    assert env.qpm.sync_run(info, reservation_id=number)["outcome"] == "COMPLETED"
    *_, row = env.history.tasks()
    assert account_of(env, row.id) == ("bio", used)  # there is no class "normal" here
    env.qpm.release(reservation_id=number)
    fails(ExecutionError, "account", env.qpm.sync_run, {**info, "account": 5})


def test_qpm_of_an_environment_without_accounts_ignores_them_with_a_warning() -> None:
    with environment() as live, live.client() as env:
        info = {"qasm": QASM, "num_shots": 10, "account": "Physics", "qos": "normal"}
        record = env.qpm.sync_run(info)
        assert record["outcome"] == "COMPLETED"
        assert "account has no effect" in str(record)
