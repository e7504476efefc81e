"""What the page shows besides the native API: the live state, circuits, ideal distributions, events
of a range of time, the task stream.

Invariant: the service is asked once for each user and period, however many pages the user has open.
"""

from __future__ import annotations

import asyncio
import io
import threading
import time
import zipfile
from collections import OrderedDict
from collections.abc import AsyncIterator
from concurrent.futures import Future
from typing import Annotated, Any

import msgspec
from litestar import Request, Response, Router, get, post
from litestar.di import Provide
from litestar.params import FromPath, FromQuery, QueryParameter
from litestar.response import Stream
from litestar.types import ControllerRouterHandler

from simenv.client.bundle import files_of
from simenv.client.client import Client
from simenv.client.submission.prepare import PreparedSubmit
from simenv.client.submission.send import send
from simenv.client.tasks.task import number_of
from simenv.errors import (
    DECODE_ERRORS,
    KeyRefusedError,
    LimitExceededError,
    NotFoundError,
    OptionError,
    SimenvError,
)
from simenv.gateway.context import Caller, Gateway
from simenv.gateway.json_bodies import json_parts
from simenv.gateway.limits import HttpExchange, exchange_of
from simenv.gateway.native import results, schemas
from simenv.gateway.native.events import Feed, Feeds, events_above
from simenv.gateway.native.tasks import Filters, TheCaller, task_filters
from simenv.gateway.page import pulses, site
from simenv.gateway.problems import problem_of
from simenv.model import (
    FINAL_STATES,
    Event,
    NodeInfo,
    PoolInfo,
    ServiceInfo,
    TaskInfo,
    TaskOptions,
    TaskSpec,
    TaskState,
    decode_program,
    task_name,
)
from simenv.model.calls import is_call, is_pulse_call
from simenv.model.program import qubits_of
from simenv.model.views import check_window
from simenv.transpiler import lattice
from simenv.wire.messages.history import Submitted

RESULT_S = 10.0  # to fetch the result of an ended task
PERIOD_S = 1.0  # between two states that a page is sent
STREAM_S = 900.0  # after which a page connects anew, so that its token is checked
MAX_NODE_CHARS = 255  # of the name of a host
MAX_PAGES = 200  # of one user that are sent the live state
SHOWN_TASKS = 20  # of the queue, in the live state
SHOWN_EVENTS = 100  # new ones, in one live state
MAX_OPERATIONS = 4_000  # of a circuit that are sent to a page
MAX_IDEAL_QUBITS = 20  # of a program whose ideal distribution a page may ask for
MAX_EVENTS = 1_000  # of one answer
MAX_STREAM = 500  # tasks of the task stream
MAX_LAYOUTS = 64  # of devices without coordinates, in memory
MAX_LAID_OUT = 200  # qubits; a layout of more takes longer than a request may
MAX_SCANNED = 20_000  # events that are looked at for one answer
_SCAN = 1_000  # events of one request

OperationLimit = Annotated[int, QueryParameter(ge=0, le=MAX_OPERATIONS)]


class LiveQueue(msgspec.Struct, frozen=True):
    """The user's tasks that wait or run, the first of them; `total`: how many there are."""

    total: int
    tasks: list[TaskInfo]


class Live(msgspec.Struct, frozen=True):
    """State of the environment at one time (seconds since 1970), and the events since the state
    before: the last SHOWN_EVENTS of them."""

    at_s: float
    user: str
    role: str
    info: ServiceInfo
    queue: LiveQueue
    events: list[Event]


def live_state(client: Client, caller: Caller, since: int) -> tuple[Live, int]:
    """Return the present state, and the number of the newest event; `since`: that of the state
    before, -1: there was none."""
    total, tasks = client.queue(limit=SHOWN_TASKS)
    newest = client.history.newest_event()
    events: list[Event] = []
    if 0 <= since < newest:
        events = events_above(client, max(since, newest - SHOWN_EVENTS), SHOWN_EVENTS).events
        newest = events[-1].seq if events else newest
    queue = LiveQueue(total, tasks)
    return Live(time.time(), caller.user, caller.role, client.status(), queue, events), newest


