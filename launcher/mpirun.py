"""One mpirun for each worker: Open MPI, MPICH and Intel MPI."""

from __future__ import annotations

import enum
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from launcher import base
from launcher.allocation.hostlist import same_host
from launcher.process import agent as agents, children, network_namespace
from launcher.process.children import LocalLauncher, SubprocessLauncher
from simenv.sandbox import die_with_parent
from simenv.sandbox.process_tree import describe_exit

# Command lines and environments of mpirun: Open MPI 4 and 5, MPICH's and Intel's Hydra. Pure.
#
# Ranks are placed on the hosts in the order of their command. Every family gets options to
# oversubscribe and not to bind: two mpiruns on one node would otherwise bind to the same cores, and
# the scheduler counts the slots.

# A lost host is noticed after 5 + 3 x 1 s of silence; the default is 300 s.
KEEPALIVE = (
    ("oob_tcp_keepalive_time", "5"),
    ("oob_tcp_keepalive_intvl", "1"),
    ("oob_tcp_keepalive_probes", "3"),
)
SITES = "^slurm,tm,pbs,lsf,gridengine,flux"  # resource managers whose hosts mpirun must not use
# Variables of an MPI that started this process: the ranks of a worker are another MPI job.
FOREIGN = ("PMI_", "PMIX_", "OMPI_COMM_WORLD_", "OMPI_UNIVERSE", "PRTE_LAUNCHED", "HYDI_")
NOT_FOREIGN = ("PMIX_MCA_", "PMIX_PREFIX")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")


class MpiFamily(enum.Enum):
    """Families of mpirun options."""

    OPEN_MPI_5 = "Open MPI 5"  # mpirun is prterun
    OPEN_MPI_4 = "Open MPI 4"  # mpirun is orterun
    MPICH = "MPICH"  # Hydra
    INTEL = "Intel MPI"  # Hydra with different option names

    @property
    def is_open_mpi(self) -> bool:
        return self in (MpiFamily.OPEN_MPI_5, MpiFamily.OPEN_MPI_4)


@dataclass(frozen=True, slots=True)
class Mpirun:
    """An mpirun or mpiexec of this machine.

    `prefix`: installation prefix of one that pip installed, which needs it as a variable; ""
    otherwise.
    """

    path: str
    family: MpiFamily
    version: str
    prefix: str = ""

    def __str__(self) -> str:
        return f"{self.family.value.rstrip(' 45')} {self.version}".strip()


def parse_version(text: str) -> tuple[MpiFamily, str] | None:
    """Parse the output of `mpirun --version`; None if the MPI is not supported."""
    if match := re.search(r"\(Open(?: MPI|RTE)\) (\d+)(\S*)", text):
        major, rest = int(match[1]), match[2]
        if major < 4:
            return None
        family = MpiFamily.OPEN_MPI_4 if major == 4 else MpiFamily.OPEN_MPI_5
        return family, f"{major}{rest}"
    if "Intel(R) MPI Library" in text:
        match = re.search(r"Version (\S+)", text)
        return MpiFamily.INTEL, match[1] if match else ""
    if "HYDRA build details" in text:
        match = re.search(r"Version:\s+(\S+)", text)
        return MpiFamily.MPICH, match[1] if match else ""
    return None


def command_line(
    mpirun: Mpirun,
    command: base.Command,
    this_node: str,
    folder: Path,
    agent: str,
    *,
    isolated: bool = False,
) -> tuple[str, ...]:
    """Return the complete argv.

    - `folder`: for session files on this node
    - `agent`: one program, called as AGENT HOST COMMAND..., used only for shares on other nodes
    - `isolated`: mpirun will run in a network namespace that has only the loopback interface
    """
    shares = command.shares or (base.Share(this_node, command.ranks),)
    remote = any(not same_host(share.node, this_node) for share in shares)
    if mpirun.family.is_open_mpi:
        return _open_mpi(mpirun, command, shares, folder, agent if remote else "")
    return _hydra(mpirun, command, shares, agent if remote else "", isolated=isolated)


