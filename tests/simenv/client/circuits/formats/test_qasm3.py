"""Each construct of OpenQASM 3 runs as it says, or is refused with its place."""

import cmath
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import drawing
import engine_judge
import numpy as np
import pytest
from failing import fails
from hypothesis import HealthCheck, given, settings
from qiskit import QuantumCircuit, qasm3
from qiskit.circuit.classical import expr, types
from qiskit.quantum_info import Operator

from simenv.client.circuits import load, to_qiskit
from simenv.client.client import Client
from simenv.errors import LimitExceededError, ProgramError, SimenvError
from simulators.engine import Request, RunControl, RunOptions
from simulators.errors import TooManySteps
from simulators.statevector.engine import StatevectorEngine

pytest.importorskip("qiskit_qasm3_import")

HEAD = 'OPENQASM 3.0;\ninclude "stdgates.inc";\nqubit[3] q;\nbit[2] c;\nbit[3] d; bit e;\n'


def fault(text: str) -> ProgramError:
    return fails(ProgramError, "", load, text)


@pytest.mark.parametrize(
    ("text", "place", "told"),
    [
        ("x q[0]\ny q[0];", (7, 1), "missing ';' at 'y'"),
        ("x q[0]; foo q[0];", (6, 9), "'foo' is not defined"),
        ("x q[0];\n  x r[0];", (7, 5), "Undefined symbol 'r'"),
        ("x q[7];", (6, 3), "index 7 is out of range"),
        ("x q[0:7];", (6, 3), "index 7 is out of range"),
        ("cx q[0],q[0];", (6, 1), "duplicate"),
        ("h(1) q[0];", (6, 1), "'h' takes 0 parameters, but got 1"),
        ("U q[0];", (6, 1), "'U' takes 3 parameters, but got 0"),
        ("rz(1/0) q[0];", (6, 1), "division"),
        ("rz(sqrt(-1)) q[0];", (6, 4), "sqrt(-1)"),
        ("x q;\n rz(1e400) q[0];", (7, 2), "the angle is inf"),
        ("rz(1e200*1e200-1e200*1e200) q[0];", (6, 1), "the angle is nan"),
        ("gate g(a) r { rz(1e308*a) r; }\nx q;\n  g(1e10) q[0];", (8, 3), "'g' cannot be made"),
        ("x q;\nfor int i in [0:1.5] { x q[i]; }", (7, 1), "a constant integer is wanted"),
        ("x q;\nbox { x q[0]; }", (7, 1), "'box' is not carried"),
        ("switch (c) { case 7 { x q[0]; } }", (6, 1), "case 7 is larger than the maximum"),
        ("while (c) { measure q[0]; }", (6, 13), "measurements must save"),
        ("stretch s;", (6, 1), "stretch"),
        ("def f(qubit a) { h a; }", (6, 1), "a subroutine ('def')"),
        ("#pragma anything\n", (6, 1), "the pragma 'anything' is not carried"),
        ("if (c + 1) { x q[0]; } else { if (q) { x q[1]; } }", (6, 35), "'qubit[3]'"),
        ("if (1 ** 1 == 1) { x q[0]; }", (6, 5), "'**' of two constants"),
        ("if (1 / 0 == c) { x q[0]; }", (6, 5), "'/' of two constants"),
        ("if (c == -1) { x q[0]; }", (6, 5), "a negative number"),
        ("if ((c << -1) == 0) { x q[0]; }", (6, 5), "a negative number"),
        ("int k = 3; if (k == 3) { x q[0]; }", (6, 16), "an int in an expression"),
        ("int k = 3;\nk += 1;", (7, 1), "an int in an expression"),
        ("int k;\nk[0] = 1;", (7, 1), "a bit of the int 'k'"),
        ("int[2] k;\nk = c;", (7, 1), "2 bits in an int of 2"),
        ("int[2] k = 2;", (6, 1), "2 bits in an int of 2"),
        ("int[2] k = -1;", (6, 1), "-1 does not fit"),
        ("ctrl @ gphase(1);", (6, 1), "1 controls of 'gphase', which is given 0 qubits"),
        ("gphase(1) q[0];", (6, 1), "0 controls of 'gphase', which is given 1 qubits"),
        ("ctrl(3) @ gphase(1) q[0], q[1];", (6, 1), "3 controls of 'gphase', which is given 2"),
        ("ctrl(2) @ ctrl(2) @ gphase(1) q[0], q[1], q[2];", (6, 1), "4 controls of 'gphase'"),
        ("ctrl(0) @ gphase(1) q[0];", (6, 1), "0 controls of 'gphase'"),
        ("ctrl(99999) @ gphase(1) q[0];", (6, 1), "99999 controls of 'gphase'"),
        ("gate g(a) r { pow(0.5) @ gphase(a); }", (6, 15), "the power 0.5 of a phase"),
        ("let a = c[0:1];\nmeasure q[0] -> c[0];", (0, 0), "share a bit"),
        ("if (", (6, 5), "mismatched input"),
    ],
)
def test_error_has_line_and_column(text: str, place: tuple[int, int], told: str) -> None:
    error = fault(HEAD + text)
    assert told in error.message
    assert (error.line, error.column) == place


