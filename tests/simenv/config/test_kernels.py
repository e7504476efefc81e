"""Every process that loads kernels refuses a folder that others can write."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest
from failing import fails

from simenv.cli.app import run
from simenv.config import convert
from simenv.errors import ConfigError
from simenv.service.bootstrap import build_service
from simenv.worker import main
from simulators.compiler import kernel, warmup

BELL = "OPENQASM 2.0;\ninclude 'qelib1.inc';\nqreg q[1];\ncreg c[1];\nh q[0];\nmeasure q -> c;\n"
REFUSED = "can be written by others"


@pytest.fixture
def loose(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of kernels as an earlier version made it under umask 002."""
    folder = tmp_path / "kernels"
    folder.mkdir()
    folder.chmod(0o775)
    monkeypatch.setenv("SIMENV_KERNELS", str(folder))
    return folder


def test_service_refuses_kernel_folder_writable_by_others(tmp_path: Path, loose: Path) -> None:
    environ = {"SIMENV_HOME": str(tmp_path / "home"), "SIMENV_KERNELS": str(loose)}
    result = convert({"memory_bytes": 2**20, "launcher": {"use": "local"}})
    fails(ConfigError, REFUSED, build_service, result, tmp_path / "home" / "default", environ)


def test_worker_refuses_kernel_folder_writable_by_others(loose: Path) -> None:
    namespace = argparse.Namespace(kernels=loose, engine="any", ranks=1, import_from="")
    with pytest.raises(ConfigError, match=REFUSED):
        main._load(namespace, None)  # type: ignore[arg-type]


@pytest.mark.parametrize("words", [["simulate"], ["explain", "--plan"]])
def test_command_refuses_kernel_folder_writable_by_others(
    tmp_path: Path, loose: Path, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    circuit = tmp_path / "bell.qasm"
    circuit.write_text(BELL)
    assert run([words[0], str(circuit), *words[1:]]) == ConfigError.exit_code
    assert REFUSED in capsys.readouterr().err


def test_prepared_kernel_folder_is_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "_chosen", [tmp_path])
    result = warmup.prepare(tmp_path / "kernels")
    assert result.stat().st_mode & 0o077 == result.parent.stat().st_mode & 0o077 == 0
