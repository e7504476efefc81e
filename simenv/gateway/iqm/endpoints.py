"""Routes of IQM's server API, under PREFIX: quantum computers, calibration sets and jobs.

iqm-client takes no path in the address of a server, so these routes stand beside those of simenv's
own API. Answers are those that iqm-client and the compiled client of QRMI read; errors have that
API's form. Invariant: a caller sees and changes own jobs alone.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from http import HTTPStatus
from time import monotonic, time
from typing import Any

from litestar import Request, Response, Router, delete, get, post
from litestar.di import NamedDependency
from litestar.exceptions import HTTPException
from litestar.params import FromPath
from litestar.types import ControllerRouterHandler

from simenv import errors
from simenv._version import __version__
from simenv.client.client import Client
from simenv.client.environment import stored_devices
from simenv.errors import NotFoundError, OptionError, SimenvError
from simenv.gateway.context import Caller, trace_of
from simenv.gateway.ibm import jobs
from simenv.gateway.ibm.backends import MAX_CIRCUITS, Backend, Plain, date_of
from simenv.gateway.ibm.jobs import Job
from simenv.gateway.ibm.service import ComputeService
from simenv.gateway.iqm import architecture, job_request
from simenv.gateway.problems import status_of
from simenv.model.devices import DeviceInfo
from simenv.model.views import PoolInfo

PREFIX = "/api/v1"
MAX_TAG_CHARS = 100
# A request with `wait_until_terminal` is answered after this time at the latest. QRMI sends one
# before it cancels a job.
HOLD_S = 5.0
_LOOK_S = 0.2  # interval in which a held request looks at its job
ARTIFACTS = ("measurements", "measurement_counts")
_STATUS = {
    jobs.QUEUED: "waiting",
    jobs.RUNNING: "processing",
    jobs.COMPLETED: "completed",
    jobs.CANCELLED: "cancelled",
}
AnyRequest = Request[Any, Any, Any]
TheCaller = NamedDependency[Caller]
Part = FromPath[str]  # of a path


class IqmError(Exception):
    """An error with a code of that API."""

    def __init__(self, status: HTTPStatus, code: str, text: str) -> None:
        super().__init__(text)
        self.status, self.code = status, code


def _not_found(code: str, text: str) -> IqmError:
    return IqmError(HTTPStatus.NOT_FOUND, code, text)


# Codes of errors by class; the first that fits.
_CODES: tuple[tuple[type[SimenvError], HTTPStatus, str], ...] = (
    (errors.KeyRefusedError, HTTPStatus.UNAUTHORIZED, "unauthorized"),
    (errors.NotAllowedError, HTTPStatus.FORBIDDEN, "forbidden"),
    (errors.LimitExceededError, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "request_payload_too_large"),
    (errors.QueueFullError, HTTPStatus.TOO_MANY_REQUESTS, "rate_limit_exceeded"),
    (errors.InsufficientError, HTTPStatus.FORBIDDEN, "not_enough_credits"),
    (errors.KeyConflictError, HTTPStatus.FORBIDDEN, "illegal_job_status"),
    (errors.OptionError, HTTPStatus.BAD_REQUEST, "invalid_job_payload"),
    (errors.ProgramError, HTTPStatus.BAD_REQUEST, "invalid_job_payload"),
)


def _answer(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response[Any]:
    return Response(value, status_code=status, media_type="application/json", headers=headers or {})


def _error(status: int, code: str, text: str, retry_s: float = 0.0) -> Response[bytes]:
    body = {"error_code": code, "message": text, "request_id": str(uuid.uuid4())}
    headers = {"Retry-After": str(max(1, round(retry_s)))} if retry_s else {}
    return _answer(body | {"source": "iqm-server"}, status, headers)


def _of_iqm(_request: AnyRequest, error: IqmError) -> Response[bytes]:
    return _error(error.status, error.code, str(error))


def _of_simenv(_request: AnyRequest, error: SimenvError) -> Response[bytes]:
    fallback = type(error), status_of(error), error.code
    _, status, code = next((row for row in _CODES if isinstance(error, row[0])), fallback)
    retries = status in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)
    wait_s = getattr(error, "retry_after_s", 1.0) if retries else 0.0
    return _error(status, code, str(error), wait_s)


def _of_http(_request: AnyRequest, error: HTTPException) -> Response[bytes]:
    return _error(error.status_code, "invalid_input", error.detail)


def _of_bug(request: AnyRequest, error: Exception) -> Response[bytes]:
    log = logging.getLogger("simenv.gateway")
    log.error("%s %s", request.method, request.url.path, exc_info=error)
    return _error(500, "internal_error", "the gateway failed on this request")


HANDLERS: dict[int | type[Exception], Any] = {
    IqmError: _of_iqm, SimenvError: _of_simenv, HTTPException: _of_http, Exception: _of_bug,
}  # fmt: skip


def routes(service: ComputeService) -> list[ControllerRouterHandler]:
    """Return the routes. `service`: has the jobs of all clients of vendors."""
    handlers = [*_computer_routes(service), *_calibration_routes(service), *_job_routes(service)]
    return [
        Router(
            PREFIX, route_handlers=handlers, exception_handlers=HANDLERS, include_in_schema=False
        )
    ]


# Quantum computers.


async def _offered(service: ComputeService, caller: Caller) -> list[str]:
    """Names of the pools and the imported devices that are offered."""

    def read(client: Client) -> list[str]:
        infos = client.devices()
        infos |= stored_devices(client, infos)
        pools = client.pools()
        usable = {name: info for name, info in infos.items() if architecture.is_offered(info)}
        return [name for name in usable if name not in pools or not pools[name].on_demand]

    service.arrived(caller)
    return await service.gateway.call(caller, read)


async def _computer(service: ComputeService, caller: Caller, wanted: str) -> Backend:
    """Return a quantum computer by its alias or number. QRMI writes `a:b` for `a_b`. Raises
    IqmError."""
    name = wanted.replace(":", "_")
    try:
        number = uuid.UUID(wanted)
    except ValueError:
        pass
    else:
        names = await _offered(service, caller)
        name = next((each for each in names if architecture.computer_id(each) == number), wanted)
    try:
        found = await service.backend(caller, name)
    except NotFoundError:
        found = None
    if found is None or not architecture.is_offered(found.info):
        text = f"quantum computer {wanted[:80]!r} not found"
        if found is not None:
            text += f": its native gates are {', '.join(gate.name for gate in found.info.gates)},"
            text += " and circuits of this API need r (PRX) and cz"
        offered = ", ".join((await _offered(service, caller))[:20])
        raise _not_found("qc_not_found", f"{text}; there are: {offered or 'none'}")
    return found


def _is_up(pool: PoolInfo | None) -> bool:
    return pool is None or pool.state in ("up", "starting")


def _limits(info: DeviceInfo) -> Plain:
    return {
        "max_circuits_per_job": MAX_CIRCUITS,
        "max_executions_per_job": MAX_CIRCUITS * info.max_shots,
        "max_instructions_per_circuit": 2**31 - 1,
        "max_shots_per_circuit": info.max_shots,
    }


def _entry(name: str) -> Plain:
    """Entry of the list. `proxy_path` None: no control of pulses."""
    return {
        "id": str(architecture.computer_id(name)),
        "alias": name,
        "display_name": name,
        "station_control_version": __version__,
        "proxy_path": None,
    }


def _details(found: Backend) -> Plain:
    healthy = _is_up(found.pool)
    return _entry(found.name) | {
        "description": f"{found.info.num_qubits} qubits, {found.info.technology}, of simenv",
        "backend_type": "simulator",
        "pulla_enabled": False,
        "limits": _limits(found.info),
        "operational_status": "online" if healthy else "offline",
        "health": _health(found),
        "queue_length": found.waiting,
        "number_of_qubits": architecture.num_qubits(found.info),
        "pricing": {"payg_price_per_second": "0"},
        "additional_info": {
            "academy_url": "",
            "best_suited_for": [],
            "documentation_url": "",
            "mock_url": "",
        },
    }


def _health(found: Backend) -> Plain:
    return {"healthy": _is_up(found.pool), "updated_at": date_of(time())}


def _computer_routes(service: ComputeService) -> list[Any]:
    @get("/about")
    async def about(caller: TheCaller) -> Response[bytes]:
        return _answer({"name": "simenv", "version": __version__, "user": caller.user or "owner"})

    @get("/quantum-computers")
    async def listing(caller: TheCaller) -> Response[bytes]:
        names = await _offered(service, caller)
        return _answer({"quantum_computers": [_entry(name) for name in names]})

    @get("/quantum-computers/{name:str}")
    async def details(caller: TheCaller, name: Part) -> Response[bytes]:
        return _answer(_details(await _computer(service, caller, name)))

    @get("/quantum-computers/{name:str}/health")
    async def health(caller: TheCaller, name: Part) -> Response[bytes]:
        return _answer(_health(await _computer(service, caller, name)))

    @get("/quantum-computers/{name:str}/limits")
    async def limits(caller: TheCaller, name: Part) -> Response[bytes]:
        return _answer(_limits((await _computer(service, caller, name)).info))

    @get("/quantum-computers/{name:str}/queue-availability")
    async def queue(caller: TheCaller, name: Part) -> Response[bytes]:
        found = await _computer(service, caller, name)
        return _answer({"available": [], "queue_length": found.waiting})

    @get("/quantum-computers/{name:str}/artifacts/{kind:str}")
    async def artifact(caller: TheCaller, name: Part, kind: Part) -> Response[bytes]:
        found = await _computer(service, caller, name)
        if kind == "static-quantum-architectures":
            return _answer([architecture.static(found.name, found.info)])
        if kind == "about":
            return _answer({"version": __version__, "software_versions": {}})
        text = f"{found.name!r} has no {kind[:80]!r}: pulses are not controlled here"
        raise _not_found("qc_artifact_not_found", text)

    return [about, listing, details, health, limits, queue, artifact]


def _calibration_routes(service: ComputeService) -> list[Any]:
    async def described(caller: Caller, name: str, wanted: str) -> tuple[str, DeviceInfo]:
        """Return a computer's name and its calibration: the present one, or a recorded one."""
        found = await _computer(service, caller, name)
        name = found.name
        known = [found.info.calibration_id]
        if wanted != "default":
            known += await service.gateway.call(caller, Client.known_calibrations, name)
        for each in known:
            number = str(architecture.calibration_id(name, each))
            if each == found.info.calibration_id and wanted in ("default", number):
                return name, found.info
            if wanted == number:
                return name, await service.calibration(caller, name, each, "")
        text = f"quantum computer {name!r} has no calibration set {wanted[:80]!r}"
        raise _not_found("calibration_set_not_found", text)

    @get("/calibration-sets/{name:str}/{number:str}")
    async def calibration(caller: TheCaller, name: Part, number: Part) -> Response[bytes]:
        found = await described(caller, name, number)
        return _answer(await asyncio.to_thread(lambda: architecture.calibration_set(*found)))

    @get("/calibration-sets/{name:str}/{number:str}/metrics")
    async def metrics(caller: TheCaller, name: Part, number: Part) -> Response[bytes]:
        found = await described(caller, name, number)
        return _answer(await asyncio.to_thread(lambda: architecture.quality_metrics(*found)))

    @get("/calibration-sets/{name:str}/{number:str}/dynamic-quantum-architecture")
    async def dynamic(caller: TheCaller, name: Part, number: Part) -> Response[bytes]:
        found = await described(caller, name, number)
        return _answer(await asyncio.to_thread(lambda: architecture.dynamic(*found)))

    return [calibration, metrics, dynamic]


