"""Messages between clients and service, encoded as arrays.

Invariant: one message carries up to thousands of tasks or completions, never one message a task.
`PROTOCOL` changes with any change of meaning.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Union

import msgspec

from simenv.model import (
    Event,
    Origin,
    PoolInfo,
    ServiceInfo,
    TaskInfo,
    TaskOptions,
    TaskSpec,
    Timing,
    WorkerInfo,
)
from simenv.model.bounds import Text
from simenv.wire.messages import admin, queries, reservations  # noqa: F401 - kinds of messages
from simenv.wire.messages.common import (
    AdminRequest,
    ClientMessage,
    ClientRequest,
    Number,
    Reply,
    ServiceMessage,
    kinds,
)
from simenv.wire.messages.queries import Spent

# isort: off
from simenv.wire.messages.worker import (
    EXIT_GPU as EXIT_GPU,
    EXIT_LEASE as EXIT_LEASE,
    EXIT_MPI as EXIT_MPI,
    EXIT_ORPHAN as EXIT_ORPHAN,
    EXIT_RANK as EXIT_RANK,
    STATES as STATES,
    AssignChunk as AssignChunk,
    AssignedTask as AssignedTask,
    Heartbeat as Heartbeat,
    AttemptResults as AttemptResults,
    AttemptResult as AttemptResult,
    FromWorker as FromWorker,
    Join as Join,
    LeaseRenewed as LeaseRenewed,
    NoiseDocument as NoiseDocument,
    SetTaskThreads as SetTaskThreads,
    Started as Started,
    StopTask as StopTask,
    StopWorker as StopWorker,
    ToWorker as ToWorker,
)
# isort: on

PROTOCOL = 1
MAX_MESSAGE_BYTES = 64 * 2**20  # the transport drops a peer that sends more
FAR_MESSAGE_BYTES = 8 * 2**20  # limit of a client that connects over TCP with a key
MAX_MESSAGE_TASKS = 16_384
MAX_QUESTION_TASKS = 2_000  # ids in one WatchResults, Cancel or GetTasks
CLIENT_MESSAGE_TASKS = 500  # tasks that a client puts into one message
CLIENT_MESSAGE_BYTES = 2**20

Tasks = Annotated[list[TaskSpec], msgspec.Meta(max_length=4 * MAX_MESSAGE_TASKS)]
Numbers = Annotated[list[Number], msgspec.Meta(max_length=MAX_QUESTION_TASKS)]


# --- client to service -----------------------------------------------------------------------


class Hello(ClientMessage, frozen=True, tag=0):
    """First message of a client; answered by Welcome, or by Refused if the versions differ."""

    protocol: int
    version: Text
    client: Text  # a random name, the prefix of automatic keys


class Submit(ClientRequest, frozen=True, tag=1):
    """Submit tasks, which are accepted or refused as a whole.

    Item k has the idempotency key (key, offset + k). A repeat with the same content gets the same
    ids; with other content it is refused with `key_conflict`.
    """

    key: Text
    offset: Number
    terms: TaskOptions
    tasks: Tasks
    spent: Spent = Spent()
    # The sender waits for the result: the acceptance may be sent a few milliseconds later, with it.
    awaits_result: bool = False


class WatchResults(ClientRequest, frozen=True, tag=2):
    """Request the results of tasks: each is sent now if the task has ended, else when it ends.
    Idempotent."""

    tasks: Numbers


class Cancel(ClientRequest, frozen=True, tag=3):
    """Cancel tasks; a task that has ended stays as it is. Answered by Cancelled."""

    tasks: Numbers


class GetStatus(ClientRequest, frozen=True, tag=4):
    """Request the state of the service; answered by Status."""


class GetQueue(ClientRequest, frozen=True, tag=5):
    """Request the list of tasks. `done`: ended tasks, newest first; else waiting and running tasks
    in order."""

    done: bool = False
    limit: Number = 100


class GetTasks(ClientRequest, frozen=True, tag=6):
    """Request the TaskInfo of tasks; the answer leaves out unknown ones."""

    tasks: Numbers


class GetWorkers(ClientRequest, frozen=True, tag=7):
    """Request all workers and pools; answered by Workers."""


class GetEvents(ClientRequest, frozen=True, tag=8):
    since: Number = 0
    limit: Number = 1000


class GetCompletions(ClientRequest, frozen=True, tag=9):
    """Request the completions numbered above `since`, of the whole environment, in order."""

    since: Number = 0
    limit: Number = 1000


class Ack(ClientRequest, frozen=True, tag=10):
    """Acknowledge that the reader of a cursor has stored all completions up to `seq`; answered by
    Acked when stored."""

    cursor: Text
    seq: Number


class GetCursor(ClientRequest, frozen=True, tag=11):
    cursor: Text


class Ping(ClientRequest, frozen=True, tag=12):
    """Test that the service is alive; answered by Pong."""


class Shutdown(AdminRequest, frozen=True, tag=13):
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


class Accepted(Reply, frozen=True, tag=1):
    """Acceptance of a Submit, sent when it is stored; the ids are first .. first + count - 1."""

    first: int
    count: int
    repeated: bool = False  # the idempotency key was in use: nothing new was stored


class Refusal(msgspec.Struct, frozen=True, array_like=True):
    """Encoded form of one SimenvError; `index` is the item in the message, -1: all of it."""

    code: str
    message: str
    hint: str = ""
    index: int = -1
    retry_after_s: float = 0.0


class Refused(Reply, frozen=True, tag=2):
    refusals: list[Refusal]


class Completion(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One task's end. `payload`: a packed ResultData if DONE, else a packed Failure."""

    task: int
    state: int  # index into STATES
    attempts: int
    slots: int
    payload: bytes
    checksum: int  # CRC-32 of the payload, computed by the process that packed it
    timing: Timing


