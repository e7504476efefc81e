"""One DVM: a `prte` in the foreground, its daemons on other nodes, and the PMIx helper to it.

Its state goes from STARTING to UP to LOST, by calls of `step`, which never block. LOST is final;
`lost_reason` has the reason. Responses are consistent: each spawn gets one response, and each job
ends once.
"""

from __future__ import annotations

import math
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from launcher.base import LaunchError, Node
from launcher.pmix.helper_process import HelperProcess, HelperRequest, HelperResponse
from launcher.process import agent
from launcher.prte.installation import Prte
from simenv.sandbox import die_with_parent
from simenv.sandbox.process_tree import register
from simenv.sandbox.progress import ProgressDeadline

# Live jobs of a DVM, from two sources that can each fail: events and lists of namespaces. Pure.
#
# The event of a short job's end may be lost, or come before the response to its spawn. A job whose
# spawn was given up may run nevertheless.

CONFIRMATIONS = 2  # consecutive lists that must agree, as an event may be in transit
_MAX_EARLY_ENDS = 256
UNKNOWN_END = "it ended, and PRTE did not report how"


class JobTracker:
    """Namespaces of jobs that are known to run."""

    def __init__(self) -> None:
        # Jobs known to run: number of lists without the job.
        self._missing_lists: dict[str, int] = {}
        self._unknown: dict[str, int] = {}  # unknown jobs: number of lists with the job
        self._early_ends: dict[str, HelperResponse] = {}  # ends of jobs that are unknown, or over

    def started(self, namespace: str) -> list[HelperResponse]:
        """Record the response to a spawn; return the job's end if it has already come."""
        end = self._early_ends.pop(namespace, None)
        if end is not None:
            return [end]
        self._missing_lists[namespace] = 0
        return []

    def ended(self, end: HelperResponse) -> list[HelperResponse]:
        """Record the event of an end; return it once for each known job."""
        if self._missing_lists.pop(end.namespace, None) is not None:
            return [end]
        self._early_ends[end.namespace] = end
        while len(self._early_ends) > _MAX_EARLY_ENDS:
            del self._early_ends[next(iter(self._early_ends))]
        return []

    def listed(
        self, namespaces: Sequence[str], pending: bool
    ) -> tuple[list[HelperResponse], list[str]]:
        """Record a list of live namespaces; return the ends of jobs that are over, and orphaned
        jobs. No job counts as orphaned while spawns are `pending`."""
        live = set(namespaces)
        self._missing_lists = {n: 0 if n in live else k + 1 for n, k in self._missing_lists.items()}
        over = [name for name, count in self._missing_lists.items() if count >= CONFIRMATIONS]
        for name in over:
            del self._missing_lists[name]
        jobs = [name for name in namespaces if "@" in name and name not in self._missing_lists]
        self._unknown = {
            name: self._unknown.get(name, 0) + 1
            for name in jobs
            if not pending and name not in self._early_ends
        }
        orphaned = [name for name, count in self._unknown.items() if count >= CONFIRMATIONS]
        ends = [
            HelperResponse("ended", namespace=name, code=1, message=UNKNOWN_END) for name in over
        ]
        return ends, orphaned


# Parser of PRTE's log: whether its daemons are ready, and a short reason of its end. Pure.
#
# PRTE writes pages about possible causes, which contain the name of the lost node.

_MAX_CHARS = 160  # length of messages that are not recognised
_LOST = re.compile(r"Remote daemon:\s+\S+ on node (\S+)")
_ENDED = re.compile(r"Remote host:\s+(\S+)\s+Daemon exit status:\s+(\S+)")
_READY = "DVM ready"
_WITHOUT_CONTENT = ("", _READY, "Terminated", "Killed")  # frames, and the messages of shells


def is_ready(log: str) -> bool:
    """Return whether all daemons have started."""
    return _READY in log


