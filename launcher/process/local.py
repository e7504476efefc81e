"""Local launcher: plain processes, children of the service's main thread.

On this node a child gets its parent's pid and requests a death signal from the kernel itself. On
other nodes it is the child of an agent (ssh, srun), and the agent is bound to this process by
`die_with_parent`. So no worker outlives the service, however the service ends. Used from the main
thread alone: a death signal is bound to the thread that started the child.
"""

from __future__ import annotations

import os
import shlex
from functools import partial

from launcher.allocation.this_node import is_this_node
from launcher.base import Command, LaunchError
from launcher.process import die_with_parent
from launcher.process.agent import remote_command
from launcher.process.children import SubprocessLauncher, describe_exit

_SSH_FAILED = 255  # ssh(1): the connection failed or was cut


class LocalLauncher(SubprocessLauncher):
    """Implementation of launcher.base.Launcher with plain subprocesses of one rank each.

    `agent`: the user's program for other nodes, as for `launcher.process.agent`.
    """

    name = "local"
    max_ranks = 1

    def __init__(self, agent: str = "", description: str = "plain processes") -> None:
        super().__init__()
        self.description = description
        self._agent = agent

    def start(self, command: Command) -> int:
        if command.ranks > self.max_ranks:
            raise LaunchError(
                f"worker {command.name} has {command.ranks} ranks; plain processes have one each"
            )
        node = command.shares[0].node if command.shares else ""
        if not node or is_this_node(node):
            return self._children.start(command)
        remote = remote_command(node, (remote_shell_line(command),), os.environ, self._agent)
        return self._children.start(
            command,
            die_with_parent.command_line(os.getpid(), remote),
            os.environ,
            own_process_group=True,
            translate_exit=partial(_translate_agent_exit, node),
        )


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
