"""Variational ground state of a transverse-field Ising chain, with all jobs in one session."""

import sys
import warnings

import numpy as np
from qiskit.circuit.library import efficient_su2
from qiskit.quantum_info import SparsePauliOp
from qiskit.transpiler import generate_preset_pass_manager
from qiskit_ibm_runtime import EstimatorV2, QiskitRuntimeService, Session
from scipy.optimize import minimize

warnings.simplefilter("ignore", DeprecationWarning)
BACKEND = sys.argv[1] if len(sys.argv) > 1 else "emu"
QUBITS, FIELD, EVALUATIONS = 3, 0.6, 40

terms = [("ZZ", [k, k + 1], -1.0) for k in range(QUBITS - 1)]
terms += [("X", [k], -FIELD) for k in range(QUBITS)]
energy = SparsePauliOp.from_sparse_list(terms, QUBITS)
exact = float(np.linalg.eigvalsh(energy.to_matrix())[0])

backend = QiskitRuntimeService().backend(BACKEND)
ansatz = efficient_su2(QUBITS, ["ry"], reps=1)
compiled = generate_preset_pass_manager(optimization_level=3, backend=backend).run(ansatz)
placed = energy.apply_layout(compiled.layout)

with Session(backend=backend, max_time="10m") as session:
    estimator = EstimatorV2(mode=session)
    estimator.options.default_precision = 0.03

    def cost(angles):
        job = estimator.run([(compiled, placed, angles)])
        return float(job.result()[0].data.evs)

    start = np.full(ansatz.num_parameters, 0.3)
    options = {"maxiter": EVALUATIONS, "rhobeg": 0.5}
    found = minimize(cost, start, method="COBYLA", options=options)

print(f"energy {found.fun:.3f} after {found.nfev} jobs; exact {exact:.3f}")
assert found.fun < 0.75 * exact, found.fun
print("ok: a good part of the ground state's energy was found")
