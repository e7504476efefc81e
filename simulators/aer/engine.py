"""Engine `aer`: Qiskit Aer's statevector method.

A circuit without mid-circuit operations is evolved once, and its state sampled by the seed
contract. A dynamic circuit is run by Aer shot by shot, in blocks with seeds of their own.
"""

from __future__ import annotations

import os
from collections import Counter
from contextlib import suppress
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from qiskit import QuantumCircuit
from qiskit_aer import AerSimulator
from qiskit_aer.aererror import AerError
from qiskit_aer.quantum_info.states.aer_state import AerState

from simulators.catalog import builtin_card, state_bytes
from simulators.circuit.analysis.measurements import MeasurementLayouts
from simulators.circuit.ir import Circuit, Operation, matrix, operations
from simulators.engine import OPERATIONS, SAMPLED, Request, RunControl, RunOptions
from simulators.errors import OTHER_ENGINE, OutOfMemory, Unsupported
from simulators.execution import outputs
from simulators.execution.packing import records_of
from simulators.execution.philox import BLOCK_SHOTS, blocks
from simulators.execution.qiskit_export import Dialect, convert

# Calls to Aer: gate by gate into a state, and whole dynamic circuits.
#
# Invariant: Aer holds the interpreter's lock for the whole of a call and cannot be stopped in it.
# So a call takes at most about `CALL_OPERATIONS` operations on amplitudes, half a second on one
# core: between calls the control flag is read, and the process's other threads (a worker's
# heartbeat) run.

CALL_OPERATIONS = 2**27  # gates times amplitudes
SHOT_OPERATIONS = 2**33  # of one shot of a dynamic circuit, which cannot be divided
SERIAL_QUBITS = 14  # for fewer qubits a second thread costs more than it saves

_FLIPS = frozenset({"x", "cx", "ccx", "mcx"})
_PHASES = frozenset({"p", "u1", "cp", "cu1", "mcphase"})


def evolve(
    circuit: Circuit, params: NDArray[np.float64], threads: int, control: RunControl
) -> NDArray[np.complex128]:
    """State [2**n] after the circuit's gates; measurements are ignored."""
    there = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    need = 2 * state_bytes(circuit.num_qubits)  # the state and its probabilities
    if need > there:  # the allocation would succeed, and the system would kill the process later
        text = f"{circuit.num_qubits} qubits take {need / 2**30:.3g} GiB; this machine has"
        text += f" {there / 2**30:.3g}"
        raise OutOfMemory(text, hint="take fewer qubits")
    if not circuit.num_qubits:
        phases = [op.params[0] for op in operations(circuit, params) if op.name == "global_phase"]
        return np.exp(1j * np.array([sum(phases)]))
    state = AerState(
        method="statevector", max_parallel_threads=_threads(circuit.num_qubits, threads)
    )
    try:
        state.allocate_qubits(circuit.num_qubits)
        state.initialize()
        waiting = 0  # gates
        control.expect(circuit.ops.size, OPERATIONS)
        for operation in operations(circuit, params):
            if not operation.is_gate:
                control.advance(OPERATIONS)
                continue
            _apply(state, circuit, operation)
            waiting += 1
            if waiting << circuit.num_qubits >= CALL_OPERATIONS:
                state.flush()
                control.check()
                control.advance(OPERATIONS, waiting)
                waiting = 0
        state.flush()
        control.advance(OPERATIONS, waiting)
        entry: NDArray[np.complex128] = state.move_to_ndarray()  # owned by this array from here on
        return entry
    except (AerError, RuntimeError) as error:
        raise _refusal(str(error)) from error
    finally:
        _close(state)


def block_shots(circuit: Circuit) -> int:
    """Shots of one call for a dynamic circuit, a power of two: a function of the circuit alone.
    Raises Unsupported if one shot would take too long for a call."""
    work = max(1, circuit.ops.size) << circuit.num_qubits
    if work > SHOT_OPERATIONS:
        raise Unsupported(
            f"one shot of this dynamic circuit is {work:.1e} operations on amplitudes; engine 'aer'"
            f" takes {SHOT_OPERATIONS:.1e}, as Aer cannot be interrupted",
            hint=OTHER_ENGINE,
        )
    shots = BLOCK_SHOTS
    while shots > 1 and shots * work > CALL_OPERATIONS:
        shots //= 2
    return shots


