"""The launcher protocol and its values: nodes, allocations, commands, exits and events.

Implementations: `process.local` (plain processes, on other nodes through an agent), `mpi.mpirun`
(one mpirun for each worker) and `prte.launcher` (one DVM for all workers). Values are frozen;
nothing here does I/O.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

# Ranks of Open MPI spin while they wait for one another. With more ranks than cores, a waiting rank
# must yield its core: exchanges are then hundreds of times faster.
YIELD_WHEN_IDLE = {"OMPI_MCA_mpi_yield_when_idle": "1"}


class LaunchError(Exception):
    """Failure to start a process. The message names the process and the reason."""


class AllocationError(LaunchError):
    """Invalid description of the nodes, from the site or the user; `hint` is the remedy."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU, or one instance of a partitioned GPU (MIG). Unknown values are empty or 0."""

    uuid: str
    model: str = ""
    memory_bytes: int = 0
    capability: tuple[int, int] = (0, 0)  # compute capability of CUDA: (9, 0) is sm_90
    bandwidth: float = 0.0  # peak bytes per second to and from its memory


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
    gpu_details: tuple[Gpu, ...] = ()  # details of the GPUs; known for this machine only
    pool: str = ""  # the only pool whose workers use it, as it came by a job of that pool; "": any

    @property
    def gpu_names(self) -> tuple[str, ...]:
        """Names of the GPUs in CUDA_VISIBLE_DEVICES: UUIDs, or numbers in the allocation if these
        are unknown."""
        uuids = tuple(gpu.uuid for gpu in self.gpu_details)
        return uuids or tuple(str(number) for number in range(self.gpus))


@dataclass(frozen=True, slots=True)
class Allocation:
    """Nodes that this environment may use, and the end of this permission."""

    nodes: tuple[Node, ...]
    source: str  # for messages: "this machine", "Slurm job 17", "--hosts", "hostfile /a/b"
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
    """One worker to start. Its environment is complete: no variable is inherited. `name` and
    `start` together identify the worker; `start` grows with every start of the environment. Ranks
    are numbered over the shares in their order."""

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
    """End of a worker, or the failure to start it."""

    name: str
    pid: int  # 0 if the launcher does not know it
    code: int  # as in subprocess: a negative code is a signal's number
    reason: str = field(default="")  # "exit 1", "signal 9 (SIGKILL)", "the DVM was lost"
    start: int = 0
    # True: its node, its DVM or the launcher failed, not the worker or a task.
    infrastructure_failure: bool = False


@dataclass(frozen=True, slots=True)
class LauncherEvent:
    """State change of a DVM or node, for the environment's event log. `kind` is one of dvm.started,
    dvm.lost, node.lost, node.back (subject: the node's name) and launcher.helper."""

    kind: str
    subject: str
    message: str


class Launcher(Protocol):
    """Launcher that starts workers and reports their ends. No method blocks. Used from the main
    thread alone: a parent-death signal is bound to the thread that started the child (prctl(2),
    PR_SET_PDEATHSIG)."""

    name: str  # "local", "mpirun", "prte"
    description: str  # version, and the reason for the choice of this launcher
    max_ranks: int  # most ranks of one worker; 1: no MPI
    exposure: str  # how other users of a node can run programs through it; "": they cannot

    def start(self, command: Command) -> int:
        """Start a worker and return its pid, or 0 if the launcher does not know it. Raises
        LaunchError if the start is impossible; a later failure is reported as an Exit."""

    def poll_exits(self) -> list[Exit]:
        """Return the workers that have ended since the last call."""

    def poll_events(self) -> list[LauncherEvent]:
        """Return the events since the last call."""

    def recheck_node(self, node: str) -> bool:
        """Check at once whether a lost node is back; the event node.back reports it. Return False
        if the node does not count as lost, or if this launcher does not watch nodes."""

    def kill(self, name: str) -> None:
        """Kill all ranks of one worker; without effect if the worker has ended."""

    def terminate(self, name: str) -> None:
        """Ask one worker to end (SIGTERM)."""

    def running(self) -> list[str]:
        """Return the names of workers whose end `poll_exits` has not reported."""

    def close(self) -> None:
        """End all workers and all processes started for them, within a few seconds."""
