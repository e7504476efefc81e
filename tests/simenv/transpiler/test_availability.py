"""The Target of a device and its admission have what the data of the device lists, and no more."""

import importlib
import importlib.util
import json
import math
from collections import defaultdict
from itertools import pairwise

import calibration_samples as samples
import msgspec
import numpy as np
import pytest
from qiskit import QuantumCircuit, transpile
from qiskit.circuit import Parameter
from qiskit.quantum_info import Operator

from noise_models import library
from noise_models.calibration import (
    AngleBounds,
    CalibrationSnapshot,
    GateCalibration,
    NativeGate,
    QubitCalibration,
)
from noise_models.importers import import_snapshot
from simenv.calibration.device_import import target_document
from simenv.client.circuits import load
from simenv.client.circuits.decoder import to_qiskit
from simenv.client.submission.compiler import Compiler
from simenv.errors import OptionError, ProgramError
from simenv.model.availability import Availability
from simenv.service.devices.registry import device_info
from simenv.transpiler.native_form import NativeForm
from simenv.transpiler.qiskit_runtime import BY_COST
from simenv.transpiler.transpiler import Transpiler, fold_rzz, target_of
from simulators.hardware.engine import describe
from tests.noise_models.snapshots import linked

Places = dict[str, set[tuple[int, ...]]]


def listed(snapshot: CalibrationSnapshot) -> Places:
    """Places of each operation by the words of CalibrationSnapshot's docstring."""
    entries: dict[str, dict[tuple[int, ...], GateCalibration]] = defaultdict(dict)
    for each in snapshot.gates:
        entries[each.name][each.qubits] = each
    singles = {(q,) for q in range(snapshot.num_qubits) if q not in snapshot.unusable}
    every = {(a, b) for (a,) in singles for (b,) in singles if a != b}
    pairs = every if snapshot.all_to_all else every & set(snapshot.coupling)
    result: Places = {"measure": {each for each in singles if each[0] not in snapshot.unmeasured}}
    for own in snapshot.measurements:
        result.setdefault(own.name, set()).update({(own.qubit,)} & singles)
    for native in snapshot.native_gates:
        found = entries[native.name]
        places = set(found) - {()}
        if not found or () in found:
            places |= {1: singles, 2: pairs}.get(native.num_qubits, set())
        broken = {q for q in places if (each := found.get(q)) and (each.error or 0.0) >= 1.0}
        result[native.name] = {q for q in places - broken if not set(q) & set(snapshot.unusable)}
    return result


