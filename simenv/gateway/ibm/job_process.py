"""Job process: runs the jobs of one user of IBM's clients.

python -P -m simenv.gateway.ibm.job_process  # started by the gateway alone

It decodes what a user sent, which may ask for any amount of memory or time: the process has a bound of
memory, and the gateway ends it when one job takes too much time of the CPU. It holds the rights of
its user and of nobody else. Messages come and go through its standard streams, each with its length;
when the gateway ends, so does the process. Jobs run at the same time, one thread each; they are
decoded one after the other.
"""

from __future__ import annotations

import os
import struct
import sys
import threading
from typing import IO

import msgspec

from simenv.errors import LimitExceededError, SimenvError, TaskExpiredError
from simenv.gateway.ibm import programs
from simenv.gateway.ibm.programs import AcceptedTasks, JobResult, Work

MEMORY_BYTES = 2 * 2**30  # in addition to that of the libraries
LENGTH = struct.Struct("!Q")
MAX_FRAME_BYTES = 2**30

# Reason codes: those of IBM's service.
INVALID, FAILED, RAN_TOO_LONG, INTERNAL = 1002, 1010, 1305, 9999


class Connect(msgspec.Struct, frozen=True, tag="connect"):
    """First message of the gateway: where the service is, with the user's rights."""

    service: str  # path of a connection file


class RunJob(msgspec.Struct, frozen=True, tag="run"):
    work: Work


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    """The process is connected."""


class Begun(msgspec.Struct, frozen=True, tag="begun"):
    """A job is being decoded, by this thread of the operating system."""

    job: str
    thread: int


class Submitted(msgspec.Struct, frozen=True, tag="submitted"):
    """The service has accepted the tasks of a job."""

    job: str
    tasks: AcceptedTasks


class Ended(msgspec.Struct, frozen=True, tag="ended"):
    job: str
    result: JobResult


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    job: str
    code: int
    reason: str


ToProcess = Connect | RunJob
FromProcess = Ready | Begun | Submitted | Ended | Failed
decode_request = msgspec.msgpack.Decoder(ToProcess).decode
decode_report = msgspec.msgpack.Decoder(FromProcess).decode


def frame(message: ToProcess | FromProcess) -> bytes:
    """A message with its length in front."""
    data = msgspec.msgpack.encode(message)
    return LENGTH.pack(len(data)) + data


class JobProcess:
    """Jobs of this process."""

    def __init__(self, source: IO[bytes], answers: IO[bytes]) -> None:
        self._source, self._answers = source, answers
        self._writing = threading.Lock()
        self._decoding = threading.Lock()

    def run(self) -> int:
        """Run jobs until the gateway closes the stream."""
        from simenv.client.client import connect

        first = self._read()
        if not isinstance(first, Connect):
            return 2
        self._client = connect(service=first.service)
        self._send(Ready())
        while (message := self._read()) is not None:
            if isinstance(message, RunJob):
                threading.Thread(target=self._job, args=(message.work,), daemon=True).start()
        return 0

    def _read(self) -> ToProcess | None:
        head = self._source.read(LENGTH.size)
        if len(head) < LENGTH.size:
            return None
        (size,) = LENGTH.unpack(head)
        data = self._source.read(size)
        return decode_request(data) if len(data) == size else None

    def _send(self, message: FromProcess) -> None:
        data = frame(message)
        with self._writing:
            self._answers.write(data)
            self._answers.flush()

    def _job(self, work: Work) -> None:
        try:
            self._send(Begun(work.job, threading.get_native_id()))
            self._send(Ended(work.job, self._result(work)))
        except MemoryError:
            reason = f"reading the job takes more than {MEMORY_BYTES >> 20} MiB"
            self._send(Failed(work.job, INVALID, reason))
        except BaseException as error:
            self._send(Failed(work.job, *_reason(error)))

    def _result(self, work: Work) -> JobResult:
        if work.program == "executor":
            return _executed(work, self._client)
        with self._decoding:
            job = programs.submit(work, self._client)
        self._send(Submitted(work.job, job.accepted()))
        return job.result()


def _reason(error: BaseException) -> tuple[int, str]:
    """Reason code and text of a job that failed."""
    from qiskit.exceptions import QiskitError
    from qiskit.providers.exceptions import JobError

    cause = error.__cause__ or error
    text = str(error) or type(error).__name__
    if isinstance(cause, TaskExpiredError):
        return RAN_TOO_LONG, text
    if isinstance(error, JobError):
        return FAILED, text
    if isinstance(error, LimitExceededError | SimenvError | QiskitError | ValueError | TypeError):
        return INVALID, text
    return INTERNAL, f"{type(error).__name__}: {text}"


def main() -> int:
    """Run jobs with a bound of memory."""
    import resource

    source, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints goes to the log
    with open("/proc/self/statm", encoding="ascii") as sizes:
        used_bytes = int(sizes.read().split()[0]) * resource.getpagesize()
    limit = used_bytes + MEMORY_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    status = JobProcess(source, answers).run()
    os._exit(status)  # without a wait for the threads of jobs


if __name__ == "__main__":
    sys.exit(main())
