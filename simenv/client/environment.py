"""Queries and administration of an environment: the base class of `Client`, without submission.

Invariant: a method that changes the environment returns its new state after it was stored.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from html import escape
from typing import TYPE_CHECKING, Any, SupportsIndex, Unpack, overload

from simenv import model
from simenv.client import reservations as client_reservations, result_display
from simenv.client.administration.accounts import EntitySettings
from simenv.client.administration.policies import PolicySettings
from simenv.client.administration.tokens import TokenSettings
from simenv.client.connection.address import Address, FileAddress, KeyFileAddress
from simenv.client.connection.channel import LOST_S
from simenv.client.connection.session import ServiceSession
from simenv.client.history import TaskHistory
from simenv.client.jobs import JobRecords
from simenv.client.submission.devices import SubmitDevices, check_fractional
from simenv.client.submission.options import with_options_of
from simenv.client.submission.parts import KEEP_S, PartTask, submit_part
from simenv.client.tasks.task import Task, number_of
from simenv.config import check_name, running_gateway
from simenv.errors import NotFoundError, OptionError, SimenvError
from simenv.model.accounts import Account, Qos, Receipt, ShareRow
from simenv.model.devices import CalibrationSource, DeviceInfo
from simenv.model.limits import check_value
from simenv.model.options import CallOptions, PartOptions
from simenv.model.reservations import CalendarEntry
from simenv.model.task_rules import MAX_REASON_CHARS, MAX_WORKERS, checked_integer
from simenv.transpiler.qiskit_runtime import SEED
from simenv.wire.messages import accounting, admin, client as m, queries
from simenv.wire.messages.metrics import GetMetrics, Metrics, SetDeviceFigure

if TYPE_CHECKING:
    from simenv.client.administration.keys import KeyStore
    from simenv.client.reservations import ReserveOptions
    from simenv.client.submission.calls import CallTask, FunctionExecutor
    from simenv.client.submission.machine import Machine
    from simenv.transpiler.qpu_programs.join import JoinedPrograms
    from simenv.transpiler.qpu_programs.program import QPUProgram


class ServiceDevices:
    """DeviceSource that asks the service."""

    def __init__(self, session: ServiceSession) -> None:
        self._session = session

    def device(self, name: object) -> DeviceInfo:
        """Return an emulated device, or that of a pool. Raises NotFoundError, OptionError."""
        if not isinstance(name, str) or not name:
            raise OptionError(f"device={name!r:.80}", hint="a name of client.device_names()")
        return self._session.request(queries.GetDevices(0, name=name)).devices[0]

    def devices(self) -> dict[str, DeviceInfo]:
        """Return the pools as devices, by name."""
        result = self._session.request(queries.GetDevices(0)).devices
        return {device.name: device for device in result}

    def store(self, document: bytes) -> str:
        """Store a noise document; return its digest in hexadecimal. Raises OptionError,
        LimitExceededError."""
        return self._session.request(queries.StoreNoise(0, body=document)).digest


SHOWN_S = 0.5  # timeout of requests for `repr` and notebooks


class Environment:
    """Queries and administration of one environment. Thread-safe."""

    def __init__(
        self, address: Address, timeout_s: float = LOST_S, *, as_client: bool = False
    ) -> None:
        self._address = address
        self._is_isolated = False  # whether accounts are, once it was asked
        self._session = ServiceSession(address, timeout_s, as_client=as_client)
        self._devices = SubmitDevices(ServiceDevices(self._session))
        self._renewer = client_reservations.LeaseRenewer()
        self.history = TaskHistory(self._session)  # tasks and events in the journal

    @property
    def name(self) -> str:
        """The environment's name."""
        return self._session.channel.service.name

    @property
    def service(self) -> str:
        """Path of the connection file: the value of SIMENV_SERVICE for other processes."""
        return str(self._address.path)

    @property
    def dashboard(self) -> str | None:
        """Address of the web page of the environment, for a key file that which it names; None if
        no gateway runs on this machine for it, or the key file names none. `simenv web` prints a
        link that signs a browser in."""
        url = ""
        if isinstance(self._address, KeyFileAddress):
            url = self._address.gateway
        elif isinstance(self._address, FileAddress):
            gateway = running_gateway(self._address.path.absolute().parent)
            url = "" if gateway is None else gateway.url
        return f"{url}/ui/" if url else None

    @property
    def session(self) -> ServiceSession:
        """Connection to the service, for frontends that send messages of their own."""
        return self._session

    @property
    def submit_devices(self) -> SubmitDevices:
        """Devices and compilers that submissions of this client use; for frontends."""
        return self._devices

    def status(self) -> model.ServiceInfo:
        """Return the figures of service, queue, pools and nodes."""
        return self._session.request(m.GetStatus(0)).info

    def metrics(self) -> Metrics:
        """Return what the service has counted since its start, and the state of pools, nodes,
        devices and accounts: the source of `/metrics`. For administrators."""
        return self._session.request(GetMetrics(0))

    def record_device_figure(self, device: str, figure: str, value: float) -> None:
        """Record a figure of a pool's device for `metrics` and its stored series: `certified`, the
        part of the claims that a certificate confirmed, or `score`; 0.0 to 1.0. For administrators.
        Raises NotFoundError, OptionError."""
        self._session.request(SetDeviceFigure(0, device, figure, value))

    def workers(self) -> list[model.WorkerInfo]:
        """Return the resident workers."""
        return self._session.request(m.GetWorkers(0)).workers

    def pools(self, timeout_s: float | None = None) -> dict[str, model.PoolInfo]:
        """Return the pools by name; also those that were made for programs too large for a worker.
        Raises TimedOutError without an answer within `timeout_s`."""
        return _pools_by_name(self._session.request(admin.GetPools(0), timeout_s))

    def devices(self) -> dict[str, DeviceInfo]:
        """Return the pools as devices, by name: qubits, gates, couplings and, for machines,
        measured properties. A machine that has not described itself yet has 0 qubits."""
        return ServiceDevices(self._session).devices()

    def device_names(self) -> dict[str, CalibrationSource]:
        """Return the names that `device=` accepts, sorted, with the source of each: imported,
        bundled or qiskit-ibm-runtime. No calibration data is read; `device(name)` describes one."""
        result = self._session.request(queries.GetDevices(0, names=True)).names
        return {name: CalibrationSource(source) for name, source in result}

    def device(self, name: str, at_s: float | None = None) -> DeviceInfo:
        """Return an emulated device, or the device of a pool, with its present calibration;
        `at_s`: with that of one of `calibrations(name)`. Raises NotFoundError, OptionError."""
        if at_s is None:
            return self._devices.info(name)
        return self._session.request(queries.GetDevices(0, name, at_s=at_s)).devices[0]

    def device_name(self, machine: Machine) -> str:
        """Store a machine, and return its name for `device=` of every interface. Raises OptionError
        for devices, qubits or values that cannot be."""
        name = self._devices.named(machine)
        assert name is not None
        return name

    def calibrations(self, name: str) -> list[float]:
        """Return since when each stored calibration of an emulated device was in force, in seconds
        since 1970, the oldest first: of a device that is refreshed or drifts; else none."""
        return self._session.request(queries.GetDevices(0, name, dates=True)).dates_s

    def recorded_device(self, name: str, calibration_id: str) -> tuple[DeviceInfo, bytes]:
        """Return an emulated device, or that of a pool, with the stored calibration that has this
        id, and its noise document, for `noise=` of a submission. Raises NotFoundError,
        OptionError."""
        asked = queries.GetDevices(0, name, calibration_id=calibration_id)
        found = self._session.request(asked)
        return found.devices[0], found.document

    def known_calibrations(self, name: str) -> dict[str, float]:
        """Return the ids of the calibrations of a device or pool that clients have seen, with their
        times in seconds since 1970, the oldest first."""
        found = self._session.request(queries.GetDevices(0, name, known=True))
        return {number: float(time_s) for number, time_s in found.names}

    def known_device(self, name: str, calibration_id: str) -> DeviceInfo:
        """Return a device or pool with one of `known_calibrations(name)`. Raises NotFoundError."""
        asked = queries.GetDevices(0, name, calibration_id=calibration_id, known=True)
        return self._session.request(asked).devices[0]

    def transpile(
        self,
        circuits: Any,
        device: str,
        *,
        level: SupportsIndex | None = None,
        seed: SupportsIndex = SEED,
        fractional_gates: bool = False,
        **options: Unpack[CallOptions],
    ) -> Any:
        """Compile a QuantumCircuit, or a list of them, to the native gates and qubits of a device.

        The workers of the environment compile, a few circuits in each task. `device`: its name, or
        a pool with one. `level`: 0 to 3 gives the result of `qiskit.transpile` at that optimization
        level for the device's Target and `seed_transpiler=seed`, without the qubits whose
        measurement hardly tells 0 from 1 where the others suffice; None: the circuit that `submit`
        would run. `fractional_gates`: compile to these too; with `level` None, where they are
        cheaper. The result depends only on circuit, calibration, level, seed and the workers'
        Qiskit. `options`: pool, priority, queue_timeout_s, run_timeout_s, reservation, account,
        qos, after, name, idempotency_key, as in `submit`.

        Raises ProgramError, NotFoundError, OptionError, LimitExceededError, TaskFailedError.
        """
        from simenv.client.submission.calls import transpile

        is_sequence = isinstance(circuits, list | tuple)
        info = self._devices.info(device)
        batch = list(circuits) if is_sequence else [circuits]
        if fractional_gates:
            check_fractional(info)
        result = transpile(self._session, info, batch, level, seed, fractional_gates, options)
        return result if is_sequence else result[0]

    def join(
        self, programs: Sequence[QPUProgram] | Mapping[str, QPUProgram], device: Machine | str
    ) -> JoinedPrograms:
        """Return one circuit of the programs of several QPUs, in native gates on the qubits of a
        device of linked modules: `run(joined.circuit, device=device)` runs it, and
        `joined.counts(result)` has the counts of each program.

        `programs`: by the names of modules; a sequence takes the modules in order. Raises
        ProgramError for programs that wait for one another, messages that are never received, and
        unknown names; NotFoundError, OptionError, LimitExceededError.
        """
        return self._devices.join(programs, device)

    def submit_part(
        self, circuit: Any, *, keep_s: float = KEEP_S, **options: Unpack[PartOptions]
    ) -> PartTask:
        """Submit the first part of a circuit. It runs once, and its worker keeps the state for
        `keep_s` seconds. By `measured` the program decides how `submit`, `run` and `submit_part` of
        the PartTask continue. Results depend only on circuits, seed and precision.

        `options`: seed, engine, precision, pool, priority, queue_timeout_s, run_timeout_s,
        reservation, after, name, idempotency_key, as in `submit`; there is no noise. Raises like
        `submit`.
        """
        return submit_part(self._session, circuit, keep_s, options)

    def functions(self, **options: Unpack[CallOptions]) -> FunctionExecutor:
        """Return an executor of Python functions in workers of a pool of engine `functions`. The
        environment must have been started with such a pool. The environment's own user may call
        functions, and with `isolation = "account"` the owners of keys, too: they trust the service
        with what they unpickle. `options`: of every call, as for `transpile`. Raises
        NotAllowedError."""
        from simenv.client.submission.calls import FunctionExecutor

        is_own = isinstance(self._address, FileAddress)
        owner = "" if is_own else getattr(self._address, "owner", "") or "user"
        if owner and not self._is_isolated:
            self._is_isolated = self.status().isolation == "account"
        return FunctionExecutor(self._session, owner, options, is_isolated=self._is_isolated)

    def call(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> CallTask:
        """Call a function in a worker; return a future of its return value. See `functions`."""
        return self.functions().submit(function, *args, **kwargs)

    def map(self, function: Callable[..., Any], /, *iterables: Iterable[Any]) -> list[CallTask]:
        """Call a function for each of the items, grouped as by `zip`; return futures, in order."""
        return self.functions().submit_many(function, *iterables)

    def nodes(self) -> dict[str, model.NodeInfo]:
        """Return the nodes of the allocation, by name."""
        return _by_name(self._session.request(admin.GetPools(0)))

    def events(self, since: int = 0, kinds: Sequence[str] | None = None) -> Iterator[model.Event]:
        """Iterate over the events after number `since`. `kinds`: patterns like `worker.*`."""
        return self.history.events(since, kinds)

    @property
    def jobs(self) -> JobRecords:
        """Durable jobs of the caller: for interfaces that group tasks under a name."""
        return JobRecords(self._session)

    @property
    def policies(self) -> PolicySettings:
        """Queue policies and admission policies of the pools."""
        return PolicySettings(self._session)

    @property
    def accounts(self) -> EntitySettings[Account]:
        """Accounts of the environment."""
        return EntitySettings(self._session, Account)

    @property
    def qos(self) -> EntitySettings[Qos]:
        """Classes of service of the environment."""
        return EntitySettings(self._session, Qos)

    @property
    def tokens(self) -> TokenSettings:
        """Bearer tokens of HTTP clients, which a gateway accepts."""
        return TokenSettings(self._session)

    def limits(self) -> dict[str, model.OwnerReport]:
        """Return limits and use by owner: of all owners for an admin, else of the client's own. ""
        is the environment's own user, who has no limits."""
        result = self._session.request(accounting.GetLimits(0)).owners
        return {report.owner: report for report in result}

    def set_limits(
        self, owner: str, values: Mapping[str, int] | None = None, *, reset: bool = False
    ) -> model.OwnerReport:
        """Change some limits of the owner of a key. They persist over restarts. `values`: fields of
        Limits; 0 means no limit. `reset`: first remove all settings made before. Raises
        NotFoundError, OptionError, NotAllowedError."""
        settings = dict(values or {})
        for key, value in settings.items():
            check_value(key, value)
        if owner:
            check_name(owner, "key")
        result = self._session.request(accounting.SetLimits(0, owner, settings, reset)).owners
        return next(report for report in result if report.owner == owner)

    def usage(
        self,
        by: Sequence[str] = ("account", "user"),
        *,
        since_s: float = 0.0,
        until_s: float = 0.0,
    ) -> accounting.Usage:
        """Return sums over ended tasks: in `rows`, and in `from_s` and `to_s` the time that they
        cover, which is widened to whole hours, days or months as far as they are kept.

        Clients see their own tasks and those of accounts that they coordinate; admins see all.
        `by`: some of account, user, qos, pool, device, engine; (): one sum. `since_s`, `until_s`:
        only tasks that ended between these times (seconds since 1970); 0.0: no bound. Raises
        OptionError, LimitExceededError.
        """
        return self._session.request(accounting.GetUsage(0, tuple(by), since_s, until_s))

    def shares(self) -> list[ShareRow]:
        """Return shares and decayed usage of the client's accounts, for admins of all, in the order
        of the tree."""
        return self._session.request(accounting.GetShares(0)).rows

    def receipt(self, task: Task | str | int) -> Receipt:
        """Return the receipt of an ended task: what it used, and why it waited. It never changes.
        Raises NotFoundError if the task has not ended, is unknown or no longer kept, or belongs to
        others."""
        number = number_of(task)
        receipts = self._session.request(accounting.GetReceipts(0, [number])).receipts
        if not receipts:
            name = model.task_name(number)
            hint = "simenv queue lists unfinished tasks, simenv history those that are kept"
            raise NotFoundError(f"there is no receipt of task {name}", hint=hint)
        return receipts[0]

    @overload
    def reserve(
        self, pool: str | None = None, *, start_s: None = None, **request: Unpack[ReserveOptions]
    ) -> client_reservations.Reservation: ...

    @overload
    def reserve(
        self,
        pool: str | None = None,
        *,
        start_s: float,
        every_s: float | None = None,
        zone: str = "",
        **request: Unpack[ReserveOptions],
    ) -> CalendarEntry: ...

    @with_options_of(client_reservations.ReserveOptions, client_reservations.DEFAULTS)
    def reserve(
        self,
        pool: str | None = None,
        *,
        start_s: float | None = None,
        every_s: float | None = None,
        zone: str = "",
        **options: Unpack[ReserveOptions],
    ) -> client_reservations.Reservation | CalendarEntry:
        """Reserve a pool, or the whole environment, for `for_s` seconds unless it is renewed.

        The reservation is for `count` circuits of the given size each; the admission policy of the
        pool computes its cost. `workers`: number of workers that serve only this reservation;
        `bound_s`: time within which its tasks should begin. `account`: the one that is charged for
        its tasks, and for its workers while they run nothing; "": your default one. A delayed
        request is repeated for up to `timeout_s` seconds (None: without limit).

            with client.reserve("main", count=100, gates_2q=20, shots=1024) as mine:
                client.submit(circuit, reservation=mine)

        A `with` block renews it, and releases it at the end. Raises NotReservedError when the
        request is rejected, OptionError, TimedOutError.

        `start_s`: plan it for that time, in seconds since 1970; the entry of the calendar is
        returned. The service makes the reservation then, and keeps it for `for_s` seconds.
        `every_s`: again each time so many seconds have passed since the start before; whole days
        are counted by the clocks of `zone`, a name such as Europe/Rome; default: of this machine.
        """
        request = client_reservations.reservation_request(pool, options)
        for_s = request.ttl_ns / 1e9
        if start_s is not None:
            entry = CalendarEntry(start_s, for_s, every_s or 0.0, ask=request, zone=zone)
            return self.calendar.add(entry)
        if every_s is not None:
            raise OptionError("every_s needs start_s", hint="start_s=time.time()")
        number = client_reservations.request_decision(
            self._session, request, options.get("timeout_s")
        ).reservation
        info = client_reservations.listed(self._session, number)[0]
        return client_reservations.Reservation(self._session, self._renewer, info, for_s)

    def reservations(self) -> list[model.ReservationInfo]:
        """Return the client's reservations, with those of the last hour; for admins all."""
        return client_reservations.listed(self._session)

    def reservation(self, number: SupportsIndex) -> client_reservations.Reservation:
        """Return an existing reservation, made by any process. Raises NotReservedError."""
        info = client_reservations.listed(
            self._session, client_reservations.checked_reservation(number)
        )[0]
        for_s = max(1, info.expires_ns - info.created_ns) / 1e9
        return client_reservations.Reservation(self._session, self._renewer, info, for_s)

    def scale(
        self,
        pool: str,
        workers: SupportsIndex | None = None,
        *,
        min_workers: SupportsIndex | None = None,
        max_workers: SupportsIndex | None = None,
        force: bool = False,
    ) -> model.PoolInfo:
        """Set the number of workers of a pool: `workers` always, or `min_workers` and, while tasks
        wait, up to `max_workers`; a bound that is not given stays as it is.

        Returns the pool with its new bounds. The setting persists over restarts of the service. A
        surplus worker ends when its task has ended. `force`: allow more workers than the nodes
        hold, for tests.

        Raises OptionError, NotFoundError, NotAllowedError, and LimitExceededError if the nodes do
        not hold so many.
        """
        if (workers is None) == (min_workers is None and max_workers is None):
            hint = "workers=4, or min_workers=1, max_workers=8"
            raise OptionError(f"scale({pool!r:.80}): how many workers?", hint=hint)
        pools = self.pools()
        if pool not in pools:
            raise NotFoundError(f"no pool {pool!r:.80} here", hint=f"there are: {', '.join(pools)}")
        if workers is not None:
            low = high = checked_integer("workers", workers, 0, MAX_WORKERS)
            high = max(1, high)
        else:
            low, high = pools[pool].least, pools[pool].most
            if min_workers is not None:
                low = checked_integer("min_workers", min_workers, 0, MAX_WORKERS)
                high = max(high, low)
            if max_workers is not None:
                high = checked_integer("max_workers", max_workers, 0, MAX_WORKERS)
        if not low <= high or high < 1:
            hint = "0 <= min_workers <= max_workers, 1 <= max_workers"
            raise OptionError(f"scale({pool!r}): min_workers={low}, max_workers={high}", hint=hint)
        scaled = self._session.request(admin.Scale(0, pool, low, high, force))
        return _pools_by_name(scaled)[pool]

    def drain(self, name: str, reason: str) -> model.NodeInfo | model.PoolInfo:
        """Start nothing more on a node, or in a pool, which is then paused; running tasks finish.
        Workers of the node end. This lasts until `undrain`, also over restarts of the service.
        Raises OptionError, NotFoundError, NotAllowedError."""
        done = self._session.request(admin.DrainNode(0, name, _reason(reason)))
        return _node_or_pool(done, name)

    def undrain(self, name: str) -> model.NodeInfo | model.PoolInfo:
        """Use a drained or lost node again, or a pool that was drained, or quarantined because its
        workers failed. Raises NotFoundError, NotAllowedError."""
        done = self._session.request(admin.ResumeNode(0, name=name))
        return _node_or_pool(done, name)

    @property
    def calendar(self) -> client_reservations.ServiceCalendar:
        """Planned maintenance, and planned reservations."""
        return client_reservations.ServiceCalendar(self._session)

    @property
    def keys(self) -> KeyStore:
        """Keys by which clients on other machines may connect."""
        from simenv.client.administration.keys import ServiceKeyStore

        return ServiceKeyStore(self._session)

    def prune(
        self, older_than_s: float | None = None, dry_run: bool = False
    ) -> queries.GarbageCollected:
        """Remove stored data of tasks that ended more than `older_than_s` seconds ago; None: what
        the retention limits of the configuration no longer allow. Return the removed and the
        remaining data.

        `dry_run`: only report what would be removed. Tasks that have not ended are never touched.
        """
        older_s = -1.0 if older_than_s is None else max(0.0, older_than_s)
        return self._session.request(queries.CollectGarbage(0, older_s, dry_run))

    def _repr_html_(self) -> str:
        """HTML for notebooks: the pools, their queues and a link to the web page; only the name if
        the service does not answer."""
        try:
            info = self._session.request(m.GetStatus(0), SHOWN_S).info
        except SimenvError:
            return escape(repr(self))
        return result_display.client_html(info, self.dashboard)

    def shutdown(self, now: bool = False, timeout_s: float | None = None) -> m.Stopping:
        """End the service: running tasks finish, or are stopped (`now`); waiting and stopped tasks
        stay."""
        return self._session.request(m.Shutdown(0, now=now), timeout_s)


def _by_name(pools: admin.Pools) -> dict[str, model.NodeInfo]:
    return {node.name: node for node in pools.nodes}


def _node_or_pool(done: admin.Pools, name: str) -> model.NodeInfo | model.PoolInfo:
    nodes = _by_name(done)
    return nodes[name] if name in nodes else _pools_by_name(done)[name]


def _pools_by_name(pools: admin.Pools) -> dict[str, model.PoolInfo]:
    return {pool.name: pool for pool in pools.pools}


def _reason(reason: object) -> str:
    if not isinstance(reason, str) or not 0 < len(reason.strip()) <= MAX_REASON_CHARS:
        hint = f"1 to {MAX_REASON_CHARS} characters for other administrators"
        raise OptionError(f"reason={reason!r:.80}", hint=hint)
    return reason


def stored_devices(env: Environment, known: Collection[str] = ()) -> dict[str, DeviceInfo]:
    """Return the devices that were imported into the environment, by name, but for those of
    `known`; for frontends. One that cannot be read is left out, so that it is in nobody's way:
    `Environment.device` says why."""
    infos = {}
    for name, source in env.device_names().items():
        if source is not CalibrationSource.INSTALLED and name not in known:
            with suppress(OptionError, NotFoundError):
                infos[name] = env.device(name)
    return infos


def atom_devices(env: Environment) -> dict[str, DeviceInfo]:
    """Return those of `stored_devices` that have neutral atoms."""
    return {name: info for name, info in stored_devices(env).items() if info.analog is not None}
