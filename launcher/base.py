"""The launcher protocol and its values: nodes, allocations, commands, exits and events.

Implementations: `process.local` (plain processes, on other nodes through an agent), `mpi.mpirun`
(one mpirun for each worker) and `prte.launcher` (one DVM for all workers). Values are frozen;
nothing here does I/O.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

# Ranks of Open MPI spin while they wait for one another. There are often more ranks than cores, and
# a waiting rank must then yield its core: exchanges are hundreds of times faster.
YIELD_WHEN_IDLE = {"OMPI_MCA_mpi_yield_when_idle": "1"}


class LaunchError(Exception):
    """A process could not be started. The message names the process and the reason."""


class AllocationError(LaunchError):
    """The description of the nodes, from the site or the user, is invalid; `hint` is the remedy."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU, or one instance of a partitioned GPU (MIG). What is not known is empty or 0."""

    uuid: str
    model: str = ""
    memory_bytes: int = 0
    capability: tuple[int, int] = (0, 0)  # of CUDA: (9, 0) is sm_90
    bandwidth: float = 0.0  # bytes a second to and from its memory, at most


@dataclass(frozen=True, slots=True)
class Node:
    """One machine of the allocation. `slots`: the number of threads it can run at once."""

    name: str
    slots: int
    memory_bytes: int  # for all its slots together
    gpus: int = 0
    features: tuple[str, ...] = ()  # names that the site gives it: partition, GRES, constraints
    group: int = 0  # component of a heterogeneous job
    block: int = 0  # nodes of one block share a DVM: the ranks of a worker never leave a block
    gpu_details: tuple[Gpu, ...] = ()  # where they are known: of this machine

    @property
    def gpu_names(self) -> tuple[str, ...]:
        """What CUDA_VISIBLE_DEVICES calls each GPU: UUIDs, else numbers in the allocation."""
        uuids = tuple(gpu.uuid for gpu in self.gpu_details)
        return uuids or tuple(str(number) for number in range(self.gpus))


@dataclass(frozen=True, slots=True)
class Allocation:
    """The nodes this environment may use, and until when."""

    nodes: tuple[Node, ...]
    source: str  # for people: "this machine", "Slurm job 17", "--hosts", "hostfile /a/b"
    end_s: float = 0.0  # Unix time at which the site ends it; 0: never

    @property
    def slots(self) -> int:
        return sum(node.slots for node in self.nodes)

    @property
    def memory_bytes(self) -> int:
        return sum(node.memory_bytes for node in self.nodes)


@dataclass(frozen=True, slots=True)
class Share:
    """The ranks of one worker on one node."""

    node: str
    ranks: int


@dataclass(frozen=True, slots=True)
class Command:
    """One worker to start. The environment is complete: nothing else is inherited.

    `name` and `start` together identify it; `start` grows with every start of the environment.
    Ranks are numbered over the shares in their order.
    """

    name: str
    argv: tuple[str, ...]  # the same for all ranks
    environ: tuple[tuple[str, str], ...]
    log: Path  # stdout and stderr are appended to it
    cwd: Path
    start: int = 0
    shares: tuple[Share, ...] = ()  # (): one rank on this machine

    @property
    def ranks(self) -> int:
        return sum(share.ranks for share in self.shares) or 1


@dataclass(frozen=True, slots=True)
class Exit:
    """The end of a worker, or the failure to start it."""

    name: str
    pid: int  # 0 where the launcher does not know it
    code: int  # as subprocess gives it: negative is the signal's number
    reason: str = field(default="")  # "exit 1", "signal 9 (SIGKILL)", "the DVM was lost"
    start: int = 0
    infrastructure_failure: bool = False  # its node or DVM failed; neither it nor its tasks did


@dataclass(frozen=True, slots=True)
class LauncherEvent:
    """State change of a DVM or node, for the environment's event log.

    `kind` is one of dvm.started, dvm.lost, node.lost, node.back (subject: the node's name) and
    launcher.helper.
    """

    kind: str
    subject: str
    message: str


class Launcher(Protocol):
    """Starts workers and reports their ends. No method blocks.

    Used from the main thread alone: a parent-death signal follows the thread that started the
    child (prctl(2), PR_SET_PDEATHSIG).
    """

    name: str  # "local", "mpirun", "prte"
    description: str  # version, and why this launcher was chosen
    max_ranks: int  # of one worker; 1: no MPI
    exposure: str  # how other users of a node can run programs through it; "": they cannot

    def start(self, command: Command) -> int:
        """Start a worker and return its pid, or 0 where that is not known. Raises LaunchError if
        that is impossible; a later failure is reported as an Exit."""

    def poll_exits(self) -> list[Exit]:
        """Return the workers that have ended since the last call."""

    def poll_events(self) -> list[LauncherEvent]:
        """Return the events since the last call."""

    def recheck_node(self, node: str) -> bool:
        """Check at once whether a lost node is back; the event node.back reports it. Returns False
        if the node does not count as lost, or if this launcher does not watch nodes."""

    def kill(self, name: str) -> None:
        """End all ranks of one worker at once; without effect if it has ended."""

    def terminate(self, name: str) -> None:
        """Ask one worker to end (SIGTERM)."""

    def running(self) -> list[str]:
        """Return the names of workers whose end `poll_exits` has not reported."""

    def close(self) -> None:
        """End all workers and all that was started for them, within a few seconds."""
