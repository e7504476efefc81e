"""Messages between clients, service and workers.

Invariant: one message carries up to thousands of tasks or completions, never one message a task.
`PROTOCOL` changes with any change of meaning.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Union

import msgspec

from simenv import model
from simenv.model import Origin, TaskInfo
from simenv.model.accounts import Used
from simenv.model.devices import LONGEST_NS
from simenv.model.program import Text
from simenv.wire.messages import (
    accounting,  # noqa: F401 - kinds of messages
    admin,  # noqa: F401
    base,
    credentials,  # noqa: F401
    explain,  # noqa: F401
    jobs,  # noqa: F401
    metrics,  # noqa: F401
    nodes,
    queries,
)
from simenv.wire.messages.base import ClientMessage, ServiceMessage, kinds
from simenv.wire.messages.history import Spent

# Exit codes of a worker that ends through no fault of a task: its lease expired; its starter has
# ended; MPI did not start with the requested ranks; one of its ranks is silent, has ended or failed
# alone; its GPU failed. No small numbers: functions and libraries of tasks end processes with them.
EXIT_LEASE, EXIT_ORPHAN, EXIT_MPI, EXIT_RANK, EXIT_GPU = 103, 104, 105, 106, 107
STATES = tuple(model.TaskState)  # states travel as an index into this
FinalState = Annotated[int, msgspec.Meta(ge=2, le=len(STATES) - 1)]
# A worker sends its results when this time has passed: half of a long chunk, so that the service
# sends the next one before it ends, where the tasks are too long for it to have sent one ahead.
FLUSH_NS = 2_500_000
MAX_RESULTS = 16_384  # of one message; more than the tasks of any chunk


class Join(msgspec.Struct, frozen=True, array_like=True, tag=0):
    """First message of a worker, sent when every kernel is loaded."""

    version: base.Name
    name: base.Name
    pid: base.Pid
    node: base.Names  # where its ranks are, each node once: "node1,node2"
    epoch: base.Number  # of the service that started it: workers of an earlier one are refused
    engines: Annotated[tuple[base.Name, ...], msgspec.Meta(max_length=256)]
    start: base.Number = 0  # number of this start; name and start identify the process
    ranks: base.Ranks = 1


DeviceTime = Annotated[int, msgspec.Meta(ge=0, le=LONGEST_NS)]


class Started(msgspec.Struct, frozen=True, array_like=True, tag=1):
    task: base.Number
    attempt: base.Number


class AttemptResult(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Result of one attempt. `start_us` is measured from the arrival of the chunk at the worker;
    the parts of `run_us` are those of `Timing`. All times are shown as the worker reported them:
    none of them is charged (`events.results`)."""

    task: base.Number
    attempt: base.Number
    state: FinalState
    payload: bytes
    checksum: base.Crc32  # of the payload
    file: base.Name = ""  # of its large arrays, below the results folder
    file_bytes: base.Memory = 0
    start_us: base.Microseconds = 0
    run_us: base.Microseconds = 0
    decode_us: base.Microseconds = 0
    plan_us: base.Microseconds = 0
    engine_us: base.Microseconds = 0
    encode_us: base.Microseconds = 0
    compile_us: base.Microseconds = 0  # not a part of `run_us`
    device_ns: DeviceTime = 0  # on the emulated device; 0: on none, or not known


