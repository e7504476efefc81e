"""Routes of Pasqal's cloud API, under PREFIX, and of the token service that its clients use.

`PREFIX/core-fast` and `PREFIX/account` are the endpoints of pasqal-cloud, PREFIX is the base URL of
QRMI. Answers are those that pasqal-cloud and the compiled client of QRMI read, in JSend's form.
Invariant: a caller sees and changes own batches alone; without a token are the names of types of
devices, their specifications that every environment has, and links of results.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from itertools import groupby
from threading import Lock
from time import monotonic
from typing import Any
from urllib.parse import parse_qs

import msgspec
from litestar import Request, Response, Router, get, patch, post, route
from litestar.di import NamedDependency
from litestar.enums import HttpMethod
from litestar.exceptions import HTTPException
from litestar.params import FromPath
from litestar.types import ControllerRouterHandler

from simenv.client.client import Client
from simenv.client.environment import atom_devices
from simenv.errors import (
    DECODE_ERRORS,
    KeyConflictError,
    KeyRefusedError,
    LimitExceededError,
    NotFoundError,
    OptionError,
    SimenvError,
)
from simenv.gateway import limits, request_process
from simenv.gateway.context import Caller, Gateway, trace_of
from simenv.gateway.pasqal import batches, requests
from simenv.gateway.pasqal.batches import Repeat, StoredBatch
from simenv.gateway.pasqal.links import ResultLinks
from simenv.gateway.problems import status_of
from simenv.model import FINAL_STATES, TaskState
from simenv.model.jobs import JobSelector
from simenv.token_buckets import TokenBuckets

PREFIX = "/pasqal"
MAX_PAGE = 100
MAX_SCANNED = 1_000  # batches whose jobs are looked through for a listing without a batch
MAX_RESULT_BYTES = 32 * 2**20  # of the results of a batch in one answer
_FORM_BYTES = 4_096
_LOG = logging.getLogger("simenv.gateway")
AnyRequest = Request[Any, Any, Any]
TheCaller = NamedDependency[Caller]
Part = FromPath[str]
Plain = dict[str, Any]


def _answer(data: Any, status: int = 200, **more: Any) -> Response[Any]:
    body = {"status": "success", "message": "OK", "code": str(status), "data": data, **more}
    return Response(body, status_code=status, media_type="application/json")


def _error(status: int, code: str, text: str, retry_s: float = 0.0) -> Response[Any]:
    body = {"status": "error", "code": code, "message": text, "data": {"description": text}}
    # The token service's form, which pasqal-cloud reads after a refused login.
    body |= {"error": code, "error_description": text}
    headers = {"Retry-After": str(max(1, round(retry_s)))} if retry_s else {}
    return Response(body, status_code=status, media_type="application/json", headers=headers)


def _of_simenv(request: AnyRequest, error: SimenvError) -> Response[Any]:
    status = status_of(error)
    if status >= 500:
        _LOG.warning("%s %s: %s", request.method, request.url.path, error)
    wait_s = getattr(error, "retry_after_s", 1.0) if status in (429, 503) else 0.0
    text = f"{error.message}; {error.hint}" if error.hint else error.message
    return _error(status, error.code, text, wait_s)


def _of_http(_request: AnyRequest, error: HTTPException) -> Response[Any]:
    return _error(error.status_code, "invalid_input", error.detail)


def _of_bug(request: AnyRequest, error: Exception) -> Response[Any]:
    _LOG.error("%s %s", request.method, request.url.path, exc_info=error)
    return _error(500, "internal_error", "the gateway failed on this request")


HANDLERS: dict[int | type[Exception], Any] = {
    SimenvError: _of_simenv, HTTPException: _of_http, Exception: _of_bug,
}  # fmt: skip


def routes(gateway: Gateway) -> list[ControllerRouterHandler]:
    """Return the routes."""
    service = PasqalService(gateway)
    core = [
        *_batch_routes(service), *_change_routes(service), *_job_routes(service),
        *_device_routes(service), *_refused_routes(),
    ]  # fmt: skip
    settings: dict[str, Any] = {"exception_handlers": HANDLERS, "include_in_schema": False}
    return [
        Router(f"{PREFIX}/core-fast/api", route_handlers=core, **settings),
        Router(PREFIX, route_handlers=_account_routes(service), **settings),
    ]


class PasqalService:
    """The API over one gateway."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self.links = ResultLinks()
        self.guesses = TokenBuckets()
        self._devices: dict[str, str] | None = None
        self._reading = Lock()  # so that many callers without a token start one process
        self._arrived: set[str] = set()  # users

    async def call(self, caller: Caller, function: Callable[..., Any], *args: Any) -> Any:
        """As `Gateway.call`; a user's first call completes the batches that a gateway which died
        has left."""
        if caller.user not in self._arrived:
            await self.gateway.call(caller, batches.complete_all)
            self._arrived.add(caller.user)
        return await self.gateway.call(caller, function, *args)

    def of_pulser(self) -> dict[str, str]:
        """Return abstract representations of devices that every environment has, by name.
        Blocks."""
        with self._reading:
            if self._devices is None:
                sandbox = request_process.request_sandbox()
                try:
                    pairs = request_process.call(sandbox, "pasqal_devices", b"")
                finally:
                    sandbox.close()
                self._devices = dict(msgspec.msgpack.decode(pairs, type=list[tuple[str, str]]))
            return self._devices

    def devices(self, client: Client) -> dict[str, str]:
        """Return those and the devices of the environment, under its names. Blocks."""
        own = {name: info.analog for name, info in atom_devices(client).items()}
        renamed = {
            name: msgspec.json.encode(msgspec.json.decode(found.device) | {"name": name}).decode()
            for name, found in own.items()
            if found is not None
        }
        return self.of_pulser() | renamed

    def result(self, client: Client, caller: Caller, job_id: str) -> bytes | None:
        """Return the result of a job as it is downloaded; None: it is not done. Blocks."""
        batch_id, place = batches.place_of(job_id)
        batch = batches.find(client, batch_id)
        if _state(batch, job_id, place) is not TaskState.DONE:
            return None
        return self.result_of(client, caller, batch, place, batches.texts(client, batch)[1])

    def result_of(
        self, client: Client, caller: Caller, batch: StoredBatch, place: int, config: str
    ) -> bytes:
        """Return the result of a job that is done. `config`: of the batch. Blocks."""
        value = client.task(batch.record.tasks[place][0]).result(10.0).value
        sandbox = self.gateway.sandbox(caller)
        return request_process.call(sandbox, "pasqal_result", value, config)


