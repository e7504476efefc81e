"""Routes of IBM's quantum compute API, under PREFIX, and of the token service that its clients use.

The word `experimental` in the address keeps qiskit-ibm-runtime from replacing its host. Answers are
those that qiskit-ibm-runtime and the compiled client of QRMI read; errors have that service's form.
"""

from __future__ import annotations

import asyncio
import logging
from time import monotonic, time
from typing import Any
from urllib.parse import parse_qs

import msgspec
from litestar import Request, Response, Router, delete, get, patch, post, put
from litestar.background_tasks import BackgroundTask
from litestar.di import NamedDependency
from litestar.exceptions import HTTPException
from litestar.params import FromPath
from litestar.types import ControllerRouterHandler

from simenv.errors import DECODE_ERRORS, KeyRefusedError, OptionError, SimenvError
from simenv.gateway import limits
from simenv.gateway.context import Caller, Gateway, trace_of
from simenv.gateway.ibm import answers, backends, jobs
from simenv.gateway.ibm.service import ComputeService, checked_tags, selector_of
from simenv.token_buckets import TokenBuckets

PREFIX = "/experimental/api/v1"
VERSIONS = ("2026-04-15", "2026-03-15", "2026-02-15", "2025-05-01", "2025-01-01")
_GRANT = "urn:ibm:params:oauth:grant-type:apikey"
_FORM_BYTES = 4_096
_BODY_BYTES = 64 * 2**10  # of tags and sessions; jobs are bounded by the gateway's settings
_LOG = logging.getLogger("simenv.gateway")
AnyRequest = Request[Any, Any, Any]


def _answer(value: Any, status: int = 200) -> Response[Any]:
    return Response(value, status_code=status, media_type="application/json")


def _text(value: str | bytes) -> Response[bytes]:
    data = value if isinstance(value, bytes) else value.encode()
    return Response(data, media_type="text/plain; charset=utf-8")


def _empty() -> Response[None]:
    return Response(None, status_code=204)


async def _object(request: AnyRequest) -> dict[str, Any]:
    """Body of a request, a JSON object. Raises OptionError."""
    try:
        return msgspec.json.decode(await request.body(), type=dict[str, Any])
    except DECODE_ERRORS as error:
        raise OptionError(f"the body is no JSON object: {error!s:.200}") from error


def _of_simenv(request: AnyRequest, error: SimenvError) -> Response[bytes]:
    status, body = answers.error(error)
    if status >= 500:
        _LOG.warning("%s %s: %s", request.method, request.url.path, error)
    response = _answer(body, status)
    if status in (429, 503):
        response.headers["Retry-After"] = str(max(1, round(getattr(error, "retry_after_s", 1.0))))
    return response


def _of_http(_request: AnyRequest, error: HTTPException) -> Response[bytes]:
    return _answer(answers.error_body(1002, error.detail), error.status_code)


def _of_bug(request: AnyRequest, error: Exception) -> Response[bytes]:
    _LOG.error("%s %s", request.method, request.url.path, exc_info=error)
    return _answer(answers.error_body(9999, "the gateway failed on this request"), 500)


HANDLERS: dict[int | type[Exception], Any] = {
    SimenvError: _of_simenv, HTTPException: _of_http, Exception: _of_bug,
}  # fmt: skip


def routes(
    gateway: Gateway, service: ComputeService | None = None
) -> list[ControllerRouterHandler]:
    """Return the routes. `service`: shared with another API; None: one of its own."""
    service = service or ComputeService(gateway)
    handlers = [
        *_backend_routes(service), *_instance_routes(service), *_job_routes(service),
        *_job_part_routes(service), *_session_routes(service),
    ]  # fmt: skip
    settings: dict[str, Any] = {"exception_handlers": HANDLERS, "include_in_schema": False}
    return [
        Router(PREFIX, route_handlers=handlers, **settings),
        Router("/identity", route_handlers=[_token_route(gateway)], **settings),
    ]