def failure_summary(log: str) -> str:
    """Return why PRTE ended, according to its log; "" if the log has no reason."""
    log = log.rpartition(_READY)[2]  # earlier messages were not the cause
    if lost := _LOST.findall(log):
        return f"its daemon on {lost[-1]} is lost"
    if ended := _ENDED.findall(log):
        return f"its daemon on {ended[-1][0]} ended (exit {ended[-1][1]})"
    lines = [line for line in log.splitlines() if line.strip("- \t") not in _WITHOUT_CONTENT]
    message = " ".join(" ".join(lines).split())
    if len(message) <= _MAX_CHARS:
        return message
    return "... " + message[-_MAX_CHARS:].partition(" ")[2]


# Times that processes have, less what a busy machine keeps them waiting: see
# `simenv.sandbox.progress`.
START_TIMEOUT_S = 10.0
START_TIMEOUT_PER_NODE_S = 0.1
RESPONSE_TIMEOUT_S = 10.0
MAX_PENDING = 16  # pending spawns: behind hundreds of others a response would exceed its timeout
END_TIMEOUT_S = 2.0  # after SIGKILL
HELPER_TIMEOUT_S = 5.0  # to connect once the DVM has said where, also after a restart
MAX_HELPER_FAILURES = 3
SETTLE_S = 1.0  # the helper loses its connection before the end of prte is seen
# A disconnected node is noticed after 4 s; PRTE's default is more than 5 minutes.
_KEEPALIVE = {"time": "2", "intvl": "1", "probes": "2"}


class DvmState(Enum):
    STARTING = "starting"
    UP = "up"
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class DvmSettings:
    """Settings that all DVMs of an environment share."""

    prte: Prte
    environ: Mapping[str, str]  # environment of the service: the agent may need all of it
    agent: str  # the user's program for other nodes; "": srun or ssh
    isolated: bool = False  # all nodes are this one, and DVMs get a network namespace of their own

    def prte_environ(self) -> dict[str, str]:
        """Return prte's environment, which every rank inherits: only the variables that a program
        needs."""
        kept = {
            key: value
            for key, value in self.environ.items()
            if key in agent.INHERITED or key.startswith("LC_") or "_MCA_" in key
        }
        return self.prte.environ(kept)


class DvmFiles:
    """Folder of one DVM, on a local disk with a short path."""

    def __init__(self, folder: Path) -> None:
        """Create the folder."""
        self.folder = folder
        self.temporary = folder / "tmp"
        self.temporary.mkdir(mode=0o700, parents=True)
        self.uri = folder / "uri"  # where prte writes how to connect to it
        self.log = folder / "dvm.log"

    def read_log(self) -> str:
        """Return the output of prte, its daemons and the agent so far."""
        with suppress(OSError):
            return self.log.read_text("utf-8", "replace")
        return ""

    def failure_summary(self) -> str:
        """Return the cause of a failure that the log tells, after a colon; "" if it tells none."""
        summary = failure_summary(self.read_log())
        return f": {summary}" if summary else ""


