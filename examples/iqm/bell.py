"""Bell pair on an IQM machine, by iqm-client: python examples/iqm/bell.py QUANTUM_COMPUTER"""

import os
import sys

from iqm.qiskit_iqm import IQMProvider
from qiskit import QuantumCircuit, transpile

provider = IQMProvider(os.environ["IQM_SERVER_URL"], quantum_computer=sys.argv[1])
backend = provider.get_backend()
circuit = QuantumCircuit(2)
circuit.h(0)
circuit.cx(0, 1)
circuit.measure_all()
job = backend.run(transpile(circuit, backend), shots=1_000)
counts = job.result().get_counts()
assert counts["00"] + counts["11"] > 850, counts
print("ok", counts)