def test_missing_importer_is_named_with_pip_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "qiskit_qasm3_import.converter", None)
    monkeypatch.delitem(sys.modules, "simenv.client.circuits.qasm3_importer", raising=False)
    monkeypatch.delattr("simenv.client.circuits.qasm3_importer", raising=False)
    assert fault(HEAD).hint == "pip install 'simenv[qasm3]'"


def test_gate_parameters_are_bound_in_declared_order() -> None:
    text = "gate g(b, a) x, y { rz(a) x; cx x, y; rx(b/2) y; }\nh q[1]; g(0.25, 0.75) q[1], q[0];"
    by_hand = "h q[1]; rz(0.75) q[1]; cx q[1], q[0]; rx(0.125) q[0];"
    assert load(HEAD + text).packed == load(HEAD + by_hand).packed


def test_ranges_and_index_sets_select_their_qubits() -> None:
    for picked, expected in {
        "0:1": [0, 1],
        "2:-1:0": [2, 1, 0],
        "0:2:2": [0, 2],
        ":": [0, 1, 2],
        "-2:-1": [1, 2],
        "{2,0}": [2, 0],
    }.items():
        program = load(HEAD + f"x q[{picked}];").program
        assert np.frombuffer(program.qubits, np.uint16).tolist() == expected


def test_functions_of_constants_are_evaluated() -> None:
    program = load(HEAD + "rz(sqrt(2)) q[0]; rz(2*cos(pi)) q[0];").program
    assert np.frombuffer(program.params).tolist() == [2**0.5, -2.0]


def test_gate_modifiers_agree_with_qiskit_gates() -> None:
    text = "h q; ctrl @ ctrl @ s q[0],q[1],q[2]; negctrl @ x q[0],q[1]; inv @ t q[2];"
    text += "pow(0.5) @ x q[0]; gate g(a) x { rx(a) x; t x; }\n inv @ g(0.5) q[1];"
    text += "ctrl(2) @ g(0.25) q[0],q[1],q[2]; ctrl @ gphase(0.5) q[0]; gphase(0.125);"
    circuit = QuantumCircuit(3, global_phase=0.125)
    circuit.h([0, 1, 2])
    circuit.mcp(np.pi / 2, [0, 1], 2)
    circuit.x(0)
    circuit.cx(0, 1)
    circuit.x(0)
    circuit.tdg(2)
    circuit.global_phase += np.pi / 4
    circuit.rx(np.pi / 2, 0)
    circuit.tdg(1)
    circuit.rx(-0.5, 1)
    body = QuantumCircuit(1)
    body.rx(0.25, 0)
    body.t(0)
    circuit.append(body.to_gate().control(2, annotated=False), [0, 1, 2])
    circuit.p(0.5, 0)
    expected = Operator(circuit).data[:, 0]
    np.testing.assert_allclose(engine_judge.state(load(HEAD + text).program), expected, atol=1e-9)


