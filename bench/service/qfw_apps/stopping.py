"""Application that registers and submits slow circuits, during which the drill stops it.

stopping.py COUNT
"""

import os
import sys

from drill_output import print_record
from qfw_qiskit import QFwBackend
from qiskit import QuantumCircuit

import simenv.frontends.qfw.client  # noqa: F401 - locks DEFw's sending

circuit = QuantumCircuit(18, 18)
for _ in range(4):
    circuit.h(range(18))
    circuit.rx(0.1, range(18))
    for qubit in range(17):
        circuit.cx(qubit, qubit + 1)
circuit.measure(range(18), range(18))
job = QFwBackend().run([circuit] * int(sys.argv[1]), shots=10)
print_record("submitted")
print_record("result", all=len(job.result().results))
os._exit(0)
