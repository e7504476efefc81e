"""Job process: runs the jobs of one user of IBM's and IQM's clients.

python -P -m simenv.gateway.ibm.job_process  # started by the gateway alone

It decodes what a user sent, which may ask for any amount of memory or time: the process has a bound
of memory, and the gateway ends it when one job takes too much time of the CPU. It holds the rights
of its user and of nobody else: with them it reads jobs, submits their tasks and stores their ends.
When the gateway ends, so does the process. Jobs run at the same time, one thread each; they are
decoded one after the other.
"""

from __future__ import annotations

import os
import queue
import sys
import threading
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from time import monotonic

from simenv.client.client import Client
from simenv.client.connection.address import FileAddress
from simenv.client.connection.broker import TRIES, CertificateAddress
from simenv.errors import (
    KeyRefusedError,
    NoServiceError,
    NotFoundError,
    SimenvError,
    SimenvWarning,
    TaskExpiredError,
    TaskFailedError,
)
from simenv.gateway.ibm import jobs, programs
from simenv.gateway.ibm.job_messages import (
    FILE_BYTES,
    MEMORY_BYTES,
    CertificateWanted,
    Certified,
    Connect,
    FromProcess,
    JobAccepted,
    JobBegun,
    JobEnded,
    JobInterrupted,
    Ready,
    RunJob,
    ToProcess,
    decode_request,
    encode,
)
from simenv.gateway.ibm.jobs import Job
from simenv.gateway.ibm.programs import AcceptedTasks, JobResult, Work
from simenv.gateway.iqm import circuits
from simenv.model import FINAL_STATES, TaskState
from simenv.sandbox.limits import limit_process
from simenv.sandbox.parent import ParentChannel
from simenv.wire.messages.credentials import TokenCertificate

SAMPLES = 20  # of the tasks that run, in the longest time of a job
MAX_WARNING_BYTES = 16 * 2**10  # of the results of one job
LEAST_SAMPLE_S, MOST_SAMPLE_S = 0.1, 5.0  # between two of them


class GatewayAddress(CertificateAddress):
    """Address of the service, by certificates that the gateway gets for this process."""

    def __init__(self, first: Connect, request: Callable[[str], TokenCertificate]) -> None:
        super().__init__()
        self.name, self.path = first.name, Path(first.service)
        self._ask = request

    def _request(self, public_key: str, tries: int = TRIES) -> TokenCertificate:  # noqa: ARG002
        return self._ask(public_key)

    def diagnose(self) -> tuple[str, str]:
        return f"the service of {self.name!r} does not answer", "see: simenv status"


class RunLimit:
    """Context of a job: cancels its tasks when their runs have taken too long together.

    The time is that of samples: at each, every task that runs counts for the time since the last
    one. A single task has the limit besides, which its worker measures.
    """

    def __init__(self, client: Client, tasks: AcceptedTasks, limit_s: float) -> None:
        """`limit_s` 0: none."""
        self._client, self._limit_s = client, limit_s
        self._left = [name for name, _ in tasks]
        self._ended = threading.Event()
        self._is_exceeded = False

    def __enter__(self) -> None:
        if self._limit_s and len(self._left) > 1:
            threading.Thread(target=self._watch, daemon=True).start()

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        if self._is_exceeded and error[1] is not None:
            text = f"its tasks have run for more than {self._limit_s:g} s, its max_execution_time"
            raise TaskExpiredError(text, hint="a longer one") from None

    def _watch(self) -> None:
        interval_s = min(max(self._limit_s / SAMPLES, LEAST_SAMPLE_S), MOST_SAMPLE_S)
        used_s, before_s = 0.0, monotonic()
        while self._left and not self._ended.wait(interval_s):
            try:
                infos = self._client.tasks(self._left)
                running = sum(info.state is TaskState.RUNNING for info in infos)
                now_s = monotonic()
                used_s += (now_s - before_s) * running
                before_s = now_s
                self._left = [info.id for info in infos if info.state not in FINAL_STATES]
                if used_s > self._limit_s:
                    self._is_exceeded = True
                    self._client.cancel(self._left)
                    return
            except SimenvError:  # no answer now: the next sample counts for this one too
                continue


