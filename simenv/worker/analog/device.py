"""Pulse sequences on emulated devices of neutral atoms.

A device is a snapshot with a machine and noise. A sequence is put on the machine by pulser, which
refuses what the machine cannot do; that of another user in a process of its own. Invariant: engines
get a call whose sequence is on the device, with the noise that acts, and know no snapshot.
"""

from __future__ import annotations

import json

import msgspec

from noise_models import atoms
from noise_models.atoms import AnalogCalibration
from noise_models.calibration import CalibrationSnapshot
from noise_models.options import NoiseOptions
from noise_models.strict_json import NoiseError
from simenv.errors import OptionError, ProgramError
from simenv.model import DeviceRecord, TaskOptions
from simenv.model.devices import device_time_ns, wall_clock_s
from simenv.model.options import STALE
from simenv.model.pulses import PulseCall, PulseSizes, check_pulses, settled
from simenv.sandbox.function_process import SandboxProcess
from simenv.transpiler.atoms import built_sequence, errors_of_pulser, on_machine, sizes_of
from simenv.wire.messages.client import AssignedTask
from simenv.worker.noise import Noise
from simulators.engine import RunControl
from simulators.errors import Unsupported

_OFF = ("all", 0.0)  # factor of `noise="off"`


class PlaceRequest(msgspec.Struct, frozen=True, array_like=True):
    """A sequence for a machine. `noise`: arguments of a NoiseModel, as JSON; "": none."""

    call: PulseCall
    machine: str
    noise: str


class Placed(msgspec.Struct, frozen=True, array_like=True):
    """A sequence on a machine, and a NoiseModel, in abstract representation."""

    sequence: str
    noise: str
    sizes: PulseSizes


class PulseDevice(msgspec.Struct, frozen=True):
    """The device of a task, for its result. `time_ns`: of the task there."""

    record: DeviceRecord
    time_ns: int


def on_device(
    call: PulseCall,
    assigned: AssignedTask,
    terms: TaskOptions,
    noise: Noise,
    control: RunControl,
) -> tuple[PulseCall, PulseDevice]:
    """Return the call as it runs on its device, with the device's noise unless it has its own.
    Raises InfeasibleError for what the machine cannot do, OptionError, Unsupported, Stopped."""
    snapshot = noise.calibration(terms)
    analog = snapshot.analog
    if analog is None:
        hint = "a device of neutral atoms"
        raise Unsupported(f"device {terms.device} runs circuits, no pulse sequences", hint=hint)
    options = NoiseOptions.parse(terms.noise)
    try:
        figures = {} if call.noise else atoms.pulser_noise(analog, options)
    except NoiseError as error:
        raise OptionError(error.message, hint=error.hint) from error
    machine = msgspec.json.encode(analog.device, order="deterministic").decode()
    # The bandwidth of channels has to be known before the noise is.
    call = msgspec.structs.replace(call, modulation=call.modulation is not False)
    request = PlaceRequest(call, machine, json.dumps(figures) if figures else "")
    packed = msgspec.msgpack.encode(request)
    answer = placed(packed) if assigned.trusted else _PROCESS.convert(packed, check=control.check)
    result = msgspec.msgpack.decode(answer, type=Placed)
    call = msgspec.structs.replace(
        call,
        sequence=result.sequence,
        sizes=result.sizes,
        noise=call.noise or result.noise,
        variables=(),
        mapping=(),
    )
    call = settled(call, assigned.shots, on_device=True)
    check_pulses(call)
    shot_ns = snapshot.reset_ns(()) + call.sizes.duration_ns
    time_ns = device_time_ns(assigned.shots, 1, snapshot.overhead_ns, shot_ns)
    return call, PulseDevice(_record(snapshot, analog, call, terms, options), time_ns)


def _record(
    snapshot: CalibrationSnapshot,
    analog: AnalogCalibration,
    call: PulseCall,
    terms: TaskOptions,
    options: NoiseOptions,
) -> DeviceRecord:
    """Return the description of the device for the result, with warnings about noise that was not
    measured, or does not act as asked."""
    warned: tuple[str, ...] = ()
    if call.noise and _OFF not in terms.noise:
        warned = atoms.limited(analog, options)
    lacking = atoms.lacking(analog, options)
    if lacking and _OFF not in terms.noise:
        listed = ", ".join(lacking)
        warned = (*warned, f"acted as perfect, as device {snapshot.name} has no value: {listed}")
    return DeviceRecord(
        terms.device,
        terms.snapshot,
        wall_clock_s(snapshot.calibrated),
        terms.noise,
        warnings=warned,
        stale=terms.stale == STALE,
    )


def placed(packed: bytes) -> bytes:
    """Put a sequence on a machine: a PlaceRequest in, a Placed out. Raises ProgramError,
    InfeasibleError."""
    from pulser import NoiseModel

    request = msgspec.msgpack.decode(packed, type=PlaceRequest)
    call = request.call
    with errors_of_pulser("pulser cannot read the sequence"):
        sequence = built_sequence(call)
        result = on_machine(sequence, request.machine, strict=call.strict)
        sizes = sizes_of(result, modulation=bool(call.modulation))
        if (sizes.atoms, sizes.channels) != (call.sizes.atoms, call.sizes.channels):
            text = f"the sequence has {sizes.atoms} atoms and {sizes.channels} channels; it came"
            text += f" with {call.sizes.atoms} and {call.sizes.channels}"
            raise ProgramError(text, hint="client and service should be of one version")
        text = result.to_abstract_repr()
        noise = NoiseModel(**json.loads(request.noise)) if request.noise else None
    own = "" if noise is None or not noise.noise_types else noise.to_abstract_repr()
    return msgspec.msgpack.encode(Placed(text, own, sizes))


_PROCESS = SandboxProcess(__name__, "placed", "pulse sequence", ("placing", "placed"), 20.0)
