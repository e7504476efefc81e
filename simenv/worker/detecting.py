"""Engine `detectors`: sampling and decoding of detectors and observables of stim's circuits.

A result depends on the circuit, shots, seed and decoder, on stim's version and the processor
family, never on the worker or the attempt.
"""

from __future__ import annotations

from collections import OrderedDict

import msgspec
import numpy as np
import stim

from simenv.errors import ProgramError
from simenv.model import calls
from simenv.wire import codec
from simenv.wire.messages.client import AssignedTask
from simulators.engine import RunControl
from simulators.errors import Unsupported
from simulators.stabilizer.detectors import SAMPLER, MatchingDecoder, sampled

MAX_CACHED = 8
MAX_CACHED_TEXT = 2**20  # characters of a cached circuit: its matching graph may be large
_TEXT = 300  # characters of stim's own message
_WARM_UP_CIRCUIT = "X_ERROR(0.5) 0\nM 0\nDETECTOR rec[-1]\nOBSERVABLE_INCLUDE(0) rec[-1]"
DetectorProgram = tuple[stim.Circuit, MatchingDecoder | None]


class DetectorEngine:
    """Engine that samples circuits. It caches the last MAX_CACHED circuits with their decoders."""

    name = calls.DETECTORS

    def __init__(self) -> None:
        self._cache: OrderedDict[tuple[object, ...], DetectorProgram] = OrderedDict()

    def call(self, call: calls.Call, assigned: AssignedTask, control: RunControl) -> bytes:
        """See `CallEngine`. Raises ProgramError for a text that stim cannot parse, or for sizes
        that differ from those of the call."""
        assert isinstance(call, calls.DetectionCall)
        calls.check_events(call, assigned.shots)
        control.check()
        circuit, decoder = self._prepared(call)
        samples = sampled(
            circuit, decoder, assigned.shots, assigned.seed, control, keep=call.events
        )
        name = "" if decoder is None else decoder.name
        head = (calls.CALL_FORMAT, assigned.shots, assigned.seed, call.sizes, SAMPLER, name)
        sums = (samples.observable_errors, samples.detections, samples.flips)
        numbers = [each.astype("<u8").tobytes() for each in sums]
        rows = (samples.events, samples.observable_flips, samples.predictions)
        bits = [each.tobytes() for each in rows]
        return codec.encode(calls.DetectionAnswer(*head, samples.errors, *numbers, *bits))

    def warm_up(self) -> None:
        """Load the decoder, if there is one."""
        try:
            decoder = MatchingDecoder(stim.Circuit(_WARM_UP_CIRCUIT))
        except Unsupported:
            return
        decoder.predictions(np.zeros((1, 1), np.uint8), RunControl())

    def _prepared(self, call: calls.DetectionCall) -> DetectorProgram:
        key = call.circuit, call.decoder, call.sizes  # the sizes of cached circuits were checked
        prepared = self._cache.get(key)
        if prepared is not None:
            self._cache.move_to_end(key)
            return prepared
        circuit = _read(call)
        prepared = circuit, MatchingDecoder(circuit) if call.decoder else None
        if len(call.circuit) <= MAX_CACHED_TEXT:
            self._cache[key] = prepared
            if len(self._cache) > MAX_CACHED:
                self._cache.popitem(last=False)
        return prepared


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
