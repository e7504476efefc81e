"""What the routes of the quantum compute API do: backends, jobs and sessions of one caller.

Invariant: a caller sees and changes own jobs and sessions alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from time import monotonic, time
from typing import Any

import msgspec
from litestar import Response
from litestar.response import Stream

from simenv.client.client import Client
from simenv.client.environment import stored_devices
from simenv.errors import (
    DECODE_ERRORS,
    KeyConflictError,
    LimitExceededError,
    NotAllowedError,
    NotFoundError,
    OptionError,
    StoreError,
)
from simenv.gateway import request_process
from simenv.gateway.context import Caller, Gateway
from simenv.gateway.ibm import answers, backends, job_request, jobs
from simenv.gateway.ibm.backends import Backend, Plain
from simenv.gateway.ibm.job_request import MAX_TAG_CHARS, MAX_TAGS, Name, Text
from simenv.gateway.ibm.jobs import Job, SessionRecord
from simenv.gateway.ibm.processes import JobProcesses
from simenv.model import FINAL_STATES, TaskState
from simenv.model.devices import CalibrationSource, DeviceInfo
from simenv.model.jobs import JobSelector
from simenv.model.task import joint_state
from simenv.model.views import TaskInfo
from simenv.text import short_repr
from simenv.wire.messages.jobs import ReadJobBlob

MAX_QUERY_TAGS = 100  # of a listing
MAX_BACKEND_CHARS = 255
MAX_COST_S = MAX_SESSION_S = 365 * 86_400
SESSION_S = 8 * 3_600
MAX_SHOWN = 100  # tasks of a job that are looked at for its state and its log
QUEUE_SHOWN = 1_000  # tasks among which the place of a job is looked for
GIVEN_S = 300.0  # a private result stays after it was sent, should the connection have broken
MAX_CIRCUITS_BYTES = 16 * 2**20  # of the programs that are written as text at once
MAX_YEAR = 5_000  # of a time in a query; messages carry times to 1e11 s
MAX_DIGITS = 12  # of a number in a query
MAX_SEEN, MAX_SEEN_BYTES = 2_000, 2**14  # states of jobs that are kept, and parameters of each
# A job's state is asked of the service again after this time, at each look twice the last one; at
# once when the job's process has told of a change.
STATE_S, MOST_STATE_S = 0.2, 5.0
CLASSES = ("job", "session", "batch")
_FUNCTION_ENGINE = "functions"


class SessionRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of POST /sessions. QRMI calls the backend `backend_name` too."""

    backend: Name = ""
    backend_name: Text = None
    mode: Name = "dedicated"
    max_ttl: int | None = None
    instance: Text = None
    interactive_ttl: None = None  # sessions end by `max_ttl` alone
    active_ttl: None = None


class SeenJob(msgspec.Struct):
    """A job as it was seen by the callers with one token. `until_s`: monotonic time at which it is
    asked for again; `forecast`, `params` None: not asked for, or too large to be kept."""

    job: Job
    until_s: float
    interval_s: float
    forecast: answers.JobForecast | None = None
    forecast_s: float = 0.0  # monotonic time of it
    params: bytes | None = None