CONDITIONS = {  # on c = 0b10, d = 0b101, e = 1
    "e": True,
    "!e": False,
    "c[0]": False,
    "c[1] == true": True,
    "c[1] == 1": True,
    "c[0] != 1": True,
    "c": True,
    "!c": False,
    "c == 2": True,
    "2 == c": True,
    "c != 2": False,
    "c == 6": False,
    'd == "101"': True,
    "d < 6": True,
    "d >= 6": False,
    "c[1] && !c[0] || e": True,
    "c[0] && (c[1] || e)": False,
    "(d & 4) == 4": True,
    "(d | 2) == 7": True,
    "(d ^ 7) == 2": True,
    "~d == 2": True,
    "(d << 1) == 2": True,
    "(d >> 1) == c": True,
    "d[0:1] == 1": True,
    "d[2:-1:1] == 1": True,
    "d[{2,1}] == 1": True,
    "bool(c) == e": True,
    "uint[1](d) == 1": True,
    "bit[2](d) == 1": True,
    "d[c]": True,
}


@pytest.mark.parametrize("condition", CONDITIONS)
def test_condition_has_expected_value(condition: str) -> None:
    text = "x q[0]; measure q[0] -> c[1]; measure q[0] -> d[0]; measure q[0] -> d[2];"
    text += f"e = measure q[0]; if ({condition}) {{ x q[1]; }} c[0] = measure q[1];"
    assert engine_judge.exact(HEAD + text) == {0b1_101_10 | CONDITIONS[condition]: 1.0}


def test_inputs_delays_and_physical_qubits_are_packed() -> None:
    text = "input float b; input angle[32] a; input float unused;\nrz(a) q[0]; rx(2*b + a) q[1];"
    loaded = load(HEAD + text)
    assert loaded.parameters == ("a", "b", "unused")
    assert sorted(loaded.bind({"a": 1.0, "b": 0.5, "unused": 9.0})[0].tolist()) == [0.0, 1.0, 2.0]
    text = "OPENQASM 3.1; U(0,0,0) $2; delay[100ns] $0; delay[3dt] $1; delay[1.5us] $0;"
    program = load(text).program
    assert (program.num_qubits, program.names) == (3, ("u", "delay", "delay_dt"))
    assert np.frombuffer(program.params)[3:].tolist() == [100.0, 3.0, 1500.0]


@settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(drawing.circuits(plain=True))
def test_circuit_dumped_by_qiskit_is_read_with_same_outcomes(circuit: QuantumCircuit) -> None:
    circuit = engine_judge.measured(circuit)
    try:
        text = qasm3.dumps(circuit)
    except Exception:  # noqa: BLE001  what Qiskit cannot write is not judged
        return
    try:
        program = load(text).program
    except SimenvError:
        return
    engine_judge.assert_same(program, circuit)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("for int i in [0:1000000000] { rz(i) q[0]; }", "more than 1000000 operations"),
        ("for int i in [0:10000] { rz(i) q[0]; }", "loops of more than 10000 passes"),
        ("for int i in [0:99] { for int j in [0:999] { rz(i + j) q[0]; } }", "10000 passes"),
        ("qubit[300] r; for int i in [0:5000] { rz(i) r; }", "more than 1000000 operations"),
        ("for int i in [-1:9223372036854775807] { x q[0]; }", r"more than 2\*\*62 passes"),
    ],
)
def test_loops_with_too_many_operations_or_iterations_are_refused(text: str, told: str) -> None:
    assert "line 6, column" in fails(LimitExceededError, told, load, HEAD + text).message


def test_long_loop_is_packed_as_loop() -> None:
    program = load(HEAD + "for int i in [1:1000000000000] { x q[0]; }").program
    assert program.names == ("for", "x", "end")


PROGRAMS = {path.stem: path for path in sorted((Path(__file__).parents[1] / "qasm3").iterdir())}


def promise(name: str, kind: str) -> str | None:
    """What the first line says after this word; None if it says something else."""
    first = PROGRAMS[name].read_text().split("\n", 1)[0]
    result = re.fullmatch(rf"// {kind}(?: at|:)? ?(.*)", first)
    return result.group(1) if result else None


def named(kind: str) -> list[str]:
    return [name for name in PROGRAMS if promise(name, kind) is not None]


def key(text: str) -> int:
    return int(text.replace(" ", ""), 2)


@pytest.mark.parametrize("name", named("runs"))
def test_construct_has_its_documented_outcomes(name: str) -> None:
    document = json.loads(promise(name, "runs") or "")
    expected = {key(text): pytest.approx(value) for text, value in document.items()}
    assert engine_judge.exact(PROGRAMS[name]) == expected
    assert engine_judge.exact(to_qiskit(load(PROGRAMS[name]).program)) == expected


