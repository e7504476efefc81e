"""Measurement instructions with names of their own, such as IBM's `measure_2`, in programs."""

import pytest
from failing import fails
from qiskit import QuantumCircuit
from qiskit.circuit import Instruction
from qiskit_ibm_runtime.circuit import MidCircuitMeasure

from simenv.client.circuits import load
from simenv.client.circuits.decoder import to_qiskit
from simenv.errors import ProgramError
from simenv.model.task_rules import measured_last

HEAD = 'OPENQASM 3.0;\ninclude "stdgates.inc";\nqubit[2] q; bit[2] c;\n'


def circuit() -> QuantumCircuit:
    result = QuantumCircuit(2, 2)
    result.x(0)
    result.append(MidCircuitMeasure(), [0], [0])
    with result.if_test((result.clbits[0], 1)):
        result.append(MidCircuitMeasure("measure_fast"), [1], [1])
    result.measure(0, 0)
    return result


def test_program_keeps_the_names_and_gives_the_circuit_back() -> None:
    loaded = load(circuit())
    assert loaded.program.names == ("x", "measure_2", "if", "measure_fast", "end", "measure")
    assert loaded.measures
    assert load(to_qiskit(loaded.program)).program == loaded.program


def test_circuit_of_its_own_that_is_named_so_is_expanded() -> None:
    body = QuantumCircuit(1, 1, name="measure_x")
    body.h(0)
    body.measure(0, 0)
    result = QuantumCircuit(1, 1)
    result.append(body.to_instruction(), [0], [0])
    assert load(result).program.names == ("h", "measure")


@pytest.mark.parametrize(
    ("statement", "count"),
    [
        ("c[1] = measure_2(q[0]);", 1),
        ("c = measure_2(q);", 2),
        ("bit d = measure_2(q[1]);", 1),
        ("if (c[0]) { c[1] = measure_2(q[0]); }", 1),
        ("for int k in [0:1] { c[k] = measure_2(q[k]); }", 2),
    ],
)
def test_openqasm_3_calls_it_as_a_function_of_its_qubit(statement: str, count: int) -> None:
    program = load(HEAD + statement).program
    names = [program.names[row] for row in memoryview(program.ops).cast("H")]
    assert names.count("measure_2") == count


@pytest.mark.parametrize("statement", ["c = measure_2(q[0]);", "c[0] = measure_2(q);"])
def test_call_with_another_number_of_bits_is_refused(statement: str) -> None:
    assert fails(ProgramError, "measure_2 of", load, HEAD + statement).line == 4


def test_observable_is_refused_on_a_qubit_that_is_measured_last_by_another_name() -> None:
    names = ("x", "measure_2")
    assert measured_last(names, (1, 1), (0, 1), (0, 0)) == {0}


def test_text_of_openqasm_2_has_no_such_measurement() -> None:
    text = 'OPENQASM 2.0; include "qelib1.inc"; qreg q[1]; creg c[1]; measure_2 q[0] -> c[0];'
    fails(ProgramError, "measure_2", load, text)


def test_instruction_without_a_name_of_a_measurement_stays_opaque() -> None:
    result = QuantumCircuit(1, 1)
    result.append(Instruction("read", 1, 1, []), [0], [0])
    fails(ProgramError, "opaque", load, result)
