"""prte launcher: one DVM for all nodes, or for each block of them; a worker is a job of a DVM.

A job's ranks are children of PRTE's daemons. Their state is known from PMIx events and lists. PRTE
never reports the end of one in a hundred of the jobs that end within 0.1 s; the service then
notices that the worker is silent. Used from the main thread alone: prte ends with the thread that
started it.
"""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from launcher.allocation.hostlist import check_host_name
from launcher.allocation.this_node import is_this_node
from launcher.base import Allocation, Command, Exit, LauncherEvent, LaunchError, Node
from launcher.pmix.helper_process import HelperResponse
from launcher.process import network_namespace
from launcher.prte.dvm import DvmSettings
from launcher.prte.dvm_supervisor import DvmSupervisor
from launcher.prte.installation import Prte
from simenv.sandbox.process_tree import describe_exit

CLOSE_TIMEOUT_S = 3.0
_POLL_S = 0.01
_LOG_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
# PRTE does not report a missing folder, and forwards output only through the DVM. A shell handles
# both, and is replaced by the exec. If the exec fails, the shell waits a little: PRTE may never
# report the end of a process that ends before PRTE has finished its start.
_WRAPPER = (
    "trap 'sleep 0.5' EXIT\n"
    'exec >>"$0" 2>&1; cd -- "$1" || exit 126; shift\n'
    'command -v -- "$1" >/dev/null || { echo "$1: not found"; exit 127; }\n'
    'exec "$@"'
)
_LAUNCH_FAILED = 127


@dataclass(slots=True)
class _Job:
    command: Command
    supervisor: DvmSupervisor
    hosts: tuple[str, ...]  # host of each rank
    requested: bool = False
    namespace: str = ""  # as soon as it runs
    killed: bool = False


