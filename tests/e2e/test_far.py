"""An environment over TCP: people with key files, keys through restarts, its own user elsewhere."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest
from busy_circuits import ENDLESS
from failing import fails
from live import Live, environment
from waiting import until

import simenv
from simenv import errors
from simenv.cli.app import run
from simenv.client import environments
from simenv.client.administration import keys
from simenv.client.administration.keys import issue_key
from simenv.client.client import Client
from simenv.config import ConnectionFile, OwnerEndpoint
from simenv.errors import KeyRefusedError, NoServiceError
from simenv.wire.keyfiles import UserKeyFile, create_private, new_pair, read_private

BELL = 'OPENQASM 2.0; include "qelib1.inc"; qreg q[3]; creg c[3]; ry(0.7) q[0]; cx q[0],q[1]; '
BELL += "h q[2]; measure q -> c;"
TYPED_S = 30.0  # it is a few on a quiet machine; a client that nobody answers waits for ever


@pytest.fixture(scope="module")
def env() -> Iterator[Client]:
    with simenv.local(workers=2, listen="tcp://127.0.0.1:0") as result:
        yield result


@pytest.fixture
def key_file(env: Client, tmp_path: Path) -> Iterator[Callable[..., Path]]:
    lines: list[str] = []

    def make(name: str, role: str = "client") -> Path:
        file = tmp_path / f"{name}.simenv"
        issue_key(env.keys, name, role, file)
        lines.append(name)
        return file

    yield make
    for name in lines:
        if name in {key.name for key in env.keys.listed()}:
            env.keys.revoke(name)


def refused(file: Path) -> errors.SimenvError:
    """What a client with this file hears, soon enough."""
    begin = time.monotonic()
    caught = fails(errors.SimenvError, "", simenv.connect, service=file)
    assert time.monotonic() - begin < TYPED_S + 5.0
    return caught


def altered(file: Path, **changes: str) -> Path:
    """The same file with something else in it."""
    changed = msgspec.structs.replace(read_private(file, UserKeyFile), **changes)
    other = file.with_suffix(".other")
    keys.keyfiles.write_private(other, changed)
    return other


def test_counts_over_tcp_equal_local_counts(env: Client, key_file: Callable[..., Path]) -> None:
    with simenv.connect(service=key_file("ana")) as far:
        entries = [task.result().counts for task in env.submit_many([BELL] * 5, seed=11)]
        items = [task.result().counts for task in far.submit_many([BELL] * 5, seed=11)]
    with simenv.local(workers=1) as other:
        alone = [task.result().counts for task in other.submit_many([BELL] * 5, seed=11)]
    assert entries == items == alone


def test_client_sees_and_cancels_only_own_tasks(env: Client, key_file: Callable[..., Path]) -> None:
    outcome = env.submit(BELL)
    with simenv.connect(service=key_file("ana")) as ana:
        hers = ana.submit(BELL, idempotency_key="run-1")
        hers.result()
        assert {task.owner for task in ana.queue(done=True)[1]} == {"ana"}
        assert ana.cancel([outcome]) == ["unknown"]
        fails(errors.NotFoundError, "", ana.task, outcome.id)
        for steer in (ana.shutdown, ana.keys.listed, lambda: ana.keys.revoke("ana")):
            fails(errors.NotAllowedError, "role client", steer)
    with simenv.connect(service=key_file("ben")) as ben:
        assert ben.submit(BELL, idempotency_key="run-1", shots=7).id != hers.id
        assert list(ben.events())
    with simenv.connect(service=key_file("ops", "admin")) as ops:
        assert ops.task(hers.id).result().counts
        assert {key.name for key in ops.keys.listed()} >= {"ana", "ben", "ops"}


def test_completions_wait_for_no_other_owner(env: Client, key_file: Callable[..., Path]) -> None:
    slow = env.submit(ENDLESS, shots=10)
    with simenv.connect(service=key_file("ana")) as ana:
        assert ana.run(BELL).task in [each.task.id for each in ana.completions(since=0)]
    assert not slow.done()
    slow.cancel()
    slow.wait()


def test_admin_by_tcp_adds_and_revokes_keys(key_file: Callable[..., Path], tmp_path: Path) -> None:
    with simenv.connect(service=key_file("ops", "admin")) as ops:
        issue_key(ops.keys, "eva", "client", tmp_path / "eva")
        with simenv.connect(service=tmp_path / "eva") as eva:
            assert eva.run(BELL).counts
        ops.keys.revoke("eva")
    assert isinstance(refused(tmp_path / "eva"), errors.KeyRefusedError)


def test_key_with_an_end_is_refused_afterwards(env: Client, tmp_path: Path) -> None:
    file = tmp_path / "eva"
    issue_key(env.keys, "eva", "client", file, time.time() + 4.0)
    try:
        with simenv.connect(service=file) as eva:
            assert eva.run(BELL).counts
            error = until(lambda: error_of(eva.status), TYPED_S)
        assert isinstance(error, errors.KeyRefusedError)
        assert "expired" in error.message
        assert isinstance(refused(file), errors.KeyRefusedError)
    finally:
        env.keys.revoke("eva")


def error_of(call: Callable[[], object]) -> errors.SimenvError | None:
    try:
        call()
    except errors.SimenvError as error:
        return error
    return None


def test_holder_rotates_own_key(
    env: Client, key_file: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    file = key_file("ana")
    before = read_private(file, UserKeyFile)
    with simenv.connect(service=file) as ana:
        assert run(["--service", str(file), "keys", "rotate", "--overlap", "5m"]) == 0
        assert "the former key is accepted until" in capsys.readouterr().out
        after = read_private(file, UserKeyFile)
        assert (after.owner, after.role, after.address) == ("ana", "client", before.address)
        assert after.public_key != before.public_key
        assert after.secret_key not in ("", before.secret_key)
        assert ana.run(BELL).counts
        with simenv.connect(service=file) as again:
            assert {task.owner for task in again.queue(done=True)[1]} == {"ana"}
    assert [key.name for key in env.keys.listed()].count("ana") == 2
    assert run(["--service", str(file), "keys", "rotate", "ben"]) != 0
    assert not list(file.parent.glob(".*rotating"))


def test_revoked_key_is_refused_and_tasks_stay(env: Client, key_file: Callable[..., Path]) -> None:
    file = key_file("ana")
    with simenv.connect(service=file) as ana:
        task = ana.submit(BELL)
        env.keys.revoke("ana")
        begin = time.monotonic()
        fails(errors.KeyRefusedError, "revoked", ana.status)
        fails(errors.KeyRefusedError, "", ana.submit, BELL)
        assert time.monotonic() - begin < TYPED_S
    error = refused(file)
    assert isinstance(error, errors.KeyRefusedError)
    assert "'ana'" in error.message
    assert env.task(task.id).result().counts, "tasks stay"


def test_wrong_client_or_server_key_or_address_is_refused(key_file: Callable[..., Path]) -> None:
    file = key_file("ana")
    pair = new_pair()
    result = altered(file, public_key=pair.public, secret_key=pair.secret)
    assert isinstance(refused(result), errors.KeyRefusedError)
    error = refused(altered(file, server_key=new_pair().public))  # as if nothing were there
    assert isinstance(error, errors.NoServiceError)
    with pytest.raises(errors.NoServiceError, match="nothing listens"):
        simenv.connect(service=altered(file, address="tcp://127.0.0.1:9"), timeout_s=1.5)


def test_second_key_of_same_name_is_refused_and_first_remains(
    env: Client, key_file: Callable[..., Path], tmp_path: Path
) -> None:
    file = key_file("ana")
    before = file.read_bytes()
    fails(errors.ConfigError, "is there already", issue_key, env.keys, "ana", "client", file)
    fails(errors.KeyConflictError, "", issue_key, env.keys, "ana", "client", tmp_path / "second")
    assert not (tmp_path / "second").exists()
    assert file.read_bytes() == before


def test_key_is_revoked_if_its_file_cannot_be_written(env: Client, tmp_path: Path) -> None:
    with pytest.raises(errors.ConfigError):
        issue_key(env.keys, "eva", "client", tmp_path / "no such folder" / "eva")
    assert "eva" not in {key.name for key in env.keys.listed()}


PAIR = 'OPENQASM 2.0; include "qelib1.inc"; qreg q[2]; creg c[2]; h q[0]; cx q[0],q[1]; '


PAIR += "measure q -> c;"


@pytest.fixture
def named(no_leaks: None) -> Iterator[Live]:
    with environment(listen="tcp://127.0.0.1:0") as live:
        yield live


def test_key_files_stay_valid_after_restart_until_revoked(
    named: Live, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ana, eva = tmp_path / "ana", tmp_path / "eva"
    common = ["--name", named.name]
    assert run(["keys", "add", "ana", "--out", str(ana), *common]) == 0
    with simenv.connect(service=ana) as client:
        task = client.submit(PAIR, seed=3)
        assert run(["down", *common]) == 0
        assert run(["keys", "add", "eva", "--role", "admin", "--out", str(eva), *common]) == 0
        capsys.readouterr()
        assert run(["keys", "list", "--no-header", "--columns", "name,role", *common]) == 0
        assert capsys.readouterr().out == "ana\tclient\neva\tadmin\n"
        named.up()
        assert task.result(timeout_s=60).counts
    with simenv.connect(service=eva) as client:
        assert client.status().name == named.name
    assert run(["down", "--service", str(eva)]) == 0
    assert run(["keys", "revoke", "ana", *common]) == 0
    named.up()
    fails(KeyRefusedError, "", simenv.connect, service=ana)


def test_keys_add_needs_a_listener(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with environment() as live:
        assert run(["keys", "add", "ana", "--out", str(tmp_path / "ana"), "--name", live.name]) == 2
        assert "simenv up --listen" in capsys.readouterr().err
        live.down()
    assert not (tmp_path / "ana").exists()


def test_secret_key_is_printed_only_for_out_dash(
    named: Live, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "ana"
    assert run(["keys", "add", "ana", "--out", str(file), "--json", "--name", named.name]) == 0
    secret = read_private(file, UserKeyFile).secret_key
    assert run(["keys", "list", "--json", "--name", named.name]) == 0
    output = capsys.readouterr()
    assert secret not in output.out + output.err
    assert secret.encode() not in b"".join(
        path.read_bytes() for path in named.home.rglob("*") if path.is_file()
    )
    assert run(["keys", "add", "eva", "--out", "-", "--name", named.name]) == 0
    decoded = msgspec.json.decode(capsys.readouterr().out, type=UserKeyFile)
    file = tmp_path / "eva"
    create_private(file, decoded)
    with simenv.connect(service=file) as eva:
        assert eva.status().name == named.name


UNMEASURED = 'OPENQASM 2.0; include "qelib1.inc"; qreg q[2]; creg c[2]; h q[0]; cx q[0],q[1]; '


WIDE = 'OPENQASM 2.0; include "qelib1.inc"; qreg q[17]; h q; t q; h q;'


@pytest.fixture
def listening() -> Iterator[Live]:
    with environment(listen="tcp://127.0.0.1:0") as up:
        yield up


def seen_elsewhere(listening: Live, folder: Path, **changes: object) -> Path:
    """The connection file as another machine reads it."""
    path = folder / "connection.json"
    result = environments.read(listening.home / "connection.json")
    changed = msgspec.structs.replace(result, node="elsewhere", sockets="/nowhere", **changes)
    path.touch(0o600)
    path.write_bytes(msgspec.json.encode(changed))
    return path


@pytest.mark.usefixtures("no_leaks")
def test_owner_elsewhere_has_all_rights_by_connection_file(listening: Live, tmp_path: Path) -> None:
    """She may do everything, and sees what she submitted on the service's machine."""
    outcome = seen_elsewhere(listening, tmp_path)
    with listening.client() as result, simenv.connect(service=outcome) as far:
        task = result.submit(UNMEASURED + "measure q->c;", seed=5)
        assert far.task(task.id).result().counts == task.result().counts
        wide = far.run(WIDE, outputs=("statevector",), shots=None)  # travels as a file
        assert np.vdot(wide.statevector, wide.statevector).real == pytest.approx(1.0)
        assert far.keys.listed() == []
        assert far.scale("main", 1).least == 1
        assert [info.owner for info in far.tasks([task, wide.task])] == ["", ""]
        far.shutdown(now=True)
    listening.wait_dead(environments.read(outcome).pid)


def test_owner_elsewhere_continues_after_restart(listening: Live, tmp_path: Path) -> None:
    result = seen_elsewhere(listening, tmp_path)
    with simenv.connect(service=result) as far:
        first = far.run(UNMEASURED + "measure q->c;", seed=5)
        environments.down(listening.name)
        listening.up()
        assert far.run(UNMEASURED + "measure q->c;", seed=5).counts == first.counts


def test_stale_key_in_connection_file_is_refused(listening: Live, tmp_path: Path) -> None:
    own = environments.read(listening.home / "connection.json").own
    assert own is not None
    pair = new_pair()
    stale = OwnerEndpoint(own.address, own.server_key, pair.public, pair.secret)
    result = seen_elsewhere(listening, tmp_path, own=stale)
    fails(KeyRefusedError, "does not know the key in", simenv.connect, service=result)


def test_connecting_from_other_machine_without_listener_is_refused(tmp_path: Path) -> None:
    with environment() as up:
        result = seen_elsewhere(up, tmp_path)
        assert msgspec.json.decode(result.read_bytes(), type=ConnectionFile).own is None
        fails(NoServiceError, "listens for no other machine", simenv.connect, service=result)
