"""Calls that must end with an error."""

from collections.abc import Callable
from typing import ParamSpec, TypeVar

import pytest

from simenv.service import fault_injection

Error = TypeVar("Error", bound=BaseException)
Given = ParamSpec("Given")


def fails(
    error: type[Error] | tuple[type[Error], ...], match: str, call: Callable[Given, object],
    *args: Given.args, **named: Given.kwargs,
) -> Error:  # fmt: skip
    """The error that the call raises, with these words (a regular expression; empty: any)."""
    __tracebackhide__ = True
    with pytest.raises(error, match=match or None) as caught:
        call(*args, **named)
    return caught.value


class Killed(BaseException):
    """A kill by a fault that was planned: nothing in the process goes on."""


def killed_at(point: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Plan a kill at the first hit of a point of `fault_injection`, which raises Killed here."""

    def killed(_pid: int, _signal: int) -> None:
        raise Killed

    fault_injection.install(f"{point}:1:kill")
    monkeypatch.setattr(fault_injection.os, "kill", killed)
