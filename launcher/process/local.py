"""The local launcher: plain processes, children of the service's main thread.

On this node a child is told its starter's pid and asks the kernel for a death signal itself; on
other nodes it is the child of an agent (ssh, srun), and the agent is tethered to us: none outlives
the service, however that ends. Must be used from the main thread: a death signal follows the thread
that started the child.
"""

from __future__ import annotations

import os
import shlex
from functools import partial

from launcher.allocation.this_node import is_here
from launcher.base import Command, LaunchError
from launcher.process import die_with_parent
from launcher.process.agent import reach
from launcher.process.children import OfChildren, exit_words


class LocalLauncher(OfChildren):
    """Implements launcher.base.Launcher with plain subprocesses, of one rank each.

    `agent`: the user's own way to other nodes, as `launcher.process.agent` takes it.
    """

    name = "local"
    max_ranks = 1

    def __init__(self, agent: str = "", why: str = "plain processes") -> None:
        super().__init__()
        self.why = why
        self._agent = agent

    def start(self, command: Command) -> int:
        if command.ranks > self.max_ranks:
            raise LaunchError(
                f"worker {command.name} has {command.ranks} ranks; plain processes have one each"
            )
        node = command.shares[0].node if command.shares else ""
        if not node or is_here(node):
            return self._children.start(command)
        words = reach(node, (remote_line(command),), os.environ, self._agent)
        argv = die_with_parent.words(os.getpid(), words)
        return self._children.start(
            command, argv, os.environ, leads=True, tell=partial(_of_agent, node)
        )


def remote_line(command: Command) -> str:
    """The line for a shell on another node: its folder, its environment and nothing else."""
    settings = (f"{name}={value}" for name, value in command.environ)
    words = ("env", "-i", *settings, *command.argv)
    return f"cd {shlex.quote(str(command.cwd))} && exec {shlex.join(words)}"


def _of_agent(node: str, code: int) -> tuple[int, str, bool]:
    """Agents tell the command's own exit; 255 is ssh's: it was cut off, or never came there."""
    cut = ", the connection failed or was cut" if code == 255 else ""
    return code, f"{exit_words(code)} (agent of {node}{cut})", False
