"""Environments in jobs of a real Slurm, the batch scripts of examples/slurm among them."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from cluster_slurm import LOGIN

from testbed.cluster import Cluster
from testbed.cluster_environment import wait_for, words_of

EXAMPLES = Path(__file__).parents[2] / "examples"
OURS = {
    "simenv", "simenv.service", "simenv.worker", "prte", "prted", "mpirun", "launcher.pmix.helper",
}  # fmt: skip
EXIT_CODE = 7
APP = f"""
import json, os, sys, simenv
BELL = 'OPENQASM 2.0; include "qelib1.inc"; qreg q[2]; creg c[2]; h q; cx q[0],q[1]; measure q->c;'
with simenv.connect() as env:
    tasks = env.submit_many([BELL] * 2_000, shots=10, seed=int(os.environ["SLURM_PROCID"]))
    ran = sorted({{task.result(120).node for task in tasks}})
    status = env.status()
    found = [node.name for node in status.nodes]
    print(json.dumps({{"host": os.uname().nodename, "ran": ran, "nodes": found,
                      "launcher": status.launcher, "allocation": status.allocation}}), flush=True)
sys.exit({EXIT_CODE})
"""
# Says that it is down, and stays until the test has looked at what is left.
JOB = """#!/bin/bash
simenv up {up} || exit
echo up
{between}
simenv exec -- srun {srun} python {app}
code=$?
simenv down
echo down
read < {fifo}
exit $code
"""


@pytest.fixture
def home(four: Cluster, tmp_path: Path) -> Iterator[Path]:
    """Where the job's environment lives; no job is left, whatever the test did."""
    folder = tmp_path / "home"
    folder.mkdir(mode=0o700)
    four.environ["SIMENV_HOME"] = str(folder)
    (tmp_path / "app.py").write_text(APP)
    yield folder
    four.run(LOGIN, ["scancel", "--user=root", "--signal=KILL", "--full"])
    four.run(LOGIN, ["scancel", "--user=root"])
    wait_for("no job is left", lambda: not four.run(LOGIN, ["squeue", "-h"]).stdout)
    wait_for("no process is left", lambda: not ours(four))


def ours(cluster: Cluster) -> list[psutil.Process]:
    """Processes of simenv and what it starts, on any host."""
    entries = [process for name in cluster.hosts for process in cluster.processes(name)]
    return [process for process in entries if OURS & set(words_of(process)[:6])]


class Job:
    """A batch job whose output is read while it runs."""

    def __init__(self, cluster: Cluster, folder: Path, *words: str | Path) -> None:
        self._cluster = cluster
        self.output = folder / "output"
        argv = ["sbatch", "--parsable", f"--output={self.output}", *words]
        self.number = cluster.run(LOGIN, argv).stdout.strip()

    def said(self) -> list[str]:
        return self.output.read_text().splitlines() if self.output.exists() else []

    def shown(self, name: str) -> str:
        """A field of `scontrol show job`, which asks a controller that may be slow to answer."""
        argv = ["scontrol", "show", "job", self.number]
        text = self._cluster.run(LOGIN, argv, check=False).stdout
        if not text:
            text = self._cluster.run(LOGIN, argv).stdout
        return next(word.partition("=")[2] for word in text.split() if word.startswith(f"{name}="))

    def says(self, line: str) -> None:
        """Wait until it has."""

        def look() -> bool:
            assert line in self.said() or not self.ended(), "\n".join(self.said())
            return line in self.said()

        wait_for(f"{line!r} of the job", look, 120.0)

    def ended(self) -> bool:
        return self.shown("JobState") not in ("PENDING", "RUNNING", "CONFIGURING", "COMPLETING")

    def code(self) -> int:
        """Wait for its end; its exit code."""
        wait_for("the job's end", self.ended, 120.0)
        return int(self.shown("ExitCode").partition(":")[0])

    def objects(self) -> list[Any]:
        """What its tasks printed."""
        entries = [json.loads(line) for line in self.said() if line.startswith("{")]
        assert entries, "\n".join(self.said())
        return entries


