"""Job processes of the gateway: one for each user with jobs, restarted and bounded. Jobs under the
reservation of a token have a process of their own, with the rights of that token alone.

Invariant: the service has stored a job before a process sees it, and it leaves the pending ones
only when its end is stored; so a killed process, gateway or service loses none. What is run again
has the same idempotency keys, or the ids of its accepted tasks, so nothing runs twice. A process
that ends while it reads a job is charged to that job alone: after MAX_ATTEMPTS such ends it fails.
The certificate of a process is renewed by the token with which it was made, and by no other one: a
process whose token has ended ends too, and its jobs go on in another process, under another token
of the same user that has sent a request.

The jobs of a user go on when the user is known to this gateway: at once, or after a restart with
the next request that carries a token of the user.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from pathlib import Path
from time import monotonic, time
from typing import Any, TypeVar

from simenv.client.client import Client
from simenv.errors import KeyRefusedError, NotFoundError, SimenvError
from simenv.gateway.context import Caller, Gateway
from simenv.gateway.ibm import job_messages, jobs
from simenv.gateway.ibm.job_messages import (
    CertificateWanted,
    Certified,
    Connect,
    JobAccepted,
    JobBegun,
    JobEnded,
    JobInterrupted,
    Ready,
    RunJob,
)
from simenv.gateway.ibm.jobs import Job
from simenv.model import ReservationState
from simenv.sandbox.async_child import AsyncChild, before
from simenv.sandbox.child import decoder_environ
from simenv.sandbox.progress import ProgressDeadline
from simenv.wire.messages.credentials import TokenCertificate

JOB_PROCESS = "simenv.gateway.ibm.job_process"  # which loads what the gateway does not
MAX_ACTIVE = 32  # jobs of one process
MAX_ATTEMPTS = 2  # ends of the process while it reads the same job
MAX_ENDS = 20  # of the process, of one job
JOB_CPU_S = 120.0  # of the CPU, for reading a job and writing its result
START_S = 120.0  # until a process has loaded its libraries
SEND_S = 2 * JOB_CPU_S  # until a process has read a message: the job that it reads may hold it up
DAY_S = 86_400.0
LOG_BYTES = 2**20  # of their messages; a process cannot write more than job_messages.FILE_BYTES
RETRY_S = 5.0  # after a start that failed, or a service that did not answer; then twice as long,
MOST_RETRY_S = 60.0  # and this at most
IDLE_S = 600.0  # a process without a job ends
LOOK_S = 60.0  # a user's jobs are looked at without a reason again: another gateway may have ended
END_S = 2.0  # from the end of its input until it is killed
_CHECK_S = 1.0
_TICKS_S = os.sysconf("SC_CLK_TCK")
_LOG = logging.getLogger(__name__)

T = TypeVar("T")


class UserJobs:
    """The process of one user, and the jobs that it runs."""

    def __init__(self, owner: JobProcesses, caller: Caller) -> None:
        self._owner = owner
        self._callers = {caller.token: caller}  # tokens of the user, the last one used at the end
        self._certified: Caller | None = None  # whose token has made the process
        self._is_disowned = False  # that token has ended: so does the process
        self.active: set[str] = set()
        self.used_s = monotonic()
        self.changed = asyncio.Event()
        self._is_due = True  # the pending jobs are to be looked at
        self._is_full = False  # more of them wait than the process may have at once
        self._looked_s = 0.0  # monotonic time of the last look
        self.task: asyncio.Task[None] | None = None
        self.process: AsyncChild | None = None
        self._reading: dict[str, int] = {}  # thread of each job that is being read
        self._threads: dict[str, int] = {}
        self._too_long: set[str] = set()
        self._ready = asyncio.Event()
        self._failures = 0  # in a row, of starts and of looks at the jobs
        self._retry_s = 0.0  # monotonic time of the next attempt after a failure

    @property
    def caller(self) -> Caller:
        """The user, with the token that was used last."""
        return next(reversed(self._callers.values()))

    def look(self) -> None:
        """Look at the pending jobs."""
        self._is_due = True
        self.changed.set()

    def use(self, caller: Caller) -> None:
        """A request of the user has come, with this token."""
        self._callers.pop(caller.token, None)
        self._callers[caller.token] = caller
        self.used_s = monotonic()

    def is_asleep(self) -> bool:
        """Return whether `serve` is to be started again; soon after a failure it is not."""
        return (self.task is None or self.task.done()) and monotonic() >= self._retry_s

    def _failed(self) -> None:
        """Wait a while before the next attempt."""
        self._retry_s = monotonic() + min(RETRY_S * 2**self._failures, MOST_RETRY_S)
        self._failures = min(self._failures + 1, 8)

    async def _with_token(self, work: Callable[[Caller], Awaitable[T]]) -> T:
        """Return what `work` returns with a token of the user that is still valid. Raises
        KeyRefusedError if there is none, and what `work` raises."""
        while True:
            caller = self.caller
            try:
                return await work(caller)
            except KeyRefusedError as error:
                if not self._token_ended(caller, error.message):
                    raise

    def _token_ended(self, caller: Caller, reason: str) -> bool:
        """Forget a token that the service refuses, and end the process that it has made. Returns
        whether another token of the user is known."""
        if caller == self._certified:
            self._is_disowned = True
            if self.process is not None:
                text = "the process of the jobs of %r ends, as its token %s is refused: %s"
                _LOG.warning(text, caller.user, caller.token, reason)
                self.process.kill()
        if len(self._callers) == 1:
            return False
        self._callers.pop(caller.token, None)
        return True

    async def serve(self) -> None:
        """Run pending jobs until there are none for a while, or another user needs the process."""
        watch = self._owner.spawn(self._watch())
        try:
            await self._look(self._owner.fail_orphans)
            self._is_due = True
            while await self._dispatched():
                with contextlib.suppress(TimeoutError):
                    # `wait_for` of Python 3.11 loses a cancellation that comes with the event.
                    async with asyncio.timeout(_CHECK_S):
                        await self.changed.wait()
                self.changed.clear()
                self._is_due = self._is_due or monotonic() - self._looked_s > LOOK_S
        except KeyRefusedError as error:
            self._failed()
            text = "the jobs of %r wait for a request with a token that is valid: %s"
            _LOG.warning(text, self.caller.user, error)
        except Exception:  # noqa: BLE001 - an error of this module; the next request starts it
            self._failed()
            _LOG.exception("a user's jobs wait: they could not be looked at")
        finally:
            watch.cancel()
            await self.end()

    async def _look(self, work: Callable[[Caller], Awaitable[T]]) -> T | None:
        """Return what `work` returns; None if the service does not answer or its disk is full: it
        is called again after a while. Raises KeyRefusedError if the user has no valid token."""
        try:
            result = await self._with_token(work)
        except KeyRefusedError:
            raise
        except SimenvError as error:
            self._failed()
            _LOG.warning("the jobs of %r wait: %s", self.caller.user, error)
            return None
        self._failures = 0
        return result

    async def _dispatched(self) -> bool:
        """Send pending jobs to the process; False when it may end. Raises KeyRefusedError."""
        owner, room = self._owner, MAX_ACTIVE - len(self.active)
        if self.process is not None and owner.is_wanted(self):  # it is the turn of another
            if not self.active:
                await self.end()
            return True
        if monotonic() < self._retry_s:
            return True
        pending: list[Job] = []
        if self._is_due:
            found = await self._look(owner.pending)
            if found is None:
                return True
            pending, self._looked_s = found, monotonic()
        mine = [job for job in pending if job.reservation == self.caller.reservation]
        waiting = [job for job in mine if job.id not in self.active]
        ready = waiting[:room]
        # Those without room are looked at again when another one has ended.
        self._is_due, self._is_full = False, len(waiting) > room
        if not ready:
            return bool(self.active) or monotonic() - self.used_s < IDLE_S
        self.used_s = monotonic()
        if self.process is None:
            try:
                await self._with_token(self._start)
            except (OSError, TimeoutError) as error:
                _LOG.warning("the process of a user's jobs did not start: %r", error)
                self._failed()
                self.look()
                return True
        for job in ready:
            if self.process is None:  # it has ended meanwhile
                break
            self.active.add(job.id)
            try:
                await self._send(RunJob(job.id))
            except TimeoutError:  # it is killed, and `_lost` charges its jobs
                _LOG.warning("the process of a user's jobs is ended: it does not read")
                break
        return True

    async def _start(self, caller: Caller) -> None:
        """Start a process with the rights of a token. Raises OSError, TimeoutError,
        KeyRefusedError."""
        connect = self._owner.connection_of(caller)
        await self._owner.acquire(self)
        environ = {**decoder_environ(os.environ), "MALLOC_ARENA_MAX": "2"}
        log = self._owner.folder / "jobs.log"
        if log.exists() and log.stat().st_size > LOG_BYTES:
            log.unlink()
        with log.open("ab") as errors:
            argv = [sys.executable, "-P", "-m", JOB_PROCESS]
            self.process = await AsyncChild.start(
                argv, environ, errors.fileno(), most_bytes=job_messages.REPORT_BYTES
            )
        self._certified, self._is_disowned = caller, False
        self._ready.clear()
        self._owner.spawn(self._read(self.process))
        await self._send(connect)
        await before(ProgressDeadline(START_S, self.process.pid), self._ready.wait())
        if self.process is None:
            raise OSError("it has ended; jobs.log in the gateway's folder says why")

    async def _send(self, message: job_messages.ToProcess) -> None:
        assert self.process is not None
        await self.process.send(job_messages.encode(message), timeout_s=SEND_S)

    async def _read(self, process: AsyncChild) -> None:
        """Read the reports of the process until it ends."""
        try:
            while True:
                await self._handle(job_messages.decode_report(await process.receive()))
        except EOFError:
            pass
        except Exception:  # noqa: BLE001 - the process is ended, and its jobs run again
            _LOG.exception("the process of a user's jobs is ended")
        finally:
            process.kill()
        await process.end()
        await self._lost()

    async def _handle(self, report: job_messages.FromProcess) -> None:
        if isinstance(report, Ready):
            self._ready.set()
        elif isinstance(report, CertificateWanted):
            await self._certify(report.public_key)
        elif isinstance(report, JobBegun):
            self._reading[report.job] = self._threads[report.job] = report.thread
        elif isinstance(report, JobAccepted):
            self._reading.pop(report.job, None)
            self._owner.on_change(report.job)
        elif isinstance(report, JobEnded | JobInterrupted):
            if isinstance(report, JobInterrupted):
                if report.refusal and self._certified is not None:
                    self._token_ended(self._certified, report.refusal)
                else:
                    self._failed()
            self._forget(report.job)
            self._owner.on_change(report.job)
            if self._is_full or isinstance(report, JobInterrupted):
                self.look()
            self.changed.set()

    async def _certify(self, public_key: str) -> None:
        """Issue or renew the certificate of the process, by the token that has made it."""
        caller = self._certified
        if caller is None or self._is_disowned:  # it is being ended
            return
        try:
            answer = Certified(await self._owner.certificate(caller, public_key))
        except KeyRefusedError as error:
            self._token_ended(caller, error.message)
            return
        except SimenvError as error:  # no answer now: the process asks again
            answer = Certified(None, error.message)
        await self._send(answer)

    def _forget(self, job: str) -> None:
        self._reading.pop(job, None)
        self._threads.pop(job, None)
        self.active.discard(job)
        self.used_s = monotonic()

    async def _lost(self) -> None:
        """The process has ended: charge the job that it read, and run the others again.

        A store that fails costs no place for a process: the jobs are run again uncharged. The place
        is given back last, so that no new process of this user has it before.
        """
        reading, self._reading, self._threads = set(self._reading), {}, {}
        charged = [] if self._is_disowned else list(self.active)
        try:
            for job in charged:  # of a process whose token has ended, none is to blame
                how = job in reading, job in self._too_long
                await self._with_token(partial(self._owner.charge, job, *how))
        except Exception:  # noqa: BLE001 - such as a full disk
            self._failed()
            _LOG.exception("the end of a process was not charged to its jobs")
        finally:
            self.process = None
            self._too_long.clear()
            self.active.clear()
            self._owner.release(self)
            self._ready.set()
            self.look()

    async def _watch(self) -> None:
        """End the process when a job takes too long, also while a message to it waits."""
        while True:
            await asyncio.sleep(_CHECK_S)
            self._owner.keep_clients(self._callers.values())
            self._check_times()

    def _check_times(self) -> None:
        if self.process is None:
            return
        for job, thread in self._threads.items():
            if _cpu_s(self.process.pid, thread) > JOB_CPU_S:
                self._too_long.add(job)
        if self._too_long:
            self.process.kill()

    async def end(self) -> None:
        """End the process. Idempotent."""
        if self.process is not None:
            await self.process.end(END_S)
        self._owner.release(self)


def _cpu_s(pid: int, thread: int) -> float:
    """Time of the CPU that a thread has used, in seconds; 0.0 if it has ended."""
    try:
        text = Path(f"/proc/{pid}/task/{thread}/stat").read_text(encoding="ascii")
    except OSError:
        return 0.0
    user, system = text.rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / _TICKS_S


class JobProcesses:
    """The processes of all users."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._most = max(1, gateway.settings.max_processes)
        self._most_of_user = max(1, self._most // 2)  # of all reservations together
        self.folder = gateway.folder
        self._users: dict[tuple[str, int], UserJobs] = {}  # by user and reservation
        self._running: list[UserJobs] = []  # with a process, or about to have one
        self.waiting: list[UserJobs] = []  # for a process
        self._freed = asyncio.Condition()
        self._tasks: set[asyncio.Task[Any]] = set()
        self.on_change: Callable[[str], None] = lambda _: None  # a job got its tasks, or has ended

    async def pending(self, caller: Caller) -> list[Job]:
        """Return the caller's jobs that have not ended."""
        return await self._gateway.call(caller, jobs.pending)

    def spawn(self, work: Any) -> asyncio.Task[Any]:
        """Start a task that is ended with the gateway."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def wake(self, caller: Caller) -> None:
        """See to the pending jobs of a user."""
        user = self._users.get((caller.user, caller.reservation))
        if user is None:
            self._users = {key: each for key, each in self._users.items() if not each.is_asleep()}
            user = self._users[caller.user, caller.reservation] = UserJobs(self, caller)
        user.use(caller)
        user.look()
        if user.task is None or user.task.done():
            user.task = self.spawn(user.serve())

    def is_asleep(self, caller: Caller) -> bool:
        """Return whether nobody sees to the caller's jobs: since the start of the gateway, after a
        failure some time ago, or as there were none for a while."""
        found = self._users.get((caller.user, caller.reservation))
        return found is None or found.is_asleep()

    async def acquire(self, user: UserJobs) -> None:
        """Wait until the user may have a process; one without jobs ends for it. All processes of
        one user, each for a reservation, have half of the places at most."""
        self.waiting.append(user)
        try:
            async with self._freed:
                while self._next() is not user:
                    for idle in self._running:
                        idle.changed.set()
                    await self._freed.wait()
                self._running.append(user)
        finally:
            self.waiting.remove(user)
            self.spawn(self._notify())  # the next one may have a place too

    def _next(self) -> UserJobs | None:
        """Return who may start a process now: the first that waits and whose user has room."""
        if len(self._running) >= self._most:
            return None
        return next(filter(self._has_room, self.waiting), None)

    def _has_room(self, user: UserJobs) -> bool:
        same = sum(each.caller.user == user.caller.user for each in self._running)
        return same < self._most_of_user

    def is_wanted(self, user: UserJobs) -> bool:
        """Return whether somebody waits who could use the place of a process."""
        name = user.caller.user
        return any(each.caller.user == name or self._has_room(each) for each in self.waiting)

    def release(self, user: UserJobs) -> None:
        """The user has no process any more."""
        if user in self._running:
            self._running.remove(user)
        self.spawn(self._notify())

    async def _notify(self) -> None:
        async with self._freed:
            self._freed.notify_all()

    def connection_of(self, caller: Caller) -> Connect:
        """First message to the process of a user."""
        gateway = self._gateway
        return Connect(gateway.environment, gateway.client(caller).service, caller.is_admin)

    async def certificate(self, caller: Caller, public_key: str) -> TokenCertificate:
        """Return a certificate for a process of the token's user. Raises SimenvError."""
        return await self._gateway.certificate(caller, public_key)

    def keep_clients(self, callers: Iterable[Caller]) -> None:
        """Count the clients of tokens as in use: of many, the gateway closes those that are not."""
        for caller in callers:
            with contextlib.suppress(KeyRefusedError):
                self._gateway.client(caller)

    async def fail_orphans(self, caller: Caller) -> None:
        """Fail the user's pending jobs whose reservation is over, as their token has ended with it,
        and those that have not ended within the days that jobs are kept."""
        keep_days = self._gateway.settings.keep_days
        pending = await self.pending(caller)
        live = set[int]()
        if any(job.reservation not in (0, caller.reservation) for job in pending):
            listed = await self._gateway.call(caller, Client.reservations)
            live = {each.id for each in listed if each.state is ReservationState.ACTIVE}
        for job in pending:
            if job.created_s < time() - keep_days * DAY_S:
                why = jobs.RUN_FAILED, f"it has not ended within {keep_days:g} days"
            elif job.reservation not in (0, caller.reservation, *live):
                why = jobs.INVALID, f"reservation {job.reservation} is over"
            else:
                continue
            await self._gateway.call(caller, jobs.fail, job, *why)

    async def charge(self, number: str, reading: bool, too_long: bool, caller: Caller) -> None:
        """The process of a job has ended; fail the job if that is its fault."""
        call = self._gateway.call
        try:
            job = await call(caller, jobs.find, number)
        except NotFoundError:
            return
        attempts = job.attempts + 1
        guilty = too_long or attempts >= (MAX_ATTEMPTS if reading else MAX_ENDS)
        if not guilty:
            await call(caller, jobs.change, number, attempts=attempts)
            return
        reason = f"reading the job takes more than {JOB_CPU_S:g} s of the CPU"
        if not too_long:
            memory = job_messages.MEMORY_BYTES >> 20
            reason = f"the process that read the job ended {attempts} times; it has {memory} MiB"
        await call(caller, jobs.fail, job, jobs.INVALID, reason)

    async def close(self) -> None:
        """End all processes; what they ran goes on when the gateway starts again."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