def live_event(client: Client, caller: Caller, since: int) -> tuple[bytes, int]:
    """Return the server-sent event of `live_state`, and the number of the newest event."""
    state, newest = live_state(client, caller, since)
    return b"event: live\ndata: %b\n\n" % b"".join(json_parts(state)), newest


class LiveFeed(Feed):
    """The states that one token may see."""

    limit, kind = MAX_PAGES, "pages"
    _event = b""  # the last one

    async def events(self) -> AsyncIterator[bytes]:
        """Yield server-sent events for STREAM_S: `live` with a Live, `problem` with a Problem."""
        end_s = time.monotonic() + STREAM_S
        with self.read() as reader:
            if self._event:
                yield self._event
            while time.monotonic() < end_s and not reader.done():
                await self._changed.wait()
                yield self._event

    def _forget(self) -> None:
        self._event = b""

    async def _run(self) -> None:
        since = -1
        while True:
            try:
                call = self._gateway.call
                self._event, since = await call(self._caller, live_event, self._caller, since)
            except SimenvError as error:
                problem = msgspec.json.encode(problem_of(error))
                self._event = b"event: problem\ndata: %b\n\n" % problem
                if isinstance(error, KeyRefusedError):
                    break
            self._wake()
            await asyncio.sleep(PERIOD_S)
        asyncio.get_running_loop().call_soon(self._wake)


class TaskOperations(msgspec.Struct, frozen=True):
    """The circuit of a task, to be drawn. `operations`: the first ones of `total`, each a name,
    qubits, clbits and parameters, which are radians, or names of parameters of a sweep. `device`:
    that the task runs on; `can_compare`: whether `ideal` takes the task; `is_pulses`: it is a
    sequence, which has no operations, but a drawing of its own."""

    num_qubits: int
    num_clbits: int
    registers: tuple[tuple[str, int], ...]
    total: int
    operations: list[tuple[str, list[int], list[int], list[float | str]]]
    device: str
    can_compare: bool
    is_pulses: bool = False


def operations_of(client: Client, task: str, limit: int) -> TaskOperations:
    """Return the first `limit` operations of a task's program. Raises NotFoundError, and
    OptionError for a call that is no pulse sequence."""
    submitted = client.history.submitted(task)
    if is_pulse_call(submitted.terms):
        return TaskOperations(0, 0, (), 0, [], submitted.terms.device, False, is_pulses=True)
    if is_call(submitted.terms):
        raise OptionError(f"task {task} is a call of engine {submitted.terms.engine}: no circuit")
    spec = submitted.spec
    program = decode_program(spec.program)
    words = [memoryview(part).cast("H") for part in (program.arities, program.ops)]
    arities, ops = words[0].tolist(), words[1]
    qubits, clbits = memoryview(program.qubits).cast("H"), memoryview(program.clbits).cast("H")
    params = memoryview(program.params).cast("d")
    slots = memoryview(program.slots).cast("i").tolist()
    values = memoryview(spec.bindings).cast("d").tolist() if spec.count == 1 else []
    free: dict[int, float | str] = {
        at: values[slot] if slot < len(values) else f"p{slot}"
        for at, slot in zip(slots[::2], slots[1::2], strict=True)
    }
    operations = []
    q = c = p = 0
    for op in ops[:limit]:
        in_q, in_c, in_p = arities[3 * op : 3 * op + 3]
        chosen = [free.get(at, params[at]) for at in range(p, p + in_p)]
        bits = clbits[c : c + in_c].tolist()
        operations.append((program.names[op], qubits[q : q + in_q].tolist(), bits, chosen))
        q, c, p = q + in_q, c + in_c, p + in_p
    return TaskOperations(
        program.num_qubits, program.num_clbits, program.registers, len(ops), operations,
        submitted.terms.device, _is_comparable(submitted),
    )  # fmt: skip


def _is_comparable(submitted: Submitted) -> bool:
    spec = submitted.spec
    has_counts = spec.shots > 0 and spec.count == 1 and "counts" in submitted.terms.outputs
    return has_counts and qubits_of(spec.program)[1] <= MAX_IDEAL_QUBITS


class IdealTask(msgspec.Struct, frozen=True):
    """The task whose probabilities are the ideal distribution."""

    task: str


