"""Packages of Qiskit's community over the primitives, where they are installed."""

import numpy as np
import pytest
from qiskit import QuantumCircuit
from qiskit.circuit.library import XXPlusYYGate, n_local, zz_feature_map
from qiskit.quantum_info import SparsePauliOp

from simenv.frontends.qiskit import SimenvBackend, SimenvEstimator, SimenvSampler

# The packages call what Qiskit has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

H2 = SparsePauliOp(
    ["II", "IZ", "ZI", "ZZ", "XX"],
    [-1.052373245772859, 0.39793742484318045, -0.39793742484318045, -0.01128010425623538,
     0.18093119978423156],
)  # fmt: skip


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
    result = algorithms.PhaseEstimation(4, sampler=SimenvSampler(ideal)).estimate(unitary, state)
    assert result.phase == 0.25


def test_kernel_of_qiskit_machine_learning_is_symmetric(ideal: SimenvBackend) -> None:
    kernels = pytest.importorskip("qiskit_machine_learning.kernels")
    fidelities = pytest.importorskip("qiskit_machine_learning.state_fidelities")
    fidelity = fidelities.ComputeUncompute(sampler=SimenvSampler(ideal, seed=5))
    kernel = kernels.FidelityQuantumKernel(feature_map=zz_feature_map(2), fidelity=fidelity)
    result = kernel.evaluate(np.random.default_rng(1).uniform(-1, 1, (4, 2)))
    np.testing.assert_allclose(result, result.T)
    np.testing.assert_allclose(np.diag(result), 1.0)


def test_diagonalization_of_qiskit_addon_sqd_finds_the_ground_state(ideal: SimenvBackend) -> None:
    fermion = pytest.importorskip("qiskit_addon_sqd.fermion")
    from pyscf import ao2mo, fci, gto, scf

    molecule = gto.M(atom="H 0 0 0; H 0 0 0.735", basis="6-31g", verbose=0)
    field = scf.RHF(molecule).run()
    core = field.mo_coeff.T @ field.get_hcore() @ field.mo_coeff
    repulsion = ao2mo.restore(1, ao2mo.kernel(molecule, field.mo_coeff), 4)
    circuit = QuantumCircuit(8)
    for first in (0, 4):  # one electron of each spin
        circuit.x(first)
        for orbital in range(3):
            circuit.append(XXPlusYYGate(0.9), [first + orbital, first + orbital + 1])
    circuit.measure_all()
    sampler = SimenvSampler(ideal, seed=3)  # the line that differs from the package's examples
    bits = sampler.run([circuit], shots=2_000).result()[0].data.meas
    result = fermion.diagonalize_fermionic_hamiltonian(
        core, repulsion, bits, samples_per_batch=100, norb=4, nelec=(1, 1), max_iterations=3, seed=1
    )
    exact, _ = fci.direct_spin1.kernel(core, repulsion, 4, (1, 1))
    assert result.energy == pytest.approx(exact, abs=1e-7)


def test_solver_of_qiskit_addon_sqd_diagonalizes_in_sampled_space(ideal: SimenvBackend) -> None:
    qubit = pytest.importorskip("qiskit_addon_sqd.qubit")
    counts = pytest.importorskip("qiskit_addon_sqd.counts")
    chain = SparsePauliOp.from_sparse_list(
        [(pair, [k, k + 1], 1.0) for k in range(5) for pair in ("XX", "YY", "ZZ")], 6
    )
    circuit = QuantumCircuit(6)
    circuit.h(range(6))
    circuit.measure_all()
    bits = SimenvSampler(ideal, seed=2).run([circuit], shots=3_000).result()[0].data.meas
    matrix, _ = counts.bit_array_to_arrays(bits)
    rows = qubit.sort_and_remove_duplicates(matrix)
    assert len(rows) == 64
    values, _ = qubit.solve_qubit(rows, chain, k=1, which="SA")
    assert values[0] == pytest.approx(np.linalg.eigvalsh(chain.to_matrix())[0])
