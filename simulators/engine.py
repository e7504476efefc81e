"""Engine protocol, results of runs, and the control of a run."""

from __future__ import annotations

import itertools
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Any, NamedTuple, Protocol, runtime_checkable

import msgspec
import numpy as np
from numpy.typing import NDArray

from simulators.circuit.ir import Circuit
from simulators.circuit.noise import NoiseProgram
from simulators.errors import Stopped

# Results of a run: `BindingResult` for one binding, `EngineResult` for all of a request.

_REMARKS = 4  # distinct remarks of a sweep that are kept


class ErrorEstimate(msgspec.Struct, frozen=True, array_like=True):
    """Error of a run that truncates, measured on regions of its circuit that were run exactly, too:
    of values on one and two qubits, and of the distribution of a few bits. No bound; nothing is
    said about correlations of more than `subset_bits` bits."""

    local_rms: float  # root of the mean square of the errors of values on one and two qubits
    local_max: float  # the largest difference, which contains what the exact side is off by
    local_standard_error: float  # of `local_rms`
    subset_bits: int
    subset_tvd: float  # bound of the total variation distance of so many bits, by random strings
    regions: int
    region_qubits: int  # of the widest
    trajectories: int = 0  # of the exact side; 0: density matrices
    negative: float = 0.0  # probability below zero that was clipped, mean of the shots


class BindingResult(msgspec.Struct, frozen=True):
    """Result of one binding; fields of outputs that were not requested stay empty. An outcome is
    one row of `outcome_width` bytes, little-endian, clbit 0 in bit 0 of byte 0."""

    outcome_width: int = 0  # 1, 2, 4, 8, or ceil(bits / 8) beyond 64 bits
    outcomes: bytes = b""  # distinct outcomes, ascending
    counts: bytes = b""  # uint32, as many
    # Exact distribution over the clbits; over the qubits if the circuit measures nothing.
    probability_outcomes: bytes = b""  # rows as above, of width `probability_width`
    probability_width: int = 0
    probabilities: bytes = b""  # float64, as many
    statevector: NDArray[np.complexfloating] | None = None  # [2**n], qubit 0 = lowest index bit
    expectations: tuple[tuple[float, float], ...] = ()  # (value, standard error) an observable
    truncation: float = 0.0
    remark: str = ""  # e.g. "12 branches"
    gradients: NDArray[np.float64] | None = None  # [observables, slots]
    # uint8 [shots, ceil(clbits / 8)]: clbit c of each shot in bit c % 8 of byte c // 8
    memory: bytes = b""
    amplitudes: NDArray[np.complexfloating] | None = None  # [strings], of the request's bits
    error: ErrorEstimate | None = None


