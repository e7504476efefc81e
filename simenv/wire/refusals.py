"""Conversion between errors and the refusals that messages carry."""

from __future__ import annotations

from collections.abc import Sequence

from simenv.errors import (
    BatchRefusedError,
    InsufficientError,
    QueueFullError,
    SimenvError,
    by_code,
)
from simenv.wire.messages.client import Refusal


def refusal(error: SimenvError, index: int = -1) -> Refusal:
    """Encode an error as a Refusal.

    The tracebacks of the error and of its causes are removed. Their frames hold the message that
    was refused, and an error that a Future raised is in a reference cycle with its frames: only the
    collector would free the message.
    """
    each: BaseException | None = error
    while each is not None:
        each.__traceback__, each = None, each.__cause__ or each.__context__
    retry_after_s = getattr(error, "retry_after_s", 0.0)
    return Refusal(error.code, error.message, error.hint, index, retry_after_s)


def error_at(refusal: Refusal, offset: int = 0) -> SimenvError:
    """Decode a Refusal as an error. `offset`: number of the message's first item in the caller's
    list."""
    kind = by_code(refusal.code)
    index = refusal.index + offset if refusal.index >= 0 else -1
    if issubclass(kind, InsufficientError):
        unknown_s = 1.0 if issubclass(kind, QueueFullError) else 0.0
        return kind(
            refusal.message,
            hint=refusal.hint,
            index=index,
            retry_after_s=refusal.retry_after_s or unknown_s,
        )
    if issubclass(kind, BatchRefusedError):
        kind = SimenvError
    return kind(refusal.message, hint=refusal.hint, index=index)


def error_of(refusals: Sequence[Refusal]) -> SimenvError:
    """Return the error of a call with one item."""
    return error_at(refusals[0]) if refusals else SimenvError("refused without a reason")


def error_of_batch(errors: Sequence[SimenvError], count: int, refused: int = 0) -> SimenvError:
    """Return the error of `submit_many`; a refusal of the call as a whole is returned unchanged.

    `count`: items in the call. `refused`: number of refused items, if one error may be about
    several; 0: one item for each error.
    """
    items = tuple(error for error in errors if error.index >= 0)
    if not items:
        return errors[0]
    first = items[0]
    return BatchRefusedError(
        f"{refused or len(items)} of {count} items refused, so none was taken; "
        f"item {first.index}: {first.message}",
        items,
        hint=first.hint,
    )
