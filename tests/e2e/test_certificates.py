"""A client with a certificate: renewed, ended, in a forked child."""

import os
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from brokers import short_folder
from failing import fails
from waiting import until

import simenv
from simenv.client.client import Client
from simenv.client.connection.broker import BrokerAddress

BELL = 'OPENQASM 2.0; include "qelib1.inc"; qreg q[2]; creg c[2]; h q[0]; cx q[0],q[1]; '
BELL += "measure q -> c;"
LIFETIME_S = 5.0
SERVICE = f"local:{os.getuid()}/local"


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with short_folder() as path, pytest.MonkeyPatch.context() as patch:
        patch.setenv("SIMENV_BROKERS", str(path))
        yield path


@pytest.fixture(scope="module")
def env(folder: Path) -> Iterator[Client]:
    identity = {"use": "local", "users": ["nobody-else"], "lifetime_s": LIFETIME_S}
    with simenv.local(workers=1, identity=identity) as client:
        yield client


def address_of(client: Client) -> BrokerAddress:
    address = client._address
    assert isinstance(address, BrokerAddress)
    return address


def threads() -> list[threading.Thread]:
    return [each for each in threading.enumerate() if each.name == "simenv-certificate"]


def test_idle_client_keeps_its_connection_beyond_its_first_certificate(env: Client) -> None:
    with simenv.connect(service=SERVICE) as client:
        connection, first = address_of(client)._connection, address_of(client)._certificate
        begun = time.monotonic()
        until(lambda: time.monotonic() - begun > 2.5 * LIFETIME_S, look_s=0.5)
        assert client.run(BELL, shots=10).shots == 10
        assert address_of(client)._connection is connection
        assert address_of(client)._certificate is not first
    until(lambda: not threads())


def test_ended_certificate_is_replaced(env: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    with simenv.connect(service=SERVICE) as client:
        address = address_of(client)
        connection = address._connection
        assert connection is not None
        monkeypatch.setattr(address, "renew", lambda: True)  # as in a process that was stopped
        key = address._public_key
        until(connection.is_refused, 10 * LIFETIME_S, look_s=0.2)
        assert client.run(BELL, shots=10).shots == 10
        assert address._public_key != key


def test_forked_child_has_a_certificate_of_its_own(env: Client) -> None:
    with simenv.connect(service=SERVICE) as client:
        counts = client.run(BELL, seed=5).counts
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12, threads and fork
            child = os.fork()
        if child == 0:
            try:
                os._exit(0 if client.run(BELL, seed=5).counts == counts else 1)
            finally:
                os._exit(2)
        assert os.waitpid(child, 0)[1] == 0
        assert client.run(BELL, seed=5).counts == counts


def test_environment_without_keys_accepts_no_key(env: Client) -> None:
    fails(simenv.errors.OptionError, "accepts no keys", env.keys.add, "ana", "client")


def test_names_of_the_environment_come_with_the_certificate(env: Client) -> None:
    with simenv.connect(service=SERVICE) as client:
        assert (client.name, client.service) == ("local", SERVICE)
        assert client.status().pid == env.status().pid
