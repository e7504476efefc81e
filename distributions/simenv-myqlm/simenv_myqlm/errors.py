"""Exceptions of this package. None carries a token."""

from __future__ import annotations

MAX_CHARS = 2_000  # of a message: names and lists of a job may be of any length


class SimenvQPUError(Exception):
    """Base of all. `message`: the thing, its value and the limit; `hint`: the way out."""

    def __init__(self, message: str, hint: str = "") -> None:
        if len(message) > MAX_CHARS:
            message = f"{message[:MAX_CHARS]}..."
        super().__init__(f"{message}\n  {hint}" if hint else message)
        self.message, self.hint = message, hint


class MissingMyQLMError(SimenvQPUError):
    """myQLM is not installed in this environment."""


class ConfigError(SimenvQPUError):
    """An address, token, certificate or option cannot be used."""


class UnsupportedError(SimenvQPUError):
    """A job has something that no program of the gateway can express."""


class GatewayError(SimenvQPUError):
    """The gateway refused a request, or a task failed. `code` and `status` are those of its problem
    document, `index` the job of the batch, -1 if it is about none."""

    def __init__(self, message: str, hint: str = "", code: str = "", status: int = 0) -> None:
        super().__init__(message, hint)
        self.code, self.status, self.index = code, status, -1


class NoGatewayError(SimenvQPUError):
    """No answer came in time."""


class BreakError(SimenvQPUError):
    """The condition of a `break` of the circuit was true. `shots`: in how many."""

    def __init__(self, position: int, shots: int) -> None:
        hint = "the circuit asks for this; submit it without `cbreak` to get all samples"
        super().__init__(
            f"break at instruction {position}: its condition held in {shots} shots", hint
        )
        self.position, self.shots = position, shots
