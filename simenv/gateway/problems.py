"""Errors as problem documents: RFC 9457, https://www.rfc-editor.org/rfc/rfc9457.

Invariant: whatever a handler raises becomes one `Problem`. It never shows a traceback or a path of
the gateway's host; an exception that is no SimenvError is logged with its traceback.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import msgspec
from litestar import Request, Response
from litestar.exceptions import HTTPException

from simenv import errors
from simenv.text import short_repr

MEDIA_TYPE = "application/problem+json"
MAX_ERRORS = 100  # of a batch that are listed
_LOST_RETRY_S = 5.0  # until a service that does not answer may have been started again

# By class; the first that fits, so subclasses stand before their bases.
_STATUS: tuple[tuple[type[errors.SimenvError], HTTPStatus], ...] = (
    (errors.LimitExceededError, HTTPStatus.REQUEST_ENTITY_TOO_LARGE),
    (errors.InfeasibleError, HTTPStatus.UNPROCESSABLE_ENTITY),
    (errors.QueueFullError, HTTPStatus.TOO_MANY_REQUESTS),
    (errors.InsufficientError, HTTPStatus.SERVICE_UNAVAILABLE),
    (errors.NotReservedError, HTTPStatus.CONFLICT),
    (errors.KeyRefusedError, HTTPStatus.UNAUTHORIZED),
    (errors.NotAllowedError, HTTPStatus.FORBIDDEN),
    (errors.KeyConflictError, HTTPStatus.CONFLICT),
    (errors.NotFoundError, HTTPStatus.NOT_FOUND),
    (errors.NoServiceError, HTTPStatus.SERVICE_UNAVAILABLE),
    (errors.StartFailedError, HTTPStatus.SERVICE_UNAVAILABLE),
    (errors.JournalError, HTTPStatus.SERVICE_UNAVAILABLE),
    (errors.StoreError, HTTPStatus.SERVICE_UNAVAILABLE),
    (errors.VersionMismatchError, HTTPStatus.BAD_GATEWAY),
    (errors.ProtocolError, HTTPStatus.BAD_GATEWAY),
    (errors.TaskFailedError, HTTPStatus.CONFLICT),
    (errors.TaskCancelledError, HTTPStatus.CONFLICT),
    (errors.TaskExpiredError, HTTPStatus.CONFLICT),
    (errors.TimedOutError, HTTPStatus.GATEWAY_TIMEOUT),
)


class Problem(msgspec.Struct, frozen=True, omit_defaults=True):
    """Problem document. `type` and `code` name the class of the error, `detail` the fault with its
    value and limit, `hint` the way out."""

    type: str
    title: str  # text of the HTTP status
    status: int
    detail: str
    code: str  # as `simenv --json` prints it: option, queue_full ...
    hint: str = ""
    retryable: bool = False  # the same request may succeed later
    maybe_accepted: bool = False  # no answer came: the service may have accepted the request
    retry_after_s: float = 0.0  # 0: not known
    option: str = ""  # the option that the error is about
    value: str = ""  # of that option
    line: int = 0  # of the program's text, from 1
    column: int = 0
    index: int = -1  # item of a batch; -1: the request as a whole
    reason: str = ""  # of a failed task: poison, out_of_memory ...
    errors: tuple[Problem, ...] = ()  # of the items of a refused batch


def status_of(error: errors.SimenvError) -> HTTPStatus:
    """Return the HTTP status of an error."""
    if isinstance(error, errors.BatchRefusedError) and error.errors:
        return status_of(error.errors[0])
    for kind, status in _STATUS:
        if isinstance(error, kind):
            return status
    if isinstance(error, errors.OptionError | errors.ProgramError | errors.BatchRefusedError):
        return HTTPStatus.BAD_REQUEST
    return HTTPStatus.INTERNAL_SERVER_ERROR


def problem_of(error: errors.SimenvError) -> Problem:
    """Return the problem document of an error."""
    status = status_of(error)
    retry_after_s = getattr(error, "retry_after_s", 0.0)
    if isinstance(error, errors.NoServiceError):
        retry_after_s = _LOST_RETRY_S
    value = getattr(error, "value", None)
    parts = getattr(error, "errors", ())[:MAX_ERRORS]
    return Problem(
        type=f"urn:simenv:error:{error.code}",
        title=status.phrase,
        status=status.value,
        detail=error.message,
        code=error.code,
        hint=error.hint,
        retryable=error.retryable,
        maybe_accepted=error.maybe_accepted,
        retry_after_s=retry_after_s,
        option=getattr(error, "option", ""),
        value="" if value is None else short_repr(value),
        line=getattr(error, "line", 0),
        column=getattr(error, "column", 0),
        index=error.index,
        reason=getattr(error, "reason", ""),
        errors=tuple(problem_of(each) for each in parts),
    )


def response_of(problem: Problem, headers: Mapping[str, str] | None = None) -> Response[bytes]:
    """Return the HTTP response of a problem document, with Retry-After where it is known."""
    sent = dict(headers or {})
    if problem.retry_after_s:
        sent["Retry-After"] = str(max(1, round(problem.retry_after_s)))
    if problem.status == HTTPStatus.UNAUTHORIZED:
        sent.setdefault("WWW-Authenticate", "Bearer")
    body = msgspec.json.encode(problem)
    return Response(body, media_type=MEDIA_TYPE, status_code=problem.status, headers=sent)


def _of_simenv(_request: Request[Any, Any, Any], error: errors.SimenvError) -> Response[bytes]:
    return response_of(problem_of(error))


def _of_http(_request: Request[Any, Any, Any], error: HTTPException) -> Response[bytes]:
    """Convert an error of the framework: a route, a method or a parameter that does not exist."""
    status = HTTPStatus(error.status_code)
    details = [error.detail or status.phrase]
    extra: Any = error.extra
    if isinstance(extra, list):
        details += [
            f"{each.get('key', '')}: {each.get('message', '')}"
            for each in extra[:MAX_ERRORS]
            if isinstance(each, dict)
        ]
    code = "not_found" if status == HTTPStatus.NOT_FOUND else "option"
    problem = Problem(
        type="about:blank",
        title=status.phrase,
        status=status.value,
        detail="; ".join(details),
        code=code if status < HTTPStatus.INTERNAL_SERVER_ERROR else "error",
        hint="/api/v1/openapi.json describes all requests",
    )
    return response_of(problem, error.headers)


def _of_bug(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    logging.getLogger("simenv.gateway").error(
        "%s %s", request.method, request.url.path, exc_info=error
    )
    status = HTTPStatus.INTERNAL_SERVER_ERROR
    problem = Problem(
        type="about:blank",
        title=status.phrase,
        status=status.value,
        detail="the gateway failed on this request",
        code="error",
        hint="the gateway's log has the reason",
    )
    return response_of(problem)


# For `Litestar(exception_handlers=)`.
EXCEPTION_HANDLERS: dict[int | type[Exception], Any] = {
    errors.SimenvError: _of_simenv,
    HTTPException: _of_http,
    Exception: _of_bug,
}
