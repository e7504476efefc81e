"""Command lines and environments of mpirun: Open MPI 4 and 5, MPICH's and Intel's Hydra. Pure.

Ranks are placed on the hosts in the order of their command. Every family gets options to
oversubscribe and not to bind: two mpiruns on one node would otherwise bind to the same cores, and
the scheduler counts the slots.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from launcher.allocation.hostlist import same_host
from launcher.base import YIELD_WHEN_IDLE, Command, Share

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
    command: Command,
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
    shares = command.shares or (Share(this_node, command.ranks),)
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
      listen
      on no port
    """
    result = {name: value for name, value in environ.items() if not _is_foreign(name)}
    if mpirun.family is MpiFamily.INTEL:
        return {"I_MPI_PIN": "off", **result}
    if not mpirun.family.is_open_mpi:
        return result
    result = {**YIELD_WHEN_IDLE, **result}
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


def _is_foreign(name: str) -> bool:
    return name.startswith(FOREIGN) and not name.startswith(NOT_FOREIGN)


def _open_mpi(
    mpirun: Mpirun, command: Command, shares: tuple[Share, ...], folder: Path, agent: str
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
    mpirun: Mpirun, command: Command, shares: tuple[Share, ...], agent: str, *, isolated: bool
) -> tuple[str, ...]:
    starter = "-bootstrap" if mpirun.family is MpiFamily.INTEL else "-launcher"
    # "rsh" calls the agent as AGENT HOST COMMAND; "ssh" would put options before the host.
    argv = [mpirun.path, starter, *(("rsh", f"{starter}-exec", agent) if agent else ("fork",))]
    argv += ["-iface", "lo"] if isolated else []
    argv += ["-hosts", ",".join(f"{share.node}:{share.ranks}" for share in shares), "-genvall"]
    argv += [] if mpirun.family is MpiFamily.INTEL else ["-bind-to", "none"]
    return (*argv, "-n", str(command.ranks), *command.argv)
