"""Random programs with messages, compared with the same operations in one circuit."""

from __future__ import annotations

import random

import pytest
from linked_devices import PERFECT, install_linked
from qiskit import ClassicalRegister, QuantumCircuit

from simenv import QPUProgram
from simenv.client.client import Client

QUBITS, CLBITS, STEPS = 2, 2, 14  # of each of two programs


class Pair:
    """Two programs, and one circuit that does the same. Bits that were received are copies."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.programs = [QPUProgram(name, QUBITS, CLBITS) for name in "AB"]
        registers = [ClassicalRegister(CLBITS, name) for name in "AB"]
        self.whole = QuantumCircuit(2 * QUBITS)
        self.whole.add_register(*registers)
        steps = (self.gate, self.measure, self.condition, self.bit, self.qubit, self.copy)
        for me in (0, 1):  # no state is simple
            for qubit in range(QUBITS):
                self.turn(me, qubit)
        for _ in range(STEPS):
            self.chance.choice(steps)(self.chance.randrange(2))
        for me, program in enumerate(self.programs):
            for circuit, first in ((program, 0), (self.whole, me * QUBITS)):
                end = ClassicalRegister(QUBITS, f"end{me}")
                circuit.add_register(end)
                circuit.measure(range(first, first + QUBITS), end)

    def turn(self, me: int, qubit: int) -> None:
        angle = self.chance.choice((0.4, 1.1, 1.9))
        for circuit, place in ((self.programs[me], qubit), (self.whole, me * QUBITS + qubit)):
            circuit.h(place)
            circuit.rz(angle, place)
            circuit.h(place)

    def gate(self, me: int) -> None:
        control = self.chance.randrange(QUBITS)
        self.programs[me].cx(control, 1 - control)
        self.whole.cx(me * QUBITS + control, me * QUBITS + 1 - control)
        self.turn(me, control)

    def measure(self, me: int) -> None:
        qubit, bit = self.chance.randrange(QUBITS), self.chance.randrange(CLBITS)
        self.programs[me].measure(qubit, bit)
        self.whole.measure(me * QUBITS + qubit, me * CLBITS + bit)

    def condition(self, me: int) -> None:
        qubit, bit = self.chance.randrange(QUBITS), self.chance.randrange(CLBITS)
        with self.programs[me].if_test((bit, 1)):
            self.programs[me].x(qubit)
        with self.whole.if_test((self.whole.clbits[me * CLBITS + bit], 1)):
            self.whole.x(me * QUBITS + qubit)

    def bit(self, me: int) -> None:
        sent, received = self.chance.randrange(CLBITS), self.chance.randrange(CLBITS)
        self.programs[me].send(sent, self.programs[1 - me])
        self.programs[1 - me].recv(received, self.programs[me])
        bits = self.whole.clbits
        self.whole.store(bits[(1 - me) * CLBITS + received], bits[me * CLBITS + sent])

    def qubit(self, me: int) -> None:
        sent, received = self.chance.randrange(QUBITS), self.chance.randrange(QUBITS)
        self.programs[me].qsend(sent, self.programs[1 - me])
        self.programs[1 - me].qrecv(received, self.programs[me])
        places = me * QUBITS + sent, (1 - me) * QUBITS + received
        self.whole.swap(*places)
        self.whole.reset(places[0])

    def copy(self, me: int) -> None:
        qubit, target = self.chance.randrange(QUBITS), self.chance.randrange(QUBITS)
        owner, user = self.programs[me], self.programs[1 - me]
        owner.expose(qubit, user)
        copy = user.attach(owner)
        user.cx(copy, target)
        user.crz(0.7, copy, 1 - target)
        user.detach(copy, owner)
        owner.unexpose(qubit, user)
        there = (1 - me) * QUBITS
        self.whole.cx(me * QUBITS + qubit, there + target)
        self.whole.crz(0.7, me * QUBITS + qubit, there + 1 - target)


# The last two store a bit late: they found a store that was placed before its measurement.
@pytest.mark.parametrize("seed", [*range(8), 72, 130])
def test_joined_programs_have_the_distribution_of_one_circuit(env: Client, seed: int) -> None:
    device = install_linked("random-programs", dict.fromkeys("ab", PERFECT), links=1, qubits=3)
    pair = Pair(seed)
    joined = env.join(pair.programs, device)
    exact = {"outputs": ("probabilities",), "shots": None, "engine": "statevector"}
    own = joined.probabilities(env.run(joined.circuit, device=device, **exact))
    whole = env.run(pair.whole, **exact).probabilities
    for k, name in enumerate("AB"):
        expected: dict[str, float] = {}
        for key, value in whole.items():
            words = key.split()[::-1]
            part = f"{words[2 + k]} {words[k]}"
            expected[part] = expected.get(part, 0.0) + value
        assert own[name] == pytest.approx(expected, abs=1e-9)
