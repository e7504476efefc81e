"""How many bindings of a sweep travel as one task: a function of circuit and options alone."""

from __future__ import annotations

from simenv.model import MAX_BINDINGS, Program, TaskOptions

LEAST_US = 300.0  # of work in a task, where there is so much
MOST_US = 100_000.0  # so that a sweep's tasks are shared out evenly, and a cancel is heard
FEW = 64  # a sweep is cut into pieces no smaller, unless its circuit is slow
PARTS = 16  # pieces of a sweep: some for each of several workers
RESULT_BYTES = 16 * 2**20  # of one task
BINDINGS_BYTES = 2 * 2**20  # of one task: far below what a message may have
_GATE_US = 0.03
_AMPLITUDE_US = 1.2e-3  # one gate on one amplitude
_SHOT_US = 3e-3


def bindings_per_task(program: Program, terms: TaskOptions, shots: int, total: int) -> int:
    """Bindings in each task of a sweep of `total`."""
    cost_us = _cost_us(program, shots)
    largest = min(MAX_BINDINGS, RESULT_BYTES // _row_bytes(program, terms, shots))
    row_bytes = 8 * max(1, program.num_slots)
    largest = min(largest, int(MOST_US / cost_us), BINDINGS_BYTES // row_bytes)
    least = max(FEW, -(-LEAST_US // cost_us)) if cost_us * FEW < MOST_US / 10 else 1
    rows = max(1, min(largest, max(int(least), -(-total // PARTS))))
    if not rows < total <= rows * PARTS:
        return rows
    even = -(-total // -(-total // rows))  # as many pieces, of one size
    return max(min(rows, FEW), even)


def _cost_us(program: Program, shots: int) -> float:
    gates = len(program.ops) // 2 + 2
    amplitudes = 2.0 ** min(_touched(program), 64)
    return gates * (_GATE_US + amplitudes * _AMPLITUDE_US) + shots * _SHOT_US


def _touched(program: Program) -> int:
    """Number of qubits that operations act on: a circuit on a device's qubits leaves most alone."""
    return len(set(memoryview(program.qubits).cast("H")))


def _row_bytes(program: Program, terms: TaskOptions, shots: int) -> int:
    """What one binding's result may take."""
    qubits, bits = min(program.num_qubits, 60), min(program.num_clbits or program.num_qubits, 60)
    sizes = {
        "counts": min(shots, 1 << bits) * (12 + program.num_clbits // 8),
        "memory": shots * -(-program.num_clbits // 8),
        "probabilities": 16 << bits,
        "statevector": 16 << qubits,
        "expectation": 16 * len(terms.observables),
        "gradient": 8 * len(terms.observables) * max(1, program.num_slots),
    }
    return 16 + sum(sizes[output] for output in terms.outputs if output in sizes)
