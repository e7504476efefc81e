"""simenv: an environment of resident simulators that runs quantum circuits, durably and repeatably.

    with simenv.local(workers=2) as client:
        print(client.run("bell.qasm", shots=4096, seed=7).counts)

The import loads no other module: a public name is loaded when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from simenv._version import __version__

if TYPE_CHECKING:
    from simenv import errors
    from simenv.client.client import Client, connect
    from simenv.client.local import local
    from simenv.client.reservations import Reservation
    from simenv.client.result import Result
    from simenv.client.submission.detection import DetectionResult
    from simenv.client.submission.machine import Link, Machine
    from simenv.client.submission.pulses import PulseResult
    from simenv.client.tasks.task import Task, as_completed
    from simenv.model.calls import report_progress
    from simenv.transpiler.qpu_programs.program import QPUProgram

__all__ = [
    "Client",
    "DetectionResult",
    "Link",
    "Machine",
    "PulseResult",
    "QPUProgram",
    "Reservation",
    "Result",
    "Task",
    "__version__",
    "as_completed",
    "connect",
    "errors",
    "local",
    "report_progress",
]

_HOMES = {
    "Client": "simenv.client.client",
    "DetectionResult": "simenv.client.submission.detection",
    "QPUProgram": "simenv.transpiler.qpu_programs.program",
    "Link": "simenv.client.submission.machine",
    "Machine": "simenv.client.submission.machine",
    "PulseResult": "simenv.client.submission.pulses",
    "Reservation": "simenv.client.reservations",
    "Result": "simenv.client.result",
    "Task": "simenv.client.tasks.task",
    "as_completed": "simenv.client.tasks.task",
    "connect": "simenv.client.client",
    "local": "simenv.client.local",
    "report_progress": "simenv.model.calls",
}


def __getattr__(name: str) -> Any:
    if name == "errors":
        return import_module("simenv.errors")
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'simenv' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(home), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