def _state(batch: StoredBatch, job_id: str, place: int) -> TaskState:
    if not 0 <= place < len(batch.states):
        raise NotFoundError(f"no job {job_id[:80]!r} here")
    return batch.states[place]


# Forms of batches and jobs.


def _date(time_s: float) -> str:
    return datetime.fromtimestamp(time_s, UTC).isoformat()


def _batch(batch: StoredBatch, caller: Caller, **more: Any) -> Plain:
    record = batch.record
    return {
        "id": batch.id,
        "project_id": batch.project,
        "user_id": caller.user or "own",
        "device_type": batch.device_type,
        "status": batch.status,
        "open": batch.is_open,
        "complete": not batch.is_open,
        "created_at": _date(record.created_s),
        "updated_at": _date(record.ended_s or record.created_s),
        "tags": batch.tags,
        "jobs_count": len(batch.states),
        "jobs_count_per_status": batch.counts,
        "job_ids": batch.job_ids,
        "webhook": None,
        "parent_id": None,
        **more,
    }


def _whole_batch(client: Client, batch: StoredBatch, caller: Caller) -> Plain:
    """Return a batch with its sequence and its configuration."""
    sequence, config = batches.texts(client, batch)
    more = {"sequence_builder": sequence or None, "backend_configuration": config or None}
    return _batch(batch, caller, **more)


def _jobs(client: Client, batch: StoredBatch, places: Iterable[int]) -> list[Plain]:
    """Return jobs of a batch."""
    lines, ids = batches.job_lines(client, batch), batch.job_ids
    return [_job(client, batch, place, ids[place], lines[place]) for place in places]


