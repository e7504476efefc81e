"""Accounts that have users of the machine of their own, in namespaces: attacks on the owner's files
and processes, each of which works without isolation. Only root can have such users."""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import user_programs
from confined import skip_without_account_users, skip_without_confinement
from live import Live, environment, with_keys
from user_programs import by_value

from simenv.client.client import Client
from simenv.sandbox import confinement, private_namespaces
from simenv.service.workers.account_users import FILE
from simenv.worker.main import MAX_THREADS

PATIENCE_S = 120.0
FIRST = 310_000
UIDS = f"{FIRST}-{FIRST + 1_023}"
POOLS = [
    {"name": "main", "min": 1, "max": 1},
    {"name": "tools", "engine": "functions", "min": 1, "max": 1},
]


@pytest.fixture(scope="module", autouse=True)
def confined() -> None:
    skip_without_confinement()


@pytest.fixture(scope="module", params=["own users", "one user"])
def up(request: pytest.FixtureRequest) -> Iterator[Live]:
    options: dict[str, Any] = {"listen": "tcp://127.0.0.1:0", "isolation": "account"}
    if request.param == "own users":
        skip_without_account_users()
        options["isolation_uids"] = UIDS
    with environment(pools=POOLS, **options) as live:
        yield live


@pytest.fixture(scope="module")
def keys(up: Live, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Client]]:
    folder = tmp_path_factory.mktemp("keys")
    with up.client() as owner, with_keys(owner, folder, "ana", "ben") as clients:
        yield clients


@by_value
def attack(home: str, file: str, service: int) -> dict[str, str]:
    """What a function can do to the owner: name -> "" or the error. It undoes what it does."""
    import os
    import resource
    import shutil
    import signal
    from functools import partial

    outcomes = {}

    def attempt(name: str, call: Callable[[], Any]) -> None:
        try:
            call()
            outcomes[name] = ""
        except OSError as error:
            outcomes[name] = type(error).__name__

    def plant() -> None:
        shutil.copyfile("/bin/sh", "planted")
        os.chmod("planted", 0o4755)

    def create_set_user_id() -> None:
        os.close(os.open("made", os.O_CREAT | os.O_WRONLY, 0o4755))
        if not os.stat("made").st_mode & 0o4000:
            raise PermissionError

    def find() -> None:
        with open(f"/proc/{service}/cmdline") as line:
            if "simenv" not in line.read():
                raise ProcessLookupError

    attempt("read", lambda: open(file).close())
    attempt("open home", partial(os.chmod, home, 0o700))
    attempt("open file", partial(os.chmod, file, 0o600))
    attempt("times", partial(os.utime, file))
    attempt("plant", plant)
    attempt("create", create_set_user_id)
    attempt("find", find)
    attempt("limit", partial(resource.prlimit, service, resource.RLIMIT_CPU, (-1, -1)))
    attempt("starve", partial(os.setpriority, os.PRIO_PROCESS, service, 0))
    attempt("signal", partial(os.kill, service, 0))
    attempt("reach it", partial(signal.pidfd_send_signal, 0, 0))
    return outcomes


def test_functions_can_do_nothing_to_the_owner(up: Live, keys: dict[str, Client]) -> None:
    """Also without a user of their own; the owner can do all of it."""
    home, file, pid = str(up.home), str(up.home / "connection.json"), up.service().pid
    outcomes = keys["ana"].call(attack, home, file, pid).result(PATIENCE_S)
    assert {name for name, error in outcomes.items() if not error} == set()


def test_the_same_attacks_succeed_without_isolation(tmp_path: Path) -> None:
    pools = [{"name": "tools", "engine": "functions", "min": 1, "max": 1}]
    with environment(pools=pools) as live, live.client() as owner:
        home, file, pid = str(live.home), str(live.home / "connection.json"), live.service().pid
        outcomes = owner.call(attack, home, file, pid).result(PATIENCE_S)
    done = {name for name, error in outcomes.items() if not error}
    scoped = confinement.landlock_abi() >= confinement.SCOPED_ABI  # no signals to other processes
    assert done == outcomes.keys() - {"reach it", *(["signal"] if scoped else [])}


@by_value
def who() -> dict[str, Any]:
    import os
    import resource

    listed = [name for name in os.listdir("/proc") if name.isdigit()]
    open("file", "w").close()
    ids = [*os.getresuid(), *os.getresgid(), *os.getgroups(), os.stat("file").st_uid]
    flags = os.statvfs(".").f_flag
    threads = resource.getrlimit(resource.RLIMIT_NPROC)[0]
    return {
        "ids": ids, "pids": len(listed), "nosuid": flags & 2, "nodev": flags & 4, "threads": threads
    }  # fmt: skip


def test_each_account_has_its_own_user_over_restarts(up: Live, keys: dict[str, Client]) -> None:
    if not (up.home / FILE).exists() and not list(up.home.rglob(FILE)):
        keys["ana"].call(who).result(PATIENCE_S)
    found = {}
    for name in ("ana", "ben", "ana"):
        answer = keys[name].call(who).result(PATIENCE_S)
        found.setdefault(name, answer["ids"])
        assert found[name] == answer["ids"], "the number of an account stays"
        assert len(set(answer["ids"])) == 1
    stored = [json.loads(path.read_text())["users"] for path in up.home.rglob(FILE)]
    if not stored:
        assert found["ana"] == found["ben"], "one user for all"
        return
    assert answer["threads"] == MAX_THREADS
    users = {name: ids[0] for name, ids in found.items()}
    assert users["ana"] != users["ben"]
    assert {users["ana"], users["ben"]} <= set(range(FIRST, FIRST + 1_024))
    assert stored[0].items() >= users.items()


def test_worker_sees_its_own_processes_and_no_set_user_id_programs(keys: dict[str, Client]) -> None:
    if reason := private_namespaces.unavailable_reason():
        pytest.skip(reason)
    answer = keys["ana"].call(who).result(PATIENCE_S)
    assert answer["pids"] == 3, "the first of the namespace, its worker, and what runs functions"
    assert answer["nosuid"]
    assert answer["nodev"]


def test_results_of_accounts_belong_to_the_owner(up: Live, keys: dict[str, Client]) -> None:
    circuit = "OPENQASM 2.0; qreg q[18]; " + " ".join(f"U(0.3,0.1,0) q[{k}];" for k in range(18))
    for name in ("ana", "ben"):
        result = keys[name].submit(circuit, shots=None, outputs="statevector").result(PATIENCE_S)
        assert abs(sum(abs(result.statevector) ** 2) - 1) < 1e-9
        process = psutil.Process(result._provenance.origin.pid)
        assert "simenv.worker" in process.cmdline(), "the number that the service knows is right"
    files = [path for path in (up.home / "results").rglob("*.h5") if "workers" not in path.parts]
    assert {(path.stat().st_uid, path.stat().st_mode & 0o7077) for path in files} <= {
        (os.geteuid(), 0)
    }


@pytest.mark.parametrize("name", ["circuits", "files", "waiting"])
def test_programs_of_users_work_as_users_of_accounts(keys: dict[str, Client], name: str) -> None:
    keys["ana"].call(by_value(getattr(user_programs, name))).result(PATIENCE_S)
