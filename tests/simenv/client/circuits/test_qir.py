"""QIR of the base profile: programs with its gates, and refusals of everything else by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from qiskit import QuantumCircuit
from qiskit.quantum_info import Operator

from simenv.client.circuits import load
from simenv.client.circuits.decode.to_qiskit import to_qiskit
from simenv.errors import ProgramError

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
    "call of __quantum__qis__odd": (
        [call("qis__odd__body", ZERO)],
        "calls __quantum__qis__odd",
    ),
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
    with pytest.raises(ProgramError, match=value):
        load(assembly(*lines))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("define void @__quantum__ {", "cannot be read"),
        (assembly().replace('"entry_point" ', ""), "0 entry points"),
        (assembly().replace('"required_num_qubits"="2"', ""), "requires 0 qubits"),
    ],
)
def test_module_that_is_not_a_program_is_refused(text: str, words: str) -> None:
    with pytest.raises(ProgramError, match=words):
        load(text.replace("@main", "@__quantum__main"))


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
    with pytest.raises(ProgramError, match="QIR") as refused:
        load(WRONG[case] if form == "text" else file)
    assert "OPENQASM" not in str(refused.value)


def test_wrong_text_of_openqasm_is_refused_as_openqasm() -> None:
    for text in ("OPENQASM 2.0;\ndeclare void @x;\n", "qreg q[1];\nh q[0];\n"):
        with pytest.raises(ProgramError) as refused:
            load(text)
        assert "QIR" not in str(refused.value)


def test_damaged_bitcode_is_refused(tmp_path: Path) -> None:
    module, _ = bell()
    file = tmp_path / "a.bc"
    file.write_bytes(module.bitcode()[:200])
    with pytest.raises(ProgramError, match="cannot be read"):
        load(file)