def _job(client: Client, batch: StoredBatch, place: int, number: str, line: Plain) -> Plain:
    state, task = batch.states[place], batch.record.tasks[place][0]
    created_s = batch.record.created_s
    begun = ended = None
    errors: list[str] = []
    try:
        row = client.history.task(task, structure=False)
        created_s = row.submitted_s
        if state in FINAL_STATES:
            ended = _date(row.ended_s)
            begun = _date(row.ended_s - 1e-6 * row.timing.run_us)
        if state in (TaskState.FAILED, TaskState.EXPIRED):
            errors = [str(client.task(task).exception(0.0))]
    except SimenvError as error:  # it was removed
        errors = [error.message]
    return {
        "id": number,
        "batch_id": batch.id,
        "project_id": batch.project,
        "status": batches.STATUS[state],
        "runs": line["runs"],
        "variables": line["variables"],
        "created_at": _date(created_s),
        "updated_at": ended or _date(created_s),
        "start_timestamp": begun,
        "end_timestamp": ended,
        "errors": errors or None,
        "parent_id": None,
    }


def _page(request: AnyRequest) -> tuple[int, int]:
    """Return offset and limit of a listing. Raises OptionError."""
    given = request.query_params
    return (
        _number("offset", given.get("offset", "0"), 0, 10**9),
        _number("limit", given.get("limit", str(MAX_PAGE)), 1, MAX_PAGE),
    )


def _number(name: str, text: str, least: int, most: int) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 12) or not (
        least <= int(text) <= most
    ):
        raise OptionError(option=name, value=text[:80], expected=f"{least} to {most}")
    return int(text)


def _filters(request: AnyRequest, known: Iterable[str]) -> dict[str, list[str]]:
    """Return the filters of a listing. Raises OptionError for one that would have no effect."""
    others = ("offset", "limit", "order_by", "order_by_direction")
    found: dict[str, list[str]] = {}
    for name, value in request.query_params.multi_items():
        if name in others or value in ("", "None"):
            continue
        if name not in known:
            raise OptionError(f"the filter {name[:64]!r}", hint=f"there are {', '.join(known)}")
        found.setdefault(name, []).append(str(value)[:320])
    return found


def _pages(total: int, offset: int, count: int) -> Plain:
    return {"total": total, "start": offset, "offset": offset, "end": offset + count}


# Batches.


def _batch_routes(service: PasqalService) -> list[Any]:
    @post("/v1/batches", status_code=200)
    async def create(caller: TheCaller, request: AnyRequest) -> Response[Any]:
        encoding, body = request.headers.get("content-encoding", ""), await request.body()
        sandbox, trace = service.gateway.sandbox(caller), trace_of(request)
        key = request.headers.get("idempotency-key")

        def added(client: Client) -> Plain:
            repeat = Repeat.of(key, lambda: requests.unpacked(body, encoding))
            devices = msgspec.msgpack.encode(atom_devices(client))
            answer = request_process.call(sandbox, "pasqal_batch", body, (encoding, devices))
            packed = msgspec.msgpack.decode(answer, type=requests.PackedBatch)
            batch = batches.add(client, packed, caller, trace, repeat)
            return _batch(batch, caller, sequence_builder=packed.sequence or None)

        return _answer(await service.call(caller, added))

    @get("/v1/batches")
    async def listing(caller: TheCaller, request: AnyRequest) -> Response[Any]:
        filters = _filters(request, ("id", "status", "device_type", "open", "tag", "project_id"))
        offset, limit = _page(request)

        def page(client: Client) -> tuple[list[Plain], int]:
            labels = [f"device={name}" for name in filters.get("device_type", [])]
            labels += [f"tag={tag}" for tag in filters.get("tag", [])]
            open_ = filters.get("open", [""])[0].lower()
            is_open = {"true": True, "false": False}.get(open_)
            selected = JobSelector((batches.KIND,), tuple(labels), is_open)
            scans = filters.keys() & {"id", "status", "project_id"}
            if not scans:
                selected = msgspec.structs.replace(selected, offset=offset, limit=limit)
                found, count = batches.listed(client, selected)
                return [_batch(each, caller) for each in found], count
            found, _ = batches.listed(client, msgspec.structs.replace(selected, limit=MAX_SCANNED))
            wanted = [
                each
                for each in found
                if each.id in filters.get("id", [each.id])
                and each.status in filters.get("status", [each.status])
                and each.project in filters.get("project_id", [each.project])
            ]
            return [_batch(each, caller) for each in wanted[offset : offset + limit]], len(wanted)

        rows, total = await service.call(caller, page)
        return _answer(rows, pagination=_pages(total, offset, len(rows)))

    @get("/v2/batches/{number:str}")
    async def one(caller: TheCaller, number: Part) -> Response[Any]:
        def read(client: Client) -> Plain:
            return _whole_batch(client, batches.find(client, number), caller)

        return _answer(await service.call(caller, read))

    @get("/v1/batches/{number:str}/status")
    async def status(caller: TheCaller, number: Part) -> Response[Any]:
        batch = await service.call(caller, batches.find, number)
        found = {"id": batch.id, "status": batch.status, "jobs_count_per_status": batch.counts}
        return _answer(found)

    @get("/v1/batches/{number:str}/full_results")
    async def full_results(caller: TheCaller, number: Part) -> Response[Any]:
        """Results of all jobs of a batch, for QRMI, which has one in each."""

        def read(client: Client) -> dict[str, msgspec.Raw]:
            batch = batches.find(client, number)
            _, config = batches.texts(client, batch)
            found: dict[str, msgspec.Raw] = {}
            left = MAX_RESULT_BYTES
            for place, job in enumerate(batch.job_ids):
                if batch.states[place] is not TaskState.DONE:
                    continue
                data = service.result_of(client, caller, batch, place, config)
                left -= len(data)
                if left < 0:
                    text = f"the results of {len(batch.job_ids)} jobs take more than"
                    text += f" {MAX_RESULT_BYTES} bytes, the limit of one answer"
                    raise LimitExceededError(text, hint="GET jobs/ID/results_link, one by one")
                found[job] = msgspec.Raw(data)
            return found

        return _answer(await service.call(caller, read))

    return [create, listing, one, status, full_results]


