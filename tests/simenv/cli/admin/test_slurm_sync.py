"""`simenv slurm sync` of a service that cannot be used; real Slurm has it in tests/cluster."""

import os
from pathlib import Path
from types import SimpleNamespace

import pytest
from shell import Shell

from simenv import errors
from simenv.cli import app
from simenv.errors import BatchRefusedError, SimenvError, SlurmError, VersionMismatchError
from simenv.frontends.slurm import LICENSES, jobs

SCONTROL = """\
#!/bin/sh
[ "$2" != licenses ] || echo 'LicenseName=fez Total=4 Used=0 Free=4 Reserved=0 Remote=no'
[ "$1" != create ] || echo "$*" >> {log}
"""


OF_SERVICE = [
    kind
    for kind in vars(errors).values()
    if isinstance(kind, type)
    and issubclass(kind, SimenvError)
    and not issubclass(kind, SlurmError | BatchRefusedError | VersionMismatchError)
]


@pytest.mark.parametrize("kind", OF_SERVICE)
@pytest.mark.parametrize("is_connected", [False, True])
def test_licences_are_held_while_the_service_cannot_be_used(
    kind: type[SimenvError],
    is_connected: bool,
    shell: Shell,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Another version of the service, which comes next, ends the command."""
    licences, log, scontrol = tmp_path / LICENSES, tmp_path / "log", tmp_path / "scontrol"
    licences.parent.mkdir()
    licences.write_text("# simenv pools: fez\nLicenses=fez:4\n")
    scontrol.write_text(SCONTROL.format(log=log))
    scontrol.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    waiting: list[SimenvError] = [kind("not now"), VersionMismatchError("of another version")]
    closed: list[bool] = []

    def refuse(*_: object, **__: object) -> object:
        raise waiting.pop(0)

    def connect(*_: object, **__: object) -> object:
        return SimpleNamespace(close=lambda: closed.append(True))

    monkeypatch.setattr(app.Settings, "connect", connect if is_connected else refuse)
    monkeypatch.setattr(jobs, "reconcile", refuse)
    words = ("slurm", "sync", "--every", "0.01", "--cluster", "big", "--conf", str(tmp_path))
    answer = shell(*words)
    assert answer.code == VersionMismatchError.exit_code, answer
    assert "not now" in answer.err
    assert len(closed) == 2 * is_connected
    held = log.read_text().splitlines()
    assert [line.endswith("Licenses=fez:4") for line in held] == [True, True]
