"""QIR, and observables."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from failing import fails
from qiskit import QuantumCircuit
from qiskit.circuit import Parameter
from qiskit.quantum_info import Operator, Pauli, SparsePauliOp

from simenv.client.circuits import load, load_observables
from simenv.client.circuits.decoder import to_qiskit
from simenv.errors import OptionError, ProgramError

pyqir: Any = pytest.importorskip("pyqir", reason="the extra qir is not installed")

TEXT = """
define void @main() #0 {
entry:
  BODY
}
declare void @__quantum__qis__h__body(ptr)
declare void @__quantum__qis__rx__body(double, ptr)
declare void @__quantum__qis__odd__body(ptr)
declare void @__quantum__qis__cnot__body(ptr, ptr)
declare i1 @__quantum__rt__read_result(ptr)
declare ptr @__quantum__rt__qubit_allocate()
attributes #0 = { "entry_point" "required_num_qubits"="2" "required_num_results"="2" }
"""
ZERO = "ptr null"


def assembly(*lines: str) -> str:
    return TEXT.replace("BODY", "\n  ".join([*lines, "ret void"]))


def call(name: str, *arguments: str, kind: str = "void") -> str:
    return f"call {kind} @__quantum__{name}({', '.join(arguments)})"


def bell() -> Any:
    module = pyqir.SimpleModule("bell", 3, 2)
    gates = pyqir.BasicQisBuilder(module.builder)
    first, second, third = module.qubits
    gates.h(first)
    gates.cx(first, second)
    gates.rz(0.25, second)
    gates.s_adj(first)
    gates.t_adj(second)
    gates.cz(second, third)
    gates.rx(-1.5e-7, third)
    return module, gates


def expected() -> QuantumCircuit:
    circuit = QuantumCircuit(3)
    circuit.h(0)
    circuit.cx(0, 1)
    circuit.rz(0.25, 1)
    circuit.sdg(0)
    circuit.tdg(1)
    circuit.cz(1, 2)
    circuit.rx(-1.5e-7, 2)
    return circuit


@pytest.mark.parametrize("form", ["module", "text", "assembly file", "bitcode file"])
def test_program_has_the_gates_of_the_module(form: str, tmp_path: Path) -> None:
    module, _ = bell()
    (tmp_path / "a.ll").write_text(module.ir())
    (tmp_path / "a.bc").write_bytes(module.bitcode())
    item: Any = {
        "module": pyqir.Module.from_ir(pyqir.Context(), module.ir()),
        "text": module.ir(),
        "assembly file": tmp_path / "a.ll",
        "bitcode file": tmp_path / "a.bc",
    }[form]
    result = to_qiskit(load(item).program)
    result = QuantumCircuit.from_instructions(result.data, qubits=result.qubits)
    assert Operator(result).equiv(Operator(expected()))


def test_results_are_clbits_of_one_register() -> None:
    module, gates = bell()
    gates.mz(module.qubits[2], module.results[0])
    gates.mz(module.qubits[0], module.results[1])
    program = load(module.ir()).program
    assert program.registers == (("result", 2),)
    circuit = to_qiskit(program)
    measured = [
        (circuit.find_bit(each.qubits[0]).index, circuit.find_bit(each.clbits[0]).index)
        for each in circuit.data
        if each.operation.name == "measure"
    ]
    assert measured == [(2, 0), (0, 1)]


REFUSED = {
    "call of __quantum__qis__odd": ([call("qis__odd__body", ZERO)], "calls __quantum__qis__odd"),
    "allocation": (["%q = " + call("rt__qubit_allocate", kind="ptr")], "qubit_allocate"),
    "result read": (["%r = " + call("rt__read_result", ZERO, kind="i1")], "read_result"),
    "qubit beyond": ([call("qis__h__body", "ptr inttoptr (i64 7 to ptr)")], "number 7 of 2"),
    "computed angle": (
        ["%a = fadd double 1.0, 2.0", call("qis__rx__body", "double %a", ZERO)],
        "instruction fadd",
    ),
    "branch": (
        ["%a = icmp eq i64 1, 2", "br i1 %a, label %x, label %x\nx:"],
        "instruction icmp|branches",
    ),
    "loop": (["br label %x\nx:", "br label %x\ny:"], "loop"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_module_outside_the_base_profile_is_refused_by_name(case: str) -> None:
    lines, value = REFUSED[case]
    fails(ProgramError, value, load, assembly(*lines))


@pytest.mark.parametrize(
    "line", ["%r = " + call("rt__read_result", ZERO, kind="i1"), "%a = icmp eq i64 1, 2"]
)
def test_refusal_names_the_profile_that_the_module_states(line: str) -> None:
    stated = assembly(line).replace(
        '"entry_point"', '"entry_point" "qir_profiles"="adaptive_profile"'
    )
    refused = fails(ProgramError, "QIR of the profile 'adaptive_profile' is not", load, stated)
    assert "OpenQASM 3" in refused.hint
    assert "gates that are known" not in refused.hint
    plain = fails(
        ProgramError, "the QIR (reads a result|has the instruction)", load, assembly(line)
    )
    assert "base profile" in plain.hint


def test_module_of_the_adaptive_profile_without_branches_is_read() -> None:
    text = assembly(call("qis__h__body", ZERO))
    stated = text.replace('"entry_point"', '"entry_point" "qir_profiles"="adaptive_profile"')
    assert load(stated).packed == load(text).packed


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("define void @__quantum__ {", "cannot be read"),
        (assembly().replace('"entry_point" ', ""), "0 entry points"),
        (assembly().replace('"required_num_qubits"="2"', ""), "requires 0 qubits"),
    ],
)
def test_module_that_is_not_a_program_is_refused(text: str, words: str) -> None:
    fails(ProgramError, words, load, text.replace("@main", "@__quantum__main"))


WRONG = {
    "no define": assembly(call("qis__h__body", ZERO)).replace("define void", "void"),
    "no call of QIR": "define void @main() #0 {\n  ret void\n}\nattributes #0 = {}\n",
    "a head alone": "; ModuleID = 'bell'\nsource_filename = \"bell\"\nthis is no QIR\n",
    "a type alone": "%Qubit = type opaque\n%Result = type opaque\nnonsense\n",
}


@pytest.mark.parametrize("form", ["text", "file"])
@pytest.mark.parametrize("case", WRONG)
def test_wrong_text_of_qir_is_refused_as_qir(case: str, form: str, tmp_path: Path) -> None:
    file = tmp_path / "a.ll"
    file.write_text(WRONG[case])
    refused = fails(ProgramError, "QIR", load, WRONG[case] if form == "text" else file)
    assert "OPENQASM" not in str(refused)


def test_wrong_text_of_openqasm_is_refused_as_openqasm() -> None:
    for text in ("OPENQASM 2.0;\ndeclare void @x;\n", "qreg q[1];\nh q[0];\n"):
        assert "QIR" not in str(fails(ProgramError, "", load, text))


def test_damaged_bitcode_is_refused(tmp_path: Path) -> None:
    module, _ = bell()
    file = tmp_path / "a.bc"
    file.write_bytes(module.bitcode()[:200])
    fails(ProgramError, "cannot be read", load, file)


def sums(value: Any, num_qubits: int = 3) -> list[dict[str, float]]:
    return [
        dict(zip(each.labels, np.frombuffer(each.coefficients), strict=True))
        for each in load_observables(value, num_qubits)
    ]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("ZZI", [{"ZZI": 1.0}]),
        ("ZZI:0.5", [{"ZZI": 0.5}]),
        (" ZZI : -5e-1 , XXI:0.25,IIY", [{"ZZI": -0.5, "XXI": 0.25, "IIY": 1.0}]),
        ({"ZZI": 0.5, "XXI": np.float32(0.25)}, [{"ZZI": 0.5, "XXI": 0.25}]),
        (Pauli("XYZ"), [{"XYZ": 1.0}]),
        (Pauli("-XYI"), [{"XYI": -1.0}]),
        (SparsePauliOp(["ZZI", "XXI"], [0.5, -0.25]), [{"ZZI": 0.5, "XXI": -0.25}]),
        (["ZZI:0.5", Pauli("XXY"), {"IIZ": 2}], [{"ZZI": 0.5}, {"XXY": 1.0}, {"IIZ": 2.0}]),
        (("ZZI", "XXI"), [{"ZZI": 1.0}, {"XXI": 1.0}]),
    ],
)
def test_observable_is_parsed_to_pauli_terms(value: Any, expected: list[dict[str, float]]) -> None:
    assert sums(value) == expected


def test_rounding_error_in_imaginary_part_is_ignored() -> None:
    assert sums(SparsePauliOp(["ZZI"], [0.5 + 1e-17j])) == [{"ZZI": 0.5}]


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("ZZ", "has 2 qubits, the circuit 3"),
        ("ZZZZ:1", "has 4 qubits"),
        ("zzi", "not made of I, X, Y and Z"),
        ("ZZI:", "no real number"),
        ("ZZI:half", "no real number"),
        ("ZZI:1j", "no real number"),
        ("ZZI:nan", "not a finite real number"),
        ("", "not made of"),
        ("ZZI,,XXI", "not made of"),
        ({"ZZI": 1j}, "not a finite real number"),
        ({"ZZI": float("inf")}, "not a finite real number"),
        ({"ZZI": None}, "is no number"),
        ({"ZZI": 10**400}, "is no number"),
        ({5: 1.0}, "not made of"),
        ({}, "without terms"),
        ([], "empty list"),
        ([["ZZI"]], "a list is no observable"),
        (None, "a NoneType is no observable"),
        (Pauli("iXYZ"), "not a finite real number"),
        (SparsePauliOp(["ZZI"], [1j]), "not a finite real number"),
        (SparsePauliOp(["ZZI"], np.array([Parameter("a")])), "is no number"),
        (SparsePauliOp(["ZZ"]), "has 2 qubits"),
    ],
)
def test_invalid_observable_is_refused(value: Any, told: str) -> None:
    assert told in fails(OptionError, "", load_observables, value, 3).message
