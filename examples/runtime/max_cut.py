"""Maximum cut of a graph by QAOA: a grid of angles in one job, then samples of the best ones."""

import sys
import warnings

import numpy as np
from qiskit.circuit.library import qaoa_ansatz
from qiskit.quantum_info import SparsePauliOp
from qiskit.transpiler import generate_preset_pass_manager
from qiskit_ibm_runtime import Batch, EstimatorV2, QiskitRuntimeService, SamplerV2

warnings.simplefilter("ignore", DeprecationWarning)
BACKEND = sys.argv[1] if len(sys.argv) > 1 else "emu"
EDGES = [(0, 1), (1, 2), (2, 3), (3, 0), (0, 2)]
NODES, GRID, SHOTS = 4, 6, 1000

cost = SparsePauliOp.from_sparse_list([("ZZ", list(edge), 0.5) for edge in EDGES], NODES)
backend = QiskitRuntimeService().backend(BACKEND)
compiler = generate_preset_pass_manager(optimization_level=3, backend=backend, seed_transpiler=1)
ansatz = compiler.run(qaoa_ansatz(cost, reps=1))
placed = cost.apply_layout(ansatz.layout)

axis = np.linspace(0.2, 1.4, GRID)
points = np.array([[first, second] for first in axis for second in axis])
with Batch(backend=backend):
    values = EstimatorV2().run([(ansatz, placed, points)]).result()[0].data.evs
    best = points[int(np.argmin(values))]
    circuit = compiler.run(qaoa_ansatz(cost, reps=1).measure_all(inplace=False))
    sampler = SamplerV2(options={"default_shots": SHOTS})
    counts = sampler.run([(circuit, best)]).result()[0].data.meas.get_counts()


def cut(outcome):
    bits = outcome[::-1]
    return sum(bits[a] != bits[b] for a, b in EDGES)


mean = sum(cut(outcome) * number for outcome, number in counts.items()) / SHOTS
largest = max(map(cut, counts))
print(f"angles {best.round(2)}, mean cut {mean:.2f} of {len(EDGES)} edges, largest {largest}")
assert largest == 4
assert mean > len(EDGES) / 2
print("ok: the samples are better than random ones")
