"""Routes of the environment: its state, devices, accounts and reservations.

Invariant: what a caller may see is decided by the service; these routes add nothing and hide
nothing.
"""

from __future__ import annotations

from typing import Annotated, Any

from litestar import Request, delete, get, post
from litestar.params import FromPath, FromQuery, PathParameter, QueryParameter

from simenv import model
from simenv.client.client import Client
from simenv.errors import NotFoundError, TimedOutError
from simenv.gateway.native import schemas
from simenv.gateway.native.programs import read_json
from simenv.gateway.native.schemas import MAX_LIST, record
from simenv.gateway.native.tasks import TheCaller, TheGateway
from simenv.model.accounts import ShareRow
from simenv.model.devices import DeviceInfo
from simenv.wire.messages import accounting, admin, client as messages, queries

Number = Annotated[int, PathParameter(ge=0, le=2**63 - 1)]
GROUPS = ("account", "user", "qos", "pool", "device", "engine")  # of sums of usage


@get("/status")
async def get_status(gateway: TheGateway, caller: TheCaller) -> model.ServiceInfo:
    """Return the figures of the service, its queue, pools and nodes."""
    return (await gateway.ask(caller, messages.GetStatus(0))).info


@get("/pools")
async def list_pools(gateway: TheGateway, caller: TheCaller) -> list[model.PoolInfo]:
    """List the pools, also those made for programs too large for one worker."""
    return (await gateway.ask(caller, admin.GetPools(0))).pools


@get("/nodes")
async def list_nodes(gateway: TheGateway, caller: TheCaller) -> list[model.NodeInfo]:
    """List the nodes of the allocation."""
    return (await gateway.ask(caller, admin.GetPools(0))).nodes


@get("/workers")
async def list_workers(gateway: TheGateway, caller: TheCaller) -> list[model.WorkerInfo]:
    """List the resident workers."""
    return (await gateway.ask(caller, messages.GetWorkers(0))).workers


@get("/queue")
async def get_queue(
    gateway: TheGateway,
    caller: TheCaller,
    limit: Annotated[int, QueryParameter(ge=0, le=MAX_LIST)] = 100,
    ended: FromQuery[bool] = False,
) -> schemas.QueuePage:
    """Return the first tasks of the queue: running, then waiting in order, with expected start and
    pending reason. `ended`: the last tasks that ended instead, newest first."""
    total, tasks = await gateway.call(caller, Client.queue, ended, limit)
    return schemas.QueuePage(total, tasks)


@get("/engines")
async def list_engines(gateway: TheGateway, caller: TheCaller) -> list[schemas.EngineRecord]:
    """List the engines in the order of preference."""
    found = (await gateway.ask(caller, queries.GetEngines(0))).engines
    return [record(each, schemas.EngineRecord) for each in found]


@get("/devices")
async def list_devices(gateway: TheGateway, caller: TheCaller) -> list[schemas.DeviceName]:
    """List the devices that `device` of a task accepts, and the source of their calibration."""
    names = await gateway.call(caller, Client.device_names)
    return [schemas.DeviceName(name, str(source)) for name, source in names.items()]


@get("/devices/{name:str}")
async def get_device(
    gateway: TheGateway,
    caller: TheCaller,
    name: FromPath[str],
    at_s: Annotated[float | None, QueryParameter(gt=0.0, le=schemas.MAX_TIME_S)] = None,
) -> schemas.DeviceDetails:
    """Return a device, or a pool as a device, with its present calibration: coupling map, errors of
    gates and readout, T1 and T2. `at_s`: with that of one of its `calibrations`."""
    return record(await gateway.call(caller, _device, name, at_s), schemas.DeviceDetails)


def _device(client: Client, name: str, at_s: float | None) -> DeviceInfo:
    try:
        return client.device(name, at_s)
    except NotFoundError:
        pools = {} if at_s is not None else client.devices()
        if name not in pools:
            raise
        return pools[name]


@get("/devices/{name:str}/calibrations")
async def list_calibrations(
    gateway: TheGateway, caller: TheCaller, name: FromPath[str]
) -> schemas.CalibrationDates:
    """Return since when each stored calibration of a device was in force."""
    return schemas.CalibrationDates(await gateway.call(caller, Client.calibrations, name))


