"""The page of the native HTTP API, generated from its OpenAPI description."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from simenv.gateway.native import openapi

_INTRODUCTION = """# HTTP API

This page is generated from the OpenAPI 3.1 description that a gateway serves at
`/api/v1/openapi.json`. [Use the HTTP API](../guides/http.md) has examples.
"""


def http_page() -> str:
    """Return the page as Markdown."""
    document = msgspec.json.decode(openapi.native_document())
    lines = [_INTRODUCTION, document["info"]["description"], ""]
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            lines += _operation(path, method, operation)
    lines.append("\n## Structures\n")
    for name, schema in sorted(document["components"]["schemas"].items()):
        lines += _structure(name, schema)
    return "\n".join(lines) + "\n"


def _operation(path: str, method: str, operation: dict[str, Any]) -> Iterator[str]:
    yield f"\n## `{method.upper()} {path}`\n"
    yield operation["summary"].rstrip(".") + "."
    if "description" in operation:
        yield f"\n{operation['description']}"
    if parameters := operation.get("parameters"):
        yield "\n| parameter | in | type | default | meaning |\n|---|---|---|---|---|"
        for each in parameters:
            schema = each["schema"]
            default = f"`{schema['default']!r}`" if "default" in schema else ""
            cells = (f"`{each['name']}`", each["in"], _type(schema), default)
            yield f"| {' | '.join(cells)} | {each.get('description', '')} |"
    if body := operation.get("requestBody"):
        yield f"\nBody: {_contents(body['content'])}."
    yield "\n| status | answer |\n|---|---|"
    for status, response in operation["responses"].items():
        yield f"| {status} | {_contents(response.get('content', {})) or 'nothing'} |"


def _contents(content: dict[str, Any]) -> str:
    return ", ".join(
        f"`{media_type}` {_type(body['schema'])}" if "schema" in body else f"`{media_type}`"
        for media_type, body in content.items()
    )


def _structure(name: str, schema: dict[str, Any]) -> Iterator[str]:
    yield f"\n### {name}\n"
    if "description" in schema:
        yield f"{schema['description']}\n"
    if "enum" in schema:
        yield "One of: " + ", ".join(f"`{value}`" for value in schema["enum"]) + ".\n"
    if properties := schema.get("properties"):
        yield "| member | type |\n|---|---|"
        for member, kind in properties.items():
            yield f"| `{member}` | {_type(kind)} |"


def _type(schema: dict[str, Any]) -> str:
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    for word in ("anyOf", "oneOf"):
        if word in schema:
            return " or ".join(_type(each) for each in schema[word])
    if schema.get("type") == "array" and isinstance(schema.get("items"), dict):
        return f"list of {_type(schema['items'])}"
    if isinstance(schema.get("additionalProperties"), dict):
        return f"object of {_type(schema['additionalProperties'])}"
    return str(schema.get("type", "any"))
