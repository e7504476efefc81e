"""What the process of a user does for Pasqal's API: it reads batches, and writes results.

Invariant: pulser reads sequences and configurations here alone, within the bounds of that process;
the gateway gets encoded calls, whose sizes are known.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from typing import Annotated, Any

import msgspec

from simenv.client.submission.pulses import REFUSED, PulseResult, pack_pulses, read_sequence
from simenv.errors import (
    DECODE_ERRORS,
    LimitExceededError,
    OptionError,
    ProgramError,
)
from simenv.model.devices import DeviceInfo
from simenv.model.pulses import check_text
from simenv.transpiler.atoms import errors_of_pulser

MAX_BODY_BYTES = 32 * 2**20  # unpacked
MAX_JOBS = 1_000  # of one batch
MAX_TAGS, MAX_TAG_CHARS = 10, 100
MAX_RUNS = 2**31 - 1
_GZIP = 31  # of zlib's wbits: with the header of gzip
# Options of the methods of Pasqal's emulators; the engines here have tolerances of their own.
_METHODS = frozenset(
    {
        *("dt", "precision", "max_bond_dim", "max_krylov_dim", "extra_krylov_tolerance"),
        *("krylov_tolerance", "num_gpus_to_use", "gpu", "autosave_dt", "autosave_prefix"),
        *("optimize_qubit_ordering", "interaction_cutoff", "log_level", "log_file", "solver"),
        *("sampling_rate", "progress_bar", "print_progress"),
    }
)
EMULATORS = (
    "EMU_FREE",
    "EMU_SV",
    "EMU_MPS",
    "EMU_TN",
)  # without noise, but that of a configuration
TYPES = (*EMULATORS, "EMU_FRESNEL")  # of devices that emulate

Name = Annotated[str, msgspec.Meta(max_length=320)]
Sequence = Annotated[str, msgspec.Meta(max_length=2**21)]


class JobBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A job as it is sent. `sequence`: its own; None: that of its batch."""

    runs: Annotated[int, msgspec.Meta(ge=1, le=MAX_RUNS)] | None = None
    variables: Annotated[dict[Name, Any], msgspec.Meta(max_length=256)] | None = None
    sequence: Sequence | None = None


Jobs = Annotated[list[JobBody], msgspec.Meta(max_length=MAX_JOBS)]


class BatchBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A batch as it is sent. `device_type` None: the device of its sequence."""

    jobs: Jobs
    sequence_builder: Sequence | None = None
    device_type: Name | None = None
    project_id: Name = ""
    open: bool = False
    complete: bool | None = None  # of older clients: not `open`
    webhook: Name | None = None
    tags: Annotated[list[Name], msgspec.Meta(max_length=MAX_TAGS)] = []
    backend_configuration: Sequence | None = None
    configuration: Annotated[dict[Name, Any], msgspec.Meta(max_length=64)] | None = None


class PackedJob(msgspec.Struct, frozen=True, array_like=True):
    """A job that was read: its encoded PulseCall, the options of its task, and its line for the
    stored batch."""

    call: bytes
    options: dict[str, Any]
    line: bytes


class PackedBatch(msgspec.Struct, frozen=True, array_like=True):
    """A batch that was read. `device_type`: the one asked for, else the name of the device of its
    sequence; `sequence` and `config` "": none."""

    device_type: str
    project: str
    tags: tuple[str, ...]
    is_open: bool
    sequence: str
    config: str
    jobs: list[PackedJob]


class AddedJobs(msgspec.Struct, frozen=True, array_like=True):
    """What is known of the batch to which jobs are added. `first`: number of its jobs; `device`: of
    the environment, None: none of its type's name."""

    device_type: str
    sequence: str
    config: str
    first: int
    device: DeviceInfo | None = None


def unpacked(body: bytes, encoding: str) -> bytes:
    """Return a body without its encoding. Raises LimitExceededError, OptionError."""
    if encoding in ("", "identity"):
        return body
    if encoding != "gzip":
        raise OptionError(f"Content-Encoding {encoding[:40]!r}", hint="gzip, or none")
    stream = zlib.decompressobj(_GZIP)
    try:
        data = stream.decompress(body, MAX_BODY_BYTES)
    except zlib.error as error:
        raise OptionError(f"the body is not in gzip: {error}") from error
    if stream.unconsumed_tail:
        raise LimitExceededError(f"a body of more than {MAX_BODY_BYTES} bytes", hint="fewer jobs")
    return data


def batch(body: bytes, head: list[Any]) -> bytes:
    """Read a batch; called in the process of the user. `head`: the encoding of the body, and the
    environment's devices of neutral atoms, as encoded DeviceInfos. Returns a PackedBatch. Raises
    OptionError, ProgramError, LimitExceededError, InfeasibleError."""
    encoding, devices = head
    try:
        asked = msgspec.json.decode(unpacked(body, encoding), type=BatchBody)
    except DECODE_ERRORS as error:
        raise OptionError(f"the batch: {error!s:.300}") from error
    _check(asked)
    sequence, config = asked.sequence_builder or "", asked.backend_configuration or ""
    infos = msgspec.msgpack.decode(devices, type=dict[str, DeviceInfo])
    device_type = asked.device_type or ""
    if not (device_type in TYPES or device_type in infos):
        device_type = _device_of(sequence or _first(asked.jobs))
    if asked.device_type not in (None, device_type):
        hint = f"{', '.join(TYPES)}, a device of the environment, or the sequence's {device_type!r}"
        raise OptionError(f"there is no device_type {asked.device_type[:80]!r}", hint=hint)
    known = AddedJobs(device_type, sequence, config, 0, infos.get(device_type))
    is_open = asked.open if asked.complete is None else not asked.complete
    if not asked.jobs and not is_open:
        raise OptionError("a closed batch without jobs", hint="jobs, or open=True")
    packed = PackedBatch(
        device_type, asked.project_id, tuple(asked.tags), is_open, sequence, config,
        _packed(asked.jobs, known),
    )  # fmt: skip
    return msgspec.msgpack.encode(packed)


