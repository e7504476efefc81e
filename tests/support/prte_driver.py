"""A process that holds a PrteLauncher, for tests that kill it or that need it on another host.

    python prte_driver.py FOLDER AGENT node1:2,node2:2/1

Nodes are name, slots and block. It obeys lines on stdin (`start NAME PROGRAM node1:1,node2:2`,
`kill NAME`) and tells what happens as JSON lines; when stdin ends it closes the launcher, says
"closed" and ends. PROGRAM is Python; the process it runs in ends with its parent, as workers see
to it.
"""

import base64
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from launcher.base import Allocation, Command, LaunchError, Node, Share
from launcher.prte import dvm_supervisor
from launcher.prte.installation import Prte, find
from launcher.prte.launcher import PrteLauncher

LOOK_S = 0.01
MORTAL = "import ctypes; ctypes.CDLL(None).prctl(1, 9, 0, 0, 0)\n"  # PR_SET_PDEATHSIG, SIGKILL
# One write each: ranks share a log.
SLEEPS = MORTAL + "import os, time; os.write(1, b'up\\n'); time.sleep(600)"
TELLS = (
    MORTAL + "import os, time\n"
    "os.write(1, f\"{os.environ['PMIX_RANK']} {os.uname().nodename}\\n\".encode())\n"
    "time.sleep(600)"
)


def here() -> Prte:
    result = find(os.environ)
    assert isinstance(result, Prte), result
    return result


def shares(text: str) -> tuple[Share, ...]:
    """Of "node1:2,node2:1"."""
    pairs = [word.split(":") for word in text.split(",")]
    return tuple(Share(node, int(ranks)) for node, ranks in pairs)


def node(text: str) -> Node:
    """Of "node1:2/1": name, slots and block."""
    name, _, rest = text.partition(":")
    slots, _, block_number = rest.partition("/")
    return Node(name, int(slots), 2**30, block=int(block_number or 0))


def command(folder: Path, name: str, program: str, where: str, start: int = 1) -> Command:
    """One that runs some Python, with a log of its name."""
    environ = (("PATH", os.environ["PATH"]), ("MARK", "yes"))
    argv = (sys.executable, "-c", program)
    return Command(name, argv, environ, folder / f"{name}.log", folder, start, shares(where))


class Driver:
    """The other end of such a process: everything it says is in `said`."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.said: list[dict[str, str]] = []
        assert process.stdin is not None
        assert process.stdout is not None
        self._in, self._out = process.stdin, process.stdout
        self._rest = b""

    def start(self, name: str, program: str, where: str) -> None:
        self._tell(f"start {name} {base64.b64encode(program.encode()).decode()} {where}")

    def kill(self, name: str) -> None:
        self._tell(f"kill {name}")

    def until(
        self, happened: Callable[[dict[str, str]], bool], timeout_s: float = 60.0
    ) -> dict[str, str]:
        """The first thing said, and not yet returned by this, of which that is true."""
        deadline = time.monotonic() + timeout_s
        while True:
            item = next(filter(happened, self.said), None)
            if item is not None:
                self.said.remove(item)
                return item
            left_s = deadline - time.monotonic()
            assert left_s > 0, f"it did not happen; said since: {self.said}"
            self._hear(left_s)

    def told_so_far(self) -> list[dict[str, str]]:
        """What nobody has asked for yet."""
        self._hear(0.0)
        return self.said

    def _hear(self, timeout_s: float) -> None:
        if select.select([self._out], [], [], timeout_s)[0]:
            data = os.read(self._out.fileno(), 1 << 16)
            assert data, f"the driver ended; said before: {self.said}"
            *lines, self._rest = (self._rest + data).split(b"\n")
            self.said += [json.loads(line) for line in lines]

    def news(self, kind: str, timeout_s: float = 60.0) -> dict[str, str]:
        return self.until(lambda line: line["what"] == kind, timeout_s)

    def exit(self, name: str, timeout_s: float = 60.0) -> dict[str, str]:
        return self.until(lambda line: line["what"] == "exit" and line["name"] == name, timeout_s)

    def spawned(self, name: str, timeout_s: float = 60.0) -> None:
        """Wait until PRTE has answered that the job was spawned: its ranks may run before."""
        self.until(lambda line: line["what"] == "spawned" and line["name"] == name, timeout_s)

    def close(self) -> None:
        with suppress(BrokenPipeError):
            self._in.close()
        if self.process.poll() is None:
            self.news("closed")
        self.process.wait(30)
        self._out.close()

    def _tell(self, line: str) -> None:
        self._in.write(line + "\n")
        self._in.flush()


def main(folder: Path, agent: str, nodes: str) -> None:
    allocation = Allocation(tuple(map(node, nodes.split(","))), "a test")
    dvm_supervisor.NODE_PROBE_INTERVAL_S = 2.0
    launcher = PrteLauncher(allocation, folder, prte=here(), agent=agent)
    spawned: set[str] = set()  # namespaces that were told of
    rest = b""
    tell(what="ready")
    while True:
        if select.select([0], [], [], LOOK_S)[0]:
            data = os.read(0, 1 << 16)
            if not data:
                break
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                obey(launcher, folder, line.decode().split())
        for end in launcher.poll_exits():
            tell(
                what="exit", name=end.name, words=end.reason,
                infrastructure_failure=str(end.infrastructure_failure),
            )  # fmt: skip
        for news in launcher.poll_events():
            tell(what=news.kind, subject=news.subject, words=news.message)
        for job in launcher._jobs.values():
            if job.namespace and job.namespace not in spawned:
                spawned.add(job.namespace)
                tell(what="spawned", name=job.command.name)
    launcher.close()
    tell(what="closed")


def obey(launcher: PrteLauncher, folder: Path, words: list[str]) -> None:
    if words[0] == "start":
        program = base64.b64decode(words[2]).decode()
        try:
            launcher.start(command(folder, words[1], program, words[3]))
        except LaunchError as error:
            tell(what="refused", name=words[1], words=str(error))
    elif words[0] == "kill":
        launcher.kill(words[1])


def tell(**what: str) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3])
