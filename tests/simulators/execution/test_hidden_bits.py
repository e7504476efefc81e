"""Results of circuits with a register that outputs leave out."""

import numpy as np
import pytest
from arrays import Arrays
from qiskit import ClassicalRegister, QuantumCircuit, QuantumRegister
from qiskit.circuit import Clbit

from simenv.client.circuits import load
from simenv.model import program
from simulators.circuit import ir
from simulators.circuit.ir import Circuit
from simulators.engine import BindingResult, EngineResult
from simulators.simulate import counts_of, simulate

ENGINES = ("statevector", "densitymatrix", "mps", "stabilizer")


def teleported() -> Circuit:
    """|1> moved from qubit 0 to qubit 2, with the bits of corrections between the registers of the
    outcome and a loose bit, which is 1."""
    first, hidden = ClassicalRegister(1, "first"), ClassicalRegister(2, program.HIDDEN_REGISTER)
    last = ClassicalRegister(1, "last")
    circuit = QuantumCircuit(QuantumRegister(3), first, hidden, last, [Clbit()])
    circuit.x(0)
    circuit.h(1)
    circuit.cx(1, 2)
    circuit.cx(0, 1)
    circuit.h(0)
    circuit.measure([0, 1], hidden)
    with circuit.if_test((hidden[1], 1)):
        circuit.x(2)
    with circuit.if_test((hidden[0], 1)):
        circuit.z(2)
    circuit.measure(2, first[0])
    circuit.measure(2, circuit.clbits[-1])
    return Circuit.from_program(load(circuit).program)


def only(result: EngineResult) -> dict[int, int]:
    return counts_of(
        BindingResult(
            outcome_width=result.outcome_width, outcomes=result.outcomes, counts=result.counts
        )
    )


def test_both_packages_name_the_register_alike() -> None:
    assert program.HIDDEN_REGISTER == ir.HIDDEN_REGISTER


@pytest.mark.parametrize("engine", ENGINES)
def test_counts_have_the_other_bits_in_their_order(engine: str) -> None:
    result = simulate(teleported(), engine=engine, shots=200, seed=3)
    assert only(result) == {0b101: 200}


def test_memory_has_a_row_of_the_other_bits_for_each_shot() -> None:
    result = simulate(teleported(), shots=50, seed=3, outputs=("memory",))
    assert np.array_equal(np.frombuffer(result.memory, np.uint8), np.full(50, 0b101))


def test_probabilities_are_summed_over_the_hidden_bits() -> None:
    result = simulate(
        teleported(), engine="densitymatrix", shots=0, seed=0, outputs=("probabilities",)
    )
    assert np.frombuffer(result.probability_outcomes, np.uint8).tolist() == [0b101]
    assert np.frombuffer(result.probabilities) == pytest.approx([1.0])


def test_probabilities_of_a_circuit_that_measures_nothing_are_those_of_its_qubits() -> None:
    circuit = Arrays(3, 2, ((ir.HIDDEN_REGISTER, 2),)).add("x", [2]).circuit()
    result = simulate(circuit, shots=0, outputs=("probabilities",))
    assert result.probability_outcomes == b"\4"


def test_exact_run_of_a_statevector_joins_records_that_differ_in_dead_bits() -> None:
    """With a hidden bit for each of 40 corrections: 2^40 records if none died."""
    count = 40
    arrays = Arrays(1, 1 + count, (("c", 1), (ir.HIDDEN_REGISTER, count)))
    for bit in range(1, 1 + count):
        arrays.add("h", [0]).add("measure", [0], [bit])
        arrays.begin((ir.CLBIT, bit, 0)).add("x", [0]).add("end")
    circuit = arrays.add("measure", [0], [0]).circuit()
    result = simulate(circuit, shots=0, outputs=("probabilities",))
    assert (result.probability_outcomes, result.remark) == (b"\0", "2 branches")
    assert np.frombuffer(result.probabilities) == pytest.approx([1.0])
