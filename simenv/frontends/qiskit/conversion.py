"""Conversion of results to Qiskit's forms: counts and memory in hexadecimal, and packed registers.

simenv orders clbits by registers, with loose clbits last; Qiskit's hexadecimal outcomes have the
order of `circuit.clbits`. A circuit whose registers share bits is sent with one register, in that
order. A BitArray is big-endian, simenv's memory little-endian.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from qiskit import ClassicalRegister, QuantumCircuit
from qiskit.circuit.exceptions import CircuitError
from qiskit.result.models import ExperimentResult, ExperimentResultData

from simenv.client.results.result import Result
from simenv.errors import ProgramError

Bits = NDArray[np.uint8]


def experiment(circuit: QuantumCircuit, result: Result) -> ExperimentResult:
    """Entry of a Qiskit Result: counts, memory if requested, header and seed."""
    order = _order(circuit)
    outcomes = result.outcomes
    width = outcomes.dtype.itemsize if outcomes.ndim == 1 else outcomes.shape[1]
    packed = np.ascontiguousarray(outcomes).view(np.uint8).reshape(-1, width)
    counts = result.outcome_counts.tolist()
    data: dict[str, Any] = {"counts": dict(zip(_hexadecimal(packed, order), counts, strict=True))}
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
        "warnings": list(result.warnings),
        "remark": result.remark,
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
    """Index in `circuit.clbits` of each clbit of simenv's order; None if both orders are equal."""
    if share_bits(circuit):
        return None
    places = [circuit.find_bit(bit).index for register in circuit.cregs for bit in register]
    loose = sorted(set(range(circuit.num_clbits)) - set(places))
    order = np.array(places + loose, np.int64)
    return None if np.array_equal(order, np.arange(order.size)) else order


def _hexadecimal(packed: Bits, order: NDArray[np.int64] | None) -> Iterable[str]:
    """Outcomes of packed rows in Qiskit's form: "0x3"."""
    if order is not None:
        bits = np.unpackbits(packed, axis=1, bitorder="little", count=order.size)
        moved = np.zeros_like(bits)
        moved[:, order] = bits
        packed = np.packbits(moved, axis=1, bitorder="little")
    width, data = packed.shape[1], np.ascontiguousarray(packed).tobytes()
    return [
        hex(int.from_bytes(data[at : at + width], "little")) for at in range(0, len(data), width)
    ]


def disjoint(circuit: QuantumCircuit) -> QuantumCircuit:
    """The circuit, or a copy with one register if its registers share bits, which simenv has no
    layout for."""
    return in_one_register(circuit) if share_bits(circuit) else circuit


def in_one_register(circuit: QuantumCircuit) -> QuantumCircuit:
    """Copy of the circuit with all clbits in one register, for registers that share bits.

    Raises ProgramError if a value of such a register is stored.
    """
    register = ClassicalRegister(name="bits", bits=circuit.clbits)
    result = QuantumCircuit(circuit.qubits, register, global_phase=circuit.global_phase)
    result.metadata = circuit.metadata
    result._layout = circuit.layout  # Qiskit has no public way to copy it
    for variable in circuit.iter_declared_vars():
        result.add_uninitialized_var(variable)
    try:
        for item in circuit.data:
            result.append(item.operation, item.qubits, item.clbits)
    except CircuitError as error:
        raise ProgramError(
            f"a value of registers that share bits is stored: {error}",
            hint="write the value with their bits",
        ) from error
    return result


def share_bits(circuit: QuantumCircuit) -> bool:
    """Return whether any clbit belongs to several registers."""
    bits = [bit for register in circuit.cregs for bit in register]
    return len(set(bits)) < len(bits)


def scattered_bits(memory: Bits, places: NDArray[np.int64]) -> Bits:
    """Bits of a register with these clbits, packed as in `register_bits`."""
    bits = np.unpackbits(memory, axis=-1, bitorder="little")[..., places]
    packed = np.packbits(bits, axis=-1, bitorder="little")
    return np.ascontiguousarray(packed[..., ::-1])


def register_bits(memory: Bits, first: int, size: int) -> Bits:
    """Bits of a register of `size` from clbit `first`, packed as in a BitArray.

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
