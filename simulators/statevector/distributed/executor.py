"""Distributed sweeps: exchanges, local sweeps, and collective error agreement."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from simulators import errors
from simulators.catalog.costs import EXCHANGE_PART
from simulators.engine import RunControl
from simulators.errors import EngineError, OutOfMemory, Stopped
from simulators.statevector.checkpoint import Checkpointer
from simulators.statevector.distributed import qubit_layout
from simulators.statevector.planning import tables as s
from simulators.statevector.planning.tables import SweepTable
from simulators.statevector.state import BLOCK_QUBITS, BlockExecutor, State
from simulators.statevector.tiles import sweep_kernel

# Collective error agreement (as ULFM's MPI_Comm_agree): no rank deadlocks after an error.
#
# Every rank reduces an error flag before each communication, so all raise the same error. Nothing
# can fail between an agreement and the communication it precedes.

_TEXT_BYTES = 4096
_NAPS_S = (50e-6, 2e-3)  # waits between two polls of an idle rank
_KINDS = {
    kind.__name__: kind for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, EngineError)
}  # fmt: skip

Answer = TypeVar("Answer")


class ErrorAgreement:
    """Ranks of one communicator, during one run."""

    def __init__(self, comm: Any, control: RunControl) -> None:
        from mpi4py import MPI  # here: it initialises MPI, which processes without ranks must not

        self._max, self._min = MPI.MAX, MPI.MIN
        self.comm = comm
        self.rank: int = comm.Get_rank()
        self.size: int = comm.Get_size()
        self._flag = control.flag
        self._mine = np.zeros(2, np.int64)
        self._all = np.zeros(2, np.int64)
        self._agreed: BaseException | None = None
        self.waited_cpu_s = 0.0  # CPU time of MPI in the collective checks

    def meet(self) -> None:
        """Raise the error of any rank, or Stopped if any was asked to stop; in all ranks alike. A
        collective call."""
        self._meet(None)

    def allreduce_min(self, value: int) -> int:
        """Minimum of a value over all ranks, after `meet`."""
        self.meet()
        result = np.zeros(1, np.int64)
        self.comm.Allreduce(np.array([value], np.int64), result, self._min)
        return int(result[0])

    def run_collective(self, work: Callable[[], Answer]) -> Answer:
        """Do work of all ranks, and agree at its end on an error of any rank."""
        try:
            result = work()
        except Exception as error:
            if error is self._agreed:
                raise
            self._meet(error)
            self._meet(None)
        return result

    def wait(self) -> None:
        """Take part in `meet` as an idle rank: sleep until the others call it."""
        self._mine[:] = 0
        request = self.comm.Iallreduce(self._mine, self._all, self._max)
        nap_s, longest_s = _NAPS_S
        while not request.Test():
            time.sleep(nap_s)
            nap_s = min(2 * nap_s, longest_s)
        self._conclude(None)

    def run_subset(self, work: Callable[[], Answer]) -> Answer:
        """Do work of some ranks, and then meet those that `wait`."""
        failure: Exception | None = None
        try:
            result = work()
        except Exception as error:  # noqa: BLE001 raised again, in all ranks
            failure = error
        self._mine[:] = self.size - self.rank if failure is not None else 0, 0
        self.comm.Iallreduce(self._mine, self._all, self._max).Wait()
        self._conclude(failure)
        return result

    def _meet(self, error: Exception | None) -> None:
        self._mine[:] = self.size - self.rank if error is not None else 0, self._flag[0]
        begin_s = time.thread_time()
        self.comm.Allreduce(self._mine, self._all, self._max)
        self.waited_cpu_s += time.thread_time() - begin_s
        self._conclude(error)

    def _conclude(self, error: Exception | None) -> None:
        failed, stopped = self._all.tolist()
        if failed:
            self._share(self.size - failed, error)
        if stopped:
            self._raise(Stopped())

    def _share(self, who: int, error: Exception | None) -> NoReturn:
        """Raise the error of the lowest rank that has one."""
        text = np.zeros(_TEXT_BYTES, np.uint8)
        if who == self.rank and error is not None:
            packed = _packed(_typed(error, who))
            text[: len(packed)] = np.frombuffer(packed, np.uint8)
        self.comm.Bcast(text, who)
        self._raise(_unpacked(text.tobytes().rstrip(b"\0")), error)

    def _raise(self, agreed: EngineError, cause: Exception | None = None) -> NoReturn:
        self._agreed = agreed
        raise agreed from cause


def _typed(error: Exception, rank: int) -> EngineError:
    if isinstance(error, EngineError):
        return error
    if isinstance(error, MemoryError):
        hint = "take more ranks, fewer qubits, or precision 'single'"
        return OutOfMemory(f"rank {rank} has no memory left: {error}", hint=hint)
    return EngineError(f"rank {rank} failed: {type(error).__name__}: {error}")


def _packed(error: EngineError) -> bytes:
    message, hint = error.message[: _TEXT_BYTES // 8], error.hint[: _TEXT_BYTES // 8]
    return "\n\0\n".join((type(error).__name__, message, hint)).encode()[:_TEXT_BYTES]


def _unpacked(text: bytes) -> EngineError:
    name, message, hint = text.decode(errors="replace").split("\n\0\n")
    return _KINDS.get(name, EngineError)(message, hint=hint)


# Exchange of global and local qubits, several at once, in place.
#
# Data to another rank goes through four buffers, made once, that take an eighth of a slice at most:
# two to pack and send, two to receive. A message is far below the limit of an MPI count.

_MOST = 1 << 16  # largest buffer in amplitudes: 1 MiB in double precision
_BUFFERS = 4

Part = NDArray[np.complexfloating[Any, Any]]


class Exchange:
    def __init__(
        self, agreement: ErrorAgreement, num_local: int, dtype: np.dtype[np.complexfloating]
    ) -> None:
        self._agreement = agreement
        share = (1 << num_local) // EXCHANGE_PART
        size = min(_MOST, share // _BUFFERS)
        room = np.empty(max(_BUFFERS * size, 1 << BLOCK_QUBITS), dtype)
        self._room: Part = room
        self._out = (room[:size], room[size : 2 * size])
        self._in = (room[2 * size : 3 * size], room[3 * size : 4 * size])
        self._size = size
        self.sent_bytes = 0
        self.seconds = 0.0  # time of exchanges, waiting for the partner included
        self.waited_cpu_s = 0.0  # CPU time of MPI in them

    @property
    def chunk(self) -> int:
        """Largest number of amplitudes of `sendrecv_block`."""
        return self._room.size

    def exchange_qubits(
        self,
        state: State,
        pairs: Sequence[qubit_layout.Pair],
        alive: int = -1,
        alive_ranks: int = -1,
    ) -> None:
        """Exchange pairs of a bit of the rank number, counted from 0, and a local position.
        `alive`, `alive_ranks`: the local positions and the bits of the rank number that may be 1 in
        an amplitude that is not 0."""
        begin_s = time.perf_counter()
        self._agreement.meet()
        rank = self._agreement.rank
        own = sum((rank >> bit & 1) << k for k, (bit, _) in enumerate(pairs))
        idle_here = sum((~alive >> position & 1) << k for k, (_, position) in enumerate(pairs))
        idle_there = sum((~alive_ranks >> bit & 1) << k for k, (bit, _) in enumerate(pairs))
        among = sum(1 << bit for bit, _ in pairs)
        empty = rank & ~among & ~alive_ranks  # this rank and its partners hold only zeros
        for change in range(1, 1 if empty else 1 << len(pairs)):
            other = own ^ change
            sends = not (own & idle_there or other & idle_here)
            gets = not (other & idle_there or own & idle_here)
            if sends or gets:
                changed = (1 << bit for k, (bit, _) in enumerate(pairs) if change >> k & 1)
                values = {position: other >> k & 1 for k, (_, position) in enumerate(pairs)}
                parts = pieces(state.amplitudes, values, alive, self._size)
                self._trade(parts, rank ^ sum(changed), sends=sends, gets=gets)
        self.seconds += time.perf_counter() - begin_s

    def swap(self, state: State, bit: int, position: int) -> None:
        """Exchange bit `bit` of the rank number and a local position."""
        self.exchange_qubits(state, ((bit, position),))

    def _trade(self, parts: Iterator[Part], partner: int, *, sends: bool, gets: bool) -> None:
        """Send these parts of the state for those of the partner: the next part is packed while one
        is in transit. Contiguous parts are sent in place."""
        comm = self._agreement.comm
        waiting: list[tuple[Part, int, Any, Any]] = []
        for number, part in enumerate(parts):
            slot = number & 1
            if len(waiting) == 2:
                self._finish(*waiting.pop(0))
            size = part.size
            getting = comm.Irecv(self._in[slot][:size], partner) if gets else None
            sending = None
            if sends:
                if part.flags.c_contiguous:
                    out = part.reshape(-1)
                else:
                    out = self._out[slot][:size]
                    out.reshape(part.shape)[...] = part
                sending = comm.Isend(out, partner)
                self.sent_bytes += out.nbytes
            waiting.append((part, slot, sending, getting))
        for each in waiting:
            self._finish(*each)

    def _finish(self, part: Part, slot: int, sending: Any, getting: Any) -> None:
        begin_s = time.thread_time()
        for request in (getting, sending):
            if request is not None:
                request.Wait()
        self.waited_cpu_s += time.thread_time() - begin_s
        if getting is None:
            part[...] = 0.0
        else:
            part[...] = self._in[slot][: part.size].reshape(part.shape)

    def sendrecv_block(self, part: Part, partner: int) -> State:
        """Exchange `part` for the partner's block. Valid until the next call."""
        into = self._room[: part.size]
        self._agreement.meet()
        self._agreement.comm.Sendrecv(part, partner, recvbuf=into, source=partner)
        self.sent_bytes += part.nbytes
        return State(into)


