"""The mpirun launcher: one mpirun for each worker. Which mpirun is here, and what became of it.

Invariant: ends of ranks are learned from their mpirun alone; that is tethered to the service, so
that none outlives it.
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
from launcher.process import die_with_parent, network_namespace
from launcher.process.children import OfChildren, exit_words

NAMES = ("mpirun", "mpiexec", "mpiexec.hydra")
MAX_RANKS = 4096
LOOK_TIMEOUT_S = 5.0
_MOST_BYTES = 2**16  # at a log's end
_LOST = re.compile(rb"(Remote daemon:\s+\S+ on node|Remote host:)\s+([\w.-]+)")
_FABRICS = (Path("/sys/class/infiniband"), Path("/sys/class/cxi"))


class MpirunLauncher(OfChildren):
    """Implements launcher.base.Launcher; every command becomes an mpirun of its ranks.

    `folder`: 0700, on a local disk: session files of this node. `agent`: the user's own way to
    other nodes; "": srun or ssh.
    """

    name = "mpirun"
    max_ranks = MAX_RANKS

    def __init__(self, mpirun: Mpirun, folder: Path, agent: str = "", why: str = "") -> None:
        super().__init__()
        self.why = why or str(mpirun)
        self._mpirun = mpirun
        self._folder = folder
        self._agent = agent
        self._here = os.uname().nodename

    def start(self, command: Command) -> int:
        far = any(not same_host(share.node, self._here) for share in command.shares)
        fabric = far and any(path.is_dir() and any(path.iterdir()) for path in _FABRICS)
        environ = mpirun_options.environment(
            self._mpirun, dict(command.environ), os.geteuid() == 0, fabric, far=far
        )
        told = replace(command, environ=tuple(environ.items()))
        program = self._one_program() if far else ""
        isolated = not far and not network_namespace.why_impossible()
        argv = mpirun_options.arguments(
            self._mpirun, told, self._here, self._folder, program, isolated=isolated
        )
        words = die_with_parent.words(os.getpid(), argv, isolated=isolated)
        offset = command.log.stat().st_size if command.log.exists() else 0
        tell = partial(_of_mpirun, command.log, offset)
        return self._children.start(told, words, leads=True, tell=tell)

    def _one_program(self) -> str:
        """The agent as one word, the only form that every mpirun takes. LaunchError."""
        program, told = self._folder / "mpirun-agent", self._folder / "mpirun-agent.json"
        if not program.exists():
            words = (sys.executable, "-P", "-m", "launcher.process.agent", str(told))
            temporary = program.with_suffix(".new")
            try:
                told.unlink(missing_ok=True)
                agents.write(told, self._agent, os.environ)
                temporary.write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n')
                temporary.chmod(0o700)
                temporary.replace(program)
            except OSError as error:
                raise LaunchError(f"cannot write {program}: {error.strerror}") from error
        return str(program)


def find(environ: Mapping[str, str], prefix: str = sys.prefix) -> list[Mpirun]:
    """Every mpirun we can speak to, the one in this interpreter's environment first."""
    found: dict[tuple[Path, str], Mpirun] = {}
    for path in _paths(environ, prefix):
        if (mpirun := look_at(path, environ, prefix)) is not None:
            found.setdefault((path.parent, str(mpirun)), mpirun)  # mpiexec is mpirun's other name
    return list(found.values())


def look_at(path: Path, environ: Mapping[str, str], prefix: str = sys.prefix) -> Mpirun | None:
    """What that program says it is; None if it is none we can speak to."""
    try:
        done = subprocess.run(
            [str(path), "--version"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=dict(environ),
            timeout=LOOK_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    told = mpirun_options.recognise(done.stdout.decode("utf-8", "replace"))
    if told is None:
        return None
    own = path.parent == Path(prefix) / "bin"
    return Mpirun(str(path), *told, prefix if own else "")


def _paths(environ: Mapping[str, str], prefix: str) -> Iterator[Path]:
    """Distinct programs by those names: here, then on PATH."""
    seen = set()
    for folder in (str(Path(prefix) / "bin"), environ.get("PATH", os.defpath)):
        for name in NAMES:
            where = shutil.which(name, path=folder)
            if where is not None and (real := os.path.realpath(where)) not in seen:
                seen.add(real)
                yield Path(where)


def _of_mpirun(log: Path, offset: int, code: int) -> tuple[int, str, bool]:
    """Open MPI tells a rank's signal as a shell does, 128 + its number, and a lost node in words
    alone: in `log`, which this mpirun has written from `offset` on. A daemon that was there and is
    lost is nobody's fault; a host that was never reached may be the pool's."""
    rank = 128 - code if 128 < code < 128 + 65 else code
    with suppress(OSError), log.open("rb") as file:
        file.seek(max(offset, file.seek(0, os.SEEK_END) - _MOST_BYTES))
        if lost := _LOST.findall(file.read()):
            how, node = lost[-1]
            words = f"{exit_words(rank)}, without its daemon on {node.decode()}"
            return rank, words, how.startswith(b"Remote daemon")
    return rank, exit_words(rank), False
