"""Application that connects, reports it, and runs circuits one by one once its file `go` exists."""

import os
import time
from pathlib import Path

from drill_output import print_record
from qfw_qiskit import QFwBackend
from qiskit import QuantumCircuit

import simenv.frontends.qfw.client  # noqa: F401 - locks DEFw's sending

circuit = QuantumCircuit(2)
circuit.h(0)
circuit.cx(0, 1)
circuit.measure_all()
backend = QFwBackend()
print_record("connected")
while not Path("go").exists():
    time.sleep(0.05)
for _ in range(10):
    begin = time.monotonic()
    backend.run(circuit, shots=100).result()
    print_record("result", seconds=time.monotonic() - begin)
os._exit(0)
