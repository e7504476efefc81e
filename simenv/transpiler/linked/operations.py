"""Circuits on several QPUs: operations between modules by Bell pairs and classical messages.

Imports qiskit.

Wires are those of a circuit, each in one module, and after them one for each communication qubit of
the machine. Each remote operation makes one Bell pair of a link and consumes it: a teleported
gate and a copy of a qubit in another module (Eisert et al., arXiv quant-ph/0005101; Yimsiriwattana
and Lomonaco, arXiv quant-ph/0402148), and teleportation (Bennett et al., Phys. Rev. Lett. 70,
1895). The bits of corrections are in a register that results leave out, two for each link: a bit
that independent links shared would make one wait for the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qiskit import ClassicalRegister, QuantumCircuit, QuantumRegister
from qiskit.circuit import Instruction

from simenv.errors import ProgramError
from simenv.model.devices import DeviceInfo
from simenv.model.program import HIDDEN_REGISTER
from simenv.transpiler.qiskit_runtime import BELL

# Gates on two qubits that are a Pauli on the second one, controlled by the first one.
CONTROLLED_PAULIS = {"cx": "x", "cy": "y", "cz": "z"}


class DistributedCircuit:
    """A circuit on the modules of a machine, while it is built."""

    def __init__(self, info: DeviceInfo, modules: Sequence[int], like: Any = None) -> None:
        """`info`: a device with modules. `modules`: that of each wire of data, by number. `like`: a
        QuantumCircuit whose classical bits, registers and variables the circuit has."""
        self.info = info
        self.modules = tuple(modules)
        self.communication = tuple(q for module in info.modules for q in module.communication)
        self.pairs = [0] * len(info.links)  # made on each link
        self.remote_gates = 0  # gates of a circuit that remote operations replace
        self._wires = {q: len(modules) + k for k, q in enumerate(self.communication)}
        owner = {q: m for m, module in enumerate(info.modules) for q in module.qubits}
        self._between: dict[tuple[int, int], list[int]] = {}
        for k, link in enumerate(info.links):
            first, second = owner[link.pair[0]], owner[link.pair[1]]
            self._between.setdefault((first, second), []).append(k)
            self._between.setdefault((second, first), []).append(k)
        self._first_module = [owner[link.pair[0]] for link in info.links]
        size = len(modules) + len(self.communication)
        self.circuit = QuantumCircuit(QuantumRegister(size, "q"))
        if like is not None:
            self.circuit.add_bits(like.clbits)
            self.circuit.add_register(*like.cregs)
            for variable in like.iter_declared_vars():
                self.circuit.add_uninitialized_var(variable)
            self.circuit.global_phase = like.global_phase
            self.circuit.name = like.name
        self._bits = ClassicalRegister(2 * len(info.links), HIDDEN_REGISTER)
        self.circuit.add_register(self._bits)

    def communication_qubit(self, wire: int) -> int:
        """Return the device's qubit of a wire of communication."""
        return self.communication[wire - len(self.modules)]

    def links(self, first: int, second: int) -> list[int]:
        """Return the links of two modules, those that have made the fewest pairs first. Raises
        ProgramError if there is none."""
        found = self._between.get((first, second))
        if not found:
            names = [self.info.modules[module].name for module in (first, second)]
            raise ProgramError(
                f"device {self.info.name}: modules {names[0]} and {names[1]} have no link",
                hint="partition= puts qubits that share gates in modules with a link",
            )
        return sorted(found, key=lambda k: (self.pairs[k], k))

    def bell_pair(self, link: int) -> tuple[int, int]:
        """Make |00> + |11> of a link's communication qubits; return their wires in the order of its
        pair."""
        first, second = (self._wires[q] for q in self.info.links[link].pair)
        self.circuit.append(Instruction(BELL, 2, 0, []), [first, second])
        self.circuit.s(first)
        self.pairs[link] += 1
        return first, second

    def copy(self, wire: int, module: int, link: int | None = None) -> tuple[int, int]:
        """Copy a qubit, in the basis of Z, to another module (cat-entangler): gates that are
        diagonal on the qubit may act on the copy. `link`: None: any. Return the copy's wire and
        the link."""
        here, copy, link = self._pair(wire, module, link)
        first = self._bits[2 * link]
        self.circuit.cx(wire, here)
        self.circuit.measure(here, first)
        with self.circuit.if_test((first, 1)):
            self.circuit.x(copy)
        return copy, link

    def end_copy(self, wire: int, copy: int, link: int) -> None:
        """End a copy of a qubit (cat-disentangler)."""
        second = self._bits[2 * link + 1]
        self.circuit.h(copy)
        self.circuit.measure(copy, second)
        with self.circuit.if_test((second, 1)):
            self.circuit.z(wire)

    def telegate(self, name: str, control: int, target: int) -> None:
        """Apply one of CONTROLLED_PAULIS to qubits of two modules. Both sides act and measure at
        once, so that the gate takes one exchange of messages."""
        here, there, link = self._pair(control, self.modules[target])
        first, second = self._bits[2 * link], self._bits[2 * link + 1]
        circuit = self.circuit
        circuit.cx(control, here)
        getattr(circuit, name)(there, target)
        circuit.measure(here, first)
        circuit.h(there)
        circuit.measure(there, second)
        with circuit.if_test((first, 1)):  # the other side was controlled by the opposite value
            getattr(circuit, CONTROLLED_PAULIS[name])(target)
        with circuit.if_test((second, 1)):
            circuit.z(control)

    def teledata(self, source: int, target: int) -> None:
        """Move the state of a qubit to one of another module, whose own state is lost. The source
        is |0> afterwards."""
        there, _ = self.teleport(source, self.modules[target])
        self.take(there, target)

    def teleport(self, source: int, module: int, link: int | None = None) -> tuple[int, int]:
        """Move the state of a qubit to a communication qubit of another module; the source is |0>
        afterwards. `link`: None: any. Return the communication qubit's wire and the link."""
        here, there, link = self._pair(source, module, link)
        first, second = self._bits[2 * link], self._bits[2 * link + 1]
        circuit = self.circuit
        circuit.cx(source, here)
        circuit.h(source)
        circuit.measure(here, first)
        circuit.measure(source, second)
        with circuit.if_test((first, 1)):
            circuit.x(there)
        with circuit.if_test((second, 1)):
            circuit.z(there)
        circuit.reset(source)
        return there, link

    def take(self, there: int, target: int) -> None:
        """Move the state of a communication qubit to a qubit of its module, whose own state is
        lost."""
        self.circuit.reset(target)
        self.circuit.cx(there, target)  # a swap with |0>, which frees the communication qubit
        self.circuit.cx(target, there)

    def _pair(self, wire: int, module: int, link: int | None = None) -> tuple[int, int, int]:
        """Make a pair between the module of a wire and another one; return the wire of its half
        here, that of its half there, and the link."""
        if link is None:
            link = self.links(self.modules[wire], module)[0]
        first, second = self.bell_pair(link)
        if self._first_module[link] == self.modules[wire]:
            return first, second, link
        return second, first, link
