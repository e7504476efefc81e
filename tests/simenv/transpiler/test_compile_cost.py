"""Compilations are chosen by the cost of what they emit."""

import math

import msgspec
import networkx
import numpy as np
import pytest
from qiskit import QuantumCircuit, transpile
from qiskit.circuit.library import PauliEvolutionGate
from qiskit.quantum_info import Operator, SparsePauliOp
from qiskit.transpiler import PassManager

from noise_models import library
from noise_models.calibration import CalibrationSnapshot, NativeGate
from simenv.model.devices import DeviceInfo
from simenv.service.devices.registry import device_info
from simenv.transpiler.compile_cost import MOST_GATES, Costs, further_levels
from simenv.transpiler.pair_gates import SingleEntangler
from simenv.transpiler.transpiler import Transpiler, target_of

HALF_PI = math.pi / 2
PAIR = CalibrationSnapshot(
    "pair", 2, coupling=((0, 1), (1, 0)),
    native_gates=(NativeGate("cz", 2, 0), NativeGate("sx", 1, 0), NativeGate("rz", 1, 1)),
)  # fmt: skip


def info(name: str = "superconducting-lattice") -> DeviceInfo:
    return device_info(name, library.load(name), "0")


def kicked(order: list[int], pairs: list[tuple[int, int]], width: int, steps: int = 3):  # type: ignore[no-untyped-def]
    circuit = QuantumCircuit(width)
    for _ in range(steps):
        circuit.rx(0.6, order)
        for pair in pairs:
            circuit.rzz(-HALF_PI, *pair)
    circuit.measure_all()
    return circuit


def test_gates_that_one_cz_makes_become_one() -> None:
    circuit = QuantumCircuit(2)
    for angle in (HALF_PI, -HALF_PI, 3 * HALF_PI):
        circuit.rzz(angle, 0, 1)
        circuit.rxx(angle, 0, 1)
        circuit.ryy(angle, 1, 0)
        circuit.rzx(angle, 1, 0)
    circuit.cp(math.pi, 0, 1)
    circuit.crz(math.pi, 1, 0)
    circuit.append(PauliEvolutionGate(SparsePauliOp("ZY"), math.pi / 4), [1, 0])
    inner = QuantumCircuit(2)
    inner.h(0)
    inner.rzz(HALF_PI, 0, 1)
    circuit.append(inner.to_gate(), [1, 0])
    single = len(circuit.data)
    circuit.rzz(math.pi, 0, 1)  # none
    circuit.rzz(0.3, 0, 1)
    circuit.swap(0, 1)
    circuit.cx(0, 1)
    left = PassManager([SingleEntangler()]).run(circuit)
    assert left.count_ops()["cz"] == single
    assert (left.count_ops()["rzz"], left.count_ops()["swap"], left.count_ops()["cx"]) == (1, 1, 1)
    whole = circuit.decompose(PauliEvolutionGate)
    assert np.allclose(Operator(left).data, Operator(whole).data, atol=1e-9)


@pytest.mark.parametrize("name", ["superconducting-lattice", "manila", "fez", "kyiv"])
@pytest.mark.parametrize("as_written", [True, False])
def test_textbook_kicked_ising_has_one_gate_for_each_coupling(name: str, as_written: bool) -> None:
    if name not in library.names():
        pytest.skip("qiskit-ibm-runtime is not installed")
    device = info(name)
    pairs = sorted({(min(pair), max(pair)) for pair in library.load(name).coupled})
    graph = networkx.Graph(pairs)
    largest = max(networkx.connected_components(graph), key=len)
    order = [pairs[0][0], *(b for _, b in networkx.bfs_edges(graph, pairs[0][0]))][:60]
    inside = [pair for pair in pairs if {*pair} <= {*order}]
    width = device.num_qubits
    if not as_written:
        place = {qubit: k for k, qubit in enumerate(order)}
        inside = [(place[a], place[b]) for a, b in inside]
        order, width = list(range(len(order))), len(order)
    assert len(order) <= len(largest)
    compiled = Transpiler(device).transpiled(kicked(order, inside, width))
    wide = [each for each in compiled.data if len(each.qubits) == 2 and each.name != "barrier"]
    assert len(wide) == 3 * len(inside)


def test_pairs_with_several_gates_in_succession_are_resynthesized() -> None:
    """A block of five gates on a pair needs three of the device's."""
    circuit, random = QuantumCircuit(2), np.random.default_rng(5)
    for _ in range(5):
        for qubit in (0, 1):
            circuit.u(*random.uniform(0, 6, 3), qubit)
        circuit.cx(0, 1)
    device = device_info("pair", PAIR, "0")
    first = transpile(circuit, target=target_of(device), optimization_level=1, seed_transpiler=7)
    assert first.count_ops()["cz"] == 5
    assert further_levels(circuit, first) == (2, 3)
    compiled = Transpiler(device).run(circuit)
    assert compiled.count_ops()["cz"] == 3
    assert Operator.from_circuit(compiled).equiv(Operator(circuit))


def test_circuits_that_cannot_be_cheaper_or_are_long_are_compiled_once() -> None:
    device, circuit = info(), QuantumCircuit(3)
    circuit.cx(0, 1)
    circuit.cx(1, 2)
    assert further_levels(circuit, Transpiler(device).run(circuit)) == ()
    for _ in range(MOST_GATES):
        circuit.cx(0, 1)
    assert further_levels(circuit, circuit) == ()
    circuit.data = circuit.data[:MOST_GATES]
    assert further_levels(circuit, circuit) == (2, 3)


def test_the_fewest_expected_errors_then_the_fewest_layers_decide() -> None:
    device = info()
    operations = [
        msgspec.structs.replace(each, error=0.1 if 0 in each.qubits else 0.01)
        for each in device.operations
        if each.name == "cz" and each.qubits
    ]
    costs = Costs(msgspec.structs.replace(device, operations=tuple(operations)))
    pairs = [each.qubits for each in operations if each.error < 0.1]
    bad = next(each.qubits for each in operations if each.error == 0.1)
    apart = [pairs[0], next(pair for pair in pairs if not {*pair} & {*pairs[0]})]

    def circuit(*places: tuple[int, ...]) -> QuantumCircuit:
        result = QuantumCircuit(device.num_qubits)
        for pair in places:
            result.cz(*pair)
        return result

    deep, shallow = circuit(apart[0], apart[0]), circuit(*apart)
    assert costs.of(deep)[0] == pytest.approx(-2 * math.log(0.99))
    assert [costs.of(each)[1] for each in (deep, shallow)] == [2, 1]
    assert costs.cheapest([circuit(bad), deep, shallow]) == 2
    assert costs.cheapest([circuit(bad), circuit(apart[0])]) == 1
    assert costs.cheapest([shallow, shallow]) == 0
