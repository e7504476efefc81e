"""Packages of Qiskit's community over the primitives, where they are installed."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from qiskit import QuantumCircuit
from qiskit.circuit.library import n_local, zz_feature_map
from qiskit.quantum_info import SparsePauliOp

import simenv
from simenv.frontends.qiskit import SimenvBackend, SimenvEstimator, SimenvSampler

# The packages call what Qiskit has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

H2 = SparsePauliOp(
    ["II", "IZ", "ZI", "ZZ", "XX"],
    [-1.052373245772859, 0.39793742484318045, -0.39793742484318045, -0.01128010425623538,
     0.18093119978423156],
)  # fmt: skip


@pytest.fixture(scope="module")
def ideal() -> Iterator[SimenvBackend]:
    with simenv.local(workers=2) as client:
        yield SimenvBackend(env=client)


def test_vqe_of_qiskit_algorithms_finds_the_ground_state(ideal: SimenvBackend) -> None:
    algorithms = pytest.importorskip("qiskit_algorithms")
    optimizers = pytest.importorskip("qiskit_algorithms.optimizers")
    ansatz = n_local(2, "ry", "cz")
    solver = algorithms.VQE(SimenvEstimator(ideal), ansatz, optimizers.SLSQP(maxiter=60))
    energy = solver.compute_minimum_eigenvalue(H2).eigenvalue
    assert energy == pytest.approx(np.linalg.eigvalsh(H2.to_matrix()).min(), abs=1e-5)


def test_phase_estimation_of_qiskit_algorithms_reads_the_phase(ideal: SimenvBackend) -> None:
    algorithms = pytest.importorskip("qiskit_algorithms")
    unitary, state = QuantumCircuit(1), QuantumCircuit(1)
    unitary.p(2 * np.pi * 0.25, 0)
    state.x(0)
    found = algorithms.PhaseEstimation(4, sampler=SimenvSampler(ideal)).estimate(unitary, state)
    assert found.phase == 0.25


def test_kernel_of_qiskit_machine_learning_is_symmetric(ideal: SimenvBackend) -> None:
    kernels = pytest.importorskip("qiskit_machine_learning.kernels")
    fidelities = pytest.importorskip("qiskit_machine_learning.state_fidelities")
    fidelity = fidelities.ComputeUncompute(sampler=SimenvSampler(ideal, seed=5))
    kernel = kernels.FidelityQuantumKernel(feature_map=zz_feature_map(2), fidelity=fidelity)
    found = kernel.evaluate(np.random.default_rng(1).uniform(-1, 1, (4, 2)))
    np.testing.assert_allclose(found, found.T)
    np.testing.assert_allclose(np.diag(found), 1.0)
