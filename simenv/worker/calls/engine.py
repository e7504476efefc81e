"""Protocol of the engines that execute calls in a worker, and the errors of calls."""

from __future__ import annotations

from typing import Protocol

from simenv.model.calls import Call
from simenv.wire.messages.client import AssignedTask
from simulators.control import RunControl
from simulators.errors import EngineError


class CallFailed(EngineError):
    """A called function failed; the message quotes its error."""

    code = "function"


class ValueTooLarge(EngineError):
    """The value of a call is larger than the limit of a result."""

    code = "limit"


class CallEngine(Protocol):
    """Engine that executes calls of one kind."""

    name: str

    def call(self, call: Call, assigned: AssignedTask, control: RunControl) -> bytes:
        """Return the packed answer to the call of this task. Raises Stopped, EngineError,
        SimenvError."""

    def warm_up(self) -> None:
        """Load the modules that a first call needs."""
