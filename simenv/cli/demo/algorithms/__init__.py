"""Gallery of algorithms, each with its theoretical result: for the demo and for tests.

Invariant: no expected result comes from a simulator.
"""

from __future__ import annotations

from simenv.cli.demo.algorithms.arithmetic import adder, fourier_adder, order_finding
from simenv.cli.demo.algorithms.dynamics import ising_trotter, quantum_walk
from simenv.cli.demo.algorithms.feedforward import repetition_code, teleportation
from simenv.cli.demo.algorithms.piece import DemoCircuit, ResultCheck
from simenv.cli.demo.algorithms.search import grover_exact_cover, qaoa_max_cut
from simenv.cli.demo.algorithms.textbook import (
    bernstein_vazirani,
    ghz,
    iterative_phase_estimation,
    phase_estimation,
    simon,
    w_state,
)

__all__ = ["DemoCircuit", "ResultCheck", "pieces"]


def pieces() -> tuple[DemoCircuit, ...]:
    """Return every circuit of the gallery at its usual size."""
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
