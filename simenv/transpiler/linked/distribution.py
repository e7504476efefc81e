"""Compilation of a circuit for a device of several modules.

Imports qiskit.

The qubits are divided among the modules, gates between modules become remote operations, each
module's part is placed on its qubits, and gates are translated where they are. The compiled circuit
is a function of circuit, device and options alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from qiskit import QuantumCircuit, QuantumRegister
from qiskit.circuit import CircuitInstruction, ControlFlowOp, Delay, IfElseOp, Reset
from qiskit.circuit.library import RXXGate
from qiskit.transpiler import Layout, TranspileLayout

from simenv.errors import OptionError, ProgramError
from simenv.model.availability import Availability
from simenv.model.devices import DeviceInfo
from simenv.model.program import HIDDEN_REGISTER
from simenv.transpiler.linked.operations import CONTROLLED_PAULIS, DistributedCircuit
from simenv.transpiler.linked.partition import partition
from simenv.transpiler.linked.placement import ModuleQubits, placed
from simenv.transpiler.linked.steps import CircuitStep, Packet, between_modules, packets, steps_of
from simenv.transpiler.qiskit_runtime import BELL
from simenv.transpiler.transpiler import Transpiler

_HALF_TURN = 1.5707963267948966
_HINT = "partition= puts the qubits that share such operations in one module"


@dataclass(frozen=True, eq=False)
class LinkedCircuit:
    """A circuit in native gates on the qubits of a machine."""

    circuit: QuantumCircuit
    first: tuple[int, ...]  # the machine's qubit of each qubit, at the beginning
    last: tuple[int, ...]  # at the end
    remote_gates: int  # gates between modules


class LinkedTranspiler(Transpiler):
    """Transpiler for one device of several modules. Not thread-safe."""

    @cached_property
    def _modules(self) -> list[ModuleQubits]:
        available = Availability(self._info)
        return [ModuleQubits(self._info, available, k) for k in range(len(self._info.modules))]

    def run(self, circuit: Any, mapping: tuple[int, ...] = ()) -> Any:
        """Return a QuantumCircuit in native gates and operations BELL, with its layout; see
        `Transpiler.run` and `with_pairs`."""
        found = self.divided(circuit, mapping)
        found.circuit._layout = _layout(circuit, found)
        return found.circuit

    def divided(
        self, circuit: QuantumCircuit, mapping: Sequence[int] = (), modules: Sequence[str] = ()
    ) -> LinkedCircuit:
        """Compile a circuit. `mapping`: the machine's qubit of each qubit at the beginning; ():
        any. `modules`: name of the module of each qubit; (): those with the fewest Bell pairs. The
        pairs are operations BELL; see `with_pairs`. Raises ProgramError, OptionError."""
        steps = steps_of(circuit)
        where = self._where(steps, circuit.num_qubits, mapping, modules)
        logical = distributed(circuit, steps, self._info, where)
        return self._placed(logical, mapping)

    def placed(self, logical: DistributedCircuit, mapping: Sequence[int] = ()) -> LinkedCircuit:
        """Place a distributed circuit and translate it to native gates, those of pairs included.
        Raises ProgramError, OptionError."""
        found = self._placed(logical, mapping)
        return replace(found, circuit=with_pairs(found.circuit, self._info))

    def _placed(self, logical: DistributedCircuit, mapping: Sequence[int]) -> LinkedCircuit:
        for number, module in enumerate(self._modules):
            count = logical.modules.count(number)
            if count > len(module.data):
                raise ProgramError(
                    f"{count} qubits in module {module.name}, which has {len(module.data)}"
                    " connected ones beside its communication qubits",
                    hint="fewer qubits there: partition=",
                )
        physical, first, last = placed(logical, self._modules, mapping or None)
        result = self.translated(physical)
        return LinkedCircuit(result, tuple(first), tuple(last), logical.remote_gates)

    def _where(
        self,
        steps: Sequence[CircuitStep],
        num_qubits: int,
        mapping: Sequence[int],
        modules: Sequence[str],
    ) -> list[int]:
        """Return the module of each qubit."""
        numbers = {module.name: k for k, module in enumerate(self._info.modules)}
        if modules:
            if len(modules) != num_qubits or not numbers.keys() >= set(modules):
                raise OptionError(
                    f"partition={list(modules)!r:.80} for {num_qubits} qubits",
                    hint=f"one of {', '.join(list(numbers)[:12])} for each qubit",
                    option="partition",
                )
            if not mapping:
                return [numbers[name] for name in modules]
        if mapping:
            owner = {q: k for k, module in enumerate(self._info.modules) for q in module.qubits}
            where = [owner[qubit] for qubit in mapping]
            if modules and where != [numbers[name] for name in modules]:
                hint = "leave partition out: the mapping says the modules"
                raise OptionError(
                    "partition and qubit_mapping contradict", hint=hint, option="partition"
                )
            return where
        owner = {q: k for k, module in enumerate(self._info.modules) for q in module.qubits}
        linked = {tuple(owner[qubit] for qubit in link.pair) for link in self._info.links}
        both = frozenset((a, b) for pair in linked for a, b in (pair, pair[::-1]))
        return partition(steps, num_qubits, [len(each.data) for each in self._modules], both)


def with_pairs(circuit: QuantumCircuit, info: DeviceInfo) -> QuantumCircuit:
    """Return a compiled circuit with the native operations of each Bell pair. The wait for the pair
    is before the reset of its qubits: data waits, and the pair is fresh. A QPY file of the result
    would lose the unit of these delays (seen with Qiskit 2.6), so that a process which compiles for
    another one leaves this to it."""
    waits = {link.pair: link.wait_ns for link in info.links}
    result = circuit.copy_empty_like()
    numbers = {qubit: index for index, qubit in enumerate(circuit.qubits)}
    for each in circuit.data:
        if each.operation.name != BELL:
            result._append(each)
            continue
        wait_ns = waits[numbers[each.qubits[0]], numbers[each.qubits[1]]]
        for qubit in each.qubits:
            if wait_ns:
                result._append(CircuitInstruction(Delay(wait_ns, "ns"), [qubit]))
            result._append(CircuitInstruction(Reset(), [qubit]))
        result._append(CircuitInstruction(RXXGate(_HALF_TURN), each.qubits))
    result._layout = circuit._layout
    return result


def _layout(circuit: QuantumCircuit, found: LinkedCircuit) -> TranspileLayout:
    """Return the layout of a compiled circuit in Qiskit's form. Qubits that hold no data are in the
    order of their numbers."""
    ancillas = QuantumRegister(found.circuit.num_qubits - circuit.num_qubits, "ancilla")
    virtual = [*circuit.qubits, *ancillas]
    everywhere = range(found.circuit.num_qubits)
    first = [*found.first, *(q for q in everywhere if q not in found.first)]
    last = [*found.last, *(q for q in everywhere if q not in found.last)]
    moved = {found.circuit.qubits[a]: b for a, b in zip(first, last, strict=True)}
    return TranspileLayout(
        initial_layout=Layout(dict(zip(virtual, first, strict=True))),
        input_qubit_mapping={qubit: index for index, qubit in enumerate(virtual)},
        final_layout=Layout(moved),
        _input_qubit_count=circuit.num_qubits,
        _output_qubit_list=found.circuit.qubits,
    )


def distributed(
    circuit: QuantumCircuit, steps: Sequence[CircuitStep], info: DeviceInfo, where: Sequence[int]
) -> DistributedCircuit:
    """Return a circuit with remote operations in place of the gates between modules. `steps`: its
    operations; `where`: module of each qubit. Raises ProgramError."""
    if any(register.name == HIDDEN_REGISTER for register in circuit.cregs):
        raise ProgramError(
            f"the circuit has a classical register {HIDDEN_REGISTER}, which the bits of links need",
            hint="another name, or compile='never' for a circuit that was compiled before",
        )
    result = DistributedCircuit(info, where, circuit)
    for each in packets(between_modules(steps, where), where):
        if isinstance(each, Packet):
            _remote(result, each)
            continue
        if each.name == "barrier" and len(set(each.qubits)) == circuit.num_qubits:
            result.circuit.barrier()  # no pair is awaited before it: communication qubits too
            continue
        for step in _by_module(each, where):
            qubits = [result.circuit.qubits[wire] for wire in step.qubits]
            result.circuit._append(CircuitInstruction(step.operation, qubits, step.clbits))
    return result


def _remote(result: DistributedCircuit, packet: Packet) -> None:
    """Append a packet: a single Pauli with a control as a teleported gate, all others by a copy."""
    result.remote_gates += packet.gates
    (first, *others) = packet.body
    if not others and first.name in CONTROLLED_PAULIS:
        target = sum(first.qubits) - packet.root
        result.telegate(first.name, packet.root, target)
        return
    copy, link = result.copy(packet.root, packet.module)
    for step in packet.body:
        wires = [copy if wire == packet.root else wire for wire in step.qubits]
        result.circuit.append(step.operation, wires)
    result.end_copy(packet.root, copy, link)


def _by_module(step: CircuitStep, where: Sequence[int]) -> tuple[CircuitStep, ...]:
    """Return a step as one for each module that it acts on: conditions of gates on single qubits.
    Raises ProgramError for other control flow over several modules."""
    owners = sorted({where[qubit] for qubit in step.qubits})
    if len(owners) < 2 or not isinstance(step.operation, ControlFlowOp):
        return (step,)
    name = step.operation.name
    if any(where[a] != where[b] for a, b in step.joined):
        text = f"a gate between modules inside {name}"
        raise ProgramError(text, hint=f"{_HINT}; or write the gate outside")
    inner = [each for block in step.operation.blocks for each in block.data]
    if not isinstance(step.operation, IfElseOp) or any(each.clbits for each in inner):
        text = f"{name} over several modules, with more than gates"
        raise ProgramError(text, hint=_HINT)
    return tuple(_part_of(step, {q for q in step.qubits if where[q] == m}) for m in owners)


def _part_of(step: CircuitStep, qubits: set[int]) -> CircuitStep:
    """Return a condition with the gates on some of its qubits."""
    kept = [k for k, qubit in enumerate(step.qubits) if qubit in qubits]
    blocks = []
    for block in step.operation.blocks:
        part = QuantumCircuit([block.qubits[k] for k in kept], block.clbits, *block.cregs)
        for variable in block.iter_captured_vars():
            part.add_capture(variable)
        own = set(part.qubits)
        for each in block.data:
            if own.issuperset(each.qubits):
                part._append(each)
        blocks.append(part)
    operation = step.operation.replace_blocks(blocks)
    return CircuitStep(operation, tuple(step.qubits[k] for k in kept), step.clbits)
