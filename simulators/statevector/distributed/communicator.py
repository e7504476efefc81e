"""Ranks of a circuit: their communicator, and trajectories over them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
from mpi4py import MPI
from numpy.typing import NDArray

from simulators.catalog.costs import ranks_used
from simulators.engine import EngineResult, ThreadPool
from simulators.execution.requests import EngineRun
from simulators.statevector.backend.local import LocalBackend
from simulators.statevector.backend.protocol import StateBackend
from simulators.statevector.checkpoint import Checkpointer, RankContext
from simulators.statevector.distributed.backend import DistributedBackend
from simulators.statevector.distributed.executor import CommStats, ErrorAgreement
from simulators.statevector.trajectories.walks import (
    ONE_SET,
    ParamSets,
    RowOutputs,
    Walks,
    rank_cuts,
)
from simulators.trajectories.noise_table import SortedPatterns

# Communicators of one engine: the ranks that a circuit uses.
#
# A circuit runs on the largest power of two of ranks that leaves each at least a tile of the state;
# the others sleep meanwhile. A narrow circuit runs in the root rank alone.

BackendWork = Callable[[StateBackend], EngineResult]
DeviceStates = Callable[[ErrorAgreement], StateBackend]


class Communicator:
    """All ranks of a communicator, which is duplicated: its other users are not affected."""

    def __init__(self, comm: Any) -> None:
        self._comm = comm.Dup()
        self._parts: dict[int, Any] = {}
        near = self._comm.Split_type(MPI.COMM_TYPE_SHARED)
        self.neighbours = int(near.Get_size())  # ranks of this machine
        near.Free()
        self.traffic = CommStats()  # exchanges of the last run, in this rank

    def close(self) -> None:
        """Free the communicators. All ranks call it."""
        for part in self._parts.values():
            if part != MPI.COMM_NULL:
                part.Free()
        self._parts.clear()
        self._comm.Free()

    def run(
        self,
        num_qubits: int,
        job: EngineRun,
        alone: Callable[[], EngineResult],
        work: BackendWork,
        device_states: DeviceStates | None = None,
    ) -> EngineResult | None:
        """Run in the ranks that the circuit uses: the result in the first rank, None in the others.
        Errors are raised in all alike. `alone`: the run of one rank; `work`: the run of several,
        over states that they share; `device_states`: states in the memory of other devices."""
        options, control = job.options, job.control
        everyone = ErrorAgreement(self._comm, control)
        count = ranks_used(num_qubits, everyone.size)
        part = self._part(count)
        if part == MPI.COMM_NULL:
            everyone.wait()
            return None
        agreement = ErrorAgreement(part, control)
        neighbours = min(self.neighbours, count)

        def together() -> EngineResult:
            if count == 1:
                return alone()
            if device_states is not None:
                return work(device_states(agreement))
            with ThreadPool(options.threads, control) as thread_pool:
                local = LocalBackend(thread_pool, control)
                place = RankContext(agreement.rank, agreement.size, agreement.allreduce_min)
                with Checkpointer.of(options, control, place) as checkpointer:
                    states = DistributedBackend(agreement, local, neighbours, checkpointer)
                    result = checkpointer.annotate(work(states))
                self.traffic = states.traffic
                return result

        if count == everyone.size:
            result = agreement.run_collective(together)
        else:
            result = everyone.run_subset(lambda: agreement.run_collective(together))
        if everyone.rank:
            return None
        return _remarked(result, count, everyone.size)

    def run_noisy(
        self,
        num_qubits: int,
        job: EngineRun,
        has_room: bool,
        local: Callable[..., EngineResult],
        work: BackendWork,
        device_states: DeviceStates | None = None,
    ) -> EngineResult | None:
        """Run a circuit with noise as `run` does. But if each rank has room for a few states, all
        ranks divide the error patterns among them: `local(ranks)`."""
        everyone = ErrorAgreement(self._comm, job.control)
        if everyone.run_collective(lambda: everyone.allreduce_min(int(has_room))):
            result = everyone.run_collective(lambda: local(everyone))
            return None if everyone.rank else _remarked(result, everyone.size, everyone.size)
        return self.run(num_qubits, job, local, work, device_states)

    def _part(self, count: int) -> Any:
        if count not in self._parts:
            colour = 0 if self._comm.Get_rank() < count else MPI.UNDEFINED
            self._parts[count] = self._comm.Split(colour, self._comm.Get_rank())
        return self._parts[count]


def _remarked(result: EngineResult, count: int, size: int) -> EngineResult:
    text = f"{count} of {size} ranks" if count < size else f"{size} ranks"
    remark = f"{result.remark}, {text}" if result.remark else text
    return msgspec.structs.replace(result, remark=remark)


# Trajectories over ranks that hold one state each: contiguous ranges of the sorted rows.
#
# All ranks draw the same patterns; each runs its own range, and the outcomes are added. So a shot
# has the outcome that it has in one process.


class RankWalks(Walks):
    """Walks over ranks, with the same results in all of them."""

    def __init__(self, walks: Walks, done: NDArray[np.int64], agreement: ErrorAgreement) -> None:
        """Set up. `done`: see `Tree.shared_before`."""
        self._walks = walks
        self.control = walks.control
        self._done = done
        self._agreement = agreement

    def bind(
        self, params: NDArray[np.float64], key: tuple[int, int], sets: ParamSets = ONE_SET
    ) -> None:
        self._walks.bind(params, key, sets)

    def run(self, rows: SortedPatterns, outputs: RowOutputs) -> None:
        """Run the rows of this rank, and add up the outputs of all ranks."""
        rank, size = self._agreement.rank, self._agreement.size
        cuts = rank_cuts(rows, self._done, size)
        own = np.ascontiguousarray(rows.order[cuts[rank] : cuts[rank + 1]])
        if own.size:
            self._walks.run(msgspec.structs.replace(rows, order=own), outputs)
        self._agreement.meet()
        result = outputs.values if outputs.observables.count else outputs.indices
        self._agreement.comm.Allreduce(MPI.IN_PLACE, result, MPI.SUM)
