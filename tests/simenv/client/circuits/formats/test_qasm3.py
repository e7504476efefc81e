"""Each construct of OpenQASM 3 runs as it says, or is refused with its place."""

import json
import re
import sys
from pathlib import Path

import drawing
import engine_judge
import numpy as np
import pytest
from failing import fails
from hypothesis import HealthCheck, given, settings
from qiskit import QuantumCircuit, qasm3
from qiskit.quantum_info import Operator

from simenv.client.circuits import load, to_qiskit
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
        ("#pragma anything\n", (6, 1), "'pragma'"),
        ("if (c + 1) { x q[0]; } else { if (q) { x q[1]; } }", (6, 35), "'qubit[3]'"),
        ("if (1 == 1) { x q[0]; }", (6, 5), "two constants"),
        ("if (c == -1) { x q[0]; }", (6, 10), "'-' is not carried"),
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