def script(folder: Path, up: str, srun: str = "", between: str = "", head: str = "") -> Path:
    """A job of ours; it ends when something is written to `folder`/fifo."""
    os.mkfifo(folder / "fifo")
    text = JOB.format(
        up=up, srun=srun, between=between, app=folder / "app.py", fifo=folder / "fifo"
    )
    path = folder / "job.sh"
    path.write_text(text.replace("#!/bin/bash\n", f"#!/bin/bash\n{head}", 1))
    return path


def finish(folder: Path) -> None:
    (folder / "fifo").write_text("go\n")


def test_slurm_job_uses_its_own_nodes(four: Cluster, home: Path, tmp_path: Path) -> None:
    path = script(tmp_path, "--pool main:workers=6")
    job = Job(four, tmp_path, "--nodes=3", "--ntasks-per-node=1", path)
    job.says("up")
    assert json.loads((home / "default" / "connection.json").read_text())["node"] == "node1"
    job.says("down")
    assert not ours(four), "simenv down leaves processes"
    for each in job.objects():
        assert each["nodes"] == each["ran"] == ["node1", "node2", "node3"]
        assert f"Slurm job {job.number}" in each["allocation"]
    assert sorted(each["host"] for each in job.objects()) == ["node1", "node2", "node3"]
    finish(tmp_path)
    assert job.code() == EXIT_CODE


def test_het_job_uses_all_components(four: Cluster, home: Path, tmp_path: Path) -> None:
    head = "#SBATCH --nodes=2\n#SBATCH --ntasks-per-node=1\n#SBATCH hetjob\n"
    head += "#SBATCH --partition=quantum\n#SBATCH --nodes=1\n#SBATCH --gres=qc:QC:1\n"
    job = Job(four, tmp_path, script(tmp_path, "--pool main:workers=6", "--het-group=0", head=head))
    job.says("down")
    assert not ours(four), "simenv down leaves processes"
    for each in job.objects():
        assert each["nodes"] == each["ran"] == ["node1", "node2", "node4"]
    assert sorted(each["host"] for each in job.objects()) == ["node1", "node2"]
    finish(tmp_path)
    assert job.code() == EXIT_CODE


@pytest.mark.parametrize("name", ["plain", "het"])
def test_example_batch_scripts_end_with_exit_code_of_application(
    four: Cluster, home: Path, tmp_path: Path, name: str
) -> None:
    job = Job(four, tmp_path, EXAMPLES / "slurm" / f"{name}.sh", "python", tmp_path / "app.py")
    assert job.code() == EXIT_CODE, "\n".join(job.said())
    if name == "het":
        assert all(each["ran"] == ["node4"] for each in job.objects())
    else:
        assert len(job.objects()) == 2
    wait_for("nothing is left", lambda: not ours(four))


def test_client_on_login_node_connects_to_job(four: Cluster, home: Path, tmp_path: Path) -> None:
    path = script(tmp_path, "--pool main:workers=2", between=f"read < {tmp_path}/fifo")
    job = Job(four, tmp_path, "--nodes=2", "--ntasks-per-node=1", path)
    job.says("up")
    command = ["simenv", "submit", EXAMPLES / "bell.qasm", "--shots", "100", "--wait", "--json"]
    document = json.loads(four.run(LOGIN, command).stdout.splitlines()[-1])
    assert (document["state"], sum(document["counts"].values())) == ("DONE", 100)
    finish(tmp_path)
    job.says("down")
    finish(tmp_path)
    assert job.code() == EXIT_CODE


@pytest.mark.parametrize("how", [("--signal=TERM", "--batch"), ()], ids=["batch", "all"])
def test_cancelled_job_ends_environment(
    four: Cluster, home: Path, tmp_path: Path, how: tuple[str, ...]
) -> None:
    app = tmp_path / "sleeper.py"
    app.write_text("import time\nprint('sleeping', flush=True)\ntime.sleep(600)\n")
    job = Job(four, tmp_path, EXAMPLES / "slurm" / "plain.sh", "python", app)
    job.says("sleeping")
    four.run(LOGIN, ["scancel", *how, job.number])
    wait_for("the job's end", job.ended)
    text = "\n".join(job.said())
    assert not (home / "default" / "connection.json").exists(), text
    assert "0 processes left" in text
    wait_for("nothing is left", lambda: not ours(four))
