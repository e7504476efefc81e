"""Variational algorithms: a circuit with free parameters, and the energy that it approaches."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from qiskit import QuantumCircuit
from qiskit.circuit import ParameterVector
from qiskit.quantum_info import SparsePauliOp


@dataclass(frozen=True, slots=True)
class VariationalAlgorithm:
    """A circuit with free parameters, without measurements, whose energy is to be minimised.

    `ground_energy`: the lowest eigenvalue of the Hamiltonian; no parameters give less.
    """

    circuit: QuantumCircuit
    hamiltonian: SparsePauliOp
    ground_energy: float
    reference: str


def transverse_ising(num_spins: int, field: float = 1.0) -> SparsePauliOp:
    """Return the Ising chain in a transverse field, open: -sum Z_k Z_k+1 - field sum X_k."""
    bonds = [("ZZ", [k, k + 1], -1.0) for k in range(num_spins - 1)]
    fields = [("X", [k], -field) for k in range(num_spins)]
    return SparsePauliOp.from_sparse_list([*bonds, *fields], num_qubits=num_spins)


def ising_ground_state(num_spins: int = 4, field: float = 1.0) -> VariationalAlgorithm:
    """Ground state of `transverse_ising`: |+...+> rotated by the terms of the Hamiltonian, each
    with its own angle.

    3 num_spins angles: of the bonds, the fields, the bonds, and the fields of the two ends. Free
    fermions give the energy: minus the sum of the singular values of the matrix with `field` on
    the diagonal and 1 beside it (Pfeuty, Ann. Phys. 57, 79 (1970)).
    """
    angles = iter(ParameterVector("angle", 3 * num_spins))
    circuit = QuantumCircuit(num_spins, name=f"ising-vqe-{num_spins}")
    circuit.h(range(num_spins))
    for turned in (range(num_spins), (0, num_spins - 1)):
        for k in range(num_spins - 1):
            circuit.rzz(next(angles), k, k + 1)
        for k in turned:
            circuit.rx(next(angles), k)
    modes = np.diag(np.full(num_spins, field)) + np.diag(np.ones(num_spins - 1), 1)
    energy = -float(np.linalg.svd(modes, compute_uv=False).sum())
    reference = "Wecker, Hastings, Troyer, arXiv:1507.08969"
    return VariationalAlgorithm(circuit, transverse_ising(num_spins, field), energy, reference)
