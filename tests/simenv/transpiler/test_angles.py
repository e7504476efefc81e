"""Angles, targets and plugins of the transpiler."""

import math
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from itertools import combinations

import msgspec
import numpy as np
import pytest
from qiskit import QuantumCircuit
from qiskit.circuit import Parameter
from qiskit.circuit.library import get_standard_gate_name_mapping
from qiskit.quantum_info import Statevector
from qiskit.transpiler import CouplingMap
from qiskit.transpiler.preset_passmanagers import plugin

from noise_models import library
from noise_models.calibration import CalibrationSnapshot, NativeGate
from simenv.client.circuits import load
from simenv.client.circuits.decoder import to_qiskit
from simenv.client.submission.compiler import CompiledCircuit, Compiler
from simenv.model.devices import DeviceInfo
from simenv.service.devices.registry import device_info
from simenv.transpiler import plugins
from simenv.transpiler.lattice import MAX_QUBITS, grid, positions
from simenv.transpiler.native_form import NativeForm
from simenv.transpiler.qiskit_runtime import LEVEL
from simenv.transpiler.transpiler import MOST_ANGLES, Transpiler, opened, target_of

WIDTH = 4
LINE = tuple((a, b) for k in range(WIDTH - 1) for a, b in ((k, k + 1), (k + 1, k)))
NATIVE = {
    "lattice": (("rz", 1, 1), ("sx", 1, 0), ("x", 1, 0), ("cz", 2, 0)),
    "eagle": (("rz", 1, 1), ("sx", 1, 0), ("x", 1, 0), ("ecr", 2, 0)),
    "ions": (("rz", 1, 1), ("r", 1, 2), ("rzz", 2, 1)),
}


def compiler(device: str) -> Compiler:
    snapshot = CalibrationSnapshot(
        name=device,
        num_qubits=WIDTH,
        coupling=LINE,
        native_gates=tuple(NativeGate(*gate) for gate in NATIVE[device]),
    )
    return Compiler(device_info(device, snapshot, "00"))


def with_angles() -> Iterator[tuple[str, int, int]]:
    for name, gate in get_standard_gate_name_mapping().items():
        if gate.params and 0 < gate.num_qubits <= 2 and name != "delay":
            yield name, gate.num_qubits, len(gate.params)


GATES = tuple(with_angles())


def mixed(structure: int, seed: int) -> QuantumCircuit:
    """Random gates with angles on random qubits, from generic and special values."""
    shape, values = np.random.default_rng(structure), np.random.default_rng((structure, seed))
    circuit = QuantumCircuit(WIDTH, global_phase=0.3)
    mapping = get_standard_gate_name_mapping()
    for name in ("h", "cx", "t"):
        circuit.append(mapping[name], range(mapping[name].num_qubits))
    for _ in range(12):
        name, size, count = GATES[int(shape.integers(len(GATES)))]
        qubits = shape.permutation(WIDTH)[:size].tolist()
        special = shape.random(count) < 0.3
        eighths = shape.integers(-8, 9, count)
        angles = np.where(special, eighths * math.pi / 4, values.uniform(-7.0, 7.0, count))
        circuit.append(type(mapping[name])(*angles.tolist()), qubits)
    return circuit


def rotations(seed: int) -> QuantumCircuit:
    """Layers that an optimizer of angles runs again and again."""
    values = np.random.default_rng(seed)
    circuit = QuantumCircuit(WIDTH)
    for _ in range(3):
        for qubit in range(WIDTH):
            for name in ("rz", "ry", "rx", "rz"):
                getattr(circuit, name)(values.uniform(-3.0, 3.0), qubit)
        for qubit in range(WIDTH - 1):
            circuit.cx(qubit, qubit + 1)
        circuit.rzz(values.uniform(-3.0, 3.0), 0, WIDTH - 1)
    return circuit


def counted(circuit: QuantumCircuit) -> dict[str, int]:
    return {name: n for name, n in circuit.count_ops().items() if name != "global_phase"}


def final_state(compiled: CompiledCircuit) -> Statevector:
    """The state of the circuit's own qubits."""
    last, first = (np.frombuffer(each, np.uint16).tolist() for each in compiled.layouts)
    assert sorted(first) == list(range(WIDTH))
    state = Statevector(to_qiskit(compiled.loaded.program))
    tensor = state.data.reshape((2,) * WIDTH)  # axis 0 is the last qubit
    axes = [WIDTH - 1 - last[qubit] for qubit in reversed(range(WIDTH))]
    return Statevector(tensor.transpose(axes).reshape(-1))


@pytest.mark.parametrize("device", NATIVE)
@pytest.mark.parametrize("structure", range(8))
def test_compiled_circuits_of_one_structure_have_own_states(device: str, structure: int) -> None:
    result = compiler(device)
    native = {name for name, _, _ in NATIVE[device]} | {"global_phase"}
    for seed in range(3):
        circuit = mixed(structure, seed)
        compiled = result.compiled(load(circuit), "always")
        assert np.allclose(final_state(compiled).data, Statevector(circuit).data, atol=1e-9), (
            "global phase included"
        )
        assert set(compiled.loaded.program.names) <= native
        assert not compiled.loaded.program.num_slots
    assert len(result._structures) <= 3