# Jobs.


def _job(record: Job, position: int | None) -> Plain:
    """A job. `position`: jobs before it; None: not known, or it has begun."""
    status = _STATUS.get(record.status, "failed")
    times = [("created", record.created_s), ("processing", record.started_s)]
    times.append((status, record.ended_s))
    number = architecture.calibration_id(record.backend, record.calibration_id)
    failed = {"error_code": "job_failed", "message": record.reason, "source": "iqm-server"}
    return {
        "id": record.id,
        "type": "circuit",
        "status": status,
        "qc": _entry(record.backend),
        "tag": record.tags[0] if record.tags else None,
        "compilation": {"calibration_set_id": str(number), "execution_runtime_estimate_ms": None},
        "execution": None,
        "runtime_ms": round(1e3 * record.quantum_s) if record.ended_s else None,
        "queue_position": position if status == "waiting" else None,
        "messages": [{"source": "simenv", "message": text} for text in record.warnings],
        "errors": [failed] if status == "failed" else [],
        "timeline": [
            {"source": "iqm-server", "status": event, "timestamp": date_of(time_s)}
            for event, time_s in times
            if time_s
        ],
        "artifacts": [{"type": kind} for kind in ARTIFACTS] if status == "completed" else [],
    }


async def _found_job(service: ComputeService, caller: Caller, number: str) -> Job:
    """Return a job of circuits in its present state. Raises IqmError."""
    service.arrived(caller)
    try:
        job = await service.job(caller, number)
    except NotFoundError as error:
        raise _not_found("job_not_found", f"job {number[:80]!r} not found") from error
    if job.kind != jobs.IQM:
        raise _not_found("job_not_found", f"job {number[:80]!r} is one of another API")
    return job


