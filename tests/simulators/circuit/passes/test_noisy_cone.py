"""Operations and noise that no output depends on are dropped, and no others."""

import numpy as np
from arrays import Arrays
from device_models import DeviceModel

from simulators.circuit import ir
from simulators.circuit.passes.attach_noise import attach_noise
from simulators.circuit.passes.components import active_part
from simulators.circuit.passes.light_cone import OutputSupport, output_support

COUNTS = OutputSupport(True, b"")
NOISY_CZ = {"cz": 300.0, "h": 35.0, "cx": 300.0, "x": 35.0}


def test_one_gate_on_a_wide_device_leaves_one_qubit() -> None:
    circuit = Arrays(127, 1).add("h", [99]).add("h", [3]).add("measure", [99], [0]).circuit()
    noise = attach_noise(circuit, DeviceModel(127))
    part, rest = active_part(circuit, noise, COUNTS)
    assert part.qubits.tolist() == [99]
    assert part.operations.tolist() == [0, 2]
    assert rest.locations.tolist() == [[0, 0, 0, -1]]
    assert rest.readout is None
    assert rest.digest != noise.digest


def test_noise_of_a_diagonal_gate_stays_when_the_gate_goes() -> None:
    circuit = Arrays(2, 1).add("h", [0]).add("cz", [0, 1]).add("measure", [0], [0]).circuit()
    noise = attach_noise(circuit, DeviceModel(2, idle=False, durations=NOISY_CZ))
    part, rest = active_part(circuit, noise, COUNTS)
    assert part.operations.tolist() == [0, 2]
    assert rest.locations[:, 0].tolist() == [0, 0]
    assert rest.locations[1].tolist() == [0, 1, 0, 1]


def test_noise_of_unused_qubits_goes() -> None:
    circuit = Arrays(3, 1).add("h", [0]).add("cx", [0, 1]).add("h", [2]).add("cx", [1, 2])
    circuit.add("measure", [0], [0])
    noise = attach_noise(circuit.circuit(), DeviceModel(3, idle=False))
    part, rest = active_part(circuit.circuit(), noise, COUNTS)
    assert part.qubits.tolist() == [0, 1]
    assert part.operations.tolist() == [0, 4]
    assert rest.locations[:, 0].tolist() == [0, 0], "the cx is seen from its control alone"


def test_a_coherent_error_keeps_the_gate_before_it() -> None:
    circuit = Arrays(2, 1).add("h", [0]).add("rz", [0], params=[0.3]).add("x", [0])
    circuit.add("measure", [0], [0])
    for angle, value in ((0.0, [0, 2, 3]), (0.2, [0, 1, 2, 3])):
        model = DeviceModel(2, idle=False, over_rotation=angle, durations=NOISY_CZ)
        noise = attach_noise(circuit.circuit(), model)
        part, _ = active_part(circuit.circuit(), noise, COUNTS)
        assert part.operations.tolist() == value


def test_pauli_strings_choose_what_counts() -> None:
    circuit = Arrays(3, 0).add("h", [0]).add("h", [1]).add("cx", [1, 2]).circuit()
    noise = attach_noise(circuit, DeviceModel(3, idle=False))
    part, rest = active_part(circuit, noise, output_support(("expectation",), ("IIX",), circuit))
    assert part.qubits.tolist() == [0]
    assert part.labels(("IIX",), 3) == ("X",)
    assert rest.locations.tolist() == [[0, 0, 0, -1]]


def test_all_is_kept_where_the_state_of_all_qubits_counts() -> None:
    circuit = Arrays(3, 0).add("h", [0]).circuit()
    noise = attach_noise(circuit, DeviceModel(3, idle=False))
    part, rest = active_part(circuit, noise, output_support(("probabilities",), (), circuit))
    assert part.circuit is circuit
    assert rest is noise


def test_noise_in_a_block_is_kept() -> None:
    circuit = Arrays(3, 2).add("h", [0]).add("measure", [0], [0]).begin((ir.CLBIT, 0, 0))
    circuit.add("x", [1]).add("end").add("h", [2]).add("measure", [1], [1])
    noise = attach_noise(circuit.circuit(), DeviceModel(3, feed_forward_ns=100.0))
    part, rest = active_part(circuit.circuit(), noise, COUNTS)
    assert part.qubits.tolist() == [0, 1]
    assert len([row for row in rest.locations.tolist() if row[0] == 3]) == 1
    assert np.array_equal(part.circuit.conditions, circuit.circuit().conditions)
