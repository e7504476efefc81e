"""Errors that the engines raise: one tree, with one sentence of meaning for each class.

A message names the object, the value and the limit; `hint` states a remedy.
"""

from typing import ClassVar

# In the hint of an engine that refuses a circuit; see `execution.alternatives`.
OTHER_ENGINE = "another engine may run it"


class EngineError(Exception):
    """Any refusal or failure of an engine; the base class of all."""

    code: ClassVar[str] = "engine"

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n  {self.hint}" if self.hint else self.message


class UnknownEngine(EngineError):
    """No engine has that name, or its requirements are not installed."""

    code = "unknown_engine"


class BadCircuit(EngineError):
    """The circuit's arrays contradict one another; its maker must correct it."""

    code = "bad_circuit"


class Unsupported(EngineError):
    """The engine cannot run this request; the caller must reduce it or choose another engine."""

    code = "unsupported"


class TooManyQubits(Unsupported):
    """The circuit has more qubits than the engine takes."""


class OutOfMemory(EngineError):
    """The state does not fit into the available memory."""

    code = "out_of_memory"


class TruncatedState(EngineError):
    """A tensor network had to discard more weight than the option `tolerance` allows."""

    code = "truncation"


class DeviceLost(EngineError):
    """A GPU failed, and this process cannot use it any more; another process may."""

    code = "device_lost"


class TooManyBranches(EngineError):
    """A dynamic circuit has more distinct states at once than the limit."""

    code = "too_many_branches"


class TooManySteps(EngineError):
    """The run executed more operations than `RunOptions.max_steps` allows."""

    code = "too_many_steps"


class MachineRefused(EngineError):
    """The machine did not accept the circuits: nothing was run."""

    code = "machine_refused"


class StaleCalibration(EngineError):
    """The circuit was compiled for a calibration that is no longer in force: nothing was run."""

    code = "calibration_stale"


class OtherOutcome(EngineError):
    """Parts of a circuit that were run again gave outcomes other than before."""

    code = "other_outcome"


class MachineFailed(EngineError):
    """The machine accepted the circuits, and ended without a result for them."""

    code = "machine_failed"


class BadAnswer(EngineError):
    """The device returned data that cannot be the result of the request."""

    code = "bad_answer"


class Stopped(EngineError):
    """The run ended because `RunControl.stop` was called; there is no result."""

    code = "stopped"

    def __init__(
        self,
        message: str = "the run was stopped",
        *,
        hint: str = "whoever stopped it can submit it again",
    ) -> None:
        super().__init__(message, hint=hint)
