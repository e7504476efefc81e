"""States on one GPU: one state, batches of bindings, and trajectories."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import msgspec
import numpy as np
from numpy.typing import NDArray

from simulators.catalog import state_bytes
from simulators.circuit.analysis.measurements import MeasurementLayouts
from simulators.circuit.ir import Circuit
from simulators.engine import PASSES, EngineResult, PauliSum, RunControl, RunOptions, ThreadPool
from simulators.errors import Unsupported
from simulators.execution import outputs
from simulators.execution.outputs import FinalState, PauliStrings, collect
from simulators.execution.packing import distinct, gather, pack
from simulators.gpu import reductions
from simulators.gpu.devices.device import COMPLEX, Device, MemoryLedger
from simulators.gpu.sweeps import DeviceState, ProgramStore, apply_program
from simulators.statevector.backend import protocol, reductions as backend_reductions
from simulators.statevector.backend.gate_list import GateList
from simulators.statevector.backend.matrix import PlacedMatrix
from simulators.statevector.backend.protocol import Ensemble
from simulators.statevector.backend.reductions import BlockSum, Projection, SortedDraws
from simulators.statevector.checkpoint import Evolution
from simulators.statevector.dynamic.noise import reduced_density
from simulators.statevector.dynamic.separate_states import SeparateStates
from simulators.statevector.plan import RequestExecution
from simulators.statevector.planning.planner import SegmentPlan
from simulators.statevector.program import Gates, Program
from simulators.statevector.state import BLOCK_QUBITS

# Backend of states on one GPU; see `statevector.backend.protocol`.

MAX_MATRIX_QUBITS = 12  # widest matrix that is not fused: its amplitudes are in shared memory
_GROUP_BITS = 8  # log2 of the least amplitudes of a block of threads


class DeviceBackend:
    """A `StateBackend` whose states are `DeviceState`s. Stops come between launches."""

    is_root = True

    def __init__(
        self, device: Device, ledger: MemoryLedger, programs: ProgramStore, control: RunControl
    ) -> None:
        self.device = device
        self.ledger = ledger
        self.programs = programs
        self._control = control
        self.check = control.check
        self.expect = control.expect

    def for_width(self, _num_qubits: int) -> DeviceBackend:
        return self

    def max_live_states(self, num_qubits: int, options: RunOptions) -> int:
        """Number of states that fit into the free memory of the device, and into
        `options.memory_bytes` if given."""
        left = self.ledger.capacity_bytes - self.ledger.reserved_bytes
        room = min(left, options.memory_bytes or left)
        return max(1, room // state_bytes(num_qubits, options.precision))

    def zero_state(
        self, num_qubits: int, options: RunOptions, way: Evolution | None = None
    ) -> DeviceState:
        """Prepare |0...0>, see `StateBackend`; no state of an earlier attempt is used."""
        del way
        state = DeviceState(self.device, self.ledger, num_qubits, options.precision)
        state.set_zero()
        return state

    def copy(self, state: DeviceState) -> DeviceState:
        result = self.empty_like(state)
        self.copy_into(state, result)
        return result

    def copy_into(self, state: DeviceState, target: DeviceState) -> None:
        self.device.copy(state.settle(), target.buffer)
        target.overwrite()

    def invert(self, state: DeviceState, target: DeviceState, qubits: int) -> None:
        """Set `target` to X on each of these qubits, a mask, applied to `state`."""
        self.check()
        reductions.apply_strings(state, target, [(qubits, 0)], np.ones(1, np.complex128))

    def empty_like(self, state: DeviceState) -> DeviceState:
        return DeviceState(self.device, self.ledger, state.num_qubits, state.precision)

    def ensemble(self, num_qubits: int, options: RunOptions, *, branching: bool) -> Ensemble:  # noqa: ARG002  # see `StateBackend`
        return SeparateStates(self, num_qubits, options)

    def apply(
        self, state: DeviceState, segment: protocol.CompiledSegment, floats: NDArray[np.float64]
    ) -> None:
        self.check()
        if isinstance(segment, GateList):
            reductions.apply_gate_list(state, segment, floats)
            return
        program = self.programs.sweeps(cast("SegmentPlan", segment), state.precision)
        apply_program(state, program, floats, self.pass_done)

    def multiply(self, state: DeviceState, matrix: PlacedMatrix) -> None:
        self.check()
        multiply(state, matrix)
        self._control.advance(PASSES)

    def block_sums(
        self, item: BlockSum, state: DeviceState, other: DeviceState | None = None
    ) -> NDArray[np.float64]:
        self.check()
        return reductions.block_sums(item, state, other)

    def project(
        self, state: DeviceState, into: DeviceState, item: Projection, factor: float
    ) -> None:
        self.check()
        source = state.settle()
        into.overwrite()
        pairs = 1 << (state.num_qubits - 1)
        numbers = np.int32(item.qubit), np.int32(item.outcome), np.float64(factor)
        where = np.uint64(pairs), *numbers, np.int32(item.move)
        state.launch("project", pairs, source, into.buffer, *where)

    def locate_samples(self, state: DeviceState, draws: SortedDraws) -> NDArray[np.int64]:
        self.check()
        return reductions.locate_samples(state, draws)

    def distribution(
        self, state: DeviceState, wires: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        self.check()
        table = reductions.outcome_weights(state, wires)
        values = np.flatnonzero(table > backend_reductions.ROUNDING_FLOOR[state.precision])
        return values, table[values]

    def expectations(
        self, state: DeviceState, strings: list[tuple[int, int]]
    ) -> NDArray[np.float64]:
        values: NDArray[np.float64] = reductions.expectations(state, strings, self.check)[0]
        return values

    def gather_statevector(self, state: DeviceState) -> protocol.Amplitudes:
        result: protocol.Amplitudes = self.device.download(state.settle())
        return result

    def amplitudes(self, state: DeviceState, indices: NDArray[np.int64]) -> protocol.Amplitudes:
        """See `StateBackend`. Blocks with a requested amplitude are copied to the host, one by
        one."""
        buffer, size = state.settle(), 1 << min(BLOCK_QUBITS, state.num_qubits)
        result = np.empty(indices.size, COMPLEX[state.precision])
        order = np.argsort(indices, kind="stable")
        blocks, begins = np.unique(indices[order] // size, return_index=True)
        for block, members in zip(blocks.tolist(), np.split(order, begins[1:]), strict=True):
            self.check()
            part = self.device.download(buffer[block * size : (block + 1) * size])
            result[members] = part[indices[members] % size]
        return result

    def plan_gradients(
        self, circuit: Circuit, params: NDArray[np.float64], observables: tuple[PauliSum, ...]
    ) -> protocol.GradientFunction:
        plan = reductions.DeviceAdjoint(circuit, params, self.pass_done, multiply)
        self.expect(plan.num_sweeps * len(observables), PASSES)

        def gradients(state: DeviceState, keep: bool) -> NDArray[np.float64]:
            other = self.empty_like(state)
            result = np.zeros((len(observables), circuit.num_slots))
            for number, item in enumerate(observables):
                is_last = number == len(observables) - 1
                moving = state if is_last and not keep else self.copy(state)
                result[number] = plan.gradient(moving, other, item)
            return result

        return gradients

    def pass_done(self) -> None:
        """Count a sweep. Raises Stopped."""
        self._control.advance(PASSES)
        self.check()


def multiply(state: DeviceState, matrix: PlacedMatrix) -> None:
    """Apply a matrix to a state. Raises Unsupported for more than MAX_MATRIX_QUBITS qubits."""
    qubits = matrix.wires.size
    if qubits > MAX_MATRIX_QUBITS:
        text = f"a matrix on {qubits} qubits; engine 'gpu' takes {MAX_MATRIX_QUBITS}"
        raise Unsupported(text, hint="engine='statevector' runs it, or decompose it")
    device, size = state.device, 1 << qubits
    columns = matrix.columns.reshape(size, 2, size)
    rows = np.ascontiguousarray((columns[:, 0] + 1j * columns[:, 1]).T)
    group_bits = max(0, min(_GROUP_BITS, state.num_qubits) - qubits)
    buffer = state.settle()
    blocks = 1 << (state.num_qubits - qubits - group_bits)
    device.launch(
        f"dense_{state.precision}", blocks, 1 << _GROUP_BITS,
        rows.itemsize << (qubits + group_bits), buffer, np.int32(qubits),
        np.uint64(sum(1 << wire for wire in matrix.wires.tolist())),
        device.upload(matrix.offsets.astype(np.uint64)),
        device.upload(rows.view(np.float64).ravel()), np.int32(group_bits),
    )  # fmt: skip


# Trajectories of a wide circuit on a GPU: the walk of the engine `statevector`, over device
# states.
#
# Each shot's errors and outcome are draws of (seed, binding, shot), so counts are those of the
# processor, up to rounding. A circuit that fits into a block of threads is run by the processor:
# its states are in a core's cache, and a launch takes longer than its gates.


class DeviceTrajectoryStates:
    """See `statevector.trajectories.states.TrajectoryStates`."""

    def __init__(self, backend: DeviceBackend) -> None:
        self.backend = backend
        self._scratch: DeviceState | None = None  # one of the `SCRATCH_STATES`

    def zero(self, state: DeviceState | None, num_qubits: int, options: RunOptions) -> DeviceState:
        if state is None:
            return self.backend.zero_state(num_qubits, options)
        state.set_zero()
        return state

    def copied(self, source: DeviceState, target: DeviceState | None) -> DeviceState:
        if target is None:
            target = self.backend.empty_like(source)
        if self.is_zero(source):
            target.set_zero()
        else:
            self.backend.copy_into(source, target)
        return target

    def is_zero(self, state: DeviceState) -> bool:
        return state.live == 0

    def sweep(
        self, state: DeviceState, segment: SegmentPlan, floats: NDArray[np.float64], *, last: bool
    ) -> None:
        del last
        self.backend.apply(state, segment, floats)

    def reduced(self, state: DeviceState, qubits: tuple[int, ...]) -> NDArray[np.complex128]:
        return reduced_density(self.backend, state, qubits)

    def sample(
        self, state: DeviceState, frame: int, draws: protocol.ShotDraws
    ) -> NDArray[np.int64]:
        if frame:
            if self._scratch is None:
                self._scratch = self.backend.empty_like(state)
            self.backend.invert(state, self._scratch, frame)
            state = self._scratch
        return protocol.sample(self.backend, state, draws)


# Batches of bindings of one circuit: many states in one launch.
#
# Counts of a circuit of at most 12 qubits are one launch from |0...0> to the counts. For
# expectation values all states are kept, of any width, and reduced together.

_MOST_BYTES = 1 << 28  # limit of the numbers and results of one launch
_MOST_ROWS = 1 << 16
_MOST_SHOTS = 1 << 33  # of one launch, which no stop interrupts: some seconds
_MAX_SHOTS = (1 << 31) - 1  # limit of a kernel's argument
_FULL = 30  # 2**30 amplitudes fill a device: wider states run one by one


def run_batch(backend: DeviceBackend, job: RequestExecution) -> EngineResult | None:
    """Run all rows of a request; None if they must be run one by one."""
    if len(job.pieces) > 1:
        return None
    outputs, request = job.request.outputs, job.request
    if outputs == ("counts",) and 0 < request.shots <= _MAX_SHOTS:
        program = job.pieces[0].programs.of(job.circuit, keep=False)
        if job.circuit.num_qubits <= reductions.MAX_QUBITS and program.layout.measures:
            return _counts(backend, job, program) if _is_static(program) else None
    elif outputs == ("expectation",) and job.number > 1 and job.circuit.num_qubits < _FULL:
        program = job.pieces[0].programs.of(job.circuit, keep=True)
        return _expectations(backend, job, program) if _is_static(program) else None
    return None


def _is_static(program: Program) -> bool:
    """Return whether the program is one segment of gates, or none."""
    items = program.items
    return len(items) <= 1 and all(isinstance(item, Gates) for item in items)


def _counts(backend: DeviceBackend, job: RequestExecution, program: Program) -> EngineResult:
    circuit, request = job.circuit, job.request
    n = circuit.num_qubits
    steps: reductions.BatchSteps | None = None
    for segment in program.stretches:
        assert isinstance(segment, GateList)
        steps = reductions.BatchSteps.of(circuit, segment)
    records, places = distinct(gather(np.arange(1 << n), program.layout.source))
    which = places.astype(np.uint32)
    packed, width = pack(records, circuit.num_clbits)
    table = np.frombuffer(packed, np.uint8).reshape(-1, width)
    row_bytes = 0 if steps is None else 64 * steps.own
    row_bytes += 4 * len(table) + (4 + width) * min(len(table), request.shots)
    entries = []
    for rows in _groups(job.number, row_bytes, max(1, _MOST_SHOTS // request.shots)):
        job.control.check()
        bound = _floats(job, program, rows, None if steps is None else steps.chosen)
        key = (request.seed, request.binding + rows.start)
        entries.append(
            reductions.count_shots(backend.device, steps, bound, request.shots, key, which, table)
        )
    outcomes, counts, sizes = (b"".join(parts) for parts in zip(*entries, strict=True))
    return EngineResult(job.number, width, outcomes, counts, sizes if job.number > 1 else b"")


def _expectations(backend: DeviceBackend, job: RequestExecution, program: Program) -> EngineResult:
    """Expectation values of each row, equal to those of the general path: `collect` makes all
    checks."""
    circuit, request, options = job.circuit, job.request, job.options
    strings = outputs.terms(request.observables, circuit.num_qubits)
    seen = program.layout
    plain = job.pieces[0].programs.of(circuit, keep=False).layout
    layouts = MeasurementLayouts(plain, seen)
    results = []
    device, ledger = backend.device, backend.ledger
    left = ledger.capacity_bytes - ledger.reserved_bytes
    single = msgspec.structs.replace(request, bindings=None)
    size = COMPLEX[options.precision].itemsize << circuit.num_qubits
    floats_bytes = 64 * sum(stretch.num_steps for stretch in program.stretches)
    for rows in _groups(job.number, floats_bytes, min(left // size, (1 << _FULL) * 16 // size)):
        states = DeviceState(device, ledger, circuit.num_qubits, options.precision, len(rows))
        states.set_zero()
        floats = _floats(job, program, rows)
        for segment in program.stretches:
            if isinstance(segment, GateList):
                reductions.apply_gate_list(states, segment, floats)
            else:
                uploaded = backend.programs.sweeps(segment, states.precision)
                apply_program(states, uploaded, floats, job.control.check)
        means = reductions.expectations(states, strings, job.control.check)
        for row in rows:
            state = _EvaluatedState(circuit.num_qubits, means[row - rows.start])
            key = (request.seed, request.binding + row)
            results.append(collect(state, layouts, single, key))
    return EngineResult.joined(results)


class _EvaluatedState(FinalState):
    """Precomputed expectation values of one row."""

    def __init__(self, num_qubits: int, means: NDArray[np.float64]) -> None:
        self.num_qubits = num_qubits
        self._means = means

    def expectations(self, strings: PauliStrings) -> NDArray[np.float64]:  # noqa: ARG002  # those of the request
        return self._means


def _groups(number: int, row_bytes: int, max_rows: int = _MOST_ROWS) -> Iterator[range]:
    step = max(1, min(_MOST_ROWS, max_rows, _MOST_BYTES // max(1, row_bytes)))
    for first in range(0, number, step):
        yield range(first, min(first + step, number))


def _floats(
    job: RequestExecution,
    program: Program,
    rows: range,
    chosen: NDArray[np.bool_] | None = None,
) -> NDArray[np.float64]:
    """Numbers of the segment for each row: float64 [rows, ...]; of the chosen operations, if
    given."""
    if not program.stretches or (chosen is not None and not chosen.any()):
        return np.zeros((len(rows), 0, 8))
    (segment,) = program.stretches
    circuit = job.circuit
    params = np.tile(circuit.params, (len(rows), 1))  # see `requests.bind`
    if job.request.bindings is not None and circuit.slots_data:
        values = job.request.bindings[rows.start : rows.stop]
        params[:, circuit.slots[0::2]] = values[:, circuit.slots[1::2]]
    if isinstance(segment, GateList):
        with ThreadPool(job.options.threads, job.control) as pool:
            return reductions.gate_matrices(circuit, segment, params, pool, chosen)
    return np.stack([segment.floats(circuit, row) for row in params])
