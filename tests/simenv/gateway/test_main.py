"""The process of the gateway."""

import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from simenv import files
from simenv._version import __version__
from simenv.config import ConnectionFile
from simenv.config.paths import gateway_lock
from simenv.errors import ConfigError
from simenv.gateway import __main__ as process
from simenv.service.bootstrap import CONNECTION_FORMAT


def test_defaults_of_the_starters_tasks_are_not_those_of_users(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    names = {"SIMENV_ACCOUNT", "SIMENV_QOS", "SIMENV_RESERVATION", "SIMENV_APP", "TRACEPARENT"}
    for name in names:
        monkeypatch.setenv(name, "chem")
    monkeypatch.setattr(sys, "argv", ["gateway", "web", "--home", str(tmp_path)])
    seen: list[str] = []
    monkeypatch.setattr(process, "run", lambda *_: seen.extend(os.environ))
    assert process.main() == 0
    assert seen
    assert not names & set(seen)


def test_gateway_of_an_earlier_start_of_the_service_ends_itself(tmp_path: Path) -> None:
    """Its parent lives on: the kernel does not end it."""
    home = files.private_folder(tmp_path / "web")
    fields = (CONNECTION_FORMAT, "web", __version__, os.getpid(), os.uname().nodename)
    file = ConnectionFile(*fields, epoch=7, sockets="", socket_key="")
    files.write_atomic(home / "connection.json", msgspec.json.encode(file))
    argv = ["-m", "simenv.gateway", "web", "--home", str(home), "--metrics-fd", "0"]
    ended = subprocess.run(
        [sys.executable, "-P", *argv, "--epoch", "6"], stdin=subprocess.DEVNULL, check=False
    )
    assert ended.returncode == ConfigError.exit_code
    assert (
        "start 6 of the service, which this gateway belongs to, has ended"
        in (home / "logs/gateway.log").read_text()
    )


def test_second_gateway_names_the_holder_of_the_lock(tmp_path: Path) -> None:
    with gateway_lock(tmp_path), pytest.raises(ConfigError) as refused, gateway_lock(tmp_path):
        pass
    assert f"process {os.getpid()} on {os.uname().nodename}" in refused.value.message
    with gateway_lock(tmp_path):
        pass