class JobProcess:
    """Jobs of this process."""

    def __init__(self, channel: ParentChannel) -> None:
        self._channel = channel
        self._decoding = threading.Lock()
        self._asking = threading.Lock()
        self._certified: queue.Queue[Certified] = queue.Queue()
        self._client: Client | None = None

    def run(self) -> int:
        """Run jobs until the gateway closes the stream."""
        first = self._read()
        if not isinstance(first, Connect):
            return 2
        threading.Thread(target=self._connect, args=(first,), daemon=True).start()
        while (message := self._read()) is not None:
            if isinstance(message, RunJob):
                threading.Thread(target=self._run, args=(message.job,), daemon=True).start()
            elif isinstance(message, Certified):
                self._certified.put(message)
        return 0

    def _connect(self, first: Connect) -> None:
        """Connect and say so; without a connection the process ends."""
        try:
            address = GatewayAddress(first, self._certificate)
            if address.prepare().address:
                self._client = Client(address)
            else:  # the environment's own user
                own = FileAddress(address.path)
                self._client = Client(own, as_client=not first.is_admin)
            self._send(Ready())
        except SimenvError as error:
            sys.stderr.write(f"no connection: {error}\n")
            sys.stderr.flush()
            os._exit(1)

    def _certificate(self, public_key: str) -> TokenCertificate:
        with self._asking:
            self._send(CertificateWanted(public_key))
            answer = self._certified.get()
        if answer.certificate is None:
            raise NoServiceError(answer.reason)
        return answer.certificate

    def _read(self) -> ToProcess | None:
        data = self._channel.receive()
        return None if data is None else decode_request(data)

    def _send(self, message: FromProcess) -> None:
        self._channel.send(encode(message))

    def _run(self, number: str) -> None:
        """Run a job and store its end."""
        assert self._client is not None
        try:
            job = jobs.find(self._client, number)
            if job.is_pending:
                self._end(job)
        except NotFoundError:  # it was deleted
            pass
        except Exception as error:  # noqa: BLE001 - its end is not stored: it runs again
            sys.stderr.write(f"job {number} is interrupted: {error!r}\n")
            sys.stderr.flush()
            cause = error.__cause__ or error
            refused = cause.message if isinstance(cause, KeyRefusedError) else ""
            self._send(JobInterrupted(number, refused))
            return
        self._send(JobEnded(number))

    def _end(self, job: Job) -> None:
        """Run a job and store its end. Raises KeyRefusedError, NoServiceError."""
        assert self._client is not None
        try:
            result = self._result(job)
        except MemoryError:
            failure = jobs.INVALID, f"reading the job takes more than {MEMORY_BYTES >> 20} MiB"
        except Exception as error:  # whatever reading it raises fails the job
            if isinstance(error.__cause__ or error, NoServiceError | KeyRefusedError):
                raise
            failure = _reason(error)
        else:
            if result is not None:
                jobs.end(
                    self._client, job, result.parts, status=jobs.COMPLETED,
                    started_s=result.started_s, ended_s=result.ended_s,
                    quantum_s=result.quantum_s, warnings=_bounded(result.warnings),
                )  # fmt: skip
            return
        jobs.fail(self._client, job, *failure)

    def _result(self, job: Job) -> JobResult | None:
        """Decode a job, submit it and wait for its result; None: it was cancelled or deleted."""
        client = self._client
        assert client is not None
        begun = JobBegun(job.id, threading.get_native_id())
        with self._decoding:
            self._send(begun)
            noise = client.jobs.data(job.id, "noise") if job.calibration_id else b""
            work = Work(job, client.jobs.data(job.id, "params"), noise)
            submit = circuits.submit if job.kind == jobs.IQM else programs.submit
            submitted = submit(work, client)
        tasks = submitted.accepted()
        self._send(JobAccepted(job.id))
        # What an earlier process did not complete goes.
        if jobs.change(client, job.id, jobs.RESULTS, tasks=tasks) is None:
            client.cancel([name for name, _ in tasks])
            return None
        with RunLimit(client, tasks, float(job.cost)):
            return submitted.result()


def _bounded(warnings: Sequence[str]) -> tuple[str, ...]:
    """Return the warnings that a job keeps."""
    kept, size = list[str](), 0
    for text in warnings:
        size += len(text.encode())
        if size <= MAX_WARNING_BYTES:
            kept.append(text)
    return tuple(kept)


def _reason(error: BaseException) -> tuple[int, str]:
    """Reason code and text of a job that failed."""
    from qiskit.exceptions import QiskitError
    from qiskit.providers.exceptions import JobError

    cause = error.__cause__ or error
    # The text of Qiskit's errors is the representation of their message, in quotes.
    said = error.message if isinstance(error, QiskitError) else str(error)
    text = str(said or type(error).__name__)
    if isinstance(cause, TaskExpiredError):
        return jobs.RAN_TOO_LONG, text
    if isinstance(error, JobError | TaskFailedError):
        return jobs.RUN_FAILED, text
    if isinstance(error, SimenvError | QiskitError | ValueError | TypeError):
        return jobs.INVALID, text
    return jobs.INTERNAL, f"{type(error).__name__}: {text}"


def main() -> int:
    """Run jobs with a bound of memory."""
    channel = ParentChannel()
    warnings.simplefilter("ignore", SimenvWarning)  # the job carries them
    limit_process(more_bytes=MEMORY_BYTES, file_bytes=FILE_BYTES)
    status = JobProcess(channel).run()
    os._exit(status)  # without a wait for the threads of jobs


if __name__ == "__main__":
    sys.exit(main())
