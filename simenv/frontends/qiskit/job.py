"""Job of `SimenvBackend.run`: tasks of the environment, and their results as Qiskit's Result."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from qiskit import QuantumCircuit
from qiskit.providers import JobStatus, JobV1
from qiskit.result import Result

from simenv._version import __version__
from simenv.client.tasks.task import Task
from simenv.frontends.qiskit.conversion import experiment
from simenv.frontends.qiskit.errors import failures
from simenv.frontends.qiskit.progress import TaskGroup

if TYPE_CHECKING:
    from qiskit.providers import BackendV2


class SimenvJob(TaskGroup, JobV1):  # type: ignore[misc]  # qiskit is untyped
    """Job of tasks that the environment has accepted; they go on when this process ends."""

    _async = True

    def __init__(
        self,
        backend: BackendV2,
        job_id: str,
        circuits: Sequence[QuantumCircuit],
        tasks: Sequence[Sequence[Task]],
        options: Mapping[str, Any],
    ) -> None:
        """Make a job. `tasks`: for each circuit, one task for each set of its values."""
        self._tasks = [task for each in tasks for task in each]
        self._circuits = [
            circuit for circuit, each in zip(circuits, tasks, strict=True) for _ in each
        ]
        self._result: Result | None = None
        ids = self._set_tasks(backend.client, self._tasks)
        super().__init__(backend, job_id, **options, tasks=ids)

    @property
    def tasks(self) -> list[Task]:
        """Tasks of the environment, one for each entry of the result."""
        return list(self._tasks)

    def submit(self) -> None:
        """Do nothing: a job is accepted when `SimenvBackend.run` returns."""

    def wait_for_final_state(
        self,
        timeout: float | None = None,
        wait: float = 5,
        callback: Callable[[str, JobStatus, SimenvJob], None] | None = None,
    ) -> None:
        """Wait until all tasks have ended. `callback`: called every `wait` seconds until then.
        Raises JobTimeoutError after `timeout` seconds."""
        if callback is not None:
            super().wait_for_final_state(timeout, wait, callback)
            return
        with failures():
            self._wait(timeout)

    def result(self, timeout: float | None = None) -> Result:
        """Wait for the end. Raises JobTimeoutError after `timeout` seconds, JobError if a circuit
        failed, was cancelled or expired."""
        if self._result is None:
            with failures():
                self._wait(timeout)
                results = [task.result() for task in self._tasks]
            backend = self.backend()
            self._result = Result(
                backend_name=backend.name,
                backend_version=backend.backend_version,
                job_id=self.job_id(),
                success=True,
                results=list(map(experiment, self._circuits, results)),
                status="COMPLETED",
                simenv_version=__version__,
                time_taken=self.usage()["run_s"],
            )
        return self._result
