"""What a launcher is told and what it promises: nodes, shares of them, commands, ends, news.

Implementations: `local` (plain processes, on other nodes through an agent), `mpirun` (one for each
worker) and `prte` (one DVM for all of them). Values here are frozen; nothing here does I/O.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

# Open MPI's ranks spin while they wait for one another. We often have more of them than cores, and
# there one that waits must let run whom it waits for: exchanges are hundreds of times faster.
YIELDING = {"OMPI_MCA_mpi_yield_when_idle": "1"}


class LaunchError(Exception):
    """A process could not be started; the message says which and why."""


class AllocationError(LaunchError):
    """What the site or the user says about our nodes makes no sense; `hint` is the way out."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


@dataclass(frozen=True, slots=True)
class Node:
    """One machine of the allocation. `slots`: threads of work it has room for."""

    name: str
    slots: int
    memory_bytes: int  # for all its slots together
    gpus: int = 0
    features: tuple[str, ...] = ()  # the site's words for it: partition, GRES, constraints
    group: int = 0  # of a heterogeneous job
    block: int = 0  # nodes of one block share a DVM: the ranks of a worker never leave a block


@dataclass(frozen=True, slots=True)
class Allocation:
    """The nodes that are ours, and until when."""

    nodes: tuple[Node, ...]
    source: str  # in words: "this machine", "Slurm job 17", "--hosts", "hostfile /a/b"
    end_s: float = 0.0  # wall clock, seconds since 1970, when the site ends it; 0: never

    @property
    def slots(self) -> int:
        return sum(node.slots for node in self.nodes)

    @property
    def memory_bytes(self) -> int:
        return sum(node.memory_bytes for node in self.nodes)


@dataclass(frozen=True, slots=True)
class Share:
    """Some ranks of a worker on one node."""

    node: str
    ranks: int


@dataclass(frozen=True, slots=True)
class Command:
    """One worker to start. The environment is complete: nothing is inherited beside it.

    `name` and `start` together name it; `start` grows with every start of the environment. Ranks
    are numbered over the shares in their order.
    """

    name: str
    argv: tuple[str, ...]  # the same for all ranks
    environ: tuple[tuple[str, str], ...]
    log: Path  # stdout and stderr of what is started are appended here
    cwd: Path
    start: int = 0
    shares: tuple[Share, ...] = ()  # (): one rank on this machine

    @property
    def ranks(self) -> int:
        return sum(share.ranks for share in self.shares) or 1


@dataclass(frozen=True, slots=True)
class Exit:
    """A worker of ours is gone, or could not be started."""

    name: str
    pid: int  # 0 where the launcher does not know it
    code: int  # as subprocess gives it: negative is the signal's number
    words: str = field(default="")  # "exit 1", "signal 9 (SIGKILL)", "the DVM was lost"
    start: int = 0
    blameless: bool = False  # it went with its node or DVM: neither it nor its tasks are the cause


@dataclass(frozen=True, slots=True)
class News:
    """Something people should know, as an event: `kind` is its name there.

    Kinds: dvm.started, dvm.lost, node.lost, node.back (subject: the node's name), launcher.helper.
    """

    kind: str
    subject: str
    message: str


class Launcher(Protocol):
    """Starting never waits for the child; ends are learned from `exited`. One thread, the main one:
    a death signal follows the thread that started the child. Every method returns at once."""

    name: str  # "local", "mpirun", "prte"
    why: str  # in words: why this one was chosen, and its version
    max_ranks: int  # of one worker; 1: no MPI
    exposure: str  # why other users of a node can run programs through it; "" if they cannot

    def start(self, command: Command) -> int:
        """Start a worker; its pid, or 0 where that is not known. LaunchError if it is impossible;
        what fails later comes as an Exit."""

    def exited(self) -> list[Exit]:
        """Workers that have ended since the last call."""

    def news(self) -> list[News]:
        """What happened since the last call."""

    def look(self, node: str) -> bool:
        """See at once whether a node that was lost is back; a node.back among the news tells so.
        False if it does not count as lost here, or nothing is known of nodes."""

    def kill(self, name: str) -> None:
        """End all ranks of one worker at once; without effect if it is gone."""

    def terminate(self, name: str) -> None:
        """Ask one worker to end (SIGTERM)."""

    def running(self) -> list[str]:
        """Names of the workers that have not been reported by `exited`."""

    def close(self) -> None:
        """End all that still run, and what was started for them; waits a few seconds at most."""