def submit_ideal(client: Client, task: str) -> IdealTask:
    """Submit the program of a task without noise and exact, as a task of the caller's own; the same
    task again at a second call. Raises OptionError for a task without counts, LimitExceededError
    for a program on too many qubits."""
    submitted = client.history.submitted(task)
    spec, terms = submitted.spec, submitted.terms
    if is_call(terms) or "counts" not in terms.outputs or spec.count != 1:
        message = f"task {task} has no counts of one circuit that an ideal distribution is for"
        raise OptionError(message, hint="a task with the output counts and one binding")
    used = qubits_of(spec.program)[1]
    if used > MAX_IDEAL_QUBITS:
        message = (
            f"the program of task {task} acts on {used} qubits; ideal distributions are computed "
            f"for {MAX_IDEAL_QUBITS} at most"
        )
        raise LimitExceededError(message, hint="simenv submit FILE --shots 0 computes any")
    ideal = TaskOptions(
        outputs=("probabilities",), name=f"ideal-{task}", account=terms.account, qos=terms.qos
    )
    exact = TaskSpec(spec.program, 0, 0, spec.bindings)
    prepared = PreparedSubmit(ideal, [exact], single=True)
    return IdealTask(send(client.session, prepared, f"ideal-{task}")[0].id)


def bundle_of(client: Client, task_id: str, exchange: HttpExchange) -> bytes:
    """Return the bundle of an ended task as a .zip archive, without the result if that is too large
    for JSON. Raises OptionError for a call and for a task that has not ended."""
    task = client.task(task_id)
    if task.state not in FINAL_STATES:
        raise OptionError(f"task {task.id} has not ended", hint="its bundle is made at its end")
    can_show = True
    if task.state is TaskState.DONE:
        try:
            size = sum(map(results.json_bytes, task.results(RESULT_S)))
            can_show = size <= results.MAX_JSON_BYTES
            exchange.hold(size if can_show else 0)
        except LimitExceededError:
            can_show = False
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, body in files_of(client, task, f"{task.id}.zip", with_result=can_show).items():
            archive.writestr(name, body)
    return packed.getvalue()


class EventRange(msgspec.Struct, frozen=True):
    """Events of a range of time, newest first. `complete`: whether these are all."""

    events: list[Event]
    complete: bool


def events_of(
    client: Client, since_s: float, until_s: float, kinds: list[str], limit: int
) -> EventRange:
    """Return the newest events of a range of time (seconds since 1970; `until_s` 0: up to now).
    Raises OptionError."""
    check_window(since_s, until_s, time.time())
    history = client.history
    last = history.events_before(until_s) if until_s else history.newest_event()
    oldest = max(0, last - MAX_SCANNED)
    found: list[Event] = []
    while last > oldest and len(found) < limit:
        begin = max(oldest, last - _SCAN)
        page = events_above(client, begin, last - begin).events
        page = [event for event in page if event.seq <= last]
        found += [
            event
            for event in reversed(page)
            if event.time_s >= since_s and (not kinds or event.is_of(kinds))
        ]
        if page and page[0].time_s < since_s:
            return EventRange(found[:limit], len(found) <= limit)
        last = begin
    return EventRange(found[:limit], last == 0 and len(found) <= limit)


class TaskRun(msgspec.Struct, frozen=True, array_like=True):
    """One task of the task stream. `kind`: its name, else its engine. `begin_s`: when its worker
    began (seconds since 1970; 0: it has not), `run_s`: compiling and running since then."""

    id: str
    kind: str
    state: TaskState
    worker: str
    begin_s: float
    run_s: float


def stream_of(client: Client, filters: dict[str, Any]) -> list[TaskRun]:
    """Return the newest tasks, and older ones that run, have ended, and wait, of which a page draws
    what each worker did when; at most MAX_STREAM of each."""
    rows, following = client.history.page(MAX_STREAM, **filters)
    live = frozenset(TaskState) - FINAL_STATES
    running = frozenset((TaskState.RUNNING,))
    for group in (running, FINAL_STATES, live - running) if following else ():
        states = tuple(each for each in filters["states"] or TaskState if each in group)
        missing = MAX_STREAM - sum(row.state in group for row in rows)
        if states and missing:
            older, _ = client.history.page(missing, following, **{**filters, "states": states})
            rows += older
    now_s, found = time.time(), []
    for row in rows:
        timing = row.timing
        begin_s = row.submitted_s + (timing.queued_us + timing.sent_us) / 1e6
        run_s = (timing.compile_us + timing.run_us) / 1e6
        if row.state is TaskState.RUNNING:
            run_s = max(0.0, now_s - begin_s)
        elif not (row.worker and timing.run_us):
            begin_s = 0.0
        kind = row.name or row.engine
        found.append(TaskRun(row.id, kind, row.state, row.worker, begin_s, run_s))
    return found