class PrteLauncher:
    """Implementation of launcher.base.Launcher. A DVM is started when the first worker needs it.

    - `folder`: on a local disk, with a short path; `close` removes the files made there
    - `environ`: environment of the service. Ranks get their command's environment, and of this one
      only PATH, HOME and the like.
    - `agent`: the user's program for other nodes, as for `launcher.process.agent`
    """

    name = "prte"
    exposure = ""

    def __init__(
        self,
        allocation: Allocation,
        folder: Path,
        *,
        prte: Prte,
        agent: str = "",
        description: str = "",
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        blocks: dict[int, list[Node]] = {}
        for node in allocation.nodes:
            check_host_name(node.name, "node", node.name)
            blocks.setdefault(node.block, []).append(node)
        self.max_ranks = max(sum(node.slots for node in nodes) for nodes in blocks.values())
        self._prte = prte
        self._prefix = description or f"PRTE {prte.version}"
        self._folder = Path(tempfile.mkdtemp(prefix="prte-", dir=folder))
        names = [node.name for node in allocation.nodes]
        isolated = network_namespace.can_isolate(names)
        if not isolated:
            environ = network_namespace.with_munge(environ, prte.library)
        settings = DvmSettings(prte, dict(environ), agent, isolated)
        self._supervisors = [
            DvmSupervisor(settings, nodes, self._folder, number)
            for number, (_, nodes) in enumerate(sorted(blocks.items()), 1)
        ]
        self._jobs: dict[int, _Job] = {}
        self._last_key = 0
        self._exits: list[Exit] = []
        self._events: list[LauncherEvent] = []
        self.description = self._describe()

    def start(self, command: Command) -> int:
        supervisor, hosts = self._place(command)
        _check(command, hosts)
        self._last_key += 1
        self._jobs[self._last_key] = _Job(command, supervisor, hosts)
        now = time.monotonic()
        supervisor.request(now)
        self._dispatch()
        return 0

    def poll_exits(self) -> list[Exit]:
        self._step(time.monotonic())
        exits, self._exits = self._exits, []
        return exits

    def poll_events(self) -> list[LauncherEvent]:
        self._step(time.monotonic())
        events, self._events = self._events, []
        return events

    def recheck_node(self, node: str) -> bool:
        return any(
            node in supervisor.nodes and supervisor.recheck_node(node)
            for supervisor in self._supervisors
        )

    def kill(self, name: str) -> None:
        """Send SIGTERM to all ranks of a worker, and SIGKILL to those that still run a second
        later."""
        for key, job in list(self._jobs.items()):
            if job.command.name != name:
                continue
            job.killed = True
            if job.namespace:
                self._kill_job(job)
            elif not job.requested:
                del self._jobs[key]
                self._add_exit(job, -signal.SIGKILL, "ended before it was started")

    def terminate(self, name: str) -> None:
        """Call `kill`: PRTE has no milder way to end a single job."""
        self.kill(name)

    def running(self) -> list[str]:
        unread = [end.name for end in self._exits]
        return [*(job.command.name for job in self._jobs.values()), *unread]

    def close(self) -> None:
        """Send SIGTERM to each prte, which ends its jobs and daemons; send SIGKILL after
        CLOSE_TIMEOUT_S."""
        for supervisor in self._supervisors:
            supervisor.close()
        deadline = time.monotonic() + CLOSE_TIMEOUT_S
        while time.monotonic() < deadline:
            if all(supervisor.has_ended() for supervisor in self._supervisors):
                break
            time.sleep(_POLL_S)  # supervisors are only polled
        for supervisor in self._supervisors:
            supervisor.remove()
        self._jobs.clear()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _place(self, command: Command) -> tuple[DvmSupervisor, tuple[str, ...]]:
        """Return the supervisor of a command's shares, and the node of each of its ranks."""
        if not command.shares:
            local = [n for s in self._supervisors for n in s.nodes if is_this_node(n)]
            if not local:
                text = f"worker {command.name}: this machine is not a node of the environment"
                raise LaunchError(text)
            return self._supervisor(command, local[0]), (local[0],)
        hosts = tuple(s.node for share in command.shares for s in [share] * share.ranks)
        supervisors = [self._supervisor(command, host) for host in dict.fromkeys(hosts)]
        if any(supervisor is not supervisors[0] for supervisor in supervisors):
            nodes = ", ".join(dict.fromkeys(hosts))
            raise LaunchError(f"worker {command.name}: {nodes} are not nodes of one DVM")
        return supervisors[0], hosts

    def _supervisor(self, command: Command, host: str) -> DvmSupervisor:
        for supervisor in self._supervisors:
            if host in supervisor.nodes:
                return supervisor
        raise LaunchError(f"worker {command.name}: {host} is none of the nodes")

    def _dispatch(self) -> None:
        """Request the waiting jobs whose nodes are ready."""
        for key, job in list(self._jobs.items()):
            if job.requested or job.namespace:
                continue
            lost_nodes = job.supervisor.lost_nodes
            lost = next((host for host in job.hosts if host in lost_nodes), "")
            if lost:
                reason = f"{lost} is lost: {lost_nodes[lost]}"
                self._fail(key, reason, infrastructure_failure=True)
            elif all(map(job.supervisor.serves, job.hosts)):
                dvm = job.supervisor.dvm
                assert dvm is not None
                if dvm.saturated:
                    continue
                job.requested = True
                log, cwd = str(job.command.log), str(job.command.cwd)
                argv = ["/bin/sh", "-c", _WRAPPER, log, cwd, *job.command.argv]
                dvm.spawn(key, argv, self._environ(job), job.hosts)

    def _environ(self, job: _Job) -> list[str]:
        environ = {"TMPDIR": tempfile.gettempdir(), **dict(job.command.environ)}
        transport = self._prte.transport(remote=len(set(job.hosts)) > 1)
        return [f"{key}={value}" for key, value in self._prte.environ(transport | environ).items()]

    def _step(self, now: float) -> None:
        for supervisor in self._supervisors:
            result = supervisor.step(now)
            for response in result.responses:
                self._handle(response)
            if result.lost:
                self._fail_running(supervisor, f"its DVM was lost: {result.lost}")
            if result.failure:
                for key, job in list(self._jobs.items()):
                    if job.supervisor is supervisor:
                        self._fail(key, result.failure, infrastructure_failure=True)
            if supervisor.events:
                self._events += supervisor.events
                supervisor.events.clear()
                self.description = self._describe()
        self._dispatch()

    def _handle(self, response: HelperResponse) -> None:
        if response.kind == "ended":
            keys = [k for k, job in self._jobs.items() if job.namespace == response.namespace]
            for key in keys:
                self._end_job(key, response)
            return
        job = self._jobs.get(response.key)
        if job is None:
            return
        if response.kind == "failed":
            self._fail(response.key, response.message)
        elif response.kind == "not_sent":
            job.requested = False
        elif response.kind == "spawned":
            job.namespace = response.namespace
            if job.killed:
                self._kill_job(job)

    def _end_job(self, key: int, response: HelperResponse) -> None:
        job = self._jobs.pop(key)
        code = response.code
        if job.killed:
            code = -signal.SIGKILL
        elif 128 < code <= 128 + signal.SIGRTMAX:
            code = 128 - code
        elif code < 0:  # an error of PRTE, not a signal's number
            code = _LAUNCH_FAILED
        self._add_exit(job, code, response.message or describe_exit(code))

    def _fail(self, key: int, reason: str, *, infrastructure_failure: bool = False) -> None:
        job = self._jobs.pop(key)
        reason = f"could not be started: {reason}"
        self._add_exit(job, _LAUNCH_FAILED, reason, infrastructure_failure=infrastructure_failure)

    def _fail_running(self, supervisor: DvmSupervisor, reason: str) -> None:
        """Report the end of all jobs of a lost DVM; waiting jobs are started in the next DVM."""
        for key, job in list(self._jobs.items()):
            if job.supervisor is supervisor and job.requested:
                del self._jobs[key]
                self._add_exit(job, -signal.SIGKILL, reason, infrastructure_failure=True)

    def _add_exit(
        self, job: _Job, code: int, reason: str, *, infrastructure_failure: bool = False
    ) -> None:
        command = job.command
        self._exits.append(
            Exit(command.name, 0, code, reason, command.start, infrastructure_failure)
        )

    def _kill_job(self, job: _Job) -> None:
        if job.supervisor.dvm is not None:
            job.supervisor.dvm.kill(job.namespace)

    def _describe(self) -> str:
        usable = [
            node
            for supervisor in self._supervisors
            for name, node in supervisor.nodes.items()
            if name not in supervisor.lost_nodes
        ]
        dvms = "a DVM" if len(self._supervisors) == 1 else f"{len(self._supervisors)} DVMs"
        nodes = f"{len(usable)} node{'s' * (len(usable) != 1)}"
        return f"{self._prefix}: {dvms} on {nodes}, {sum(node.slots for node in usable)} slots"


def _check(command: Command, hosts: Sequence[str]) -> None:
    """Check the conditions of a start that this machine can know. Raises LaunchError."""
    try:
        os.close(os.open(command.log, _LOG_FLAGS, 0o600))
    except OSError as error:
        raise LaunchError(f"cannot open {command.log}: {error.strerror}") from error
    if not any(map(is_this_node, hosts)):
        return
    if not command.cwd.is_dir():
        raise LaunchError(f"{command.cwd} is not a folder: worker {command.name} cannot run there")
    path = dict(command.environ).get("PATH", os.defpath)
    if shutil.which(command.argv[0], path=path) is None:
        raise LaunchError(f"cannot start {command.argv[0]}: no such program")
