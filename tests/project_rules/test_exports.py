"""Public names: an added or removed name shows in review."""

from __future__ import annotations

import pytest

import simenv
from simenv import library


def test_public_names_are_these() -> None:
    assert sorted(simenv.__all__) == [
        "Client",
        "DetectionResult",
        "Link",
        "Machine",
        "PulseResult",
        "QPUProgram",
        "Reservation",
        "Result",
        "Task",
        "__version__",
        "as_completed",
        "connect",
        "errors",
        "local",
        "report_progress",
    ]


def test_public_names_of_the_library_are_these() -> None:
    assert sorted(library.__all__) == [
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


def test_each_public_name_can_be_read() -> None:
    for name in simenv.__all__:
        assert getattr(simenv, name) is not None
    for name in library.__all__:
        assert getattr(library, name) is not None


def test_public_names_of_pulsers_interfaces_are_these() -> None:
    interfaces = pytest.importorskip("simenv.frontends.pulser", exc_type=ImportError)
    assert sorted(interfaces.__all__) == [
        "RemoteSimenvEmulator",
        "SimenvConfig",
        "SimenvConnection",
        "SimenvEmulator",
        "SimenvOperator",
        "SimenvState",
    ]
