"""Programs as other tools write them: run with their own meaning, or refused with the way out."""

import json
from pathlib import Path
from typing import Any

import pytest
from failing import fails
from qiskit import QuantumCircuit, transpile
from shell import Shell

from simenv.client.client import Client
from simenv.errors import InfeasibleError, ProgramError

HEAD = 'OPENQASM 3.0;\ninclude "stdgates.inc";\nqubit[2] q; bit[2] c;\n'
CONTROLLED = {
    "ctrl(2) @ gphase(pi) q[0], q[1];": ("x q[0]; h q[1];", "11"),
    "negctrl(2) @ gphase(pi) q[0], q[1];": ("h q[1];", "10"),
    "g(pi) q[0], q[1];": ("gate g(l) a, b { ctrl(2) @ gphase(l) a, b; } x q[0]; h q[1];", "11"),
}
WITHOUT_VERSION = 'include "stdgates.inc";\nqubit q;\nbit c;\nx q;\nc = measure q;\n'
ADAPTIVE = """
define void @main() #0 {
entry:
  call void @__quantum__qis__mz__body(ptr null, ptr null)
  %r = call i1 @__quantum__qis__read_result__body(ptr null)
  br i1 %r, label %then, label %cont
then:
  call void @__quantum__qis__x__body(ptr null)
  br label %cont
cont:
  ret void
}
declare i1 @__quantum__qis__read_result__body(ptr)
declare void @__quantum__qis__x__body(ptr)
declare void @__quantum__qis__mz__body(ptr, ptr)
attributes #0 = { "entry_point" "qir_profiles"="adaptive_profile" "required_num_qubits"="1"
  "required_num_results"="1" }
"""


@pytest.mark.parametrize("statement", CONTROLLED)
def test_controls_of_a_phase_act_as_a_controlled_z(env: Client, statement: str) -> None:
    before, outcome = CONTROLLED[statement]
    text = f"{HEAD}{before} {statement} h q[1]; c = measure q;"
    assert env.run(text, shots=100).counts == {outcome: 100}


def test_file_of_openqasm_3_needs_no_version(env: Client, shell: Shell, tmp_path: Path) -> None:
    path = tmp_path / "x.qasm"
    path.write_text(WITHOUT_VERSION)
    assert env.run(path, shots=100).counts == {"1": 100}
    result = shell("submit", str(path), "--shots", "100", "--wait", "--json")
    assert json.loads(result.out.splitlines()[-1])["counts"] == {"1": 100}


def test_outputs_in_the_circuit_are_refused_with_their_options(env: Client) -> None:
    import qiskit_aer  # noqa: F401  it adds the methods

    for name, option in (
        ("save_statevector", 'outputs=("statevector",)'),
        ("save_probabilities", 'outputs=("probabilities",)'),
        ("save_density_matrix", "no option replaces it"),
    ):
        circuit = QuantumCircuit(1)
        circuit.h(0)
        getattr(circuit, name)()
        given: dict[str, Any] = {"shots": None, "outputs": ("statevector",)}
        assert option in fails(ProgramError, name, env.run, circuit, **given).hint


def test_adaptive_profile_of_qir_is_refused_by_its_name(env: Client) -> None:
    pytest.importorskip("pyqir", reason="the extra qir is not installed")
    refused = fails(ProgramError, "profile 'adaptive_profile' is not carried", env.run, ADAPTIVE)
    assert "OpenQASM 3" in refused.hint


def test_measurement_of_its_own_name_has_its_error_and_duration(env: Client) -> None:
    from qiskit_ibm_runtime.circuit import MidCircuitMeasure

    from simenv.frontends.qiskit import SimenvBackend

    circuit = QuantumCircuit(2, 3)
    circuit.x(0)
    circuit.append(MidCircuitMeasure(), [0], [0])
    circuit.sx(0)
    circuit.sx(0)
    circuit.append(MidCircuitMeasure(), [0], [1])
    circuit.measure(0, 2)
    for device in (None, "kingston"):
        noise = "off" if device else "auto"
        assert env.run(circuit, device=device, noise=noise, shots=100).counts == {"001": 100}
    backend = SimenvBackend("kingston", env)
    listed = backend.target["measure_2"][(0,)]
    assert (listed.error, listed.duration) == pytest.approx((0.018798828125, 1.76e-6))
    compiled = transpile(circuit, backend, optimization_level=1, initial_layout=[0, 1])
    assert compiled.count_ops()["measure_2"] == 2
    single = QuantumCircuit(1, 1)
    single.append(MidCircuitMeasure(), [0], [0])
    terms: dict[str, Any] = {"device": "kingston", "compile": "never", "shots": 50_000, "seed": 3}
    assert env.run(single, **terms).counts["1"] == pytest.approx(940, abs=5 * 31)
    refused = fails(InfeasibleError, "no measurement of this name", env.run, circuit, device="fez")
    assert refused.hint == "write measure in its place"
