"""`switch` and loops as nested conditions: equal distributions, for engines that have neither."""

import pytest
from engine_runs import probabilities
from qiskit import ClassicalRegister, QuantumCircuit, QuantumRegister

from bench.engine import dynamic_noise
from simenv.client.circuits.load import load
from simulators.circuit import ir
from simulators.circuit.ir import Circuit
from simulators.circuit.passes.unrolled import MOST_OPERATIONS, unrolled
from simulators.circuit.validation.admission import validation_error
from simulators.simulate import counts_of, simulate

SHOTS, LEAST_P = 20_000, 1e-6


def start() -> QuantumCircuit:
    circuit = QuantumCircuit(QuantumRegister(3, "q"), ClassicalRegister(3, "c"))
    circuit.h([0, 1])
    circuit.measure([0, 1], [0, 1])
    return circuit


def switches() -> QuantumCircuit:
    """Two values of one case, a default, a case that measures what the target reads, and one switch
    inside another."""
    circuit = start()
    (register,) = circuit.cregs
    with circuit.switch(register) as case:
        with case(0):
            circuit.x(2)
        with case(1, 2):
            circuit.x(0)
            circuit.measure(0, 0)
            with circuit.switch(circuit.clbits[0]) as inner, inner(1):
                circuit.ry(0.7, 2)
        with case(case.DEFAULT):
            circuit.ry(1.1, 2)
    circuit.measure(2, 2)
    return circuit


def jumps() -> QuantumCircuit:
    """Loops that a `break` leaves and a `continue` shortens, one within the other."""
    circuit = start()
    with circuit.for_loop(range(3)):
        circuit.rx(0.3, 2)
        with circuit.if_test((circuit.clbits[0], 1)):
            circuit.h(1)
            circuit.measure(1, 0)
            circuit.continue_loop()
        circuit.ry(0.4, 2)
        with circuit.for_loop(range(2)):
            circuit.rx(0.5, 1)
            circuit.measure(1, 1)
            with circuit.if_test((circuit.clbits[1], 1)):
                circuit.break_loop()
            circuit.ry(0.2, 2)
        with circuit.switch(circuit.cregs[0]) as case:
            with case(2, 3):
                circuit.break_loop()
            with case(0):
                circuit.x(2)
        circuit.h(0)
        circuit.measure(0, 0)
    circuit.measure(2, 2)
    return circuit


CIRCUITS = {"switches": switches, "jumps": jumps}


@pytest.mark.parametrize("name", CIRCUITS)
def test_engines_without_loops_and_switch_have_the_distribution_of_statevector(name: str) -> None:
    circuit = Circuit.from_program(load(CIRCUITS[name]()).program)
    row = simulate(circuit, engine="densitymatrix", shots=0, outputs=("probabilities",)).row(0)
    expected = probabilities(row)
    engines = ("statevector", "mps", "sweep")
    for engine in engines[: 2 if name == "jumps" else 3]:  # its copies are too deep for sweeps
        counts = counts_of(simulate(circuit, engine=engine, shots=SHOTS, seed=5).row(0))
        assert dynamic_noise.fits(expected, counts) > LEAST_P, engine


@pytest.mark.parametrize("name", CIRCUITS)
def test_what_is_written_out_is_admissible_and_has_neither(name: str) -> None:
    result, _ = unrolled(Circuit.from_program(load(CIRCUITS[name]()).program))
    assert not validation_error(result)
    assert {result.table.names[row] for row in result.ops.tolist()}.isdisjoint(
        {"for", "switch", "case", "default", "break", "continue"}
    )


def test_a_loop_that_would_become_too_long_or_too_deep_stays() -> None:
    long = QuantumCircuit(1, 1)
    with long.for_loop(range(MOST_OPERATIONS + 1)):
        long.x(0)
    deep = QuantumCircuit(1, 1)
    with deep.for_loop(range(ir.MAX_NESTING + 1)):
        deep.h(0)
        deep.measure(0, 0)
        with deep.if_test((deep.clbits[0], 1)):
            deep.break_loop()
    empty = QuantumCircuit(1, 1)  # passes that write nothing end, too
    with empty.for_loop(range(10**9)), empty.for_loop(range(10**9)):
        pass
    idle = QuantumCircuit(1, 1)
    with idle.for_loop(range(10**9)), idle.switch(idle.clbits[0]) as case, case(case.DEFAULT):
        pass
    for circuit in (long, deep, empty, idle):
        packed = Circuit.from_program(load(circuit).program)
        assert unrolled(packed)[0] is packed
