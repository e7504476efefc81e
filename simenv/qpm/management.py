"""Protocols of the bindings of revision 2 that manage a QPM: reservations, admission policy and
scheduler.

As in `bindings`, every argument has a default, all methods are thread-safe, and answers are plain
data; see `admission` and `scheduler`. `device_id`: a device's name or number; None: the target as a
whole.
"""

from __future__ import annotations

from typing import Protocol

from simenv.qpm.bindings import Plain

Device = str | int


class Admission(Protocol):
    """Binding `admission` of revision 2: reservations of the calling owner."""

    def evaluate(self, token: str | None = None, request: Plain | None = None) -> Plain: ...

    def reserve(self, token: str | None = None, request: Plain | None = None) -> Plain: ...

    def renew(
        self,
        token: str | None = None,
        reservation_id: int | None = None,
        request: Plain | None = None,
    ) -> Plain: ...

    def release(
        self,
        token: str | None = None,
        reservation_id: int | None = None,
        reason: str | None = None,
    ) -> Plain: ...

    def cancel(
        self,
        token: str | None = None,
        reservation_id: int | None = None,
        reason: str | None = None,
    ) -> Plain: ...

    def get_reservation(
        self, token: str | None = None, reservation_id: int | None = None
    ) -> Plain: ...

    def list_reservations(
        self, token: str | None = None, filters: Plain | None = None
    ) -> list[Plain]: ...


class AdmissionPolicyProtocol(Protocol):
    """Binding `admission-policy` of revision 2: rules by which reservations are decided."""

    def configure_device_profile(
        self,
        token: str | None = None,
        device_id: Device | None = None,
        profile: Plain | None = None,
    ) -> Plain: ...

    def get_device_profile(
        self, token: str | None = None, device_id: Device | None = None
    ) -> Plain: ...

    def set_admission_policy(
        self,
        token: str | None = None,
        device_id: Device | None = None,
        configuration: Plain | None = None,
    ) -> Plain: ...

    def get_admission_policy(
        self, token: str | None = None, device_id: Device | None = None
    ) -> Plain: ...


class SchedulerProtocol(Protocol):
    """Binding `scheduler` of revision 2: queue policy, pause and drain of a device."""

    def get_scheduler_status(
        self, token: str | None = None, device_id: Device | None = None
    ) -> Plain: ...

    def get_scheduler_policy(
        self, token: str | None = None, device_id: Device | None = None
    ) -> Plain: ...

    def get_scheduler_queue_state(
        self,
        token: str | None = None,
        device_id: Device | None = None,
        include_restricted: bool = False,
    ) -> Plain: ...

    def configure_scheduler_policy(
        self,
        token: str | None = None,
        device_id: Device | None = None,
        configuration: Plain | None = None,
    ) -> Plain: ...

    def pause_execution_target(
        self,
        token: str | None = None,
        device_id: Device | None = None,
        reason: str | None = None,
    ) -> Plain: ...

    def resume_execution_target(
        self,
        token: str | None = None,
        device_id: Device | None = None,
        reason: str | None = None,
    ) -> Plain: ...

    def calibrate_execution_target(  # an extension: the contract names no calibration
        self,
        token: str | None = None,
        device_id: Device | None = None,
        reason: str | None = None,
    ) -> Plain: ...

    def drain_execution_target(
        self,
        token: str | None = None,
        device_id: Device | None = None,
        mode: str = "graceful",
        timeout_s: float | None = None,
    ) -> Plain: ...

    def configure_dispatch_limits(
        self,
        token: str | None = None,
        device_id: Device | None = None,
        limits: Plain | None = None,
    ) -> Plain: ...