def _token_route(gateway: Gateway) -> Any:
    guesses = TokenBuckets()

    @post("/token", status_code=200)
    async def token(request: AnyRequest) -> Response[bytes]:
        """Exchange an API key, which is a bearer token of simenv, for a JWT."""
        form = parse_qs((await request.body())[:_FORM_BYTES].decode("ascii", "replace"))
        grant, key = (form.get(name, [""])[0] for name in ("grant_type", "apikey"))
        if grant != _GRANT:
            raise OptionError(option="grant_type", value=grant[:80], expected=_GRANT)
        source = limits.source_of(request.scope)
        wait_s = guesses.wait_s(source, limits.GUESSES, monotonic())
        limits.locked_s.set(max(limits.locked_s.get(), wait_s))  # known keys are still exchanged
        try:
            made = await gateway.access_token(key)
        except KeyRefusedError:
            guesses.take(source, limits.GUESSES, monotonic())
            raise
        return _answer(
            {
                "access_token": made.text,
                "refresh_token": "not_supported",
                "token_type": "Bearer",
                "expires_in": made.expires_s - made.issued_s,
                "expiration": made.expires_s,
                "scope": "ibm openid",
            }
        )

    return token


def _backend_routes(service: ComputeService) -> list[Any]:
    @get("/backends")
    async def listing(caller: NamedDependency[Caller]) -> Response[bytes]:
        service.arrived(caller)
        return _answer(await service.backends(caller))

    @get("/backends/{name:str}/configuration")
    async def configuration(
        caller: NamedDependency[Caller], request: AnyRequest, name: FromPath[str]
    ) -> Response[bytes]:
        number = request.query_params.get("calibration_id", "")
        info = await service.calibration(caller, name, number, "")
        return _answer(await asyncio.to_thread(lambda: backends.configuration(name, info)))

    @get("/backends/{name:str}/properties")
    async def properties(
        caller: NamedDependency[Caller], request: AnyRequest, name: FromPath[str]
    ) -> Response[bytes]:
        given = request.query_params
        number, before = given.get("calibration_id", ""), given.get("updated_before", "")
        info = await service.calibration(caller, name, number, before)
        return _answer(await asyncio.to_thread(lambda: backends.properties(name, info) or {}))

    @get("/backends/{name:str}/status")
    async def status(caller: NamedDependency[Caller], name: FromPath[str]) -> Response[bytes]:
        found = await service.backend(caller, name)
        return _answer(backends.status(found.info, found.pool, found.waiting))

    @get("/backends/{name:str}/defaults")
    async def defaults(caller: NamedDependency[Caller], name: FromPath[str]) -> Response[bytes]:
        await service.backend(caller, name)
        return _answer({})  # of pulses, which no backend here has

    return [listing, configuration, properties, status, defaults]


def _instance_routes(service: ComputeService) -> list[Any]:
    @get(["/instances/usage", "/usage"])
    async def usage(caller: NamedDependency[Caller], request: AnyRequest) -> Response[bytes]:
        service.arrived(caller)
        instance = request.headers.get("service-crn", "")
        return _answer({"instance_id": instance} | await service.usage(caller))

    @get(["/instance", "/instances/configuration"])
    async def instance(caller: NamedDependency[Caller]) -> Response[bytes]:
        account = caller.account or "default"
        return _answer({"plan": "simenv", "name": account, "instance": account})

    @get("/versions")
    async def versions() -> Response[bytes]:
        return _answer({"versions": list(VERSIONS)})

    @get("/tags")
    async def tags(caller: NamedDependency[Caller], request: AnyRequest) -> Response[bytes]:
        search = request.query_params.get("search", "")
        return _answer({"tags": await service.gateway.call(caller, jobs.tags, search)})

    @get("/workloads")
    async def workloads(caller: NamedDependency[Caller], request: AnyRequest) -> Response[bytes]:
        given = dict(request.query_params)
        ascending = given.pop("sort", "") in ("createdAt", "created_at")
        given["sort"] = "ASC" if ascending else "DESC"
        given["offset"] = given.get("next") or given.get("previous") or "0"
        query = selector_of(given, request.query_params.getall("tags", []))
        count, found = await service.listed(caller, query)
        return _answer(answers.workloads(found, count, query.limit, query.offset))

    return [usage, instance, versions, tags, workloads]


