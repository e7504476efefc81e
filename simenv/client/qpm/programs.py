"""Looks at a packed program, and one change to it: its final measurements left out."""

from __future__ import annotations

import msgspec

from simenv.client import outcomes
from simenv.errors import ProgramError
from simenv.model import OWNERS, Program

_PASSIVE = frozenset({"measure", "barrier"})  # what may follow a measurement that is still final


def counts_bytes(program: Program, shots: int) -> int:
    """At most so much are its counts, packed."""
    different = min(shots, 1 << min(program.num_clbits, 60))
    return different * (4 + max(1, (program.num_clbits + 7) // 8))


def unwritten(program: Program, shots: int) -> dict[str, int]:
    """The counts of a circuit that measures nothing: bits that nobody writes read 0."""
    if not program.num_clbits:
        return {}
    return dict.fromkeys(outcomes.keys(b"", 0, program.registers), shots)


def without_final_measurements(program: Program) -> Program:
    """The same circuit up to its measurements. ProgramError where one is not the last on its qubit.

    A statevector belongs to what was prepared, before any shot is read out.
    """
    if not set(OWNERS).isdisjoint(program.names):
        raise _in_the_middle("under a condition or in a loop")
    arities = memoryview(program.arities).cast("H").tolist()
    ops = memoryview(program.ops).cast("H").tolist()
    qubits = memoryview(program.qubits).cast("H").tolist()
    used: set[int] = set()
    kept_ops: list[int] = []
    kept_qubits: list[int] = []
    end = len(qubits)
    for row in reversed(ops):
        start = end - arities[3 * row]
        name, touched = program.names[row], qubits[start:end]
        end = start
        if name == "measure":
            if not used.isdisjoint(touched):
                raise _in_the_middle(f"of qubit {touched[0]}, which is used again")
            continue
        if name not in _PASSIVE:
            used.update(touched)
        kept_ops.append(row)
        kept_qubits += reversed(touched)
    kept = [row for row, name in enumerate(program.names) if name != "measure"]
    place = {row: number for number, row in enumerate(kept)}
    return msgspec.structs.replace(
        program,
        names=tuple(program.names[row] for row in kept),
        arities=_uint16([size for row in kept for size in arities[3 * row : 3 * row + 3]]),
        ops=_uint16([place[row] for row in reversed(kept_ops)]),
        qubits=_uint16(kept_qubits[::-1]),
        clbits=b"",
    )


def _uint16(values: list[int]) -> bytes:
    return b"".join([value.to_bytes(2, "little") for value in values])


def _in_the_middle(where: str) -> ProgramError:
    return ProgramError(
        f"a statevector was asked of a circuit that measures {where}",
        hint="only final measurements can be left out; or ask for counts alone",
    )