class ComputeService:
    """The API over one gateway."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self.processes = JobProcesses(gateway)
        gateway.on_close.append(self.processes.close)
        self.processes.on_change = self._changed
        self._seen: dict[str, dict[str, SeenJob]] = {}  # by job and token

    def arrived(self, caller: Caller) -> None:
        """See to the jobs of a user who was not seen since the gateway's start."""
        if self.processes.is_asleep(caller):
            self.processes.wake(caller)

    async def stored_answer(
        self, caller: Caller, number: str, kind: str, media_type: str, before: bytes = b"",
        after: bytes = b"",
    ) -> Response[Any]:  # fmt: skip
        """Return the response with data of a job, with bytes around it. Large data are read as the
        client reads the answer. `kind`: params, result, or an artifact."""
        seen = self._seen.get(number, {}).get(caller.token) if kind == "params" else None
        if seen is not None and seen.params is not None:
            return Response(before + seen.params + after, media_type=media_type)
        first, size = await self._part(caller, number, kind, 0)
        if seen is not None and len(first) == size <= MAX_SEEN_BYTES:
            seen.params = first
        if len(first) >= size:
            return Response(before + first + after, media_type=media_type)
        headers = {"Content-Length": str(len(before) + size + len(after))}
        parts = self._parts(caller, number, kind, (first, size), before, after)
        return Stream(parts, media_type=media_type, headers=headers)

    async def _part(self, caller: Caller, number: str, kind: str, start: int) -> tuple[bytes, int]:
        found = await self.gateway.ask(caller, ReadJobBlob(0, number, kind, start))
        return found.data, found.size_bytes

    async def _parts(
        self, caller: Caller, number: str, kind: str, first: tuple[bytes, int], before: bytes,
        after: bytes,
    ) -> AsyncIterator[bytes]:  # fmt: skip
        yield before
        (data, size), start = first, 0
        while data:
            yield data
            start += len(data)
            if start >= size:
                break
            data, _ = await self._part(caller, number, kind, start)
        if start < size:
            raise StoreError(f"job {number}: its {kind} were removed meanwhile")
        yield after

    # Backends.

    async def backends(self, caller: Caller) -> Plain:
        """List the pools, then the devices of the environment; those of an installed package by
        name alone."""

        def read(client: Client) -> list[Plain]:
            pools, infos = client.pools(), client.devices()
            queued = sum(pool.waiting for pool in pools.values())
            entries = [
                backends.listed(name, infos[name], pool, pool.waiting)
                for name, pool in pools.items()
                if name in infos and not pool.on_demand and pool.engine != _FUNCTION_ENGINE
            ]
            entries.sort(key=lambda entry: bool(entry["is_simulator"]))
            stored = stored_devices(client, pools)
            for name, source in client.device_names().items():
                if name in pools:
                    continue
                if source is CalibrationSource.INSTALLED:
                    entries.append(backends.listed_by_name(name))
                elif name in stored:
                    entries.append(backends.listed(name, stored[name], None, queued))
            return entries

        return {"devices": await self.gateway.call(caller, read)}

    async def backend(self, caller: Caller, name: str) -> Backend:
        """Return a backend. Raises NotFoundError."""

        def read(client: Client) -> Backend:
            pools = client.pools()
            if name in pools:
                info = client.devices()[name]
                return Backend(name, info, pools[name], pools[name].waiting)
            queued = sum(pool.waiting for pool in pools.values())
            return Backend(name, client.device(name), None, queued)

        try:
            if len(name) > MAX_BACKEND_CHARS:  # no message may have it
                raise NotFoundError("no name is as long")
            return await self.gateway.call(caller, read)
        except (NotFoundError, OptionError) as error:
            hint = "GET /backends lists the pools and the devices"
            raise NotFoundError(f"Backend not found: {name[:80]}", hint=hint) from error

    async def calibration(
        self, caller: Caller, name: str, calibration_id: str, before: str
    ) -> DeviceInfo:
        """Return a backend with its present calibration; with that of an id, or of a time (ISO
        8601), among those that the environment has stored or clients have seen. Raises
        NotFoundError, OptionError."""
        found = await self.backend(caller, name)
        before_s = 0.0 if calibration_id else _time("updated_before", before)
        present = found.info
        if calibration_id == present.calibration_id or not (calibration_id or before_s):
            return present
        if before_s and present.calibrated_s <= before_s:
            return present
        info = await self.gateway.call(caller, _recorded, name, calibration_id, before_s)
        if info is None:
            wanted = calibration_id[:80] or before[:80]
            text = f"backend {name!r} has no recorded calibration {wanted}"
            raise NotFoundError(text, hint=f"the present one is {present.calibration_id}")
        return info

    # Usage.

    async def usage(self, caller: Caller) -> Plain:
        """Usage and budget of the caller's account in this month."""

        def read(client: Client) -> Plain:
            shares = [row for row in client.shares() if caller.account in ("", row.account)]
            mine = [row for row in shares if row.user == caller.user and row.user]
            account = caller.account or (mine[0].account if mine else "")
            month_s = _month_begin_s()
            rows = client.usage(("account", "user"), since_s=month_s).rows
            rows = [row for row in rows if row.key == (account, caller.user)]
            budget = 0.0
            if account:
                budget = 3600.0 * client.accounts.listed()[account].budget_slot_h
            of_account = [row for row in shares if row.account == account and not row.user]
            return answers.usage(of_account, rows, budget)

        return await self.gateway.call(caller, read)

    # Jobs.

    async def submit(self, caller: Caller, body: bytes, trace: str) -> Job:
        """Accept a job. `trace`: the traceparent that its tasks continue. Raises SimenvError;
        then nothing was stored."""
        sandbox = self.gateway.sandbox(caller)
        found_job = await self.gateway.call(caller, lambda _: job_request.read(sandbox, body))
        asked, params = found_job.request, found_job.params(body)
        cost = asked.cost or 0
        if not 0 <= cost <= MAX_COST_S:
            expected = f"0 to {MAX_COST_S} seconds"
            raise OptionError(option="max_execution_time", value=cost, expected=expected)
        session = asked.session_id or ""
        account = caller.account
        if session:
            record = await self.session(caller, session)
            if record.is_closed(time()) or not record.accepting:
                raise OptionError(f"session {session} is closed", hint="open another one")
            if asked.backend not in ("", record.backend):
                text = f"session {session} is of backend {record.backend!r}"
                raise OptionError(f"{text}, and the job of {asked.backend!r:.80}")
        name = asked.backend or (record.backend if session else "")
        found = await self.backend(caller, name)
        wanted, noise = asked.calibration_id or "", b""
        if wanted and wanted != found.info.calibration_id:
            try:
                read = partial(Client.recorded_device, name=name, calibration_id=wanted[:128])
                _, noise = await self.gateway.call(caller, read)
            except NotFoundError as error:
                text = f"calibration_id={wanted[:80]!r}: backend {name!r} has no such calibration"
                hint = f"leave it out; the present one is {found.info.calibration_id}"
                raise OptionError(text, hint=hint) from error
        job = Job(
            jobs.new_id(), caller.user, account, asked.program_id, name, 0.0, session,
            checked_tags(asked.tags), cost, asked.private, (asked.runtime or "")[:80], wanted,
            trace=trace, reservation=caller.reservation_of(name),
            session_reservation=record.reservation if session else 0,
        )  # fmt: skip
        job = await self.gateway.call(caller, jobs.add, job, params, noise)
        self.processes.wake(caller)
        if session and not record.activated_s:
            now_s = time()
            fields = {"activated_s": now_s, "job_started_s": now_s}
            with suppress(NotAllowedError):  # the session is of another token of the user
                await self.gateway.call(caller, jobs.change_session, session, **fields)
        return job

    async def job(self, caller: Caller, number: str) -> Job:
        """Return a job in its present state. Raises NotFoundError."""
        known = self._seen.get(number, {}).get(caller.token)
        if known is not None and monotonic() < known.until_s:
            return known.job
        job = await self._present(caller, number)
        if not job.is_pending:
            self._changed(number)
            return job
        if len(self._seen) > MAX_SEEN:
            self._seen.clear()
        of_job, interval_s = self._seen.setdefault(number, {}), STATE_S
        if known is not None and known is of_job.get(caller.token) and known.job == job:
            interval_s = min(2 * known.interval_s, MOST_STATE_S)
        kept = known or SeenJob(job, 0.0, 0.0)
        of_job[caller.token] = msgspec.structs.replace(
            kept, job=job, until_s=monotonic() + interval_s, interval_s=interval_s
        )
        return job

    def _changed(self, number: str) -> None:
        """Ask for the state of a job again at the next request."""
        self._seen.pop(number, None)

    async def _present(self, caller: Caller, number: str) -> Job:
        """Return a job in its present state, as the service knows it. Raises NotFoundError."""
        job = await self.gateway.call(caller, jobs.find, number)
        now_s = time()
        if job.status != jobs.QUEUED or not job.tasks:
            return job
        infos = await self.tasks(caller, job)
        if not infos or joint_state(info.state for info in infos) is TaskState.QUEUED:
            return job
        fields: dict[str, Any] = {"status": jobs.RUNNING, "started_s": now_s}
        try:
            changed = await self.gateway.call(caller, jobs.change, number, **fields)
        except NotAllowedError:  # the job is of another token of the user
            changed = msgspec.structs.replace(job, **fields)
        if changed is None:  # it has ended meanwhile
            changed = await self.gateway.call(caller, jobs.find, number)
        return changed

    async def listed(self, caller: Caller, selector: JobSelector) -> tuple[int, list[Job]]:
        """Return the number of jobs that match without limit and offset, and those within."""
        return await self.gateway.call(caller, jobs.listed, selector)

    async def tasks(self, caller: Caller, job: Job) -> list[TaskInfo]:
        """Return the first tasks of a job, as the service knows them."""
        names = [name for name, _ in job.tasks[:MAX_SHOWN]]
        return await self.gateway.call(caller, lambda client: client.tasks(names)) if names else []

    async def forecast(self, caller: Caller, job: Job) -> answers.JobForecast:
        """Forecast of a job that waits or runs."""
        if not job.is_pending:
            return answers.JobForecast()
        seen = self._seen.get(job.id, {}).get(caller.token)
        if seen is None:
            return await self._forecast(caller, job)
        if seen.forecast is None or monotonic() - seen.forecast_s > MOST_STATE_S:
            seen.forecast, seen.forecast_s = await self._forecast(caller, job), monotonic()
        return seen.forecast

    async def _forecast(self, caller: Caller, job: Job) -> answers.JobForecast:
        infos = await self.tasks(caller, job)
        if job.status != jobs.QUEUED:
            lefts_us = [info.left_us for info in infos if info.state not in FINAL_STATES]
            is_known = lefts_us and min(lefts_us) >= 0.0
            return answers.JobForecast(end_s=time() + max(lefts_us) / 1e6 if is_known else None)
        waits = [info.wait_us for info in infos if info.wait_us >= 0]
        start_s = time() + min(waits) / 1e6 if waits else None
        _, queue = await self.gateway.call(caller, lambda client: client.queue(limit=QUEUE_SHOWN))
        mine = {name for name, _ in job.tasks}
        waiting = [info.id for info in queue if info.state is TaskState.QUEUED]
        places = [place for place, name in enumerate(waiting, 1) if name in mine]
        return answers.JobForecast(places[0] if places else None, start_s)

    async def cancel(self, caller: Caller, number: str) -> None:
        """Cancel a job and its tasks. Raises NotFoundError, KeyConflictError if it has ended."""

        def cancelled(client: Client) -> None:
            job = jobs.find(client, number)
            ended = jobs.end(client, job, status=jobs.CANCELLED, ended_s=time())
            if ended is None:
                jobs.cancel_tasks(client, number)
                raise KeyConflictError(f"job {number} is {job.status}: it cannot be cancelled")
            if ended.tasks:
                client.cancel([name for name, _ in ended.tasks])

        try:
            await self.gateway.call(caller, cancelled)
        finally:
            self._changed(number)

    async def delete(self, caller: Caller, number: str) -> None:
        """Delete a job that has ended; cancel it before, if it has not."""
        job = await self.gateway.call(caller, jobs.find, number)
        if job.is_pending:
            await self.cancel(caller, number)
        else:  # its tasks may run on, after the end of the gateway that cancelled it
            await self.gateway.call(caller, jobs.cancel_tasks, number)
        await self.gateway.call(caller, lambda client: client.jobs.remove(number))
        self._changed(number)

    async def change_tags(self, caller: Caller, number: str, tags: tuple[str, ...]) -> None:
        """Replace the tags of a job."""
        await self.gateway.call(caller, jobs.change, number, tags=tags)
        self._changed(number)

    async def forget_result(self, caller: Caller, number: str) -> None:
        """Remove the result of a job some time after it was sent, or when the gateway ends."""
        self.processes.spawn(self._forget_later(caller, number, GIVEN_S))

    async def _forget_later(self, caller: Caller, number: str, seconds: float) -> None:
        with suppress(asyncio.CancelledError):  # the gateway ends
            await asyncio.sleep(seconds)
        await self.gateway.call(caller, jobs.remove_result, number)

    async def circuits(self, caller: Caller, job: Job) -> bytes:
        """Return the circuits of a job's tasks, as they run on the device, in OpenQASM 3, as JSON:
        `transpiled_circuits`. They are written in the process of the caller."""
        sandbox = self.gateway.sandbox(caller)

        def read(client: Client) -> bytes:
            names = [name for name, _ in job.tasks[:MAX_SHOWN]]
            specs, size = [], 0
            for name in names:
                specs.append(client.history.submitted(name).spec)
                size += len(specs[-1].program)
                if size > MAX_CIRCUITS_BYTES:
                    text = f"the circuits of job {job.id} have more than {MAX_CIRCUITS_BYTES} bytes"
                    raise LimitExceededError(text, hint="GET /api/v1/tasks/ID/circuit, one by one")
            return request_process.call(sandbox, "circuits", msgspec.msgpack.encode(specs))

        return await self.gateway.call(caller, read)

    # Sessions.

    async def open_session(self, caller: Caller, body: bytes) -> SessionRecord:
        """Open a session: a reservation (mode dedicated), or a group (batch)."""
        try:
            asked = msgspec.json.decode(body, type=SessionRequest)
        except DECODE_ERRORS as error:
            raise OptionError(f"the body is no session: {error!s:.200}") from error
        if asked.mode not in ("dedicated", "batch"):
            raise OptionError(option="mode", value=asked.mode, expected="dedicated or batch")
        name = asked.backend or asked.backend_name or ""
        found = await self.backend(caller, name)
        now_s, reservation = time(), 0

        def reserve(client: Client) -> tuple[int, int]:
            report = client.limits().get(caller.user)
            longest = (report.limits.max_reservation_s if report else 0) or MAX_SESSION_S
            for_s = min(SESSION_S, longest) if asked.max_ttl is None else asked.max_ttl
            if not 1 <= for_s <= longest:
                expected = f"1 to {longest} seconds (max_reservation_s of the environment)"
                raise OptionError(option="max_ttl", value=for_s, expected=expected)
            pool = name if found.pool is not None else None
            if asked.mode == "batch" or caller.reservation_of(name):  # each job brings its own
                return for_s, 0
            return for_s, client.reserve(pool, for_s=for_s, account=caller.account).id

        for_s, reservation = await self.gateway.call(caller, reserve)
        session = SessionRecord(
            jobs.new_id(), caller.user, caller.account, name, asked.mode, now_s, for_s,
            reservation,
        )  # fmt: skip
        try:
            await self.gateway.call(caller, jobs.put_session, session)
        except BaseException:  # such as a full disk: nobody could close it
            if reservation:
                release = lambda client: client.reservation(reservation).release()  # noqa: E731
                await self.gateway.call(caller, release)
            raise
        return session

    async def session(self, caller: Caller, number: str) -> SessionRecord:
        """Return a session. Raises NotFoundError."""
        return await self.gateway.call(caller, jobs.session, number)

    async def stop_accepting(self, caller: Caller, number: str) -> None:
        """Take no more jobs in a session, which closes after the last one."""

        def stop(client: Client) -> None:
            jobs.change_session(client, number, accepting=False)
            jobs.close_if_done(client, number)

        await self.session(caller, number)
        await self.gateway.call(caller, stop)

    async def close_session(self, caller: Caller, number: str) -> None:
        """Cancel the jobs of a session and close it."""
        session = await self.session(caller, number)
        await self.gateway.call(caller, jobs.change_session, number, accepting=False)
        for job in await self.gateway.call(caller, jobs.pending, number):
            with suppress(KeyConflictError):  # it has just ended
                await self.cancel(caller, job.id)
        await self.gateway.call(caller, jobs.close_session, session)


