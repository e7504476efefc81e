"""Routes of tasks: submission, sweeps, listing, results, cancellation, explanation.

Invariant: a request waits for a result without a thread; a caller's blocking calls are those of
`Gateway.call`, which are bounded.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from contextlib import suppress
from typing import Annotated, Any

import msgspec
from litestar import Request, Response, get, post
from litestar.di import NamedDependency, Provide
from litestar.params import FromPath, FromQuery, HeaderParameter, QueryParameter, SkipValidation

from simenv.client import result_display
from simenv.client.client import Client
from simenv.client.history import row_in, row_question
from simenv.client.result import Result
from simenv.client.submission.calls import CallTask
from simenv.client.tasks.task import Task
from simenv.errors import DECODE_ERRORS, NotFoundError, OptionError, QueueFullError
from simenv.gateway import request_process
from simenv.gateway.context import Caller, Gateway, trace_of
from simenv.gateway.limits import exchange_of
from simenv.gateway.native import programs, results, schemas
from simenv.gateway.native.schemas import MAX_LIST, MAX_WAIT_S, record
from simenv.model import FINAL_STATES, Event, TaskState, decode_program
from simenv.model.calls import is_call
from simenv.model.task_rules import checked_key
from simenv.sandbox.function_process import SandboxProcess
from simenv.wire.messages.history import NEWEST, GetHistory, LogRow

TheGateway = NamedDependency[SkipValidation[Gateway]]
TheCaller = NamedDependency[SkipValidation[Caller]]
TaskId = FromPath[str]
Wait = Annotated[float, QueryParameter(ge=0.0, le=MAX_WAIT_S, description="seconds for the result")]
IdempotencyKey = Annotated[str | None, HeaderParameter(name="Idempotency-Key", max_length=256)]
Limit = Annotated[int, QueryParameter(ge=1, le=MAX_LIST)]
RESULT_S = 10.0  # until the service has sent the result of a task that has ended
MAX_SCANNED_EVENTS = 10_000  # for those of one task


@post("/tasks", status_code=201)
async def submit_task(
    request: Request[Any, Any, Any],
    gateway: TheGateway,
    caller: TheCaller,
    wait: Wait = 0.0,
    idempotency_key: IdempotencyKey = None,
) -> Response[Any]:
    """Submit one task. With `wait`, the answer is the result if it comes in that time (200), else
    the accepted task (202)."""
    form = results.form_of(request.headers.get("accept", "")) if wait else results.JSON
    exchange = exchange_of(request)
    read = await programs.read_request(request, schemas.TaskRequest, waits=True)

    def submit(client: Client) -> Task:
        body, bound = read(client, gateway.sandbox(caller))
        key = _key(idempotency_key)
        return programs.submit(client, body, bound, caller, key, trace_of(request))

    task = await gateway.call(caller, submit)
    headers = {"Location": f"/api/v1/tasks/{task.id}"}
    accepted = schemas.AcceptedTask(task.id, task.name)
    if not wait:
        return Response(accepted, status_code=201, headers=headers)
    try:
        with gateway.holding(caller):
            has_ended = await _has_ended(task, wait)
    except QueueFullError:  # the task was accepted all the same
        headers["Retry-After"] = "1"
        has_ended = False
    if not has_ended:
        return Response(accepted, status_code=202, headers=headers)
    result = _result(task)
    if form == results.JSON and results.is_small(result):
        answer = results.encoded(result, form, exchange)
    else:
        answer = await gateway.call(caller, lambda _: results.encoded(result, form, exchange))
    answer.status_code = 200
    answer.headers |= headers
    return answer


def _result(task: Task) -> Result:
    """Return the result of a task that has ended; that of a call before its value is decoded."""
    return task.details if isinstance(task, CallTask) else task.result(0.0)


def _key(key: str | None) -> str | None:
    return None if key is None else checked_key(key)


@post("/sweeps", status_code=201)
async def submit_sweep(
    request: Request[Any, Any, Any],
    gateway: TheGateway,
    caller: TheCaller,
    idempotency_key: IdempotencyKey = None,
) -> schemas.AcceptedSweep:
    """Submit a sweep: one program with many sets of parameter values."""
    read = await programs.read_request(request, schemas.SweepRequest)

    def submit(client: Client) -> list[Task]:
        body, bound = read(client, gateway.sandbox(caller))
        key = _key(idempotency_key)
        return programs.submit_sweep(client, body, bound, caller, key, trace_of(request))

    tasks = await gateway.call(caller, submit)
    parts: dict[str, list[int]] = {}
    for index, task in enumerate(tasks):
        parts.setdefault(task.id.partition(".")[0], []).append(index)
    listed = [schemas.SweepPart(name, rows[0], len(rows)) for name, rows in parts.items()]
    return schemas.AcceptedSweep(len(tasks), listed)


@post("/explain", status_code=200)
async def explain(
    request: Request[Any, Any, Any], gateway: TheGateway, caller: TheCaller
) -> schemas.ExplanationRecord:
    """Return which engine would run a program, and why no other. Nothing is run."""
    read = await programs.read_request(request, schemas.TaskRequest)

    def ask(client: Client) -> schemas.ExplanationRecord:
        body, bound = read(client, gateway.sandbox(caller))
        return programs.explain(client, body, bound, caller)

    return await gateway.call(caller, ask)


def task_filters(
    states: Annotated[list[TaskState] | None, QueryParameter(name="state")] = None,
    owner: FromQuery[str | None] = None,
    pool: FromQuery[str] = "",
    run_name: FromQuery[str] = "",
    since_s: schemas.Moment = 0.0,
    until_s: Annotated[float | None, QueryParameter(ge=0.0, le=schemas.MAX_TIME_S)] = None,
) -> dict[str, Any]:
    """Return the filters of a list of tasks, as arguments of `TaskHistory.page`."""
    return {
        "states": tuple(states or ()),
        "owner": owner,
        "pool": pool,
        "run_name": run_name,
        "since_s": since_s,
        "until_s": float("inf") if until_s is None else until_s,
    }


Filters = NamedDependency[SkipValidation[dict[str, Any]]]


@get("/tasks", dependencies={"filters": Provide(task_filters, sync_to_thread=False)})
async def list_tasks(
    gateway: TheGateway,
    caller: TheCaller,
    filters: Filters,
    cursor: Annotated[str, QueryParameter(max_length=200)] = "",
    limit: Limit = 100,
) -> schemas.TaskPage:
    """List the caller's tasks, of all users for an admin, newest first. `since_s`, `until_s`:
    submitted between these times (seconds since 1970). `cursor`: `next` of the page before, with
    the same filters."""
    digest = hashlib.blake2b(repr(filters).encode(), digest_size=8).digest()
    before = _position(cursor, digest) if cursor else NEWEST

    def page(client: Client) -> schemas.TaskPage:
        rows, following = client.history.page(limit, before, **filters)
        running = [row.id for row in rows if row.state not in FINAL_STATES]
        infos = {info.id: info for info in client.tasks(running)} if running else {}
        return schemas.TaskPage(
            [_record(row, infos.get(row.id)) for row in rows],
            _cursor(following, digest) if following else "",
        )

    return await gateway.call(caller, page)


class _Cursor(msgspec.Struct, frozen=True, array_like=True):
    format: int
    before: int
    filters: bytes


def _cursor(before: int, filters: bytes) -> str:
    return urlsafe_b64encode(msgspec.msgpack.encode(_Cursor(1, before, filters))).decode()


def _position(cursor: str, filters: bytes) -> int:
    """Return the position that a cursor names. Raises OptionError."""
    try:
        position = msgspec.msgpack.decode(urlsafe_b64decode(cursor.encode()), type=_Cursor)
    except (ValueError, *DECODE_ERRORS) as error:
        raise OptionError(option="cursor", value=cursor, expected="`next` of a page") from error
    if position.format != 1 or not 0 < position.before <= NEWEST or position.filters != filters:
        hint = "a cursor goes with the filters of its page; begin without one"
        raise OptionError(option="cursor", value=cursor, expected=hint)
    return position.before


def _record(row: LogRow, info: Any) -> schemas.TaskDetails:
    """Return the record of a task; `info`: the TaskInfo of one that has not ended."""
    changes: dict[str, Any] = {
        "waits_us": schemas.waits_of(row.timing.waits, row.timing.queued_us + row.timing.sent_us),
    }
    if info is not None:
        if info.wait_us >= 0:
            changes["expected_start_s"] = time.time() + info.wait_us / 1e6
        if info.left_us >= 0:
            changes["expected_end_s"] = time.time() + info.left_us / 1e6
        for name in (
            "progress", "wait_off_by", "wait_age_us", "parked", "reservation", "reason", "outrun",
        ):  # fmt: skip
            changes[name] = getattr(info, name)
    return record(row, schemas.TaskDetails, **changes)


@get("/tasks/{task_id:str}")
async def get_task(gateway: TheGateway, caller: TheCaller, task_id: TaskId) -> schemas.TaskDetails:
    """Return a task with its stages and, before its end, its expected start and pending reason."""
    answer = await gateway.ask(caller, GetHistory(0, **row_question(task_id)))
    row = row_in(answer, task_id)
    infos = [] if row.state in FINAL_STATES else await gateway.call(caller, Client.tasks, [row.id])
    return _record(row, infos[0] if infos else None)


@get("/tasks/{task_id:str}/result")
async def get_result(
    request: Request[Any, Any, Any],
    gateway: TheGateway,
    caller: TheCaller,
    task_id: TaskId,
    wait: Wait = 0.0,
    first: Annotated[int, QueryParameter(ge=0, le=2**63 - 1)] = 0,
    limit: Limit = 100,
) -> Response[Any]:
    """Return the result of a task: as JSON, .npz or HDF5, by `Accept`. A task with several bindings
    gives a page of results, in JSON; each binding, such as `t-8k2f.17`, has a result of its own.
    If there is no result yet after `wait` seconds, the answer is 202 with the task's state."""
    form, exchange = results.form_of(request.headers.get("accept", "")), exchange_of(request)
    task, state = await gateway.call(caller, _task_and_state, task_id)
    if state in FINAL_STATES or not wait:
        has_ended = await _has_ended(task, RESULT_S if state in FINAL_STATES else 0.0)
    else:
        with gateway.holding(caller):
            has_ended = await _has_ended(task, wait)
    if not has_ended:
        accepted = schemas.AcceptedTask(task.id, task.name)
        headers = {"Location": f"/api/v1/tasks/{task.id}", "Retry-After": "1"}
        return Response(accepted, status_code=202, headers=headers)

    def read(_client: Client) -> Response[Any]:
        count = 1 if task.row is not None else task.handle.decode().data.count
        if count == 1:
            return results.encoded(task.result(0.0), form, exchange)
        if form != results.JSON:
            hint = f"one binding, such as {task.id}.0; or Accept: {results.JSON}"
            raise OptionError(f"task {task.id} carries {count} bindings", hint=hint)
        return Response(results.page(task, first, limit, exchange), media_type=form)

    return await gateway.call(caller, read)


