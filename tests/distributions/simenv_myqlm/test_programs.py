"""Circuits as text, outcomes as states: without a gateway."""

import math
from dataclasses import replace
from typing import Any

import pytest
from failing import fails
from simenv_myqlm import formulas
from simenv_myqlm.errors import BreakError, UnsupportedError
from simenv_myqlm.programs import check_breaks, outcome_reader, pauli_sum, program_of, swept
from simenv_myqlm.records import (
    Break,
    Circuit,
    Gate,
    Instruction,
    IntermediateMeasurement,
    Job,
    Logic,
    Measure,
    Observable,
    Reset,
    Term,
)

H0, CNOT = Gate("H", (), (0,)), Gate("CNOT", (), (0, 1))


def job(*instructions: Instruction, qubits: int = 3, **more: Any) -> Job:
    return Job(Circuit(qubits, instructions), **more)


def test_plain_circuits_are_openqasm_2() -> None:
    circuit = Circuit(3, (H0, CNOT, Gate("C-RZ", (0.5,), (1, 2))))
    text = program_of(Job(circuit, 10, (2, 0))).text()
    assert text == (
        'OPENQASM 2.0;\ninclude "qelib1.inc";\nqreg q[3];\ncreg f[2];\n'
        "h q[0];\ncx q[0],q[1];\ncrz(0.5) q[1],q[2];\n"
        "measure q[2] -> f[0];\nmeasure q[0] -> f[1];\n"
    )


@pytest.mark.parametrize(
    ("gate", "line"),
    [
        (Gate("D-S", (), (1,)), "sdg q[1];"),
        (Gate("D-RX", (0.25,), (1,)), "rx(-0.25) q[1];"),
        (Gate("D-U3", (1.0, 2.0, 3.0), (0,)), "u3(-1.0,-3.0,-2.0) q[0];"),
        (Gate("C-C-C-X", (), (0, 1, 2, 3)), "ctrl(3) @ x q[0],q[1],q[2],q[3];"),
        (Gate("C-CNOT", (), (3, 1, 0)), "ccx q[3],q[1],q[0];"),
        (Gate("D-ISWAP", (), (0, 1)), "inv @ iswap q[0],q[1];"),
        (Gate("C-T", (), (2, 0)), "ctrl @ t q[2],q[0];"),
    ],
)
def test_controls_and_daggers_stand_in_names(gate: Gate, line: str) -> None:
    assert program_of(Job(Circuit(4, (gate,)), 1)).text().splitlines()[-5] == line


def test_circuits_that_differ_in_angles_are_one_text_with_few_parameters() -> None:
    """Equal angles stay numbers, angles that are always equal share a parameter."""
    programs = [
        program_of(job(Gate("RX", (a,), (0,)), Gate("RY", (0.5,), (1,)), Gate("RZ", (a,), (2,)),
                       Gate("RZ", (-a,), (0,)), qubits=3))
        for a in (0.1, 0.2)
    ]  # fmt: skip
    text, values = swept(programs)
    assert "rx(p0) q[0];\nry(0.5) q[1];\nrz(p0) q[2];\nrz(p1) q[0];" in text
    assert values == [[0.1, -0.1], [0.2, -0.2]]
    same, values = swept([programs[0], programs[0]])
    assert "input float p0;" in same
    assert values == [[0.0], [0.0]]


def test_classical_bits_become_formulas_of_outcomes() -> None:
    program = program_of(
        job(
            Measure((0, 1), (5, 6)), Logic("AND 5 NOT 6", 0), Logic("XOR 0 7", 1),
            Gate("X", (), (0,), controls=(1,)), Gate("Y", (), (0,), controls=(7,)),
            Reset((0,), (5,)), Gate("Z", (), (0,), formula="NOT 5"), qubits=2,
        )
    )  # fmt: skip
    lines = program.text().splitlines()
    assert "if (((r[0]) && (!(r[1])))) {" in lines
    assert not any(line.startswith("y ") for line in lines)  # bit 7 is 0
    assert lines[lines.index("reset q[0];") + 1] == "z q[0];"  # bit 5 is 0 now: no condition
    assert program.template.records == ((0, 2), (5, 1))


def test_bits_of_a_key_are_the_measured_ones_then_the_final_ones() -> None:
    program = program_of(job(Measure((1, 0), (0, 1)), qubits=2, shots=1))
    state, before = outcome_reader(program.template)("10 01")  # f[1] f[0] r[1] r[0]
    assert state == 0b01
    assert before == (IntermediateMeasurement(0, (True, False)),)
    assert outcome_reader(program.template)("1001") == (state, before)


