"""Programs of requests: read from the body, parsed, and submitted with the client's own options.

Invariant: this process parses no text but plain OpenQASM 2, by a reader whose time is linear in the
text. Everything else (QPY, OpenQASM 3, definitions of gates, pulse sequences) is read in a process
of the caller with bounds of memory and time (`load_bound`, `packed_pulses`), so that nobody's
program holds up the others or takes the memory of the gateway. A text is never a path.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import msgspec
from litestar import Request
from litestar.datastructures import UploadFile

from simenv.client.circuits import load, qasm2, text_checks, untrusted_programs
from simenv.client.circuits.load import is_pulses
from simenv.client.circuits.untrusted_programs import BoundCircuit, load_bound
from simenv.client.client import Client
from simenv.client.submission.options import under_reservation
from simenv.client.submission.pulses import (
    explain_pulses,
    pack_pulse_sweep,
    pack_pulses,
    send_pulses,
)
from simenv.client.submission.sequence_device import device_of
from simenv.client.tasks.task import Task
from simenv.errors import DECODE_ERRORS, LimitExceededError, OptionError
from simenv.gateway import request_process
from simenv.gateway.context import Caller
from simenv.gateway.native.schemas import (
    ExplanationRecord,
    ProgramRequest,
    SweepRequest,
    TaskRequest,
    record,
)
from simenv.model.devices import DeviceInfo
from simenv.model.pulses import check_text
from simenv.sandbox.function_process import SandboxProcess
from simenv.transpiler import qpy

PLAIN_CHARACTERS = 2**16  # longer text is parsed in the caller's own process
JSON, FORM = "application/json", "multipart/form-data"
QPY, PACKED = "application/x-qpy", "application/x-simenv-program"
TEXTS = ("text/plain", "application/octet-stream", "application/x-www-form-urlencoded")
_PROGRAM_FIELDS = ("program", "qpy", "packed")
_DEFAULTS: dict[str, Any] = {
    each.name: each.default
    for each in msgspec.structs.fields(TaskRequest)
    if each.name not in _PROGRAM_FIELDS
}

R = TypeVar("R", TaskRequest, SweepRequest)
S = TypeVar("S", bound=msgspec.Struct)


class PackedPulses(msgspec.Struct, frozen=True, array_like=True):
    """A pulse sequence, which the process of its user has read: one encoded PulseCall for each
    binding of its variables."""

    calls: list[bytes]


ReadProgram = BoundCircuit | PackedPulses


def bound_of(
    client: Client, sandbox: SandboxProcess, request: TaskRequest | SweepRequest
) -> ReadProgram:
    """Return the program of a request, with values for its parameters, if it has any. Raises
    ProgramError, OptionError, LimitExceededError, InfeasibleError for a pulse sequence that its
    device cannot run."""
    source, values = _source(request), request.parameter_values
    if is_pulses(source):
        check_text("the pulse sequence", request.program)
        info = device_of(_given(request), client.submit_devices)
        return _read_pulses(sandbox, msgspec.json.encode(request), type(request), info)
    if values is None and (plain := _plain(request.program)) is not None:
        return plain
    return load_bound(source, values, sandbox, b"program 0\n")


def _read_pulses(
    sandbox: SandboxProcess,
    body: bytes,
    kind: type[TaskRequest | SweepRequest],
    info: DeviceInfo | None,
) -> PackedPulses:
    """Read the pulse sequence of a request in JSON in the process of its user."""
    head = kind.__name__, b"" if info is None else msgspec.msgpack.encode(info)
    answer = request_process.call(sandbox, "sequence", body, head)
    return msgspec.msgpack.decode(answer, type=PackedPulses)


def _source(request: ProgramRequest) -> str | bytes:
    """Return the program of a request. Raises OptionError, LimitExceededError."""
    given = [name for name in _PROGRAM_FIELDS if getattr(request, name)]
    if len(given) != 1:
        message = f"{len(given)} programs in a request: {', '.join(given) or 'none'}"
        raise OptionError(message, hint=f"one of: {', '.join(_PROGRAM_FIELDS)}")
    source = request.program or request.qpy or request.packed
    if len(source) > text_checks.MAX_TEXT_BYTES:
        raise text_checks.too_large(len(source), "")
    return source


class _Decoded(msgspec.Struct, frozen=True, array_like=True):
    """A decoded body: the request in JSON, without its program and values, and these as `bound_of`
    returns them. `has_values`: there are values; `pulses`: None for a circuit."""

    options: bytes
    bound: bytes
    has_values: bool
    pulses: PackedPulses | None = None


_KINDS: dict[str, type[TaskRequest | SweepRequest]] = {
    kind.__name__: kind for kind in (TaskRequest, SweepRequest)
}


def packed_pulses(body: bytes, head: list[Any]) -> bytes:
    """Read the pulse sequence of a request in JSON; called in the process of the user. `head`: the
    kind of the request, and the encoded DeviceInfo of its device, b"": none. Raises OptionError,
    ProgramError, LimitExceededError, InfeasibleError."""
    kind, device = head
    info = msgspec.msgpack.decode(device, type=DeviceInfo) if device else None
    request = msgspec.json.decode(body, type=_KINDS[kind])
    return msgspec.msgpack.encode(_packed_pulses(request, info))


def _packed_pulses(
    request: TaskRequest | SweepRequest, info: DeviceInfo | None = None
) -> PackedPulses:
    options = _given(request)
    values = options.pop("parameter_values", None)
    if isinstance(request, SweepRequest):
        return PackedPulses(pack_pulse_sweep(request.program, values, options, info))
    options["parameter_values"] = values
    return PackedPulses([pack_pulses(request.program, options, info)])


def decoded(body: bytes, kind: str) -> bytes:
    """Decode a body and its program; called in the process of the user. `kind`: TaskRequest or
    SweepRequest. Raises OptionError, ProgramError, LimitExceededError."""
    try:
        request = msgspec.json.decode(body, type=_KINDS[kind])
    except DECODE_ERRORS as error:
        raise _undecoded(error) from error
    source = _source(request)
    text, data = (source, b"") if isinstance(source, str) else ("", source)
    values, bound, pulses = request.parameter_values, b"", None
    if is_pulses(source):
        pulses = _packed_pulses(request)
    else:
        bound = untrusted_programs.bound_of(text, data, values)
    empty: Any = [] if isinstance(request, SweepRequest) else None
    left = msgspec.structs.replace(request, program="", qpy=b"", packed=b"", parameter_values=empty)
    options = msgspec.json.encode(left)
    return msgspec.msgpack.encode(_Decoded(options, bound, values is not None, pulses))


def read_large(
    client: Client, sandbox: SandboxProcess, body: bytes, kind: type[R]
) -> tuple[R, ReadProgram]:
    """Decode a large body in the process of its user; return the request without its program and
    parameter values, and these. Blocks. Raises as `bound_of`."""
    answer = request_process.call(sandbox, "native", body, kind.__name__)
    found = msgspec.msgpack.decode(answer, type=_Decoded)
    request = msgspec.json.decode(found.options, type=kind)
    if found.pulses is not None:
        # Its device is known only now, and refuses what it cannot run.
        info = device_of(_given(request), client.submit_devices)
        return request, found.pulses if info is None else _read_pulses(sandbox, body, kind, info)
    return request, untrusted_programs.bound_circuit(found.bound, found.has_values)


def _plain(text: str) -> BoundCircuit | None:
    """Return the circuit of short plain OpenQASM 2 text; None for anything else."""
    if not text or len(text) > PLAIN_CHARACTERS or not text.lstrip().startswith("OPENQASM 2"):
        return None
    source = text_checks.inspect(text)
    program = qasm2.program(source) if source.version == 2 else None
    return None if program is None else BoundCircuit(load(program), None, True)


def _given(request: ProgramRequest) -> dict[str, Any]:
    """Return the options that differ from their defaults."""
    return {
        name: value
        for name in request.__struct_fields__
        if name in _DEFAULTS and (value := getattr(request, name)) != _DEFAULTS[name]
    }


def _options(request: ProgramRequest, caller: Caller, key: str | None) -> dict[str, Any]:
    """Return the options that differ from their defaults, for `Client.submit`."""
    options = _given(request)
    options.pop("parameter_values", None)
    options["account"] = options.get("account") or caller.account or None
    if caller.reservation and caller.pool:
        options = {**under_reservation(options, {caller.pool: caller.reservation})}
    elif caller.reservation:  # of all pools
        options.setdefault("reservation", caller.reservation)
    if key is not None:
        options["idempotency_key"] = key
    return options


def _check_gradient(options: Mapping[str, Any], bound: BoundCircuit) -> None:
    if bound.rows is not None and not bound.plain and "gradient" in options.get("outputs", ()):
        hint = "gates whose angles are the parameters themselves; or simenv.Client"
        message = "a gradient was asked of a program with formulas of parameters"
        raise OptionError(message, hint=hint)


def submit(
    client: Client,
    request: TaskRequest,
    bound: ReadProgram,
    caller: Caller,
    key: str | None,
    trace: str,
) -> Task:
    """Submit one task; see `Client.submit`."""
    options = _options(request, caller, key) | {"trace": trace}
    if isinstance(bound, PackedPulses):
        info = device_of(options, client.submit_devices)
        return send_pulses(client.session, bound.calls, options, info)[0]
    _check_gradient(options, bound)
    if bound.rows is not None:
        options["parameter_values"] = bound.rows
    return client.submit(bound.circuit, **options)


def submit_sweep(
    client: Client,
    request: SweepRequest,
    bound: ReadProgram,
    caller: Caller,
    key: str | None,
    trace: str,
) -> list[Task]:
    """Submit a sweep; see `Client.submit_many`."""
    options = _options(request, caller, key) | {"trace": trace}
    if isinstance(bound, PackedPulses):
        info = device_of(options, client.submit_devices)
        return list(send_pulses(client.session, bound.calls, options, info))
    _check_gradient(options, bound)
    return client.submit_many((bound.circuit, bound.rows), **options)


def explain(
    client: Client, request: TaskRequest, bound: ReadProgram, caller: Caller
) -> ExplanationRecord:
    """Ask which engine would run a program; see `Client.explain`."""
    options = _options(request, caller, None)
    if isinstance(bound, PackedPulses):
        info = device_of(options, client.submit_devices)
        explanation = explain_pulses(client.session, bound.calls[0], options, info)
        return record(explanation, ExplanationRecord)
    if bound.rows is not None:
        options["parameter_values"] = bound.rows
    explanation = client.explain(bound.circuit, **options)
    return record(explanation, ExplanationRecord)


async def read_request(
    request: Request[Any, Any, Any], kind: type[R], *, waits: bool = False
) -> Callable[[Client, SandboxProcess], tuple[R, ReadProgram]]:
    """Read the body of a request: JSON of `kind`; a form with the file `program` and JSON in
    `options`; or the program itself, with its options in the query. `waits`: the route knows `wait`
    there. Returns a function that decodes it, with the client and the process of the user; it
    blocks and raises OptionError, ProgramError, LimitExceededError. Raises OptionError."""
    media_type = request.headers.get("content-type", JSON).partition(";")[0].strip().lower()
    if media_type == JSON and len(body := await request.body()) > request_process.SMALL_BYTES:
        _check_names(request, media_type, waits=waits)
        return lambda client, sandbox: read_large(client, sandbox, body, kind)
    asked = await _read_small(request, kind, waits=waits)
    return lambda client, sandbox: (asked, bound_of(client, sandbox, asked))


def _check_names(request: Request[Any, Any, Any], media_type: str, *, waits: bool) -> None:
    """Raise OptionError for names in the query that would have no effect."""
    if "wait" in request.query_params and not waits:
        hint = "GET /api/v1/tasks/ID/result?wait=SECONDS waits"
        raise OptionError("the query has 'wait', and this answer comes at once", hint=hint)
    if media_type in (JSON, FORM):
        place = "members of the JSON" if media_type == JSON else "JSON in the part `options`"
        refuse_others(request.query_params, ("wait",), "the query", f"options are {place}")


async def _read_small(request: Request[Any, Any, Any], kind: type[R], *, waits: bool) -> R:
    media_type = request.headers.get("content-type", JSON).partition(";")[0].strip().lower()
    _check_names(request, media_type, waits=waits)
    if media_type == JSON:
        return await read_json(request, kind)
    try:
        if media_type == FORM:
            return await _of_form(request, kind)
        options: dict[str, Any] = {}
        for name, value in request.query_params.multi_items():
            if name in options:
                earlier: Any = options[name]
                value = [*(earlier if isinstance(earlier, list) else [earlier]), value]
            options[name] = value
        options.pop("wait", None)
        options |= _program(await request.body(), media_type)
        return msgspec.convert(options, kind, strict=False)
    except DECODE_ERRORS as error:
        raise _undecoded(error) from error


async def read_json(request: Request[Any, Any, Any], kind: type[S]) -> S:
    """Read a small body of JSON. Raises OptionError, LimitExceededError."""
    body = await request.body()
    if len(body) > request_process.SMALL_BYTES:
        text = f"{len(body)} bytes; the limit of this request is {request_process.SMALL_BYTES}"
        raise LimitExceededError(text, hint="/api/v1/openapi.json describes all requests")
    try:
        return msgspec.json.decode(body, type=kind)
    except DECODE_ERRORS as error:
        raise _undecoded(error) from error


def refuse_others(given: Iterable[str], known: tuple[str, ...], where: str, hint: str) -> None:
    """Raise OptionError for a name that would have no effect."""
    for name in given:
        if name not in known:
            raise OptionError(f"{where} takes no {name[:64]!r}", hint=hint)


def _undecoded(error: Exception) -> OptionError:
    return OptionError(f"the request: {error}", hint="/api/v1/openapi.json describes all requests")


async def _of_form(request: Request[Any, Any, Any], kind: type[R]) -> R:
    form = await request.form()
    refuse_others(
        form, ("program", "options"), "the form", "options are JSON in the part `options`"
    )
    part, text = form.get("program"), form.get("options", "{}")
    if isinstance(text, UploadFile):
        text = (await text.read()).decode()
    if len(text) > request_process.SMALL_BYTES:
        limit = f"the limit is {request_process.SMALL_BYTES}"
        raise LimitExceededError(f"options have {len(text)} bytes; {limit}", hint=f"send {JSON}")
    options = msgspec.json.decode(str(text).encode(), type=dict[str, Any])
    body = await part.read() if isinstance(part, UploadFile) else str(part or "").encode()
    return msgspec.convert(options | _program(body, ""), kind)


def _program(body: bytes, media_type: str) -> dict[str, Any]:
    """Return the member that holds a program of this type; QPY is also known by its beginning.
    Raises OptionError, LimitExceededError."""
    if len(body) > text_checks.MAX_TEXT_BYTES:
        raise text_checks.too_large(len(body), "")
    if media_type == QPY or body.startswith(qpy.MAGIC):
        return {"qpy": body}
    if media_type == PACKED:
        return {"packed": body}
    if media_type and media_type not in TEXTS:
        hint = f"{JSON}, {FORM}, text/plain, {QPY} or {PACKED}"
        raise OptionError(f"Content-Type {media_type[:80]!r}", hint=hint)
    return {"program": body.decode()}