def _run(
    simulator: AerSimulator, circuit: QuantumCircuit, shots: int, seed: int, memory: bool
) -> dict[str, Any]:
    """Counts by outcome, or the outcomes of the shots in their order, in hexadecimal."""
    try:
        job = simulator.run(circuit, shots=shots, seed_simulator=seed, memory=memory)
        result = job.result()
    except (AerError, RuntimeError) as error:
        raise _refusal(str(error)) from error
    if not result.success:
        raise _refusal(result.results[0].status if result.results else result.status)
    entries: dict[str, Any] = result.data(0)
    return entries


def _threads(num_qubits: int, threads: int) -> int:
    return threads if num_qubits >= SERIAL_QUBITS else 1


def _apply(state: AerState, circuit: Circuit, operation: Operation) -> None:
    """Pass one gate to Aer, which fuses waiting gates when it is flushed."""
    *controls, target = operation.qubits or (0,)
    if not operation.qubits:
        state.apply_global_phase(operation.params[0])
    elif operation.name in _FLIPS and controls:
        state.apply_mcx(controls, target)
    elif operation.name in _PHASES:
        state.apply_mcphase(controls, target, operation.params[0])
    elif operation.name != "id":
        state.apply_unitary(list(operation.qubits), matrix(circuit, operation))


def _close(state: AerState) -> None:
    """Free the state's memory; a state that was never moved out must be moved first."""
    with suppress(AerError):  # the state was never allocated
        state.move_to_ndarray()
        state.close()


def _refusal(status: str) -> Unsupported | OutOfMemory:
    if "emory" in status:
        return OutOfMemory(f"Aer: {status}", hint="take fewer qubits")
    return Unsupported(f"Aer: {status}", hint=OTHER_ENGINE)


# Gates for which Aer has kernels.
_NATIVE = frozenset(
    (
        *("h", "x", "y", "z", "s", "sdg", "t", "tdg", "sx", "sxdg", "p", "r", "rx", "ry", "rz"),
        *("u", "u1", "u2", "u3", "cx", "cy", "cz", "cp", "cu1", "csx", "crx", "cry", "crz"),
        *("cu", "cu3", "swap", "ecr", "rxx", "ryy", "rzz", "rzx", "ccx", "ccz", "cswap"),
    )
)
DIALECT = Dialect("aer", OTHER_ENGINE, _NATIVE)
CARD = builtin_card("aer")


class AerEngine(outputs.EngineBase):
    card = CARD

    def check(self, layouts: MeasurementLayouts, request: Request, options: RunOptions) -> None:
        """Refuse exact outputs of a dynamic circuit: it leaves a mixed state, for which Aer has
        counts only."""
        del options
        for output, end in (("probabilities", layouts.clbits), ("expectation", layouts.state)):
            if output in request.outputs and (end.branching or layouts.clbits.branching):
                raise Unsupported(
                    f"engine 'aer' has no output {output!r} of a circuit that measures, resets or"
                    " branches on the way",
                    hint=f"ask for counts; {OTHER_ENGINE}",
                )

    def final_state(self, run: outputs.BoundRun) -> outputs.FinalState:
        """See `EngineBase`. Raises Unsupported for circuits that Aer cannot run."""
        if run.layouts.clbits.branching and not SAMPLED.isdisjoint(run.request.outputs):
            return _shot_by_shot(run)
        work = partial(evolve, run.circuit, run.params, run.options.threads, run.control)
        return outputs.DenseState(run.layouts, run.circuit.num_qubits, work)


def _shot_by_shot(run: outputs.BoundRun) -> outputs.FinalState:
    """Outcomes of a dynamic circuit: counted, or in the order of the shots for `memory`."""
    circuit, request = run.circuit, run.request
    size = block_shots(circuit)
    converted = convert(circuit, run.params, DIALECT)
    simulator = AerSimulator(
        method="statevector",
        max_parallel_threads=_threads(circuit.num_qubits, run.options.threads),
        max_parallel_experiments=1,
        max_parallel_shots=1,
    )
    in_order = "memory" in request.outputs
    counts: Counter[int] = Counter()
    memory: list[int] = []
    for seed, wanted in blocks(request.shots, *run.key, run.control, size):
        data = _run(simulator, converted, wanted, seed, in_order)
        if in_order:
            memory += [int(outcome, 16) for outcome in data["memory"]]
            continue
        for outcome, count in data["counts"].items():
            counts[int(outcome, 16)] += count
    remark = f"blocks of {size} shots"
    if memory:
        return outputs.RecordedState(
            circuit.num_qubits, records_of(memory, circuit.num_clbits), remark
        )
    return outputs.CountedState(circuit, counts, remark)
