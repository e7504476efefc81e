"""Child processes of a launcher, and the local launcher, which starts plain processes."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from launcher.allocation.this_node import is_this_node
from launcher.base import Command, Exit, LauncherEvent, LaunchError
from launcher.process.agent import remote_command
from simenv.sandbox import die_with_parent
from simenv.sandbox.process_tree import describe_exit, kill_tree, register
from simenv.sandbox.progress import LOOK_S, ProgressDeadline

# Child processes of a launcher: start, poll, signal, end. For launchers, from the main thread.
#
# Invariant: a process is signalled only while it has not been reaped, so that a signal never
# reaches another process with the same pid.

CLOSE_TIMEOUT_S = 5.0
_LOG_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC

# A child's exit code -> the worker's exit code, `reason` and `infrastructure_failure` (see Exit).
ExitTranslator = Callable[[int], tuple[int, str, bool]]


@dataclass(frozen=True, slots=True)
class _Child:
    name: str
    start: int
    process: subprocess.Popen[bytes]
    own_process_group: bool
    translate_exit: ExitTranslator


class SubprocessLauncher:
    """Base class of launchers whose workers are child processes; subclasses add `start`. Each child
    has a worker's name and start; several may run under one name."""

    exposure = ""

    def __init__(self) -> None:
        self._children: list[_Child] = []

    def _spawn(
        self,
        command: Command,
        argv: Sequence[str] = (),
        environ: Mapping[str, str] | None = None,
        *,
        own_process_group: bool = False,
        translate_exit: ExitTranslator | None = None,
    ) -> int:
        """Start `argv` (by default the command's own) for the command's worker; return its pid.
        `own_process_group`: the child leads a process group, and `kill` ends all its descendants.
        Raises LaunchError."""
        argv = argv or command.argv
        try:
            log = os.open(command.log, _LOG_FLAGS, 0o600)
        except OSError as error:
            raise LaunchError(f"cannot open {command.log}: {error.strerror}") from error
        try:
            process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=dict(command.environ if environ is None else environ),
                cwd=command.cwd,
                process_group=0 if own_process_group else None,
            )
        except OSError as error:
            raise LaunchError(f"cannot start {argv[0]}: {error.strerror}") from error
        finally:
            os.close(log)
        register(process)
        translate = translate_exit or (lambda code: (code, describe_exit(code), False))
        self._children.append(
            _Child(command.name, command.start, process, own_process_group, translate)
        )
        return process.pid

    def poll_exits(self) -> list[Exit]:
        """Reap the children that have ended since the last call."""
        exits = []
        for child in list(self._children):
            code = child.process.poll()
            if code is not None:
                self._children.remove(child)
                worker_code, reason, infrastructure_failure = child.translate_exit(code)
                pid = child.process.pid
                exits.append(
                    Exit(child.name, pid, worker_code, reason, child.start, infrastructure_failure)
                )
        return exits

    def poll_events(self) -> list[LauncherEvent]:
        return []

    def recheck_node(self, node: str) -> bool:  # noqa: ARG002 - nodes are not watched
        return False

    def running(self) -> list[str]:
        return [child.name for child in self._children]

    def terminate(self, name: str) -> None:
        for child in self._children_of(name):
            child.process.terminate()

    def kill(self, name: str) -> None:
        for child in self._children_of(name):
            _kill(child)

    def close(self) -> None:
        """Send SIGTERM to all, and SIGKILL to those still running after CLOSE_TIMEOUT_S."""
        for child in self._children:
            child.process.terminate()
        deadline = time.monotonic() + CLOSE_TIMEOUT_S
        for child in self._children:
            try:
                child.process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                _kill(child)
                child.process.wait()
        self._children.clear()

    def _children_of(self, name: str) -> list[_Child]:
        return [child for child in self._children if child.name == name]


def _kill(child: _Child) -> None:
    """Kill a child and all that it has started: mpirun starts each rank in its own process group,
    and a function of a user whatever it likes."""
    if child.process.poll() is not None:
        return
    kill_tree(child.process.pid)


# Output of a short program, such as `mpirun --version`.


def run(argv: Sequence[str], environ: Mapping[str, str], timeout_s: float) -> tuple[int, str]:
    """Run a program without input; return its exit code and its output, with that on stderr.
    `timeout_s`: see `ProgressDeadline`. Raises OSError if it cannot be started,
    subprocess.TimeoutExpired."""
    with subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=dict(environ),
    ) as process:
        deadline = ProgressDeadline(timeout_s, process.pid)
        while True:
            try:
                output, _ = process.communicate(timeout=min(timeout_s, LOOK_S))
            except subprocess.TimeoutExpired:
                if deadline.is_over:
                    process.kill()
                    raise subprocess.TimeoutExpired(argv, timeout_s) from None
                continue
            except BaseException:  # also an interrupt
                process.kill()
                raise
            return process.returncode, output.decode("utf-8", "replace")


# Local launcher: plain processes, children of the service's main thread.
#
# Each child is bound to this process by `die_with_parent`, from before its first import. On other
# nodes the child is an agent (ssh, srun), and the worker ends with its connection, or with its
# lease. So no worker outlives the service, however the service ends. Used from the main thread
# alone: a death signal is bound to the thread that started the child.

_SSH_FAILED = 255  # ssh(1): the connection failed or was cut


class LocalLauncher(SubprocessLauncher):
    """Implementation of launcher.base.Launcher with plain subprocesses of one rank each. `agent`:
    the user's program for other nodes, as for `launcher.process.agent`."""

    name = "local"
    max_ranks = 1

    def __init__(self, agent: str = "", description: str = "plain processes") -> None:
        super().__init__()
        self.description = description
        self._agent = agent

    def start(self, command: Command) -> int:
        if command.ranks > self.max_ranks:
            text = f"worker {command.name} has {command.ranks} ranks; plain processes have one each"
            raise LaunchError(text)
        node = command.shares[0].node if command.shares else ""
        if not node or is_this_node(node):
            if shutil.which(command.argv[0], path=dict(command.environ).get("PATH")) is None:
                raise LaunchError(f"cannot start {command.argv[0]}: no such program")
            return self._spawn(command, die_with_parent.command_line(os.getpid(), command.argv))
        remote = remote_command(node, (remote_shell_line(command),), os.environ, self._agent)
        argv = die_with_parent.command_line(os.getpid(), remote)
        end = partial(_translate_agent_exit, node)
        return self._spawn(command, argv, os.environ, own_process_group=True, translate_exit=end)


def remote_shell_line(command: Command) -> str:
    """Return the line for a shell on another node: `cd`, then the command with only its own
    environment."""
    settings = (f"{name}={value}" for name, value in command.environ)
    argv = ("env", "-i", *settings, *command.argv)
    return f"cd {shlex.quote(str(command.cwd))} && exec {shlex.join(argv)}"


def _translate_agent_exit(node: str, code: int) -> tuple[int, str, bool]:
    """Translate an agent's exit code, which is the command's own, into the fields of an Exit."""
    detail = ", the connection failed or was cut" if code == _SSH_FAILED else ""
    return code, f"{describe_exit(code)} (agent of {node}{detail})", False
