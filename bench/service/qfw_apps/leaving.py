"""Application that registers, submits one circuit, and exits on its event (QFw's own backend)."""

import os
import time

from drill_output import print_record
from qfw_qiskit import QFwBackend
from qiskit import QuantumCircuit

import simenv.frontends.qfw.client  # noqa: F401 - locks DEFw's sending

circuit = QuantumCircuit(4)
circuit.h(0)
for qubit in range(3):
    circuit.cx(qubit, qubit + 1)
circuit.measure_all()
backend = QFwBackend()
begin = time.monotonic()
counts = backend.run(circuit, shots=1024).result().get_counts()
print_record("result", seconds=time.monotonic() - begin, counts=counts)
os._exit(0)