def _task_and_state(client: Client, task_id: str) -> tuple[Task, TaskState]:
    task = client.task(task_id)
    return task, task.state


async def _has_ended(task: Task, wait_s: float) -> bool:
    """Wait for the end of a task, at most `wait_s` seconds; return whether it has ended."""
    if wait_s and not task.handle.over:
        with suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                await task.session.bridge.future(task.handle)
    return task.handle.over


@post("/tasks/{task_id:str}/cancel", status_code=200)
async def cancel_task(
    gateway: TheGateway, caller: TheCaller, task_id: TaskId
) -> schemas.Cancellation:
    """Cancel a task. The bindings of one task are cancelled together."""
    (outcome,) = await gateway.call(caller, Client.cancel, [task_id])
    if outcome == "unknown":
        raise NotFoundError(f"no task {task_id[:80]} here", hint="GET /api/v1/tasks lists them")
    return schemas.Cancellation(task_id, outcome)


@get("/tasks/{task_id:str}/receipt")
async def get_receipt(
    gateway: TheGateway, caller: TheCaller, task_id: TaskId
) -> schemas.ReceiptRecord:
    """Return the receipt of an ended task: what it used, and why it waited."""
    receipt = await gateway.call(caller, Client.receipt, task_id)
    waits_us = schemas.waits_of(receipt.waits, receipt.waited_us)
    return record(receipt, schemas.ReceiptRecord, waits_us=waits_us)


