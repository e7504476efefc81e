"""Batches of bindings of one circuit: many states in one launch.

Counts of a circuit of at most 12 qubits are one launch from |0...0> to the counts. For expectation
values all states are kept, of any width, and reduced together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import msgspec
import numpy as np
from numpy.typing import NDArray

from simulators.circuit.analysis.measurements import MeasurementLayouts
from simulators.circuit.ir import Circuit
from simulators.engine import Request
from simulators.execution import pauli_sums
from simulators.execution.outputs import FinalState, PauliStrings, collect
from simulators.execution.sampling import distinct, gather, pack
from simulators.gpu import reductions
from simulators.gpu.devices.protocol import COMPLEX, Device, MemoryLedger
from simulators.gpu.programs import ProgramStore
from simulators.gpu.small_states import (
    MAX_QUBITS,
    apply_gate_list,
    count_shots,
    gate_matrices,
)
from simulators.gpu.sweeps import DeviceState, apply_program
from simulators.results import EngineResult
from simulators.statevector.backend.gate_list import GateList
from simulators.statevector.program import Gates, Program
from simulators.statevector.rows import RequestExecution

_MOST_BYTES = 1 << 28  # limit of the numbers and results of one launch
_MOST_ROWS = 1 << 16
_MAX_SHOTS = (1 << 31) - 1  # limit of a kernel's argument
_FULL = 30  # 2**30 amplitudes fill a device: wider states run one by one


class BatchContext(msgspec.Struct, frozen=True, eq=False):
    """Device, memory ledger and programs of batches."""

    device: Device
    ledger: MemoryLedger
    programs: ProgramStore


def run_batch(context: BatchContext, job: RequestExecution) -> EngineResult | None:
    """Run all rows of a request; None if they must be run one by one."""
    if len(job.pieces) > 1:
        return None
    outputs, request = job.request.outputs, job.request
    if outputs == ("counts",) and 0 < request.shots <= _MAX_SHOTS:
        program = job.pieces[0].programs.of(job.circuit, keep=False)
        if job.circuit.num_qubits <= MAX_QUBITS and program.layout.measures:
            return _counts(context, job, program) if _is_static(program) else None
    elif outputs == ("expectation",) and job.number > 1 and job.circuit.num_qubits < _FULL:
        program = job.pieces[0].programs.of(job.circuit, keep=True)
        return _expectations(context, job, program) if _is_static(program) else None
    return None


def _is_static(program: Program) -> bool:
    """Return whether the program is one segment of gates, or none."""
    items = program.items
    return len(items) <= 1 and all(isinstance(item, Gates) for item in items)


def _counts(context: BatchContext, job: RequestExecution, program: Program) -> EngineResult:
    circuit, request = job.circuit, job.request
    n = circuit.num_qubits
    segment: GateList | None = None
    for stretch in program.stretches:
        assert isinstance(stretch, GateList)
        segment = stretch
    records = gather(np.arange(1 << n), program.layout.source)
    values, which = distinct(records)
    order = np.argsort(which, kind="stable")
    begins = np.searchsorted(which[order], np.arange(len(values)))
    steps = 0 if segment is None else len(segment.steps)
    entries: list[tuple[NDArray[np.uint64], NDArray[np.uint32], NDArray[np.uint32]]] = []
    for rows in _groups(job.number, 64 * steps + (4 << n)):
        job.control.check()
        key = (request.seed, request.binding + rows.start)
        floats = _floats(job, program, rows)
        counts = count_shots(context.device, n, segment, floats, request.shots, key)
        table = np.add.reduceat(counts[:, order], begins, axis=1)
        row, column = np.nonzero(table)
        sizes = np.bincount(row, minlength=len(rows))
        entries.append(
            (values[column], table[row, column].astype(np.uint32), sizes.astype(np.uint32))
        )
    outcomes, width = pack(np.concatenate([each[0] for each in entries]), circuit.num_clbits)
    all_counts = np.concatenate([each[1] for each in entries]).tobytes()
    all_sizes = np.concatenate([each[2] for each in entries]).tobytes()
    return EngineResult(
        job.number, width, outcomes, all_counts, all_sizes if job.number > 1 else b""
    )


def _expectations(context: BatchContext, job: RequestExecution, program: Program) -> EngineResult:
    """Expectation values of each row, equal to those of the general path: `collect` makes all
    checks."""
    circuit, request, options = job.circuit, job.request, job.options
    strings = pauli_sums.terms(request.observables, circuit.num_qubits)
    seen = program.layout
    plain = job.pieces[0].programs.of(circuit, keep=False).layout
    layouts = MeasurementLayouts(plain, seen)
    results = []
    left = context.ledger.capacity_bytes - context.ledger.reserved_bytes
    size = COMPLEX[options.precision].itemsize << circuit.num_qubits
    floats_bytes = 64 * sum(stretch.num_steps for stretch in program.stretches)
    for rows in _groups(job.number, floats_bytes, min(left // size, (1 << _FULL) * 16 // size)):
        states = DeviceState(
            context.device, context.ledger, circuit.num_qubits, options.precision, len(rows)
        )
        states.set_zero()
        _apply(context, states, program, _floats(job, program, rows), job.control.check)
        means = reductions.expectations(states, strings, job.control.check)
        for row in rows:
            state = _EvaluatedState(circuit.num_qubits, means[row - rows.start])
            key = (request.seed, request.binding + row)
            results.append(collect(state, layouts, _without_bindings(request), key))
    return EngineResult.joined(results)


class _EvaluatedState(FinalState):
    """Precomputed expectation values of one row."""

    def __init__(self, num_qubits: int, means: NDArray[np.float64]) -> None:
        self.num_qubits = num_qubits
        self._means = means

    def expectations(self, strings: PauliStrings) -> NDArray[np.float64]:  # noqa: ARG002  # those of the request
        """See `FinalState`."""
        return self._means


def _without_bindings(request: Request) -> Request:
    return msgspec.structs.replace(request, bindings=None)


def _groups(number: int, row_bytes: int, max_rows: int = _MOST_ROWS) -> Iterator[range]:
    """Rows of each launch."""
    step = max(1, min(_MOST_ROWS, max_rows, _MOST_BYTES // max(1, row_bytes)))
    for first in range(0, number, step):
        yield range(first, min(first + step, number))


def _floats(job: RequestExecution, program: Program, rows: range) -> NDArray[np.float64]:
    """Numbers of the segment for each row: float64 [rows, ...]."""
    if not program.stretches:
        return np.zeros((len(rows), 0, 8))
    (segment,) = program.stretches
    circuit = job.circuit
    params = _params(circuit, job.request, rows)
    if isinstance(segment, GateList):
        return gate_matrices(circuit, segment, params)
    return np.stack([segment.floats(circuit, row) for row in params])


def _params(circuit: Circuit, request: Request, rows: range) -> NDArray[np.float64]:
    """The circuit's parameters of each row: float64 [rows, parameters]; see `requests.bind`."""
    params = np.tile(circuit.params, (len(rows), 1))
    if request.bindings is not None and circuit.slots_data:
        values = request.bindings[rows.start : rows.stop]
        params[:, circuit.slots[0::2]] = values[:, circuit.slots[1::2]]
    return params


def _apply(
    context: BatchContext,
    states: DeviceState,
    program: Program,
    floats: NDArray[np.float64],
    check: Callable[[], None],
) -> None:
    if not program.stretches:
        return
    (segment,) = program.stretches
    if isinstance(segment, GateList):
        apply_gate_list(states, segment, floats)
    else:
        uploaded = context.programs.sweeps(segment, states.precision)
        apply_program(states, uploaded, floats, check)
