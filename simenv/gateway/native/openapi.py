"""The description of the native API: OpenAPI 3.1, made from its routes and structs.

https://spec.openapis.org/oas/v3.1.0. Paths and parameters are those of the routes, as Litestar
describes them; bodies are those of `schemas`, as msgspec describes structs. Other routes under
PREFIX are left out on purpose: those of the page change with it, the stored series are described
with the metrics, and IQM's API is described by its vendor (`tests/compatibility/test_openapi.py`).
"""

from __future__ import annotations

import functools
import gzip
from collections.abc import Sequence
from typing import Any, cast

import msgspec
from litestar import Litestar, Router
from litestar.di import Provide
from litestar.openapi import OpenAPIConfig

from simenv.gateway.native import environment, events, programs, results, schemas, tasks
from simenv.gateway.problems import MEDIA_TYPE, Problem

PREFIX = "/api/v1"
API_VERSION = "1.10"  # grows with each compatible addition
HANDLERS = [*tasks.ROUTES, *environment.ROUTES, *events.ROUTES]
_REFERENCE = "#/components/schemas/{name}"
_REQUESTS: dict[str, type[msgspec.Struct]] = {
    "/tasks": schemas.TaskRequest,
    "/sweeps": schemas.SweepRequest,
    "/explain": schemas.TaskRequest,
    "/reservations": schemas.ReservationBody,
    "/reservations/{number}/renew": schemas.Renewal,
}
_BINARY = {"schema": {"type": "string", "format": "binary"}}
_IDENTIFIER = str.maketrans({"/": "_", "{": "", "}": ""})  # generators name functions by it
_DESCRIPTION = """Circuits in, counts out. Every request carries `Authorization: Bearer TOKEN`.
Errors are problem documents (RFC 9457). Refusals that a later request may pass have Retry-After."""


def document(handlers: Sequence[Any]) -> dict[str, Any]:
    """Return the description of these routes."""
    config = OpenAPIConfig(
        title="simenv", version=API_VERSION, description=_DESCRIPTION, use_handler_docstrings=True
    )
    names = ("gateway", "feeds", "caller")
    provided = {name: Provide(lambda: None, sync_to_thread=False) for name in names}
    router = Router(PREFIX, route_handlers=list(handlers), dependencies=provided)
    app = Litestar([router], openapi_config=config, logging_config=None)
    described: dict[str, Any] = app.openapi_schema.to_schema()
    types = [
        Problem,
        schemas.AcceptedTask,
        schemas.ResultRecord,
        schemas.ResultPage,
        *_REQUESTS.values(),
    ]
    _, components = msgspec.json.schema_components(types, ref_template=_REFERENCE)
    listed = described.setdefault("components", {}).setdefault("schemas", {})
    listed |= components
    listed |= _described(listed)
    described["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    described["security"] = [{"token": []}]
    described.pop("servers", None)
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            _complete(path.removeprefix(PREFIX), method, operation)
    return cast("dict[str, Any]", _without_closed_tuples(described))


def _described(listed: dict[str, Any]) -> dict[str, Any]:
    """Return the structs among the schemas as msgspec describes them: with the descriptions and the
    bounds of their fields."""
    known = {
        kind.__name__: kind
        for kind in vars(schemas).values()
        if isinstance(kind, type) and issubclass(kind, msgspec.Struct)
    }
    kinds = [known[name] for name in listed if name in known]
    _, components = msgspec.json.schema_components(kinds, ref_template=_REFERENCE)
    return components


def _complete(path: str, method: str, operation: dict[str, Any]) -> None:
    """Add what the signature of a handler does not tell: bodies by media type, problems."""
    operation["operationId"] = f"{method}{path}".translate(_IDENTIFIER)
    operation["tags"] = [path.split("/")[1]]
    text = " ".join(operation.pop("description").split())
    operation["summary"], _, rest = text.partition(". ")
    if rest:
        operation["description"] = rest
    operation.pop("deprecated", None)
    for parameter in operation.get("parameters", ()):
        for word in ("deprecated", "allowEmptyValue", "allowReserved"):
            parameter.pop(word, None)
    kind = _REQUESTS.get(path) if method == "post" else None
    if kind is not None:
        operation["requestBody"] = {"required": True, "content": _request_content(kind)}
    if path.endswith("/result"):
        operation["responses"]["200"]["content"] = _result_content()
    if path == "/tasks" and method == "post":
        accepted = {"schema": _reference(schemas.AcceptedTask)}
        operation["responses"]["201"]["content"] = {programs.JSON: accepted}
        operation["responses"]["200"] = {
            "description": "The result, which came within `wait` seconds",
            "content": _result_content(),
        }
        operation["responses"]["202"] = {
            "description": "Accepted; no result within `wait` seconds",
            "content": {programs.JSON: accepted},
        }
    operation["responses"].pop("400", None)
    problem = {MEDIA_TYPE: {"schema": _reference(Problem)}}
    operation["responses"]["default"] = {"description": "A problem", "content": problem}


def _reference(kind: type[msgspec.Struct]) -> dict[str, str]:
    return {"$ref": _REFERENCE.format(name=kind.__name__)}


def _request_content(kind: type[msgspec.Struct]) -> dict[str, Any]:
    if not issubclass(kind, schemas.ProgramRequest):
        return {programs.JSON: {"schema": _reference(kind)}}
    options = {"contentMediaType": programs.JSON, **_reference(kind)}
    form = {"type": "object", "properties": {"program": {"type": "string"}, "options": options}}
    text = {"schema": {"type": "string"}}
    return {
        programs.JSON: {"schema": _reference(kind)},
        programs.FORM: {"schema": form},
        "text/plain": text,
        programs.QPY: _BINARY,
        programs.PACKED: _BINARY,
    }


def _result_content() -> dict[str, Any]:
    either = [_reference(schemas.ResultRecord), _reference(schemas.ResultPage)]
    json = {"schema": {"anyOf": either}}
    return {results.JSON: json, results.NPZ: _BINARY, results.HDF5: _BINARY}


def _without_closed_tuples(tree: Any) -> Any:
    """Return a schema without `items: false` beside `prefixItems`, which `maxItems` says, too:
    generators of clients refuse a boolean in the place of a schema."""
    if isinstance(tree, dict):
        closed = "prefixItems" in tree and tree.get("items") is False
        return {
            key: _without_closed_tuples(value)
            for key, value in tree.items()
            if not (closed and key == "items")
        }
    return [_without_closed_tuples(each) for each in tree] if isinstance(tree, list) else tree


@functools.cache
def native_document() -> bytes:
    """Return the description of all routes of the native API, as JSON."""
    return msgspec.json.encode(document(HANDLERS))


@functools.cache
def packed_document() -> bytes:
    """Return the same, compressed by gzip."""
    return gzip.compress(native_document(), mtime=0)


@functools.cache
def query_names(method: str, path: str) -> tuple[str, ...]:
    """Return the names that the query of a route may have."""
    described = msgspec.json.decode(native_document())["paths"]
    listed = described.get(path, {}).get(method.lower(), {}).get("parameters", ())
    return tuple(each["name"] for each in listed if each["in"] == "query")
