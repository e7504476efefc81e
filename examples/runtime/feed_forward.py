"""Dynamic circuit: a state is teleported by measurement and conditional gates."""

import sys
import warnings

from qiskit import ClassicalRegister, QuantumCircuit, QuantumRegister
from qiskit.transpiler import generate_preset_pass_manager
from qiskit_ibm_runtime import QiskitRuntimeService, SamplerV2

warnings.simplefilter("ignore", DeprecationWarning)
BACKEND = sys.argv[1] if len(sys.argv) > 1 else "emu"
SHOTS, ANGLE = 2000, 1.0  # of the teleported state: 1 with probability sin^2(ANGLE / 2) = 0.23

qubits = QuantumRegister(3, "q")
sent, received = ClassicalRegister(2, "sent"), ClassicalRegister(1, "received")
circuit = QuantumCircuit(qubits, sent, received)
circuit.ry(ANGLE, 0)
circuit.h(1)
circuit.cx(1, 2)
circuit.cx(0, 1)
circuit.h(0)
circuit.measure([0, 1], sent)
with circuit.if_test((sent[1], 1)):
    circuit.x(2)
with circuit.if_test((sent[0], 1)):
    circuit.z(2)
circuit.measure(2, received)

service = QiskitRuntimeService()
backend = service.backend(BACKEND)
compiled = generate_preset_pass_manager(optimization_level=1, backend=backend).run(circuit)
job = SamplerV2(mode=backend).run([compiled], shots=SHOTS)
data = job.result()[0].data
ones = data.received.get_int_counts().get(1, 0) / SHOTS
print(f"job {job.job_id()}: P(1) = {ones:.3f}, sent bits {dict(data.sent.get_counts())}")
assert 0.15 < ones < 0.35
print("ok: the state has arrived")
