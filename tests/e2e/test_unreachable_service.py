"""A service behind a forwarder that fails: it is away, and no key is refused for that."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest
from failing import fails

import simenv
from simenv import errors
from simenv.client.administration import keys
from simenv.client.administration.keys import issue_key
from simenv.client.client import Client
from simenv.client.connection import channel
from simenv.wire.keyfiles import UserKeyFile, new_pair, read_private
from simenv.wire.transport import zmq_transport
from testbed.forwarder import FAILURES, Forwarder

BELL = 'OPENQASM 2.0; include "qelib1.inc"; qreg q[2]; creg c[2]; h q[0]; cx q[0],q[1]; '
BELL += "measure q -> c;"


@pytest.fixture(scope="module")
def served() -> Iterator[Client]:
    with simenv.local(workers=1, listen="tcp://127.0.0.1:0") as result:
        yield result


@pytest.fixture(scope="module")
def key_file(served: Client, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("keys") / "ana.simenv"
    issue_key(served.keys, "ana", "client", path)
    return path


@pytest.fixture
def forwarder(key_file: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Forwarder]:
    """In front of the service; seconds of patience with a connection become tenths."""
    monkeypatch.setattr(channel, "REOPEN_S", 0.5)
    monkeypatch.setattr(channel, "QUIET_S", 0.1)
    monkeypatch.setattr(zmq_transport, "HANDSHAKE_MS", 500)
    port = int(read_private(key_file, UserKeyFile).address.rpartition(":")[2])
    with Forwarder(port) as result:
        yield result


def altered(key_file: Path, tmp_path: Path, **changes: str) -> Path:
    changed = msgspec.structs.replace(read_private(key_file, UserKeyFile), **changes)
    path = tmp_path / "altered.simenv"
    keys.keyfiles.write_private(path, changed)
    return path


@pytest.fixture
def path(key_file: Path, tmp_path: Path, forwarder: Forwarder) -> Path:
    """A key file with the address of the forwarder."""
    return altered(key_file, tmp_path, address=forwarder.address)


@pytest.mark.parametrize("failure", FAILURES)
def test_client_waits_behind_bad_forwarder(path: Path, forwarder: Forwarder, failure: str) -> None:
    with simenv.connect(service=path, patience_s=60.0) as ana, ThreadPoolExecutor(1) as pool:
        assert ana.run(BELL).counts
        forwarder.fail(failure, 0)
        waiting = pool.submit(ana.submit_many, [BELL] * 3)
        forwarder.fail(failure, 3)
        forwarder.failure = ""
        assert [task.result(60).shots for task in waiting.result(60)] == [1024] * 3
        assert len(list(ana.queue(done=True)[1])) >= 4


def test_connection_dropped_without_a_word_is_replaced(path: Path, forwarder: Forwarder) -> None:
    with simenv.connect(service=path, patience_s=60.0) as ana:
        forwarder.freeze()
        assert ana.run(BELL).counts


@pytest.mark.parametrize("failure", FAILURES)
def test_failed_first_connection_no_refusal(path: Path, forwarder: Forwarder, failure: str) -> None:
    forwarder.failure = failure
    error = fails(errors.NoServiceError, "", simenv.connect, service=path, timeout_s=1.0)
    assert error.retryable
    assert not error.maybe_accepted


def test_wrong_server_key_is_named_as_a_possible_cause(
    key_file: Path, tmp_path: Path, forwarder: Forwarder
) -> None:
    path = altered(key_file, tmp_path, server_key=new_pair().public)
    error = fails(errors.NoServiceError, "broke off", simenv.connect, service=path, timeout_s=1.0)
    assert f"its server key is not the one in {path}" in error.hint


def test_lost_submission_may_have_been_accepted(path: Path, forwarder: Forwarder) -> None:
    with simenv.connect(service=path, patience_s=0.5) as ana:
        forwarder.fail("close", 0)
        error = fails(errors.ServiceLostError, "may have been accepted", ana.submit, BELL)
        assert error.maybe_accepted
        key = {"idempotency_key": "run 1"}
        error = fails(errors.ServiceLostError, "may have been", ana.submit, BELL, **key)
        assert "idempotency_key='run 1'" in error.hint
        forwarder.failure = ""
        ana.session.channel.liveness.be_patient(60.0)
        assert ana.submit(BELL, **key) == ana.submit(BELL, **key)
