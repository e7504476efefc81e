"""The passes of a large state through a circuit, as `simenv explain --plan` prints them."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum

import msgspec

from simenv.cli import out
from simenv.cli.listing import Column, Style, listing
from simenv.cli.reading import read_circuit
from simenv.config import kernel_cache
from simenv.errors import Infeasible, ProgramError
from simenv.model import Program

_LANES = 5


class Line(msgspec.Struct, frozen=True):
    """One pass."""

    number: int
    wires: str  # of the tile, beside the lowest
    operations: str
    memory_bytes: int  # loaded and stored


COLUMNS: tuple[Column[Line], ...] = (
    Column("PASS", lambda one: str(one.number), right=True),
    Column("WIRES", lambda one: one.wires),
    Column("OPERATIONS", lambda one: one.operations),
    Column("BYTES", lambda one: out.size(one.memory_bytes), right=True),
)


def show(
    file: str, precision: str, outputs: Sequence[Enum] | None, *, as_json: bool = False
) -> None:
    """Print the passes through the circuit of a file."""
    from simulators import warm

    warm.prepare(kernel_cache())
    wanted = tuple(each.value for each in outputs or ()) or ("counts",)
    found = lines(read_circuit(file).program, precision, wanted)
    if not as_json:
        total = sum(each.memory_bytes for each in found)
        name = "stdin" if file == "-" else file
        out.line(f"{name}: {out.counted(len(found), 'sweep')} over {out.size(total)}")
    listing(COLUMNS, Style(as_json, aligned=True), lambda: found)


def lines(program: Program, precision: str, outputs: tuple[str, ...]) -> tuple[Line, ...]:
    """Of all stretches of gates, in order. Raises Infeasible where there is no such plan."""
    from simulators.catalog import SMALL_QUBITS, card, state_bytes
    from simulators.circuit.check import problem
    from simulators.circuit.ir import Circuit
    from simulators.statevector.planning.stretch import Stretch
    from simulators.statevector.planning.summary import passes
    from simulators.statevector.schedule import schedule

    circuit = Circuit.from_buffers(*msgspec.structs.astuple(program)[1:])
    engine = card("statevector")
    if engine is not None and circuit.num_qubits > engine.max_qubits:
        raise Infeasible(
            f"{circuit.num_qubits} qubits; the engine statevector takes {engine.max_qubits}",
            hint="explain without --plan tells which engine takes it",
        )
    if circuit.num_qubits <= SMALL_QUBITS:
        raise Infeasible(
            f"{circuit.num_qubits} qubits go through one pass, without a plan",
            hint=f"circuits of more than {SMALL_QUBITS} qubits have one",
        )
    if text := problem(circuit):
        raise ProgramError(text, hint="see what wrote it")
    keep = not set(outputs) <= {"counts"}
    amplitude = state_bytes(0, precision)
    found = [
        one
        for stretch in schedule(circuit, keep=keep, precision=precision).stretches
        if isinstance(stretch, Stretch)
        for one in passes(stretch.sweeps)
    ]
    return tuple(
        Line(
            number,
            _ranges(one.wires),
            one.words or "-",
            2 * amplitude * one.amplitudes,
        )
        for number, one in enumerate(found)
    )


def _ranges(wires: tuple[int, ...]) -> str:
    """'0-4,7,9-12': those of the lanes come first."""
    found = [[0, _LANES - 1]]
    for wire in wires:
        if wire == found[-1][1] + 1:
            found[-1][1] = wire
        else:
            found.append([wire, wire])
    return ",".join(f"{a}-{b}" if b > a else str(a) for a, b in found)
