"""Encode and decode messages as msgpack, through msgspec.

Invariant: received bytes become either a value of the declared type or a ProtocolError.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

import msgspec

from simenv.errors import ProtocolError
from simenv.model.result import AmplitudeResultData
from simenv.wire.messages import client as m
from simenv.wire.messages.common import Number

T = TypeVar("T")

_ENCODER = msgspec.msgpack.Encoder()
encode = _ENCODER.encode


class Decoder(Generic[T]):
    """Decoder of one family of messages. Raises ProtocolError with the reason on anything else."""

    def __init__(self, family: object) -> None:
        self._decode: Callable[[bytes], T] = msgspec.msgpack.Decoder(family).decode

    def __call__(self, body: bytes) -> T:
        try:
            return self._decode(body)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise ProtocolError(f"{len(body)} bytes are not a message: {error}") from error


class _Head(msgspec.Struct, array_like=True):
    kind: int
    request: Number


_HEAD = msgspec.msgpack.Decoder(_Head)


def request_of(body: bytes) -> int:
    """Return the request number of a client's malformed message, by which its refusal reaches the
    caller; 0 if it cannot be decoded."""
    try:
        head = _HEAD.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return 0
    return head.request if head.kind else 0  # kind 0 is Hello, which has none


from_client: Decoder[m.FromClient] = Decoder(m.FromClient)
to_client: Decoder[m.ToClient] = Decoder(m.ToClient)
from_worker: Decoder[m.FromWorker] = Decoder(m.FromWorker)
to_worker: Decoder[m.ToWorker] = Decoder(m.ToWorker)
result_data: Decoder[AmplitudeResultData] = Decoder(AmplitudeResultData)
failure: Decoder[m.Failure] = Decoder(m.Failure)
