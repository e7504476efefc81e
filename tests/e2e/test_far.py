"""An environment over TCP: people with key files, and what each of them can do."""

import os
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from busy_circuits import ENDLESS
from failing import fails
from waiting import until

import simenv
from simenv import errors
from simenv.cli.app import run
from simenv.client.administration import keys
from simenv.client.administration.keys import issue_key
from simenv.client.client import Client
from simenv.wire.keyfiles import UserKeyFile, new_pair, read_private

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
        hers = ana.run(BELL).task
        assert hers in [each.task.id for each in ana.completions(since=0)]
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


def test_large_result_over_tcp_is_local_result(env: Client, key_file: Callable[..., Path]) -> None:
    qubits = 17  # 2 MiB of amplitudes: in a file beside the journal
    text = f'OPENQASM 2.0; include "qelib1.inc"; qreg q[{qubits}]; '
    text += " ".join(f"ry(0.{k + 1}) q[{k}]; rz(0.3) q[{k}];" for k in range(qubits))
    statevector = env.run(text, shots=None, outputs=("statevector",)).statevector
    with simenv.connect(service=key_file("ana")) as ana:
        outcome = ana.run(text, shots=None, outputs=("statevector",)).statevector
    assert outcome.tobytes() == statevector.tobytes()


def test_forked_child_and_parent_both_use_connected_client(key_file: Callable[..., Path]) -> None:
    with simenv.connect(service=key_file("ana")) as ana:
        counts = ana.run(BELL, seed=5).counts
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12, threads and fork
            child = os.fork()
        if child == 0:
            try:
                os._exit(0 if ana.run(BELL, seed=5).counts == counts else 1)
            finally:
                os._exit(2)
        assert os.waitpid(child, 0)[1] == 0
        assert ana.run(BELL, seed=5).counts == counts


def test_wrong_client_or_server_key_or_address_is_refused(key_file: Callable[..., Path]) -> None:
    file = key_file("ana")
    pair = new_pair()
    result = altered(file, public_key=pair.public, secret_key=pair.secret)
    assert isinstance(refused(result), errors.KeyRefusedError)
    error = refused(altered(file, server_key=new_pair().public))  # as if nothing were there
    assert isinstance(error, errors.NoServiceError)
    with pytest.raises(errors.NoServiceError, match="nothing listens"):
        simenv.connect(service=altered(file, address="tcp://127.0.0.1:9"), timeout_s=1.5)


def test_key_file_readable_by_others_is_refused(key_file: Callable[..., Path]) -> None:
    file = key_file("ana")
    file.chmod(0o644)
    error = refused(file)
    assert isinstance(error, errors.ConfigError)
    assert f"chmod 600 {file}" in error.hint


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