def _change_routes(service: PasqalService) -> list[Any]:
    @post("/v2/batches/{number:str}/jobs", status_code=200)
    async def add_jobs(caller: TheCaller, request: AnyRequest, number: Part) -> Response[Any]:
        encoding, body = request.headers.get("content-encoding", ""), await request.body()
        sandbox, trace = service.gateway.sandbox(caller), trace_of(request)
        key = request.headers.get("idempotency-key")

        def added(client: Client) -> Plain:
            repeat = Repeat.of(key, lambda: requests.unpacked(body, encoding))
            batch = batches.find(client, number)
            if batches.was_added(batch, repeat):
                return _batch(batch, caller)
            if not batch.is_open:
                raise KeyConflictError(f"batch {number} is closed", hint="make another batch")
            device = atom_devices(client).get(batch.device_type)
            sequence, config = batches.texts(client, batch)
            known = requests.AddedJobs(
                batch.device_type, sequence, config, len(batch.states), device
            )
            head = (encoding, msgspec.msgpack.encode(known))
            answer = request_process.call(sandbox, "pasqal_jobs", body, head)
            jobs = msgspec.msgpack.decode(answer, type=list[requests.PackedJob])
            return _batch(batches.add_jobs(client, batch, jobs, caller, trace, repeat), caller)

        return _answer(await service.call(caller, added))

    @patch("/v2/batches/{number:str}/complete")
    async def close(caller: TheCaller, number: Part) -> Response[Any]:
        return _answer(_batch(await service.call(caller, batches.close, number), caller))

    @patch("/v2/batches/{number:str}/cancel")
    async def cancel(caller: TheCaller, number: Part) -> Response[Any]:
        def cancelled(client: Client) -> StoredBatch:
            return batches.cancel(client, batches.find(client, number))

        return _answer(_batch(await service.call(caller, cancelled), caller))

    @patch("/v1/batches/cancel")
    async def cancel_many(caller: TheCaller, request: AnyRequest) -> Response[Any]:
        asked = await _json(request, dict[str, list[str]])

        def cancelled(client: Client) -> Plain:
            found, errors = [], {}
            for number in asked.get("batch_ids", [])[:MAX_PAGE]:
                try:
                    done = batches.cancel(client, batches.find(client, number))
                    found.append(_batch(done, caller))
                except NotFoundError as error:
                    errors[number] = error.message
            return {"batches": found, "errors": errors}

        return _answer(await service.call(caller, cancelled))

    @patch("/v2/batches/{number:str}/cancel/jobs")
    async def cancel_jobs(caller: TheCaller, request: AnyRequest, number: Part) -> Response[Any]:
        wanted = _filters(request, ("id",)).get("id")

        def cancelled(client: Client) -> Plain:
            batch = batches.find(client, number)
            places = [
                place
                for place, job in enumerate(batch.job_ids)
                if batch.states[place] not in FINAL_STATES and (wanted is None or job in wanted)
            ]
            batch = batches.cancel(client, batch, places)
            return {"jobs": _jobs(client, batch, places[:MAX_PAGE]), "errors": {}}

        return _answer(await service.call(caller, cancelled))

    @patch("/v1/batches/{number:str}/tags")
    async def tags(caller: TheCaller, request: AnyRequest, number: Part) -> Response[Any]:
        wanted = await _json(request, list[str])
        requests.check_tags(wanted)
        changed = await service.call(caller, batches.set_tags, number, wanted)
        return _answer(_batch(changed, caller))

    return [add_jobs, close, cancel, cancel_many, cancel_jobs, tags]


