"""Algorithms as functions: the circuit, what theory says of its answer, and the reference.

Invariant: no expected result comes from a simulator, so they test one.
"""

from collections.abc import Callable

from simenv.library.algorithm import (
    Algorithm,
    ExpectedOutcomes,
    ExpectedParities,
    VariationalAlgorithm,
    grover_exact_cover,
    grover_search,
    ising_ground_state,
    ising_trotter,
    qaoa_max_cut,
    quantum_walk,
    transverse_ising,
)
from simenv.library.textbook import (
    adder,
    bernstein_vazirani,
    fourier_adder,
    ghz,
    iterative_phase_estimation,
    order_finding,
    phase_estimation,
    repetition_code,
    simon,
    teleportation,
    w_state,
)

__all__ = ["Algorithm", "ExpectedOutcomes", "ExpectedParities", "VariationalAlgorithm"]
__all__ += ["adder", "algorithms", "bernstein_vazirani", "fourier_adder", "ghz"]
__all__ += ["grover_search", "ising_ground_state", "ising_trotter", "iterative_phase_estimation"]
__all__ += ["order_finding", "phase_estimation", "qaoa_max_cut", "quantum_walk", "repetition_code"]
__all__ += ["grover_exact_cover", "simon", "teleportation", "transverse_ising", "w_state"]


def algorithms() -> tuple[Algorithm, ...]:
    """Return one of each algorithm with counts, at sizes that run within a second together."""
    makers: tuple[Callable[[], Algorithm], ...] = (
        *(ghz, w_state, bernstein_vazirani, simon, fourier_adder, adder, order_finding),
        *(phase_estimation, iterative_phase_estimation, teleportation, repetition_code),
        *(grover_exact_cover, qaoa_max_cut, ising_trotter, quantum_walk),
    )
    return tuple(make() for make in makers)