class TaskStreams:
    """Task streams of the last period, each asked for once by a token and its filters: pages that
    ask meanwhile get the same answer. Used from the event loop."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._answers: dict[object, tuple[float, asyncio.Task[list[TaskRun]]]] = {}

    async def of(self, caller: Caller, filters: dict[str, Any]) -> list[TaskRun]:
        """Return the stream, at most PERIOD_S old. Raises what `Gateway.call` raises."""
        now_s = time.monotonic()
        for key, (asked_s, answer) in list(self._answers.items()):
            if answer.done() and now_s - asked_s >= PERIOD_S:
                del self._answers[key]
        key = caller.user, caller.role, caller.token, repr(filters)
        if key not in self._answers:
            asked = asyncio.ensure_future(self._gateway.call(caller, stream_of, filters))
            self._answers[key] = now_s, asked
        # A page that is closed meanwhile ends no other page's request.
        return await asyncio.shield(self._answers[key][1])


class DevicePositions(msgspec.Struct, frozen=True):
    """Places of the qubits of a device in a drawing: x to the right, y down; coupled qubits are
    about 1 apart."""

    positions: list[tuple[float, float]]


def _laid_out(count: int, coupling: tuple[tuple[int, int], ...]) -> DevicePositions:
    laid_out = coupling if count <= MAX_LAID_OUT else ()
    places = lattice.positions(count, laid_out).round(3).tolist()
    return DevicePositions([(x, y) for x, y in places])


class _Layouts:
    """The layouts asked for last. Each is computed once, by the first who asks for it; those who
    ask meanwhile wait for this layout, and for no other."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # of the table; never held during a computation
        self._layouts: OrderedDict[object, Future[DevicePositions]] = OrderedDict()

    def of(self, count: int, coupling: tuple[tuple[int, int], ...]) -> DevicePositions:
        key = count, coupling
        with self._lock:
            found = self._layouts.get(key)
            layout = self._layouts[key] = found or Future()
            self._layouts.move_to_end(key)
            if len(self._layouts) > MAX_LAYOUTS:
                self._layouts.popitem(last=False)
        if found is None:
            try:
                layout.set_result(_laid_out(count, coupling))
            except BaseException as error:
                layout.set_exception(error)
                with self._lock:
                    self._layouts.pop(key, None)
                raise
        return layout.result()


_LAYOUTS = _Layouts()


def positions_of(client: Client, name: str) -> DevicePositions:
    """Return the coordinates of a device, else a layout of its couplings, which is computed once,
    of modules side by side; row by row for a large device. Raises NotFoundError."""
    device = client.device(name)
    if device.coordinates:
        return DevicePositions(list(device.coordinates))
    linked = {frozenset(each.pair) for each in device.links}
    inside = tuple(pair for pair in device.coupling if frozenset(pair) not in linked)
    return _LAYOUTS.of(device.num_qubits, inside)