@pytest.mark.parametrize("name", named("refused"))
def test_unsupported_construct_is_refused_by_name_with_line_and_column(name: str) -> None:
    line, column, value = (promise(name, "refused") or "").split(":", 2)
    refused = fails(ProgramError, "", load, PROGRAMS[name])
    assert value.strip() in refused.message
    assert (refused.line, refused.column) == (int(line), int(column))


@pytest.mark.parametrize("name", named("free"))
def test_input_is_a_parameter(name: str) -> None:
    assert load(PROGRAMS[name]).parameters == (promise(name, "free"),)


@pytest.mark.parametrize("name", named("endless"))
def test_endless_loop_ends_at_step_limit(name: str) -> None:
    circuit = engine_judge.received(load(PROGRAMS[name]).program)
    engine, terms = StatevectorEngine(), RunOptions(max_steps=100_000)
    with pytest.raises(TooManySteps):
        engine.run(engine.plan(circuit, None, terms), circuit, Request(9, 1), terms, RunControl())


def test_every_program_documents_its_outcome() -> None:
    kinds = ("runs", "refused", "free", "endless")
    assert sorted(name for kind in kinds for name in named(kind)) == sorted(PROGRAMS)


PHASE = cmath.exp(0.7j)


@pytest.mark.parametrize(
    ("statement", "phase"),
    [
        ("ctrl(2) @ gphase(0.7) q[0], q[1];", lambda k: PHASE if k & 3 == 3 else 1),
        ("negctrl(2) @ gphase(0.7) q[0], q[1];", lambda k: PHASE if k & 3 == 0 else 1),
        ("negctrl(3) @ gphase(0.7) q[0], q[1], q[2];", lambda k: PHASE if k == 0 else 1),
        ("negctrl @ ctrl(2) @ gphase(0.7) q[0], q[1], q[2];", lambda k: PHASE if k == 6 else 1),
        ("ctrl(2) @ negctrl @ gphase(0.7) q[0], q[1], q[2];", lambda k: PHASE if k == 3 else 1),
        ("ctrl @ gphase(0.7) q;", lambda k: PHASE ** k.bit_count()),
        ("inv @ gphase(0.7);", lambda _: 1 / PHASE),
        ("pow(-2) @ gphase(0.7);", lambda _: PHASE**-2),
        ("pow(0.5) @ gphase(4);", lambda _: -cmath.exp(2j)),  # the principal root
        ("ctrl @ pow(2) @ gphase(0.7) q[0];", lambda k: PHASE**2 if k & 1 else 1),
        ("pow(2) @ ctrl(2) @ gphase(0.7) q[0], q[1];", lambda k: PHASE**2 if k & 3 == 3 else 1),
        ("inv @ negctrl(2) @ pow(2) @ gphase(0.7) q[0], q[1];",
         lambda k: PHASE**-2 if k & 3 == 0 else 1),
        ("gate g(l) a, b { ctrl(2) @ gphase(l) a, b; }\ng(0.7) q[2], q[0];",
         lambda k: PHASE if k & 5 == 5 else 1),
        ("gate g(l) a { inv @ gphase(l); pow(2) @ gphase(l); }\nctrl(2) @ g(0.7) q[0], q[1], q[2];",
         lambda k: PHASE if k & 3 == 3 else 1),
    ],
)  # fmt: skip
def test_modified_phase_acts_as_its_diagonal_matrix(
    statement: str, phase: Callable[[int], complex]
) -> None:
    program = load(HEAD + statement).program
    matrix = np.diag([phase(k) for k in range(8)])
    assert np.allclose(Operator(to_qiskit(program)).data, matrix, atol=1e-12)


def test_phase_with_many_controls_is_one_operation_and_its_negations() -> None:
    program = load(
        f"qubit[40] q; negctrl(39) @ gphase(1) {', '.join(f'q[{k}]' for k in range(39))};"
    )
    assert len(program.program.ops) // 2 == 1 + 2 * 39


