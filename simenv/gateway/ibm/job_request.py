"""Bodies of jobs of IBM's clients: decoded and checked.

Small ones are decoded in a thread of the gateway, others in the process of the user. The parameters
stay in the body, from `start` to `end`.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from simenv.errors import DECODE_ERRORS, NotFoundError, OptionError
from simenv.gateway import request_process
from simenv.gateway.ibm import options
from simenv.sandbox.function_process import SandboxProcess

MAX_TAGS, MAX_TAG_CHARS = 8, 86  # of one job, as in qiskit-ibm-runtime
Name = Annotated[str, msgspec.Meta(max_length=4_096)]
Text = Name | None
Tags = Annotated[list[Name], msgspec.Meta(max_length=100)]


class JobRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of POST /jobs: what qiskit-ibm-runtime and QRMI send."""

    program_id: Name
    backend: Name = ""
    params: msgspec.Raw = msgspec.Raw(b"{}")
    session_id: Text = None
    tags: Tags = []
    cost: int | None = None
    private: bool = False
    calibration_id: Text = None
    runtime: Text = None
    log_level: Text = None
    start_session: bool = False
    session_time: int | None = None
    remote_storage: None = None  # of a cloud


class CheckedJob(msgspec.Struct, frozen=True):
    """A job whose options were checked, without its parameters, and where they are in the body:
    b"" if `start` is -1."""

    request: JobRequest
    start: int
    end: int

    def params(self, body: bytes) -> memoryview:
        """Return the parameters, without a copy."""
        return memoryview(body)[self.start : self.end] if self.start >= 0 else memoryview(b"{}")


def checked(body: bytes) -> CheckedJob:
    """Decode a job and check its options. Raises SimenvError."""
    try:
        asked = msgspec.json.decode(body, type=JobRequest)
    except DECODE_ERRORS as error:
        raise OptionError(f"the body is no job: {error!s:.200}") from error
    if asked.program_id not in options.PROGRAMS:
        text = f"Program not found: {asked.program_id[:80]!r} is not run here"
        raise NotFoundError(text, hint=f"there are {', '.join(options.PROGRAMS)}")
    if asked.start_session:
        raise OptionError("start_session is not supported", hint="POST /sessions")
    if asked.program_id != "executor":
        options.read(asked.program_id, asked.params)
    size = len(memoryview(asked.params))
    start = request_process.address_of(asked.params) - request_process.address_of(body)
    if not 0 <= start <= len(body) - size:  # the default
        start = -1
    left = msgspec.structs.replace(asked, params=msgspec.Raw(b"{}"))
    return CheckedJob(left, start, start + size)


def decoded(body: bytes) -> bytes:
    """Decode a job; called in the process of the user."""
    return msgspec.json.encode(checked(body))


def read(sandbox: SandboxProcess, body: bytes) -> CheckedJob:
    """Decode a job and check its options. Blocks. Raises SimenvError."""
    if len(body) <= request_process.SMALL_BYTES:
        return checked(body)
    answer = request_process.call(sandbox, "ibm", body)
    return msgspec.json.decode(answer, type=CheckedJob)
