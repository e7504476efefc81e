"""Messages as bytes, and errors as refusals.

Encode and decode messages as msgpack, through msgspec. Invariant: received bytes become either a
value of the declared type or a ProtocolError.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

import msgspec

from simenv import errors as simenv_errors
from simenv.model.task import AmplitudeResultData
from simenv.wire.messages import base, client as m

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
        except simenv_errors.DECODE_ERRORS as error:
            text = f"{len(body)} bytes are not a message: {error}"
            raise simenv_errors.ProtocolError(text) from error


class _Head(msgspec.Struct, array_like=True):
    kind: int
    request: base.Number


_HEAD = msgspec.msgpack.Decoder(_Head)


def request_of(body: bytes) -> int:
    """Return the request number of a client's malformed message, by which its refusal reaches the
    caller; 0 if it cannot be decoded."""
    try:
        head = _HEAD.decode(body)
    except simenv_errors.DECODE_ERRORS:
        return 0
    return head.request if head.kind else 0  # kind 0 is Hello, which has none


from_client: Decoder[m.FromClient] = Decoder(m.FromClient)
to_client: Decoder[m.ToClient] = Decoder(m.ToClient)
from_worker: Decoder[m.FromWorker] = Decoder(m.FromWorker)
to_worker: Decoder[m.ToWorker] = Decoder(m.ToWorker)
to_node: Decoder[m.ToNode] = Decoder(m.ToNode)
# Stored messages of one kind.
submit: Decoder[m.Submit] = Decoder(m.Submit)
completed: Decoder[m.Completed] = Decoder(m.Completed)
result_data: Decoder[AmplitudeResultData] = Decoder(AmplitudeResultData)
failure: Decoder[m.Failure] = Decoder(m.Failure)
_COMPLETED = m.Completed.__struct_config__.tag


def is_completed(body: bytes) -> bool:
    """Return whether a message is a Completed: a short array whose first element is the kind."""
    return body[1] == _COMPLETED


def refusal(error: simenv_errors.SimenvError, index: int = -1) -> m.Refusal:
    """Encode an error as a Refusal. The tracebacks of the error and of its causes are removed.
    Their frames hold the message that was refused, and an error that a Future raised is in a
    reference cycle with its frames: only the collector would free the message."""
    each: BaseException | None = error
    while each is not None:
        each.__traceback__, each = None, each.__cause__ or each.__context__
    retry_after_s = getattr(error, "retry_after_s", 0.0)
    return m.Refusal(error.code, error.message, error.hint, index, retry_after_s)


def error_at(refusal: m.Refusal, offset: int = 0) -> simenv_errors.SimenvError:
    """Decode a Refusal as an error. `offset`: number of the message's first item in the caller's
    list."""
    kind = simenv_errors.by_code(refusal.code)
    index = refusal.index + offset if refusal.index >= 0 else -1
    if issubclass(kind, simenv_errors.InsufficientError):
        retry_after_s = refusal.retry_after_s
        return kind(refusal.message, hint=refusal.hint, index=index, retry_after_s=retry_after_s)
    if issubclass(kind, simenv_errors.BatchRefusedError):
        kind = simenv_errors.SimenvError
    return kind(refusal.message, hint=refusal.hint, index=index)


def error_of(refusals: Sequence[m.Refusal]) -> simenv_errors.SimenvError:
    """Return the error of a call with one item."""
    return (
        error_at(refusals[0]) if refusals else simenv_errors.SimenvError("refused without a reason")
    )


def error_of_batch(
    errors: Sequence[simenv_errors.SimenvError], count: int, refused: int = 0
) -> simenv_errors.SimenvError:
    """Return the error of `submit_many`; a refusal of the call as a whole is returned unchanged.
    `count`: items in the call. `refused`: number of refused items, if one error may be about
    several; 0: one item for each error."""
    items = tuple(error for error in errors if error.index >= 0)
    if not items:
        return errors[0]
    first = items[0]
    return simenv_errors.BatchRefusedError(
        f"{refused or len(items)} of {count} items refused, so none was taken; "
        f"item {first.index}: {first.message}",
        items,
        hint=first.hint,
    )
