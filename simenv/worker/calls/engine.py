"""What calls functions in a worker, and the errors of calls."""

from __future__ import annotations

from typing import Protocol

from simenv.model.calls import Call
from simenv.wire.messages.client import AssignedTask
from simulators.control import RunControl
from simulators.errors import EngineError


class CallFailed(EngineError):
    """A call ended with an error of its own, which the message quotes."""

    code = "function"


class ValueTooLarge(EngineError):
    """What a call returned is larger than a result may be."""

    code = "limit"


class CallEngine(Protocol):
    """What calls functions of one kind."""

    name: str

    def call(self, call: Call, assigned: AssignedTask, control: RunControl) -> bytes:
        """Return the packed answer to the call of this task. Raises Stopped, EngineError,
        SimenvError."""

    def warm_up(self) -> None:
        """Load all that a first call would wait for."""
