"""Algorithms as functions: the circuit, what theory says of its answer, and the reference.

Invariant: no expected result comes from a simulator, so they test one.
"""

from __future__ import annotations

from simenv.library.algorithm import Algorithm, ExpectedOutcomes, ExpectedParities
from simenv.library.arithmetic import adder, fourier_adder, order_finding
from simenv.library.dynamics import ising_trotter, quantum_walk
from simenv.library.feedforward import repetition_code, teleportation
from simenv.library.search import grover_exact_cover, grover_search, qaoa_max_cut
from simenv.library.textbook import (
    bernstein_vazirani,
    ghz,
    iterative_phase_estimation,
    phase_estimation,
    simon,
    w_state,
)
from simenv.library.variational import VariationalAlgorithm, ising_ground_state, transverse_ising

__all__ = [
    "Algorithm",
    "ExpectedOutcomes",
    "ExpectedParities",
    "VariationalAlgorithm",
    "adder",
    "algorithms",
    "bernstein_vazirani",
    "fourier_adder",
    "ghz",
    "grover_exact_cover",
    "grover_search",
    "ising_ground_state",
    "ising_trotter",
    "iterative_phase_estimation",
    "order_finding",
    "phase_estimation",
    "qaoa_max_cut",
    "quantum_walk",
    "repetition_code",
    "simon",
    "teleportation",
    "transverse_ising",
    "w_state",
]


def algorithms() -> tuple[Algorithm, ...]:
    """Return one of each algorithm with counts, at sizes that run within a second together."""
    return (
        ghz(),
        w_state(),
        bernstein_vazirani(),
        simon(),
        fourier_adder(),
        adder(),
        order_finding(),
        phase_estimation(),
        iterative_phase_estimation(),
        teleportation(),
        repetition_code(),
        grover_exact_cover(),
        qaoa_max_cut(),
        ising_trotter(),
        quantum_walk(),
    )
