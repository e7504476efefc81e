"""Messages between the service and the agents of nodes that came by a job of the site.

A job begins with a token that the service accepts once: a key pair, with the address and the public
key of the service. The agent sends JoinNode with a public key of its own, connects again with that
pair, and sends NodeHeartbeat from then on. Invariant: the service opens no connection to a node;
the pair of a worker travels in RunWorker, over that encrypted connection.

The heartbeats of workers go to their agent, through a socket on the node; the agent answers them
itself and sends the newest of each with its own, so that the service has one message of a node. An
agent that has no such socket leaves its workers to the service.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from simenv.wire.messages.base import Memory, Name, Number, Pid

MAX_GPUS = 64  # of a node
MAX_BEATS = 16_384  # of workers in one message
Line = Annotated[str, msgspec.Meta(max_length=2_000)]
Version = Annotated[int, msgspec.Meta(ge=0, le=2**16)]
Gpus = Annotated[int, msgspec.Meta(ge=0, le=MAX_GPUS)]


Age = Annotated[float, msgspec.Meta(ge=-1e10, le=1e10)]  # seconds; 300 years


class JoinToken(msgspec.Struct, frozen=True):
    """Token of one job, as JSON on the standard input of its agent."""

    node: str  # name of the node in the environment: POOL:NUMBER
    address: str  # of the service: tcp://HOST:PORT
    server_key: str  # public key of this start of the service, in ZeroMQ's base 85
    public_key: str  # accepted until the first JoinNode
    secret_key: str
    epoch: int  # of the service's start
    time_s: float  # requested length of the job; it counts from the start of the agent

    def __repr__(self) -> str:
        return f"JoinToken({self.node}, {self.address})"


class NodeGpu(msgspec.Struct, frozen=True, array_like=True):
    """A GPU of the job; the fields are those of `launcher.base.Gpu`."""

    uuid: Name
    model: Name = ""
    memory_bytes: Memory = 0
    capability: tuple[Version, Version] = (0, 0)
    bandwidth: Annotated[float, msgspec.Meta(ge=0.0, le=1e18)] = 0.0


class JoinNode(msgspec.Struct, frozen=True, array_like=True, tag=10):
    """First message of an agent, with the key of its token."""

    version: Name
    node: Name
    epoch: Number
    public_key: Name  # of the agent itself, for all that follows
    host: Name
    slots: Number
    memory_bytes: Memory  # of the job on this node
    num_gpus: Gpus
    gpus: Annotated[tuple[NodeGpu, ...], msgspec.Meta(max_length=MAX_GPUS)]  # (): without details
    source: Name  # "Slurm job 17"
    left_s: Age  # until the site ends the job; negative: it should have ended
    age_s: Age  # of the agent's process


class RelayedBeat(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The newest heartbeat of a worker since the last one of its agent."""

    age_ms: Annotated[int, msgspec.Meta(ge=0, le=10**9)]  # since the agent has received it
    body: bytes  # a packed Heartbeat


class NodeHeartbeat(msgspec.Struct, frozen=True, array_like=True, tag=11):
    """Sign of life of an agent and of its workers, several times in a lease; answered by
    LeaseRenewed."""

    node: Name
    epoch: Number
    beats: Annotated[list[RelayedBeat], msgspec.Meta(max_length=MAX_BEATS)] = []


class NodeLeaving(msgspec.Struct, frozen=True, array_like=True, tag=12):
    """The site ends the job, or the agent has ended its workers and ends."""

    node: Name
    reason: Line
    ended: bool = False  # no worker runs there any more


class WorkerEnded(msgspec.Struct, frozen=True, array_like=True, tag=13):
    """End of a worker on the node; the fields are those of `launcher.base.Exit`."""

    node: Name
    worker: Name
    start: Number
    pid: Pid
    code: Annotated[int, msgspec.Meta(ge=-(2**31), le=2**31)]
    reason: Line
    infrastructure_failure: bool


class NodeAccepted(msgspec.Struct, frozen=True, array_like=True, tag=10):
    """Answer to JoinNode: what the agent and its workers need to know of the service."""

    lease_s: float
    service_node: str
    sockets: str
    results_token: str


class RunWorker(msgspec.Struct, frozen=True, array_like=True, tag=11):
    """Start a worker. Relative paths in `argv` are of the agent's folder, where the agent puts the
    files with the addresses and the key pair."""

    worker: str
    start: int
    argv: tuple[str, ...]  # after the interpreter
    environ: tuple[tuple[str, str], ...]  # besides that of the agent
    log: str
    public_key: str
    secret_key: str

    def __repr__(self) -> str:
        return f"RunWorker({self.worker}, {self.start})"


class SignalWorker(msgspec.Struct, frozen=True, array_like=True, tag=12):
    """Send SIGKILL, or SIGTERM, to a worker; without effect if it has ended."""

    worker: str
    kill: bool


class ForwardControl(msgspec.Struct, frozen=True, array_like=True, tag=14):
    """Forward a control message to a worker whose heartbeats the agent relays."""

    worker: str
    body: bytes  # a packed StopTask, SetTaskThreads or StopWorker


class EndNode(msgspec.Struct, frozen=True, array_like=True, tag=13):
    """End the workers of the node, and the agent; the job ends with it."""

    reason: str


FromNode = JoinNode | NodeHeartbeat | NodeLeaving | WorkerEnded
ToNode = NodeAccepted | RunWorker | SignalWorker | ForwardControl | EndNode
