"""Commands of an administrator: keys, limits, pools and nodes."""

import json
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import live
import pytest
from shell import Shell

from simenv.cli.admin.keys import note_without_account
from simenv.cli.app import run
from simenv.client.client import Client
from simenv.model.accounts import Account
from simenv.wire.keyfiles import ServerFile, UserKeyFile, new_pair, read_private, write_private

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
        "owner": "ana", "role": "client", "limit": "max_queued_tasks", "used": 0,
        "maximum": 250_000,
    }  # fmt: skip
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


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An environment that listened once and is down; we stand in a folder of our own."""
    monkeypatch.setenv("SIMENV_HOME", str(tmp_path / "home"))
    folder = tmp_path / "home" / "default"
    folder.mkdir(parents=True)
    pair = new_pair()
    write_private(
        folder / "server-key.json", ServerFile(1, pair.public, pair.secret, "tcp://10.0.0.1:7000")
    )
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    return folder


def test_keys_add_writes_private_key_file(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["keys", "add", "ana"]) == 0
    output = capsys.readouterr().out
    assert list(Path().iterdir()) == [], "a secret lies in the working folder"
    file = home / "keys" / "ana.simenv"
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    private = read_private(file, UserKeyFile)
    server = read_private(home / "server-key.json", ServerFile)
    assert (private.address, private.server_key) == (server.address, server.public_key)
    assert (private.owner, private.role, private.name) == ("ana", "client", "default")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert f"SIMENV_SERVICE={file.absolute()}" in output
    assert private.secret_key not in output
    assert server.secret_key not in file.read_text()


def test_user_without_an_account_is_noted(capsys: pytest.CaptureFixture[str]) -> None:
    note_without_account({}, "ana")
    note_without_account({"chem": Account(users=("ana",))}, "ana")
    note_without_account({"chem": Account(users=("@staff",))}, "ana")
    assert capsys.readouterr().err == ""
    note_without_account({"chem": Account(users=("ana",))}, "anna")
    hint = "simenv accounts set NAME --add-user anna"
    assert f"anna is in no account and cannot submit: {hint}" in capsys.readouterr().err


def test_keys_are_listed_and_revoked(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert (run(["keys", "add", "ana"]), run(["keys", "add", "ops", "--role", "admin"])) == (0, 0)
    capsys.readouterr()
    assert run(["keys", "list", "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(row["name"], row["role"]) for row in rows] == [("ana", "client"), ("ops", "admin")]
    assert (run(["keys", "revoke", "ana"]), run(["keys", "revoke", "ana"])) == (0, 4)
    assert "there are: ops" in capsys.readouterr().err
    assert run(["keys", "list", "--no-header", "-o", "name"]) == 0
    assert capsys.readouterr().out == "ops\n"


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["ana", "--role", "worker"], 2), (["ana", "--role", "king"], 2), (["../ana"], 2),
        (["Ana; rm -rf"], 2), (["ana", "--out", "no/such/folder/ana"], 2),
        (["ana", "--name", "never-was"], 5),
    ],
)  # fmt: skip
def test_refused_keys_add_leaves_no_file_or_key(home: Path, words: list[str], code: int) -> None:
    assert run(["keys", "add", *words]) == code
    assert list(Path().iterdir()) == []
    assert not (home / "keys.json").exists() or '"name"' not in (home / "keys.json").read_text()


def test_keys_add_refuses_existing_file(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("ana.simenv").write_text("something dear")
    Path("ana.simenv").chmod(0o644)
    assert run(["keys", "add", "ana", "--out", "ana.simenv"]) == 2
    assert "can be opened by others" in capsys.readouterr().err
    assert Path("ana.simenv").read_text() == "something dear"
    assert not (home / "keys.json").exists()


def test_gateway_with_key_of_a_client_is_not_started(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pair, path = new_pair(), tmp_path / "ana.simenv"
    key = UserKeyFile(
        1, "lab", "tcp://127.0.0.1:1", pair.public, "ana", "client", pair.public, pair.secret
    )
    write_private(path, key)
    assert run(["gateway", "--service", str(path)]) == 2
    assert "ana.simenv, of a client" in capsys.readouterr().err
