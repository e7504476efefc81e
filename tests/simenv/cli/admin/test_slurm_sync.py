"""`simenv slurm sync` of a service that cannot be used; real Slurm has it in tests/cluster."""

import os
from pathlib import Path
from types import SimpleNamespace

import pytest
from shell import Shell

from simenv import errors
from simenv.cli import app
from simenv.errors import (
    BatchRefusedError,
    NotFoundError,
    SimenvError,
    SlurmError,
    SlurmFileError,
    VersionMismatchError,
)
from simenv.frontends.slurm import LICENSES, jobs

SCONTROL = """\
#!/bin/sh
for each in fez:4 $(sed -n 's/^Licenses=//p' {file} | tr , ' '); do
    [ "$2" != licenses ] || echo "LicenseName=${{each%:*}} Total=${{each#*:}} Used=0 Free=0"
done
[ "$1" != create ] || echo "$*" >> {log}
"""


OF_SERVICE = [
    kind
    for kind in vars(errors).values()
    if isinstance(kind, type)
    and issubclass(kind, SimenvError)
    and not issubclass(kind, SlurmError | SlurmFileError | BatchRefusedError | VersionMismatchError)
]


def controller(folder: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> Path:
    """Write the file of licences and Slurm's commands; return the log of what is held back."""
    licences, log = folder / LICENSES, folder / "log"
    licences.parent.mkdir()
    licences.write_text(text)
    log.touch()
    for name, script in (
        ("scontrol", SCONTROL.format(log=log, file=licences)),
        ("squeue", "#!/bin/sh\n"),
    ):
        (folder / name).write_text(script)
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return log


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
    log = controller(tmp_path, monkeypatch, "# simenv pools: fez\nLicenses=fez:4\n")
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


def test_licences_of_a_pool_that_is_gone_are_held_alone(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = controller(tmp_path, monkeypatch, "Licenses=main:1,gone:2\n")
    words = ("slurm", "sync", "--pool", "main", "--pool", "gone", "--cluster", "big")
    answer = shell(*words, "--conf", str(tmp_path))
    assert answer.code == NotFoundError.exit_code, answer
    assert "there is no pool 'gone'" in answer.err
    (held,) = log.read_text().splitlines()
    assert held.endswith("Licenses=gone:2")


def test_error_of_the_file_of_licences_holds_none(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = controller(tmp_path, monkeypatch, "PartitionName=a\n")
    passes = iter([jobs.Reconciled([], []), jobs.Reconciled([], [])])
    held: list[str] = []

    def reconcile(*_: object) -> jobs.Reconciled:
        held.append(log.read_text())
        if (done := next(passes, None)) is None:
            raise VersionMismatchError("of another version")
        return done

    monkeypatch.setattr(jobs, "reconcile", reconcile)
    words = ("slurm", "sync", "--every", "0.01", "--pool", "fez", "--cluster", "big")
    answer = shell(*words, "--conf", str(tmp_path))
    assert answer.code == VersionMismatchError.exit_code, answer
    assert answer.err.count("the file of licences has the line 'PartitionName=a'") == 1
    assert held == ["", "", ""]
