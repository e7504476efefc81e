"""Bell pairs that a program in native gates makes on a device of several QPUs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Protocol

from simenv.model.devices import LinkInfo
from simenv.model.program import Program
from simenv.model.task import LinkUse

LINK_GATE = "rxx"  # makes the pair of a link


class ModuleLike(Protocol):
    """A `ModuleInfo`, or the module of a calibration."""

    @property
    def name(self) -> str: ...
    @property
    def qubits(self) -> tuple[int, ...]: ...


def links_of(
    program: Program, modules: Sequence[ModuleLike], links: Iterable[LinkInfo]
) -> tuple[LinkUse, ...]:
    """Return the links whose pairs a program makes, in the order of the device's."""
    if LINK_GATE not in program.names:
        return ()
    made = _pairs(program)
    home = {qubit: module for module in modules for qubit in module.qubits}
    result = []
    for link in links:
        first, second = link.pair
        count = made[first, second] + made[second, first]
        if count:
            ends = (f"{home[q].name}.{home[q].qubits.index(q)}" for q in link.pair)
            result.append(LinkUse("-".join(ends), count, link.wait_ns, link.fidelity))
    return tuple(result)


def _pairs(program: Program) -> Counter[tuple[int, int]]:
    """Return the number of gates LINK_GATE on each pair of qubits."""
    sizes = memoryview(program.arities).cast("H").tolist()[0::3]
    qubits = memoryview(program.qubits).cast("H").tolist()
    made = {row for row, name in enumerate(program.names) if name == LINK_GATE}
    result: Counter[tuple[int, int]] = Counter()
    at = 0
    for row in memoryview(program.ops).cast("H").tolist():
        if row in made:
            result[qubits[at], qubits[at + 1]] += 1
        at += sizes[row]
    return result


def modules_of(qubits: Iterable[int], modules: Sequence[ModuleLike]) -> tuple[str, ...]:
    """Return the module of each of some qubits of a device."""
    home = {qubit: module.name for module in modules for qubit in module.qubits}
    return tuple(home[qubit] for qubit in qubits)
