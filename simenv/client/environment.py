"""Queries and administration of an environment: the part of `Client` that submits nothing.

Invariant: a method that changes the environment returns its new state after it was stored.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from html import escape
from typing import TYPE_CHECKING, Any, SupportsIndex, Unpack

from simenv.client.connection.address import Address
from simenv.client.connection.liveness import LOST_S
from simenv.client.connection.remote_address import KeyFileAddress
from simenv.client.connection.session import ServiceSession
from simenv.client.devices.choice import SubmitDevices
from simenv.client.devices.service import ServiceDevices
from simenv.client.history import TaskHistory
from simenv.client.policies import PolicySettings
from simenv.client.reservations import (
    LeaseRenewer,
    Reservation,
    asked,
    checked_reservation,
    decided,
    listed,
)
from simenv.client.results import notebook
from simenv.client.tasks.parts import KEEP_S, PartOptions, PartTask, submit_part
from simenv.errors import NotFoundError, OptionError, SimenvError
from simenv.model import (
    DeviceInfo,
    Event,
    NodeInfo,
    OwnerReport,
    PoolInfo,
    ReservationInfo,
    ServiceInfo,
    WorkerInfo,
)
from simenv.model.devices import CalibrationSource
from simenv.model.owners import check_value
from simenv.transpiler.limits import SEED
from simenv.wire.messages import client as m
from simenv.wire.messages.admin import (
    MAX_WORKERS,
    DrainNode,
    GetLimits,
    GetPools,
    OwnerReports,
    Pools,
    ResumeNode,
    Scale,
    SetLimits,
)
from simenv.wire.messages.queries import CollectGarbage, Devices, GarbageCollected, GetDevices

if TYPE_CHECKING:
    from simenv.client.calls.functions import FunctionExecutor
    from simenv.client.calls.tasks import CallOptions, CallTask
    from simenv.client.keys import KeyStore

MAX_REASON_CHARS = 500
SHOWN_S = 0.5  # within which the service answers, for showing only


class Environment:
    """Thread-safe."""

    def __init__(
        self, where: Address, timeout_s: float = LOST_S, *, as_client: bool = False
    ) -> None:
        self._where = where
        self._session = ServiceSession(where, timeout_s, as_client=as_client)
        self._devices = SubmitDevices(ServiceDevices(self._session))
        self._renewer = LeaseRenewer()
        self.history = TaskHistory(self._session)  # what the journal keeps of it

    @property
    def name(self) -> str:
        """The environment's name."""
        return self._session.channel.name

    @property
    def service(self) -> str:
        """What SIMENV_SERVICE must hold for another process to find it: its connection file."""
        return str(self._where.path)

    @property
    def session(self) -> ServiceSession:
        """The connection; for frontends that send messages of their own."""
        return self._session

    @property
    def submit_devices(self) -> SubmitDevices:
        """What this client knows of devices, and its compilers; for frontends."""
        return self._devices

    # --- how it is ----------------------------------------------------------------------------

    def status(self) -> ServiceInfo:
        """Is it well? Figures of service, queue, pools and nodes."""
        return self._session.request(m.Status, m.GetStatus).info

    def workers(self) -> list[WorkerInfo]:
        """The resident simulators."""
        return self._session.request(m.Workers, m.GetWorkers).workers

    def pools(self) -> dict[str, PoolInfo]:
        """The pools, by name; also those that were made for programs too big for one worker."""
        return {pool.name: pool for pool in self._session.request(Pools, GetPools).pools}

    def devices(self) -> dict[str, DeviceInfo]:
        """The pools as devices, by name: qubits, gates, couplings, and of machines what was
        measured. One whose machine has not told yet what it is has 0 qubits. `device_names` has
        those that `device=` takes besides."""
        return {
            device.name: device for device in self._session.request(Devices, GetDevices).devices
        }

    def device_names(self) -> dict[str, CalibrationSource]:
        """The names that `device=` takes, sorted, with the source of each: imported, bundled or
        qiskit-ibm-runtime. No calibration data is read; `device(name)` describes one."""
        result = self._session.request(Devices, partial(GetDevices, names=True)).names
        return {name: CalibrationSource(source) for name, source in result}

    def device(self, name: str) -> DeviceInfo:
        """An emulated device by its name, or that of a pool: as it is calibrated now. Raises
        NotFoundError, OptionError."""
        return self._devices.info(name)

    # --- work beside circuits -----------------------------------------------------------------

    def transpile(
        self,
        circuits: Any,
        device: str,
        *,
        level: SupportsIndex | None = None,
        seed: SupportsIndex = SEED,
        **options: Unpack[CallOptions],
    ) -> Any:
        """A QuantumCircuit, or a list of them, in the native gates of a device, on its qubits;
        compiled by the workers of the environment, a few circuits in each task.

        `device`: its name, or that of a pool that holds one. `level`: 0 to 3 is what
        `qiskit.transpile` gives at that optimization level for the device's Target and
        `seed_transpiler=seed`; None: what `submit` makes of the circuit for that device. The result
        is a function of circuit, calibration, level, seed and the workers' Qiskit alone. `options`:
        pool, priority, queue_timeout_s, run_timeout_s, reservation, after, name, idempotency_key,
        as in `submit`.

        Raises ProgramError, NotFoundError, OptionError, LimitExceededError, TaskFailedError.
        """
        from simenv.client.calls.transpile import transpile

        several = isinstance(circuits, list | tuple)
        info = self._devices.info(device)
        asked = list(circuits) if several else [circuits]
        result = transpile(self._session, info, asked, level, seed, options)
        return result if several else result[0]

    def submit_part(
        self, circuit: Any, *, keep_s: float = KEEP_S, **options: Unpack[PartOptions]
    ) -> PartTask:
        """Submit the first part of a circuit, which runs once; its state stays with its worker for
        `keep_s` seconds. The program decides by `measured` what `submit`, `run` and `submit_part`
        of the PartTask go on with. A function of circuits, seed and precision alone.

        `options`: seed, engine, precision, pool, priority, queue_timeout_s, run_timeout_s,
        reservation, after, name, idempotency_key, as in `submit`; noise there is none. Raises as
        `submit`.
        """
        return submit_part(self._session, circuit, keep_s, options)

    def functions(self, **options: Unpack[CallOptions]) -> FunctionExecutor:
        """An executor that calls Python functions in workers of a pool of engine `functions`.

        For the environment's own user alone, in an environment that was brought up with such a
        pool. `options`: of every call, as for `transpile`. Raises NotAllowedError.
        """
        from simenv.client.calls.functions import FunctionExecutor

        return FunctionExecutor(self._session, isinstance(self._where, KeyFileAddress), options)

    def call(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> CallTask:
        """Call a function in a worker: a future of what it returns; see `functions`."""
        return self.functions().submit(function, *args, **kwargs)

    def map(self, function: Callable[..., Any], /, *iterables: Iterable[Any]) -> list[CallTask]:
        """Call a function for each of the items, taken together as by `zip`: futures, in order."""
        return self.functions().submit_many(function, *iterables)

    # --- how it is, in detail -----------------------------------------------------------------

    def nodes(self) -> dict[str, NodeInfo]:
        """The machines of the allocation, by name."""
        return _by_name(self._session.request(Pools, GetPools))

    def events(self, since: int = 0, kinds: Sequence[str] | None = None) -> Iterator[Event]:
        """What has happened after event `since`, up to now. `kinds`: patterns like `worker.*`."""
        return self.history.events(since, kinds)

    @property
    def policies(self) -> PolicySettings:
        """How pools order their queues and admit reservations."""
        return PolicySettings(self._session)

    # --- limits -------------------------------------------------------------------------------

    def limits(self) -> dict[str, OwnerReport]:
        """Limits and use, by owner: of all for an admin, else of one's own. "" is the
        environment's own user, who has no limits."""
        result = self._session.request(OwnerReports, GetLimits).owners
        return {report.owner: report for report in result}

    def set_limits(
        self, owner: str, values: Mapping[str, int] | None = None, *, reset: bool = False
    ) -> OwnerReport:
        """Change some limits of the owner of a key; they last, also over restarts.

        `values`: fields of OwnerLimits; 0 means no limit. `reset`: first forget what was set
        before. Raises NotFoundError, OptionError, NotAllowedError.
        """
        settings = dict(values or {})
        for key, value in settings.items():
            check_value(key, value)
        ask = partial(SetLimits, owner=owner, values=settings, reset=reset)
        result = self._session.request(OwnerReports, ask).owners
        return next(report for report in result if report.owner == owner)

    # --- reserving ----------------------------------------------------------------------------

    def reserve(
        self,
        pool: str | None = None,
        *,
        workers: SupportsIndex = 0,
        for_s: float = 600.0,
        bound_s: float | None = None,
        count: SupportsIndex = 1,
        qubits: SupportsIndex = 0,
        depth: SupportsIndex = 0,
        gates_1q: SupportsIndex = 0,
        gates_2q: SupportsIndex = 0,
        measurements: SupportsIndex = 0,
        shots: SupportsIndex = 0,
        timeout_s: float | None = None,
    ) -> Reservation:
        """A claim on a pool, or on the whole environment, for `for_s` seconds unless it is renewed.

        `count` circuits of so many qubits, gates, measurements and shots are what it is for: what
        that costs is decided by the pool's admission policy. `workers` are kept for it alone, and
        `bound_s` is the time within which its tasks should begin. Where it must wait for others,
        this waits up to `timeout_s` seconds (None: as long as it takes).

            with client.reserve("main", count=100, gates_2q=20, shots=1024) as mine:
                client.submit(circuit, reservation=mine)

        In a `with` block it is renewed, and released at the end. Raises NotReservedError when it
        can never be had, OptionError, TimedOutError.
        """
        sizes = (count, qubits, depth, gates_1q, gates_2q, measurements, shots)
        ask = asked(pool, for_s, workers, bound_s, sizes)
        number = decided(self._session, ask, timeout_s).reservation
        return Reservation(self._session, self._renewer, listed(self._session, number)[0], for_s)

    def reservations(self) -> list[ReservationInfo]:
        """One's own, also those that were over within the last hour; for admins: everybody's."""
        return listed(self._session)

    def reservation(self, number: SupportsIndex) -> Reservation:
        """One that was made here or by another process; it is renewed as long as it was made for.
        Raises NotReservedError."""
        info = listed(self._session, checked_reservation(number))[0]
        for_s = max(1, info.expires_ns - info.created_ns) / 1e9
        return Reservation(self._session, self._renewer, info, for_s)

    # --- steering it; for admins --------------------------------------------------------------

    def scale(
        self,
        pool: str,
        workers: SupportsIndex | None = None,
        *,
        min_workers: SupportsIndex | None = None,
        max_workers: SupportsIndex | None = None,
        force: bool = False,
    ) -> PoolInfo:
        """Set the number of workers of a pool: `workers` always, or `min_workers` and, while tasks
        wait, up to `max_workers`; the bound that is not given stays as it is.

        Returns the pool as it is afterwards. The setting lasts over restarts of the service. A
        worker too many ends when its task has ended. `force`: also more workers than the nodes
        hold, for tests.

        Raises OptionError, NotFoundError, NotAllowedError, LimitExceededError where so many do not
        fit.
        """
        if (workers is None) == (min_workers is None and max_workers is None):
            raise OptionError(
                f"scale({pool!r:.80}): how many workers?",
                hint="workers=4, or min_workers=1, max_workers=8",
            )
        now = self._session.request(Pools, GetPools)
        before = next((each for each in now.pools if each.name == pool), None)
        if before is None:
            names = ", ".join(each.name for each in now.pools)
            raise NotFoundError(f"no pool {pool!r:.80} here", hint=f"there are: {names}")
        if workers is not None:
            low = high = _count("workers", workers)
            high = max(1, high)
        else:
            low = before.least if min_workers is None else _count("min_workers", min_workers)
            high = max(before.most, low)
            if max_workers is not None:
                high = _count("max_workers", max_workers)
        if not low <= high or high < 1:
            raise OptionError(
                f"scale({pool!r}): min_workers={low}, max_workers={high}",
                hint="0 <= min_workers <= max_workers, 1 <= max_workers",
            )
        ask = partial(Scale, pool=pool, least=low, most=high, force=force)
        done = self._session.request(Pools, ask)
        return next(each for each in done.pools if each.name == pool)

    def drain(self, node: str, reason: str) -> NodeInfo:
        """Start nothing more on a node; what runs there is finished, then its workers end.

        It lasts until `undrain`, also over restarts of the service. Raises OptionError,
        NotFoundError, NotAllowedError.
        """
        ask = partial(DrainNode, node=node, reason=_reason(reason))
        return _by_name(self._session.request(Pools, ask))[node]

    def undrain(self, name: str) -> NodeInfo | PoolInfo:
        """Use a drained or lost node again, or a pool that was quarantined after its workers
        failed. Raises NotFoundError, NotAllowedError."""
        done = self._session.request(Pools, partial(ResumeNode, name=name))
        nodes = _by_name(done)
        return nodes[name] if name in nodes else {pool.name: pool for pool in done.pools}[name]

    @property
    def keys(self) -> KeyStore:
        """The keys by which other computers may connect."""
        from simenv.client.keys import ServiceKeyStore

        return ServiceKeyStore(self._session)

    def prune(self, older_than_s: float | None = None, dry_run: bool = False) -> GarbageCollected:
        """Give up what is kept of tasks that ended longer ago, or without a say of what the limits
        of the configuration no longer allow; what that freed, and what is left.

        `dry_run`: only say what would go. Tasks that have not ended are never touched.
        """
        older_s = -1.0 if older_than_s is None else max(0.0, older_than_s)
        return self._session.request(
            GarbageCollected, partial(CollectGarbage, older_s=older_s, dry=dry_run)
        )

    def _repr_html_(self) -> str:
        """What a notebook shows: the pools and what waits in them; brief when nobody answers."""
        try:
            info = self._session.request(m.Status, m.GetStatus, SHOWN_S).info
        except SimenvError:
            return escape(repr(self))
        return notebook.client_html(info)

    def shutdown(self, now: bool = False, timeout_s: float | None = None) -> m.Stopping:
        """End the service: finish what runs, keep what waits. `now`: what runs waits as well."""
        return self._session.request(m.Stopping, partial(m.Shutdown, now=now), timeout_s)


def _by_name(pools: Pools) -> dict[str, NodeInfo]:
    return {node.name: node for node in pools.nodes}


def _reason(reason: object) -> str:
    if not isinstance(reason, str) or not 0 < len(reason.strip()) <= MAX_REASON_CHARS:
        raise OptionError(
            f"reason={reason!r:.80}",
            hint=f"1 to {MAX_REASON_CHARS} characters, for whoever finds the node drained",
        )
    return reason


def _count(what: str, value: SupportsIndex) -> int:
    try:
        count = operator.index(value)
    except TypeError:
        count = -1
    if isinstance(value, bool) or not 0 <= count <= MAX_WORKERS:
        raise OptionError(f"{what}={value!r:.80}", hint=f"a whole number from 0 to {MAX_WORKERS}")
    return count
