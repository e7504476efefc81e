"""Pools described as devices: simulators by their memory, hardware by its worker's description.

Invariant: the last description of a pool's hardware stays valid while no worker runs. It is held
in memory only: a worker sends it at every start.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import suppress
from typing import Any

import msgspec

from simenv.errors import NotFoundError, OptionError
from simenv.model import DeviceInfo, DeviceKind, PoolSpec
from simenv.scheduler.core import Action, ClusterLimits
from simenv.scheduler.reservations.circuit_times import DeviceFigures, figures_of
from simenv.scheduler.routing.engine_support import RoutingSnapshot, runs_only_calls
from simenv.scheduler.scheduler import Scheduler
from simenv.scheduler.state.scheduler_state import SchedulerState
from simenv.scheduler.views.cluster_info import closed_pools
from simenv.service.devices.calibration_log import CalibrationLog
from simenv.service.devices.drifting import DriftingDevices
from simenv.service.devices.refresh import DeviceRefreshes
from simenv.service.devices.registry import EmulatedDevice
from simenv.service.devices.resolve import DocumentPending, Documents, EmulatedDevices
from simenv.service.journal.writer import Journal
from simenv.service.queries.query_queue import ReplySteps
from simenv.wire import codec
from simenv.wire.messages import queries


class DeviceRecords:
    """Descriptions of the devices of all pools. Used from the loop's thread."""

    def __init__(self, pools: tuple[PoolSpec, ...]) -> None:
        self._pools = pools
        self._holding = frozenset(pool.name for pool in pools if pool.provider)
        self._descriptions: dict[str, DeviceInfo] = {}
        self.emulated: EmulatedDevices | None = None  # None: there are none
        self.known: CalibrationLog | None = None  # None: it is not open yet
        self.refreshes: DeviceRefreshes | None = None  # None: no device has a command for that
        self._emulating = frozenset(pool.name for pool in pools if pool.device)
        # By pool, with the description that they were computed of.
        self._figures: dict[str, tuple[DeviceInfo | EmulatedDevice, DeviceFigures]] = {}

    @property
    def documents(self) -> Documents | None:
        """Store of the noise documents of tasks; None without emulated devices."""
        return None if self.emulated is None else self.emulated.documents

    @property
    def drifting(self) -> DriftingDevices | None:
        """Drifting devices of pools; None without emulated devices."""
        return None if self.emulated is None else self.emulated.drifting

    def described(self, pool: str, info: DeviceInfo) -> bool:
        """Store the description of a pool's machine; False if the pool has no machine."""
        if pool not in self._holding:
            return False
        self._descriptions[pool] = msgspec.structs.replace(info, name=pool)
        return True

    def update(self, scheduler: Scheduler, message: queries.DeviceDescribed) -> list[Action]:
        """Take the description of a machine from its worker; returns the scheduler's actions."""
        described = message.name, message.epoch, message.start, message.device
        pool, actions = scheduler.device_described(*described)
        if pool:
            self.described(pool, message.device)
        return actions

    def drifted(self, wall_ns: int, scheduler: Scheduler) -> tuple[list[Action], float]:
        """Return the actions of drifting devices, and the seconds until their next change."""
        drifting = self.drifting
        if drifting is None:
            return [], math.inf
        actions = list(drifting.tick(wall_ns, scheduler))
        return actions, 1e-9 * max(0, drifting.next_ns(wall_ns) - wall_ns)

    def figures(self, pool: str) -> DeviceFigures | None:
        """Return the figures of a pool's machine or emulated device, for prices of reservations;
        None while they are not known."""
        source: DeviceInfo | EmulatedDevice | None = self._descriptions.get(pool)
        if source is None and self.emulated is not None and pool in self._emulating:
            with suppress(DocumentPending, NotFoundError, OptionError):
                source = self.emulated.calibrated(pool)
        if source is None:
            return None
        cached = self._figures.get(pool)
        if cached is None or cached[0] is not source:
            cached = self._figures[pool] = source, _figures(source)
        return cached[1]

    def measured(self) -> Iterator[tuple[str, DeviceInfo]]:
        """Yield the machines and emulated devices whose figures are known now, with their pools.
        The same object is yielded until the figures change."""
        yield from self._descriptions.items()
        for pool in sorted(self._emulating):
            if self.emulated is not None:
                with suppress(DocumentPending, NotFoundError, OptionError):
                    yield pool, self.emulated.info(pool)

    def reading(self, pool: str) -> Future[Any] | None:
        """Return the Future of the calibration of a pool that is being read; None if none is."""
        names = [pool] if pool else sorted(self._emulating)
        try:
            for name in self._emulating.intersection(names):
                if self.emulated is not None:
                    self.emulated.calibrated(name)
        except DocumentPending as waiting:
            return waiting.future
        except (NotFoundError, OptionError):
            pass  # a submit reports it
        return None

    def dates(self, name: str) -> Future[list[float]]:
        """Return the times of the stored calibrations of an emulated device or its pool. Raises
        OptionError, DocumentPending."""
        if self.emulated is not None:
            return self.emulated.dates(name)
        none: Future[list[float]] = Future()
        none.set_result([])
        return none

    def named(self, name: str, at_s: float = 0.0) -> DeviceInfo:
        """Return an emulated device by its name or by that of its pool, with its calibration at one
        of its `dates`; 0: the present one. Raises NotFoundError, OptionError, DocumentPending."""
        if self.emulated is None:
            raise NotFoundError(f"there is no device {name[:64]!r}", hint="no devices are emulated")
        try:
            info = self.emulated.dated(name, at_s) if at_s else self.emulated.info(name)
            is_pool = any(pool.name == name for pool in self._pools)
            return msgspec.structs.replace(info, name=name) if is_pool else info  # fez, for FakeFez
        except NotFoundError as error:
            if all(pool.name != name or pool.device for pool in self._pools):
                raise
            raise NotFoundError(
                error.message, hint=f"{name} is a pool without an emulated device: pool={name!r}"
            ) from error

    def all(self, limits: ClusterLimits) -> list[DeviceInfo]:
        """Return the devices of all configured pools that run circuits, in order; one that cannot
        be read has only the reason. Raises DocumentPending while an emulated device is being read.
        """
        return [self._device(pool, limits) for pool in self._pools if not runs_only_calls(pool)]

    def _device(self, pool: PoolSpec, limits: ClusterLimits) -> DeviceInfo:
        description = self._descriptions.get(pool.name)
        if description is not None:
            return description
        if pool.name in self._holding:
            return _undescribed(pool.name, DeviceKind.HARDWARE)
        if pool.device and self.emulated is not None:
            try:
                return msgspec.structs.replace(self.emulated.info(pool.name), name=pool.name)
            except (NotFoundError, OptionError) as error:
                placeholder = _undescribed(pool.name, DeviceKind.EMULATED)
                return msgspec.structs.replace(placeholder, problem=error.message)
        from simenv.service.queries.engines import ideal

        return ideal(pool, limits)

    @property
    def infos(self) -> tuple[DeviceInfo, ...]:
        """Descriptions of all machines that have one."""
        return tuple(self._descriptions.values())


