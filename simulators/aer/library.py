"""Calls to Aer: gate by gate into a state, and whole dynamic circuits.

Invariant: Aer holds the interpreter's lock for the whole of a call and cannot be stopped in it. So
a call takes at most about `CALL_OPERATIONS` operations on amplitudes, half a second on one core:
between calls the control flag is read, and the process's other threads (a worker's heartbeat) run.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray
from qiskit import QuantumCircuit
from qiskit_aer import AerSimulator
from qiskit_aer.aererror import AerError
from qiskit_aer.quantum_info.states.aer_state import AerState

from simulators.catalog import state_bytes
from simulators.circuit.ir import Circuit
from simulators.circuit.operations import Operation, matrix, operations
from simulators.control import RunControl
from simulators.errors import OutOfMemory, Unsupported
from simulators.execution.rng import BLOCK_SHOTS

CALL_OPERATIONS = 2**27  # gates times amplitudes
SHOT_OPERATIONS = 2**33  # of one shot of a dynamic circuit, which cannot be divided
SERIAL_QUBITS = 14  # for fewer qubits a second thread costs more than it saves
ELSEWHERE = "engine='statevector' runs it"

_FLIPS = frozenset({"x", "cx", "ccx", "mcx"})
_PHASES = frozenset({"p", "u1", "cp", "cu1", "mcphase"})


def evolve(
    circuit: Circuit, params: NDArray[np.float64], threads: int, control: RunControl
) -> NDArray[np.complex128]:
    """State [2**n] after the circuit's gates; measurements are ignored."""
    _check_memory(circuit.num_qubits)
    if not circuit.num_qubits:
        phases = [op.params[0] for op in operations(circuit, params) if op.name == "global_phase"]
        return np.exp(1j * np.array([sum(phases)]))
    state = AerState(
        method="statevector", max_parallel_threads=_threads(circuit.num_qubits, threads)
    )
    try:
        state.allocate_qubits(circuit.num_qubits)
        state.initialize()
        waiting = 0
        for operation in operations(circuit, params):
            if not operation.is_gate:
                continue
            _apply(state, circuit, operation)
            waiting += 1 << circuit.num_qubits
            if waiting >= CALL_OPERATIONS:
                state.flush()
                control.check()
                waiting = 0
        state.flush()
        entry: NDArray[np.complex128] = state.move_to_ndarray()  # owned by this array from here on
        return entry
    except (AerError, RuntimeError) as error:
        raise _refusal(str(error)) from error
    finally:
        _close(state)


def block_shots(circuit: Circuit) -> int:
    """Shots of one call for a dynamic circuit, a power of two: a function of the circuit alone.

    Raises Unsupported if one shot would take too long for a call.
    """
    work = max(1, circuit.ops.size) << circuit.num_qubits
    if work > SHOT_OPERATIONS:
        raise Unsupported(
            f"one shot of this dynamic circuit is {work:.1e} operations on amplitudes; engine 'aer'"
            f" takes {SHOT_OPERATIONS:.1e}, as Aer cannot be interrupted",
            hint=ELSEWHERE,
        )
    shots = BLOCK_SHOTS
    while shots > 1 and shots * work > CALL_OPERATIONS:
        shots //= 2
    return shots


class Sampler:
    """Dynamic circuits, shot by shot."""

    def __init__(self, num_qubits: int, threads: int) -> None:
        self._simulator = AerSimulator(
            method="statevector",
            max_parallel_threads=_threads(num_qubits, threads),
            max_parallel_experiments=1,
            max_parallel_shots=1,
        )

    def counts(self, circuit: QuantumCircuit, shots: int, seed: int) -> dict[str, int]:
        """Counts by outcome, a number in hexadecimal."""
        entries: dict[str, int] = self._run(circuit, shots, seed)["counts"]
        return entries

    def memory(self, circuit: QuantumCircuit, shots: int, seed: int) -> list[str]:
        """Outcome of each shot in order, in hexadecimal."""
        results: list[str] = self._run(circuit, shots, seed, memory=True)["memory"]
        return results

    def _run(
        self, circuit: QuantumCircuit, shots: int, seed: int, memory: bool = False
    ) -> dict[str, Any]:
        try:
            job = self._simulator.run(circuit, shots=shots, seed_simulator=seed, memory=memory)
            result = job.result()
        except (AerError, RuntimeError) as error:
            raise _refusal(str(error)) from error
        if not result.success:
            raise _refusal(result.results[0].status if result.results else result.status)
        entries: dict[str, Any] = result.data(0)
        return entries


def _check_memory(num_qubits: int) -> None:
    """Raise OutOfMemory for a state and its probabilities beyond the machine's memory: the
    allocation would succeed, and the system would kill the process later."""
    there = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    need = 2 * state_bytes(num_qubits)
    if need > there:
        raise OutOfMemory(
            f"{num_qubits} qubits take {need / 2**30:.3g} GiB; this machine has"
            f" {there / 2**30:.3g}",
            hint="take fewer qubits",
        )


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
    return Unsupported(f"Aer: {status}", hint=ELSEWHERE)
