"""Job of a primitive: tasks of the environment, and the PrimitiveResult made of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from qiskit.primitives import BasePrimitiveJob, PrimitiveResult
from qiskit.providers import JobStatus
from qiskit.providers.jobstatus import JOB_FINAL_STATES

from simenv.client.client import Client
from simenv.client.tasks.task import Task
from simenv.frontends.qiskit.errors import failures
from simenv.frontends.qiskit.progress import TaskGroup


class SimenvPrimitiveJob(
    TaskGroup,
    BasePrimitiveJob[PrimitiveResult[Any], JobStatus],  # type: ignore[misc]
):
    """Job of tasks that the environment has accepted; they go on when this process ends."""

    def __init__(
        self,
        job_id: str,
        client: Client,
        tasks: Sequence[Task],
        collect: Callable[[], PrimitiveResult[Any]],
    ) -> None:
        """Make a job. `collect`: makes the result, once all tasks are done."""
        self._tasks = list(tasks)
        self._collect = collect
        self._result: PrimitiveResult[Any] | None = None
        self._usage: dict[str, float] | None = None  # of a job that was pickled
        super().__init__(job_id, tasks=self._set_tasks(client, self._tasks))

    @property
    def tasks(self) -> list[Task]:
        """Tasks of the environment: for each PUB, one for each set of its values."""
        return list(self._tasks)

    def result(self, timeout: float | None = None) -> PrimitiveResult[Any]:
        """Wait for the end. Raises JobTimeoutError after `timeout` seconds, JobError if a PUB
        failed, was cancelled or expired."""
        if self._result is None:
            with failures():
                self._wait(timeout)
                self._result = self._collect()
        return self._result

    def wait_for_final_state(self, timeout: float | None = None) -> None:
        """Wait until all tasks have ended. Raises JobTimeoutError."""
        with failures():
            self._wait(timeout)

    def done(self) -> bool:
        """Return whether the job has a result."""
        return self.status() is JobStatus.DONE

    def running(self) -> bool:
        """Return whether a PUB has started, and not all have ended."""
        return self.status() is JobStatus.RUNNING

    def cancelled(self) -> bool:
        """Return whether the job was cancelled."""
        return self.status() is JobStatus.CANCELLED

    def in_final_state(self) -> bool:
        """Return whether all PUBs have ended, in any state."""
        return self.status() in JOB_FINAL_STATES

    def usage(self) -> dict[str, float]:
        """Seconds: queued_s, run_s, device_s (by the device's calibration), total_s."""
        return super().usage() if self._usage is None else self._usage

    def __getstate__(self) -> dict[str, Any]:
        """Wait for the result, as Qiskit's PrimitiveJob does: it is pickled without the tasks and
        their connection. Raises like `result`."""
        self.result()
        ended: dict[str, Any] = {"_tasks": [], "_client": None, "_each": (), "_collect": None}
        return {**self.__dict__, **ended, "_usage": self.usage()}