def check(name: str, snapshot: CalibrationSnapshot) -> None:
    info = device_info(name, snapshot, "0")
    target, expected = target_of(info), listed(snapshot)
    others = {"delay", "reset", "if_else", "while_loop", "for_loop", "switch_case"}
    found = {gate: set(target[gate]) for gate in set(target.operation_names) - others}
    assert found == expected
    calibrated = {(gate.name, gate.qubits) for gate in snapshot.gates}
    partly = {gate.name for gate in snapshot.gates if gate.qubits}
    everywhere = {gate.name for gate in snapshot.gates if not gate.qubits}
    form = NativeForm(info)
    for gate in snapshot.native_gates:
        for qubits in found[gate.name]:
            assert gate.name not in partly - everywhere or (gate.name, qubits) in calibrated
        others = {(q,) for q in range(info.num_qubits)} if gate.num_qubits == 1 else set()
        if gate.num_qubits == 2:
            others = {*snapshot.coupling, *(pair[::-1] for pair in snapshot.coupling)}
        standard = target.operation_from_name(gate.name)
        for qubits in sorted(others)[:: max(len(others) // 40, 1)]:
            circuit = QuantumCircuit(info.num_qubits)
            circuit.append(type(standard)(*[0.25] * len(standard.params)), qubits)
            assert form.fits(load(circuit).program) == (qubits in found[gate.name])
            if qubits not in found[gate.name]:
                assert Availability(info).problem(gate.name, qubits)


@pytest.mark.parametrize("name", library.names())
def test_target_and_admission_of_each_library_device_have_what_its_data_lists(name: str) -> None:
    check(name, library.load(name))


FAKE = "qiskit_ibm_runtime.fake_provider"
NOT_COMPARED = {"delay", "reset", "reset_2", "if_else", "while_loop", "for_loop", "switch_case"}


def fake_backends() -> list[str]:
    """Names of all classes of fake devices of the installed qiskit-ibm-runtime."""
    if importlib.util.find_spec("qiskit_ibm_runtime") is None:
        return []
    return sorted(set(vars(importlib.import_module(FAKE)).keys()) - {"FakeProviderForBackendV2"})


@pytest.mark.filterwarnings("ignore:Properties of fake_nighthawk")
@pytest.mark.parametrize("name", [each for each in fake_backends() if each.startswith("Fake")])
def test_target_of_each_fake_device_has_what_its_own_lists_and_works(name: str) -> None:
    """Each device is imported from its Target, and from its files where it has some."""
    backend = getattr(importlib.import_module(FAKE), name)()
    given = backend.target
    imported, _ = import_snapshot({"target.json": target_document(describe(backend, given), given)})
    snapshots = [imported]
    if library.resolve(backend.name):
        snapshots.append(library.load(backend.name))
    expected = {
        operation: {
            qubits: None if figures is None else (figures.error, figures.duration)
            for qubits, figures in given[operation].items()
            if figures is None or figures.error is None or figures.error < 1.0
        }
        for operation in set(given.operation_names) - NOT_COMPARED
    }
    for snapshot in snapshots:
        lists_all = {each.name for each in snapshot.fractional_gates} <= expected.keys()
        found = target_of(device_info(name, snapshot, "0"), fractional_gates=lists_all)
        assert set(found.operation_names) - NOT_COMPARED == expected.keys()
        for operation, places in expected.items():
            assert found[operation].keys() == places.keys()
            for qubits, figures in places.items():
                own = found[operation][qubits]
                values = (None, None) if own is None else (own.error, own.duration)
                for value, wanted in zip(values, figures or (None, None), strict=True):
                    assert (value or 0.0) == pytest.approx(wanted or 0.0)
    check(name, imported)


@pytest.mark.parametrize("source_format", samples.files())
def test_target_and_admission_of_each_imported_file_have_what_it_lists(source_format: str) -> None:
    check(source_format, import_snapshot(samples.files()[source_format])[0])


@pytest.mark.skipif("cairo" not in library.names(), reason="qiskit-ibm-runtime is not installed")
def test_gate_of_two_kinds_of_pairs_is_on_its_own_pairs_alone() -> None:
    target = target_of(device_info("cairo", library.load("cairo"), "0"))
    assert len(target["cx"]) == 12
    assert not {(1, 0), (0, 1), (7, 10), (10, 7)} & {*target["cx"], *target["ecr"]}


def braket(qubits: list[int]) -> CalibrationSnapshot:
    def one() -> dict[str, object]:
        kinds = (("READOUT", 0.95), ("RANDOMIZED_BENCHMARKING", 0.999))
        fidelities = [{"fidelityType": {"name": kind}, "fidelity": f} for kind, f in kinds]
        times = {key: {"value": 40e-6, "unit": "S"} for key in ("T1", "T2")}
        return {**times, "oneQubitFidelity": fidelities}

    pairs = {
        f"{a}-{b}": {"twoQubitGateFidelity": [{"gateName": "CZ", "fidelity": 0.99}]}
        for a, b in pairwise(qubits)
    }
    document = {
        "paradigm": {"nativeGateSet": ["cz", "prx"], "connectivity": {"fullyConnected": False}},
        "standardized": {
            "oneQubitProperties": {str(qubit): one() for qubit in qubits},
            "twoQubitProperties": pairs,
        },
    }
    return import_snapshot({"device.json": json.dumps(document).encode()})[0]


def test_number_that_no_record_names_is_no_qubit_and_never_chosen() -> None:
    snapshot = braket([1, 2, 4])
    assert snapshot.unusable == (0, 3)
    info = device_info("gaps", snapshot, "0")
    circuit = QuantumCircuit(1, 1)
    circuit.x(0)
    circuit.measure(0, 0)
    assert Compiler(info).compiled(load(circuit), "auto").layouts[1] == b"\1\0"
    compiled = transpile(circuit, target=target_of(info), optimization_level=3, seed_transpiler=1)
    assert compiled.layout.initial_index_layout()[0] in (1, 2, 4)
    with pytest.raises(OptionError, match="no usable qubit 3"):
        Compiler(info).compiled(load(circuit), "auto", (3,))


def line(**changes: object) -> CalibrationSnapshot:
    """Device of four qubits: cx on 0-1 and 2-3, cz on 1-2."""
    pairs = {"cx": ((0, 1), (2, 3)), "cz": ((1, 2), (2, 1))}
    singles = ("sx", "x", "rz")
    fields: dict[str, object] = {
        "native_gates": (
            NativeGate("sx", 1), NativeGate("x", 1), NativeGate("rz", 1, 1),
            NativeGate("cx", 2), NativeGate("cz", 2),
        ),
        "coupling": ((0, 1), (1, 2), (2, 1), (2, 3)),
        "qubits": (QubitCalibration(readout_error=0.02),) * 4,
        "gates": (
            *(GateCalibration(name, (q,), 0.001) for name in singles for q in range(4)),
            *(GateCalibration(name, pair, 0.02) for name in pairs for pair in pairs[name]),
        ),
    }  # fmt: skip
    return CalibrationSnapshot("line", 4, **{**fields, **changes})  # type: ignore[arg-type]


def test_gate_on_a_pair_that_has_another_one_is_rewritten() -> None:
    info = device_info("line", line(), "0")
    circuit = QuantumCircuit(4)
    circuit.cx(1, 2)
    written = load(circuit)
    assert not NativeForm(info).fits(written.program)
    assert Availability(info).problem("cx", (1, 2)) == "device line has no cx there"
    result = Compiler(info).compiled(written, "auto", (0, 1, 2, 3))
    assert "cx" not in result.loaded.program.names
    assert "cz" in result.loaded.program.names


def test_gate_that_does_not_work_is_refused_where_it_is_pinned_and_avoided_else() -> None:
    gates = tuple(
        GateCalibration(each.name, each.qubits, 1.0)
        if each.name in ("sx", "x") and each.qubits == (0,)
        else each
        for each in line().gates
    )
    info = device_info("line", line(gates=gates), "0")
    assert "does not work" in Availability(info).problem("x", (0,))
    circuit = QuantumCircuit(1, 1)
    circuit.x(0)
    circuit.measure(0, 0)
    with pytest.raises(ProgramError) as caught:
        Compiler(info).compiled(load(circuit), "auto", (0,))
    assert caught.value.hint == "other qubits than 0, where the device lacks a gate"
    assert Compiler(info).compiled(load(circuit), "always").layouts[1] != b"\0\0"


@pytest.mark.parametrize("angle", [-7.0, -math.pi, -2.0, -0.3, 0.3, math.pi / 2, 2.0, 3.5, 9.0])
def test_angle_of_rzz_is_folded_into_its_limits(angle: float) -> None:
    circuit = QuantumCircuit(2)
    circuit.rzz(angle, 0, 1)
    result = QuantumCircuit(2)
    fold_rzz(result, angle)
    assert Operator(result).equiv(Operator(circuit))
    angles = [each.params[0] for each in result.data if each.name == "rzz"]
    assert all(0.0 <= each <= math.pi / 2 for each in angles)


def test_limits_of_angles_hold_in_target_compilation_and_admission() -> None:
    natives = (*line().native_gates[:3], NativeGate("rzz", 2, 1))
    singles = tuple(each for each in line().gates if len(each.qubits) == 1)
    snapshot = line(
        native_gates=natives,
        gates=(*singles, *(GateCalibration("rzz", pair, 0.01) for pair in ((0, 1), (1, 0)))),
        angle_bounds=(AngleBounds("rzz", ((0.0, math.pi / 2),)),),
    )
    info = device_info("line", snapshot, "0")
    assert not target_of(info).supported_angle_bound("rzz", [-0.3])
    circuit = QuantumCircuit(2)
    circuit.rzz(-0.3, 0, 1)
    assert not NativeForm(info).fits(load(circuit).program)
    result = Compiler(info).compiled(load(circuit), "auto", (0, 1))
    assert NativeForm(info).fits(result.loaded.program)
    compiled = Transpiler(info).transpiled(circuit, (0, 1))
    assert [each.params for each in compiled.data if each.name == "rzz"] == [[pytest.approx(0.3)]]


@pytest.mark.skipif("cairo" not in library.names(), reason="qiskit-ibm-runtime is not installed")
@pytest.mark.parametrize("width", [2, 8])
def test_pairs_of_different_gates_in_one_direction_are_compiled(width: int) -> None:
    info = device_info("cairo", library.load("cairo"), "0")
    circuit = QuantumCircuit(width, width)
    circuit.h(0)
    for qubit in range(width - 1):
        circuit.cx(qubit, qubit + 1)
    circuit.measure(range(width), range(width))
    compiled = Compiler(info).compiled(load(circuit), "auto").loaded
    assert NativeForm(info).fits(compiled.program)


@pytest.mark.skipif("fez" not in library.names(), reason="qiskit-ibm-runtime is not installed")
def test_idle_qubits_need_no_place() -> None:
    """Two qubits of fez have no gate with another; Qiskit's placement panics for a circuit of all
    widths that uses a connected part with one of them."""
    snapshot = library.load("fez")
    info = device_info("fez", snapshot, "0")
    reached = [0]
    for qubit in reached:
        near = sorted(b for a, b in snapshot.coupling if a == qubit and b not in reached)
        reached += near[: 60 - len(reached)]
    pairs = [pair for pair in snapshot.coupling if {*pair} <= {*reached}]
    assert any(32 in pair for pair in pairs)
    circuit = QuantumCircuit(info.num_qubits, 1)
    circuit.h(reached)
    circuit.barrier()
    for one, two in pairs:
        circuit.cz(one, two)
    circuit.measure(reached[-1], 0)
    for level in (BY_COST, 3):
        compiled = Transpiler(info, level).run(circuit)
        assert NativeForm(info).fits(load(compiled).program)
        first = compiled.layout.initial_index_layout(filter_ancillas=True)
        last = compiled.layout.final_index_layout(filter_ancillas=True)
        assert sorted(first) == sorted(last) == list(range(info.num_qubits))
        (measure,) = compiled.get_instructions("measure")
        assert compiled.find_bit(measure.qubits[0]).index == last[reached[-1]]
    circuit.h(range(info.num_qubits))  # a place, but no neighbour
    assert NativeForm(info).fits(load(Transpiler(info).run(circuit)).program)
    for qubit in range(1, info.num_qubits):
        circuit.cx(qubit - 1, qubit)
    with pytest.raises(ProgramError, match=r"joins 156 qubits .* connects 154: not 32, 80\n"):
        Transpiler(info).run(circuit)


def test_a_circuit_with_idle_qubits_has_its_own_state() -> None:
    """Three of five qubits on a device that connects four of five."""
    gates = [NativeGate(name, size, params) for name, size, params in
             (("cz", 2, 0), ("sx", 1, 0), ("rz", 1, 1), ("x", 1, 0))]  # fmt: skip
    pairs = [(0, 1), (1, 2), (2, 3)]
    coupling = (*pairs, *(pair[::-1] for pair in pairs))
    snapshot = CalibrationSnapshot("part", 5, native_gates=tuple(gates), coupling=coupling)
    circuit = QuantumCircuit(5)
    circuit.h([4, 0, 2])
    for one, two, angle in ((4, 0, 0.3), (0, 2, -math.pi / 2), (2, 4, 0.7)):
        circuit.rzz(angle, one, two)
        circuit.rx(angle, one)
    halves = msgspec.structs.replace(snapshot, num_qubits=4, coupling=((0, 1), (2, 3)))
    parts = QuantumCircuit(4)
    parts.cz([0, 2], [1, 3])
    assert Transpiler(device_info("halves", halves, "0")).run(parts).count_ops() == {"cz": 2}
    compiled = Transpiler(device_info("part", snapshot, "0")).transpiled(circuit)
    layout = compiled.layout
    assert layout.initial_index_layout(filter_ancillas=True)[4] != 4
    assert Operator.from_circuit(compiled).equiv(Operator(circuit))


def limited(*singles: str) -> CalibrationSnapshot:
    """Two qubits with rzz from 0 to pi/2, and these gates on one qubit."""
    params = {"rz": 1, "rx": 1}
    return CalibrationSnapshot(
        "limited",
        2,
        native_gates=(
            *(NativeGate(name, 1, params.get(name, 0)) for name in singles),
            NativeGate("rzz", 2, 1),
        ),
        coupling=((0, 1), (1, 0)),
        angle_bounds=(AngleBounds("rzz", ((0.0, math.pi / 2),)),),
    )


@pytest.mark.parametrize("singles", [("rz", "rx"), ("rz", "sx", "x")])
def test_swept_angle_of_rzz_is_folded_for_each_binding(singles: tuple[str, ...]) -> None:
    info = device_info("limited", limited(*singles), "0")
    a, b = Parameter("a"), Parameter("b")
    circuit = QuantumCircuit(2)
    circuit.rz(a, 0)
    circuit.rzz(a, 0, 1)
    circuit.rzz(2 * b, 1, 0)
    circuit.rzz(0.5, 0, 1)
    circuit.rzz(a, 1, 0)
    values = np.array([[-7.0, 0.1], [-math.pi, 0.2], [-0.3, 0.3], [1.0, 0.0], [2.0, 0.7]])
    compiler = Compiler(info)
    loaded = load(circuit)
    folded, rows = compiler.within_limits(loaded, loaded.bind(values))
    (low, high) = info.angle_limits[0].bounds_rad[0]
    for row, given in zip(rows, values, strict=True):
        program = folded.program
        params = np.frombuffer(program.params, np.float64).copy()
        slots = np.frombuffer(program.slots, np.int32).reshape(-1, 2)
        params[slots[:, 0]] = row[slots[:, 1]]
        bound = msgspec.structs.replace(program, params=params.tobytes(), num_slots=0, slots=b"")
        assert NativeForm(info).fits(bound)
        expected = circuit.assign_parameters(dict(zip((a, b), given.tolist(), strict=True)))
        assert Operator(to_qiskit(bound)).equiv(Operator(expected))
    inside = np.array([[0.1, 0.1], [0.2, 0.3]])
    same, unchanged = compiler.within_limits(loaded, inside)
    assert same is loaded
    assert unchanged is inside
    assert (low, high) == (0.0, math.pi / 2)


def test_qubit_that_reads_0_and_1_alike_is_chosen_last() -> None:
    misread = QubitCalibration(p01=1.0, p10=0.0)
    info = device_info("line", line(qubits=(misread, *line().qubits[1:])), "0")
    assert Availability(info).misread == (0,)
    assert 0 not in Availability(Availability(info).well_read).usable
    circuit = QuantumCircuit(1, 1)
    circuit.x(0)
    circuit.measure(0, 0)
    assert Compiler(info).compiled(load(circuit), "always").layouts[0] != b"\0\0"
    assert Compiler(info).compiled(load(circuit), "auto", (0,)).layouts[0] == b"\0\0"
    wide = QuantumCircuit(4, 4)
    wide.h(range(4))
    wide.measure(range(4), range(4))
    layout = Compiler(info).compiled(load(wide), "auto").layouts[0]
    assert sorted(np.frombuffer(layout, np.uint16).tolist()) == [0, 1, 2, 3]


@pytest.mark.parametrize("name", ["measure", "reset"])
def test_measurement_and_reset_of_error_1_are_refused_and_avoided(name: str) -> None:
    broken = {"measure": {"readout_error": 1.0}, "reset": {"reset_error": 1.0}}[name]
    qubits = (QubitCalibration(**{"readout_error": 0.02, **broken}), *line().qubits[1:])
    info = device_info("line", line(qubits=qubits, dynamic=True), "0")
    assert "does not work" in Availability(info).problem(name, (0,))
    circuit = QuantumCircuit(1, 1)
    circuit.x(0)
    circuit.measure(0, 0)
    circuit.reset(0)
    circuit.measure(0, 0)
    assert not NativeForm(info).fits(load(circuit).program)
    assert Compiler(info).compiled(load(circuit), "auto").layouts[0] != b"\0\0"


def test_gate_that_qiskit_does_not_have_is_left_out_of_the_target() -> None:
    own = (*line().native_gates, NativeGate("rx_half", 1))
    gates = (*line().gates, GateCalibration("rx_half", (0,), 0.001))
    info = device_info("line", line(native_gates=own, gates=gates), "0")
    assert "rx_half" not in target_of(info).operation_names
    circuit = QuantumCircuit(2, 2)
    circuit.h(0)
    circuit.measure([0, 1], [0, 1])
    assert NativeForm(info).fits(Compiler(info).compiled(load(circuit), "auto").loaded.program)
    alone = device_info("line", line(native_gates=own[-1:], gates=gates[-1:]), "0")
    with pytest.raises(OptionError, match="Qiskit has no gate 'rx_half'"):
        target_of(alone)


def test_measurement_of_a_name_that_no_data_lists_is_on_no_qubit() -> None:
    info = device_info("line", line(), "0")
    available = Availability(info)
    assert available.places("measure_2") == {}
    assert available.problem("measure_2", (0,)) == "device line has no measure_2 there"
    assert available.measurements == ()


def test_gates_of_a_linked_device_stay_in_their_modules() -> None:
    """A link makes pairs: verbatim circuits name its gate, and no compilation leads over it."""
    info = device_info("duo", linked(), "")
    assert Availability(info).problem("rxx", (1, 3)) == ""
    assert "no cz there" in Availability(info).problem("cz", (1, 3))
    assert "rxx" not in target_of(info).operation_names
    assert set(target_of(info)["cz"]) == {(0, 1), (1, 2), (3, 4), (4, 5)}
    bell = QuantumCircuit(6)
    bell.rxx(math.pi / 2, 1, 3)
    assert NativeForm(info).fits(load(bell).program)
    over = QuantumCircuit(6)
    over.cz(1, 3)
    assert not NativeForm(info).fits(load(over).program)
    chain = QuantumCircuit(4)
    for a, b in pairwise(range(4)):
        chain.cx(a, b)
    with pytest.raises(ProgramError, match="cannot be compiled for device duo"):
        Transpiler(info).run(chain)
    inside = Transpiler(info).run(chain.copy_empty_like())
    assert inside.num_qubits == 6
    assert Availability(info).inside_modules.num_qubits == 6
    single = device_info("one", msgspec.structs.replace(linked(), modules=(), links=()), "")
    assert Availability(single).inside_modules is single


def test_a_linked_device_has_modules_links_and_origin() -> None:
    info = device_info("duo", linked(), "")
    assert [(each.name, each.qubits, each.communication) for each in info.modules] == [
        ("a", (0, 1, 2), (1,)), ("b", (3, 4, 5), (3,)),
    ]  # fmt: skip
    (link,) = info.links
    assert (link.pair, round(link.fidelity, 9), link.latency_ns) == ((1, 3), 0.95, 5e3)
    assert link.wait_ns == pytest.approx(linked().links[0].mean_wait_ns)
    limited = msgspec.structs.replace(linked().links[0], attempts_max=50)
    few = device_info("duo", msgspec.structs.replace(linked(), links=(limited,)), "")
    assert few.links[0].wait_ns == pytest.approx(limited.mean_wait_ns)
    assert info.logical is None
