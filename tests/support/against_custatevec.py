"""States of the engine gpu and of cuStateVec, for the same gates on the same device."""

import ctypes

import engine_runs
import numpy as np
from numpy.typing import NDArray
from qiskit import QuantumCircuit

from bench.circuits import wide_circuit
from bench.peers import custatevec
from bench.peers.custatevec import fused, gate_by_gate
from simenv.client.circuits import load
from simenv.model import decode_program
from simulators.circuit.ir import Circuit
from simulators.engine import Request
from simulators.gpu.devices.device import Device
from simulators.gpu.engine import GpuEngine


def largest_difference(
    device: Device, kind: str, n: int, width: int, library: ctypes.CDLL | None = None
) -> float:
    """Of two amplitudes, in double precision. `width`: of the matrices of cuStateVec, 0: gate by
    gate; `library`: None: the one that is installed. Raises NotInstalled."""
    gates = wide_circuit(kind, n, 7)
    peer = custatevec.CuStateVec(device, "double", library)
    state = custatevec.zero_state(device, n, "double")
    peer.prepared(n, fused(gates, width) if width else gate_by_gate(gates))(state)
    expected = device.download(state)
    peer.close()
    circuit = QuantumCircuit(n)
    for name, qubits, angles in gates:
        getattr(circuit, name)(*angles, *qubits)
    return float(np.abs(_statevector(device, circuit) - expected).max())


def _statevector(device: Device, circuit: QuantumCircuit) -> NDArray[np.complex128]:
    program = Circuit.from_program(decode_program(load(circuit).packed))
    result = engine_runs.run(GpuEngine(device), program, Request(0, 1, ("statevector",)))
    assert result.statevector is not None
    return np.asarray(result.statevector).ravel()
