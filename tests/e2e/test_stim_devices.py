"""Circuits of stim on emulated devices, through a service."""

from typing import Any

import numpy as np
import pytest
import stim
from failing import fails

from simenv.client.client import Client
from simenv.errors import InfeasibleError, LimitExceededError, OptionError, ProgramError

PATIENCE_S = 120.0
DEVICE = "superconducting-lattice"
LINE = [0, 1, 2, 3, 5]  # of coupled qubits


def repetition(distance: int = 3, rounds: int = 6) -> stim.Circuit:
    return stim.Circuit.generated("repetition_code:memory", distance=distance, rounds=rounds)


def surface(distance: int = 3) -> stim.Circuit:
    return stim.Circuit.generated(
        "surface_code:rotated_memory_z", distance=distance, rounds=distance
    )


def test_circuit_on_a_device_has_its_noise_and_times(env: Client) -> None:
    options: Any = {"device": DEVICE, "qubit_mapping": LINE, "seed": 3, "decoder": "pymatching"}
    task = env.submit(repetition(), shots=20_000, **options)
    result: Any = task.result(PATIENCE_S)
    assert (result.device, result.mapping, result.draw) == (DEVICE, dict(enumerate(LINE)), None)
    assert 0 < result.logical_errors < 400
    assert result.detection_rates.min() > 0.005
    assert (result.layers, result.late_ns, result.warnings) == (6, 0.0, ())
    assert 6 * 2_000 < result.shot_ns < 6 * 4_000
    assert result.native_gates == {"cz": 24, "rz": 72, "sx": 48}
    details: Any = task.details  # type: ignore[attr-defined]
    assert (details.device, details.snapshot) == (DEVICE, result.snapshot)
    assert details.device_time_s == pytest.approx(20_000 * result.shot_ns * 1e-9)
    quiet: Any = env.run(repetition(), shots=1_000, noise="off", **options)
    assert (quiet.logical_errors, quiet.detection_counts.sum()) == (0, 0)
    louder: Any = env.run(repetition(), shots=20_000, noise={"all": 3.0}, **options)
    assert louder.logical_errors > 3 * result.logical_errors


def test_neighbours_that_are_one_instruction_in_the_text_are_counted_so(env: Client) -> None:
    circuit = stim.Circuit("X 0\nTICK\nX 1\nM 0 1\nDETECTOR rec[-1]")
    circuit.pop(1)  # X 0 and X 1 stay two instructions until the text is read
    result: Any = env.run(circuit, shots=100)
    assert result.detection_counts.tolist() == [0]


def test_values_are_drawn_for_couplings_that_the_device_lacks(env: Client) -> None:
    options: Any = {"device": DEVICE, "shots": 20_000, "seed": 3, "noise": {"all": 0.5}}
    plain: Any = env.run(surface(), qubit_mapping="draw:2", decoder="pymatching", **options)
    assert (plain.mapping, plain.draw) == (None, 2)
    better: Any = env.run(
        surface(), qubit_mapping="draw:2", decoder="pymatching-correlated", **options
    )
    assert better.decoder.startswith("pymatching-correlated ")
    assert better.detection_counts.tolist() == plain.detection_counts.tolist()
    assert 0 < better.logical_errors < plain.logical_errors
    other: Any = env.run(surface(), qubit_mapping="draw:1", decoder="pymatching", **options)
    assert other.detection_counts.tolist() != plain.detection_counts.tolist()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "without a place"),
        ({"qubit_mapping": "drawn"}, "qubit_mapping='drawn'"),
        ({"qubit_mapping": "draw:x"}, "qubit_mapping='draw:x'"),
        ({"qubit_mapping": [0, 1]}, "2 entries; the circuit uses 5 qubits"),
        ({"qubit_mapping": [0, 1, 2, 3, 3]}, "qubit_mapping"),
        ({"qubit_mapping": [0, 1, 2, 3, 99]}, "qubit 99; device superconducting-lattice has 27"),
        ({"qubit_mapping": {0: 1}}, "no place for qubit 1"),
        ({"qubit_mapping": "draw", "compile": "always"}, "compile= of a circuit of stim"),
        ({"qubit_mapping": "draw", "prefer": "emulator"}, "prefer= of a circuit of stim"),
        ({"device": None, "qubit_mapping": "draw"}, "without a device"),
        ({"device": None, "noise": "off"}, "without a device"),
        ({"qubit_mapping": "draw", "noise": {"qubit.tea": 1.0}}, "qubit.tea"),
        ({"qubit_mapping": "draw", "decoder": "tea"}, "there is no decoder 'tea'"),
        ({"qubit_mapping": "draw", "late_us": -1.0}, "late_us"),
        ({"qubit_mapping": "draw", "late_us": 1e7}, "late_us"),
        ({"qubit_mapping": "draw", "interconnect": "tea"}, "real-time"),
        ({"qubit_mapping": "draw", "interconnect": ["real-time"]}, "real-time"),
        ({"qubit_mapping": np.array([0, 1])}, "2 entries; the circuit uses 5 qubits"),
        ({"qubit_mapping": "draw", "interconnect": "real-time", "late_us": 1.0}, "together"),
        ({"device": None, "late_us": 1.0}, "without a device"),
    ],
)
def test_options_that_do_not_fit_are_refused(
    env: Client, options: dict[str, Any], message: str
) -> None:
    fails(OptionError, message, env.submit, repetition(), **{"device": DEVICE, **options})


