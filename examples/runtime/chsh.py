"""CHSH inequality: entangled qubits of the machine exceed the classical bound of 2."""

import sys
import warnings

import numpy as np
from qiskit import QuantumCircuit
from qiskit.circuit import Parameter
from qiskit.quantum_info import SparsePauliOp
from qiskit.transpiler import generate_preset_pass_manager
from qiskit_ibm_runtime import EstimatorV2, QiskitRuntimeService

warnings.simplefilter("ignore", DeprecationWarning)
BACKEND = sys.argv[1] if len(sys.argv) > 1 else "emu"
CLASSICAL = 2.0

service = QiskitRuntimeService()
backend = service.backend(BACKEND)

theta = Parameter("theta")
circuit = QuantumCircuit(2)
circuit.h(0)
circuit.cx(0, 1)
circuit.ry(theta, 0)
angles = np.linspace(0, 2 * np.pi, 9)

compiled = generate_preset_pass_manager(optimization_level=1, backend=backend).run(circuit)
signs = ([1, -1, 1, 1], [1, 1, -1, 1])
witnesses = [
    SparsePauliOp(["ZZ", "ZX", "XZ", "XX"], row).apply_layout(compiled.layout) for row in signs
]
pub = (compiled, [[each] for each in witnesses], [[angle] for angle in angles])
values = EstimatorV2(mode=backend).run([pub]).result()[0].data.evs

for angle, row in zip(angles, values.T, strict=True):
    print(f"{angle:5.2f}  {row[0]:+.3f}  {row[1]:+.3f}")
best = float(np.abs(values).max())
assert CLASSICAL < best < 2.9, best
print(f"ok: {best:.3f} exceeds {CLASSICAL}")
