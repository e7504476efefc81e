"""Plain processes on another host, through the agent: environment, folder, ends and deaths."""

import json
import sys
from contextlib import suppress
from pathlib import Path
from subprocess import PIPE

import psutil
import pytest
from waiting import until

from testbed.cluster import Cluster

# On a host: start a worker on another one; a line on stdin kills it.
SERVICE = """
import json, select, sys
from pathlib import Path
from launcher.base import Command, Share
from launcher.process.children import LocalLauncher
agent, folder, node, rank = json.loads(sys.stdin.readline())
folder = Path(folder)
launcher = LocalLauncher(agent)
argv, environ = (sys.executable, "-c", rank), (("MARK", "a 'b' $c"),)
launcher.start(Command("w", argv, environ, folder / "w.log", folder, 1, (Share(node, 1),)))
while not (ends := launcher.poll_exits()):
    if select.select([sys.stdin], [], [], 0.01)[0] and sys.stdin.readline():
        launcher.kill("w")
print(ends[0].code, ends[0].reason)
"""
# As our workers: it goes when what started it goes.
RANK = """
import ctypes, os, signal, sys, time
ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)
facts = ("here", os.uname().nodename, os.environ["MARK"], "HOME" in os.environ, os.getcwd())
print(*facts, flush=True)
"""


def told(three: Cluster, folder: Path, node: str, then: str) -> str:
    return json.dumps([str(three.agent), str(folder), node, RANK + then]) + "\n"


def ranks(three: Cluster) -> list[psutil.Process]:
    entries = []
    for process in three.processes("node2"):
        with suppress(psutil.Error):
            if "MARK" in " ".join(process.cmdline()):
                entries.append(process)
    return entries


def test_remote_worker_has_its_folder_and_environment(three: Cluster, tmp_path: Path) -> None:
    folder = tmp_path / "with a 'strange' name"
    folder.mkdir()
    line = told(three, folder, "node2", "sys.exit(3)")
    done = three.run("node1", [sys.executable, "-P", "-c", SERVICE], stdin=line)
    assert (folder / "w.log").read_text() == f"here node2 a 'b' $c False {folder}\n"
    assert done.stdout == "3 exit 3 (agent of node2)\n"


def test_worker_on_unreachable_node_ends_with_exit_255(three: Cluster, tmp_path: Path) -> None:
    line = told(three, tmp_path, "nowhere", "")
    done = three.run("node1", [sys.executable, "-P", "-c", SERVICE], stdin=line)
    assert done.stdout == "255 exit 255 (agent of nowhere, the connection failed or was cut)\n"


@pytest.mark.parametrize("death", ["kill", "service"])
def test_remote_worker_ends_with_its_service(death: str, three: Cluster, tmp_path: Path) -> None:
    log = tmp_path / "w.log"
    service = three.popen("node1", [sys.executable, "-P", "-c", SERVICE], stdin=PIPE, stdout=PIPE)
    try:
        assert service.stdin is not None
        service.stdin.write(told(three, tmp_path, "node2", "time.sleep(300)"))
        service.stdin.flush()
        until(lambda: log.exists() and "here node2" in log.read_text())
        if death == "kill":
            service.stdin.write("kill\n")
            service.stdin.flush()
        else:
            service.kill()
        until(lambda: not ranks(three))
    finally:
        service.kill()
        service.communicate()