class Failure(msgspec.Struct, frozen=True, array_like=True):
    """Reason why a task ended without a result."""

    # engine, poison, out_of_memory, result_store, limit, cancelled, queue_timeout, run_timeout,
    # machine_refused, machine_failed, bad_answer, reservation
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


class Status(Reply, frozen=True, tag=4):
    info: ServiceInfo


class Queue(Reply, frozen=True, tag=5):
    total: int  # number of all such tasks, also beyond `limit`
    tasks: list[TaskInfo]


class Workers(Reply, frozen=True, tag=6):
    workers: list[WorkerInfo]
    pools: list[PoolInfo]


class Events(Reply, frozen=True, tag=7):
    events: list[Event]
    newest: int


class Cancelled(Reply, frozen=True, tag=8):
    """One word for each task: "cancelled", "cancelling" (it runs, and was asked to stop), "final"
    or "unknown"."""

    words: list[str]


class CompletionPage(Reply, frozen=True, tag=9):
    """Completed messages in order; `newest` is the number of the last stored completion."""

    groups: list[Completed]
    newest: int


class Acked(Reply, frozen=True, tag=10):
    seq: int  # position of the cursor


class Pong(Reply, frozen=True, tag=11):
    epoch: int


class UnknownTasks(Reply, frozen=True, tag=12):
    """Answer to WatchResults. `tasks`: ids that were never used. `gone`: ids of tasks whose ends
    are no longer kept."""

    tasks: list[int]
    gone: list[int] = msgspec.field(default_factory=list)


class Stopping(Reply, frozen=True, tag=13):
    running: int
    queued: int


if TYPE_CHECKING:
    FromClient = ClientMessage
    ToClient = ServiceMessage
else:
    FromClient = Union[tuple(kinds(ClientMessage))]  # noqa: UP007 - of classes that are counted here
    ToClient = Union[tuple(kinds(ServiceMessage))]  # noqa: UP007
