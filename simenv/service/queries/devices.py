"""Pools described as devices: simulators by their memory, hardware by its worker's description.

Invariant: the last description of a pool's hardware stays valid while no worker runs. It is held
in memory only: a worker sends it at every start.
"""

from __future__ import annotations

import math

import msgspec

from simenv.errors import NotFoundError
from simenv.model import PoolSpec
from simenv.model.devices import DeviceInfo, DeviceKind
from simenv.scheduler.core.actions import Action
from simenv.scheduler.core.types import ClusterLimits
from simenv.scheduler.routing.engine_support import RoutingSnapshot, only_calls
from simenv.scheduler.scheduler import Scheduler
from simenv.scheduler.state.state import SchedulerState
from simenv.scheduler.views.infos import closed_pools
from simenv.service.devices.drifting import DriftingDevices
from simenv.service.devices.resolve import Documents, EmulatedDevices, Waiting
from simenv.service.journal.writer import Journal
from simenv.service.queries.query_queue import ReplySteps
from simenv.wire import codec
from simenv.wire.messages.queries import DeviceDescribed, GetDevices, NoiseStored, StoreNoise
from simenv.wire.messages.queries import Devices as DevicesReply


class DeviceRecords:
    """Used from the loop's thread."""

    def __init__(self, pools: tuple[PoolSpec, ...]) -> None:
        self._pools = pools
        self._holding = frozenset(pool.name for pool in pools if pool.provider)
        self._said: dict[str, DeviceInfo] = {}
        self.emulated: EmulatedDevices | None = None  # None: there are none

    @property
    def documents(self) -> Documents | None:
        """Noise documents of tasks."""
        return None if self.emulated is None else self.emulated.documents

    @property
    def drifting(self) -> DriftingDevices | None:
        """The devices of pools that drift."""
        return None if self.emulated is None else self.emulated.drifting

    def described(self, pool: str, info: DeviceInfo) -> bool:
        """A worker of this pool says what it holds; False if that pool holds no machine."""
        if pool not in self._holding:
            return False
        self._said[pool] = msgspec.structs.replace(info, name=pool)
        return True

    def take(self, scheduler: Scheduler, message: DeviceDescribed) -> list[Action]:
        """A worker says what it holds."""
        described = message.name, message.epoch, message.start, message.device
        pool, actions = scheduler.device_described(*described)
        if pool:
            self.described(pool, message.device)
        return actions

    def drifted(self, wall_ns: int, scheduler: Scheduler) -> tuple[list[Action], float]:
        """What changed of devices that drift, and the seconds until the next change."""
        drifting = self.drifting
        if drifting is None:
            return [], math.inf
        actions = list(drifting.tick(wall_ns, scheduler))
        return actions, 1e-9 * max(0, drifting.next_ns(wall_ns) - wall_ns)

    def of(self, pool: str) -> DeviceInfo | None:
        """The machine of a pool; None if none is known."""
        return self._said.get(pool)

    def named(self, name: str) -> DeviceInfo:
        """An emulated device, or that of a pool. Raises NotFoundError, OptionError, Waiting."""
        if self.emulated is None:
            raise NotFoundError(f"there is no device {name[:64]!r}", hint="no devices are emulated")
        return msgspec.structs.replace(self.emulated.info(name), name=name)

    def all(self, limits: ClusterLimits) -> list[DeviceInfo]:
        """Every pool that was asked for and runs circuits, in that order. Raises Waiting while an
        emulated device is being read, NotFoundError and OptionError where it cannot be."""
        return [self._device(pool, limits) for pool in self._pools if not only_calls(pool)]

    def _device(self, pool: PoolSpec, limits: ClusterLimits) -> DeviceInfo:
        said = self._said.get(pool.name)
        if said is not None:
            return said
        if pool.name in self._holding:
            return _silent(pool.name)
        if pool.device and self.emulated is not None:
            return msgspec.structs.replace(self.emulated.info(pool.name), name=pool.name)
        from simenv.service.queries.engines import ideal

        return ideal(pool, limits)

    @property
    def infos(self) -> tuple[DeviceInfo, ...]:
        """All machines that have said what they are."""
        return tuple(self._said.values())


def _silent(pool: str) -> DeviceInfo:
    """A machine that has not said yet what it is."""
    return DeviceInfo(pool, DeviceKind.HARDWARE, "", "", "", "", 0, 0, (), all_to_all=False)


def seen(state: SchedulerState, devices: DeviceRecords) -> RoutingSnapshot:
    """What routing is told of this moment."""
    return RoutingSnapshot(devices.infos, closed_pools(state))


def described(devices: DeviceRecords, limits: ClusterLimits, message: GetDevices) -> ReplySteps:
    """Every pool as a device, or one emulated device whether a pool holds it or not, or the names
    of all devices that can be emulated."""
    if message.names:
        names_future = None if devices.emulated is None else devices.emulated.registry.names()
        while names_future is not None and not names_future.done():
            yield names_future
        names = (
            []
            if names_future is None
            else [(name, str(at)) for name, at in names_future.result().items()]
        )
        yield codec.encode(DevicesReply(message.request, [], names))
        return
    while True:
        try:
            result = [devices.named(message.name)] if message.name else devices.all(limits)
        except Waiting as waiting:
            yield waiting.future
            continue
        yield codec.encode(DevicesReply(message.request, result))
        return


def store_noise(
    devices: DeviceRecords, journal: Journal, owner: str, message: StoreNoise
) -> ReplySteps:
    """Answered when the document is stored."""
    emulated = devices.emulated
    assert emulated is not None
    checked = emulated.registry.check(message.body)
    while not checked.done():
        yield checked
    result = checked.result()
    emulated.documents.keep(result.digest, result.body, owner)
    journal.commit()
    yield codec.encode(NoiseStored(message.request, result.digest))