class AttemptResults(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """Results of one chunk, or of a part of it: the worker sends those that it has when the last
    one took longer than FLUSH_NS since it sent some before. Engine, route, slots and worker are
    those that the service has recorded."""

    results: Annotated[list[AttemptResult], msgspec.Meta(max_length=MAX_RESULTS)]


# In ms, of all processors of a node since it was started: of 1,000 for 30 years.
CpuTime = Annotated[int, msgspec.Meta(ge=0, le=10**15)]


class Heartbeat(msgspec.Struct, frozen=True, array_like=True, tag=3):
    """Sign of life that the heartbeat thread sends: every second while a task runs, or as often as
    `LeaseRenewed` says."""

    name: base.Name
    epoch: base.Number
    task: base.Number  # running task; 0: none
    attempt: base.Number
    rss_bytes: base.Memory  # of all its ranks together
    start: base.Number = 0
    progress: model.ProgressInfo | None = None  # of the task, if its engine reports it
    waiting: bool = True  # for a chunk; False while it runs one, loads kernels or sends results
    compiling: bool = False  # kernels that the task needs
    cpu_ms: CpuTime = 0  # of the process of its rank 0
    node_cpu_ms: CpuTime = 0  # busy time of all processors of that rank's node; 0: not known
    node_used_bytes: base.Memory = 0  # memory in use on that node; 0: not known
    # Resident memory of rank 0 when no task ran, or when it had loaded an engine; 0: not known.
    base_bytes: base.Memory = 0
    grants: base.Number = 0  # of the newest LeaseRenewed


class AssignedTask(msgspec.Struct, frozen=True, array_like=True, gc=False):
    task: int
    attempt: int  # the fencing token: epoch * 2**16 + number of times it was sent to a worker
    terms: int  # index into AssignChunk.terms
    program: bytes
    shots: int
    seed: int
    bindings: bytes
    binding: int
    count: int = 1
    layout: bytes = b""  # see `TaskSpec`
    initial_layout: bytes = b""
    trusted: bool = False  # of the environment's own user, not of a key's owner


class AssignChunk(msgspec.Struct, frozen=True, array_like=True, tag=0):
    """A chunk. `announce`: the worker sends Started before each task; used for long tasks only."""

    slots: int  # of each rank
    memory_bytes: int  # granted to each rank for the states of one task
    announce: bool
    engine: str
    route: str
    terms: list[model.TaskOptions]
    tasks: list[AssignedTask]
    kept_bytes: int = 0  # granted to states that the worker keeps between tasks


class LeaseRenewed(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """Answer to a Heartbeat, or to that of an agent, which renews the lease. `interval_s`: least
    time until the next one; grows with the number of workers. `longest_s`: most time, after which
    the sender would soon be lost; it prevails over all but the shortest interval. `grants`: number
    of chunks that the service had sent to all workers; the next Heartbeat repeats it, so that the
    service knows after which chunk that was sent."""

    epoch: int
    interval_s: float = 0.0
    longest_s: float = math.inf
    grants: int = 0


class StopTask(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """End this attempt at the next pass; `reason` becomes the Failure's."""

    task: int
    attempt: int
    reason: str


class StopWorker(msgspec.Struct, frozen=True, array_like=True, tag=3):
    reason: str


FromWorker = Join | Started | AttemptResults | Heartbeat | queries.DeviceDescribed | nodes.FromNode


class SetTaskThreads(msgspec.Struct, frozen=True, array_like=True, tag=5):
    """Set the number of threads of a running attempt; without effect if the attempt has ended."""

    task: int
    attempt: int
    threads: int


class NoiseDocument(msgspec.Struct, frozen=True, array_like=True, tag=6):
    """A noise document, which later chunks name by its digest. `alone`: drop all earlier documents
    first; the service sends them again when they are needed."""

    digest: str  # hex
    body: bytes
    alone: bool = False


ToWorker = AssignChunk | NoiseDocument | LeaseRenewed | SetTaskThreads | StopTask | StopWorker
ToNode = LeaseRenewed | nodes.ToNode

PROTOCOL = 1
MAX_MESSAGE_BYTES = 64 * 2**20  # the transport drops a peer that sends more
FAR_MESSAGE_BYTES = 8 * 2**20  # limit of a client that connects over TCP with a key
MAX_MESSAGE_TASKS = 16_384
MAX_QUESTION_TASKS = 2_000  # ids in one WatchResults, Cancel or GetTasks
CLIENT_MESSAGE_TASKS = 500  # tasks that a client puts into one message
CLIENT_MESSAGE_BYTES = 2**20

Tasks = Annotated[list[model.TaskSpec], msgspec.Meta(max_length=4 * MAX_MESSAGE_TASKS)]
Numbers = Annotated[list[base.Number], msgspec.Meta(max_length=MAX_QUESTION_TASKS)]


# --- client to service -----------------------------------------------------------------------


class Hello(ClientMessage, frozen=True, tag=0):
    """First message of a client; answered by Welcome, or by Refused if the versions differ."""

    protocol: base.Number
    version: Text
    client: Text  # a random name, the prefix of automatic keys


class Submit(base.ClientRequest["Accepted"], frozen=True, tag=1):
    """Submit tasks, which are accepted or refused as a whole. Item k has the idempotency key (key,
    offset + k). A repeat with the same content gets the same ids; with other content it is refused
    with `key_conflict`."""

    key: Text
    offset: base.Number
    terms: model.TaskOptions
    tasks: Tasks
    spent: Spent = Spent()
    # The sender waits for the result: the acceptance may be sent a few milliseconds later, with it.
    awaits_result: bool = False
    reads_completed: bool = False  # the sender reads `completed` of Accepted


class WatchResults(base.ClientRequest["UnknownTasks"], frozen=True, tag=2):
    """Request the results of tasks: each is sent now if the task has ended, else when it ends.
    Idempotent."""

    tasks: Numbers


class Cancel(base.ClientRequest["Cancelled"], frozen=True, tag=3):
    """Cancel tasks; a task that has ended stays as it is."""

    tasks: Numbers


class GetStatus(base.ClientRequest["Status"], frozen=True, tag=4):
    """Request the state of the service."""


class GetQueue(base.ClientRequest["Queue"], frozen=True, tag=5):
    """Request the list of tasks. `done`: ended tasks, newest first; else waiting and running tasks
    in order."""

    done: bool = False
    limit: base.Number = 100


class GetTasks(base.ClientRequest["Queue"], frozen=True, tag=6):
    """Request the TaskInfo of tasks; the answer leaves out unknown ones."""

    tasks: Numbers


class GetWorkers(base.ClientRequest["Workers"], frozen=True, tag=7):
    """Request all workers and pools."""


class GetEvents(base.ClientRequest["Events"], frozen=True, tag=8):
    since: base.Number = 0
    limit: base.Number = 1000


class GetCompletions(base.ClientRequest["CompletionPage"], frozen=True, tag=9):
    """Request the completions numbered above `since`, of the whole environment, in order."""

    since: base.Number = 0
    limit: base.Number = 1000


class Ack(base.ClientRequest["Acked"], frozen=True, tag=10):
    """Acknowledge that the reader of a cursor has stored all completions up to `seq`; answered by
    Acked when stored."""

    cursor: Text
    seq: base.Number


class GetCursor(base.ClientRequest["Acked"], frozen=True, tag=11):
    cursor: Text


class Ping(base.ClientRequest["Pong"], frozen=True, tag=12):
    """Test that the service is alive."""


class Shutdown(base.AdminRequest["Stopping"], frozen=True, tag=13):
    """Stop the service: running tasks end first, waiting tasks stay queued. `now`: stop at once;
    running tasks are queued again too."""

    now: bool = False


# --- service to client -----------------------------------------------------------------------


class Welcome(ServiceMessage, frozen=True, tag=0):
    epoch: int  # grows with every start of the service
    version: str
    name: str
    node: str = ""
    results: str = ""  # folder of the files of large results on that node
    newest_completion: int = -1  # number of the newest one this client may see; -1: not stated
    message_bytes: int = MAX_MESSAGE_BYTES  # size limit of one message of this connection
    standbys: tuple[str, ...] = ()  # addresses of those that wait now, for other machines


class Accepted(base.Reply, frozen=True, tag=1):
    """Acceptance of a Submit, sent when it is stored; the ids are first .. first + count - 1."""

    first: int
    count: int
    repeated: bool = False  # the idempotency key was in use: nothing new was stored
    completed: Completed | None = None  # ends that were stored when this was sent


class Refusal(msgspec.Struct, frozen=True, array_like=True):
    """Encoded form of one SimenvError; `index` is the item in the message, -1: all of it."""

    code: str
    message: str
    hint: str = ""
    index: int = -1
    retry_after_s: float = 0.0


class Refused(base.Reply, frozen=True, tag=2):
    refusals: list[Refusal]


class Completion(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One task's end. `payload`: a packed ResultData if DONE, else a packed Failure."""

    task: int
    state: int  # index into STATES
    attempts: int
    slots: int
    payload: bytes
    checksum: int  # CRC-32 of the payload, computed by the process that packed it
    timing: model.Timing
    used: Used | None = None  # None: it ended before usage was stored
    units: float = 0.0  # billing units, as charged


class Failure(msgspec.Struct, frozen=True, array_like=True):
    """Reason why a task ended without a result."""

    # engine, poison, out_of_memory, result_store, limit, cancelled, queue_timeout, run_timeout,
    # machine_refused, machine_failed, bad_answer, reservation, job_time, damaged
    reason: str
    message: str
    hint: str = ""
    host: str = ""
    log: str = ""


class Completed(ServiceMessage, frozen=True, tag=3):
    """Completions from one message of a worker, sent to the clients that submitted or watch the
    tasks."""

    origin: Origin
    engine: str
    route: str
    results: list[Completion]
    first_seq: int = 0  # completion k has number first_seq + k in the completion queue


class Status(base.Reply, frozen=True, tag=4):
    info: model.ServiceInfo


class Queue(base.Reply, frozen=True, tag=5):
    total: int  # number of all such tasks, also beyond `limit`
    tasks: list[TaskInfo]


class Workers(base.Reply, frozen=True, tag=6):
    workers: list[model.WorkerInfo]
    pools: list[model.PoolInfo]


class Events(base.Reply, frozen=True, tag=7):
    events: list[model.Event]
    newest: int


class Cancelled(base.Reply, frozen=True, tag=8):
    """One word for each task: "cancelled", "cancelling" (it runs, and was asked to stop), "final"
    or "unknown"."""

    words: list[str]


class CompletionPage(base.Reply, frozen=True, tag=9):
    """Completed messages in order; `newest` is the number of the last stored completion."""

    groups: list[Completed]
    newest: int


class Acked(base.Reply, frozen=True, tag=10):
    seq: int  # position of the cursor


class Pong(base.Reply, frozen=True, tag=11):
    epoch: int
    standbys: tuple[str, ...] = ()  # as in Welcome


class UnknownTasks(base.Reply, frozen=True, tag=12):
    """Answer to WatchResults. `tasks`: ids that were never used. `gone`: ids of tasks whose ends
    are no longer kept."""

    tasks: list[int]
    gone: list[int] = msgspec.field(default_factory=list)


class Stopping(base.Reply, frozen=True, tag=13):
    running: int
    queued: int


if TYPE_CHECKING:
    FromClient = ClientMessage
    ToClient = ServiceMessage
else:
    FromClient = Union[tuple(kinds(ClientMessage))]  # noqa: UP007 - of classes that are counted here
    ToClient = Union[tuple(kinds(ServiceMessage))]  # noqa: UP007