def _figures(source: DeviceInfo | EmulatedDevice) -> DeviceFigures:
    if isinstance(source, DeviceInfo):
        return figures_of(source)
    from noise_models.calibration import CalibrationSnapshot

    info, snapshot = source.info, source.document
    assert info is not None  # it is a device
    assert isinstance(snapshot, CalibrationSnapshot)
    reset_ns = snapshot.reset_ns(range(info.num_qubits))
    return figures_of(info, reset_ns, snapshot.overhead_ns)


def _undescribed(pool: str, kind: DeviceKind) -> DeviceInfo:
    """Return a placeholder for a device without a description."""
    return DeviceInfo(pool, kind, "", "", "", "", 0, 0, (), all_to_all=False)


def routing_snapshot(state: SchedulerState, devices: DeviceRecords) -> RoutingSnapshot:
    """Return the present state of pools and machines for routing."""
    return RoutingSnapshot(devices.infos, closed_pools(state))


def described(
    devices: DeviceRecords, limits: ClusterLimits, message: queries.GetDevices
) -> ReplySteps:
    """Answer GetDevices: all pools as devices, or one emulated device, also without a pool of it,
    or the dates of its calibrations, or the names of all devices that can be emulated."""
    if message.names:
        names_future = None if devices.emulated is None else devices.emulated.registry.names()
        while names_future is not None and not names_future.done():
            yield names_future
        names = (
            []
            if names_future is None
            else [(name, str(at)) for name, at in names_future.result().items()]
        )
        yield codec.encode(queries.Devices(message.request, [], names))
        return
    known = devices.known
    assert known is not None
    if message.known and message.calibration_id:
        info = known.read(message.name, message.calibration_id)
        yield codec.encode(queries.Devices(message.request, [info]))
        return
    if message.known:
        told = [(number, str(time_s)) for number, time_s in known.ids(message.name).items()]
        yield codec.encode(queries.Devices(message.request, [], told))
        return
    if message.calibration_id:
        yield from _recorded(devices, message)
        return
    while True:
        try:
            if message.dates:
                dates_future = devices.dates(message.name)
                break
            name = message.name
            result = [devices.named(name, message.at_s)] if name else devices.all(limits)
        except DocumentPending as waiting:
            yield waiting.future
            continue
        if not message.at_s:
            for each in result:
                known.record(each)
        yield codec.encode(queries.Devices(message.request, result))
        return
    while not dates_future.done():
        yield dates_future
    yield codec.encode(queries.Devices(message.request, [], [], dates_future.result()))


def _recorded(devices: DeviceRecords, message: queries.GetDevices) -> ReplySteps:
    """Answer with the stored calibration of a device that has an id, and its noise document."""
    if devices.emulated is None:
        raise NotFoundError(f"there is no device {message.name[:64]!r}")
    future = devices.emulated.recorded(message.name, message.calibration_id)
    while not future.done():
        yield future
    found = future.result()
    assert found.info is not None  # the registry contains devices only
    info = msgspec.structs.replace(found.info, name=message.name)
    yield codec.encode(queries.Devices(message.request, [info], document=found.body))


def store_noise(
    devices: DeviceRecords, journal: Journal, owner: str, message: queries.StoreNoise
) -> ReplySteps:
    """Check and store a noise document; the answer follows its commit."""
    emulated = devices.emulated
    assert emulated is not None
    checked = emulated.registry.check(message.body, owner)
    while not checked.done():
        yield checked
    result = checked.result()
    emulated.documents.add(result.digest, result.body, owner)
    journal.commit()
    yield codec.encode(queries.NoiseStored(message.request, result.digest))
