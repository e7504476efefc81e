"""Wires that qubits share: fewer qubits, the same distribution."""

import engine_runs
import numpy as np
import pytest
from arrays import Arrays
from device_models import DeviceModel
from msgspec.structs import replace
from noisy import Exact

from noise_models.channel import Readout, ReadoutGroup
from simulators.circuit import ir
from simulators.circuit.ir import Circuit
from simulators.circuit.noise import NoiseProgram
from simulators.circuit.passes.attach_noise import attach_noise
from simulators.circuit.passes.components import Subcircuit, active_part
from simulators.circuit.passes.light_cone import output_support
from simulators.circuit.passes.wire_reuse import with_shared_wires
from simulators.densitymatrix.engine import DensityMatrixEngine
from simulators.engine import Request
from simulators.execution.hidden_bits import without_hidden

DATA, PORTS = 2, 3


def linked(random: np.random.Generator, *, gates: int = 8) -> Arrays:
    """Two data qubits, and three others that are reset, entangled with them, measured into hidden
    bits and corrected for, in random order."""
    size = DATA + PORTS
    circuit = Arrays(size, DATA + gates, (("c", DATA), (ir.HIDDEN_REGISTER, gates)))
    circuit.add("h", [0]).add("cx", [0, 1])
    for bit in range(DATA, DATA + gates):
        port, data = DATA + int(random.integers(PORTS)), int(random.integers(DATA))
        circuit.add("reset", [port]).add("ry", [port], params=[float(random.uniform(0, 3))])
        circuit.add("cx", [data, port]).add("ry", [data], params=[float(random.uniform(0, 3))])
        circuit.add("measure", [port], [bit])
        circuit.begin((ir.CLBIT, bit, 0)).add(("x", "z")[bit % 2], [data]).add("end")
    return circuit.add("measure", [0], [1]).add("measure", [1], [0])


def shared(circuit: Circuit, noise: NoiseProgram) -> tuple[Subcircuit, NoiseProgram]:
    support = output_support(("counts",), (), circuit)
    return with_shared_wires(*active_part(circuit, noise, support))


def shown(probs: dict[int, float]) -> np.ndarray:
    """Distribution over the bits that results show."""
    result = np.zeros(1 << DATA)
    for key, value in probs.items():
        result[key & ((1 << DATA) - 1)] += value
    return result


MODEL = DeviceModel(
    DATA + PORTS, readout=(0.02, 0.07), preparation_error=0.03,
    groups=(ReadoutGroup((0, 1), np.array([[0.9, 0, 0, 0.1], [0, 1, 0, 0], [0, 0, 1, 0],
                                           [0.1, 0, 0, 0.9]])),),
)  # fmt: skip


@pytest.mark.parametrize("seed", range(6))
def test_shared_wires_give_the_same_distribution(seed: int) -> None:
    built = linked(np.random.default_rng(seed)).circuit()
    noise = attach_noise(built, MODEL)
    assert shared(built, noise)[0].circuit.num_qubits == DATA + 1
    request = Request(0, 1, ("probabilities",))
    result = engine_runs.run(DensityMatrixEngine(), built, request, noise)
    found = shown(engine_runs.probabilities(without_hidden(built, result, 0).row(0)))
    np.testing.assert_allclose(found, shown(Exact(built, noise).probs), atol=1e-12)


def test_noise_of_qubits_that_wait_for_a_reset_is_left_out() -> None:
    built = linked(np.random.default_rng(1)).circuit()
    noise = attach_noise(built, MODEL)
    assert len(shared(built, noise)[1].locations) < len(noise.locations)


def test_readout_error_is_that_of_the_measured_qubit() -> None:
    """Of three qubits on one wire, the second one is always misread, and its bit is used."""
    circuit = Arrays(4, 4, (("c", 1), (ir.HIDDEN_REGISTER, 3)))
    for port in (1, 2, 3):
        circuit.add("reset", [port]).add("measure", [port], [port])
        circuit.begin((ir.CLBIT, port, 0)).add("x", [0]).add("end")
    built = circuit.add("measure", [0], [0]).circuit()
    flips = np.array([0.0, 0.0, 1.0, 0.0])
    noise = attach_noise(built, DeviceModel(4, idle=False, gate_error=0.0))
    noise = replace(noise, readout=Readout(flips, flips))
    part, own = shared(built, noise)
    assert part.circuit.num_qubits == 2
    names = [built.table.names[row] for row in part.circuit.ops.tolist()]
    assert own.readout is not None
    reads = [k for k, name in enumerate(names) if name == "measure"]
    assert [own.readout.flips(1, k)[0] for k in reads[:3]] == [0.0, 1.0, 0.0]


def test_qubits_that_overlap_in_time_have_their_own_wires() -> None:
    circuit = Arrays(4, 4, (("c", 1), (ir.HIDDEN_REGISTER, 3)))
    for port in (1, 2, 3):
        circuit.add("reset", [port]).add("h", [port])
    circuit.add("cx", [1, 2]).add("measure", [1], [1]).add("measure", [2], [2])
    circuit.begin((ir.CLBIT, 1, 0)).add("x", [3]).add("end").add("measure", [3], [0])
    built = circuit.circuit()
    part, _ = shared(built, attach_noise(built, DeviceModel(4)))
    assert part.circuit.num_qubits == 3


def test_circuit_without_a_hidden_register_keeps_its_wires() -> None:
    circuit = linked(np.random.default_rng(0))
    circuit.registers = (("c", circuit.num_clbits),)
    built = circuit.circuit()
    part, noise = active_part(
        built, attach_noise(built, MODEL), output_support(("counts",), (), built)
    )
    assert with_shared_wires(part, noise) == (part, noise)
