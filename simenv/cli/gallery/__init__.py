"""A gallery of real algorithms, each with the answer theory gives: for the demo and for tests.

Invariant: nothing here asks a simulator what is right.
"""

from __future__ import annotations

from simenv.cli.gallery.answers import Answer
from simenv.cli.gallery.arithmetic import adder, fourier_adder, order_finding
from simenv.cli.gallery.dynamics import ising_trotter, quantum_walk
from simenv.cli.gallery.feedforward import repetition_code, teleportation
from simenv.cli.gallery.phase import iterative_phase_estimation, phase_estimation
from simenv.cli.gallery.pieces import Piece
from simenv.cli.gallery.search import grover_exact_cover, qaoa_max_cut
from simenv.cli.gallery.states import bernstein_vazirani, ghz, simon, w_state

__all__ = ["Answer", "Piece", "pieces"]


def pieces() -> tuple[Piece, ...]:
    """Every piece at its usual size."""
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
