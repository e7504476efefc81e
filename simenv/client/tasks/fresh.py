"""Submit again what was compiled for a calibration that is no longer in force."""

from __future__ import annotations

from collections.abc import Callable

from simenv.client.devices.choice import SubmitDevices
from simenv.client.results.result import Result
from simenv.client.tasks.task import Task
from simenv.errors import TaskFailedError

STALE = "calibration_stale"  # the reason of such a task's failure
MAX_ATTEMPTS = 8


def fresh_result(submit: Callable[[], Task], devices: SubmitDevices) -> Result:
    """The result of a task, which is compiled again and submitted again where it was refused as
    stale. Raises what `Task.result` does."""
    for _ in range(MAX_ATTEMPTS - 1):
        try:
            return submit().result()
        except TaskFailedError as error:
            if error.reason != STALE:
                raise
            devices.forget()
    return submit().result()
