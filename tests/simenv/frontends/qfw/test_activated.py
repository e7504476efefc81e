"""The command `simenv` while QFw is active, which puts DEFw's program in the place of each `python`
of the virtual environment."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Iterator
from pathlib import Path

import pytest

import simenv

REPOSITORY = Path(simenv.__file__).parents[1]
NAMES = ("python", "python3", f"python{sys.version_info[0]}.{sys.version_info[1]}")


class VirtualEnvironment:
    """A virtual environment with simenv in its site-packages, as pip installs it, and QFw's
    replacement of its interpreters."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        venv.create(folder, symlinks=True)
        packages = next((folder / "lib").glob("python*/site-packages"))
        for name in ("simenv", "simulators", "launcher", "noise_models"):
            (packages / name).symlink_to(REPOSITORY / name)
        (packages / "more.pth").write_text(sysconfig.get_path("purelib") + "\n")
        self.programs = folder / "bin"
        self.script = self.programs / "simenv"
        self.script.write_text(
            f"#!{self.programs / 'python'}\nfrom simenv.cli.entry import main\nmain()\n"
        )
        self.script.chmod(0o755)
        self.defw = folder / "defwp"
        self.defw.write_text("#!/bin/sh\nexit 127\n")
        self.defw.chmod(0o755)

    def activate(self) -> None:
        for name in NAMES:
            path = self.programs / name
            path.rename(self.programs / f"{name}_defw_orig")
            path.symlink_to(self.defw)

    def deactivate(self) -> None:
        for name in NAMES:
            (self.programs / f"{name}_defw_orig").replace(self.programs / name)

    def run(self, *line: str, **more: str) -> subprocess.CompletedProcess[str]:
        environ = {**os.environ, "SIMENV_HOME": str(self.folder / "home"), **more}
        environ.pop("SIMENV_SERVICE", None)
        return subprocess.run(
            [str(self.script), *line], env=environ, capture_output=True, text=True, check=False
        )

    def answer(self, *line: str, **more: str) -> str:
        done = self.run(*line, **more)
        assert done.returncode == 0, (line, done.stdout, done.stderr)
        return done.stdout


@pytest.fixture
def environment(tmp_path: Path) -> Iterator[VirtualEnvironment]:
    result = VirtualEnvironment(tmp_path / "venv")
    yield result
    result.run("down")


def test_commands_work_in_and_beside_activated_shell(
    environment: VirtualEnvironment, tmp_path: Path
) -> None:
    root = tmp_path / "QFw"
    for name in ("services", "service-apis/api_qpm", "setup", "environment"):
        (root / name).mkdir(parents=True)
    (root / "environment" / "qfw_set_envvars.sh").write_text("# QFw's\n")
    environment.activate()
    assert environment.run("status").returncode == 127  # what `install` is for
    environment.deactivate()
    environment.answer("qfw", "install", str(root))
    environment.answer("up", "--workers", "1")
    environment.activate()
    # as in the shell that ran qfw_activate, and in another one
    for more in ({"DEFW_PATH": str(root / "DEFw"), "QFW_PATH": str(root)}, {}):
        assert json.loads(environment.answer("--json", "status", **more))["pools"]
        environment.answer("history", **more)
    environment.answer("down")
    environment.answer("up", "--workers", "1")
    environment.answer("down")
    environment.answer("qfw", "uninstall", str(root))
    assert environment.run("status").returncode == 127
    environment.deactivate()
    assert environment.run("status").returncode != 127