def test_breaks_are_checked_for_each_outcome() -> None:
    program = program_of(job(Measure((0,), (0,)), Break("AND 0 TRUE"), qubits=1, shots=1))
    check_breaks(program.template, {"10": 4, "00": 3})
    assert (
        fails(BreakError, "held in 5 shots", check_breaks, program.template, {"01": 5}).position
        == 1
    )


def test_terms_of_an_observable_are_summed_with_the_last_qubit_first() -> None:
    observable = Observable(
        (Term(0.5, "XZ", (0, 2)), Term(1, "ZX", (2, 0)), Term(2, "II", (0, 1)), Term(3, "", ())), 1
    )
    assert pauli_sum(observable, 3) == ({"ZIX": 1.5}, 6.0)


@pytest.mark.parametrize(
    ("gate", "text"),
    [
        (
            Gate("QFT", (3,), (0, 1, 2)),
            "'QFT' (instruction 0) has neither a known name nor a matrix",
        ),
        (Gate("RX", ("theta",), (0,)), "free parameter 'theta'"),
        (Gate("RX", (math.inf,), (0,)), "angle inf"),
        (Gate("RX", (), (0,)), "0 angles and 1 qubits"),
        (Gate("CNOT", (), (1,)), "0 angles and 1 qubits"),
        (Gate("CNOT", (), (1, 1)), "equal qubits"),
        (Gate("H", (), (3,)), "qubit 3"),
        (Gate("M", (), (0,), ((1, 0), (0, 2))), "not unitary"),
        (Gate("M", (), (0,), ((1, 0), (0, math.nan))), "not unitary"),
        (Gate("M", (), (0, 1, 2), ((1,) * 8,) * 8), "shape (8, 8)"),
        (Gate("X", (), (0,), formula="AND 0"), "formula 'AND 0' of instruction 0"),
        (Measure((0, 1), (0,)), "2 qubits into 1 classical bits"),
        (Break("0; reset q[0]"), "cannot be read"),
    ],
)
def test_what_no_program_can_express_is_refused_by_name(gate: Instruction, text: str) -> None:
    error = fails(UnsupportedError, "", program_of, job(gate, shots=1))
    assert text in error.message
    assert error.hint or "equal" in text


@pytest.mark.parametrize(
    ("term", "text"),
    [
        (Term(1j, "Z", (0,)), "1j"), (Term(1, "ZZ", (0,)), "'ZZ' on qubits [0]"),
        (Term(1, "A", (0,)), "'A'"), (Term(1, "Z", (9,)), "[9]"),
        (Term(math.nan, "Z", (0,)), "nan"),
    ],
)  # fmt: skip
def test_terms_that_are_no_real_pauli_sum_are_refused(term: Term, text: str) -> None:
    assert text in fails(UnsupportedError, "", pauli_sum, Observable((term,)), 2).message


def test_formulas_of_formulas_are_bounded() -> None:
    bits: dict[int, formulas.Formula] = {0: 0}
    for _ in range(6):  # each twice as large as the one before, and one more
        bits[0] = formulas.parse("XOR 0 0", bits, "instruction 1")
    double = "XOR 0 0"
    fails(UnsupportedError, "more than 200 parts", formulas.parse, double, bits, "instruction 1")
    fails(UnsupportedError, "cannot be read", formulas.parse, "NOT " * 10**5 + "0", {}, "x")


def test_a_gate_of_many_classical_controls_is_bounded_and_equal_ones_are_one() -> None:
    measured, first = Measure((0, 1), (0, 1)), Gate("X", (), (0,))
    text = program_of(Job(Circuit(2, (measured, replace(first, controls=(1, 0) * 10**5))))).text()
    assert "if (((r[1]) && (r[0]))) {" in text
    never = replace(first, controls=(0, 7))  # bit 0 is outcome 0, and 7 was never measured
    assert "if" not in program_of(Job(Circuit(2, (measured, never)))).text()
    always = [Logic("NOT 7", 8), replace(first, controls=(8, 1))]
    text = program_of(Job(Circuit(2, (measured, *always)))).text()
    assert "if (r[1]) {" in text
    wide = Measure(tuple(range(400)), tuple(range(400)))
    many = Circuit(400, (wide, replace(first, controls=tuple(range(400)))))
    fails(UnsupportedError, "instruction 1 has more than 200 parts", program_of, Job(many))


def test_messages_are_bounded() -> None:
    endless = Circuit(1, (Gate("C-" * 10**5 + "X", (), (0,)),))
    assert len(str(fails(UnsupportedError, "", program_of, Job(endless)))) < 3_000


def test_formulas_hold_as_their_operators_say() -> None:
    parsed = formulas.parse("OR XOR 0 1 AND NOT 2 TRUE", {0: 0, 1: 1, 2: 2}, "x")
    for number in range(8):
        a, b, c = bits = [bool(number >> k & 1) for k in range(3)]
        assert formulas.evaluate(parsed, bits) == ((a != b) or not c)
