"""Error mitigation: an observable with and without the twirled readout correction of the client."""

import sys

from qiskit import QuantumCircuit
from qiskit.quantum_info import SparsePauliOp
from qiskit.transpiler import generate_preset_pass_manager
from qiskit_ibm_runtime import QiskitRuntimeService
from qiskit_ibm_runtime.executor_estimator import Estimator

BACKEND = sys.argv[1] if len(sys.argv) > 1 else "emu"
QUBITS = 5

backend = QiskitRuntimeService().backend(BACKEND)
circuit = QuantumCircuit(QUBITS)
circuit.h(0)
for qubit in range(QUBITS - 1):
    circuit.cx(qubit, qubit + 1)
compiled = generate_preset_pass_manager(optimization_level=2, backend=backend).run(circuit)
observable = SparsePauliOp("X" * QUBITS).apply_layout(compiled.layout)

estimator = Estimator(mode=backend)
estimator.options.default_shots = 1024
values = {}
for mitigated in (False, True):
    estimator.options.twirling.enable_gates = mitigated
    estimator.options.twirling.enable_measure = mitigated
    estimator.options.resilience.measure_mitigation = mitigated
    result = estimator.run([(compiled, observable)]).result()
    values[mitigated] = float(result[0].data.evs)
    print(f"mitigated {mitigated!s:5}  <{'X' * QUBITS}> = {values[mitigated]:+.3f}")
assert abs(values[True] - 1.0) < abs(values[False] - 1.0) + 0.05
print("ok: the ideal value is +1")
