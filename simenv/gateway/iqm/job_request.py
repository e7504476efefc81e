"""Options of a job of circuits as IQM's clients send it: read, honoured, or refused by name.

The circuits are decoded in a job process, whose libraries the gateway does not load.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from simenv.errors import DECODE_ERRORS, OptionError
from simenv.gateway import request_process
from simenv.gateway.ibm.backends import Backend
from simenv.gateway.iqm import architecture
from simenv.model.devices import DeviceInfo
from simenv.sandbox.function_process import SandboxProcess
from simenv.text import short_repr

MAX_RESET_CYCLES = 10
Name = Annotated[str, msgspec.Meta(max_length=4_096)]
Mapping = Annotated[dict[Name, Name], msgspec.Meta(max_length=2**16)]
Mappings = Annotated[list[Mapping], msgspec.Meta(max_length=2**16)]
Locus = Annotated[tuple[Name, ...], msgspec.Meta(max_length=2**16)]


class Definition(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A job as it is sent. Options of MOVE gates have no effect: no device here has such gates."""

    circuits: msgspec.Raw
    shots: int = 1
    calibration_set_id: Name | None = None
    qubit_mapping: Mappings | Mapping | None = None
    max_circuit_duration_over_t2: float | None = None
    heralding_mode: Name = "none"
    active_reset_cycles: int | None = None
    dd_mode: Name = "disabled"
    dd_strategy: msgspec.Raw = msgspec.Raw(b"null")
    move_gate_validation: Name | None = None
    move_validation_mode: Name | None = None  # its older name
    move_gate_frame_tracking: Name | None = None
    move_gate_frame_tracking_mode: Name | None = None  # its older name

    def mapped(self) -> dict[str, str] | None:
        """Physical name of each logical qubit. Raises OptionError."""
        given = self.qubit_mapping
        if not isinstance(given, list):
            return given
        try:
            return {each["logical_name"]: each["physical_name"] for each in given}
        except KeyError as error:
            expected = "entries with logical_name and physical_name"
            raise OptionError(
                option="qubit_mapping", value=short_repr(given), expected=expected
            ) from error


def read(params: bytes, name: str, info: DeviceInfo) -> Definition:
    """Decode a job and check its options. `name`: of the device. Raises OptionError."""
    try:
        asked = msgspec.json.decode(params, type=Definition)
    except DECODE_ERRORS as error:
        raise OptionError(f"the body is no job of circuits: {error!s:.200}") from error
    most = info.max_shots
    present = str(architecture.calibration_id(name, info.calibration_id))
    cycles = 0 if asked.active_reset_cycles is None else asked.active_reset_cycles
    rules: tuple[tuple[str, Any, bool, str], ...] = (
        ("shots", asked.shots, 1 <= asked.shots <= most, f"1 to {most}"),
        (
            "calibration_set_id", asked.calibration_set_id,
            asked.calibration_set_id in (None, present), f"the present one, {present}, or none",
        ),
        (
            "max_circuit_duration_over_t2", asked.max_circuit_duration_over_t2,
            not asked.max_circuit_duration_over_t2, "none, or 0.0: durations are not limited",
        ),
        (
            "heralding_mode", asked.heralding_mode, asked.heralding_mode == "none",
            "none: shots are not selected",
        ),
        (
            "active_reset_cycles", asked.active_reset_cycles,
            asked.active_reset_cycles is None
            or (info.dynamic and 1 <= cycles <= MAX_RESET_CYCLES),
            f"none, or 1 to {MAX_RESET_CYCLES} where the device has reset",
        ),
        (
            "dd_mode", asked.dd_mode, asked.dd_mode == "disabled",
            "disabled: write the gates of the decoupling sequences into the circuit",
        ),
    )  # fmt: skip
    for option, value, fits, expected in rules:
        if not fits:
            raise OptionError(option=option, value=value, expected=expected)
    asked.mapped()
    return asked


def check(sandbox: SandboxProcess, body: bytes, device: Backend) -> None:
    """Check the options of a job, in the process of the user if it is large. Blocks. Raises
    OptionError, LimitExceededError."""
    if len(body) <= request_process.SMALL_BYTES:
        read(body, device.name, device.info)
        return
    info = msgspec.structs.replace(device.info, operations=(), qubits=(), coupling=())
    request_process.call(sandbox, "iqm", body, (device.name, msgspec.msgpack.encode(info)))


def checked(body: bytes, device: list[Any]) -> bytes:
    """Check the options of a job; called in the process of the user."""
    name, packed = device
    read(body, name, msgspec.msgpack.decode(packed, type=DeviceInfo))
    return b""