def pieces(amplitudes: Part, values: dict[int, int], alive: int, limit: int) -> Iterator[Part]:
    """Amplitudes whose index has these bits (position -> bit) and no other bit that is not `alive`:
    views of at most `limit` amplitudes each, in the same order of the rest of the index."""
    num = amplitudes.size.bit_length() - 1
    fixed = {position: 0 for position in range(num) if not alive >> position & 1} | values
    shape: list[int] = []
    index: list[int | slice] = []
    run = 0
    for position in reversed(range(num)):
        if position not in fixed:
            run += 1
            continue
        if run:
            shape.append(1 << run)
            index.append(slice(None))
        shape.append(2)
        index.append(fixed[position])
        run = 0
    if run:
        shape.append(1 << run)
        index.append(slice(None))
    view = amplitudes.reshape(shape)[tuple(index)]
    return _cut(view if view.ndim else view.reshape(1), limit)


def _cut(view: Part, limit: int) -> Iterator[Part]:
    """Split a view along the first axes into parts of at most `limit` amplitudes."""
    inner = 1
    axis = view.ndim
    while axis and inner * view.shape[axis - 1] <= limit:
        axis -= 1
        inner *= view.shape[axis]
    if not axis:
        yield view
        return
    step = max(1, limit // inner)  # along this axis; the ones before are taken one by one
    for outer in itertools.product(*(range(size) for size in view.shape[: axis - 1])):
        for at in range(0, view.shape[axis - 1], step):
            index: tuple[Any, ...] = (*outer, slice(at, at + step))
            yield view[index]


# Execution of a distributed sweep table: exchanges, and the local sweeps between them.
#
# Each amplitude goes through the same operations in the same order as in one process, so results
# have the same bits.

_NEVER = np.uint64(1 << 63)  # bit that no amplitude's index has


def local_table(
    plan: SweepTable, stage: qubit_layout.RemapStage, num_local: int, rank: int
) -> SweepTable:
    """Passes leg.first .. leg.last - 1, over the slice of one rank. Conditions on the rank number
    are resolved here: an operation or term whose condition does not hold gets a condition that
    never holds."""
    positions = stage.positions
    below = np.uint64((1 << num_local) - 1)
    number = np.uint64(rank << num_local)
    starts = plan.starts[stage.first : stage.last + 1]
    ops = plan.ops[starts[0] : starts[-1]].copy()
    masks = permuted(ops[:, s.OUTER_MASK], positions)
    values = permuted(ops[:, s.OUTER_VALUE], positions)
    fails = ((number ^ values) & masks & ~below) != 0
    ops[:, s.OUTER_MASK] = np.where(fails, 0, masks & below)
    ops[:, s.OUTER_VALUE] = np.where(fails, _NEVER, values & below)
    ops[ops[:, s.KIND] == s.SWAP_LANE_ROW, s.OUTER_MASK : s.OUTER_VALUE + 1] = 0
    terms = plan.terms.copy()
    masks = permuted(terms[:, s.MASK], positions)
    terms[:, s.MASK] = np.where((~number & masks & ~below) != 0, _NEVER, masks & below)
    live = permuted(plan.live[stage.first : stage.last], positions)
    absent = (number & ~live) != 0  # the slice of this rank is 0 in such a pass
    wires = plan.places[stage.first : stage.last, : plan.width].astype(np.int64)
    return msgspec.structs.replace(
        plan,
        num_wires=num_local,
        starts=starts - starts[0],
        places=np.array(positions, np.uint64)[wires],
        live=np.where(absent, np.uint64(0), live & below),
        ops=ops,
        terms=terms,
    )


def later(plan: SweepTable, first: int) -> SweepTable:
    """Passes from `first` on."""
    if not first:
        return plan
    return msgspec.structs.replace(
        plan, starts=plan.starts[first:], places=plan.places[first:], live=plan.live[first:]
    )


def permuted(masks: NDArray[np.uint64], positions: Sequence[int]) -> NDArray[np.uint64]:
    """Masks of wires as masks of positions."""
    result = np.zeros_like(masks)
    for wire, position in enumerate(positions):
        result |= (masks >> np.uint64(wire) & np.uint64(1)) << np.uint64(position)
    return result


_UNHEARD = 1 << 24  # amplitudes processed between two collective checks


class CommStats(msgspec.Struct, frozen=True):
    """Statistics of one rank's exchanges in one run; CPU times are those of MPI only."""

    passes: int = 0
    exchanges: int = 0
    planned_bytes: int = 0  # planned for passes, by the rank that sends most
    planned_bytes_of_all: int = 0
    sent_bytes: int = 0  # sent for passes, by this rank
    exchange_s: float = 0.0
    waited_cpu_s: float = 0.0

    def plus(self, other: CommStats, at_meetings_s: float) -> CommStats:
        """Sum of both; the time of collective checks, which both contain, is `at_meetings_s`."""
        waited_s = max(0.0, other.waited_cpu_s - at_meetings_s)
        other = msgspec.structs.replace(other, waited_cpu_s=waited_s)
        pairs = zip(msgspec.structs.astuple(self), msgspec.structs.astuple(other), strict=True)
        return CommStats(*(mine + more for mine, more in pairs))


class DistributedExecutor:
    """One rank's part in the passes of one run."""

    def __init__(
        self,
        agreement: ErrorAgreement,
        exchange: Exchange,
        sweeper: BlockExecutor,
        checkpointer: Checkpointer,
    ) -> None:
        self._agreement = agreement
        self._exchange = exchange
        self._sweeper = sweeper
        self._checkpointer = checkpointer
        self._traffic = CommStats()

    @property
    def traffic(self) -> CommStats:
        waited_s = self._agreement.waited_cpu_s + self._exchange.waited_cpu_s
        return msgspec.structs.replace(self._traffic, waited_cpu_s=waited_s)

    def __call__(
        self, share: qubit_layout.StateSlice, plan: SweepTable, floats: NDArray[np.float64]
    ) -> None:
        """Apply the passes that no earlier attempt has done, leg by leg."""
        skipped = self._checkpointer.skip_done(len(plan.live))
        self._sweeper.passed(skipped, before=True)
        if skipped == len(plan.live):
            return
        plan = later(plan, skipped)
        layout = share.layout
        result = qubit_layout.plan_communication(
            plan, layout.positions, layout.num_local, fresh=share.fresh
        )
        everything = (1 << plan.num_wires) - 1
        if share.fresh and not self._checkpointer.is_kept and int(plan.live[-1]) == everything:
            share.overwritten()  # other amplitudes are written before they are read or sent
        share.fresh = False
        step = 1 if self._checkpointer.is_kept else max(1, _UNHEARD >> share.num_qubits)
        before_bytes, before_s = self._exchange.sent_bytes, self._exchange.seconds
        for stage in result.stages:
            self._agreement.meet()
            self._trade(share, stage)
            part = local_table(plan, stage, layout.num_local, share.rank)
            end = len(part.live)
            for begin in range(0, end, step):  # with collective checks between them
                if begin:
                    self._agreement.meet()
                stop = min(begin + step, end)
                norms = stage is result.stages[-1] and stop == end
                sweep_kernel.apply(
                    self._sweeper, share, part, floats, first=begin, last=stop, norms=norms
                )
                if self._checkpointer.is_kept:
                    self._checkpointer.sweep_done(share.amplitudes, share.layout.positions)
        settings, size = self._traffic, share.amplitudes.itemsize
        self._traffic = CommStats(
            settings.passes + len(plan.live),
            settings.exchanges + sum(bool(stage.pairs) for stage in result.stages),
            settings.planned_bytes + result.sent * size,
            settings.planned_bytes_of_all + result.sent_by_all * size,
            settings.sent_bytes + self._exchange.sent_bytes - before_bytes,
            settings.exchange_s + self._exchange.seconds - before_s,
        )

    def _trade(self, share: qubit_layout.StateSlice, stage: qubit_layout.RemapStage) -> None:
        """Exchange qubits from the previous layout to that of a leg."""
        layout, local = share.layout, share.layout.num_local
        if stage.pairs:
            alive = qubit_layout.before(stage, stage.alive)
            pairs = [(remote - local, position) for remote, position in stage.pairs]
            self._exchange.exchange_qubits(share, pairs, alive & ((1 << local) - 1), alive >> local)
        layout.become(stage.positions)
        share.changed()
        alive = layout.placed(stage.alive)
        holds = not share.rank & ~(alive >> local)
        share.live = alive & ((1 << local) - 1) if holds else 0
