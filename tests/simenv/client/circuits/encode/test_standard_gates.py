"""Standard gates that a text defines itself, as exporters of OpenQASM do."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest
from qiskit import QuantumCircuit, qasm2, qasm3
from qiskit.circuit.library import get_standard_gate_name_mapping
from qiskit.quantum_info import Operator

from simenv.client.circuits import load, to_qiskit

DEFINED = ("ecr", "iswap", "rzz", "ryy", "rzx", "r", "cs", "xx_plus_yy", "rccx", "ccz")
READERS = {qasm2: QuantumCircuit.from_qasm_str, qasm3: qasm3.loads}
HEADER = 'OPENQASM 2.0; include "qelib1.inc"; qreg q[2]; creg c[2];\n'


@pytest.mark.parametrize("name", DEFINED)
@pytest.mark.parametrize("module", [qasm2, qasm3])
def test_a_gate_that_an_exporter_defines_keeps_its_name(name: str, module: ModuleType) -> None:
    gate = get_standard_gate_name_mapping()[name]
    size = gate.num_qubits
    circuit = QuantumCircuit(size)
    for angle in (0.3, 0.7):
        values = [angle + 0.1 * k for k in range(len(gate.params))]
        circuit.append(type(gate)(*values), range(size))
    text = module.dumps(circuit)
    loaded = load(text)
    assert set(loaded.program.names) <= {name, "global_phase"}
    np.testing.assert_allclose(
        Operator(to_qiskit(loaded.program)).data, Operator(READERS[module](text)).data, atol=1e-12
    )


@pytest.mark.parametrize(
    "definition",
    [
        "gate ecr a,b { cx a,b; }",  # another matrix
        "gate ecr a { x a; }",  # another number of qubits
        "gate ecr(t) a,b { rz(t) a; s a; sx b; cx a,b; x a; }",  # another number of parameters
        "gate ecr a,b { " + "x a; " * 64 + "s a; sx b; cx a,b; x a; }",  # too long to be compared
    ],
)
def test_another_gate_of_a_standard_name_is_expanded(definition: str) -> None:
    head = definition.partition("{")[0]
    use = "ecr(0.1)" if "(" in head else "ecr"
    operands = "q[0],q[1]" if "," in head.partition(")")[2] or ",b" in head else "q[0]"
    loaded = load(f"{HEADER}{definition}\n{use} {operands};\nmeasure q -> c;")
    assert "ecr" not in loaded.program.names


def test_the_matrix_is_compared_for_each_set_of_parameters() -> None:
    """This definition is `rzz` at 0 alone."""
    text = "gate rzz(t) a,b { cx a,b; rz(2*t) b; cx a,b; }"
    loaded = load(f"{HEADER}{text}\nrzz(0) q[0],q[1]; rzz(0.5) q[0],q[1];")
    assert loaded.program.names == ("rzz", "cx", "rz")


def test_a_definition_in_the_text_is_never_overruled() -> None:
    """Qiskit's parser takes the names of its legacy gates for them, whatever their definitions."""
    texts = {"gate h a { U(pi,0,pi) a; }": "h", "gate sxdg a { U(pi,0,pi) a; }": "sxdg"}
    for definition, name in texts.items():
        loaded = load(f"OPENQASM 2.0; // gate sx\nqreg q[1]; {definition}\n{name} q[0]; sx q[0];")
        assert loaded.program.names == ("u", "sx")


def test_an_inner_gate_of_a_definition_keeps_its_name() -> None:
    text = "gate ecr a,b { s a; sx b; cx a,b; x a; }\ngate twice a,b { ecr a,b; ecr b,a; }"
    loaded = load(f"{HEADER}{text}\ntwice q[0],q[1];")
    assert set(loaded.program.names) == {"ecr", "global_phase"}


@pytest.mark.parametrize("modifiers", ["", "inv @ ", "pow(3) @ "])
def test_identity_of_openqasm_3_is_the_gate_of_that_name(modifiers: str) -> None:
    text = f'OPENQASM 3.0; include "stdgates.inc"; qubit[2] q; {modifiers}id q[1]; sx q[0];'
    assert load(text).program.names == ("id", "sx")
