"""The device that a result records, and large results of workers on any node."""

import hashlib
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from failing import fails
from qiskit import QuantumCircuit

from noise_models import document, library
from noise_models.calibration import (
    CalibrationSnapshot,
    FitScope,
    GateCalibration,
    LayerCalibration,
    LayerGate,
    NativeGate,
    PauliGenerator,
    QubitCalibration,
)  # fmt: skip
from simenv.client.circuits import load
from simenv.client.submission.noise import ON
from simenv.errors import StoreError
from simenv.model import DeviceRecord, NoiseFactors, Program, ResultFile, TaskOptions
from simenv.result_files import UNFINISHED, attempt_file
from simenv.service.devices.registry import device_info
from simenv.wire.messages.client import AssignChunk, AssignedTask, NoiseDocument
from simenv.worker import noise as noise_module
from simenv.worker.noise import Noise
from simenv.worker.result_files import ResultFileWriter
from simulators.circuit.analysis import fit_scope
from simulators.circuit.ir import Circuit
from simulators.engine import EngineResult

DEVICE = "superconducting-lattice"


def measured(num_qubits: int, *gates: tuple[Any, ...], read: tuple[int, ...]) -> QuantumCircuit:
    """Gates as names and arguments, and measurements of the qubits `read`."""
    made = QuantumCircuit(num_qubits, len(read))
    for name, *arguments in gates:
        getattr(made, name)(*arguments)
    made.measure(read, range(len(read)))
    return made


def circuit() -> QuantumCircuit:
    made = QuantumCircuit(2, 2, global_phase=0.5)
    made.sx(0)
    made.cz(0, 1)
    made.barrier()
    made.delay(100, 1, "ns")
    made.reset(1)
    made.sx(1)
    with made.if_test((made.clbits[0], 0)):
        made.x(1)
    made.measure([0, 1], [0, 1])
    return made


def recorded(body: bytes, asked: QuantumCircuit | None = None, **terms: Any) -> DeviceRecord:
    noise, program = Noise(), load(asked or circuit()).program
    digest = hashlib.sha256(body).hexdigest()
    noise.receive(NoiseDocument(digest, body))
    task = AssignedTask(
        1, 1, 0, program.packed(), 100, 1, b"", 0, layout=b"\1\0", initial_layout=b"\0\0"
    )
    return noise.record(program, task, TaskOptions(snapshot=digest, **terms))


def channels(*gates: str, **more: Any) -> bytes:
    entries = [{"gate": gate, "depolarizing": 0.1, **more} for gate in gates]
    return msgspec.json.encode({"kind": "channels", "name": "mine", "channels": entries})


def calibration() -> bytes:
    return document.dump(library.load(DEVICE))


def test_layouts_and_gates_without_measurements_and_barriers_are_recorded() -> None:
    result = recorded(calibration())
    assert result.gates == (("cz", 1), ("sx", 2), ("x", 1))
    assert (result.layout, result.initial_layout) == (b"\1\0", b"\0\0")


def test_noise_that_acts_nowhere_is_named() -> None:
    (text,) = recorded(channels("h", "t")).warnings
    assert "ran without noise" in text
    assert "channels of h; t;" in text
    assert "the circuit has cz; sx; x; labels are read from a QuantumCircuit or QPY" in text
    (text,) = recorded(channels("sx", qubits=[7])).warnings
    assert "channels of sx on 7;" in text
    assert recorded(channels("sx", "h")).warnings == ()
    flips = {"kind": "channels", "name": "flips", "readout": [{"p01": 0.1, "p10": 0.1}]}
    assert recorded(msgspec.json.encode(flips)).warnings == ()
    (text,) = recorded(channels("sx", "h"), device=DEVICE, replaced_gates=("cx", "h")).warnings
    assert text.startswith("channels of h do not act: compilation for device")
    assert recorded(channels("sx"), device=DEVICE, replaced_gates=("cx", "h")).warnings == ()


def test_limited_factor_is_named() -> None:
    (text,) = recorded(calibration(), noise=(("gate.depolarizing", 1e9),)).warnings
    assert text.startswith("gate.depolarizing * 1e+09")
    assert recorded(calibration(), noise=(("gate.depolarizing", 2.0),)).warnings == ()


