"""An environment's own user on its other nodes: over TCP, with the key in the connection file.

The hosts of a test cluster share a file system, and with it the service's sockets; a client here
runs where an empty folder lies over theirs, as on any other machine.
"""

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from simenv.client.connection import address
from testbed.cluster import Cluster
from testbed.cluster_environment import SIMENV, Environment, environment

ROOT = Path(__file__).parents[2]
HIDDEN = 'mount -t tmpfs none "$0" && exec "$@"'
APP = """
import os, simenv
TEXT = 'OPENQASM 2.0; include "qelib1.inc"; qreg q[17]; creg c[17]; h q; t q; h q; measure q -> c;'
with simenv.connect() as env:
    result = env.run(TEXT, shots=100, seed=3)
    wide = env.run(TEXT.replace("measure q -> c;", ""), shots=None, outputs=("statevector",))
    norm = round(float((abs(wide.statevector) ** 2).sum()), 9)
    print(os.uname().nodename, env.name, sum(result.counts.values()), len(wide.statevector), norm)
raise SystemExit(9)
"""


@pytest.fixture(scope="module")
def up(three: Cluster) -> Iterator[Environment]:
    with environment(three, "--hosts", "node1:1,node2:1", "--pool", "main:workers=2") as result:
        yield result


def elsewhere(up: Environment, *argv: str | Path, check: bool = True) -> CompletedProcess[str]:
    """Run a command on node3, from where the service's sockets are not seen."""
    sockets = address.read(up.home / "connection.json").sockets
    command = ["unshare", "--mount", "sh", "-c", HIDDEN, sockets, *argv]
    return up.cluster.run("node3", command, check=check)


def test_application_on_another_node_can_connect(up: Environment) -> None:
    """Under `simenv exec`; a large result travels, and the exit code is the application's."""
    command = [SIMENV, "--name", up.name, "exec", "--", sys.executable, "-c", APP]
    done = elsewhere(up, *command, check=False)
    assert done.returncode == 9, done.stderr
    assert done.stdout == f"node3 {up.name} 100 131072 1.0\n"


def test_client_on_another_node_can_scale(up: Environment) -> None:
    command = [SIMENV, "--name", up.name, "scale", "main", "--max", "4", "--json"]
    assert json.loads(elsewhere(up, *command).stdout)["most"] == 4


def test_client_on_another_node_can_end_the_environment(three: Cluster) -> None:
    with environment(three, "--hosts", "node1:1,node2:1") as result:
        done = elsewhere(result, SIMENV, "--name", result.name, "down")
        assert "0 processes left on 2 nodes" in done.stdout
        result.simenv("up", "--restore")


def test_example_pbs_script_runs_on_two_nodes(three: Cluster, tmp_path: Path) -> None:
    """What qsub would run on the first of two nodes, with the variables PBS sets."""
    (tmp_path / "nodes").write_text("node1\nnode2\n")
    script = ROOT / "examples" / "hpc" / "pbs.sh"
    environ = {
        "PBS_NODEFILE": str(tmp_path / "nodes"), "PBS_JOBID": "7.server",
        "PBS_O_WORKDIR": str(ROOT), "SIMENV_HOME": str(tmp_path / "home"),
        "PATH": f"{SIMENV.parent}:{os.environ['PATH']}",
    }  # fmt: skip
    output = three.run("node1", ["bash", script], environ, timeout_s=240.0).stdout
    assert "node[1-2]" in output
    assert "PBS job 7.server" in output
    assert output.count("  cos ") == 25
    assert output.rstrip().endswith("0 processes left on 2 nodes")