def test_rotations_of_one_structure_are_compiled_once_with_the_gates_of_the_transpiler() -> None:
    result = compiler("lattice")
    with_numbers = Transpiler(result._info, LEVEL)
    layouts = set()
    for seed in range(4):
        circuit = rotations(seed)
        compiled = result.compiled(load(circuit), "auto")
        layouts.add(compiled.layouts)
        assert np.allclose(final_state(compiled).data, Statevector(circuit).data, atol=1e-9)
        gates = counted(to_qiskit(compiled.loaded.program))
        # Levels 2 and 3 join gates whose angles are numbers, which a structure lacks.
        numeric = counted(with_numbers.run(circuit))
        assert all(gates[name] <= numeric[name] for name in ("cz", "sx")), (gates, numeric)
    assert len(result._structures) == len(layouts) == 1


def test_multiples_of_a_quarter_of_pi_are_compiled_as_numbers() -> None:
    result = compiler("lattice")
    circuit = QuantumCircuit(1)
    circuit.rx(math.pi, 0)
    compiled = result.compiled(load(circuit), "auto").loaded.program
    assert set(compiled.names) - {"global_phase"} == {"x"}
    assert opened(load(circuit).program)[1].size == 0


def test_angles_that_are_parameters_leave_free_ones_and_control_flow_alone() -> None:
    free = QuantumCircuit(1, 1)
    free.ry(Parameter("a"), 0)
    free.ry(0.3, 0)
    branching = QuantumCircuit(1, 1)
    branching.measure(0, 0)
    with branching.if_test((branching.clbits[0], 1)):
        branching.ry(0.3, 0)
    delayed = QuantumCircuit(1)
    delayed.delay(123.4, 0, "ns")
    quantum_circuit = QuantumCircuit(1)
    for _ in range(MOST_ANGLES + 1):
        quantum_circuit.ry(0.3, 0)
    for circuit in (free, branching, delayed, quantum_circuit):
        program = load(circuit).program
        assert opened(program) == (program, pytest.approx(np.zeros(0)))
    quantum_circuit.data.pop()
    assert opened(load(quantum_circuit).program)[1].size == MOST_ANGLES


def test_transpiled_circuit_has_the_gates_of_the_one_that_is_submitted() -> None:
    result = compiler("lattice")
    circuit = mixed(3, 1)
    outcome = result._transpiler.transpiled(circuit)
    compiled = to_qiskit(result.compiled(load(circuit), "auto").loaded.program)
    assert counted(outcome) == counted(compiled)
    assert (
        outcome.layout.final_index_layout()
        == result._transpiler.run(circuit).layout.final_index_layout()
    )
    assert not outcome.parameters
    assert np.allclose(Statevector(outcome).data, Statevector(compiled).data, atol=1e-9)
    assert circuit.count_ops() == mixed(3, 1).count_ops(), "the caller's circuit is not changed"


def test_structure_on_other_qubits_of_the_device_is_compiled_again() -> None:
    result = compiler("lattice")
    circuit = QuantumCircuit(2)
    circuit.ry(0.3, 0)
    circuit.cx(0, 1)
    first = result.compiled(load(circuit), "auto", (0, 1))
    assert first.layouts != result.compiled(load(circuit), "auto", (3, 2)).layouts
    assert len(result._structures) == 2


def info(name: str = "superconducting-lattice") -> DeviceInfo:
    return device_info(name, library.load(name), "digest")


def test_target_has_gates_couplings_errors_and_durations_of_device() -> None:
    device = info()
    target = target_of(device)
    assert target.num_qubits == device.num_qubits
    assert {gate.name for gate in device.gates} <= set(target.operation_names)
    assert set(target["cz"]) <= set(device.coupling)
    each = next(item for item in device.operations if item.name == "cz" and item.qubits)
    assert target["cz"][each.qubits].error == each.error
    assert target["cz"][each.qubits].duration == each.duration_ns * 1e-9


def test_compiled_circuit_fits_and_is_kept() -> None:
    device = info()
    compiler, form = Compiler(device), NativeForm(device)
    circuit = QuantumCircuit(4, 4)
    circuit.h(0)
    for qubit in (1, 2, 3):
        circuit.cx(0, qubit)
    circuit.measure(range(4), range(4))
    written = load(circuit)
    assert not form.fits(written.program)
    result = compiler.compiled(written, "auto")
    assert form.fits(result.loaded.program)
    assert compiler.compiled(load(circuit), "auto").loaded.packed is result.loaded.packed
    assert compiler.compiled(result.loaded, "auto").compiler == ""