@pytest.mark.parametrize("noise", [(), ON, (("recipe.aer", 1.0),), (("gate.depolarizing", 0.5),)])
def test_gates_whose_errors_act_on_pairs_are_named(noise: NoiseFactors) -> None:
    """Those of the circuit, not of the device, under every noise that has such errors."""
    snapshot = CalibrationSnapshot(
        "wide",
        4,
        native_gates=(NativeGate("ccx", 3), NativeGate("cswap", 3), NativeGate("x", 1)),
        qubits=(QubitCalibration(t1_us=80.0, t2_us=60.0, p01=0.01, p10=0.02),) * 4,
        gates=(
            GateCalibration("x", error=1e-3, duration_ns=30.0),
            GateCalibration("ccx", (0, 1, 2), error=0.05, duration_ns=300.0),
            GateCalibration("cswap", (0, 1, 2), error=0.05, duration_ns=300.0),
        ),
    )
    body = document.dump(snapshot)
    plain = QuantumCircuit(3, 3)
    plain.x(0)
    plain.barrier()
    plain.measure(range(3), range(3))
    assert recorded(body, plain, device="wide", noise=noise).warnings == ()
    plain.ccx(0, 1, 2)
    (text,) = recorded(body, plain, device="wide", noise=noise).warnings
    assert text.startswith("the error of ccx, on more than two qubits, acts as Pauli errors")
    for off in ((("all", 0.0),), (("gate.depolarizing", 0.0),)):
        assert recorded(body, plain, device="wide", noise=off).warnings == ()


def test_layers_do_not_act_in_a_circuit_with_blocks_and_a_warning_says_so() -> None:
    learned = LayerCalibration(
        (LayerGate("cz", (0, 1)),), (0, 1), (PauliGenerator("XX", (0, 1), 0.1),)
    )
    snapshot = msgspec.structs.replace(library.load(DEVICE), dynamic=True, layers=(learned,))
    body = document.dump(snapshot)
    plain = measured(2, ("cz", 0, 1), read=(0, 1))
    assert recorded(body, plain, device=DEVICE).warnings == ()
    branched = QuantumCircuit(2, 2)
    branched.measure(0, 0)
    with branched.if_test((0, 1)):
        branched.x(0)
    branched.cz(0, 1)
    (text,) = recorded(body, branched, device=DEVICE).warnings
    assert "errors of layers do not act" in text
    assert "cz has the error of the gate alone" in text
    assert recorded(body, branched, device=DEVICE, noise=(("gate.layer", 0.0),)).warnings == ()


def test_a_circuit_that_differs_from_those_of_the_fit_is_warned_of() -> None:
    snapshot = library.load(DEVICE)
    scope = FitScope("lattice", (0, 1), 12, 2, 1, ("ghz",), "2024-03-01", "2024-03-04")
    body = document.dump(msgspec.structs.replace(snapshot, fitted=scope))
    assert (recorded(body).warnings, recorded(body, name="GHZ 2").warnings) == ((), ())
    wide = measured(4, ("cz", 0, 1), ("cz", 1, 2), read=(2,))
    (text,) = recorded(body, wide, name="qft-3").warnings
    assert text == (
        "the noise was fitted to 12 circuits of ghz, of 2024-03-01 to 2024-03-04, with at most 2"
        " qubits and 1 two-qubit gates, on qubits 0; 1 (others are as calibrated); this"
        " circuit has family qft, 3 qubits, 2"
        " two-qubit gates, qubits 2"
    )
    placed = msgspec.structs.replace(scope, placed=True, widest=3, two_qubit_gates=2)
    body = document.dump(msgspec.structs.replace(snapshot, fitted=placed))
    assert recorded(body, wide).warnings == ()