async def _json(request: AnyRequest, kind: Any) -> Any:
    """Decode a small body. Raises OptionError."""
    body = await request.body()
    if len(body) > request_process.SMALL_BYTES:
        raise OptionError(f"a body of {len(body)} bytes", hint=f"{request_process.SMALL_BYTES}")
    try:
        return msgspec.json.decode(body, type=kind)
    except DECODE_ERRORS as error:
        raise OptionError(f"the body: {error!s:.200}") from error


# Jobs and their results.


def _job_routes(service: PasqalService) -> list[Any]:
    @get("/v2/jobs")
    async def listing(caller: TheCaller, request: AnyRequest) -> Response[Any]:
        filters = _filters(request, ("id", "batch_id", "status", "project_id"))
        offset, limit = _page(request)

        def page(client: Client) -> tuple[list[Plain], int]:
            wanted = [place for batch in chosen(client) for place in places(batch)]
            rows: list[Plain] = []
            of_page = wanted[offset : offset + limit]
            for _, group in groupby(of_page, key=lambda each: each[0].id):
                each = list(group)  # a batch's variables are read once
                rows += _jobs(client, each[0][0], [place for _, place in each])
            return rows, len(wanted)

        def chosen(client: Client) -> list[StoredBatch]:
            given = filters.get("batch_id")
            given = given or [batches.place_of(job)[0] for job in filters.get("id", [])]
            if given:
                return [batches.find(client, number) for number in dict.fromkeys(given)]
            selector = JobSelector((batches.KIND,), limit=MAX_SCANNED)
            return batches.listed(client, selector)[0]

        def places(batch: StoredBatch) -> list[tuple[StoredBatch, int]]:
            return [
                (batch, place)
                for place, (job, state) in enumerate(zip(batch.job_ids, batch.states, strict=True))
                if job in filters.get("id", [job])
                and batches.STATUS[state] in filters.get("status", [batches.STATUS[state]])
                and batch.project in filters.get("project_id", [batch.project])
            ]

        rows, total = await service.call(caller, page)
        return _answer(rows, pagination=_pages(total, offset, len(rows)))

    def read(client: Client, number: str) -> Plain:
        batch_id, place = batches.place_of(number)
        batch = batches.find(client, batch_id)
        _state(batch, number, place)
        (job,) = _jobs(client, batch, [place])
        return job

    @get("/v2/jobs/{number:str}")
    async def one(caller: TheCaller, number: Part) -> Response[Any]:
        def whole(client: Client) -> Plain:
            batch_id, place = batches.place_of(number)
            job = read(client, number)
            task = batches.find(client, batch_id).record.tasks[place][0]
            return job | {"sequence": batches.sequence_of(client, task)}

        return _answer(await service.call(caller, whole))

    @get("/v1/jobs/{number:str}/status")
    async def status(caller: TheCaller, number: Part) -> Response[Any]:
        job = await service.call(caller, read, number)
        return _answer({"id": number, "status": job["status"]})

    @get("/v1/jobs/{number:str}/results_link")
    async def link(caller: TheCaller, request: AnyRequest, number: Part) -> Response[Any]:
        data = await service.call(caller, service.result, caller, number)
        if data is None:
            return _answer({"results_link": None})
        secret = service.links.add(caller.user, data)
        base = str(request.base_url).rstrip("/")
        return _answer({"results_link": f"{base}{PREFIX}/results/{secret}"})

    @patch("/v2/jobs/{number:str}/cancel")
    async def cancel(caller: TheCaller, number: Part) -> Response[Any]:
        def cancelled(client: Client) -> Plain:
            batch_id, place = batches.place_of(number)
            batch = batches.find(client, batch_id)
            if _state(batch, number, place) in FINAL_STATES:
                text = f"job {number} is {batches.STATUS[batch.states[place]]}"
                raise KeyConflictError(text, hint="it has ended")
            batches.cancel(client, batch, [place])
            return read(client, number)

        return _answer(await service.call(caller, cancelled))

    return [listing, one, status, link, cancel]


