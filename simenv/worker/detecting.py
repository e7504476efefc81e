"""Engine `detectors`: sampling and decoding of detectors and observables of stim's circuits.

A result depends on the circuit, shots, seed and decoder, on stim's version and the processor
family, never on the worker or the attempt.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import msgspec
import numpy as np
import stim

from noise_models import drawn
from noise_models.build import build
from noise_models.calibration import CalibrationSnapshot
from noise_models.options import NoiseOptions
from noise_models.strict_json import SnapshotError
from simenv.errors import ProgramError
from simenv.model import PROGRAM_FORMAT, DeviceRecord, Program, TaskOptions, calls
from simenv.model.devices import device_time_ns, wall_clock_s
from simenv.model.options import STALE
from simenv.wire import codec
from simenv.wire.messages.client import AssignedTask
from simenv.worker.noise import Noise
from simulators.circuit.passes.attach_noise import NoiseAttachment
from simulators.engine import RunControl
from simulators.errors import Unsupported
from simulators.stabilizer.decoders import SyndromeDecoder
from simulators.stabilizer.detectors import SAMPLER, sampled
from simulators.stabilizer.device_circuit import DeviceProgram, pairs_of
from simulators.stabilizer.device_gates import DeviceGates

MAX_CACHED = 8
MAX_CACHED_TEXT = 4 * 2**20  # characters of a cached circuit: its matching graph may be large
_TEXT = 300  # characters of stim's own message
PYMATCHING = "pymatching"
_WARM_UP_CIRCUIT = "X_ERROR(0.5) 0\nM 0\nDETECTOR rec[-1]\nOBSERVABLE_INCLUDE(0) rec[-1]"


class _OnDevice(msgspec.Struct, frozen=True):
    """The device of a circuit, without the task's own numbers."""

    device: calls.DetectionDevice
    overhead_ns: float


class _Prepared(msgspec.Struct, frozen=True, eq=False):
    """A circuit with its noise, its decoder, and its device."""

    circuit: stim.Circuit
    decoder: SyndromeDecoder | None
    on_device: _OnDevice | None


