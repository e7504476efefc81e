"""Placement of a distributed circuit on the qubits of a machine, each module by itself.

Imports qiskit.

Data has the qubits of a module that are no communication qubits, and moves among them by swaps;
the communication qubits stay where their links end. Gates of data alone are routed by Qiskit's
SabreSwap; for a gate with a communication qubit, data is swapped along the shortest path to one of
its neighbours. No gate is placed on a link but the one that makes its pair. Invariant: operations
on one bit or qubit keep their order.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

from qiskit import QuantumCircuit
from qiskit.circuit import CircuitInstruction, ControlFlowOp
from qiskit.circuit.controlflow import condition_resources
from qiskit.circuit.library import SwapGate
from qiskit.transpiler import CouplingMap, PassManager
from qiskit.transpiler.passes import SabreLayout, SabreSwap

from simenv.errors import OptionError, ProgramError
from simenv.model.availability import Availability
from simenv.model.devices import DeviceInfo
from simenv.transpiler.linked.operations import DistributedCircuit
from simenv.transpiler.qiskit_runtime import SEED

_SPARE = 4  # qubits beside those of data among which a module's circuit is laid out
_TRIALS = 5  # of SabreLayout and of SabreSwap: a fixed number, else that of the cores


class ModuleQubits:
    """Qubits of one module, by their numbers in the machine."""

    def __init__(self, info: DeviceInfo, available: Availability, number: int) -> None:
        module = info.modules[number]
        own = frozenset(module.qubits)
        self.name = module.name
        self.communication = frozenset(module.communication)
        neighbours: dict[int, set[int]] = {q: set() for q in module.qubits}
        for first, second in available.pairs:
            if {first, second} <= own:
                neighbours[first].add(second)
                neighbours[second].add(first)
        self._neighbours = neighbours
        # Those of data, nearest to the communication qubits first: the largest connected part of
        # the qubits that are read well and have all gates of the module.
        free = own.difference(self.communication, available.misread, info.unusable)
        singles = (gate.name for gate in info.gates if gate.qubits == 1)
        for name in ("measure", "reset", *singles):
            having = own.intersection(qubit for (qubit,) in available.places(name))
            free = free & having if having else free
        parts = self._parts(free)
        self.data = max(parts, key=len) if parts else ()
        self._data = frozenset(self.data)

    def _parts(self, free: frozenset[int]) -> list[tuple[int, ...]]:
        first = sorted(q for each in self.communication for q in self._neighbours[each])
        left = dict.fromkeys(q for q in (*first, *sorted(free)) if q in free)
        parts = []
        while left:
            part = [next(iter(left))]
            del left[part[0]]
            for qubit in part:  # grows
                for other in sorted(self._neighbours[qubit]):
                    if other in left:
                        del left[other]
                        part.append(other)
            parts.append(tuple(part))
        return parts

    def are_coupled(self, first: int, second: int) -> bool:
        """Return whether two qubits have a gate on two qubits."""
        return second in self._neighbours[first]

    def coupling(self, qubits: Sequence[int]) -> CouplingMap:
        """Return the couplings of some qubits, by their index among these."""
        index = {qubit: k for k, qubit in enumerate(qubits)}
        result = CouplingMap()
        for k in range(len(qubits)):
            result.add_physical_qubit(k)
        for qubit, k in index.items():
            for other in sorted(self._neighbours[qubit]):
                if other in index:
                    result.add_edge(k, index[other])
        return result

    def path(self, start: int, communication: int) -> list[int]:
        """Return the shortest path of data from a qubit to a neighbour of a communication qubit.
        Raises ProgramError where there is none."""
        ends = self._neighbours[communication]
        before: dict[int, int] = {start: start}
        line = [start]
        for qubit in line:  # grows
            if qubit in ends:
                path = [qubit]
                while path[-1] != start:
                    path.append(before[path[-1]])
                return path[::-1]
            for other in sorted(self._neighbours[qubit]):
                if other in self._data and other not in before:
                    before[other] = qubit
                    line.append(other)
        raise ProgramError(
            f"module {self.name}: communication qubit {communication} has no neighbour among the"
            f" {len(self.data)} connected qubits of data",
            hint="a link that ends at another qubit of the module",
        )


class _Placement:
    """Positions of the data of one module, and its operations that are not placed yet."""

    def __init__(self, qubits: ModuleQubits, wires: Sequence[int], nodes: Sequence[int]) -> None:
        """`nodes`: the qubit of each wire."""
        self.qubits = qubits
        self.wires = tuple(wires)
        self.node = dict(zip(wires, nodes, strict=True))
        self.pending: list[tuple[Any, tuple[int, ...], tuple[Any, ...]]] = []
        self.clbits: set[Any] = set()

    def swap(self, first: int, second: int) -> None:
        """Exchange what two qubits have."""
        turned = {first: second, second: first}
        self.node = {wire: turned.get(node, node) for wire, node in self.node.items()}


def placed(
    logical: DistributedCircuit,
    modules: Sequence[ModuleQubits],
    mapping: Sequence[int] | None = None,
) -> tuple[QuantumCircuit, list[int], list[int]]:
    """Return a circuit on the qubits of the machine, with swaps, and the qubit of each wire of data
    at its beginning and at its end. `mapping`: that of each wire at the beginning; None: any.
    Raises ProgramError, OptionError."""
    return _Router(logical, modules, mapping).run()


class _Router:
    def __init__(
        self,
        logical: DistributedCircuit,
        modules: Sequence[ModuleQubits],
        mapping: Sequence[int] | None,
    ) -> None:
        source = logical.circuit
        self._logical, self._source = logical, source
        self._wires = {qubit: index for index, qubit in enumerate(source.qubits)}
        self._out = QuantumCircuit(logical.info.num_qubits, name=source.name)
        self._out.add_bits(source.clbits)
        self._out.add_register(*source.cregs)
        for variable in source.iter_declared_vars():
            self._out.add_uninitialized_var(variable)
        self._out.global_phase = source.global_phase
        self._variables = (object(),) if source.num_declared_vars else ()  # as one classical bit
        self._first_communication = len(logical.modules)
        self._parts = []
        for number, qubits in enumerate(modules):
            wires = [wire for wire, each in enumerate(logical.modules) if each == number]
            nodes = (
                self._given(qubits, wires, mapping) if mapping else self._laid_out(qubits, wires)
            )
            self._parts.append(_Placement(qubits, wires, nodes))

    def run(self) -> tuple[QuantumCircuit, list[int], list[int]]:
        """Place all operations."""
        first = self._positions()
        for instruction in self._source.data:
            wires = tuple(self._wires[qubit] for qubit in instruction.qubits)
            self._place(instruction.operation, wires, tuple(instruction.clbits))
        for part in self._parts:
            self._flush(part)
        return self._out, first, self._positions()

    def _positions(self) -> list[int]:
        node = {wire: node for part in self._parts for wire, node in part.node.items()}
        return [node[wire] for wire in range(len(self._logical.modules))]

    def _given(
        self, qubits: ModuleQubits, wires: Sequence[int], mapping: Sequence[int]
    ) -> list[int]:
        for wire in wires:
            if mapping[wire] not in qubits.data:
                is_reserved = mapping[wire] in qubits.communication
                raise OptionError(
                    f"qubit_mapping: qubit {mapping[wire]} of module {qubits.name}"
                    f" {'is a communication qubit' if is_reserved else 'holds no data'}",
                    hint=f"such as {', '.join(map(str, qubits.data[:8]))}",
                    option="qubit_mapping",
                )
        return [mapping[wire] for wire in wires]

    def _laid_out(self, qubits: ModuleQubits, wires: Sequence[int]) -> list[int]:
        """Choose the qubits of a module's wires: near its communication qubits, and such that few
        swaps are needed for the gates between them."""
        index = {wire: k for k, wire in enumerate(wires)}
        alone = QuantumCircuit(len(wires))
        for each in self._source.data:
            own = [index.get(self._wires[qubit], -1) for qubit in each.qubits]
            if len(own) == 2 and min(own) >= 0 and not each.clbits:
                alone.cz(*own)
        region = qubits.data[: len(wires) + _SPARE]
        coupling = qubits.coupling(region)
        is_complete = coupling.graph.num_edges() == len(region) * (len(region) - 1)
        if is_complete or not alone.data:
            return list(region[: len(wires)])
        layout = SabreLayout(
            coupling, seed=SEED, max_iterations=2, swap_trials=_TRIALS, layout_trials=_TRIALS
        )
        manager = PassManager([layout])
        manager.run(alone)
        found = manager.property_set["layout"]
        return [region[found[qubit]] for qubit in alone.qubits]

    def _place(self, operation: Any, wires: tuple[int, ...], clbits: tuple[Any, ...]) -> None:
        """Place an operation, or let it wait for those that are routed together with it."""
        is_data = [wire < self._first_communication for wire in wires]
        bits = clbits
        if isinstance(operation, ControlFlowOp) or operation.name == "store":
            bits += self._variables
        if operation.name == "store":  # its bits are in its expressions alone
            bits += tuple(_bits_of(operation.lvalue)) + tuple(_bits_of(operation.rvalue))
        owners = {self._owner(wire) for wire in wires}
        if wires and all(is_data) and len(owners) == 1:
            (owner,) = owners
            self._settle(bits, owner)
            part = self._parts[owner]
            part.pending.append((operation, wires, clbits))
            part.clbits.update(bits)
            return
        self._settle(bits, -1)
        for wire, data in zip(wires, is_data, strict=True):
            if data:
                self._flush(self._parts[self._owner(wire)])
        if len(wires) == 2 and any(is_data) and operation.name != "barrier":
            self._approach(wires, is_data)
        self._append(operation, [self._node(wire) for wire in wires], clbits)

    def _settle(self, bits: Iterable[Any], but: int) -> None:
        """Place the waiting operations of other modules on these bits."""
        for number, part in enumerate(self._parts):
            if number != but and not part.clbits.isdisjoint(bits):
                self._flush(part)

    def _owner(self, wire: int) -> int:
        return self._logical.modules[wire] if wire < self._first_communication else -1

    def _node(self, wire: int) -> int:
        if wire < self._first_communication:
            return self._parts[self._logical.modules[wire]].node[wire]
        return self._logical.communication[wire - self._first_communication]

    def _approach(self, wires: tuple[int, ...], is_data: list[bool]) -> None:
        """Swap data to a neighbour of a communication qubit."""
        wire, other = wires if is_data[0] else wires[::-1]
        part = self._parts[self._owner(wire)]
        path = part.qubits.path(part.node[wire], self._node(other))
        for first, second in pairwise(path):
            self._append(SwapGate(), [first, second], ())
            part.swap(first, second)

    def _append(self, operation: Any, nodes: Sequence[int], clbits: Sequence[Any]) -> None:
        qubits = [self._out.qubits[node] for node in nodes]
        self._out._append(CircuitInstruction(operation, qubits, clbits))

    def _flush(self, part: _Placement) -> None:
        """Route and place the waiting operations of a module."""
        pending, part.pending = part.pending, []
        part.clbits.clear()
        if all(self._fits(part, operation, wires) for operation, wires, _ in pending):
            for operation, wires, clbits in pending:
                self._append(operation, [part.node[wire] for wire in wires], clbits)
            return
        nodes = part.qubits.data
        index = {node: k for k, node in enumerate(nodes)}
        alone = QuantumCircuit(len(nodes))
        alone.add_bits(self._source.clbits)
        alone.add_register(*self._source.cregs)
        for variable in self._source.iter_declared_vars():
            alone.add_uninitialized_var(variable)
        for operation, wires, clbits in pending:
            qubits = [alone.qubits[index[part.node[wire]]] for wire in wires]
            alone._append(CircuitInstruction(operation, qubits, clbits))
        manager = PassManager(
            [SabreSwap(part.qubits.coupling(nodes), "decay", seed=SEED, trials=_TRIALS)]
        )
        routed = manager.run(alone)
        numbers = {qubit: k for k, qubit in enumerate(routed.qubits)}
        for each in routed.data:
            self._append(each.operation, [nodes[numbers[q]] for q in each.qubits], each.clbits)
        final = manager.property_set["final_layout"]
        part.node = {
            wire: nodes[final[alone.qubits[index[node]]]] for wire, node in part.node.items()
        }

    def _fits(self, part: _Placement, operation: Any, wires: tuple[int, ...]) -> bool:
        """Return whether an operation needs no swaps where its qubits are."""
        if len(wires) < 2 or operation.name == "barrier":
            return True
        if isinstance(operation, ControlFlowOp):
            return all(len(each.qubits) < 2 for block in operation.blocks for each in block.data)
        return len(wires) == 2 and part.qubits.are_coupled(*(part.node[wire] for wire in wires))


def _bits_of(expression: Any) -> Iterable[Any]:
    """Return the classical bits that an expression names, those of its registers too."""
    used = condition_resources(expression)
    return (*used.clbits, *(bit for register in used.cregs for bit in register))
