"""Adapter that gives a backend with a SamplerV2 only (as IBM's) a method `run`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class SamplerAdapter:
    """Backend over a sampler. `backend`: describes the machine; `sampler`: runs the circuits."""

    def __init__(self, backend: Any, sampler: Any) -> None:
        self._backend = backend
        self._sampler = sampler
        self.options: dict[str, Any] = {}  # the backend's own options belong to its unused `run`

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def run(self, circuits: Any, shots: int, memory: bool = False) -> SampledJob:  # noqa: ARG002
        """Submit one job for one circuit or several; a sampler always keeps the memory of the
        shots."""
        asked = list(circuits) if isinstance(circuits, Sequence) else [circuits]
        return SampledJob(self._sampler.run(asked, shots=shots))


class SampledJob:
    """Job of a sampler, with a result in the form of a backend's."""

    def __init__(self, job: Any) -> None:
        self._job = job

    def __getattr__(self, name: str) -> Any:
        return getattr(self._job, name)

    def result(self) -> SampledCounts:
        """Wait for the job and return its result."""
        return SampledCounts(self._job.result())


class SampledCounts:
    """Counts, and memory, by circuit; the first register's first bit is the last character."""

    def __init__(self, result: Any) -> None:
        self._found = result

    def get_counts(self, place: int) -> dict[str, int]:
        """Counts of one circuit, over the bits of all its registers."""
        counts: dict[str, int] = self._found[place].join_data().get_counts()
        return counts

    def get_memory(self, place: int) -> list[str]:
        """Outcomes of the shots of one circuit, in their order."""
        outcomes: list[str] = self._found[place].join_data().get_bitstrings()
        return outcomes
