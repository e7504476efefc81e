"""The files for clusters are what they say: read, run, and given what a site would give them."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from launcher.allocation import hostfile
from simenv import config

ROOT = Path(__file__).parents[2]
HPC = ROOT / "examples" / "hpc"
SCRIPTS = sorted([*HPC.glob("*.sh"), *(ROOT / "examples" / "slurm").glob("*.sh")])
# For ssh and for apptainer: what they do with their last words, and nothing else.
SSH = '#!/bin/sh\nfor word; do last=$word; done\nexec /bin/sh -c "$last"\n'
APPTAINER = '#!/bin/sh\nshift 2\nexec "$@"\n'


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_script_is_no_script(script: Path) -> None:
    assert script.stat().st_mode & 0o111
    subprocess.run(["bash", "-n", script], check=True)


def test_the_configuration_is_refused(tmp_path: Path) -> None:
    document = config.load({"name": "x"}, HPC / "simenv.toml", {"SIMENV_HOME": str(tmp_path)})
    assert document.memory_per_slot == 2**29
    assert [pool.name for pool in document.pools] == ["main", "clifford"]


def test_the_hostfile_is_refused() -> None:
    (node,) = hostfile.read_hostfile(HPC / "hostfile").nodes
    assert (node.name, node.slots) == ("localhost", 2)


@pytest.mark.parametrize("agent", ["agent.sh", "apptainer_agent.sh"])
def test_an_agent_changes_the_command(agent: str, tmp_path: Path) -> None:
    """The words after HOST, joined by spaces, go to a shell: quotes and all."""
    for name, text in (("ssh", SSH), ("apptainer", APPTAINER)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o700)
    entries = ["printf", "%s.", "it's", '"quoted"', "$HOME", "a  b"]
    environ = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "SIMENV_IMAGE": "an image"}
    done = subprocess.run(
        [HPC / agent, "node1", shlex.join(entries), "&&", "echo", "done"],
        env=environ, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout == 'it\'s."quoted".$HOME.a  b.done\n'


def test_the_image_lacks_a_package() -> None:
    """Every package of the distribution, and what its build reads, goes into the image."""
    text = (HPC / "simenv.def").read_text()
    copied = set(re.findall(r"^ +(\S+) /opt/simenv-source/$", text, re.MULTILINE))
    project = (ROOT / "pyproject.toml").read_text()
    packages = re.search(r"^packages = \[(.*)\]$", project, re.MULTILINE)
    assert packages is not None
    assert {word.strip(' "') for word in packages[1].split(",")} <= copied
    assert {"pyproject.toml", "README.md", "LICENSE"} <= copied