def jobs(data: bytes, head: list[Any]) -> bytes:
    """Read jobs that are added to a batch; called in the process of the user. `head`: the encoding
    of the body, and an encoded AddedJobs. Returns a list of PackedJob. Raises as `batch`."""
    encoding, known = head
    try:
        asked = msgspec.json.decode(unpacked(data, encoding), type=Jobs)
    except DECODE_ERRORS as error:
        raise OptionError(f"the jobs: {error!s:.300}") from error
    return msgspec.msgpack.encode(_packed(asked, msgspec.msgpack.decode(known, type=AddedJobs)))


def _check(asked: BatchBody) -> None:
    if asked.webhook:
        hint = "ask for the batch's status; no result is sent to other servers"
        raise OptionError(f"webhook={asked.webhook[:80]!r}", hint=hint)
    check_tags(asked.tags)
    extra = asked.configuration or {}
    if extra.get("with_noise") or extra.get("extra_config"):
        hint = "a configuration with a noise model: EmuFreeBackendV2"
        raise OptionError("noise of the old configuration of EMU_FREE", hint=hint)


def check_tags(tags: list[str]) -> None:
    """Raise OptionError for too many tags, or too long ones."""
    if len(tags) > MAX_TAGS or any(len(tag) > MAX_TAG_CHARS for tag in tags):
        expected = f"at most {MAX_TAGS}, of {MAX_TAG_CHARS} characters each"
        raise OptionError(option="tags", value=f"{len(tags)} tags", expected=expected)


def _first(asked: list[JobBody]) -> str:
    """Return the sequence of the first job. Raises ProgramError."""
    if not asked or not asked[0].sequence:
        raise ProgramError("a batch without a sequence", hint="Sequence.to_abstract_repr()")
    return asked[0].sequence


def _device_of(sequence: str) -> str:
    return str(_built(sequence, {}).device.name)[:320]


def _packed(asked: list[JobBody], known: AddedJobs) -> list[PackedJob]:
    if known.first + len(asked) > MAX_JOBS:
        text = f"{known.first + len(asked)} jobs; the limit of a batch is {MAX_JOBS}"
        raise LimitExceededError(text, hint="several batches")
    config = configuration(known.config)
    return [_packed_job(each, k, known, config) for k, each in enumerate(asked, known.first)]


def _packed_job(asked: JobBody, number: int, known: AddedJobs, config: Any) -> PackedJob:
    text, variables = asked.sequence or known.sequence, asked.variables or {}
    if not text:
        raise ProgramError(f"job {number} has no sequence, and its batch has none")
    if config is not None:
        from simenv.frontends.pulser.emulation import submit_options

        options = submit_options(config, _built(text, variables), None)
    elif asked.runs is None:
        raise OptionError(f"job {number} without runs", hint="runs: the number of its shots")
    else:
        options = {"shots": asked.runs}
        if known.device_type in EMULATORS:
            options["noise"] = "off"
    sent = {name: options[name] for name in ("shots", "seed") if options.get(name) is not None}
    sent = {"shots": None} | sent
    if known.device is not None:
        options["device"] = sent["device"] = known.device.name
        sent["noise"] = options.get("noise", "auto") if config is None else "off"
    asked_for = options | {"parameter_values": variables, "binding_index": number}
    call = pack_pulses(text, asked_for, known.device)
    line = msgspec.json.encode({"runs": asked.runs, "variables": asked.variables})
    return PackedJob(call, sent, line + b"\n")


def _built(text: str, variables: Mapping[str, Any]) -> Any:
    """Return a pulser.Sequence, built if it has variables. Raises ProgramError,
    LimitExceededError."""
    with errors_of_pulser(REFUSED):
        sequence = read_sequence(text)
        return sequence.build(**variables) if variables else sequence


def configuration(text: str) -> Any:
    """Return the SimenvConfig of an EmulationConfig's abstract representation; None of "". Options
    of the numerical methods of Pasqal's emulators have no effect. Raises OptionError."""
    if not text:
        return None
    from pulser.backend import StateResult

    from simenv.frontends.pulser.emulation import SimenvConfig

    check_text("the backend configuration", text)
    with errors_of_pulser("the backend configuration", OptionError):
        given = json.loads(text)
        kept = {name: value for name, value in given.items() if name not in _METHODS}
        config = SimenvConfig.from_abstract_repr(json.dumps(kept))
    if any(isinstance(each, StateResult) for each in config.observables):
        hint = "SimenvEmulator, or outputs='statevector' of the HTTP API"
        raise OptionError("states are no results of this API", hint=hint)
    return config


def result(value: bytes, config: str) -> bytes:
    """Write the result of a job as its client downloads it; called in the process of the user.
    `value`: an encoded PulseAnswer."""
    found = PulseResult(value)
    body: dict[str, Any] = {"counter": found.counts if found.has("counts") else {}}
    if config:
        from simenv.frontends.pulser.emulation import results_of

        written = results_of(configuration(config), found).to_abstract_repr()
        body["serialised_results"] = written
    return msgspec.json.encode(body)


def devices(_data: bytes) -> bytes:
    """Write the devices that every environment emulates: pairs of name and abstract
    representation."""
    import pulser

    return msgspec.msgpack.encode(
        [
            (device.name, device.to_abstract_repr())
            for device in (pulser.AnalogDevice, pulser.DigitalAnalogDevice)
        ]
    )
