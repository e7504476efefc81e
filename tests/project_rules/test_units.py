"""Units of systemd: hardened, and in step with the command line."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import typer.main

from simenv.cli.app import application

UNITS = sorted((Path(__file__).parents[2] / "packaging" / "systemd").glob("*.service"))
THRESHOLD = 30  # tenths of the exposure that `systemd-analyze security` computes


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_exposure_of_units_is_at_most_3(unit: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=yes", f"--threshold={THRESHOLD}",
         "--no-pager", unit],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if "unrecognized option" in done.stderr:
        pytest.skip("this systemd-analyze cannot judge files")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Unknown" not in done.stderr
    assert "Failed to parse" not in done.stderr


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_commands_of_units_have_the_options_that_they_name(unit: Path) -> None:
    (line,) = re.findall(r"^ExecStart=/opt/simenv/bin/simenv (.*)$", unit.read_text(), re.M)
    command = typer.main.get_command(application())
    words = line.split()
    while hasattr(command, "commands"):
        command = command.commands[words.pop(0)]
    known = {option for each in command.params for option in each.opts} | {"--name"}
    named = {word for word in words if word.startswith("--")}
    assert named
    assert named <= known


def test_service_is_watched_and_started_again_each_time() -> None:
    (unit,) = (path.read_text() for path in UNITS if path.name == "simenv@.service")
    lines = unit.splitlines()
    assert {"WatchdogSec=2min", "Restart=on-failure", "StartLimitIntervalSec=0"} <= set(lines)
    assert "NotifyAccess=main" in lines  # of `simenv up --foreground`, which gives signs of life
