"""Protocols of the bindings of revision 2 and of the class of revision 1.

Every argument but `info` has a default, so that one object serves callers of either revision. All
methods are thread-safe and may block. They return plain data, see `envelopes` and `telemetry`, and
raise the errors of `errors`. A QPM without a token of its own ignores the argument `token`. The
bindings that manage a QPM are in `management`.
"""

from __future__ import annotations

from typing import Any, Protocol

Plain = dict[str, Any]


class EventEndpoint(Protocol):
    """Receiver of events. A `put` that raises has lost its reader."""

    def put(self, event: Any) -> object:
        """Take one `simenv.qpm.envelopes.EventEnvelope`."""
        ...


class Execution(Protocol):
    """Binding `execution` of revision 2."""

    def sync_run(
        self,
        info: Plain,
        reservation_id: int | None = None,
        token: str | None = None,
        timeout: float | None = None,
        cancel_on_timeout: bool = False,
    ) -> Plain: ...

    def async_run(
        self,
        info: Plain,
        reservation_id: int | None = None,
        token: str | None = None,
        timeout: float | None = None,
        cancel_on_timeout: bool = False,
    ) -> Plain: ...

    def read_cq(
        self,
        cid: str | None = None,
        reservation_id: int | None = None,
        token: str | None = None,
    ) -> Plain: ...

    def peek_cq(
        self,
        cid: str | None = None,
        reservation_id: int | None = None,
        token: str | None = None,
    ) -> Plain: ...

    def task_status(
        self,
        cid: str | None = None,
        reservation_id: int | None = None,
        token: str | None = None,
        qtask_id: int | None = None,
    ) -> Plain: ...

    def cancel_task(
        self,
        cid: str | None = None,
        reservation_id: int | None = None,
        token: str | None = None,
        reason: str | None = None,
        qtask_id: int | None = None,
    ) -> Plain: ...

    def get_task_timing(
        self,
        token: str | None = None,
        reservation_id: int | None = None,
        task_id: int | None = None,
    ) -> Plain: ...

    def get_task_metadata(
        self,
        token: str | None = None,
        reservation_id: int | None = None,
        task_id: int | None = None,
    ) -> Plain: ...

    def register_event_notification(
        self,
        ep: EventEndpoint,
        evtype: int | str,
        class_id: str,
        token: str | None = None,
        reservation_id: int | None = None,
        filters: Plain | None = None,
    ) -> Plain: ...

    def delete_circuit(
        self, cid: str, reservation_id: int | None = None, token: str | None = None
    ) -> Plain | None: ...


class Telemetry(Protocol):
    """Binding `telemetry` of revision 2. `lib`: a pool; None: the whole environment."""

    def get_backend_info(self, lib: str | None = None, token: str | None = None) -> Plain: ...

    def get_device_info(self, lib: str | None = None, token: str | None = None) -> Plain: ...

    def get_dynamic_backend_info(
        self,
        calibration_set_id: str | None = None,
        lib: str | None = None,
        token: str | None = None,
    ) -> Plain: ...

    def get_calibration_snapshot(
        self,
        calibration_set_id: str | None = None,
        lib: str | None = None,
        token: str | None = None,
    ) -> Plain: ...

    def get_coupling_graph(
        self,
        calibration_set_id: str | None = None,
        lib: str | None = None,
        token: str | None = None,
    ) -> Plain: ...

    def capability_map(self, token: str | None = None) -> dict[str, list[str]]: ...

    def list_scheduler_allocations(
        self, token: str | None = None, filters: Plain | None = None
    ) -> list[Plain]: ...

    def get_telemetry_access_model(self, token: str | None = None) -> Plain: ...

    def get_capacity_snapshot(
        self,
        token: str | None = None,
        device_id: str | None = None,
        scope_id: str | None = None,
        access_class: str | None = None,
    ) -> Plain: ...

    def get_queue_metrics(
        self,
        token: str | None = None,
        device_id: str | None = None,
        access_class: str | None = None,
    ) -> Plain: ...

    def get_service_lifecycle_telemetry(
        self, token: str | None = None, access_class: str | None = None
    ) -> Plain: ...


class Control(Protocol):
    """Binding `control` of revision 2."""

    def test(self, token: str | None = None) -> Plain: ...

    def is_ready(self, token: str | None = None) -> Plain: ...

    def get_service_status(self, token: str | None = None) -> Plain: ...

    def get_service_summary(self, token: str | None = None) -> Plain: ...

    def reconcile_runtime_state(
        self, token: str | None = None, reason: str | None = None
    ) -> Plain: ...

    def shutdown(
        self,
        token: str | None = None,
        mode: str = "graceful",
        timeout_s: float | None = None,
        reason: str | None = None,
    ) -> Plain: ...


class SingleClass(Protocol):
    """Class of revision 1."""

    def query(self) -> Any: ...

    def reserve(self, svc: Any, client_ep: Any, *args: Any, **kwargs: Any) -> None: ...

    def release(self, services: Any = None) -> None: ...

    def test(self) -> str: ...

    def is_ready(self) -> bool: ...

    def sync_run(self, info: Plain) -> Plain: ...

    def async_run(self, info: Plain) -> str: ...

    def read_cq(self, cid: str | None = None) -> Plain: ...

    def peek_cq(self, cid: str | None = None) -> Plain: ...

    def delete_circuit(self, cid: str) -> None: ...

    def register_event_notification(
        self, ep: EventEndpoint, evtype: int | str, class_id: str
    ) -> None: ...

    def expire(self) -> bool:
        """Return whether an idle session has no open circuit and no unread completion, and so has
        ended."""

    def shutdown(self) -> None: ...
