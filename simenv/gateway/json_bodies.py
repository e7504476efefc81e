"""Bodies of answers in JSON, encoded in parts, so that a large one does not hold up other requests.

Invariant: the event loop encodes PART_BYTES of an answer and one part more at most. The rest is
encoded in a thread, a few values at a time: one call of the encoder holds the interpreter's lock
until it returns.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import chain, islice
from typing import Any

import msgspec
from litestar import Response
from litestar.serialization import default_serializer

from simenv.gateway.limits import PART_BYTES

FEW = 64  # values of a list that are encoded at once
_encode = msgspec.json.Encoder(enc_hook=default_serializer).encode
_CONTAINERS = (list, tuple, dict, msgspec.Struct)


async def encode_body(response: Response[Any]) -> Response[Any]:
    """Encode what a handler has returned: an `after_request` of the framework."""
    content = response.content
    if type(response) is Response and isinstance(content, _CONTAINERS):
        parts = json_parts(content)
        body = next(parts)
        if len(body) >= PART_BYTES:
            body = await asyncio.to_thread(b"".join, chain((body,), parts))
        response.content = body
    return response


def json_parts(value: Any) -> Iterator[bytes]:
    """Yield the JSON of a value, as `msgspec.json.encode` writes it, in parts of PART_BYTES and the
    length of one value more."""
    tokens, size = [], 0
    for token in _tokens(value):
        tokens.append(token)
        size += len(token)
        if size >= PART_BYTES:
            yield b"".join(tokens)
            tokens, size = [], 0
    yield b"".join(tokens)


def _tokens(value: Any) -> Iterator[bytes]:
    if isinstance(value, list | tuple):
        yield from _of_list(value)
    elif isinstance(value, dict):
        yield from _of_items(value.items())
    elif isinstance(value, msgspec.Struct) and _is_plain(value) and _is_long(value):
        names, fields = value.__struct_encode_fields__, value.__struct_fields__
        pairs = ((name, getattr(value, field)) for name, field in zip(names, fields, strict=True))
        yield from _of_items((name, each) for name, each in pairs if each is not msgspec.UNSET)
    else:
        yield _encode(value)


def _of_list(values: list[Any] | tuple[Any, ...]) -> Iterator[bytes]:
    before = b"["
    for start in range(0, len(values), FEW):
        some = values[start : start + FEW]
        if any(isinstance(each, _CONTAINERS) for each in some):
            for each in some:
                yield before
                yield from _tokens(each)
                before = b","
        else:
            yield before + _encode(list(some))[1:-1]
        before = b","
    yield b"]" if values else b"[]"


def _of_items(items: Iterable[tuple[Any, Any]]) -> Iterator[bytes]:
    before, left = b"{", iter(items)
    for some in iter(partial(_some, left), {}):
        if any(isinstance(each, _CONTAINERS) for each in some.values()):
            for key, each in some.items():
                yield before + _encode({key: None})[1 : -len("null}")]
                yield from _tokens(each)
                before = b","
        else:
            yield before + _encode(some)[1:-1]
        before = b","
    yield b"{}" if before == b"{" else b"}"


def _some(items: Iterator[tuple[Any, Any]]) -> dict[Any, Any]:
    return dict(islice(items, FEW))


def _is_plain(value: msgspec.Struct) -> bool:
    """Return whether a struct is encoded as an object with all its fields."""
    form = value.__struct_config__
    return not (form.array_like or form.omit_defaults or form.tag_field)


def _is_long(value: Any) -> bool:
    """Return whether there is a list or a table of more than FEW values in a value."""
    if isinstance(value, msgspec.Struct):
        return any(_is_long(getattr(value, field)) for field in value.__struct_fields__)
    if isinstance(value, dict):
        return len(value) > FEW or any(map(_is_long, value.values()))
    return isinstance(value, list | tuple) and (len(value) > FEW or any(map(_is_long, value)))