def _job_routes(service: ComputeService) -> list[Any]:
    @post("/jobs", status_code=200)
    async def submit(caller: NamedDependency[Caller], request: AnyRequest) -> Response[bytes]:
        job = await service.submit(caller, await request.body(), trace_of(request))
        return _answer({"id": job.id, "backend": job.backend, "session_id": job.session or None})

    @get("/jobs")
    async def listing(caller: NamedDependency[Caller], request: AnyRequest) -> Response[bytes]:
        service.arrived(caller)
        tags = request.query_params.getall("tags", [])
        query = selector_of(dict(request.query_params), tags)
        count, found = await service.listed(caller, query)
        page = [answers.job(each) for each in found]
        return _answer(answers.any_list("jobs", page, count, query.limit, query.offset))

    @get("/jobs/{number:str}")
    async def one(
        caller: NamedDependency[Caller], request: AnyRequest, number: FromPath[str]
    ) -> Response[Any]:
        service.arrived(caller)
        job = await service.job(caller, number)
        head = msgspec.json.encode(answers.job(job))
        if request.query_params.get("exclude_params") == "true" or job.private:
            return Response(head, media_type="application/json")
        before = head[:-1] + b',"params":'
        kind = "application/json"
        return await service.stored_answer(caller, number, "params", kind, before, b"}")

    @delete("/jobs/{number:str}", status_code=204)
    async def remove(caller: NamedDependency[Caller], number: FromPath[str]) -> None:
        await service.delete(caller, number)

    @post("/jobs/{number:str}/cancel", status_code=204)
    async def cancel(caller: NamedDependency[Caller], number: FromPath[str]) -> None:
        await service.cancel(caller, number)

    @put("/jobs/{number:str}/tags", request_max_body_size=_BODY_BYTES)
    async def tags(
        caller: NamedDependency[Caller], request: AnyRequest, number: FromPath[str]
    ) -> Response[None]:
        await service.job(caller, number)
        given = await _object(request)
        chosen = checked_tags(given.get("tags"))
        await service.change_tags(caller, number, chosen)
        return _empty()

    return [submit, listing, one, remove, cancel, tags]


def _job_part_routes(service: ComputeService) -> list[Any]:
    @get("/jobs/{number:str}/results")
    async def results(caller: NamedDependency[Caller], number: FromPath[str]) -> Response[Any]:
        job = await service.job(caller, number)
        if job.is_pending:
            return Response(b"", status_code=204)
        if job.status != jobs.COMPLETED:
            return _text(job.reason)
        answer = await service.stored_answer(caller, number, "result", "text/plain; charset=utf-8")
        if job.private:  # it is given once, and again to a client that lost it
            answer.background = BackgroundTask(service.forget_result, caller, number)
        return answer

    @get("/jobs/{number:str}/interim_results")
    async def interim(caller: NamedDependency[Caller], number: FromPath[str]) -> Response[bytes]:
        await service.job(caller, number)
        return _text("")

    @get("/jobs/{number:str}/metrics")
    async def metrics(caller: NamedDependency[Caller], number: FromPath[str]) -> Response[bytes]:
        job = await service.job(caller, number)
        return _answer(answers.metrics(job, await service.forecast(caller, job)))

    @get("/jobs/{number:str}/logs")
    async def logs(caller: NamedDependency[Caller], number: FromPath[str]) -> Response[bytes]:
        job = await service.job(caller, number)
        return _text(answers.logs(job, await service.tasks(caller, job)))

    @get("/jobs/{number:str}/transpiled_circuits")
    async def circuits(caller: NamedDependency[Caller], number: FromPath[str]) -> Response[bytes]:
        job = await service.job(caller, number)
        body = await service.circuits(caller, job)
        return Response(body, media_type="application/json")

    return [results, interim, metrics, logs, circuits]


def _session_routes(service: ComputeService) -> list[Any]:
    @post("/sessions", status_code=200, request_max_body_size=_BODY_BYTES)
    async def opened(caller: NamedDependency[Caller], request: AnyRequest) -> Response[bytes]:
        session = await service.open_session(caller, await request.body())
        return _answer(answers.session(session, time()))

    @get("/sessions/{number:str}")
    async def one(caller: NamedDependency[Caller], number: FromPath[str]) -> Response[bytes]:
        return _answer(answers.session(await service.session(caller, number), time()))

    @patch("/sessions/{number:str}", request_max_body_size=_BODY_BYTES)
    async def changed(
        caller: NamedDependency[Caller], request: AnyRequest, number: FromPath[str]
    ) -> Response[bytes]:
        given = await _object(request)
        if given != {"accepting_jobs": False}:
            raise OptionError(f"{given!s:.80}: a session can only be closed")
        await service.stop_accepting(caller, number)
        return _answer(answers.session(await service.session(caller, number), time()))

    @delete("/sessions/{number:str}/close", status_code=204)
    async def closed(caller: NamedDependency[Caller], number: FromPath[str]) -> None:
        await service.close_session(caller, number)

    return [opened, one, changed, closed]
