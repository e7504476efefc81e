"""Messages between the gateway and a job process, one a frame.

The gateway imports no module that decodes what a user sent, nor the libraries that these need.
"""

from __future__ import annotations

import msgspec

from simenv.wire.messages.admin import TokenCertificate

MEMORY_BYTES = 2 * 2**30  # in addition to that of the libraries
FILE_BYTES = 16 * 2**20  # of its log, the only file that it writes
PART_BYTES = 2**20  # of parameters and results in one message
REPORT_BYTES = 16 * PART_BYTES  # of a whole message of the process
MAX_REASON_CHARS = 10_000  # of a job that failed, and of one warning
MAX_WARNINGS = 100

# Reason codes: those of IBM's service.
INVALID, FAILED, RAN_TOO_LONG, INTERNAL = 1002, 1010, 1305, 9999

AcceptedTasks = list[tuple[str, int]]  # id, and number of sets of values (0: a task of one)


class Work(msgspec.Struct, frozen=True):
    """One job to run. `params`: JSON; `accepted`: its tasks, if an earlier process had them
    accepted; `run_timeout_s` 0: no limit; `reservation` 0: none; `noise`: the document of the
    device's calibration, b"": the present one."""

    job: str
    program: str
    backend: str
    params: bytes
    account: str = ""
    run_timeout_s: float = 0.0
    reservation: int = 0
    accepted: AcceptedTasks = []
    noise: bytes = b""
    trace: str = ""  # traceparent that its tasks continue


class JobResult(msgspec.Struct, frozen=True):
    """Result of a job. Times in seconds since 1970."""

    parts: dict[str, bytes]  # by kind: `result`, or the artifacts of IQM's API
    quantum_s: float  # on the device, by its calibration; of an ideal one: of the simulation
    started_s: float
    ended_s: float
    warnings: list[str] = []


class Connect(msgspec.Struct, frozen=True, tag="connect"):
    """First message of the gateway."""

    name: str  # of the environment
    service: str  # its connection file, for certificates without an address
    is_admin: bool


class Certified(msgspec.Struct, frozen=True, tag="certified"):
    """Answer to CertificateWanted. `refusal`: reason why the token is not valid any more."""

    certificate: TokenCertificate | None
    refusal: str = ""


class ParamsPart(msgspec.Struct, frozen=True, tag="params"):
    """Bytes of the parameters of a job, before its RunJob, which has the last ones."""

    job: str
    data: bytes


class RunJob(msgspec.Struct, frozen=True, tag="run"):
    work: Work


class CertificateWanted(msgspec.Struct, frozen=True, tag="certificate"):
    """The process needs a certificate for its public key."""

    public_key: str


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    """The process is connected."""


class JobBegun(msgspec.Struct, frozen=True, tag="begun"):
    """A job is being decoded, by this thread of the operating system."""

    job: str
    thread: int


class JobAccepted(msgspec.Struct, frozen=True, tag="submitted"):
    """The service has accepted the tasks of a job."""

    job: str
    tasks: AcceptedTasks


class ResultPart(msgspec.Struct, frozen=True, tag="part"):
    """Bytes of the result of a job, before its JobDone, which has the last ones of each kind."""

    job: str
    kind: str
    data: bytes


class JobDone(msgspec.Struct, frozen=True, tag="ended"):
    job: str
    result: JobResult


class JobFailed(msgspec.Struct, frozen=True, tag="failed"):
    job: str
    code: int
    reason: str


class JobInterrupted(msgspec.Struct, frozen=True, tag="interrupted"):
    """The service does not answer, or does not accept the user any more: run the job later."""

    job: str


ToProcess = Connect | Certified | ParamsPart | RunJob
FromProcess = (
    CertificateWanted
    | Ready
    | JobBegun
    | JobAccepted
    | ResultPart
    | JobDone
    | JobFailed
    | JobInterrupted
)
decode_request = msgspec.msgpack.Decoder(ToProcess).decode
decode_report = msgspec.msgpack.Decoder(FromProcess).decode
encode = msgspec.msgpack.Encoder().encode
