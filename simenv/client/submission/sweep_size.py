"""Number of bindings of a sweep in each task: a function of circuit and options alone."""

from __future__ import annotations

from simenv.model import MAX_BINDINGS, Program, TaskOptions

MIN_TASK_US = 300.0  # least work of a task, if the sweep has so much
MAX_TASK_US = 100_000.0  # most work of a task: workers share a sweep evenly, and a cancel acts soon
FEW = 64  # least bindings of a task, unless the circuit is slow
PARTS = 16  # tasks of a sweep: some for each of several workers
RESULT_BYTES = 16 * 2**20  # most bytes of one task's result
BINDINGS_BYTES = 2 * 2**20  # most bytes of one task's bindings: far below a message's limit
_GATE_US = 0.03
_AMPLITUDE_US = 1.2e-3  # one gate on one amplitude
_SHOT_US = 3e-3


def bindings_per_task(program: Program, terms: TaskOptions, shots: int, total: int) -> int:
    """Return the number of bindings in each task of a sweep of `total`."""
    cost_us = _cost_us(program, shots)
    largest = min(MAX_BINDINGS, RESULT_BYTES // _row_bytes(program, terms, shots))
    row_bytes = 8 * max(1, program.num_slots)
    largest = min(largest, int(MAX_TASK_US / cost_us), BINDINGS_BYTES // row_bytes)
    least = max(FEW, -(-MIN_TASK_US // cost_us)) if cost_us * FEW < MAX_TASK_US / 10 else 1
    rows = max(1, min(largest, max(int(least), -(-total // PARTS))))
    if not rows < total <= rows * PARTS:
        return rows
    even = -(-total // -(-total // rows))  # the same number of tasks, of equal size
    return max(min(rows, FEW), even)


def _cost_us(program: Program, shots: int) -> float:
    gates = len(program.ops) // 2 + 2
    amplitudes = 2.0 ** min(_touched(program), 64)
    return gates * (_GATE_US + amplitudes * _AMPLITUDE_US) + shots * _SHOT_US


def _touched(program: Program) -> int:
    """Return the number of qubits that operations act on: few in a circuit mapped to a device."""
    return len(set(memoryview(program.qubits).cast("H")))


def _row_bytes(program: Program, terms: TaskOptions, shots: int) -> int:
    """Return the largest size of one binding's result in bytes."""
    qubits, bits = min(program.num_qubits, 60), min(program.num_clbits or program.num_qubits, 60)
    sizes = {
        "counts": min(shots, 1 << bits) * (12 + program.num_clbits // 8),
        "memory": shots * -(-program.num_clbits // 8),
        "probabilities": 16 << bits,
        "statevector": 16 << qubits,
        "expectation": 16 * len(terms.pauli_sums),
        "gradient": 8 * len(terms.pauli_sums) * max(1, program.num_slots),
        "amplitudes": 16 * len(terms.bit_strings),
    }
    return 16 + sum(sizes[output] for output in terms.outputs if output in sizes)