def environment(
    mpirun: Mpirun, environ: Mapping[str, str], is_root: bool, has_fabric: bool, *, remote: bool
) -> dict[str, str]:
    """Return the environment of mpirun and its ranks.

    - `has_fabric`: this node has a network that MPI should find by itself; without one, the search
      takes each rank a second
    - `remote`: some ranks are on another node; otherwise they exchange through shared memory and
      listen on no port
    """
    foreign = {n for n in environ if n.startswith(FOREIGN) and not n.startswith(NOT_FOREIGN)}
    result = {name: value for name, value in environ.items() if name not in foreign}
    if mpirun.family is MpiFamily.INTEL:
        return {"I_MPI_PIN": "off", **result}
    if not mpirun.family.is_open_mpi:
        return result
    result = {**base.YIELD_WHEN_IDLE, **result}
    if not has_fabric:
        shared_memory = "vader" if mpirun.family is MpiFamily.OPEN_MPI_4 else "sm"
        transports = f"self,{shared_memory},tcp" if remote else f"self,{shared_memory}"
        result = {"OMPI_MCA_pml": "ob1", "OMPI_MCA_btl": transports, **result}
    if mpirun.prefix:
        result |= dict.fromkeys(("OPAL_PREFIX", "PMIX_PREFIX", "PRTE_PREFIX"), mpirun.prefix)
    if is_root:
        for program in ("OMPI", "PRTE"):
            result[f"{program}_ALLOW_RUN_AS_ROOT"] = "1"
            result[f"{program}_ALLOW_RUN_AS_ROOT_CONFIRM"] = "1"
    return result


def _open_mpi(
    mpirun: Mpirun, command: base.Command, shares: tuple[base.Share, ...], folder: Path, agent: str
) -> tuple[str, ...]:
    version_4 = mpirun.family is MpiFamily.OPEN_MPI_4
    option = "--mca" if version_4 else "--prtemca"
    parameters: list[tuple[str, str]] = [("ras", SITES)]
    if not version_4:
        parameters += [("prte_local_tmpdir_base", str(folder))]
    elif not agent:  # ranks of version 4 refuse to start when it is set for this node alone
        parameters += [("orte_tmpdir_base", str(folder))]
    if agent:
        shell = "rsh" if version_4 else "ssh"
        parameters += [("plm", shell), (f"plm_{shell}_agent", agent), *KEEPALIVE]
    argv = [mpirun.path]
    for name, value in parameters:
        argv += [option, name, value]
    argv += ["--oversubscribe"] if version_4 else ["--map-by", "slot:OVERSUBSCRIBE"]
    argv += ["--bind-to", "none"]
    if not agent:
        return (*argv, "-n", str(command.ranks), *command.argv)
    # Remote ranks get only the variables that are named; version 4 needs them for each part.
    exported = [word for name, _ in command.environ if _NAME.match(name) for word in ("-x", name)]
    # One part for each share: version 4 would move this node to the front of a list of hosts.
    for number, share in enumerate(shares):
        argv += [":"] if number else []
        argv += ["--host", f"{share.node}:{share.ranks}", "-n", str(share.ranks)]
        argv += [*exported, *command.argv]
    return tuple(argv)


def _hydra(
    mpirun: Mpirun,
    command: base.Command,
    shares: tuple[base.Share, ...],
    agent: str,
    *,
    isolated: bool,
) -> tuple[str, ...]:
    starter = "-bootstrap" if mpirun.family is MpiFamily.INTEL else "-launcher"
    # "rsh" calls the agent as AGENT HOST COMMAND; "ssh" would put options before the host.
    argv = [mpirun.path, starter, *(("rsh", f"{starter}-exec", agent) if agent else ("fork",))]
    argv += ["-iface", "lo"] if isolated else []
    argv += ["-hosts", ",".join(f"{share.node}:{share.ranks}" for share in shares), "-genvall"]
    argv += [] if mpirun.family is MpiFamily.INTEL else ["-bind-to", "none"]
    return (*argv, "-n", str(command.ranks), *command.argv)


