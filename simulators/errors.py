"""Every error the engines raise: one tree, one sentence of meaning a class.

A message names the thing, the value and the limit; `hint` is the way out.
"""

from __future__ import annotations

from typing import ClassVar


class EngineError(Exception):
    """Anything an engine refuses or reports. Catch this to catch them all."""

    code: ClassVar[str] = "engine"

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n  {self.hint}" if self.hint else self.message


class UnknownEngine(EngineError):
    """No engine of that name is known, or what it needs is not installed."""

    code = "unknown_engine"


class BadCircuit(EngineError):
    """The circuit's arrays contradict one another; its maker mends it."""

    code = "bad_circuit"


class Unsupported(EngineError):
    """The engine cannot do what was asked of it; the caller asks for less, or another engine."""

    code = "unsupported"


class OutOfMemory(EngineError):
    """The state does not fit into the memory there is."""

    code = "out_of_memory"


class TruncatedState(EngineError):
    """A tensor network had to cut off more weight than the option `tolerance` allows."""

    code = "truncation"


class DeviceLost(EngineError):
    """A GPU failed, and this process can not use it any more; another process may."""

    code = "device_lost"


class TooManyBranches(EngineError):
    """A dynamic circuit has more distinct states at once than may be held."""

    code = "too_many_branches"


class TooManySteps(EngineError):
    """The run executed more operations than `RunOptions.max_steps` allows."""

    code = "too_many_steps"


class MachineRefused(EngineError):
    """The machine did not take the circuits: nothing was run."""

    code = "machine_refused"


class StaleCalibration(EngineError):
    """The circuit was compiled for a calibration that is no longer in force: nothing was run."""

    code = "calibration_stale"


class OtherOutcome(EngineError):
    """Parts of a circuit that were run again found other outcomes than before."""

    code = "other_outcome"


class MachineFailed(EngineError):
    """The machine took the circuits, and ended without a result for them."""

    code = "machine_failed"


class BadAnswer(EngineError):
    """The device returned something that cannot be the result of the request."""

    code = "bad_answer"


class Stopped(EngineError):
    """The caller's `RunControl` asked the run to stop, and it did; there is no result."""

    code = "stopped"