@pytest.mark.parametrize(
    "text",
    [
        'include "stdgates.inc";\nqubit q;\nbit c;\nx q;\nc = measure q;',
        "// one\n/* two */\ngate g a { U(pi, 0, pi) a; }\nqubit q; bit c; g q; c = measure q;",
        "const int n = 1;\nqubit[n] q;\nbit[n] c;\nU(pi, 0, pi) q; c = measure q;",
        "bit c;U(pi, 0, pi) $0; c = measure $0;",
        "qreg q[1];creg c[1];\nU(pi, 0, pi) q[0];\nbit d; d = measure q[0];",
    ],
)
def test_text_without_version_line_is_openqasm_3(text: str) -> None:
    assert load(text).packed == load(f"OPENQASM 3.0; {text}").packed


@pytest.mark.parametrize("text", ["", "x q[0];\n", 'include "qelib1.inc";\nqreg q[1];\nx q[0];'])
def test_text_of_neither_version_is_refused(text: str) -> None:
    assert "no version line" in fault(text + "\n").message


@pytest.mark.parametrize(
    ("pragma", "option"),
    [
        ("braket result state_vector", 'outputs=("statevector",)'),
        ("braket result expectation z(q[0])", "observables="),
        ("braket result probability q", 'outputs=("probabilities",)'),
        ('braket result amplitude "00"', "amplitudes="),
        ("braket result density_matrix", "no option replaces it"),
        ("braket noise depolarizing(0.1) q[0]", "noise="),
        ("braket verbatim", 'compile="never"'),
        ("other", "remove it"),
    ],
)
def test_pragma_is_refused_with_the_option_that_replaces_it(pragma: str, option: str) -> None:
    assert option in fault(HEAD + f"#pragma {pragma}\n").hint


def test_switches_exported_by_qiskit_are_read(env: Client) -> None:
    circuit = QuantumCircuit(3, 3)
    circuit.x(0)
    circuit.measure(0, 0)
    with circuit.switch(circuit.cregs[0]) as case:
        with case(0):
            circuit.x(2)
        with case(1, 2), circuit.switch(circuit.clbits[0]) as inner, inner(1):
            circuit.x(1)
        with case(case.DEFAULT):
            circuit.x([0, 1, 2])
    variable = circuit.add_var("v", expr.lift(5, types.Uint(7)))
    with circuit.switch(expr.bit_xor(variable, 1)) as case:
        with case(4):
            circuit.x(2)
        with case(case.DEFAULT):
            circuit.x(0)
    circuit.measure(range(3), range(3))
    text = qasm3.dumps(circuit)
    assert "int switch_dummy" in text
    assert env.run(text, shots=20).counts == env.run(circuit, shots=20).counts == {"111": 20}


@pytest.mark.parametrize("shift", [1, 2, 4, 5, 63, 64, 2**40, 2**70])
def test_shift_wider_than_its_register_gives_0(env: Client, shift: int) -> None:
    left, right = (1 << shift, 8 >> shift) if shift < 4 else (0, 0)
    text = f"""OPENQASM 3.0;
    include "stdgates.inc";
    qubit[4] q; bit[4] c; bit one;
    uint[4] a = 1; a <<= {shift};
    uint[4] b = 8; b = b >> {shift};
    uint[4] d = 1 << {shift};
    const int k = {shift}; uint[4] f = 1; f = f << (k + 1 - 1);
    if (a == {left}) x q[0];
    if (b == {right}) x q[1];
    if (d == {left} && f == {left}) x q[2];
    one = measure q[0];
    if ((one << {shift}) == 0) x q[3];
    c = measure q;"""
    assert env.run(text, shots=20).counts == {"1 1111": 20}


def test_constant_is_shifted_in_the_width_of_an_int(env: Client) -> None:
    """Qiskit writes a shifted constant without its width."""
    circuit = QuantumCircuit(1, 1)
    number = circuit.add_var("v", expr.lift(2, types.Uint(4)))
    circuit.store(number, expr.shift_left(expr.lift(1, types.Uint(4)), number))
    with circuit.if_test(expr.equal(number, 4)):
        circuit.x(0)
    circuit.measure(0, 0)
    text = qasm3.dumps(circuit)
    assert "1 << v" in text
    assert env.run(text, shots=20).counts == {"1": 20}
