"""The native HTTP API is that of before: its description, frozen. After a compatible addition

SIMENV_WRITE_GOLDEN=1 .venv/bin/python -m pytest tests/compatibility/test_openapi.py

writes it anew; API_VERSION of `simenv.gateway.native.openapi` grows with it."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from simenv.gateway.native import openapi
from testbed import http_requests

FILE = Path(__file__).parents[1] / "golden" / "openapi" / "native.json"

# Beginnings of paths below PREFIX that are not described, and why.
LEFT_OUT = {
    "/openapi.json": "the description itself",
    "/series": "of the metrics: docs/guides/monitoring.md",
    "/live": "of the page, with which it changes",
    "/stream": "of the page",
    "/tasks/{task}/": "of the page",
    "/events/range": "of the page",
    "/pools/devices": "of the page",
    "/positions/": "of the page",
    "/nodes/{node}/": "of the page",
    "/about": "of IQM's API, which its vendor describes",
    "/quantum-computers": "of IQM's API",
    "/calibration-sets/": "of IQM's API",
    "/jobs/": "of IQM's API",
}


def test_every_route_is_described_or_left_out_for_a_reason(tmp_path: Path) -> None:
    described = {
        (method.upper(), path)
        for path, methods in msgspec.json.decode(openapi.native_document())["paths"].items()
        for method in methods
    }
    served = {
        (each.method, each.path)
        for each in http_requests.routes(tmp_path)
        if each.path.startswith(f"{openapi.PREFIX}/") and each.method != "OPTIONS"
    }
    beginnings = tuple(f"{openapi.PREFIX}{path}" for path in LEFT_OUT)
    left_out = {each for each in served if each[1].startswith(beginnings)}
    assert described == served - left_out
    assert all(any(path.startswith(each) for _, path in left_out) for each in beginnings)


def test_the_description_of_the_api_is_the_frozen_one() -> None:
    text = msgspec.json.format(openapi.native_document()).decode() + "\n"
    if os.environ.get("SIMENV_WRITE_GOLDEN"):
        FILE.parent.mkdir(exist_ok=True)
        FILE.write_text(text)
    assert text == FILE.read_text()


def test_every_reference_leads_to_a_schema() -> None:
    document = msgspec.json.decode(openapi.native_document())
    schemas = document["components"]["schemas"]

    def references(tree: object) -> set[str]:
        if isinstance(tree, dict):
            own = {tree["$ref"]} if isinstance(tree.get("$ref"), str) else set()
            return own.union(*map(references, tree.values()))
        return set().union(*map(references, tree)) if isinstance(tree, list) else set()

    found = references(document)
    assert found
    assert {each.removeprefix("#/components/schemas/") for each in found} <= set(schemas)
    identifiers = [op["operationId"] for path in document["paths"].values() for op in path.values()]
    assert len(set(identifiers)) == len(identifiers)


def test_generators_can_name_every_operation_and_read_every_schema() -> None:
    """openapi-python-client refuses `items: false`, and joins the words around a slash."""
    document = msgspec.json.decode(openapi.native_document())
    operations = [op for path in document["paths"].values() for op in path.values()]
    assert all(op["operationId"].isidentifier() for op in operations)

    def schemas(tree: object, *keys: str) -> Iterator[Any]:
        if isinstance(tree, dict):
            yield from (tree[key] for key in keys if key in tree)
            tree = list(tree.values())
        for below in tree if isinstance(tree, list) else ():
            yield from schemas(below, *keys)

    found = list(schemas(document, "items", "schema"))
    assert len(found) > 100
    assert all(isinstance(each, dict) for each in found)
    contents = list(schemas(document["paths"], "content"))
    assert all("schema" in media for each in contents for media in each.values())
