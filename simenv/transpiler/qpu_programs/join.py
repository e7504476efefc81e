"""One circuit of the programs of several QPUs, which exchange bits and qubits.

`distributed` runs all programs until each of them waits for a message or has ended. The directives
become operations on links of a device of several modules; the circuit is simulated as any other one
of that device. Messages of one kind from one program to another one arrive in the order in which
they were sent (as in MPI). `send` never waits; `qsend` and `expose` wait for a link whose
communication qubits are free.

A received bit is the same bit of the circuit as the sent one. A program that writes a bit which a
message or another program refers to writes a new one (copy on write), so that engines which store
no values in classical bits run the circuit. Invariant: the order of the operations is one in which
the programs can run; programs that wait for one another in a circle are refused, with the message
that each waits for.
"""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

import numpy as np
from qiskit import ClassicalRegister, QuantumCircuit
from qiskit.circuit import CircuitInstruction, Clbit, ControlledGate, Gate, Qubit
from qiskit.circuit.classical import expr
from qiskit.circuit.controlflow import ControlFlowOp, condition_resources

from simenv.errors import LimitExceededError, ProgramError
from simenv.model.devices import DeviceInfo, ModuleInfo
from simenv.model.program import HIDDEN_REGISTER
from simenv.transpiler.linked.operations import DistributedCircuit
from simenv.transpiler.qiskit_runtime import MAX_OPERATIONS
from simenv.transpiler.qpu_programs import program as directives
from simenv.transpiler.qpu_programs.bounds import MAX_PROGRAMS
from simenv.transpiler.qpu_programs.program import Message, QPUProgram

_SHOWN = 8  # programs in a message
_MATRIX_QUBITS = 6  # of a gate whose matrix shows where it is diagonal
# Directive that receives a message of a kind, and the one that sends it.
_SENDERS = {
    directives.RECV: directives.SEND,
    directives.QRECV: directives.QSEND,
    directives.ATTACH: directives.EXPOSE,
    directives.UNEXPOSE: directives.DETACH,
}

Bits = Mapping[str, tuple[tuple[tuple[str, int], ...], ...]]
Number = TypeVar("Number", int, float)


@dataclass(frozen=True, slots=True)
class JoinedPrograms:
    """One circuit of several programs. `circuit`: on the qubits of the device. `bits`: of each
    program by name, the place of each bit of each register, as (register of the circuit, bit)."""

    circuit: Any
    bits: Bits

    def counts(self, result: Any) -> dict[str, dict[str, int]]:
        """Return the counts of each program: keys have its own registers, the last one leftmost.
        `result`: of the circuit, as `Client.run` returns it."""
        return self._sums(result, result.counts)

    def probabilities(self, result: Any) -> dict[str, dict[str, float]]:
        """Return the exact probabilities of each program, with keys as in `counts`."""
        return self._sums(result, result.probabilities)

    def memory(self, result: Any) -> dict[str, list[str]]:
        """Return the outcome of each shot of each program, with keys as in `counts`."""
        return self._outcomes(result, result.memory_strings())

    def _sums(self, result: Any, joint: Mapping[str, Number]) -> dict[str, dict[str, Number]]:
        """Return the marginal distributions of the programs."""
        sums: dict[str, dict[str, Number]] = {}
        for name, keys in self._outcomes(result, list(joint)).items():
            own = sums[name] = {}
            for key, value in zip(keys, joint.values(), strict=True):
                own[key] = own[key] + value if key in own else value
        return sums

    def _outcomes(self, result: Any, keys: Sequence[str]) -> dict[str, list[str]]:
        """Return the parts of outcomes of the circuit that are each program's."""
        sizes = [(name, size) for name, size in result.registers if size]
        starts: dict[str, int] = {}  # of a register, from the right, spaces included
        position = 0
        for name, size in sizes:
            starts[name] = position
            position += size + 1
        return {
            name: list(map(partial(_part, [_places(each, starts) for each in registers]), keys))
            for name, registers in self.bits.items()
        }