class Dvm:
    """One DVM. Used from the main thread alone: prte ends with the thread that started it."""

    def __init__(
        self, settings: DvmSettings, nodes: Sequence[Node], folder: Path, now: float
    ) -> None:
        """Start prte and the helper. `folder` is created, and deleted by `remove`."""
        self.nodes = tuple(nodes)
        self.state = DvmState.STARTING
        self.lost_reason = ""
        self.was_up = False
        self.helper_restarts: list[str] = []  # reasons of the restarts
        self._settings = settings
        self._files = DvmFiles(folder)
        self._started = now
        self._environ = {**settings.prte_environ(), "TMPDIR": str(self._files.temporary)}
        self._ready = self._connected = False
        self._connection_lost = 0.0
        self._starting = ProgressDeadline(START_TIMEOUT_S)
        self._answering = ProgressDeadline(math.inf)  # whose spent time is that of `_pending`
        self._pending: dict[int, float] = {}  # key of a spawn: deadline of its response
        self._jobs = JobTracker()
        self._helper_failures = 0
        self._prte = self._start_prte()
        self._helper = self._start_helper()

    @property
    def slots(self) -> int:
        return sum(node.slots for node in self.nodes)

    def age_s(self, now: float) -> float:
        return now - self._started

    @property
    def pid(self) -> int:
        return self._prte.pid

    @property
    def helper_pid(self) -> int:
        return self._helper.pid

    @property
    def saturated(self) -> bool:
        """True if so many spawns are pending that further ones should wait."""
        return len(self._pending) >= MAX_PENDING

    def spawn(
        self, key: int, argv: Sequence[str], env: Sequence[str], hosts: Sequence[str]
    ) -> None:
        """Start a job with rank k on hosts[k]. The response `spawned`, `failed` or `not_sent` has
        this key."""
        self._awaits(key)
        self._helper.send(
            HelperRequest("spawn", key, argv=tuple(argv), env=tuple(env), hosts=tuple(hosts))
        )

    def add_node(self, key: int, node: Node) -> None:
        """Add one node to the DVM; the response is that of a spawn."""
        self._awaits(key)
        self._helper.send(HelperRequest("add_nodes", key, hosts=(_host(node),)))
        self.nodes += (node,)

    def _awaits(self, key: int) -> None:
        self._answering.look()
        self._pending[key] = self._answering.spent_s + RESPONSE_TIMEOUT_S

    def remove_node(self, node: Node) -> None:
        """Forget a node that could not be added."""
        self.nodes = tuple(other for other in self.nodes if other.name != node.name)

    def kill(self, namespace: str) -> None:
        """End a job; `ended` follows."""
        self._helper.send(HelperRequest("kill", namespace=namespace))

    def step(self, now: float) -> list[HelperResponse]:
        """Poll prte and the helper; return responses `spawned`, `failed`, `not_sent`, `ended`."""
        if self.state is DvmState.LOST:
            return []
        responses = self._read(now)
        code = self._prte.poll()
        if code is not None:
            end = f"exit {code}" if code >= 0 else f"signal {-code}"
            self._lose(f"prte ended ({end}){self._files.failure_summary()}")
            return responses
        responses += self._check_helper(now)
        if self.state is DvmState.STARTING:
            self._check_ready()
        return responses

    def close(self) -> None:
        """Send SIGTERM to prte; `has_ended` returns True when it has ended."""
        self._helper.close()
        self._prte.terminate()

    def has_ended(self) -> bool:
        return self._prte.poll() is not None

    def remove(self) -> None:
        """Kill prte and delete its folder."""
        self._helper.close()
        self._prte.kill()
        with suppress(subprocess.TimeoutExpired):  # a process that hangs in the kernel
            self._prte.wait(END_TIMEOUT_S)
        shutil.rmtree(self._files.folder, ignore_errors=True)

    def _read(self, now: float) -> list[HelperResponse]:
        responses: list[HelperResponse] = []
        for response in self._helper.responses():
            if response.kind == "ready":
                self._connected = True
                self._helper_failures = 0
            elif response.kind == "spawned":
                if self._pending.pop(response.key, None) is not None:
                    responses += [response, *self._jobs.started(response.namespace)]
            elif response.kind in ("failed", "not_sent"):
                if self._pending.pop(response.key, None) is not None:
                    responses.append(response)
            elif response.kind == "ended":
                responses += self._jobs.ended(response)
            elif response.kind == "listed":
                ends, orphaned = self._jobs.listed(response.namespaces, bool(self._pending))
                responses += ends
                for namespace in orphaned:
                    self.kill(namespace)
            elif response.kind == "lost":
                self._connection_lost = now
        return responses

    def _check_ready(self) -> None:
        self._ready = self._ready or is_ready(self._files.read_log())
        self._starting.limit_s = START_TIMEOUT_S + START_TIMEOUT_PER_NODE_S * len(self.nodes)
        if self._ready and self._connected:
            self.state, self.was_up = DvmState.UP, True
        elif self._starting.is_over:
            limit = f"{self._starting.limit_s:.0f} s"
            self._lose(f"prte was not ready after {limit}{self._files.failure_summary()}")

    def _check_helper(self, now: float) -> list[HelperResponse]:
        if self._helper.ended:
            # The connection is lost a moment before the end of prte is seen; no DVM is left then.
            if now < self._connection_lost + SETTLE_S:
                return []
            return self._restart_helper("ended")
        if self._pending:
            self._answering.look()
            if self._answering.spent_s > min(self._pending.values()):
                return self._restart_helper(f"gave no answer in {RESPONSE_TIMEOUT_S:.0f} s")
        if not self._connected:
            if not self._files.uri.exists():
                self._connecting.step()
            elif self._connecting.is_over:
                return self._restart_helper(f"did not connect in {HELPER_TIMEOUT_S:.0f} s")
        return []

    def _restart_helper(self, reason: str) -> list[HelperResponse]:
        """Restart the helper and fail its pending requests. A job that starts for one of them all
        the same appears in a list of jobs, and is ended."""
        message = f"the PMIx helper {reason}"
        given_up = [HelperResponse("failed", key=key, message=message) for key in self._pending]
        self._pending.clear()
        self._helper.close()
        self._helper_failures += 1
        if self._helper_failures > MAX_HELPER_FAILURES:
            self._lose(f"{message}, {self._helper_failures} times{self._files.failure_summary()}")
        else:
            self.helper_restarts.append(message)
            self._connected = False
            self._helper = self._start_helper()
        return given_up

    def _lose(self, reason: str) -> None:
        self.state, self.lost_reason = DvmState.LOST, reason
        self._helper.close()
        self._prte.kill()

    def _start_prte(self) -> subprocess.Popen[bytes]:
        argv = [str(self._settings.prte.program), "--report-uri", str(self._files.uri)]
        argv += ["--host", ",".join(map(_host, self.nodes)), "--leave-session-attached"]
        for name, value in self._parameters().items():
            argv += ["--prtemca", name, value]
        isolated = self._settings.isolated
        try:
            with self._files.log.open("ab") as log:
                prte = subprocess.Popen(
                    die_with_parent.command_line(os.getpid(), argv, isolated=isolated),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=self._environ,
                    start_new_session=True,
                )
        except OSError as error:
            raise LaunchError(f"cannot start {argv[0]}: {error.strerror}") from error
        register(prte)
        return prte

    def _parameters(self) -> dict[str, str]:
        """Return the MCA parameters, the same at every site: nodes come from --host, daemons start
        through the agent."""
        keepalive = {f"oob_tcp_keepalive_{name}": value for name, value in _KEEPALIVE.items()}
        return {
            "ras": "^slurm,pbs,lsf,gridengine",
            "plm": "ssh",
            "plm_ssh_agent": self._agent(),
            "plm_ssh_no_tree_spawn": "1",  # only this node needs access to the others
            "plm_ssh_num_concurrent": str(max(128, 2 * len(self.nodes))),  # agents stay attached
            **keepalive,
        }

    def _agent(self) -> str:
        """Return the agent's command. PRTE splits it at blanks and colons: a command that has such
        characters is put into a script on PATH."""
        file = self._files.folder / "agent"
        agent.write_settings(file, self._settings.agent, self._settings.environ)
        argv = [sys.executable, "-P", "-m", "launcher.process.agent", str(file)]
        if not any(letter in word for word in argv for letter in " :\t'\""):
            return " ".join(argv)
        programs = self._files.folder / "bin"
        programs.mkdir()
        script = programs / "simenv-agent"
        script.write_text("#!/bin/sh\nexec " + shlex.join(argv) + ' "$@"\n')
        script.chmod(0o700)
        self._environ["PATH"] = f"{programs}:{self._environ.get('PATH', os.defpath)}"
        return script.name

    def _start_helper(self) -> HelperProcess:
        prte = self._settings.prte
        libraries = [*prte.preload, prte.library]
        pid = self._prte.pid if self._settings.isolated else 0
        with self._files.log.open("ab") as log:
            uri, output = self._files.uri, log.fileno()
            helper = HelperProcess(uri, libraries, self._environ, output, network_of=pid)
        self._connecting = ProgressDeadline(HELPER_TIMEOUT_S, helper.pid)
        return helper


def _host(node: Node) -> str:
    return f"{node.name}:{max(1, node.slots)}"
