"""The prte launcher: one DVM for all nodes, or for each block of them; a worker is a job there.

A job's ranks are children of PRTE's daemons. What the launcher believes of them comes from PMIx
events and lists; of jobs that end within 0.1 s PRTE forgets one in a hundred for ever, and then it
is the service that sees that a worker is silent. Main thread only: prte ends with the thread that
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

from launcher.allocation.hostlist import checked
from launcher.allocation.this_node import is_here
from launcher.base import Allocation, Command, Exit, LaunchError, News, Node
from launcher.pmix.protocol import Answer
from launcher.process import network_namespace
from launcher.process.children import exit_words
from launcher.prte.dvm import Site
from launcher.prte.dvm_supervisor import Block
from launcher.prte.installation import Prte

CLOSE_TIMEOUT_S = 3.0
_LOOK_S = 0.01
_LOG_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
# PRTE says nothing of a folder that is not there, and forwards output only through the DVM: a
# shell sees to both, and is gone with the exec. Where that fails it waits a little: PRTE may miss
# the end of a process that ends before it has finished starting it, for ever.
_WRAP = (
    "trap 'sleep 0.5' EXIT\n"
    'exec >>"$0" 2>&1; cd -- "$1" || exit 126; shift\n'
    'command -v -- "$1" >/dev/null || { echo "$1: not found"; exit 127; }\n'
    'exec "$@"'
)
_LAUNCH_FAILED = 127


@dataclass(slots=True)
class _Job:
    command: Command
    block: Block
    hosts: tuple[str, ...]  # of each rank
    asked: bool = False
    namespace: str = ""  # as soon as it runs
    killed: bool = False


class PrteLauncher:
    """Implements launcher.base.Launcher. A DVM is started when the first worker needs it.

    `folder`: on a local disk, a short path; what is made there goes with `close`. `environ`: the
    service's own; ranks get what their command says, and of this no more than PATH, HOME and the
    like. `agent`: the user's way to other nodes, as `launcher.process.agent` takes it.
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
        why: str = "",
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        groups: dict[int, list[Node]] = {}
        for node in allocation.nodes:
            checked(node.name, "node", node.name)
            groups.setdefault(node.block, []).append(node)
        self.max_ranks = max(sum(node.slots for node in nodes) for nodes in groups.values())
        self._prte = prte
        self._because = why or f"PRTE {prte.version}"
        self._folder = Path(tempfile.mkdtemp(prefix="prte-", dir=folder))
        names = [node.name for node in allocation.nodes]
        isolated = network_namespace.can_isolate(names)
        settings = (
            dict(environ) if isolated else network_namespace.with_munge(environ, prte.library)
        )
        site = Site(prte, settings, agent, isolated)
        self._blocks = [
            Block(site, nodes, self._folder, number)
            for number, (_, nodes) in enumerate(sorted(groups.items()), 1)
        ]
        self._jobs: dict[int, _Job] = {}
        self._keys = 0
        self._exits: list[Exit] = []
        self._news: list[News] = []
        self.why = self._words()

    def start(self, command: Command) -> int:
        block, hosts = self._place(command)
        _check(command, hosts)
        self._keys += 1
        self._jobs[self._keys] = _Job(command, block, hosts)
        now = time.monotonic()
        block.want(now)
        self._dispatch(now)
        return 0

    def exited(self) -> list[Exit]:
        self._step(time.monotonic())
        exits, self._exits = self._exits, []
        return exits

    def news(self) -> list[News]:
        self._step(time.monotonic())
        news, self._news = self._news, []
        return news

    def look(self, node: str) -> bool:
        return any(node in block.nodes and block.look(node) for block in self._blocks)

    def kill(self, name: str) -> None:
        """SIGTERM; SIGKILL to what is left a second later."""
        for key, job in list(self._jobs.items()):
            if job.command.name != name:
                continue
            job.killed = True
            if job.namespace:
                self._end(job)
            elif not job.asked:
                del self._jobs[key]
                self._exit(job, -signal.SIGKILL, "ended before it was started")

    def terminate(self, name: str) -> None:
        """As `kill`: PRTE cannot do less to one job alone."""
        self.kill(name)

    def running(self) -> list[str]:
        unread = [end.name for end in self._exits]
        return [*(job.command.name for job in self._jobs.values()), *unread]

    def close(self) -> None:
        """SIGTERM to each prte, which ends its jobs and daemons; SIGKILL after a few seconds."""
        for block in self._blocks:
            block.close()
        deadline = time.monotonic() + CLOSE_TIMEOUT_S
        while not all(block.gone() for block in self._blocks) and time.monotonic() < deadline:
            time.sleep(_LOOK_S)
        for block in self._blocks:
            block.remove()
        self._jobs.clear()
        shutil.rmtree(self._folder, ignore_errors=True)

    # --- starting --------------------------------------------------------------------------------

    def _place(self, command: Command) -> tuple[Block, tuple[str, ...]]:
        """The block of a command's shares, and the node of each of its ranks."""
        if not command.shares:
            here = [name for block in self._blocks for name in block.nodes if is_here(name)]
            if not here:
                raise LaunchError(f"worker {command.name}: this machine has no part in the nodes")
            return self._block(command, here[0]), (here[0],)
        hosts = tuple(s.node for share in command.shares for s in [share] * share.ranks)
        blocks = [self._block(command, host) for host in dict.fromkeys(hosts)]
        if any(block is not blocks[0] for block in blocks):
            nodes = ", ".join(dict.fromkeys(hosts))
            raise LaunchError(f"worker {command.name}: {nodes} are not nodes of one DVM")
        return blocks[0], hosts

    def _block(self, command: Command, host: str) -> Block:
        for block in self._blocks:
            if host in block.nodes:
                return block
        raise LaunchError(f"worker {command.name}: {host} is none of the nodes")

    def _dispatch(self, now: float) -> None:
        """Ask for the jobs that wait, where their nodes are ready."""
        for key, job in list(self._jobs.items()):
            if job.asked or job.namespace:
                continue
            away = [host for host in job.hosts if host in job.block.lost_nodes]
            if away:
                why = f"{away[0]} is lost: {job.block.lost_nodes[away[0]]}"
                self._failed(key, why, blameless=True)
            elif all(map(job.block.serves, job.hosts)):
                dvm = job.block.dvm
                assert dvm is not None
                if dvm.full:
                    continue
                job.asked = True
                dvm.spawn(key, _wrapped(job.command), self._environ(job), job.hosts, now)

    def _environ(self, job: _Job) -> list[str]:
        environ = {"TMPDIR": tempfile.gettempdir(), **dict(job.command.environ)}
        transport = self._prte.transport(far=len(set(job.hosts)) > 1)
        return [f"{key}={value}" for key, value in self._prte.environ(transport | environ).items()]

    # --- what happens ----------------------------------------------------------------------------

    def _step(self, now: float) -> None:
        for block in self._blocks:
            turn = block.step(now)
            for answer in turn.answers:
                self._hear(answer)
            if turn.lost:
                self._lost(block, f"its DVM was lost: {turn.lost}")
            if turn.hopeless:
                for key, job in list(self._jobs.items()):
                    if job.block is block:
                        self._failed(key, turn.hopeless)
            if block.news:
                self._news += block.news
                block.news.clear()
                self.why = self._words()
        self._dispatch(now)

    def _hear(self, answer: Answer) -> None:
        if answer.tells == "ended":
            found = [k for k, job in self._jobs.items() if job.namespace == answer.namespace]
            for key in found:
                self._ended(key, answer)
            return
        job = self._jobs.get(answer.key)
        if job is None:
            return
        if answer.tells == "failed":
            self._failed(answer.key, answer.words)
        elif answer.tells == "unasked":
            job.asked = False
        elif answer.tells == "spawned":
            job.namespace = answer.namespace
            if job.killed:
                self._end(job)

    def _ended(self, key: int, answer: Answer) -> None:
        job = self._jobs.pop(key)
        code = answer.code
        if job.killed:
            code = -signal.SIGKILL
        elif 128 < code <= 128 + signal.SIGRTMAX:
            code = 128 - code
        elif code < 0:  # PRTE's own, no signal of that number
            code = _LAUNCH_FAILED
        self._exit(job, code, answer.words or exit_words(code))

    def _failed(self, key: int, why: str, *, blameless: bool = False) -> None:
        job = self._jobs.pop(key)
        self._exit(job, _LAUNCH_FAILED, f"could not be started: {why}", blameless=blameless)

    def _lost(self, block: Block, why: str) -> None:
        """All that ran there; what waits is started in the next DVM."""
        for key, job in list(self._jobs.items()):
            if job.block is block and job.asked:
                del self._jobs[key]
                self._exit(job, -signal.SIGKILL, why, blameless=True)

    def _exit(self, job: _Job, code: int, words: str, *, blameless: bool = False) -> None:
        command = job.command
        self._exits.append(Exit(command.name, 0, code, words, command.start, blameless))

    def _end(self, job: _Job) -> None:
        if job.block.dvm is not None:
            job.block.dvm.kill(job.namespace)

    def _words(self) -> str:
        there = [
            node
            for block in self._blocks
            for name, node in block.nodes.items()
            if name not in block.lost_nodes
        ]
        dvms = "a DVM" if len(self._blocks) == 1 else f"{len(self._blocks)} DVMs"
        nodes = f"{len(there)} node{'s' * (len(there) != 1)}"
        return f"{self._because}: {dvms} on {nodes}, {sum(node.slots for node in there)} slots"


def _check(command: Command, hosts: Sequence[str]) -> None:
    """What can be known here: LaunchError with the words of the system."""
    try:
        os.close(os.open(command.log, _LOG_FLAGS, 0o600))
    except OSError as error:
        raise LaunchError(f"cannot open {command.log}: {error.strerror}") from error
    if not any(map(is_here, hosts)):
        return
    if not command.cwd.is_dir():
        raise LaunchError(f"{command.cwd} is no folder: worker {command.name} cannot run there")
    path = dict(command.environ).get("PATH", os.defpath)
    if shutil.which(command.argv[0], path=path) is None:
        raise LaunchError(f"cannot start {command.argv[0]}: no such program")


def _wrapped(command: Command) -> list[str]:
    words = ["/bin/sh", "-c", _WRAP, str(command.log), str(command.cwd)]
    return [*words, *command.argv]