class DetectorEngine:
    """Engine that samples circuits. It caches the last MAX_CACHED circuits with their decoders."""

    name = calls.DETECTORS

    def __init__(self, noise: Noise | None = None) -> None:
        """`noise`: of the tasks' devices."""
        self._noise = Noise() if noise is None else noise
        self._cache: OrderedDict[tuple[object, ...], _Prepared] = OrderedDict()

    def call(
        self, call: calls.Call, assigned: AssignedTask, terms: TaskOptions, control: RunControl
    ) -> tuple[bytes, DeviceRecord | None, int]:
        """See `CallEngine`. Raises ProgramError for a text that stim cannot parse, or for sizes
        that differ from those of the call; Unsupported for what the device or decoder lacks."""
        assert isinstance(call, calls.DetectionCall)
        calls.check_events(call, assigned.shots)
        control.check()
        prepared = self._prepared(call, assigned, terms, control)
        decoder, place = prepared.decoder, prepared.on_device
        samples = sampled(
            prepared.circuit, decoder, assigned.shots, assigned.seed, control, keep=call.events
        )
        name = "" if decoder is None else decoder.name
        head = (calls.CALL_FORMAT, assigned.shots, assigned.seed, call.sizes, SAMPLER, name)
        sums = (samples.observable_errors, samples.detections, samples.flips)
        numbers = [each.astype("<u8").tobytes() for each in sums]
        rows = (samples.events, samples.observable_flips, samples.predictions)
        bits = [each.tobytes() for each in rows]
        device = None if place is None else place.device
        fields: tuple[Any, ...] = (*head, samples.errors, *numbers, *bits, device)
        answer = calls.DetectionAnswer(*fields)
        if place is None or device is None:
            return codec.encode(answer), None, 0
        time_ns = device_time_ns(assigned.shots, 1, place.overhead_ns, device.shot_ns)
        return codec.encode(answer), device.record, time_ns

    def warm_up(self) -> None:
        """Load the decoder, if there is one."""
        try:
            decoder = SyndromeDecoder(PYMATCHING, stim.Circuit(_WARM_UP_CIRCUIT))
        except Unsupported:
            return
        decoder.predictions(np.zeros((1, 1), np.uint8), RunControl())

    def _prepared(
        self,
        call: calls.DetectionCall,
        assigned: AssignedTask,
        terms: TaskOptions,
        control: RunControl,
    ) -> _Prepared:
        # The sizes of cached circuits were checked.
        key = call.circuit, call.decoder, call.sizes, call.placement, terms.snapshot, terms.noise
        prepared = self._cache.get(key)
        if prepared is not None:
            self._cache.move_to_end(key)
            return prepared
        circuit, on_device, size = _read(call), None, len(call.circuit)
        if call.placement is not None:
            circuit, on_device, size = self._placed(
                circuit, call.placement, assigned, terms, control
            )
        decoder = SyndromeDecoder(call.decoder, circuit) if call.decoder else None
        prepared = _Prepared(circuit, decoder, on_device)
        if size <= MAX_CACHED_TEXT:
            self._cache[key] = prepared
            if len(self._cache) > MAX_CACHED:
                self._cache.popitem(last=False)
        return prepared

    def _placed(
        self,
        circuit: stim.Circuit,
        placement: calls.DevicePlacement,
        assigned: AssignedTask,
        terms: TaskOptions,
        control: RunControl,
    ) -> tuple[stim.Circuit, _OnDevice, int]:
        """Return the circuit with the noise of its device, that device, and the circuit's bytes."""
        snapshot = self._noise.calibration(terms)
        places = dict(zip(placement.qubits, placement.places, strict=False))
        if not placement.places:
            places = {qubit: k for k, qubit in enumerate(placement.qubits)}
            pairs = pairs_of(circuit, places)
            try:
                snapshot = drawn.drawn(snapshot, len(places), pairs, placement.draw)
            except SnapshotError as error:
                raise Unsupported(error.message, hint=error.hint) from error
        gates = DeviceGates(snapshot)
        program = DeviceProgram(circuit, gates, places, 0.0, control)
        attachment, packed = self._attachment(snapshot, placement, terms, program)
        duration_ns, layers = program.times(attachment.model)
        layer_ns = duration_ns / max(1, layers)
        late_ns = max(placement.late_ns, placement.latency_ns - layer_ns)
        if late_ns > 0.0 and layers:
            program = DeviceProgram(circuit, gates, places, late_ns, control)
        noisy = program.noisy(attachment)
        used = sorted(places.values())
        shot_ns = snapshot.reset_ns(used) + noisy.duration_ns
        if placement.places:
            record = self._noise.record(packed, assigned, terms)
            record = msgspec.structs.replace(record, gates=noisy.gates)
        else:
            record = DeviceRecord(
                terms.device, terms.snapshot, wall_clock_s(snapshot.calibrated), terms.noise,
                gates=noisy.gates, stale=terms.stale == STALE,
            )  # fmt: skip
        device = calls.DetectionDevice(
            record, placement, shot_ns, noisy.layers, layer_ns, noisy.late_ns
        )
        on_device = _OnDevice(device, snapshot.overhead_ns)
        return noisy.circuit, on_device, noisy.text_bytes

    def _attachment(
        self,
        snapshot: CalibrationSnapshot,
        placement: calls.DevicePlacement,
        terms: TaskOptions,
        program: DeviceProgram,
    ) -> tuple[NoiseAttachment, Program]:
        """Return the noise that acts on the circuit, and the circuit as a program."""
        packed = Program(PROGRAM_FORMAT, *msgspec.structs.astuple(program.data))
        if placement.places:
            return self._noise.attachment(terms, packed), packed
        return NoiseAttachment(build(snapshot, NoiseOptions.parse(terms.noise))), packed


def _read(call: calls.DetectionCall) -> stim.Circuit:
    """Parse the circuit. Raises ProgramError if that fails, or if the sizes differ from those of
    the call, for which the service checked the limits."""
    try:
        circuit = stim.Circuit(call.circuit)
    except (ValueError, IndexError) as error:
        raise ProgramError(f"stim cannot read the circuit: {str(error)[:_TEXT]}") from error
    sizes = calls.sizes_of(circuit)
    if sizes != call.sizes:
        text = f"the circuit has {_sizes_text(sizes)}; it came with {_sizes_text(call.sizes)}"
        raise ProgramError(text, hint="client and service should be of one version")
    return circuit


def _sizes_text(sizes: calls.DetectionSizes) -> str:
    return ", ".join(f"{value} {name}" for name, value in msgspec.structs.asdict(sizes).items())
