"""Pulse sequences of tasks, to be drawn: the register of atoms, and the samples of each channel.

pulser-core samples a sequence in the process of the caller that reads it (`request_process`), with
the bounds of that process; the gateway passes the answer on as it is. Samples become the points
between which they are straight.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from simenv.client.client import Client
from simenv.errors import LimitExceededError, OptionError
from simenv.gateway import request_process
from simenv.model.calls import decode_call, is_call
from simenv.model.pulses import PulseCall, settled
from simenv.sandbox.function_process import SandboxProcess
from simenv.transpiler.atoms import built_sequence, errors_of_pulser, on_machine

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MAX_CHANNELS = 16  # that are drawn
MAX_POINTS = 1_000  # of a curve
MAX_SLOTS = 200  # of a channel
MAX_SAMPLES = 20_000_000  # nanoseconds of all channels: 480 MB of the process
_FLAT = 1e-9  # of the largest value of a curve: bends below it are none
_DIGITS = 6

Curve = tuple[list[int], list[float]]  # times in ns and values: straight lines between them


class ChannelPulses(msgspec.Struct, frozen=True):
    """Pulses of one channel. `amplitude`: Rabi frequency, rad/us; `detuning`: rad/us; `phase`: rad.
    `slots`: begin and end in ns, and atoms, of the pulses of a channel that moves among atoms."""

    name: str
    addressing: str  # Global, Local
    basis: str
    kind: str  # class of the channel in pulser
    amplitude: Curve
    detuning: Curve
    phase: Curve
    slots: list[tuple[int, int, list[str]]]


class PulseDrawing(msgspec.Struct, frozen=True):
    """A sequence without its noise, on its task's device if that has one. `atoms`: name, and x and
    y in um, of each; `blockade_um`: distance in which the largest Rabi frequency of the sequence
    excites one of two atoms alone, 0: none."""

    device: str
    duration_ns: int
    atoms: list[tuple[str, float, float]]
    is_flat: bool  # no atom has a third coordinate
    blockade_um: float
    channels: list[ChannelPulses]
    num_channels: int  # of which the first are drawn
    masked: list[str]  # atoms of an SLM mask
    mask_ns: int  # its end


def drawing_of(client: Client, task: str, sandbox: SandboxProcess) -> bytes:
    """Return the PulseDrawing of a task as JSON. Raises NotFoundError, OptionError for a task that
    is no pulse sequence, and LimitExceededError for one that takes too much to sample."""
    submitted = client.history.submitted(task)
    terms = submitted.terms
    call = decode_call(terms.engine, submitted.spec.program) if is_call(terms) else None
    if not isinstance(call, PulseCall):
        raise OptionError(f"task {task} is no pulse sequence", hint="GET /api/v1/tasks/ID/circuit")
    if call.sizes.channels * call.sizes.duration_ns > MAX_SAMPLES:
        text = f"{call.sizes.channels} channels for {call.sizes.duration_ns} ns; channels times"
        raise LimitExceededError(f"{text} nanoseconds may be {MAX_SAMPLES} in a drawing")
    info = client.device(terms.device).analog if terms.device else None
    machine = None if info is None else info.device
    return request_process.call(sandbox, "pulses", msgspec.msgpack.encode(call), machine)


def drawn(data: bytes, machine: str = "") -> bytes:
    """Sample the sequence of a PulseCall; called in the process. `machine`: abstract representation
    of the device that it is put on; "": none. Raises ProgramError, InfeasibleError, and OptionError
    without pulser-core."""
    call = msgspec.msgpack.decode(data, type=PulseCall)
    with errors_of_pulser("pulser cannot sample the sequence"):
        try:
            return msgspec.json.encode(_drawing(call, machine))
        except ImportError as error:
            hint = "pip install 'simenv[analog]' where the gateway runs"
            raise OptionError("pulse sequences are drawn by pulser-core", hint=hint) from error


def _drawing(call: PulseCall, machine: str) -> PulseDrawing:
    import numpy as np
    from pulser.sampler import sample

    sequence = built_sequence(call)
    if machine:
        sequence = on_machine(sequence, machine, strict=call.strict)
    is_modulated = settled(call, 1, on_device=bool(machine)).modulation
    samples = sample(sequence, modulation=bool(is_modulated))
    declared = sequence.declared_channels
    channels = [
        _channel(name, declared[name], each)
        for name, each in list(samples.channel_samples.items())[:MAX_CHANNELS]
    ]
    atoms = []
    is_flat = True
    for name, place in sequence.register.qubits.items():
        x, y, *rest = (round(float(each), _DIGITS) for each in place.as_array(detach=True))
        is_flat = is_flat and not any(rest)
        atoms.append((str(name), x, y))
    largest = max(
        (
            float(np.max(np.asarray(each.amp), initial=0.0))
            for name, each in samples.channel_samples.items()
            if declared[name].basis == "ground-rydberg"
        ),
        default=0.0,
    )
    blockade_um = float(sequence.device.rydberg_blockade_radius(largest)) if largest > 0.0 else 0.0
    return PulseDrawing(
        str(sequence.device.name),
        int(samples.max_duration),
        atoms,
        is_flat,
        round(blockade_um, _DIGITS),
        channels,
        len(samples.channel_samples),
        sorted(map(str, samples._slm_mask.targets)),
        int(samples._slm_mask.end),
    )


def _channel(name: str, declared: Any, samples: Any) -> ChannelPulses:
    import numpy as np

    amplitude, detuning, phase = (
        _curve(np.asarray(each)) for each in (samples.amp, samples.det, samples.phase)
    )
    is_local = declared.addressing == "Local"
    slots = [
        (int(each.ti), int(each.tf), sorted(map(str, each.targets)))
        for each in samples.slots[: MAX_SLOTS if is_local else 0]
    ]
    kind = type(declared).__name__
    where = declared.addressing, declared.basis
    return ChannelPulses(name, *where, kind, amplitude, detuning, phase, slots)


def _curve(values: NDArray[np.float64]) -> Curve:
    """Return the first and the last sample, those at which a curve bends, and of a curve with many
    bends the least and the largest value of each of equal windows."""
    import numpy as np

    count = len(values)
    if not count:
        return [], []
    bend = np.abs(np.diff(values, 2)) > _FLAT * max(1.0, float(np.max(np.abs(values))))
    kept = np.unique(np.concatenate(([0], np.flatnonzero(bend) + 1, [count - 1])))
    if len(kept) > MAX_POINTS:
        windows = np.array_split(np.arange(count), MAX_POINTS // 2 - 1)
        ends = [each[pick(values[each])] for each in windows for pick in (np.argmin, np.argmax)]
        kept = np.unique(np.concatenate(([0], ends, [count - 1])))
    return kept.tolist(), [float(f"{each:.{_DIGITS}g}") for each in values[kept].tolist()]