def test_uncoupled_pair_does_not_fit_unless_all_are_coupled() -> None:
    device = info()
    far = next(
        (0, b) for b in range(1, device.num_qubits) if not {(0, b), (b, 0)} & {*device.coupling}
    )
    circuit = QuantumCircuit(device.num_qubits)
    circuit.cz(*far)
    program = load(circuit).program
    assert not NativeForm(device).fits(program)
    every = msgspec.structs.replace(device, all_to_all=True, coupling=())
    assert not NativeForm(every).fits(program)  # cz is listed on other pairs
    listed = tuple(each for each in device.operations if each.name != "cz")
    assert NativeForm(msgspec.structs.replace(every, operations=listed)).fits(program)
    wide = QuantumCircuit(device.num_qubits + 1)
    assert not NativeForm(device).fits(load(wide).program)


_COMPILE = """
import sys
from qiskit import QuantumCircuit
from noise_models import library
from simenv.service.devices.registry import device_info
from simenv.transpiler.transpiler import Transpiler

circuit = QuantumCircuit(3)
circuit.h(0)
circuit.cx(0, 1)
circuit.cx(0, 2)
info = device_info("lattice", library.load("superconducting-lattice"), "digest")
for level in range(4):
    assert Transpiler(info, level).run(circuit).count_ops()["cz"] >= 2
assert "qiskit_ibm_runtime" not in sys.modules, "imported without need"
"""


def test_compilation_does_not_import_runtime_of_ibm() -> None:
    pytest.importorskip("qiskit_ibm_runtime")
    subprocess.run([sys.executable, "-c", _COMPILE], check=True)


def test_plugin_of_other_distribution_stays_usable(monkeypatch: pytest.MonkeyPatch) -> None:
    foreign = EntryPoint("foreign", f"{__name__}:ForeignPlugin", plugins.GROUP)
    own = EntryPoint(
        "default",
        "qiskit.transpiler.preset_passmanagers.builtin_plugins:DefaultTranslationPassManager",
        plugins.GROUP,
    )
    monkeypatch.setattr(plugins, "entry_points", lambda group: [own, foreign])
    table = {
        name: each
        for name, each in plugin.stevedore.ExtensionManager.ENTRY_POINT_CACHE.items()
        if name != plugins.GROUP
    }
    monkeypatch.setattr(plugin.stevedore.ExtensionManager, "ENTRY_POINT_CACHE", table)
    ForeignPlugin.created = 0
    plugins.load_plugins_lazily()
    manager = plugin.PassManagerStagePluginManager()
    assert manager.translation_plugins.names() == ["default", "foreign"]
    assert ForeignPlugin.created == 0
    config = object()
    stage = manager.get_passmanager_stage("translation", "foreign", config, optimization_level=2)
    assert (stage, ForeignPlugin.created) == ((config, 2), 1)


class ForeignPlugin:
    """A plugin that returns its arguments."""

    created = 0

    def __init__(self) -> None:
        ForeignPlugin.created += 1

    def pass_manager(self, config: object, optimization_level: int | None = None) -> object:
        return config, optimization_level


def crosses(a: np.ndarray, b: np.ndarray, c: np.ndarray, d: np.ndarray) -> bool:
    """Return whether two segments of general position cross."""

    def turn(p: np.ndarray, q: np.ndarray, r: np.ndarray) -> float:
        (x, y), (u, v) = q - p, r - p
        return float(x * v - y * u)

    return turn(a, b, c) * turn(a, b, d) < -1e-9 and turn(c, d, a) * turn(c, d, b) < -1e-9


@pytest.mark.parametrize("distance", [3, 5, 7])
def test_heavy_hexagons_come_out_as_a_lattice_without_crossings(distance: int) -> None:
    lattice = CouplingMap.from_heavy_hex(distance)
    edges = [tuple(edge) for edge in lattice.get_edges()]
    places = positions(lattice.size(), edges)
    lengths = np.array([np.linalg.norm(places[a] - places[b]) for a, b in edges])
    assert lengths.min() > 0.6
    assert lengths.max() < 1.5
    near = min(
        np.linalg.norm(places[a] - places[b]) for a, b in combinations(range(len(places)), 2)
    )
    assert near > 0.5
    for (a, b), (c, d) in combinations({(min(e), max(e)) for e in edges}, 2):
        assert len({a, b, c, d}) < 4 or not crosses(places[a], places[b], places[c], places[d])


def test_parts_that_no_coupling_joins_are_apart_and_large_devices_in_rows() -> None:
    places = positions(7, [(0, 1), (1, 2), (2, 0), (3, 4), (4, 5)])
    for first, second in (((0, 1, 2), (3, 4, 5)), ((3, 4, 5), (6,)), ((0, 1, 2), (6,))):
        assert min([np.linalg.norm(places[a] - places[b]) for a in first for b in second]) > 1.0
    count = MAX_QUBITS + 1
    np.testing.assert_array_equal(positions(count, [(0, 1)]), grid(count))
    np.testing.assert_array_equal(positions(3, []), grid(3))
    np.testing.assert_array_equal(
        positions(2, [(0, 1)], ((5.0, 1.0), (5.0, 3.0))), [[5, 1], [5, 3]]
    )


def test_lattices_without_a_planar_drawing_are_laid_out_too() -> None:
    edges = list(combinations(range(6), 2))
    places = positions(6, edges)
    assert np.isfinite(places).all()
    assert min(np.linalg.norm(places[a] - places[b]) for a, b in edges) > 0.3
