"""Sweep programs of one rank: segments in a layout, with conditions on the rank number resolved."""

from __future__ import annotations

from simulators.gpu.distributed.exchange import DeviceSlice
from simulators.gpu.encode import encode_sweeps
from simulators.gpu.sweeps import UploadedProgram, upload_program
from simulators.statevector.distributed.executor import local_table
from simulators.statevector.distributed.remap_schedule import RemapStage
from simulators.statevector.planning.planner import SegmentPlan

_MOST = 256  # cached programs, the oldest evicted


class RankPrograms:
    """Cache of uploaded programs, by the identity of a segment: plans are cached above."""

    def __init__(self, rank: int) -> None:
        self._rank = rank
        self._made: dict[tuple[object, ...], tuple[SegmentPlan, UploadedProgram]] = {}

    def of(self, share: DeviceSlice, segment: SegmentPlan, stage: RemapStage) -> UploadedProgram:
        """Program of a leg's passes, made at the first need. Raises OutOfMemory."""
        state = share.state
        key = (id(segment), state.precision, stage.first, stage.last, stage.positions)
        entry = self._made.get(key)
        if entry is None:  # the cache entry holds the segment, so its id is not used again
            while len(self._made) >= _MOST:
                del self._made[next(iter(self._made))]
            table = local_table(segment.sweeps, stage, share.num_qubits, self._rank)
            program = upload_program(state.device, encode_sweeps(table, state.precision))
            entry = self._made[key] = (segment, program)
        return entry[1]
