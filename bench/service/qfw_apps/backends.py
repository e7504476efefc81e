"""Two or more backends in one application: each circuit's counts identify its backend.

backends.py COUNT BITS [BITS ...]
"""

import os
import sys
import threading

from drill_output import print_record
from qfw_qiskit import QFwBackend
from qiskit import QuantumCircuit

import simenv.frontends.qfw.client  # noqa: F401 - locks DEFw's sending


def work(backend: QFwBackend, bits: str, count: int) -> None:
    circuit = QuantumCircuit(len(bits), len(bits))
    for qubit, bit in enumerate(reversed(bits)):
        if bit == "1":
            circuit.x(qubit)
    circuit.measure(range(len(bits)), range(len(bits)))
    try:
        result = backend.run([circuit] * count, shots=10).result()
        own = sum(result.get_counts(k) == {bits: 10} for k in range(len(result.results)))
        print_record("own", bits=bits, own=own, all=len(result.results))
    except Exception as error:  # noqa: BLE001 - the drill counts the results it gets
        print_record("failed", bits=bits, why=f"{type(error).__name__}: {error}")


backends = [(QFwBackend(), bits) for bits in sys.argv[2:]]
threads = [
    threading.Thread(target=work, args=(backend, bits, int(sys.argv[1])))
    for backend, bits in backends
]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
os._exit(0)
