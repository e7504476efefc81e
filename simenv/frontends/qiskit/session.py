"""Sessions and batches: reservations of the environment, in the shape of qiskit-ibm-runtime's.

with SimenvSession(backend) as session:
    sampler = SimenvSampler(mode=session)
"""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self

from simenv.frontends.qiskit.backend import SimenvBackend
from simenv.frontends.qiskit.errors import refusals

LEASE_S = 600.0  # duration of a reservation, renewed until the session is closed


class _ReservedBackend:
    """Backend whose circuits run under one reservation."""

    def __init__(
        self, backend: SimenvBackend, *, max_time: float | None = None, workers: int = 0
    ) -> None:
        """Reserve capacity. `max_time`: seconds until the reservation ends by itself; None: it is
        renewed until it is closed. `workers`: workers of the backend's pool that serve this session
        alone.

        Raises QiskitError if the reservation is refused, ValueError.
        """
        with refusals():
            self._reservation = backend.client.reserve(
                backend.pool, workers=workers, for_s=max_time or LEASE_S
            )
            if max_time is None:
                self._reservation.__enter__()
        self._backend = backend.reserved(self._reservation)
        self._is_open = True

    @property
    def session_id(self) -> str:
        """Number of the reservation, as `simenv` lists it."""
        return str(self._reservation.id)

    @property
    def reserved_backend(self) -> SimenvBackend:
        """Backend whose circuits run under the reservation."""
        return self._backend

    def backend(self) -> str:
        """Name of the backend."""
        name: str = self._backend.name
        return name

    def run(self, circuits: Any, **options: Any) -> Any:
        """Run circuits as `SimenvBackend.run`, under the reservation."""
        return self._backend.run(circuits, **options)

    def status(self) -> str:
        """State of the reservation in the environment: "active", for example."""
        return str(self.details()["state"])

    def details(self) -> dict[str, Any]:
        """State, pool and times of the reservation."""
        with refusals():
            result = self._backend.client.reservations()
        info = next((each for each in result if each.id == self._reservation.id), None)
        return {
            "id": self.session_id,
            "backend_name": self.backend(),
            "mode": type(self).__name__,
            "state": "closed" if info is None else str(info.state),
            "pool": None if info is None else info.device or None,
            "workers": 0 if info is None else info.workers,
        }

    def close(self) -> None:
        """Wait for the tasks under the reservation, then end it. Idempotent."""
        if self._is_open:
            with refusals():
                self._backend.wait()
            self._is_open = False
            with refusals():
                self._reservation.release()

    def cancel(self) -> None:
        """End the reservation, and cancel its waiting and running tasks. Idempotent."""
        if self._is_open:
            self._is_open = False
            with refusals():
                self._reservation.cancel()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            self.close()
        else:
            self.cancel()


class SimenvSession(_ReservedBackend):
    """Session for dependent jobs of one program, one after the other."""


class SimenvBatch(_ReservedBackend):
    """Batch of independent jobs that are submitted together."""


def backend_of(mode: SimenvBackend | SimenvSession | SimenvBatch) -> SimenvBackend:
    """Backend of a primitive's `mode`. Raises TypeError for another object."""
    if isinstance(mode, _ReservedBackend):
        return mode.reserved_backend
    if not isinstance(mode, SimenvBackend):
        raise TypeError(
            f"mode is a {type(mode).__name__}; it is a SimenvBackend, SimenvSession or SimenvBatch"
        )
    return mode