# Devices, and what is not here.


def _device_routes(service: PasqalService) -> list[Any]:
    async def specs(caller: Caller) -> dict[str, str]:
        found: dict[str, str] = await service.call(caller, service.devices)
        return found

    @get("/v1/devices")
    async def availability(request: AnyRequest) -> Response[Any]:
        """Without a token, as QRMI asks."""
        wanted = request.query_params.get("device_type", "").upper()
        found = [name for name in requests.TYPES if wanted in ("", name)]
        up = {"status": "UP", "availability": "ACTIVE"}
        return _answer([{"device_type": name, **up} for name in found])

    @get("/v1/devices/specs")
    async def of_caller(caller: TheCaller) -> Response[Any]:
        return _answer(await specs(caller))

    @get("/v1/devices/specs/{name:str}")
    async def by_name(caller: TheCaller, name: Part) -> Response[Any]:
        found = await specs(caller)
        if name not in found:
            raise NotFoundError(f"no device {name[:80]!r}", hint=f"there are {', '.join(found)}")
        return _answer({"device_type": name, "specs": found[name]})

    @get("/v1/devices/public-specs", sync_to_thread=True)
    def public() -> Response[Any]:
        found = service.of_pulser()
        return _answer([{"device_type": name, "specs": text} for name, text in found.items()])

    return [availability, of_caller, by_name, public]


def _refused_routes() -> list[Any]:
    methods = (HttpMethod.GET, HttpMethod.POST, HttpMethod.PUT, HttpMethod.PATCH)

    @route(["/v1/workloads", "/v2/workloads/{rest:path}", "/v1/workloads/{rest:path}"],
           http_method=methods)  # fmt: skip
    async def workloads(caller: TheCaller) -> None:  # noqa: ARG001
        raise OptionError("workloads are not run here", hint="sequences, in batches of jobs")

    @route(["/v1/cudaq/job", "/v1/cudaq/job/{rest:path}"], http_method=methods)
    async def cudaq(caller: TheCaller) -> None:  # noqa: ARG001
        text = "programs of CUDA-Q's Hamiltonians are not read here"
        raise OptionError(text, hint="the text of pulser's Sequence.to_abstract_repr()")

    @post("/v1/batches/{number:str}/rebatch")
    async def rebatch(caller: TheCaller, number: Part) -> None:  # noqa: ARG001
        raise OptionError("batches are not repeated here", hint="submit the sequence again")

    return [workloads, cudaq, rebatch]


def _account_routes(service: PasqalService) -> list[Any]:
    @post("/oauth/token", status_code=200)
    async def token(request: AnyRequest) -> Response[Any]:
        """Exchange a bearer token of simenv, as a user's password or as the secret of a service
        account, for a JWT."""
        form = parse_qs((await request.body())[:_FORM_BYTES].decode("ascii", "replace"))
        key = (form.get("password") or form.get("client_secret") or [""])[0]
        source = limits.source_of(request.scope)
        wait_s = service.guesses.wait_s(source, limits.GUESSES, monotonic())
        limits.locked_s.set(max(limits.locked_s.get(), wait_s))  # known keys are still exchanged
        try:
            made = await service.gateway.access_token(key)
        except KeyRefusedError:
            service.guesses.take(source, limits.GUESSES, monotonic())
            raise
        body = {
            "access_token": made.text,
            "token_type": "Bearer",
            "expires_in": made.expires_s - made.issued_s,
        }
        return Response(body, media_type="application/json")

    @get("/account/api/v1/projects")
    async def projects(caller: TheCaller) -> Response[Any]:
        name = caller.account or service.gateway.environment
        return _answer([{"id": name, "name": name, "status": "ACTIVE"}])

    @get("/results/{secret:str}")
    async def result(secret: Part) -> Response[Any]:
        """Without a token: the link has one."""
        data = service.links.get(secret)
        if data is None:
            raise NotFoundError("this link has ended", hint="ask for another one: results_link")
        return Response(data, media_type="application/json")

    return [token, projects, result]