class EngineResult(msgspec.Struct, frozen=True):
    """Results of all rows of the request's bindings, row after row in each array. Fields as in
    BindingResult; rows may differ in their number of outcomes."""

    count: int = 1  # rows
    outcome_width: int = 0
    outcomes: bytes = b""
    counts: bytes = b""
    rows: bytes = b""  # uint32 [count]: distinct outcomes of each row; b"": one row has them all
    probability_outcomes: bytes = b""
    probability_width: int = 0
    probabilities: bytes = b""
    probability_rows: bytes = b""  # uint32 [count], as `rows`
    statevector: NDArray[np.complexfloating] | None = None  # [count, 2**n]
    expectations: bytes = b""  # float64 [count, observables, 2]: value, standard error
    truncation: float = 0.0  # largest of the rows
    remark: str = ""
    gradients: bytes = b""  # float64 [count, observables, slots]: of values, by free parameters
    memory: bytes = b""  # uint8 [count, shots, ceil(clbits / 8)]
    amplitudes: NDArray[np.complexfloating] | None = None  # [count, strings]
    error: ErrorEstimate | None = None  # of the row with the largest

    @classmethod
    def joined(cls, results: Sequence[BindingResult]) -> EngineResult:
        """Join the results of engines that run one binding after the other; at least one."""
        count, first = len(results), results[0]
        states = [row.statevector for row in results if row.statevector is not None]
        chosen = [row.amplitudes for row in results if row.amplitudes is not None]
        rows = probability_rows = b""
        if count > 1:
            rows = _sizes([len(row.counts) // 4 for row in results])
            probability_rows = _sizes([len(row.probabilities) // 8 for row in results])
        return cls(
            count, first.outcome_width, b"".join([row.outcomes for row in results]),
            b"".join([row.counts for row in results]), rows,
            b"".join([row.probability_outcomes for row in results]), first.probability_width,
            b"".join([row.probabilities for row in results]), probability_rows, _stacked(states),
            np.array([row.expectations for row in results], np.float64).tobytes()
            if first.expectations else b"", max(row.truncation for row in results),
            ", ".join(list(dict.fromkeys(row.remark for row in results if row.remark))[:_REMARKS]),
            b"".join([row.gradients.tobytes() for row in results if row.gradients is not None]),
            first.memory if count == 1 else b"".join([row.memory for row in results]),
            _stacked(chosen), _largest([row.error for row in results]),
        )  # fmt: skip

    def row(self, k: int) -> BindingResult:
        first, last = _part(self.rows, k, len(self.counts) // 4)
        low, high = _part(self.probability_rows, k, len(self.probabilities) // 8)
        width, wide = self.outcome_width, self.probability_width
        size = len(self.memory) // self.count
        return BindingResult(
            width, self.outcomes[first * width : last * width], self.counts[4 * first : 4 * last],
            self.probability_outcomes[low * wide : high * wide], wide,
            self.probabilities[8 * low : 8 * high],
            None if self.statevector is None else self.statevector[k], self._estimates(k),
            self.truncation, self.remark, self._gradients(k),
            self.memory[k * size : (k + 1) * size],
            None if self.amplitudes is None else self.amplitudes[k], self.error,
        )  # fmt: skip

    def _estimates(self, k: int) -> tuple[tuple[float, float], ...]:
        if not self.expectations:
            return ()
        table = np.frombuffer(self.expectations).reshape(self.count, -1, 2)
        return tuple((value, error) for value, error in table[k].tolist())

    def _gradients(self, k: int) -> NDArray[np.float64] | None:
        if not self.gradients:
            return None
        observables = len(self.expectations) // (16 * self.count)
        table: NDArray[np.float64] = np.frombuffer(self.gradients)
        row: NDArray[np.float64] = table.reshape(self.count, observables, -1)[k]
        return row


def _sizes(lengths: list[int]) -> bytes:
    return np.array(lengths, np.uint32).tobytes() if any(lengths) else b""


def _largest(errors: list[ErrorEstimate | None]) -> ErrorEstimate | None:
    stated = [error for error in errors if error is not None]
    return max(stated, key=lambda error: error.local_rms, default=None)


def _part(sizes: bytes, k: int, total: int) -> tuple[int, int]:
    """Begin and end of row k of a ragged array."""
    if not sizes:
        return 0, total
    ends = np.frombuffer(sizes, np.uint32)
    first = int(ends[:k].sum())
    return first, first + int(ends[k])


def _stacked(states: list[NDArray[np.complexfloating]]) -> NDArray[np.complexfloating] | None:
    """Amplitudes as [rows, n]; a single state, which may fill the memory, is not copied."""
    if not states:
        return None
    return states[0].reshape(1, -1) if len(states) == 1 else np.stack(states)


# Cancellation, progress and threads of one run.
#
# `RunControl` is the cancel flag and the progress of a run. `ThreadPool` calls compiled
# kernels, which release the interpreter lock, on ranges. Its threads live only inside the `with`
# block, so an idle engine uses no CPU. The caller's thread works too. Chunks are handed out
# dynamically, and the cancel flag is read between them. A chunk's result must not depend on the
# thread that computes it.


class RunProgress(NamedTuple):
    """Work that a run has done of what it has to do. `unit`: what is counted, in the plural, such
    as "passes"; "": the engine does not report its progress. `fraction`: 0 to 1; it never falls.
    `before`: the part of it that earlier attempts have done."""

    unit: str = ""
    done: int = 0
    total: int = 0
    fraction: float = 0.0
    before: float = 0.0


NO_PROGRESS = RunProgress()


class RunControl:
    """Cancel flag that any thread may set; engines read it between passes (<= 1 s).

    `threads`: limit on the threads of a run from its next pass on, 0 for all of them; results do
    not depend on it, and any thread may set it. `has_checkpoints`: set by a run that can write a
    checkpoint before it ends. `row`: of the bindings, in which the run is; -1 if the engine does
    not report it. `progress`: of the run; any thread may read it.

    A run says with `expect` how much work it has, and with `advance` what it has done; all threads
    of a `ThreadPool` may call `advance`. Units of unequal sizes are counted as units, and give the
    fraction by their sizes. `divide` makes parts of the work, to which both then
    refer; what is counted in parts is summed over all of them.
    """

    __slots__ = (
        "_counted", "_done", "_ends", "_finished", "_lock", "_low", "_total", "_unit", "_width",
        "flag", "has_checkpoints", "is_preempted", "progress", "row", "threads",
    )  # fmt: skip

    def __init__(self) -> None:
        self.flag: NDArray[np.int64] = np.zeros(1, np.int64)
        self._lock = threading.Lock()
        self.clear()

    def preempt(self) -> None:
        """Ask the run to write a checkpoint after its present pass and then to end, or to end
        where it has none. Any thread may call it."""
        self.is_preempted = True
        if not self.has_checkpoints:
            self.stop()

    def stop(self) -> None:
        """Ask the run to end. Any thread may call it at any time, repeatedly."""
        self.flag[0] = 1

    def clear(self) -> None:
        self.flag[0] = 0
        self.progress = NO_PROGRESS
        self._low, self._width = 0.0, 1.0  # the present part of the whole work
        self._unit, self._done, self._total = "", 0.0, 0  # in the present part
        self._finished = 0.0  # work of all parts before the present one, in the unit of progress
        self._ends: list[float] | None = None  # work up to each of its units; None: as many
        self._counted: tuple[str, int, int] | None = None  # the part itself: unit, done, total
        self.row = -1
        self.threads = 0
        self.has_checkpoints = self.is_preempted = False

    def check(self) -> None:
        """Raise Stopped if `stop` was called."""
        if self.flag[0]:
            raise Stopped()

    def expect(self, total: int, unit: str, sizes: Sequence[float] | None = None) -> None:
        """Add work to the present part. Its first unit is the one that is counted. `sizes`: of
        each of these units relative to the largest, in the order in which they are done; None:
        1.0."""
        if not self._total:
            self._unit = unit
        if unit != self._unit or total <= 0:
            return
        if sizes is not None and self._ends is None:
            self._ends = [float(k) for k in range(self._total + 1)]
        if self._ends is not None:
            added = itertools.accumulate(sizes or [1.0] * total, initial=self._ends[-1])
            self._ends[-1:] = added
        self._total += total
        self._report(unit, self._low)

    def advance(self, unit: str, done: float = 1, *, before: bool = False) -> None:
        """Count finished work of the present part, unless it counts other units. `before`: an
        earlier attempt has done it."""
        if unit != self._unit or not self._total:
            return
        with self._lock:
            share = self._share()
            self._done += done
            end = self._share()
            early = self._width * (end - share) if before else 0.0
            self._report(unit, self._low + self._width * end, early)

    def _share(self) -> float:
        """Share of the present part that is done."""
        if self._done >= self._total:
            return 1.0
        if self._ends is None:
            return self._done / self._total
        at = int(self._done)
        first, last = self._ends[at : at + 2]
        return (first + (self._done - at) * (last - first)) / self._ends[-1]

    def report(self, done: float, total: int, unit: str) -> None:
        """Take over what a program that counts by itself has done. The unit and the total of the
        present part are those of its first report."""
        if not self._total:
            self.expect(total, unit)
        self.advance(unit, max(0.0, done - self._done))

    def divide(self, sizes: int | Sequence[float], unit: str) -> Iterator[int]:
        """Divide the present part: iterate over the numbers of so many equal parts, or of parts of
        these sizes. `unit`: of the parts. They are counted, unless they are equal and report work
        of their own."""
        count = sizes if isinstance(sizes, int) else len(sizes)
        ends = range(count + 1) if isinstance(sizes, int) else [0.0, *itertools.accumulate(sizes)]
        if count < 2 or ends[count] <= 0.0:
            yield from range(count)
            self._done = max(self._done, self._total)
            if self.progress.unit:
                self._report(unit, self._low + self._width)
            return
        outer = self._low, self._width, self._unit, self._done, self._total, self._ends
        (low, width), counted, first = outer[:2], self._counted, self._finished
        total = 0 if counted else round((first + count) / (low + width))
        try:
            for number in range(count):
                start, end = (low + width * (ends[at] / ends[count]) for at in (number, number + 1))
                self._low, self._width, finished = start, end - start, self._finished
                self._unit, self._done, self._total, self._ends = "", 0.0, 0, None
                if counted is None and not isinstance(sizes, int):
                    self._counted = unit, round(first) + number, total
                yield number
                self._counted = counted
                if counted is None:
                    if not isinstance(sizes, int):
                        self._finished = first + number + 1
                        self._counted = unit, round(self._finished), total
                    elif self._finished == finished:  # the part itself has no parts
                        self._finished += self._work_of_part(unit)
                self._low, self._width, self._total = end, 0.0, 0
                self._report(unit, end)
                self._counted = counted
        finally:
            self._low, self._width, self._unit, self._done, self._total, self._ends = outer
            self._counted = counted

    def _work_of_part(self, unit: str) -> float:
        """Return the work of the present part, which has ended, in the unit that is counted: what
        it has expected; else 1, if parts of this `unit` are counted; else that of the mean part."""
        if self._total and self._unit == self.progress.unit:
            return self._total
        if self.progress.unit in ("", unit):
            return 1
        return self._finished * (self._width / self._low) if self._low else 0.0

    def _report(self, unit: str, fraction: float, before: float = 0.0) -> None:
        """Set the progress, which never falls. The total is extrapolated from the parts up to the
        present one: the work of a later one is known when it begins."""
        last = self.progress
        fraction = min(1.0, max(fraction, last.fraction))
        unit = last.unit or unit
        work = self._total if self._unit == unit else 0
        if self._counted is not None:
            unit, done, total = self._counted
        elif work or (self._finished and not self._width):
            total = round((self._finished + work) / (self._low + self._width))
            total = min(total, _MOST_WORK)
            ended = self._finished + (min(self._done, work) if work else 0.0)
            done = min(total, int(ended * _ROUNDED + _ROUNDING))
        else:  # the part counts other units
            total = last.total
            done = min(total, int(fraction * total * _ROUNDED + _ROUNDING))
        before = min(fraction, last.before + before)
        self.progress = RunProgress(unit, done, total, fraction, before)


# Units of work. A pass visits all amplitudes of a state once, tile by tile.
PASSES, OPERATIONS, TRAJECTORIES = "passes", "operations", "trajectories"
SHOTS, BINDINGS, STRINGS, SLICES = "shots", "bindings", "strings", "slices"
COMPONENTS, STEPS, JOBS = "components", "steps", "jobs"
_ROUNDING = 1e-6  # of a unit: products of fractions are rounded
_ROUNDED = 1.0 + 1e-12
_MOST_WORK = 2**53  # units that are told apart, and that a message can hold


ThreadWork = Callable[[int, int, int], object]  # (first, last, thread number)


class ThreadPool:
    """`threads` threads, one or more, the caller's included."""

    def __init__(self, threads: int, control: RunControl) -> None:
        self.size = threads
        self._control = control
        self._orders: queue.SimpleQueue[tuple[ThreadWork, Iterator[int], int, int] | None]
        self._orders = queue.SimpleQueue()
        self._done: queue.SimpleQueue[Exception | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> ThreadPool:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for _ in self._threads:
            self._orders.put(None)
        for thread in self._threads:
            thread.join()
        self._threads.clear()

    def run(self, work: ThreadWork, total: int, grain: int, unit: str = "") -> None:
        """Call `work` on ranges of at most `grain` that cover range(total). `unit`: of the items,
        to be counted as progress. Raises Stopped, also if a stop shortened the last range."""
        if unit:
            work = self._counted(work, unit)
        if total <= grain:
            self._control.check()
            work(0, total, 0)
            self._control.check()
            return
        ranges = -(-total // grain)
        starts = itertools.count(0, grain)  # next() on it is atomic
        allowed = min(self.size, self._control.threads or self.size)
        helpers = min(max(1, allowed), ranges) - 1
        while len(self._threads) < helpers:
            number = len(self._threads) + 1
            thread = threading.Thread(target=self._worker, args=(number,), daemon=True)
            self._threads.append(thread)
            thread.start()
        for _ in range(helpers):
            self._orders.put((work, starts, total, grain))
        failure = self._run_chunks(work, starts, total, grain, 0)
        for _ in range(helpers):
            failure = self._done.get() or failure
        if failure is not None:
            raise failure
        self._control.check()

    def _counted(self, work: ThreadWork, unit: str) -> ThreadWork:
        """Return `work` with its items counted as progress."""

        def counted(first: int, last: int, thread: int) -> None:
            work(first, last, thread)
            self._control.advance(unit, last - first)

        return counted

    def _worker(self, number: int) -> None:
        while (order := self._orders.get()) is not None:
            self._done.put(self._run_chunks(*order, number))

    def _run_chunks(
        self, work: ThreadWork, starts: Iterator[int], total: int, grain: int, number: int
    ) -> Exception | None:
        try:
            for first in starts:
                if first >= total:
                    return None
                self._control.check()
                work(first, min(first + grain, total), number)
        except Exception as error:  # noqa: BLE001 raised again in the caller's thread
            return error
        return None


# Engine protocol: a circuit becomes a plan once, and a plan runs for many bindings and seeds.
#
# A plan depends on the circuit's structure, never on parameter values, so a caller may cache it by
# structure. A run is a function of (circuit, bindings, shots, seed, outputs, precision) and the
# engine's own settings: results are the same bits for any number of threads. One instance is used
# by one thread at a time.
#
# Seed contract. The randomness of shot s of binding b is Philox 4x64-10 with key (seed, b): the
# same doubles as numpy's `Generator(Philox(key=[seed, b], counter=[0, draw, 0,
# 0])).random(shots)[s]`. The joint sampling of the terminal measurements is draw 0. A measurement
# or reset at operation k that is not terminal is draw 1 + k; in later iterations of loops
# `sampling.draw_number` gives the draw. Sampled term t of the observables, counted over all
# observables, is draw 2**32 + t. An engine may drop operations outside the light cone of the
# outputs, and run the connected components of a circuit separately (`circuit.passes`). Operations
# keep their numbers, and a measurement stays terminal. Each component then has a joint sampling of
# its own: with more than one component it is draw 1 + k, where k is the component's first terminal
# measurement. Parts of a circuit (`CircuitParts`) are run once: all their measurements and resets
# have the randomness of shot 0 of binding 0, and none is terminal. The operations after the parts
# are run for each shot, from the state after the last part. Engines that use a library's random
# numbers run fixed blocks of shots, each with its own seed (`rng`).

OUTPUTS = (
    *("counts", "probabilities", "statevector", "expectation", "gradient", "memory"),
    "amplitudes",
)
SAMPLED = frozenset({"counts", "memory"})  # outputs made of the classical records of the shots
PURE = ("statevector", "amplitudes")  # outputs of a pure final state


class PauliSum(msgspec.Struct, frozen=True):
    """A real-weighted sum of Pauli strings. Qubit 0 is the last character of a label."""

    labels: tuple[str, ...]
    coefficients: NDArray[np.float64]  # [len(labels)]


class CircuitParts(msgspec.Struct, frozen=True):
    """Leading parts of a circuit, each run once for all shots; see `statevector.parts`."""

    ends: tuple[int, ...]  # ascending, within the operations: part k ends before operation ends[k]
    keep_s: float = 0.0  # lifetime of the state after the last part, for later runs; 0: not kept
    # Clbits after each of the first parts in an earlier run, clbit 0 in bit 0 of byte 0: a run with
    # other clbits fails.
    outcomes: tuple[bytes, ...] = ()


class RunOptions(msgspec.Struct, frozen=True):
    """Limits and settings of a run; `precision` and `settings` alone may change results."""

    precision: str = "double"  # double: complex128, single: complex64
    threads: int = 1
    max_branches: int = 16_384  # states held at once for a dynamic circuit
    max_steps: int = 10**7  # executed operations in all branches together
    memory_bytes: int = 0  # limit of the states of a dynamic circuit; 0: a quarter of the machine's
    settings: tuple[tuple[str, int | float], ...] = ()  # the engine's own: see its card
    checkpoint_dir: str = ""  # directory owned by this run; empty: no checkpoints
    checkpoint_every_s: float = 600.0
    parts: CircuitParts | None = None

    @property
    def dtype(self) -> str:
        return "complex128" if self.precision == "double" else "complex64"


class ShotValues(msgspec.Struct, frozen=True, eq=False):
    """Values of slots that differ from shot to shot: slot `slots[j]` has `factors[j] *
    values[set_of[shot], columns[j]]` in place of its binding."""

    values: NDArray[np.float64]  # [sets, columns]
    set_of: NDArray[np.int64]  # [shots]
    slots: NDArray[np.int64]
    columns: NDArray[np.int64]
    factors: NDArray[np.float64]


class Request(msgspec.Struct, frozen=True):
    """Outputs to compute, once for each row of `bindings`."""

    shots: int  # 0: exact, no sampling
    seed: int  # unsigned 64-bit
    outputs: tuple[str, ...] = ("counts",)
    observables: tuple[PauliSum, ...] = ()  # for the output "expectation"
    bindings: NDArray[np.float64] | None = None  # [K, num_slots]; None: one binding, no slots
    binding: int = 0  # index of row 0 in the caller's whole sweep: part of the random key
    # uint8 [strings, qubits], for the output "amplitudes": bit of qubit q in column q
    amplitudes: NDArray[np.uint8] | None = None
    shot_values: ShotValues | None = None  # only for engines with `takes_shot_values`


class EngineContext(msgspec.Struct, frozen=True):
    """Resources that an engine may be given at its creation; its card states which it takes."""

    comm: Any = None  # an mpi4py communicator, for cards whose runs have ranks
    backend: Any = None  # a Qiskit BackendV2, for cards of the pool "device"
    program: Any = None  # a `simulators.external.engine.Program`, for those of "program"


class Plan(Protocol):
    """Prepared structure; opaque to all but the engine that made it."""

    @property
    def memory_bytes(self) -> int:
        """Memory of a cached plan, bytes."""


class Engine(Protocol):
    """Simulation method. Takes only circuits that `admission.validation_error` admits."""

    @property
    def name(self) -> str:
        """Name of its card."""

    def worth_caching(self, circuit: Circuit) -> bool:
        """Return False if `plan` costs less than a cache lookup."""

    def plan(self, circuit: Circuit, noise: NoiseProgram | None, options: RunOptions) -> Plan:
        """Prepare the structure of `circuit`. Raises Unsupported for a circuit that it cannot
        run."""

    def run(
        self,
        plan: Plan,
        circuit: Circuit,
        request: Request,
        options: RunOptions,
        control: RunControl,
    ) -> EngineResult:
        """Run `circuit`, whose structure is that of `plan`. Raises subclasses of EngineError."""

    def warm_up(self) -> None:
        """Load and compile everything that a first task would have to wait for."""


@runtime_checkable
class DistributedEngine(Protocol):
    """Engine over MPI ranks: `run` returns a result in the root rank and None in the others, and
    raises the same error in all ranks."""

    def close(self) -> None:
        """Free the communicators. All ranks call it, once the engine is not used any more."""


class StateCache(Protocol):
    """States that an engine keeps between runs."""

    def limit(self, bound_bytes: int) -> None:
        """Set the limit of kept states, in bytes."""

    def expire(self) -> float:
        """Drop the expired states; return the seconds until the next expiry (inf: none)."""


@runtime_checkable
class PartsEngine(Protocol):
    """Engine that runs `CircuitParts`; its card states it too."""

    kept_states: StateCache


@runtime_checkable
class FastCounts(Protocol):
    """Engine with a fast path for many small circuits: counts in one call, without a plan, a
    request and options."""

    def fast_counts(
        self, circuit: Circuit, shots: int, seed: int, binding: int, control: RunControl
    ) -> EngineResult | None:
        """Counts as `run` gives them, for a circuit without free parameters and with default
        options; None if `run` must be called."""