@get("/tasks/{task_id:str}/circuit")
async def get_circuit(
    gateway: TheGateway, caller: TheCaller, task_id: TaskId
) -> schemas.TaskCircuit:
    """Return the circuit of a task, as it was sent: sizes, and for a small one its drawing and
    OpenQASM 3."""
    return await gateway.call(caller, _circuit, task_id, gateway.sandbox(caller))


def _circuit(client: Client, task_id: str, sandbox: SandboxProcess) -> schemas.TaskCircuit:
    submitted = client.history.submitted(task_id)
    spec = submitted.spec
    if is_call(submitted.terms):
        text = f"task {task_id} runs no circuit: engine {submitted.terms.engine}"
        raise NotFoundError(text, hint=f"GET /api/v1/tasks/{task_id}/result")
    program = decode_program(spec.program)
    operations = len(program.ops) // 2
    drawing = openqasm3 = ""
    is_small = program.num_qubits <= result_display.MAX_DRAWN_QUBITS
    if is_small and operations <= result_display.MAX_DRAWN_OPERATIONS:
        answer = request_process.call(sandbox, "drawing", msgspec.msgpack.encode(spec))
        drawing, openqasm3 = msgspec.msgpack.decode(answer, type=tuple[str, str])
    return schemas.TaskCircuit(
        program.num_qubits, program.num_clbits, operations, drawing, openqasm3
    )


@get("/tasks/{task_id:str}/events")
async def get_task_events(gateway: TheGateway, caller: TheCaller, task_id: TaskId) -> list[Event]:
    """Return the events of one task, such as the loss of its worker, oldest first."""

    def read(client: Client) -> list[Event]:
        row = client.history.task(task_id, structure=False)
        found: list[Event] = []
        for number, event in enumerate(
            client.events(client.history.events_before(row.submitted_s))
        ):
            if number >= MAX_SCANNED_EVENTS or (row.ended_s and event.time_s > row.ended_s + 60.0):
                break
            if event.subject == row.id:
                found.append(event)
        return found

    return await gateway.call(caller, read)


ROUTES = [
    submit_task, submit_sweep, explain, list_tasks, get_task, get_result, cancel_task, get_receipt,
    get_circuit, get_task_events,
]  # fmt: skip
