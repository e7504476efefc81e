"""Engine `quimb` against the engine `mps`: wide circuits, far gates, limits, seeds."""

from itertools import pairwise

import engine_runs
import numpy as np
import pytest
from arrays import Arrays

from simenv.model import TaskOptions
from simenv.scheduler.routing.engine_support import expected_truncation
from simulators import catalog
from simulators.circuit.analysis.profiler import profile
from simulators.circuit.ir import Circuit, bell
from simulators.engine import BindingResult, PauliSum
from simulators.errors import OutOfMemory, Unsupported
from simulators.simulate import counts_of, simulate

pytest.importorskip("quimb")

WIDE = 22  # above the width at which all amplitudes are made


def far_gates(seed: int, gates: int = 7) -> Arrays:
    """Gates on one to three qubits anywhere, of little entanglement."""
    rng = np.random.default_rng(seed)
    arrays = Arrays(WIDE, 0)
    for _ in range(gates):
        a, b, c = (int(qubit) for qubit in rng.permutation(WIDE)[:3])
        arrays.add("ry", (a,), (), (float(rng.uniform(0, 1)),))
        arrays.add("cx", (a, b))
        if rng.uniform() < 0.3:
            arrays.add("ccx", (c, a, b))
    return arrays


def run(circuit: Circuit, engine: str, **options: object) -> BindingResult:
    return simulate(circuit, engine=engine, **options).row(0)  # type: ignore[call-overload, no-any-return]


@pytest.mark.parametrize("permute", [0, 1])
def test_values_of_wide_circuits_with_far_gates_are_those_of_mps(permute: int) -> None:
    circuit = far_gates(3).circuit()
    rng = np.random.default_rng(1)
    labels = tuple("".join(rng.choice(list("IIXYZ"), WIDE)) for _ in range(8))
    bits = rng.integers(0, 2, (5, WIDE)).astype(np.uint8)
    bits[0] = 0
    ask = {
        "outputs": ("expectation", "amplitudes"),
        "observables": tuple(PauliSum((label,), np.ones(1)) for label in labels),
        "amplitudes": bits,
    }
    ours = run(circuit, "mps", **ask)
    theirs = run(circuit, "quimb", settings=(("permute", permute),), **ask)
    assert theirs.truncation == 0.0
    assert np.allclose(
        [value for value, _ in theirs.expectations],
        [value for value, _ in ours.expectations],
        atol=1e-9,
    )
    assert theirs.amplitudes == pytest.approx(ours.amplitudes, abs=1e-9)
    assert abs(theirs.amplitudes[0]) > 1e-3


def test_samples_of_a_wide_circuit_follow_seed_and_correlations() -> None:
    arrays = Arrays(WIDE, WIDE)
    order = [7, 20, 1, 15, *(q for q in range(WIDE) if q not in (7, 20, 1, 15))]
    arrays.add("h", (order[0],))
    for a, b in pairwise(order):
        arrays.add("cx", (a, b))
    for qubit in range(WIDE):
        arrays.add("measure", (qubit,), (qubit,))
    circuit = arrays.circuit()
    first = run(circuit, "quimb", shots=4000, seed=5)
    counts = counts_of(first)
    assert set(counts) == {0, 2**WIDE - 1}
    assert abs(counts[0] - 2000) < 5 * 4000**0.5 / 2
    assert counts_of(run(circuit, "quimb", shots=4000, seed=5)) == counts
    assert counts_of(run(circuit, "quimb", shots=4000, seed=6)) != counts


def test_qubits_that_met_stay_neighbours_unless_they_are_swapped_back() -> None:
    """The two ends interact; then their neighbours do. Swapped back, the pairs' entanglement
    crosses all sites between."""
    arrays = Arrays(WIDE, WIDE)
    for k in range(4):
        a, b = k, WIDE - 1 - k
        arrays.add("h", (a,))
        arrays.add("cx", (a, b))
    for qubit in range(WIDE):
        arrays.add("measure", (qubit,), (qubit,))
    remarks = [
        run(arrays.circuit(), "quimb", shots=10, settings=(("permute", permute),)).remark
        for permute in (0, 1)
    ]
    assert remarks == ["bond 16", "bond 2"]


def test_what_a_small_bond_cuts_off_is_reported() -> None:
    circuit = far_gates(5, 10).circuit()
    options = {"outputs": ("amplitudes",), "amplitudes": np.zeros((1, WIDE), np.uint8)}
    cut = run(circuit, "quimb", settings=(("bond", 2),), **options)
    assert 0.01 < cut.truncation <= 1.0
    assert cut.remark == "bond 2"


def test_tensors_beyond_the_memory_of_a_run_are_refused() -> None:
    with pytest.raises(OutOfMemory, match=r"engine 'quimb'.*are allowed"):
        simulate_with_memory(far_gates(3).circuit(), 1000)


def simulate_with_memory(circuit: Circuit, memory_bytes: int) -> None:
    from simulators import registry
    from simulators.engine import EngineContext, Request

    engine = registry.create("quimb", EngineContext())
    request = Request(0, 1, ("amplitudes",), amplitudes=np.zeros((1, WIDE), np.uint8))
    engine_runs.run(engine, circuit, request, memory_bytes=memory_bytes)


def test_mid_circuit_measurement_is_refused_with_the_way_out() -> None:
    arrays = Arrays(2, 2)
    arrays.add("measure", (0,), (0,))
    arrays.add("x", (0,))
    arrays.add("measure", (0,), (1,))
    with pytest.raises(Unsupported, match="engine 'quimb' has no measurements, resets or cond"):
        run(arrays.circuit(), "quimb", shots=1)


def test_weight_cut_off_by_an_engine_without_a_tolerance_is_known_or_unknown() -> None:
    """The service asks this of every card, when a client asks what would run a circuit."""
    card = catalog.card("quimb")
    assert card is not None
    assert 0.0 < expected_truncation(card, profile(bell()), TaskOptions()) < 1e-9
    small = TaskOptions(options=(("bond", 1),))
    assert expected_truncation(card, profile(bell()), small) == -1.0
