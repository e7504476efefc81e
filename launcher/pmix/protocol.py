"""Messages between the launcher and its PMIx helper: one JSON object a line."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class HelperRequest:
    """Request to the helper.

    `operation`: spawn, add_nodes (both get a response under their key), kill or query.
    """

    operation: str
    key: int = 0
    namespace: str = ""
    argv: tuple[str, ...] = ()
    env: tuple[str, ...] = ()  # "NAME=value"
    hosts: tuple[str, ...] = ()  # spawn: host of each rank; add_nodes: "name:slots"


@dataclass(frozen=True, slots=True)
class HelperResponse:
    """Response or event from the helper.

    `kind`: ready; spawned, failed or not_sent (no DVM was connected) under the request's key;
    ended; listed; lost.
    """

    kind: str
    key: int = 0
    namespace: str = ""
    code: int = 0  # failed: code of PMIx; ended: code of PRTE, 128 + n for signal n
    message: str = ""
    namespaces: tuple[str, ...] = ()


def encode_request(request: HelperRequest) -> bytes:
    return json.dumps(asdict(request)).encode() + b"\n"


def decode_request(line: bytes) -> HelperRequest:
    return HelperRequest(**_with_tuples(json.loads(line)))


def encode_response(response: HelperResponse) -> bytes:
    return json.dumps(asdict(response)).encode() + b"\n"


def decode_response(line: bytes) -> HelperResponse:
    """Decode a line. Raises ValueError or TypeError if the helper did not write it."""
    values = json.loads(line)
    if not isinstance(values, dict):
        raise TypeError(f"no object: {line[:80]!r}")
    return HelperResponse(**_with_tuples(values))


def _with_tuples(values: dict[str, Any]) -> dict[str, Any]:
    return {
        key: tuple(value) if isinstance(value, list) else value for key, value in values.items()
    }
