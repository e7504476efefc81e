"""Operations of a circuit as its distribution over modules sees them, and packets of gates.

Imports qiskit.

A gate between two modules is diagonal on one of its qubits, its root: a copy of the root in the
other module can take its place (cat-entangler). A packet is a set of such gates on one root
and one module, for which one copy is enough: on the root, only diagonal gates are between them. All
gates of a packet are applied at the place of its first one; gates of the other module between them
go along, and all others commute with those that move. (Andres-Martinez and Heunen, arXiv
1811.10972; Wu et al., arXiv 2206.11437.)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from qiskit import QuantumCircuit
from qiskit.circuit import ControlFlowOp
from qiskit.circuit.library import HGate, RXGate, RZZGate
from qiskit.transpiler import PassManager
from qiskit.transpiler.passes import Unroll3qOrMore

from simenv.errors import ProgramError

LOOKAHEAD = 2_000  # operations after its first gate among which a packet is searched
_DIAGONAL = frozenset(
    (
        "z",
        "s",
        "sdg",
        "t",
        "tdg",
        "rz",
        "p",
        "u1",
        "id",
        "cz",
        "cp",
        "cu1",
        "crz",
        "cs",
        "csdg",
        "rzz",
    )
)
# Diagonal on their first qubit.
_CONTROLLED = frozenset(("cx", "cy", "ch", "crx", "cry", "csx", "cu", "cu3", "rzx"))
_HALF_TURN = 1.5707963267948966


@dataclass(frozen=True, eq=False)
class CircuitStep:
    """An operation of a circuit, with the numbers of its qubits."""

    operation: Any
    qubits: tuple[int, ...]
    clbits: tuple[Any, ...] = ()

    @property
    def name(self) -> str:
        """Name of the operation."""
        return str(self.operation.name)

    @cached_property
    def diagonal(self) -> frozenset[int]:
        """Qubits on which it is diagonal."""
        if self.name in _DIAGONAL:
            return frozenset(self.qubits)
        return frozenset(self.qubits[:1] if self.name in _CONTROLLED else ())

    @cached_property
    def is_gate(self) -> bool:
        """Whether it is a gate, which acts on no bits."""
        return not self.clbits and self.name not in ("reset", "barrier", "delay")

    @cached_property
    def parts(self) -> tuple[CircuitStep, ...]:
        """Gates that can act between modules, in place of a gate on two qubits that cannot."""
        first, second = self.qubits
        if self.name in ("rxx", "ryy"):
            (angle,) = self.operation.params
            turn = {"rxx": (HGate(), HGate()), "ryy": (RXGate(_HALF_TURN), RXGate(-_HALF_TURN))}
            before, after = turn[self.name]
            return (
                *(CircuitStep(before, (qubit,)) for qubit in self.qubits),
                CircuitStep(RZZGate(angle), (first, second)),
                *(CircuitStep(after, (qubit,)) for qubit in self.qubits),
            )
        definition = self.operation.definition
        if definition is None:
            text = f"gate {self.name} between modules has no definition by other gates"
            raise ProgramError(text, hint="partition= puts its qubits in one module")
        parts = [
            CircuitStep(
                each.operation,
                tuple(self.qubits[definition.find_bit(q).index] for q in each.qubits),
            )
            for each in definition.data
        ]
        return tuple(
            part
            for each in parts
            for part in (each.parts if len(each.qubits) == 2 and not each.diagonal else (each,))
        )

    @cached_property
    def joined(self) -> tuple[tuple[int, int], ...]:
        """Pairs of qubits of its gates on two qubits, those of its blocks too."""
        if isinstance(self.operation, ControlFlowOp):
            return tuple(
                (self.qubits[a], self.qubits[b])
                for block in self.operation.blocks
                for step in steps_of(block)
                for a, b in step.joined
            )
        return (self.qubits[:2],) if len(self.qubits) == 2 and self.is_gate else ()


def steps_of(circuit: QuantumCircuit) -> list[CircuitStep]:
    """Return the operations of a circuit, with gates on more than two qubits replaced."""
    if any(len(each.qubits) > 2 for each in circuit.data):
        circuit = PassManager([Unroll3qOrMore()]).run(circuit)
    numbers = {qubit: index for index, qubit in enumerate(circuit.qubits)}
    return [
        CircuitStep(each.operation, tuple(numbers[q] for q in each.qubits), tuple(each.clbits))
        for each in circuit.data
    ]


def between_modules(steps: Sequence[CircuitStep], where: Sequence[int]) -> list[CircuitStep]:
    """Return the operations with the gates between modules that are diagonal on no qubit replaced
    by others. `where`: module of each qubit."""
    result: list[CircuitStep] = []
    for step in steps:
        is_remote = is_between(step, where) and not step.diagonal
        result += step.parts if is_remote else (step,)
    return result


def is_between(step: CircuitStep, where: Sequence[int]) -> bool:
    """Return whether a gate acts on qubits of two modules."""
    return step.is_gate and len(step.qubits) == 2 and where[step.qubits[0]] != where[step.qubits[1]]


@dataclass(frozen=True, eq=False)
class Packet:
    """Gates that share a copy of the qubit `root` in a module. `body`: in their order, those on the
    root and those of the module between them."""

    root: int
    module: int
    body: tuple[CircuitStep, ...]
    gates: int  # on the root
    looked_at: int  # operations among which it was searched


def packets(steps: Sequence[CircuitStep], where: Sequence[int]) -> Iterator[CircuitStep | Packet]:
    """Yield the operations of `between_modules` in an order that is equivalent to theirs, those
    between modules in packets."""
    done = [False] * len(steps)
    for first, step in enumerate(steps):
        if done[first]:
            continue
        if not is_between(step, where):
            yield step
            continue
        best: tuple[int, list[int], int] | None = None
        looked_at = 0
        for root in step.qubits:
            if root in step.diagonal:
                module = where[sum(step.qubits) - root]
                members, gates, end = _members(steps, where, done, first, root, module)
                looked_at += end - first
                if best is None or gates > best[2]:
                    best = root, members, gates
        assert best is not None  # it is diagonal on a qubit
        root, members, gates = best
        for index in members:
            done[index] = True
        body = tuple(steps[index] for index in members)
        yield Packet(root, where[sum(step.qubits) - root], body, gates, looked_at)


def _members(
    steps: Sequence[CircuitStep],
    where: Sequence[int],
    done: Sequence[bool],
    first: int,
    root: int,
    module: int,
) -> tuple[list[int], int, int]:
    """Return the body of the packet of a root that begins at a step, its number of gates on the
    root, and the step at which the search ended."""
    body: list[int] = []
    size = gates = 0
    passed: set[int] = set()  # qubits with a step that stays behind
    fixed: set[int] = set()  # those with one that is not diagonal there

    def can_move(step: CircuitStep) -> bool:
        return step.is_gate and all(
            where[qubit] == module
            and (qubit not in fixed if qubit in step.diagonal else qubit not in passed)
            for qubit in step.qubits
            if qubit != root
        )

    index = first
    for index in range(first, min(len(steps), first + LOOKAHEAD)):
        if done[index]:
            continue
        step = steps[index]
        on_root = root in step.qubits
        if on_root and root not in step.diagonal:
            break
        if can_move(step) and len(step.qubits) > on_root:
            body.append(index)
            if on_root:
                size, gates = len(body), gates + 1
            continue
        passed.update(step.qubits)
        fixed.update(set(step.qubits).difference(step.diagonal))
        passed.discard(root)
    return body[:size], gates, index