def _places(register: Iterable[tuple[str, int]], starts: Mapping[str, int]) -> list[int]:
    """Index from the end of an outcome of each bit of a register, the last bit first."""
    return [-1 - starts[name] - bit for name, bit in register][::-1]


def _part(registers: Sequence[Sequence[int]], key: str) -> str:
    return " ".join("".join(key[place] for place in places) for places in reversed(registers))


@dataclass(slots=True)
class _Run:
    """One program while it is joined."""

    program: QPUProgram
    module: int
    wires: dict[Qubit, int]  # of each qubit; a copy has one while it is attached
    clbits: dict[Clbit, Clbit]  # bit of the circuit that has the value of each
    position: int = 0
    # Exposed qubits: wire of the copy, link, and the other program's name.
    exposed: dict[Qubit, tuple[int, int, str]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        name: str = self.program.name
        return name

    @property
    def next(self) -> CircuitInstruction | None:
        data = self.program.data
        return data[self.position] if self.position < len(data) else None


def distributed(
    programs: Sequence[QPUProgram] | Mapping[str, QPUProgram], device: DeviceInfo
) -> tuple[DistributedCircuit, Bits]:
    """Return one circuit of all programs, which is not placed on qubits yet, and the bits of each
    program in it.

    `programs`: by the names of modules of the device; a sequence takes the modules in order. Raises
    ProgramError for messages that are never received, programs that wait for one another, unknown
    names, and more qubits than a module has; LimitExceededError.
    """
    return _Joiner(programs, device).joined()


class _Joiner:
    """State of one call of `distributed`."""

    def __init__(
        self, programs: Sequence[QPUProgram] | Mapping[str, QPUProgram], device: DeviceInfo
    ) -> None:
        self._runs: dict[str, _Run] = {}
        self._owners: dict[Clbit, str] = {}  # program that writes each bit
        modules: list[int] = []
        for program, module in _placed(programs, device):
            _check(program, device.modules[module])
            qubits = program.data_qubits
            wires = {qubit: len(modules) + k for k, qubit in enumerate(qubits)}
            clbits = {bit: Clbit() for bit in program.clbits}
            self._owners.update(dict.fromkeys(clbits.values(), program.name))
            self._runs[program.name] = _Run(program, module, wires, clbits)
            modules += [module] * len(qubits)
        self._distributed = DistributedCircuit(device, modules)
        self._circuit = self._distributed.circuit
        self._references: Counter[Clbit] = Counter()  # to bits, of programs and of messages
        for run in self._runs.values():
            self._circuit.add_bits(run.clbits.values())
            self._references.update(run.clbits.values())
            self._circuit.global_phase += run.program.global_phase
            for each in run.program.data:
                self._check_peer(run.name, each)
        # Messages on their way, by the directive that sends them, sender and receiver.
        self._messages: dict[tuple[str, str, str], deque[Any]] = defaultdict(deque)
        self._used: dict[int, int] = {}  # link of each communication wire that holds a state

    def joined(self) -> tuple[DistributedCircuit, Bits]:
        """Join the programs. Raises ProgramError, LimitExceededError."""
        moved = True
        while moved:
            moved = False
            for run in self._runs.values():
                while run.next is not None and self._step(run, run.next):
                    moved = True
                    if len(self._circuit.data) > MAX_OPERATIONS:
                        message = f"the joined programs have more than {MAX_OPERATIONS} operations"
                        raise LimitExceededError(message, hint="join fewer or shorter programs")
        self._check_ended()
        return self._named()

    def _named(self) -> tuple[DistributedCircuit, Bits]:
        """Give the circuit registers: of each program its own, with the bits that have their
        last values; all others are hidden."""
        registers: list[ClassicalRegister] = []
        place: dict[Clbit, tuple[str, int]] = {}
        last = {  # bits in registers of those who wrote them; others' are where they were received
            bit
            for run in self._runs.values()
            for bit in run.clbits.values()
            if self._owners[bit] == run.name
        }
        for run in self._runs.values():
            for name, bits in _registers(run.program):
                own = [run.clbits[bit] for bit in bits]
                fresh = [
                    Clbit()
                    if bit in place or (bit in last and self._owners[bit] != run.name)
                    else bit
                    for bit in own
                ]
                register = ClassicalRegister(bits=fresh, name=f"{run.name}_{name}")
                if any(each.name == register.name for each in registers):
                    hint = "name programs and registers otherwise"
                    raise ProgramError(f"two registers are named {register.name!r}", hint=hint)
                registers.append(register)
                place.update((bit, (register.name, k)) for k, bit in enumerate(fresh))
        hidden = [bit for bit in self._circuit.clbits if bit not in place]
        registers.append(ClassicalRegister(bits=hidden, name=HIDDEN_REGISTER))
        result = QuantumCircuit(*self._circuit.qregs, *registers)
        result.global_phase = self._circuit.global_phase
        for each in self._circuit.data:
            result._append(each)
        self._distributed.circuit = result
        return self._distributed, {
            name: tuple(
                tuple(place[run.clbits[bit]] for bit in bits) for _, bits in _registers(run.program)
            )
            for name, run in self._runs.items()
        }

    def _check_peer(self, name: str, instruction: CircuitInstruction) -> None:
        operation = instruction.operation
        if isinstance(operation, Message) and operation.label not in self._runs:
            raise ProgramError(
                f"{name}: {_described(operation)}, which is no program that is joined",
                hint=f"programs: {', '.join(self._runs)}"[:200],
            )

    def _step(self, run: _Run, instruction: CircuitInstruction) -> bool:
        """Execute the next instruction of a program; return False if it has to wait."""
        operation = instruction.operation
        if not isinstance(operation, Message):
            self._local(run)
            return True
        done: bool = getattr(self, f"_{operation.name}")(
            run, self._runs[operation.label], instruction
        )
        run.position += done
        return done

    def _local(self, run: _Run) -> None:
        """Append all instructions of a program up to its next directive."""
        part: list[CircuitInstruction] = []
        while run.next is not None and not isinstance(run.next.operation, Message):
            each = run.next
            self._check_copies(run, each)
            conditional = isinstance(each.operation, ControlFlowOp)
            if conditional:
                each = each.replace(operation=_on_bits(run.name, each.operation))
            shared = [bit for bit in _written(each) if self._references[run.clbits[bit]] > 1]
            if shared:  # those before read the bits that they have now
                self._append(run, part)
                part = []
            for bit in shared:
                self._write_new(run, bit, conditional=conditional)
            part.append(each)
            run.position += 1
        self._append(run, part)

    def _append(self, run: _Run, part: Sequence[CircuitInstruction]) -> None:
        qubits = list(dict.fromkeys(qubit for each in part for qubit in each.qubits))
        segment = QuantumCircuit(qubits, run.program.clbits)
        for each in part:
            segment.append(each)
        self._circuit.compose(
            segment,
            [run.wires[qubit] for qubit in qubits],
            [run.clbits[bit] for bit in run.program.clbits],
            inplace=True,
        )

    def _write_new(self, run: _Run, bit: Clbit, *, conditional: bool) -> None:
        """Give a program a new bit of the circuit for one that others refer to, before it writes.
        `conditional`: the bit may keep its value."""
        old = run.clbits[bit]
        new = self._new_bit(run, bit)
        if conditional:
            self._circuit.store(new, old)

    def _new_bit(self, run: _Run, bit: Clbit) -> Clbit:
        new = Clbit()
        self._circuit.add_bits([new])
        self._owners[new] = run.name
        self._refer(run, bit, new)
        return new

    def _refer(self, run: _Run, bit: Clbit, new: Clbit) -> None:
        self._references[run.clbits[bit]] -= 1
        self._references[new] += 1
        run.clbits[bit] = new

    def _post(self, sender: str, run: _Run, peer: _Run, message: Any) -> bool:
        self._messages[sender, run.name, peer.name].append(message)
        return True

    def _taken(self, receiver: str, run: _Run, peer: _Run, count: int = 1) -> list[Any]:
        """Take the oldest messages that a directive receives; []: there are fewer."""
        queue = self._messages[_SENDERS[receiver], peer.name, run.name]
        return [queue.popleft() for _ in range(count)] if len(queue) >= count else []

    def _send(self, run: _Run, peer: _Run, instruction: CircuitInstruction) -> bool:
        for bit in instruction.clbits:
            self._references[run.clbits[bit]] += 1
            self._post(directives.SEND, run, peer, run.clbits[bit])
        return True

    def _recv(self, run: _Run, peer: _Run, instruction: CircuitInstruction) -> bool:
        sent = self._taken(directives.RECV, run, peer, len(instruction.clbits))
        if not sent:
            return False
        for bit, new in zip(instruction.clbits, sent, strict=True):
            if new in run.clbits.values():  # sent to this program before
                self._circuit.store(self._new_bit(run, bit), new)
            else:
                self._refer(run, bit, new)
        self._references.subtract(sent)
        return True

    def _qsend(self, run: _Run, peer: _Run, instruction: CircuitInstruction) -> bool:
        wire = self._own(run, instruction)
        link = self._free_link(run, peer)
        if link is None:
            return False
        there, _ = self._distributed.teleport(wire, peer.module, link)
        self._used[there] = link
        return self._post(directives.QSEND, run, peer, there)

    def _qrecv(self, run: _Run, peer: _Run, instruction: CircuitInstruction) -> bool:
        wire = self._own(run, instruction)
        for there in self._taken(directives.QRECV, run, peer):
            self._distributed.take(there, wire)
            del self._used[there]
            return True
        return False

    def _expose(self, run: _Run, peer: _Run, instruction: CircuitInstruction) -> bool:
        wire = self._own(run, instruction)
        link = self._free_link(run, peer)
        if link is None:
            return False
        copy, _ = self._distributed.copy(wire, peer.module, link)
        self._used[copy] = link
        run.exposed[instruction.qubits[0]] = copy, link, peer.name
        return self._post(directives.EXPOSE, run, peer, copy)

    def _attach(self, run: _Run, peer: _Run, instruction: CircuitInstruction) -> bool:
        for copy in self._taken(directives.ATTACH, run, peer):
            run.wires[instruction.qubits[0]] = copy
            return True
        return False

    def _detach(self, run: _Run, peer: _Run, instruction: CircuitInstruction) -> bool:
        return self._post(directives.DETACH, run, peer, run.wires.pop(instruction.qubits[0]))

    def _unexpose(self, run: _Run, peer: _Run, instruction: CircuitInstruction) -> bool:
        (qubit,) = instruction.qubits
        copy, link, to = run.exposed.get(qubit, (-1, -1, ""))
        if to != peer.name:
            raise ProgramError(
                f"{run.name}: {_described(instruction.operation)} of a qubit that it has no copy"
                " of",
                hint="expose it before",
            )
        returned = self._messages[directives.DETACH, peer.name, run.name]
        if copy not in returned:
            return False
        returned.remove(copy)
        self._distributed.end_copy(run.wires[qubit], copy, link)
        del self._used[copy], run.exposed[qubit]
        return True

    def _own(self, run: _Run, instruction: CircuitInstruction) -> int:
        """Return the wire of the qubit of a message. Raises ProgramError for a qubit that is
        exposed, and for a copy."""
        (qubit,) = instruction.qubits
        state = "exposed" if qubit in run.exposed else "a copy"
        if qubit in run.exposed or qubit in run.program.copies:
            text = f"{run.name}: {_described(instruction.operation)} of a qubit that is {state}"
            raise ProgramError(text, hint="give the copy back before, by detach and unexpose")
        return run.wires[qubit]

    def _free_link(self, run: _Run, peer: _Run) -> int | None:
        """Return a link between the modules of two programs whose communication qubits hold no
        state; None: there is none now. Raises ProgramError if the modules are not linked."""
        links = self._distributed.links(run.module, peer.module)
        used = {self._distributed.communication_qubit(wire) for wire in self._used}
        pairs = self._distributed.info.links
        return next((k for k in links if not used.intersection(pairs[k].pair)), None)

    def _check_copies(self, run: _Run, instruction: CircuitInstruction) -> None:
        """Raise ProgramError for an operation that is not diagonal on an exposed qubit or a copy,
        or that acts on a copy which is not attached."""
        operation = instruction.operation
        for index, qubit in enumerate(instruction.qubits):
            if qubit not in run.wires:
                hint = "copy = program.attach(from_), and detach it after its last use"
                raise ProgramError(f"{run.name}: {operation.name} on a detached copy", hint=hint)
            is_copy = qubit in run.program.copies
            if (is_copy or qubit in run.exposed) and not _is_diagonal(operation, index):
                what = "a copy" if is_copy else "an exposed qubit"
                raise ProgramError(
                    f"{run.name}: {operation.name} is not diagonal on {what}",
                    hint="use it as the control of gates until the copy is given back",
                )

    def _check_ended(self) -> None:
        """Raise ProgramError if programs wait, or messages were not received."""
        waiting = [run for run in self._runs.values() if run.next is not None]
        if waiting:
            reasons = "; ".join(self._reason(run) for run in waiting[:_SHOWN])
            raise ProgramError(
                f"programs wait for messages that do not come: {reasons}",
                hint="each message needs its send, which comes before what waits for its answer",
            )
        for (sender, name, peer), messages in self._messages.items():
            if messages:
                receiver = next(key for key, value in _SENDERS.items() if value == sender)
                text = f"{name}: {sender} to {peer} is never received"
                raise ProgramError(text, hint=f"{peer}: {receiver} from {name}")
        for name, run in self._runs.items():
            for _, _, peer in run.exposed.values():
                text = f"{name}: expose to {peer} without unexpose"
                raise ProgramError(text, hint="unexpose it after the last use of the copy")

    def _reason(self, run: _Run) -> str:
        """Return what a program waits for: `A: qrecv from B`."""
        assert run.next is not None
        operation = run.next.operation
        peer, sender = operation.label, _SENDERS.get(operation.name)
        other = next(
            (
                kind
                for (kind, *ends), messages in self._messages.items()
                if messages and ends == [peer, run.name] and kind != sender
            ),
            None,
        )
        if sender is None:
            reason = " (no free link)"
        elif other is not None:
            reason = f" (sent by {other})"
        else:
            reason = "" if self._runs[peer].next is not None else " (which has ended)"
        return f"{run.name}: {_described(operation)}{reason}"


def _described(operation: Any) -> str:
    receives = operation.name in _SENDERS and operation.name != directives.UNEXPOSE
    return f"{operation.name} {'from' if receives else 'to'} {operation.label}"


def _placed(
    programs: Sequence[QPUProgram] | Mapping[str, QPUProgram], device: DeviceInfo
) -> list[tuple[QPUProgram, int]]:
    """Return the programs with the numbers of their modules. Raises ProgramError."""
    numbers = {each.name: number for number, each in enumerate(device.modules)}
    if isinstance(programs, Mapping):
        for name in programs:
            if name not in numbers:
                hint = f"modules: {', '.join(numbers)}"[:200] if numbers else "device='NAME'"
                raise ProgramError(f"device {device.name} has no module {name!r:.80}", hint=hint)
        pairs = [(program, numbers[name]) for name, program in programs.items()]
    else:
        pairs = list(zip(programs, range(len(numbers)), strict=False))
    if not 0 < len(programs) == len(pairs) <= MAX_PROGRAMS:
        message = f"{len(programs)} programs for device {device.name} of {len(numbers)} modules"
        raise ProgramError(message, hint="one program for each module at most, and one at least")
    names = [program.name for program, _ in pairs]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ProgramError(f"two programs are named {twice!r}", hint="name each otherwise")
    return pairs


def _check(program: QPUProgram, module: ModuleInfo) -> None:
    """Raise ProgramError for a program that its module cannot hold, or that cannot be joined."""
    free = len(module.qubits) - len(module.communication)
    if len(program.data_qubits) > free:
        raise ProgramError(
            f"{program.name} has {len(program.data_qubits)} qubits; module {module.name} has"
            f" {free} beside its {len(module.communication)} communication qubits",
            hint="use fewer qubits, or another module",
        )
    if program.num_vars:
        hint = "use classical bits"
        raise ProgramError(f"{program.name}: runtime variables in a program", hint=hint)
    if sum(len(bits) for _, bits in _registers(program)) != program.num_clbits:
        hint = "give each bit one register"
        raise ProgramError(f"{program.name}: registers share classical bits", hint=hint)


def _registers(program: QPUProgram) -> list[tuple[str, list[Clbit]]]:
    """Return the registers of a program with their bits; bits outside registers are the last."""
    result = [(each.name, list(each)) for each in program.cregs]
    loose = [bit for bit in program.clbits if not program.find_bit(bit).registers]
    return [*result, ("bits", loose)] if loose else result


def _written(instruction: CircuitInstruction) -> list[Clbit]:
    """Return the classical bits that an instruction may write."""
    operation = instruction.operation
    if not isinstance(operation, ControlFlowOp):
        return list(instruction.clbits)
    return list(
        dict.fromkeys(
            instruction.clbits[block.find_bit(bit).index]
            for block in operation.blocks
            for each in block.data
            for bit in _written(each)
        )
    )


def _on_bits(name: str, operation: ControlFlowOp) -> ControlFlowOp:
    """Return an operation of control flow with conditions on bits, and none on registers: bits of a
    register may become those of others. Raises ProgramError for other uses of registers, and for
    messages in its blocks."""
    blocks = []
    for block in operation.blocks:
        changed = block.copy_empty_like()
        for each in block.data:
            if isinstance(each.operation, Message):
                hint = "send before the block; conditions decide about gates"
                raise ProgramError(f"{name}: {_described(each.operation)} in a block", hint=hint)
            if isinstance(each.operation, ControlFlowOp):
                each = each.replace(operation=_on_bits(name, each.operation))
            changed.append(each)
        blocks.append(changed)
    result = operation.replace_blocks(blocks)
    condition = getattr(operation, "condition", getattr(operation, "target", None))
    if isinstance(condition, tuple) and isinstance(condition[0], ClassicalRegister):
        register, value = condition
        terms = [
            expr.lift(bit) if value >> k & 1 else expr.logic_not(bit)
            for k, bit in enumerate(register)
        ]
        together = terms[0]
        for term in terms[1:]:
            together = expr.logic_and(together, term)
        result.condition = together
    elif isinstance(condition, ClassicalRegister) or (
        isinstance(condition, expr.Expr) and condition_resources(condition).cregs
    ):
        hint = "use bits, or a condition such as (register, 3)"
        raise ProgramError(f"{name}: {operation.name} by an expression of a register", hint=hint)
    return result


def _is_diagonal(operation: Any, index: int) -> bool:
    """Return whether an operation commutes with Z of its qubit of this index."""
    if operation.name in ("barrier", "delay"):
        return True
    if isinstance(operation, ControlFlowOp):
        return all(
            _is_diagonal(each.operation, place)
            for block in operation.blocks
            for each in block.data
            for place, qubit in enumerate(each.qubits)
            if block.find_bit(qubit).index == index
        )
    if not isinstance(operation, Gate) or operation.num_qubits > _MATRIX_QUBITS:
        return isinstance(operation, ControlledGate) and index < operation.num_ctrl_qubits
    if operation.is_parameterized():
        operation = operation.to_mutable()
        operation.params = [0.3 + k for k in range(len(operation.params))]  # no special angles
    matrix = operation.to_matrix()
    bit = np.arange(len(matrix)) >> index & 1
    return bool(np.allclose(matrix[bit[:, None] != bit[None, :]], 0.0))