async def _held(service: ComputeService, caller: Caller, number: str, seconds: float) -> Job:
    """Return a job once it has ended, or after this time."""
    deadline_s = monotonic() + seconds
    job = await _found_job(service, caller, number)
    if not job.is_pending or not seconds:
        return job
    with service.gateway.holding(caller):
        while monotonic() < deadline_s:
            await asyncio.sleep(_LOOK_S)
            job = await _found_job(service, caller, number)
            if not job.is_pending:
                break
    return job


async def _shown(service: ComputeService, caller: Caller, job: Job) -> Plain:
    place = (await service.forecast(caller, job)).position
    return _job(job, None if place is None else place - 1)


async def _submit(service: ComputeService, caller: Caller, name: str, request: AnyRequest) -> Job:
    """Accept a job. Raises IqmError, SimenvError; then nothing was stored."""
    given, body = request.query_params, await request.body()
    if given.get("use_timeslot", "false").lower() == "true":
        text = "use_timeslot: no timeslots are booked here; reserve a pool: client.reserve(POOL)"
        raise IqmError(HTTPStatus.FORBIDDEN, "no_booked_timeslots", text)
    tag = given.get("tag", "")
    if len(tag) > MAX_TAG_CHARS:
        raise OptionError(option="tag", value=tag[:80], expected=f"{MAX_TAG_CHARS} characters")
    found = await _computer(service, caller, name)
    sandbox = service.gateway.sandbox(caller)
    await service.gateway.call(caller, lambda _: job_request.check(sandbox, body, found))
    job = Job(
        str(uuid.uuid4()), caller.user, caller.account, "", found.name,
        tags=(tag,) if tag else (), calibration_id=found.info.calibration_id,
        trace=trace_of(request), reservation=caller.reservation_of(found.name),
    )  # fmt: skip
    job = await service.gateway.call(caller, jobs.add, job, body)
    service.processes.wake(caller)
    return job


