"""The program of one QPU among several: a QuantumCircuit with messages to the programs of others.

The directives have the names of CUNQA (https://github.com/CESGA-Quantum-Spain/cunqa), whose
`send` and `recv` are those of MPI. A directive is an instruction of the circuit: it is drawn with
the others, and its label is the other program's name. `Client.join` gives the directives a
meaning; nothing else runs them. This module imports Qiskit.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from qiskit import ClassicalRegister, QuantumCircuit
from qiskit.circuit import Clbit, Instruction, Qubit

from simenv.errors import ProgramError
from simenv.transpiler.qpu_programs import cunqa
from simenv.transpiler.qpu_programs.bounds import MAX_NAME

SEND, RECV, QSEND, QRECV = "send", "recv", "qsend", "qrecv"
EXPOSE, UNEXPOSE, ATTACH, DETACH = "expose", "unexpose", "attach", "detach"


class Message(Instruction):  # type: ignore[misc]  # qiskit is untyped
    """A directive of a QPUProgram. `label`: name of the other program."""

    def __init__(self, name: str, num_qubits: int, num_clbits: int, label: str) -> None:
        super().__init__(name, num_qubits, num_clbits, [], label=label)


class QPUProgram(QuantumCircuit):  # type: ignore[misc]  # qiskit is untyped
    """The circuit of one QPU, with messages to the circuits of other QPUs.

    `QPUProgram("A", 2, 1)` is `QuantumCircuit(2, 1)` with a name, and has all its methods. `to` and
    `from_` are other programs or their names. Qubits and bits are given as everywhere in Qiskit.
    """

    def __init__(self, name: str, *regs: Any) -> None:
        """Raise ProgramError for a name that is no text of 1 to 64 characters."""
        super().__init__(*regs, name=_checked_name(name))
        self._copies: tuple[Qubit, ...] = ()  # of qubits of others
        self._free_copies: tuple[Qubit, ...] = ()

    @classmethod
    def from_cunqa(cls, *circuits: Any) -> list[QPUProgram]:
        """Return the programs of circuits of CUNQA, in the same order: all that exchange messages
        in one call. `circuits`: objects of CunqaCircuit, their `info`, or JSON of it. Raises
        ProgramError, LimitExceededError."""
        return cunqa.programs(cls, circuits)

    @property
    def copies(self) -> frozenset[Qubit]:
        """The qubits of this circuit that are copies of qubits of others, attached or not."""
        return frozenset(self._copies)

    @property
    def data_qubits(self) -> list[Qubit]:
        """The program's own qubits: all but the copies."""
        copies = self.copies
        return [qubit for qubit in self.qubits if qubit not in copies]

    def send(self, clbits: Any, to: QPUProgram | str) -> None:
        """Send the present values of one bit or several; never waits."""
        self._message(SEND, to, clbits=_listed(clbits))

    def recv(self, clbits: Any, from_: QPUProgram | str) -> None:
        """Wait for as many bits as `send` of the other program sends, and write them into bits of
        this one."""
        self._message(RECV, from_, clbits=_listed(clbits))

    def qsend(self, qubit: Any, to: QPUProgram | str) -> None:
        """Teleport a qubit, which is |0> afterwards. Waits for a link with two free communication
        qubits; that of the other QPU has the state until it is received."""
        self._message(QSEND, to, [qubit])

    def qrecv(self, qubit: Any, from_: QPUProgram | str) -> None:
        """Wait for a teleported qubit and move it into this one, whose own state is lost."""
        self._message(QRECV, from_, [qubit])

    def expose(self, qubit: Any, to: QPUProgram | str) -> None:
        """Give another program a copy of a qubit in the basis Z, as a control of its gates. Until
        `unexpose` only gates that are diagonal on the qubit may act on it."""
        self._message(EXPOSE, to, [qubit])

    def unexpose(self, qubit: Any, to: QPUProgram | str) -> None:
        """Wait until the other program has given its copy back."""
        self._message(UNEXPOSE, to, [qubit])

    def attach(self, from_: QPUProgram | str) -> Qubit:
        """Wait for a copy of an exposed qubit; return the Qubit of this circuit that is the copy.
        Only gates that are diagonal on it may act on it, such as those that it controls."""
        if self._free_copies:
            copy, *rest = self._free_copies
            self._free_copies = tuple(rest)
        else:
            copy = Qubit()
            self.add_bits([copy])
            self._copies += (copy,)
        self._message(ATTACH, from_, [copy])
        return copy

    def detach(self, copy: Qubit, from_: QPUProgram | str) -> None:
        """Give a copy back to the program whose qubit it is of. Raises ProgramError for another
        qubit than a copy."""
        if copy not in self._copies or copy in self._free_copies:
            hint = "copy = program.attach(from_); program.detach(copy, from_)"
            raise ProgramError(f"{self.name}: detach of a qubit that is no copy", hint=hint)
        self._message(DETACH, from_, [copy])
        self._free_copies += (copy,)

    def measure_all(self, inplace: bool = True, add_bits: bool = True) -> QuantumCircuit | None:
        """Measure the program's own qubits into a new register `meas`. Raises ProgramError for
        other arguments than the defaults."""
        if not inplace or not add_bits:
            hint = "program.measure_all(), or program.measure(qubits, clbits)"
            raise ProgramError("measure_all of a QPUProgram has no arguments", hint=hint)
        qubits = self.data_qubits
        register = ClassicalRegister(len(qubits), "meas")
        self.add_register(register)
        self.barrier(qubits)
        self.measure(qubits, register)
        return None

    def _message(
        self,
        name: str,
        peer: QPUProgram | str,
        qubits: Sequence[Any] = (),
        clbits: Sequence[Any] = (),
    ) -> None:
        label = _checked_name(peer.name if isinstance(peer, QPUProgram) else peer)
        if label == self.name:
            raise ProgramError(
                f"{self.name}: {name} to itself", hint="a message goes to another program"
            )
        self.append(Message(name, len(qubits), len(clbits), label), list(qubits), list(clbits))


def _listed(clbits: Any) -> list[Any]:
    """Return one bit or several as a list."""
    if isinstance(clbits, Iterable) and not isinstance(clbits, Clbit):
        return list(clbits)
    return [clbits]


def _checked_name(name: Any) -> str:
    if not isinstance(name, str) or not 0 < len(name) <= MAX_NAME:
        hint = f"QPUProgram('A', 2, 1): a text of 1 to {MAX_NAME} characters"
        raise ProgramError(f"name of a program: {name!r:.80}", hint=hint)
    return name