def test_pairs_and_noise_that_the_device_does_not_take_are_named(env: Client) -> None:
    text = "qubits 2, 3 of the circuit needs the pair 2, 4, on which device superconducting-lattice"
    error = fails(
        InfeasibleError,
        text,
        env.submit,
        repetition(),
        device=DEVICE,
        qubit_mapping=[0, 1, 2, 4, 5],
    )
    assert "'draw'" in error.hint
    end = "\nM 0\nDETECTOR rec[-1]"
    for text, reason in (
        ("X_ERROR(0.1) 0", "noise of its own"),
        ("M(0.1) 0", "noise of its own"),
        ("REPEAT 3 {\nDEPOLARIZE2(0.1) 0 1\n}", "noise of its own"),
        ("M 0\nCX rec[-1] 1", "under a condition"),
        ("MPP X0*X1", "no such operation"),
        ("MXX 0 1", "no such operation"),
    ):
        circuit = stim.Circuit(text + end)
        fails(ProgramError, reason, env.submit, circuit, device=DEVICE, qubit_mapping="draw")


def test_surface_codes_find_their_place_by_coordinates(env: Client) -> None:
    square = env.device("superconducting-square")
    options: Any = {"device": "superconducting-square", "qubit_mapping": "auto"}
    for distance in (3, 7):
        circuit = surface(distance)
        result: Any = env.run(circuit, shots=2_000, seed=1, decoder="pymatching", **options)
        shifts = {
            (square.coordinates[place][0] - x, square.coordinates[place][1] - y)
            for qubit, (x, y) in circuit.get_final_qubit_coordinates().items()
            for place in (result.mapping[qubit],)
        }
        assert len(shifts) == 1
        assert 1_000 < result.layer_ns < 1_200
        assert 0 <= result.logical_error_rate < 0.1
    fails(InfeasibleError, "no place with the coordinates", env.submit, surface(9), **options)
    fails(InfeasibleError, "no place", env.submit, surface(3), **{**options, "device": DEVICE})
    bare = stim.Circuit("H 0\nM 0\nDETECTOR rec[-1]")
    fails(InfeasibleError, "no two QUBIT_COORDS", env.submit, bare, **options)


LATE: tuple[dict[str, Any], ...] = (
    {},
    {"late_us": 10.0},
    {"interconnect": "near-time"},
    {"interconnect": "real-time"},
)


def test_late_decoders_idle_all_qubits_of_each_layer(env: Client) -> None:
    options: Any = {"device": DEVICE, "qubit_mapping": LINE, "seed": 3, "decoder": "pymatching"}
    found = [
        env.run(repetition(), shots=20_000, **options, **late)
        for late in (
            {},
            {"late_us": 10.0},
            {"interconnect": "near-time"},
            {"interconnect": "real-time"},
        )
    ]
    quick, late, near, real = found
    assert late.late_ns == 10_000.0
    assert late.shot_ns - quick.shot_ns == pytest.approx(5 * 10_000.0)  # no TICK ends the last one
    assert {each.layer_ns for each in found} == {quick.layer_ns}
    assert near.late_ns == pytest.approx(63_000.0 - quick.layer_ns)
    assert (real.late_ns, real.shot_ns) == (
        pytest.approx(4_000 - quick.layer_ns),
        pytest.approx(quick.shot_ns + 5 * (4_000 - quick.layer_ns)),
    )
    assert quick.logical_errors < late.logical_errors < near.logical_errors


def test_circuits_too_large_for_their_noise_are_refused_before_they_run(env: Client) -> None:
    options: Any = {"device": DEVICE, "qubit_mapping": [0, 1], "decoder": "pymatching"}
    written = stim.Circuit("CZ 0 1\n" * 100_000 + "M 0\nDETECTOR rec[-1]")
    fails(LimitExceededError, "200000 instructions and targets", env.submit, written, **options)
    rounds = stim.Circuit(
        "M 0 1\nTICK\nREPEAT 100000 {\nCZ 0 1\nTICK\nM 1\nTICK\n}\nM 0\nDETECTOR rec[-1]"
    )
    found: Any = env.run(rounds, shots=10, seed=1, **options)
    assert found.native_gates == {"cz": 100_000}
    assert found.layers == 100_002
