"""The numbers a Program gives to the bits of a circuit.

Invariant: qubits keep the circuit's order; clbits are renumbered so that registers lie one after
the other in the circuit's order of registers, and loose clbits come last.
"""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter
from typing import Any, NoReturn

import msgspec

from simenv.client.circuits.limits import too_many_bits
from simenv.errors import ProgramError
from simenv.model import MAX_CLBITS, MAX_QUBITS

BitNumber = Callable[[Any], int]

# A bit's index in its own register. Where that is its number too, asking the bit is three times
# as quick as looking it up.
_OWN_INDEX: BitNumber = attrgetter("_index")


class Layout(msgspec.Struct, frozen=True):
    """Sizes, registers (name, size), and the number of each bit."""

    num_qubits: int
    num_clbits: int
    registers: tuple[tuple[str, int], ...]
    qubit_of: BitNumber
    clbit_of: BitNumber

    def by_bits(self) -> dict[tuple[int, ...], int]:
        """The number of each register, found by its clbits."""
        found: dict[tuple[int, ...], int] = {}
        start = 0
        for number, (_, size) in enumerate(self.registers):
            found.setdefault(tuple(range(start, start + size)), number)
            start += size
        return found


def layout(circuit: Any) -> Layout:
    """Number the bits. LimitExceeded if there are too many; ProgramError if registers share one."""
    data = circuit._data
    num_qubits, num_clbits = data.num_qubits, data.num_clbits
    if num_qubits > MAX_QUBITS:
        raise too_many_bits("qubits", num_qubits, MAX_QUBITS)
    if num_clbits > MAX_CLBITS:
        raise too_many_bits("clbits", num_clbits, MAX_CLBITS)
    registers = data.cregs
    if num_clbits == 0 and not registers:
        return Layout(num_qubits, 0, (), _numbers(data.qubits), _OWN_INDEX)
    if len(registers) == 1 and registers[0].size == num_clbits and _in_order(registers[0]):
        one = (registers[0].name, num_clbits)
        return Layout(num_qubits, num_clbits, (one,), _numbers(data.qubits), _OWN_INDEX)
    sizes, numbers = _several(registers, data.clbits)
    return Layout(num_qubits, num_clbits, sizes, _numbers(data.qubits), numbers)


def _numbers(bits: Any) -> BitNumber:
    if _in_order(bits):
        return _OWN_INDEX
    return {bit: number for number, bit in enumerate(bits)}.__getitem__


def _in_order(bits: Any) -> bool:
    try:
        return list(map(_OWN_INDEX, bits)) == list(range(len(bits)))
    except AttributeError:  # a version of Qiskit whose bits do not tell
        return False


def _several(registers: Any, clbits: Any) -> tuple[tuple[tuple[str, int], ...], BitNumber]:
    numbers: dict[Any, int] = {}
    for register in registers:
        for bit in register:
            if bit in numbers:
                _refuse_shared(registers, register, bit)
            numbers[bit] = len(numbers)
    sizes = tuple((register.name, register.size) for register in registers)
    loose = [bit for bit in clbits if bit not in numbers]
    for bit in loose:
        numbers[bit] = len(numbers)
    if loose:
        sizes += (("", len(loose)),)
    return sizes, numbers.__getitem__


def _refuse_shared(registers: Any, second: Any, bit: Any) -> NoReturn:
    first = next(register for register in registers if bit in list(register))
    raise ProgramError(
        f"the classical registers {first.name!r} and {second.name!r} share a bit",
        hint="give each register its own bits; an alias of a register can be left out",
    )
