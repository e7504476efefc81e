"""Cache of the sweep programs of a device, by segment."""

from __future__ import annotations

from simulators.gpu.devices.protocol import Device
from simulators.gpu.encode import encode_sweeps
from simulators.gpu.sweeps import UploadedProgram, upload_program
from simulators.statevector.planning.planner import SegmentPlan

_MOST = 256  # cached programs, the oldest evicted: some 10 kB each


class ProgramStore:
    """Cache of uploaded programs, by the identity of a segment: plans are cached above."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._made: dict[tuple[int, str], tuple[SegmentPlan, UploadedProgram]] = {}

    def sweeps(self, segment: SegmentPlan, precision: str) -> UploadedProgram:
        """Program of a segment's sweeps, made at the first need. Raises OutOfMemory."""
        key = (id(segment), precision)
        results = self._made.get(key)
        if results is None:  # the cache entry holds the segment, so its id is not used again
            while len(self._made) >= _MOST:
                del self._made[next(iter(self._made))]
            program = encode_sweeps(segment.sweeps, precision)
            results = self._made[key] = (segment, upload_program(self._device, program))
        return results[1]
