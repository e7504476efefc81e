"""Standbys as real services: what refuses them, what they show, and `down`, which ends them."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import msgspec
import psutil
import pytest
from failing import fails
from postgres_journal import server
from waiting import until

from simenv import config
from simenv._version import __version__
from simenv.client import environments
from simenv.client.administration.keys import issue_key
from simenv.client.client import Client, connect
from simenv.config import Config
from simenv.errors import ConfigError, JournalError, NoServiceError, VersionMismatchError
from simenv.model import PoolSpec
from simenv.service.journal import leadership
from simenv.service.journal.database import PostgresPlace, place_of
from simenv.wire.keyfiles import UserKeyFile, read_private, write_private

LEASE_S = 8.0  # longer than `down` takes
END_S = 30.0


@pytest.fixture
def place() -> Iterator[PostgresPlace]:
    """A running environment."""
    name = f"s{os.urandom(6).hex()}"
    options = {"name": name, "journal": server(), "leader_lease_s": LEASE_S, "launcher": "local"}
    options |= {"listen": "tcp://127.0.0.1:0", "pools": [PoolSpec(min=1, max=1)]}
    environments.up(options)
    yield place_of(config.read(_folder(name) / "config.json"), Path())
    with suppress(NoServiceError):
        environments.down(name, now=True)


def _folder(name: str) -> Path:
    return config.places(Config(name=name)).home


def _client(place: PostgresPlace) -> Client:
    return connect(name=place.environment)


def test_standbys_that_could_not_lead_are_refused(place: PostgresPlace) -> None:
    name = place.environment
    path = _folder(name) / "config.json"

    def refused(error: type[Exception], words: str) -> None:
        fails(error, words, environments.stand_by, name)  # type: ignore[arg-type]

    with leadership.connect(place) as session:
        session.execute("update leader set version = '0.0.1', node = 'n1'")
        refused(VersionMismatchError, "has version 0.0.1")
        session.execute("update leader set format = format + 1")
        refused(JournalError, "this build reads")
        session.execute("update leader set format = format - 1, version = $1", [__version__])
        stored = config.read(path)
        config.write(msgspec.structs.replace(stored, drain_timeout_s=7.0), path)
        refused(ConfigError, "has other settings than the service on n1")
        config.write(stored, path)
        refused(ConfigError, "cannot listen on 127.0.0.1")  # the service has the port
        with Client(environments.FileAddress(path.with_name("connection.json"))) as client:
            assert not client.status().standbys
        session.execute("alter table leader rename to other")
        session.execute("create view leader as select 1 as one")
        refused(JournalError, "cannot be opened")
        session.execute("drop view leader")
        session.execute("alter table other rename to leader")


def test_key_file_names_standbys_and_reaches_who_answers(
    place: PostgresPlace, tmp_path: Path
) -> None:
    path = tmp_path / "user.simenv"
    environments.stand_by(place.environment)
    with _client(place) as client:
        until(lambda: client.status().standbys)
        file = _folder(place.environment) / "connection.json"
        until(lambda: environments.read(file).standbys)
        issue_key(client.keys, "user", "client", path)
    key = read_private(path, UserKeyFile)
    assert key.standbys == environments.read(file).standbys
    path.unlink()
    write_private(path, msgspec.structs.replace(key, address="tcp://127.0.0.1:1"))
    with connect(service=str(path)) as user:
        assert user.status().name == place.environment


def test_down_of_a_service_that_died_ends_its_standbys(place: PostgresPlace) -> None:
    name = place.environment
    standby = psutil.Process(environments.stand_by(name))
    with _client(place) as client:
        until(lambda: client.status().standbys)
        assert client.status().standbys[0].node == os.uname().nodename
        leader = psutil.Process(client.status().pid)
    leader.kill()
    report = environments.down(name)
    assert report.forced
    assert environments.still_running([standby, leader], END_S) == []
    fails(NoServiceError, "", environments.down, name)
    with leadership.connect(place) as session:
        assert leadership.read_leader(session).state == "stopped"


def test_restore_continues_from_the_database_and_refuses_a_new_one(place: PostgresPlace) -> None:
    name = place.environment
    with _client(place) as client:
        epoch = client.status().epoch
    environments.down(name)
    environments.up({"name": name}, resume=True)
    with _client(place) as client:
        info = client.status()
        assert info.epoch == epoch + 1
        assert name in info.resumed
    environments.down(name)
    with leadership.connect(place) as session:
        session.execute(f'drop schema "simenv_{name}" cascade')
    fails(Exception, "no journal to resume", environments.up, {"name": name}, resume=True)
