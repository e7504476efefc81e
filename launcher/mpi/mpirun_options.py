"""What each mpirun wants to hear: Open MPI 4 and 5, MPICH's hydra, Intel's hydra. Pure.

Ranks stand on the hosts and in the order their command names. Each kind is told to oversubscribe
and to bind nothing: two of them on one node would else bind to the same cores, and the slots are
counted elsewhere.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from launcher.allocation.hostlist import same_host
from launcher.base import YIELDING, Command, Share

# A host that is gone is noticed after 5 + 3 x 1 s of silence; by default after 300.
KEEPALIVE = (
    ("oob_tcp_keepalive_time", "5"),
    ("oob_tcp_keepalive_intvl", "1"),
    ("oob_tcp_keepalive_probes", "3"),
)
SITES = "^slurm,tm,pbs,lsf,gridengine,flux"  # whose hosts it must not take by itself
# Of an MPI that we may be started under: our own ranks are another world.
FOREIGN = ("PMI_", "PMIX_", "OMPI_COMM_WORLD_", "OMPI_UNIVERSE", "PRTE_LAUNCHED", "HYDI_")
KEPT = ("PMIX_MCA_", "PMIX_PREFIX")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")


class Kind(enum.Enum):
    """Families of options."""

    OPEN_MPI_5 = "Open MPI 5"  # prterun inside
    OPEN_MPI_4 = "Open MPI 4"  # orterun
    MPICH = "MPICH"  # hydra
    INTEL = "Intel MPI"  # hydra with names of its own

    @property
    def is_open_mpi(self) -> bool:
        return self in (Kind.OPEN_MPI_5, Kind.OPEN_MPI_4)


@dataclass(frozen=True, slots=True)
class Mpirun:
    """An mpirun or mpiexec of this machine. `prefix`: of one that was installed by pip, and so has
    to be told where it is; "" otherwise."""

    path: str
    kind: Kind
    version: str
    prefix: str = ""

    def __str__(self) -> str:
        return f"{self.kind.value.rstrip(' 45')} {self.version}".strip()


def recognise(text: str) -> tuple[Kind, str] | None:
    """Kind and version from what `mpirun --version` prints; None: none we can speak to."""
    if found := re.search(r"\(Open(?: MPI|RTE)\) (\d+)(\S*)", text):
        major, rest = int(found[1]), found[2]
        if major < 4:
            return None
        return (Kind.OPEN_MPI_4 if major == 4 else Kind.OPEN_MPI_5), f"{major}{rest}"
    if "Intel(R) MPI Library" in text:
        found = re.search(r"Version (\S+)", text)
        return Kind.INTEL, found[1] if found else ""
    if "HYDRA build details" in text:
        found = re.search(r"Version:\s+(\S+)", text)
        return Kind.MPICH, found[1] if found else ""
    return None


def arguments(
    mpirun: Mpirun,
    command: Command,
    here: str,
    folder: Path,
    agent: str,
    *,
    isolated: bool = False,
) -> tuple[str, ...]:
    """The whole argv. `here`: this node's name; `folder`: for its session files on this node;
    `agent`: one program, called as AGENT HOST COMMAND..., asked only where a share is elsewhere.
    `isolated`: it will run in a network namespace that has the loopback interface alone.
    """
    shares = command.shares or (Share(here, command.ranks),)
    far = any(not same_host(share.node, here) for share in shares)
    if mpirun.kind.is_open_mpi:
        return _open_mpi(mpirun, command, shares, folder, agent if far else "")
    return _hydra(mpirun, command, shares, agent if far else "", isolated=isolated)


def environment(
    mpirun: Mpirun, environ: Mapping[str, str], is_root: bool, has_fabric: bool, *, far: bool
) -> dict[str, str]:
    """What mpirun and its ranks see. `has_fabric`: this node has a network that MPI should find by
    itself; without one, looking for it takes each rank a second. `far`: some ranks are on another
    node; else they exchange through shared memory, and listen on no port."""
    told = {name: value for name, value in environ.items() if not _is_foreign(name)}
    if mpirun.kind is Kind.INTEL:
        return {"I_MPI_PIN": "off", **told}
    if not mpirun.kind.is_open_mpi:
        return told
    told = {**YIELDING, **told}
    if not has_fabric:
        shared = "vader" if mpirun.kind is Kind.OPEN_MPI_4 else "sm"
        ways = f"self,{shared},tcp" if far else f"self,{shared}"
        told = {"OMPI_MCA_pml": "ob1", "OMPI_MCA_btl": ways, **told}
    if mpirun.prefix:
        told |= dict.fromkeys(("OPAL_PREFIX", "PMIX_PREFIX", "PRTE_PREFIX"), mpirun.prefix)
    if is_root:
        for family in ("OMPI", "PRTE"):
            told[f"{family}_ALLOW_RUN_AS_ROOT"] = "1"
            told[f"{family}_ALLOW_RUN_AS_ROOT_CONFIRM"] = "1"
    return told


def _is_foreign(name: str) -> bool:
    return name.startswith(FOREIGN) and not name.startswith(KEPT)


def _open_mpi(
    mpirun: Mpirun, command: Command, shares: tuple[Share, ...], folder: Path, agent: str
) -> tuple[str, ...]:
    old = mpirun.kind is Kind.OPEN_MPI_4
    option = "--mca" if old else "--prtemca"
    told: list[tuple[str, str]] = [("ras", SITES)]
    if not old:
        told += [("prte_local_tmpdir_base", str(folder))]
    elif not agent:  # ranks of 4 refuse to start when told of this node alone
        told += [("orte_tmpdir_base", str(folder))]
    if agent:
        shell = "rsh" if old else "ssh"
        told += [("plm", shell), (f"plm_{shell}_agent", agent), *KEEPALIVE]
    words = [mpirun.path]
    for name, value in told:
        words += [option, name, value]
    words += ["--oversubscribe"] if old else ["--map-by", "slot:OVERSUBSCRIBE"]
    words += ["--bind-to", "none"]
    if not agent:
        return (*words, "-n", str(command.ranks), *command.argv)
    # Ranks elsewhere have of the environment only what is named, in 4 for each part anew.
    named = [word for name, _ in command.environ if _NAME.match(name) for word in ("-x", name)]
    # One part a share: of a single list of hosts, 4 takes this node first.
    for number, share in enumerate(shares):
        words += [":"] if number else []
        words += ["--host", f"{share.node}:{share.ranks}", "-n", str(share.ranks)]
        words += [*named, *command.argv]
    return tuple(words)


def _hydra(
    mpirun: Mpirun, command: Command, shares: tuple[Share, ...], agent: str, *, isolated: bool
) -> tuple[str, ...]:
    starter = "-bootstrap" if mpirun.kind is Kind.INTEL else "-launcher"
    # "rsh" calls the agent by our contract; "ssh" would put options before the host.
    words = [mpirun.path, starter, *(("rsh", f"{starter}-exec", agent) if agent else ("fork",))]
    words += ["-iface", "lo"] if isolated else []
    words += ["-hosts", ",".join(f"{share.node}:{share.ranks}" for share in shares), "-genvall"]
    words += [] if mpirun.kind is Kind.INTEL else ["-bind-to", "none"]
    return (*words, "-n", str(command.ranks), *command.argv)
