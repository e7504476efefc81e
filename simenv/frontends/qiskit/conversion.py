"""Results of tasks in Qiskit's forms: counts and memory in hexadecimal, and packed registers.

simenv lays registers one after the other and loose clbits last; Qiskit's hexadecimal outcomes have
the bits of `circuit.clbits`. A BitArray is big-endian, simenv's memory little-endian.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from qiskit import QuantumCircuit
from qiskit.result.models import ExperimentResult, ExperimentResultData

from simenv.client.results.result import Result

Bits = NDArray[np.uint8]


def experiment(circuit: QuantumCircuit, result: Result) -> ExperimentResult:
    """One entry of a Qiskit Result: counts, memory where it was asked for, header and seed."""
    order = _order(circuit)
    outcomes = result.outcomes
    width = outcomes.dtype.itemsize if outcomes.ndim == 1 else outcomes.shape[1]
    packed = np.ascontiguousarray(outcomes).view(np.uint8).reshape(-1, width)
    numbers = result.outcome_counts.tolist()
    data: dict[str, Any] = {"counts": dict(zip(_hexadecimal(packed, order), numbers, strict=True))}
    if result.has("memory"):
        data["memory"] = list(_hexadecimal(result.memory, order))
    header = {
        "name": circuit.name,
        "metadata": circuit.metadata or {},
        "global_phase": float(circuit.global_phase),
        "n_qubits": circuit.num_qubits,
        "memory_slots": circuit.num_clbits,
        "creg_sizes": [[register.name, register.size] for register in circuit.cregs],
        "qreg_sizes": [[register.name, register.size] for register in circuit.qregs],
        "engine": result.engine,
        "device": result.device,
        "snapshot": result.snapshot,
        "task": result.task,
    }
    return ExperimentResult(
        result.shots,
        True,
        ExperimentResultData(**data),
        seed=result.seed,
        status="DONE",
        header=header,
        time_taken=result.timing.run_s,
    )


def _order(circuit: QuantumCircuit) -> NDArray[np.int64] | None:
    """The clbit of `circuit.clbits` at each place of simenv's; None: the same."""
    places = [circuit.find_bit(bit).index for register in circuit.cregs for bit in register]
    loose = sorted(set(range(circuit.num_clbits)) - set(places))
    order = np.array(places + loose, np.int64)
    return None if np.array_equal(order, np.arange(order.size)) else order


def _hexadecimal(packed: Bits, order: NDArray[np.int64] | None) -> Iterable[str]:
    """Outcomes of packed rows, as Qiskit writes them: "0x3"."""
    if order is not None:
        bits = np.unpackbits(packed, axis=1, bitorder="little", count=order.size)
        moved = np.zeros_like(bits)
        moved[:, order] = bits
        packed = np.packbits(moved, axis=1, bitorder="little")
    width, data = packed.shape[1], np.ascontiguousarray(packed).tobytes()
    return [
        hex(int.from_bytes(data[at : at + width], "little")) for at in range(0, len(data), width)
    ]


def register_bits(memory: Bits, first: int, size: int) -> Bits:
    """The bits of a register of `size` from clbit `first`, packed as a BitArray has them.

    `memory`: uint8 [..., shots, bytes]; returns uint8 [..., shots, ceil(size / 8)].
    """
    count = -(-size // 8)
    if first % 8:
        bits = np.unpackbits(memory, axis=-1, bitorder="little")[..., first : first + size]
        part = np.packbits(bits, axis=-1, bitorder="little")
    else:
        part = memory[..., first // 8 : first // 8 + count].copy()
        if size % 8:
            part[..., -1] &= (1 << size % 8) - 1
    return np.ascontiguousarray(part[..., ::-1])