def _recorded(client: Client, name: str, calibration_id: str, before_s: float) -> DeviceInfo | None:
    """Return a device with a stored or known calibration: that of an id, else the newest one that
    was in force at a time. None: there is none."""
    with suppress(NotFoundError):
        if calibration_id:
            return client.recorded_device(name, calibration_id[:128])[0]
        dates_s = [each for each in client.calibrations(name) if each <= before_s]
        if dates_s:
            return client.device(name, dates_s[-1])
    known = client.known_calibrations(name)
    if not calibration_id:
        ids = [number for number, time_s in known.items() if time_s <= before_s]
        calibration_id = ids[-1] if ids else ""
    return client.known_device(name, calibration_id) if calibration_id in known else None


def selector_of(given: Mapping[str, str], tags: Sequence[str]) -> JobSelector:
    """Filters of a listing, from the query of a request. Raises OptionError."""
    ordered = given.get("sort", "DESC").upper()
    if ordered not in ("ASC", "DESC"):
        raise OptionError(option="sort", value=ordered, expected="ASC or DESC")
    pending = given.get("pending")
    if pending not in (None, "true", "false"):
        raise OptionError(option="pending", value=pending, expected="true or false")
    if len(tags) > MAX_QUERY_TAGS:
        expected = f"at most {MAX_QUERY_TAGS}"
        raise OptionError(option="tags", value=f"{len(tags)} tags", expected=expected)
    fields = {name: given.get(name, "") for name in ("backend", "program")}
    return JobSelector(
        (jobs.IBM,),
        jobs.labels(tags=tags, session=given.get("session_id", ""), **fields),
        is_open=None if pending is None else pending == "true",
        after_s=_time("created_after", given.get("created_after", "")),
        before_s=_time("created_before", given.get("created_before", "")),
        ascending=ordered == "ASC",
        limit=_number("limit", given.get("limit", "200"), 1, 200),
        offset=_number("offset", given.get("offset", "0"), 0, 10**9),
    )


