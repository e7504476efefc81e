"""Calls that must end with an error."""

from collections.abc import Callable
from typing import ParamSpec, TypeVar

import pytest

Error = TypeVar("Error", bound=BaseException)
Given = ParamSpec("Given")


def fails(
    error: type[Error] | tuple[type[Error], ...],
    match: str,
    call: Callable[Given, object],
    *args: Given.args,
    **named: Given.kwargs,
) -> Error:
    """The error that the call raises, with these words (a regular expression; empty: any)."""
    __tracebackhide__ = True
    with pytest.raises(error, match=match or None) as caught:
        call(*args, **named)
    return caught.value