class DrainReason(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Why a node is drained, for other administrators."""

    reason: Annotated[str, msgspec.Meta(max_length=4_096)]


def _checked(node: str) -> str:
    """Return the name of a node, or of a pool. Raises NotFoundError for one that is too long."""
    if len(node) > MAX_NODE_CHARS:
        raise NotFoundError(f"there is no node {node[:80]!r}", hint="GET /api/v1/nodes lists them")
    return node


def routes(gateway: Gateway) -> list[ControllerRouterHandler]:
    """Return the handlers of the page."""
    feeds = Feeds(LiveFeed, gateway)
    streams = TaskStreams(gateway)

    @get("/live", media_type="text/event-stream")
    async def live(caller: TheCaller) -> Stream:
        """Stream the state of the environment every second, as server-sent events `live`."""
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return Stream(feeds.of(caller).events(), media_type="text/event-stream", headers=headers)

    @get("/tasks/{task:str}/operations")
    async def operations(
        caller: TheCaller, task: FromPath[str], limit: OperationLimit = MAX_OPERATIONS
    ) -> TaskOperations:
        """Return the first operations of the program of a task."""
        return await gateway.call(caller, operations_of, task, limit)

    @get("/tasks/{task:str}/pulses")
    async def pulse_drawing(caller: TheCaller, task: FromPath[str]) -> Response[bytes]:
        """Return the register and the pulses of a task's sequence."""
        body = await gateway.call(caller, pulses.drawing_of, task, gateway.sandbox(caller))
        return Response(body, media_type="application/json")

    @post("/tasks/{task:str}/ideal", status_code=202)
    async def ideal(caller: TheCaller, task: FromPath[str]) -> IdealTask:
        """Compute the distribution of a task's program without noise and without sampling, by a
        task that is charged to the caller."""
        return await gateway.call(caller, submit_ideal, task)

    @get("/tasks/{task:str}/bundle")
    async def bundle(
        caller: TheCaller, request: Request[Any, Any, Any], task: FromPath[str]
    ) -> Response[bytes]:
        """Return all that is needed to run a task again, as a .zip archive that `simenv submit`
        takes."""
        body = await gateway.call(caller, bundle_of, task, exchange_of(request))
        name = task_name(number_of(task))
        headers = {"Content-Disposition": f'attachment; filename="{name}.zip"'}
        return Response(body, media_type="application/zip", headers=headers)

    @get("/events/range")
    async def event_range(
        caller: TheCaller,
        since_s: schemas.Moment = 0.0,
        until_s: schemas.Moment = 0.0,
        kind: FromQuery[list[str] | None] = None,
        limit: Annotated[int, QueryParameter(ge=1, le=MAX_EVENTS)] = 100,
    ) -> EventRange:
        """Return the newest events of a range of time, of some kinds."""
        return await gateway.call(caller, events_of, since_s, until_s, kind or [], limit)

    @get("/stream", dependencies={"filters": Provide(task_filters, sync_to_thread=False)})
    async def stream(caller: TheCaller, filters: Filters) -> list[TaskRun]:
        """Return when the newest tasks ran, and on which workers; filters as of `/tasks`."""
        return await streams.of(caller, filters)

    @get("/pools/devices")
    async def pool_devices(caller: TheCaller) -> list[schemas.DeviceDetails]:
        """List the pools as devices, also those without errors."""

        def records(client: Client) -> list[schemas.DeviceDetails]:
            return [
                schemas.record(each, schemas.DeviceDetails) for each in client.devices().values()
            ]

        return await gateway.call(caller, records)

    @get("/positions/{device:str}")
    async def positions(caller: TheCaller, device: FromPath[str]) -> DevicePositions:
        """Return the places of the qubits of a device in a drawing."""
        return await gateway.call(caller, positions_of, device)

    @post("/nodes/{node:str}/drain", status_code=200)
    async def drain(
        caller: TheCaller, request: Request[Any, Any, Any], node: FromPath[str]
    ) -> NodeInfo | PoolInfo:
        """Start nothing more on a node; its running tasks finish. For admins."""
        try:  # read here: only a caller's body is read
            asked = msgspec.json.decode(await request.body(), type=DrainReason)
        except DECODE_ERRORS as error:
            raise OptionError(f"the request: {error!s:.200}", hint='{"reason": "..."}') from error
        return await gateway.call(caller, Client.drain, _checked(node), asked.reason)

    @post("/nodes/{node:str}/undrain", status_code=200)
    async def undrain(caller: TheCaller, node: FromPath[str]) -> NodeInfo | PoolInfo:
        """Use a drained or lost node again, or a quarantined pool. For admins."""
        return await gateway.call(caller, Client.undrain, _checked(node))

    handlers = [
        live, operations, pulse_drawing, ideal, bundle, event_range, stream, pool_devices,
        positions, drain, undrain,
    ]  # fmt: skip
    # Not in the description of the API: they change with the page, whose files are of one version.
    router = Router("/api/v1", route_handlers=handlers, include_in_schema=False)
    return [*site.routes(gateway), router]