def _job_routes(service: ComputeService) -> list[Any]:
    @post("/jobs/{name:str}/{kind:str}", status_code=201)
    async def submit(
        caller: TheCaller,
        request: AnyRequest,
        name: Part,
        kind: Part,
    ) -> Response[bytes]:
        if kind != "circuit":
            text = f"jobs of type {kind[:80]!r} are not run here: pulses are not controlled"
            raise IqmError(HTTPStatus.BAD_REQUEST, "unsupported_job_type", text)
        return _answer(_job(await _submit(service, caller, name, request), None), 201)

    @get("/jobs/{number:str}")
    async def one(caller: TheCaller, request: AnyRequest, number: Part) -> Response[bytes]:
        given = request.query_params
        wanted = given.get("timeout_seconds", "10")
        digits = wanted.isascii() and wanted.isdigit() and len(wanted) <= 4
        if not digits or int(wanted) > 30:
            raise OptionError(option="timeout_seconds", value=wanted[:80], expected="0 to 30")
        holds = given.get("wait_until_terminal", "false").lower() == "true"
        job = await _held(service, caller, number, min(HOLD_S, float(wanted)) if holds else 0.0)
        headers = {"IQM-Long-Poll-Timed-Out": "true"} if holds and job.is_pending else None
        return _answer(await _shown(service, caller, job), headers=headers)

    @get("/jobs/{number:str}/payload")
    async def payload(caller: TheCaller, number: Part) -> Response[Any]:
        job = await _found_job(service, caller, number)
        answer = await service.stored_answer(caller, job.id, "params", "application/json")
        answer.headers["IQM-Job-Type"] = "circuit"
        return answer

    @get("/jobs/{number:str}/artifacts/{kind:str}")
    async def artifact(caller: TheCaller, number: Part, kind: Part) -> Response[Any]:
        job = await _found_job(service, caller, number)
        if job.status != jobs.COMPLETED or kind not in ARTIFACTS:
            text = f"job {number} is {_STATUS.get(job.status, 'failed')}"
            if kind not in ARTIFACTS:
                text += f", and has no artifact {kind[:80]!r}; there are {', '.join(ARTIFACTS)}"
            raise _not_found("job_artifact_not_found", text)
        return await service.stored_answer(caller, job.id, kind, "application/json")

    @post("/jobs/{number:str}/cancel", status_code=200)
    async def cancel(caller: TheCaller, number: Part) -> Response[bytes]:
        await _found_job(service, caller, number)
        await service.cancel(caller, number)
        return _answer(_job(await _found_job(service, caller, number), None))

    @delete("/jobs/{number:str}", status_code=204)
    async def remove(caller: TheCaller, number: Part) -> None:
        await _found_job(service, caller, number)
        await service.delete(caller, number)

    return [submit, one, payload, artifact, cancel, remove]