def test_scope_of_a_fit_is_compared_once_with_each_circuit(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many tasks run it; a circuit outside has the calibration before the fit."""
    snapshot = library.load(DEVICE)
    scope = FitScope("lattice", (0, 1), 3, 2, 1)
    body = document.dump(msgspec.structs.replace(snapshot, fitted=scope, outside=snapshot))
    compared, walk = [], fit_scope.most_of_a_qubit
    monkeypatch.setattr(
        fit_scope, "most_of_a_qubit", lambda *each: compared.append(each) or walk(*each)
    )
    noise, digest = Noise(), hashlib.sha256(body).hexdigest()
    noise.receive(NoiseDocument(digest, body))
    wide = measured(3, ("cz", 0, 1), ("cz", 1, 2), read=(2,))
    for asked, times, outside in ((circuit(), 1, False), (wide, 3, True)):
        program = load(asked).program
        for number in range(3):
            task = AssignedTask(1, number, 0, program.packed(), 100, 1, b"", 0)
            terms = TaskOptions(snapshot=digest, device=DEVICE)
            text = " ".join(noise.record(program, task, terms).warnings)
            assert ("calibration before the fit, of lattice" in text) is outside
        assert len(compared) == times


def test_a_fit_that_was_stored_by_force_says_so() -> None:
    scope = FitScope("lattice", (0, 1), 12, 2, 1, refused="bits in reverse order")
    snapshot = msgspec.structs.replace(library.load(DEVICE), fitted=scope)
    (text,) = recorded(document.dump(snapshot), device="mine").warnings
    assert text == "the fit of device mine was refused, and stored by force: bits in reverse order"
    info = device_info("mine", snapshot, "")
    assert info.refused_fit == "bits in reverse order"
    assert device_info("mine", library.load(DEVICE), "").refused_fit == ""


PROGRAM = Program(1, 17, 0, (), (), b"", b"", b"", b"", b"")
CHUNK = AssignChunk(1, 2**30, False, "statevector", "test", [TaskOptions()], [])
TASK = AssignedTask(5, 65_537, 0, b"", 0, 1, b"", 0)
LARGE = EngineResult(statevector=np.ones((1, 2**17), np.complex128))
SMALL = EngineResult(statevector=np.ones((1, 2**4), np.complex128))


def put(shelf: ResultFileWriter, found: EngineResult) -> object:
    return shelf.put(found, PROGRAM, TASK, TaskOptions(), CHUNK)


def test_only_large_results_need_a_visible_results_folder(tmp_path: Path) -> None:
    shelf = ResultFileWriter(tmp_path, unavailable="the folder cannot be seen from node7")
    error = fails(StoreError, "node7", put, shelf, LARGE)
    assert str(LARGE.statevector.nbytes) in error.message  # type: ignore[union-attr]
    assert "share" in error.hint
    assert list(tmp_path.iterdir()) == []
    assert put(ResultFileWriter(tmp_path, unavailable="it cannot be seen"), SMALL) is None


def test_unfinished_file_names_its_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []

    def replace(path: Path, target: Path) -> Path:
        lines.append(path.name)
        raise OSError(5, "as if the machine stopped here")

    monkeypatch.setattr(Path, "replace", replace)
    fails(StoreError, "", put, ResultFileWriter(tmp_path, mark="main.x4-0.17"), LARGE)
    name = attempt_file(5, 65_537).rpartition("/")[2]
    assert lines == [f".{name}.main.x4-0.17{UNFINISHED}"]


def test_large_gradients_are_written_to_a_file(tmp_path: Path) -> None:
    values, slopes = np.zeros((1, 2, 2)), np.arange(2.0**18)
    engine_result = EngineResult(expectations=values.tobytes(), gradients=slopes.tobytes())
    file = put(ResultFileWriter(tmp_path), engine_result)
    assert isinstance(file, ResultFile)
    (array,) = file.arrays
    assert (array.field, array.size_bytes) == ("gradients", slopes.nbytes)


def test_models_are_bounded_by_their_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The channels of each of many noise options were held whatever their size."""
    monkeypatch.setattr(noise_module, "MODEL_BYTES", 3 * 2**20)
    noise, body = Noise(), calibration()
    digest = hashlib.sha256(body).hexdigest()
    noise.receive(NoiseDocument(digest, body))
    program = load(measured(27, ("sx", range(27)), read=(0,))).program
    chosen = [TaskOptions(snapshot=digest, noise=(("all", 0.5 + 0.01 * k),)) for k in range(12)]
    built = [noise.program(program, Circuit.from_program(program), each) for each in chosen]
    total = sum(each.memory_bytes for each in noise._models.values())
    assert 1 < len(noise._models) < 12
    assert total < 3 * 2**20
    again = noise.program(program, Circuit.from_program(program), chosen[0])
    assert again.digest == built[0].digest


def test_gate_that_a_calibration_given_as_noise_does_not_have_is_named() -> None:
    asked = measured(3, ("sx", 0), ("h", 1), ("cz", 0, 1), ("cz", 0, 2), read=(0,))
    pairs = {each.qubits for each in library.load(DEVICE).gates if each.name == "cz"}
    assert (0, 1) in pairs
    assert not {(0, 2), (2, 0)} & pairs
    (text,) = recorded(calibration(), asked).warnings
    assert text == (
        "cz on 0, 2; h on 1 acted without errors: device superconducting-lattice has no measured"
        " error of them"
    )
    assert recorded(calibration(), asked, device=DEVICE).warnings == ()
    assert recorded(calibration(), asked, noise=(("all", 0.0),)).warnings == ()


def test_figures_that_a_device_lacks_are_named_where_a_circuit_uses_them() -> None:
    base = library.load(DEVICE)
    bare = msgspec.structs.replace(base.qubits[1], t1_us=None, p01=None, p10=None)
    qubits = (base.qubits[0], msgspec.structs.replace(bare, readout_error=None), *base.qubits[2:])
    gates = tuple(
        msgspec.structs.replace(each, error=None) if each.qubits == (0, 1) else each
        for each in base.gates
    )
    device = msgspec.structs.replace(base, qubits=qubits, gates=gates, unread=("column P01",))
    asked = QuantumCircuit(3, 3)
    asked.sx(2)
    asked.measure(2, 2)
    body = document.dump(device)
    left = f"noise of column P01 does not act: the import of device {DEVICE} left it out"
    assert recorded(body, asked, device=DEVICE).warnings == (left,)
    asked.cz(0, 1)
    asked.measure(1, 1)
    assert recorded(body, asked, device=DEVICE).warnings == (
        f"cz on 0, 1; measure on 1 acted without errors: device {DEVICE} has no measured error of"
        " them",
        f"no relaxation by T1 on 1: device {DEVICE} has no value",
        left,
    )
    given = (("qubit.p01", 0.1), ("qubit.t1_us", 50.0))
    texts = recorded(body, asked, device=DEVICE, noise=given).warnings
    assert not any("measure on" in text or "relaxation" in text for text in texts)


def altered(**changes: Any) -> bytes:
    """The device with other values of qubit 0, and an error of 0.8 of cz on 0 and 1."""
    base = library.load(DEVICE)
    qubits = (msgspec.structs.replace(base.qubits[0], **changes), *base.qubits[1:])
    gates = tuple(
        msgspec.structs.replace(each, error=0.8) if each.qubits == (0, 1) else each
        for each in base.gates
    )
    return document.dump(msgspec.structs.replace(base, qubits=qubits, gates=gates))


def test_operations_whose_outcome_is_random_are_named() -> None:
    asked = measured(2, ("reset", 0), ("cz", 0, 1), ("sx", 1), read=(0, 1))
    body = altered(p01=0.46, p10=0.5, reset_error=0.5)
    text = (
        "cz on 0, 1; measure on 0; reset on 0: by the calibration of device"
        " superconducting-lattice the outcome is random, whatever the circuit; choose other qubits"
    )
    for device in (DEVICE, ""):
        assert recorded(body, asked, device=device).warnings == (text,)
    assert recorded(altered(p01=0.1, p10=0.5), asked, device=DEVICE).warnings == (
        "cz on 0, 1: by the calibration of device superconducting-lattice the outcome is random,"
        " whatever the circuit; choose other qubits",
    )
    quiet = recorded(body, asked, device=DEVICE, noise=(("all", 0.0),))
    assert quiet.warnings == ()
    assert recorded(calibration(), asked, device=DEVICE).warnings == ()
