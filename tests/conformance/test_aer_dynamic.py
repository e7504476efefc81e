"""Aer runs dynamic circuits by itself: its counts against the exact distribution, at five sigma."""

from collections.abc import Callable

from clifford import assert_alike
from engine_runs import probabilities
from engines import Runner
from hypothesis import HealthCheck, assume, given, settings
from random_circuits import dynamic_circuits

from simulators.circuit.ir import Circuit
from simulators.errors import Unsupported
from simulators.simulate import counts_of

SHOTS = 1024


@settings(
    derandomize=True,
    deadline=None,
    max_examples=30,
    suppress_health_check=[
        HealthCheck.function_scoped_fixture,
        HealthCheck.too_slow,
        HealthCheck.filter_too_much,
    ],
)
@given(circuit=dynamic_circuits())
def test_aer_counts_of_dynamic_circuits_match_exact_distribution(
    runner_of: Callable[[str], Runner], circuit: Circuit
) -> None:
    try:
        result = counts_of(runner_of("aer")(circuit, shots=SHOTS, seed=4))
    except Unsupported:  # what it refuses by name
        assume(False)
    odds = probabilities(runner_of("statevector")(circuit, outputs=("probabilities",)))
    assert_alike(result, odds, SHOTS)