# mpirun launcher: one mpirun for each worker; discovery of the installed mpiruns.
#
# Invariant: the end of a rank is learned from its mpirun alone. Each mpirun is bound to the
# service's life by `die_with_parent`, so that no mpirun outlives the service.

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

    def start(self, command: base.Command) -> int:
        remote = any(not same_host(share.node, self._this_node) for share in command.shares)
        has_fabric = remote and any(path.is_dir() and any(path.iterdir()) for path in _FABRICS)
        environ = environment(
            self._mpirun, dict(command.environ), os.geteuid() == 0, has_fabric, remote=remote
        )
        command = replace(command, environ=tuple(environ.items()))
        program = self._agent_program() if remote else ""
        isolated = not remote and not network_namespace.unavailable_reason()
        argv = command_line(
            self._mpirun, command, self._this_node, self._folder, program, isolated=isolated
        )
        offset = command.log.stat().st_size if command.log.exists() else 0
        return self._spawn(
            command,
            die_with_parent.command_line(os.getpid(), argv, isolated=isolated),
            own_process_group=True,
            translate_exit=partial(_translate_mpirun_exit, command.log, offset),
        )

    def _agent_program(self) -> str:
        """Return the agent as one program, the only form that every mpirun accepts. Raises
        LaunchError."""
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
                raise base.LaunchError(f"cannot write {program}: {error.strerror}") from error
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
        _, text = children.run([str(path), "--version"], environ, VERSION_TIMEOUT_S)
    except (OSError, subprocess.TimeoutExpired):
        return None
    version = parse_version(text)
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
    """Translate an exit code of mpirun into the fields of an Exit. Open MPI encodes a rank's signal
    as a shell does, 128 + its number, and reports a lost node in its output alone: in `log`, which
    this mpirun has written from `offset` on. A daemon that ran and is lost is an infrastructure
    failure; a host that was never reached may be the pool's fault."""
    rank_code = 128 - code if 128 < code < 128 + 65 else code
    with suppress(OSError), log.open("rb") as file:
        file.seek(max(offset, file.seek(0, os.SEEK_END) - _LOG_TAIL_BYTES))
        if lost := _LOST_DAEMON.findall(file.read()):
            kind, node = lost[-1]
            reason = f"{describe_exit(rank_code)}, without its daemon on {node.decode()}"
            return rank_code, reason, kind.startswith(b"Remote daemon")
    return rank_code, describe_exit(rank_code), False


# Split launcher: workers of one rank are plain processes, others go through an MPI launcher.
#
# The MPI launcher is created when the first worker of several ranks is started, so that an
# environment of small workers runs no DVM.


@dataclass(eq=False)
class SplitLauncher:
    """Implementation of launcher.base.Launcher over two launchers. If `create_mpi` raises
    LaunchError, the start that needed it fails."""

    local: LocalLauncher
    create_mpi: Callable[[], base.Launcher]
    name: str
    description: str
    max_ranks: int
    exposure: str = ""
    _mpi: base.Launcher | None = field(default=None, init=False)

    def start(self, command: base.Command) -> int:
        if command.ranks == 1:
            return self.local.start(command)
        if self._mpi is None:
            self._mpi = self.create_mpi()
        return self._mpi.start(command)

    def poll_exits(self) -> list[base.Exit]:
        return [end for launcher in self._launchers() for end in launcher.poll_exits()]

    def poll_events(self) -> list[base.LauncherEvent]:
        return [event for launcher in self._launchers() for event in launcher.poll_events()]

    def recheck_node(self, node: str) -> bool:
        return sum(launcher.recheck_node(node) for launcher in self._launchers()) > 0  # ask all

    def kill(self, name: str) -> None:
        for launcher in self._launchers():
            if name in launcher.running():
                launcher.kill(name)

    def terminate(self, name: str) -> None:
        for launcher in self._launchers():
            if name in launcher.running():
                launcher.terminate(name)

    def running(self) -> list[str]:
        return [name for launcher in self._launchers() for name in launcher.running()]

    def close(self) -> None:
        try:
            if self._mpi is not None:
                self._mpi.close()
        finally:
            self.local.close()

    def _launchers(self) -> tuple[base.Launcher, ...]:
        return (self.local,) if self._mpi is None else (self.local, self._mpi)
