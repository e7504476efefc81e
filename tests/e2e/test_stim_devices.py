"""Circuits of stim on emulated devices, through a service."""

from typing import Any

import pytest
import stim
from failing import fails

from simenv.client.client import Client
from simenv.errors import OptionError, TaskFailedError

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
    ],
)
def test_options_that_do_not_fit_are_refused(
    env: Client, options: dict[str, Any], message: str
) -> None:
    fails(OptionError, message, env.submit, repetition(), **{"device": DEVICE, **options})


def test_pairs_and_noise_that_the_device_does_not_take_are_named(env: Client) -> None:
    with pytest.raises(TaskFailedError, match="on qubits 4, 3 of device"):
        env.run(repetition(), device=DEVICE, qubit_mapping=[0, 1, 2, 3, 4])
    noisy = stim.Circuit.generated(
        "repetition_code:memory", distance=3, rounds=2, after_clifford_depolarization=0.01
    )
    with pytest.raises(TaskFailedError, match="noise of its own"):
        env.run(noisy, device=DEVICE, qubit_mapping=LINE)
