"""Circuits of rotated surface codes: layout, determinism, distance."""

from __future__ import annotations

import pytest

stim = pytest.importorskip("stim")

from simenv.calibration.logical.surface_code import (  # noqa: E402
    BASES,
    ghz,
    memory,
    product_cx,
    rotated,
)


def depolarized(circuit: stim.Circuit, p: float = 1e-3) -> stim.Circuit:
    """The circuit with depolarizing noise after gates and flips of outcomes."""
    result = stim.Circuit()
    for each in circuit.flattened():
        if each.name == "M":
            result.append("M", each.targets_copy(), p)
            continue
        result.append(each)
        if each.name in ("CZ", "CX"):
            result.append("DEPOLARIZE2", each.targets_copy(), p)
        elif each.name == "H":
            result.append("DEPOLARIZE1", each.targets_copy(), p)
    return result


@pytest.mark.parametrize("distance", [3, 5, 7])
def test_sites_are_those_of_the_circuits_that_stim_generates(distance: int) -> None:
    generated = stim.Circuit.generated(
        "surface_code:rotated_memory_z", distance=distance, rounds=1
    ).get_final_qubit_coordinates()
    code = rotated(distance)
    data = {tuple(map(int, place)) for place in generated.values() if place[0] % 2}
    assert code.num_qubits == 2 * distance**2 - 1 == len(generated)
    assert set(code.sites[: code.num_data]) == data
    for ancilla, qubit in code.pairs:
        (x, y), (u, v) = code.sites[ancilla], code.sites[qubit]
        assert abs(x - u) == abs(y - v) == 1


@pytest.mark.parametrize("basis", BASES)
@pytest.mark.parametrize("distance", [3, 5])
def test_as_few_errors_as_the_distance_flip_the_logical_qubit(distance: int, basis: str) -> None:
    circuit = depolarized(memory(rotated(distance), basis, 3))
    assert len(circuit.shortest_graphlike_error()) == distance


@pytest.mark.parametrize("basis", BASES)
def test_detectors_and_observables_are_deterministic_without_noise(basis: str) -> None:
    code = rotated(3)
    for circuit in (
        memory(code, basis, 4),
        product_cx(code, basis, (2, 3)),
        product_cx(code, basis, (2, 1, 1, 2)),
        ghz(code, 3, basis, [2, 1, 3]),
    ):
        circuit.detector_error_model()  # raises for a detector that is not
        events, flips = circuit.compile_detector_sampler(seed=1).sample(
            64, separate_observables=True
        )
        assert not events.any()
        assert not flips.any()


def test_a_single_error_of_a_data_qubit_spreads_through_cx() -> None:
    """X on the control before CX flips the record of the target too."""
    code = rotated(3)
    circuit = product_cx(code, "Z", (1, 1)).flattened()
    at = next(k for k, each in enumerate(circuit) if each.name == "CX")
    before, after = circuit[:at], circuit[at:]
    before.append("X_ERROR", code.logical("X"), 1.0)
    _, flips = (
        (before + after).compile_detector_sampler(seed=1).sample(4, separate_observables=True)
    )
    assert flips.tolist() == [[True, True, False]] * 4


def test_a_qubit_has_one_operation_in_a_layer_and_the_couplings_are_those_of_the_code() -> None:
    code = rotated(5)
    pairs = {frozenset(pair) for pair in code.pairs}
    busy: list[int] = []
    for each in memory(code, "X", 2).flattened():
        if each.name == "TICK":
            assert len(busy) == len(set(busy))
            busy = []
        elif each.name in ("H", "CZ", "M", "R"):
            busy += [target.value for target in each.targets_copy()]
        if each.name == "CZ":
            targets = [target.value for target in each.targets_copy()]
            assert {
                frozenset(each) for each in zip(targets[::2], targets[1::2], strict=True)
            } <= pairs
