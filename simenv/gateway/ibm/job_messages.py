"""Messages between the gateway and a job process, one a frame.

The gateway imports no module that decodes what a user sent, nor the libraries that these need.
"""

from __future__ import annotations

import msgspec

from simenv.wire.messages.credentials import TokenCertificate

MEMORY_BYTES = 2 * 2**30  # in addition to that of the libraries
FILE_BYTES = 16 * 2**20  # of its log, the only file that it writes
REPORT_BYTES = 64 * 2**10  # of one message of the process


class Connect(msgspec.Struct, frozen=True, tag="connect"):
    """First message of the gateway."""

    name: str  # of the environment
    service: str  # its connection file, for certificates without an address
    is_admin: bool


class Certified(msgspec.Struct, frozen=True, tag="certified"):
    """Answer to CertificateWanted. None: the service does not answer now, for a reason. A process
    whose token has ended gets no answer, and is ended."""

    certificate: TokenCertificate | None
    reason: str = ""


class RunJob(msgspec.Struct, frozen=True, tag="run"):
    job: str


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


class JobEnded(msgspec.Struct, frozen=True, tag="ended"):
    """The end of a job is stored."""

    job: str


class JobInterrupted(msgspec.Struct, frozen=True, tag="interrupted"):
    """The service does not answer: run the job later. `refusal`: it does not accept the process any
    more, for this reason: run the job in another one."""

    job: str
    refusal: str = ""


ToProcess = Connect | Certified | RunJob
FromProcess = CertificateWanted | Ready | JobBegun | JobAccepted | JobEnded | JobInterrupted
decode_request = msgspec.msgpack.Decoder(ToProcess).decode
decode_report = msgspec.msgpack.Decoder(FromProcess).decode
encode = msgspec.msgpack.Encoder().encode