def checked_tags(tags: object) -> tuple[str, ...]:
    """Tags of a job. Raises OptionError."""
    if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
        raise OptionError(option="tags", value=short_repr(tags), expected="a list of texts")
    if len(tags) > MAX_TAGS or any(len(tag) > MAX_TAG_CHARS for tag in tags):
        expected = f"at most {MAX_TAGS}, of {MAX_TAG_CHARS} characters each"
        raise OptionError(option="tags", value=short_repr(tags), expected=expected)
    return tuple(tags)


def _number(name: str, text: str, least: int, most: int) -> int:
    digits = text.isascii() and text.isdigit() and len(text) <= MAX_DIGITS
    if not digits or not least <= int(text) <= most:
        raise OptionError(option=name, value=text[:80], expected=f"{least} to {most}")
    return int(text)


def _time(name: str, text: str) -> float:
    """Seconds since 1970 of an ISO 8601 time; 0.0 of none. Raises OptionError."""
    from datetime import UTC, datetime

    if not text:
        return 0.0
    expected = f"a time in ISO 8601, from 1970 to {MAX_YEAR}"
    try:
        moment = datetime.fromisoformat(text.replace(" ", "+"))
        seconds = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError) as error:
        raise OptionError(option=name, value=text[:80], expected=expected) from error
    if seconds < 0.0 or moment.year > MAX_YEAR:
        raise OptionError(option=name, value=text[:80], expected=expected)
    return seconds


def _month_begin_s() -> float:
    from datetime import UTC, datetime

    now = datetime.now(UTC)
    return now.replace(day=1, hour=0, minute=0, second=0, microsecond=0).timestamp()
