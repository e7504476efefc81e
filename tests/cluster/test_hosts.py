"""The hosts themselves: what other tests of this folder stand on."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil
import pytest
from waiting import until

from testbed.cluster import Cluster, end_leftovers, hosts

ROOT = Path(__file__).parents[2]
ECHO = """
import socket, sys
server = socket.create_server(("0.0.0.0", 7000))
print("listening", flush=True)
while True:
    server.accept()[0].sendall(socket.gethostname().encode())
"""
ASK = """
import socket, sys
with socket.create_connection((sys.argv[1], 7000), float(sys.argv[2])) as connection:
    print(connection.recv(100).decode(), end="")
"""


def ask(cluster: Cluster, name: str, of: str, patience_s: int = 30) -> str:
    return cluster.run(name, [sys.executable, "-c", ASK, of, str(patience_s)], check=False).stdout


@pytest.fixture(scope="module")
def echo(three: Cluster) -> subprocess.Popen[str]:
    """A server on node3 that says where it is."""
    server = three.popen("node3", [sys.executable, "-c", ECHO], stdout=subprocess.PIPE)
    assert server.stdout is not None
    server.stdout.readline()
    return server


def test_hosts_have_shared_memory_of_their_own(three: Cluster) -> None:
    three.run("node1", ["touch", "/dev/shm/mine"])
    assert three.run("node2", ["ls", "/dev/shm"]).stdout == ""


def test_unplugged_host_is_unreachable(three: Cluster, echo: subprocess.Popen[str]) -> None:
    three.unplug("node3")
    assert ask(three, "node1", "node3", 2) == ""
    assert three.run("node1", [three.agent, "node3", "hostname"], check=False).returncode == 255
    assert echo.poll() is None
    three.replug("node3")
    assert ask(three, "node1", "node3") == "node3"


def test_processes_end_with_the_crash_of_their_host(three: Cluster) -> None:
    sleeper = three.popen("node2", ["sleep", "600"], stdout=subprocess.DEVNULL)
    agent = three.popen("node1", [three.agent, "node2", "sleep", "600"])
    until(lambda: len(found := pids(three, "node2")) >= 2 and agent.pid in found, 60.0)
    three.crash("node2")
    assert sleeper.wait(60) == agent.wait(60) == -signal.SIGKILL
    assert three.run("node1", [three.agent, "node2", "hostname"], check=False).returncode == 255
    three.boot("node2")
    assert three.run("node1", [three.agent, "node2", "hostname"]).stdout == "node2\n"


def pids(cluster: Cluster, name: str) -> set[int]:
    return {process.pid for process in cluster.processes(name)}


def test_two_clusters_are_separate(three: Cluster, echo: subprocess.Popen[str]) -> None:
    with hosts(3) as other:
        assert ask(other, "node1", "node3", 2) == ""
        assert ask(three, "node1", "node3") == "node3"
        assert not other.processes("node3")


def test_hosts_of_killed_test_run_are_ended_by_cleanup(three: Cluster) -> None:
    script = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
from testbed.cluster import hosts
with hosts(1) as cluster:
    sleeper = cluster.popen("node1", ["sleep", "600"])
    print(sleeper.pid, cluster.folder, flush=True)
    sleeper.wait()
"""
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, env=dict(os.environ)
    ) as run:
        assert run.stdout is not None
        left = psutil.Process(int(run.stdout.readline().split()[0]))
        run.kill()
    assert left.is_running()
    end_leftovers()
    left.wait(60)
    assert three.processes("node3"), "it ended another's"


def test_hosts_can_be_made_without_root() -> None:
    """Seen where the tests run as root and nobody may read them; elsewhere all others show it."""
    script = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
from testbed.cluster import hosts
with hosts(2) as cluster:
    print(cluster.run("node1", [cluster.agent, "node2", "hostname"]).stdout, end="")
    cluster.crash("node2")
    print(cluster.run("node1", [cluster.agent, "node2", "hostname"], check=False).returncode)
"""
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("only root can become somebody else")
    nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    if subprocess.run([*nobody, "ls", ROOT], capture_output=True, check=False).returncode:
        pytest.skip(f"nobody may not read {ROOT}")
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        os.chown(folder, 65534, 65534)
        process = subprocess.run(
            [*nobody, sys.executable, "-"], input=script, env={**os.environ, "TMPDIR": folder},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
    assert process.stdout == "node2\n255\n", process.stderr