@get("/accounts")
async def list_accounts(gateway: TheGateway, caller: TheCaller) -> schemas.AccountList:
    """List the accounts and classes of service that the caller may use, for an admin all."""
    answer = await gateway.ask(caller, accounting.GetAccounts(0))
    return schemas.AccountList(answer.accounts, answer.qos)


@get("/shares")
async def list_shares(gateway: TheGateway, caller: TheCaller) -> list[ShareRow]:
    """List shares and decayed usage of the caller's accounts, in the order of the tree."""
    return await gateway.call(caller, Client.shares)


@get("/usage")
async def get_usage(
    gateway: TheGateway,
    caller: TheCaller,
    by: Annotated[list[str] | None, QueryParameter(max_items=len(GROUPS))] = None,
    since_s: schemas.Moment = 0.0,
    until_s: schemas.Moment = 0.0,
) -> schemas.UsageReport:
    """Return sums over ended tasks, by some of account, user, qos, pool, device and engine."""
    names = ["account", "user"] if by is None else by

    def report(client: Client) -> schemas.UsageReport:
        usage = client.usage(names, since_s=since_s, until_s=until_s)
        rows = [record(row, schemas.UsageRecord) for row in usage.rows]
        return schemas.UsageReport(names, rows, usage.from_s, usage.to_s)

    return await gateway.call(caller, report)


@get("/limits")
async def list_limits(gateway: TheGateway, caller: TheCaller) -> list[model.OwnerReport]:
    """List limits and present use of the caller, for an admin of all owners of keys."""
    return list((await gateway.call(caller, Client.limits)).values())


@get("/reservations")
async def list_reservations(gateway: TheGateway, caller: TheCaller) -> list[model.ReservationInfo]:
    """List the caller's reservations, with those of the last hour; for an admin all."""
    return await gateway.call(caller, Client.reservations)


@get("/reservations/{number:int}")
async def get_reservation(
    gateway: TheGateway, caller: TheCaller, number: Number
) -> model.ReservationInfo:
    """Return one reservation."""
    return await gateway.call(caller, lambda client: client.reservation(number).info())


@post("/reservations", status_code=201)
async def reserve(
    gateway: TheGateway,
    request: Request[Any, Any, Any],
    caller: TheCaller,
    wait: Annotated[float, QueryParameter(ge=0.0, le=schemas.MAX_WAIT_S)] = 0.0,
) -> model.ReservationInfo:
    """Reserve a pool, or the whole environment. A request that cannot be granted now is repeated
    for `wait` seconds."""
    data = await read_json(request, schemas.ReservationBody)
    fields: dict[str, Any] = {name: getattr(data, name) for name in data.__struct_fields__}

    def ask(client: Client) -> model.ReservationInfo:
        try:
            return client.reserve(start_s=None, **fields, timeout_s=wait).info()
        except TimedOutError as error:
            error.hint = "later, or ?wait=SECONDS; GET /api/v1/reservations shows what is reserved"
            raise

    return await gateway.call(caller, ask)


@post("/reservations/{number:int}/renew", status_code=200)
async def renew_reservation(
    request: Request[Any, Any, Any], gateway: TheGateway, caller: TheCaller, number: Number
) -> model.ReservationInfo:
    """Set the expiry of a reservation to `for_s` seconds from now."""
    data = await read_json(request, schemas.Renewal)
    return await gateway.call(caller, lambda client: client.reservation(number).renew(data.for_s))


@delete("/reservations/{number:int}", status_code=200)
async def release_reservation(
    gateway: TheGateway,
    caller: TheCaller,
    number: Number,
    cancel: FromQuery[bool] = False,
    reason: Annotated[str, QueryParameter(max_length=200)] = "",
) -> schemas.EndedReservation:
    """End a reservation: its waiting tasks are cancelled; with `cancel` its running ones too."""

    def end(client: Client) -> list[str]:
        reservation = client.reservation(number)
        return (reservation.cancel if cancel else reservation.release)(reason)

    return schemas.EndedReservation(await gateway.call(caller, end))


ROUTES = [
    get_status, list_pools, list_nodes, list_workers, get_queue, list_engines, list_devices,
    get_device, list_calibrations, list_accounts, list_shares, get_usage, list_limits,
    list_reservations, get_reservation, reserve, renew_reservation, release_reservation,
]  # fmt: skip
