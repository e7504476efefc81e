"""mpirun launcher: one mpirun for each worker; discovery of the installed mpiruns.

Invariant: the end of a rank is learned from its mpirun alone. Each mpirun is bound to the service's
life by `die_with_parent`, so that no mpirun outlives the service.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

from launcher.allocation.hostlist import same_host
from launcher.base import Command, LaunchError
from launcher.mpi import mpirun_options
from launcher.mpi.mpirun_options import Mpirun
from launcher.process import agent as agents
from launcher.process import die_with_parent, network_namespace, output
from launcher.process.children import SubprocessLauncher, describe_exit

NAMES = ("mpirun", "mpiexec", "mpiexec.hydra")
MAX_RANKS = 4096
VERSION_TIMEOUT_S = 5.0
_LOG_TAIL_BYTES = 2**16
_LOST_DAEMON = re.compile(rb"(Remote daemon:\s+\S+ on node|Remote host:)\s+([\w.-]+)")
_FABRICS = (Path("/sys/class/infiniband"), Path("/sys/class/cxi"))


class MpirunLauncher(SubprocessLauncher):
    """Implementation of launcher.base.Launcher in which every command becomes an mpirun of its
    ranks.

    `folder`: for session files of this node, mode 0700, on a local disk. `agent`: the user's
    program for other nodes; "": srun or ssh.
    """

    name = "mpirun"
    max_ranks = MAX_RANKS

    def __init__(
        self, mpirun: Mpirun, folder: Path, agent: str = "", description: str = ""
    ) -> None:
        super().__init__()
        self.description = description or str(mpirun)
        self._mpirun = mpirun
        self._folder = folder
        self._agent = agent
        self._this_node = os.uname().nodename

    def start(self, command: Command) -> int:
        remote = any(not same_host(share.node, self._this_node) for share in command.shares)
        has_fabric = remote and any(path.is_dir() and any(path.iterdir()) for path in _FABRICS)
        environ = mpirun_options.environment(
            self._mpirun, dict(command.environ), os.geteuid() == 0, has_fabric, remote=remote
        )
        command = replace(command, environ=tuple(environ.items()))
        program = self._agent_program() if remote else ""
        isolated = not remote and not network_namespace.unavailable_reason()
        argv = mpirun_options.command_line(
            self._mpirun, command, self._this_node, self._folder, program, isolated=isolated
        )
        offset = command.log.stat().st_size if command.log.exists() else 0
        return self._children.start(
            command,
            die_with_parent.command_line(os.getpid(), argv, isolated=isolated),
            own_process_group=True,
            translate_exit=partial(_translate_mpirun_exit, command.log, offset),
        )

    def _agent_program(self) -> str:
        """Return the agent as one program, the only form that every mpirun accepts.

        Raises LaunchError.
        """
        program, settings = self._folder / "mpirun-agent", self._folder / "mpirun-agent.json"
        if not program.exists():
            argv = (sys.executable, "-P", "-m", "launcher.process.agent", str(settings))
            temporary = program.with_suffix(".new")
            try:
                settings.unlink(missing_ok=True)
                agents.write_settings(settings, self._agent, os.environ)
                temporary.write_text(f'#!/bin/sh\nexec {shlex.join(argv)} "$@"\n')
                temporary.chmod(0o700)
                temporary.replace(program)
            except OSError as error:
                raise LaunchError(f"cannot write {program}: {error.strerror}") from error
        return str(program)


def find(environ: Mapping[str, str], prefix: str = sys.prefix) -> list[Mpirun]:
    """Return every supported mpirun, the one in this interpreter's environment first."""
    mpiruns: dict[tuple[Path, str], Mpirun] = {}
    for path in _paths(environ, prefix):
        if (mpirun := identify(path, environ, prefix)) is not None:
            mpiruns.setdefault((path.parent, str(mpirun)), mpirun)  # mpiexec may be an alias
    return list(mpiruns.values())


def identify(path: Path, environ: Mapping[str, str], prefix: str = sys.prefix) -> Mpirun | None:
    """Identify a program by its `--version`; None if it is no supported mpirun."""
    try:
        _, text = output.run([str(path), "--version"], environ, VERSION_TIMEOUT_S)
    except (OSError, subprocess.TimeoutExpired):
        return None
    version = mpirun_options.parse_version(text)
    if version is None:
        return None
    installed_by_pip = path.parent == Path(prefix) / "bin"
    return Mpirun(str(path), *version, prefix if installed_by_pip else "")


def _paths(environ: Mapping[str, str], prefix: str) -> Iterator[Path]:
    """Yield distinct programs of these names: in the interpreter's environment, then on PATH."""
    seen = set()
    for folder in (str(Path(prefix) / "bin"), environ.get("PATH", os.defpath)):
        for name in NAMES:
            executable = shutil.which(name, path=folder)
            if executable is not None and (real := os.path.realpath(executable)) not in seen:
                seen.add(real)
                yield Path(executable)


def _translate_mpirun_exit(log: Path, offset: int, code: int) -> tuple[int, str, bool]:
    """Translate an exit code of mpirun into the fields of an Exit.

    Open MPI encodes a rank's signal as a shell does, 128 + its number, and reports a lost node in
    its output alone: in `log`, which this mpirun has written from `offset` on. A daemon that ran
    and is lost is an infrastructure failure; a host that was never reached may be the pool's fault.
    """
    rank_code = 128 - code if 128 < code < 128 + 65 else code
    with suppress(OSError), log.open("rb") as file:
        file.seek(max(offset, file.seek(0, os.SEEK_END) - _LOG_TAIL_BYTES))
        if lost := _LOST_DAEMON.findall(file.read()):
            kind, node = lost[-1]
            reason = f"{describe_exit(rank_code)}, without its daemon on {node.decode()}"
            return rank_code, reason, kind.startswith(b"Remote daemon")
    return rank_code, describe_exit(rank_code), False
