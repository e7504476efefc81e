"""Circuits of stim on calibrated devices, compared with circuits of gates on the same devices."""

import functools
from math import exp, pi

import engine_runs
import msgspec
import numpy as np
import pytest
import stim
from arrays import Arrays
from failing import fails
from scipy.stats import chi2_contingency

from noise_models import library
from noise_models.build import build
from noise_models.calibration import (
    CalibrationSnapshot,
    GateCalibration,
    NativeGate,
    QubitCalibration,
)
from noise_models.drawn import drawn
from noise_models.options import NoiseOptions
from noise_models.strict_json import SnapshotError
from simulators.circuit.passes.attach_noise import NoiseAttachment
from simulators.engine import Request
from simulators.errors import Unsupported
from simulators.simulate import counts_of
from simulators.stabilizer.device_circuit import DeviceCircuit, DeviceProgram, pairs_of
from simulators.stabilizer.device_gates import DeviceGates
from simulators.stabilizer.engine import StabilizerEngine
from simulators.stabilizer.native_synthesis import NativeMove, pair, single

LEAST_P = 1e-4
SHOTS = 400_000
# Both outcomes are read wrongly alike, as the mean that stim's records have.
LOUD = {"all": 6.0, "gate.crosstalk": 0.0, "qubit.p01": 0.004, "qubit.p10": 0.004}


@functools.cache
def lattice() -> CalibrationSnapshot:
    return library.load("superconducting-lattice")


def placed(
    circuit: stim.Circuit, places: dict[int, int], noise: object = "on", late_ns: float = 0.0,
    snapshot: CalibrationSnapshot | None = None,
) -> DeviceCircuit:  # fmt: skip
    snapshot = snapshot or lattice()
    model = build(snapshot, NoiseOptions.parse(noise))  # type: ignore[arg-type]
    program = DeviceProgram(circuit, DeviceGates(snapshot), places, late_ns)
    return program.noisy(NoiseAttachment(model))


# Native gates of the lattice for some of stim's, written by hand.
_H = (("rz", pi / 2), ("sx", None), ("rz", pi / 2))
_SINGLE = {"H": _H, "X": (("x", None),), "S": (("rz", pi / 2),), "SQRT_X": (("sx", None),)}


def as_gates(circuit: stim.Circuit, places: dict[int, int]) -> Arrays:
    """The circuit in native gates, with a barrier for each TICK; each record is a clbit. A
    reset acts wherever it stands, also on a qubit that is still |0>."""
    arrays = Arrays(lattice().num_qubits, circuit.num_measurements)
    used, records = sorted(places.values()), 0

    def single_gate(name: str, qubit: int) -> None:
        for gate, angle in _SINGLE[name]:
            arrays.add(gate, [qubit], (), [] if angle is None else [angle])

    for item in circuit.flattened():
        targets = [places[each.value] for each in item.targets_copy() if each.is_qubit_target]
        if item.name == "TICK":
            arrays.add("barrier", used)
        elif item.name in _SINGLE:
            for qubit in targets:
                single_gate(item.name, qubit)
        elif item.name in ("CX", "CZ"):
            for first, second in zip(targets[::2], targets[1::2], strict=True):
                if item.name == "CX":
                    single_gate("H", second)
                arrays.add("cz", [first, second])
                if item.name == "CX":
                    single_gate("H", second)
        elif item.name in ("M", "MR", "R"):
            for qubit in targets:
                if "M" in item.name:
                    arrays.add("measure", [qubit], [records])
                    records += 1
                if "R" in item.name:
                    arrays.add("reset", [qubit])
    return arrays


CIRCUITS = {
    "parities": """
        R 0 1 2 3
        TICK
        H 0
        TICK
        CX 0 1
        TICK
        CX 1 2
        TICK
        REPEAT 5 {
            CX 0 3
            TICK
            MR 3
            TICK
        }
        M 0 1 2
    """,
    "without TICKs": """
        H 0
        CX 0 1 1 2
        S 2
        H 2
        M 1
        CZ 0 1
        SQRT_X 0
        CX 0 3
        M 0 2 3
    """,
    "resets": """
        R 0 1
        X 0
        TICK
        CX 0 1
        TICK
        M 0
        R 0
        TICK
        H 1
        TICK
        H 1
        CX 1 0
        M 0 1
    """,
}
PLACES = {0: 1, 1: 2, 2: 3, 3: 0}


@pytest.mark.parametrize("name", CIRCUITS)
def test_records_are_those_of_the_twirled_stabilizer_engine(name: str) -> None:
    circuit = stim.Circuit(CIRCUITS[name])
    found = placed(circuit, PLACES, LOUD)
    bits = found.circuit.compile_sampler(seed=5).sample(SHOTS)
    width = circuit.num_measurements
    mine = np.bincount(bits @ (1 << np.arange(width)), minlength=1 << width)
    gates = as_gates(circuit, PLACES).circuit()
    noise = NoiseAttachment(build(lattice(), NoiseOptions.parse(LOUD))).attach(gates)
    request = Request(SHOTS, 7, ("counts",))
    result = engine_runs.run(
        StabilizerEngine(), gates, request, noise, settings=(("twirl", 1),)
    )  # fmt: skip
    theirs = np.zeros(1 << width, np.int64)
    for outcome, count in counts_of(result).items():
        theirs[outcome] = count
    table = np.array([mine, theirs])
    table = table[:, table.sum(axis=0) > 20]
    assert table.shape[1] > 4
    assert chi2_contingency(table).pvalue > LEAST_P
    louder = placed(circuit, PLACES, {**LOUD, "all": 6.5}).circuit.compile_sampler(seed=5)
    other = np.bincount(louder.sample(SHOTS) @ (1 << np.arange(width)), minlength=1 << width)
    table = np.array([other, theirs])
    assert chi2_contingency(table[:, table.sum(axis=0) > 20]).pvalue < LEAST_P  # it can fail


def test_passes_of_blocks_have_the_noise_that_they_have_written_out() -> None:
    nested = stim.Circuit("""
        R 0 1 2
        TICK
        REPEAT 6 {
            H 1
            TICK
            REPEAT 5 {
                CX 0 1
                TICK
                M 1
                TICK
                DETECTOR rec[-1]
            }
            MX 2
            REPEAT 3 {
                S 0
            }
        }
        M 0 1 2
    """)
    places = {0: 0, 1: 1, 2: 2}
    noise = {"gate.crosstalk": 0.0}
    short, long = placed(nested, places, noise), placed(nested.flattened(), places, noise)
    assert short.circuit.flattened() == long.circuit.flattened()
    assert len(str(short.circuit)) < len(str(long.circuit)) / 2
    assert short.duration_ns == pytest.approx(long.duration_ns)
    assert (short.layers, short.gates) == (long.layers, long.gates)


def idle_device() -> CalibrationSnapshot:
    """Two coupled qubits that relax, with gates and measurements that are perfect."""
    qubit = QubitCalibration(
        t1_us=20.0, t2_us=15.0, p01=0.0, p10=0.0, readout_ns=500.0, reset_ns=0.0, excited=0.0
    )
    return CalibrationSnapshot(
        name="idle", num_qubits=2, dynamic=True, all_to_all=True, qubits=(qubit, qubit),
        native_gates=(NativeGate("rz", 1, 1), NativeGate("sx", 1), NativeGate("cz", 2)),
        gates=tuple(GateCalibration(name, (), 0.0, 0.0) for name in ("rz", "sx", "cz")),
    )  # fmt: skip


@pytest.mark.parametrize("late_us", [0.0, 1.0, 8.0])
def test_late_decoder_costs_relaxation_and_dephasing_of_its_time(late_us: float) -> None:
    rounds, shots = 4, 200_000
    for basis, time_us in (("Z", 20.0), ("X", 15.0)):
        first, last = ("H 0", "H 0\nTICK") if basis == "X" else ("X 0", "")
        circuit = stim.Circuit(
            f"R 0 1\n{first}\nTICK\nREPEAT {rounds} {{\nM 1\nTICK\n}}\n{last}\nM 0\n"
            "OBSERVABLE_INCLUDE(0) rec[-1]"
        )
        found = placed(circuit, {0: 0, 1: 1}, late_ns=1e3 * late_us, snapshot=idle_device())
        assert found.duration_ns == pytest.approx(rounds * (500.0 + 1e3 * late_us) + 500.0)
        flips = found.circuit.compile_detector_sampler(seed=3).sample(
            shots, separate_observables=True
        )[1]
        # A twirled relaxation is a flip of X or Y with (1 - exp(-t / T1)) / 2, of Z or Y with T2.
        expected = 0.5 * (1.0 - exp(-rounds * (0.5 + late_us) / time_us))
        assert abs(flips.mean() - expected) < 3 * np.sqrt(expected / shots)


@pytest.mark.parametrize(
    ("text", "places", "message"),
    [
        ("CX 0 1\nM 0", {0: 0, 1: 5}, "CX on qubits 0, 5 of device superconducting-lattice"),
        ("CX 0 1\nM 0", {0: 0, 1: 27}, "qubit 1 is mapped to qubit 27"),
        ("H 0\nM 0", {}, "qubit 0 has no place"),
        ("X_ERROR(0.1) 0\nM 0", {0: 0}, "X_ERROR.*noise of its own"),
        ("M(0.1) 0", {0: 0}, "noise of its own"),
        ("MPP X0*X1", {0: 0, 1: 1}, "MPP on a device"),
        ("MZZ 0 1", {0: 0, 1: 1}, "MZZ on a device"),
        ("M 0\nCX rec[-1] 1", {0: 0, 1: 1}, "under a condition"),
        ("REPEAT 9000000 {\nH 0\n}\nM 0", {0: 0}, "more than 300000 operations"),
    ],
)
def test_what_the_device_does_not_do_is_refused_by_name(
    text: str, places: dict[int, int], message: str
) -> None:
    fails(Unsupported, message, placed, stim.Circuit(text), places)


def test_noise_without_a_twirl_is_refused_with_its_factor() -> None:
    qubits = tuple(msgspec.structs.replace(q, t2_star_us=5.0) for q in idle_device().qubits)
    detuned = msgspec.structs.replace(idle_device(), qubits=qubits)
    circuit, places = stim.Circuit("H 0\nTICK\nM 1\nTICK\nH 0\nM 0"), {0: 0, 1: 1}
    error = fails(Unsupported, "quasistatic", placed, circuit, places, snapshot=detuned)
    assert "'qubit.quasistatic': 0" in error.hint
    placed(circuit, places, {"qubit.quasistatic": 0.0}, snapshot=detuned)


def test_bases_are_turned_back_only_for_later_operations() -> None:
    quiet = "off"
    used = placed(stim.Circuit("MX 0\nTICK\nH 0\nM 0"), {0: 0}, quiet)
    unused = placed(stim.Circuit("MX 0\nTICK\nR 0\nH 0\nM 0"), {0: 0}, quiet)
    assert (dict(used.gates)["sx"], dict(unused.gates)["sx"]) == (3, 2)
    circuit = stim.Circuit("RY 0\nMY !0\nMRX 0\nMX 0\nMX 0")
    bits = placed(circuit, {0: 0}, quiet).circuit.compile_sampler(seed=1).sample(100)
    assert bits[:, 0].all()
    assert not bits[:, 2:].any()


def test_synthesis_gives_every_gate_of_stim() -> None:
    rz, sx = NativeMove("rz", 0.0, False), NativeMove("sx", 32.0, True)
    for native in ("cz", "cx", "ecr", "iswap", "rzz"):
        paired = (NativeMove(native, 68.0, True, reversed=native == "ecr"),)
        for name, data in stim.gate_data().items():
            if not data.is_unitary or name in ("I", "II", "SPP", "SPP_DAG"):
                continue
            tableau = stim.Tableau.from_named_gate(name)
            if data.is_single_qubit_gate:
                found = single(tableau, (rz, sx))
                steps = None if found is None else found[0]
            else:
                steps = pair(tableau, (rz, sx), (rz, sx), paired)
            assert steps is not None
            circuit = stim.Circuit(f"I {len(tableau) - 1}")
            for step in steps:
                for each, at in step.written:
                    circuit.append(each, [step.operands[k] for k in at])
            assert circuit.to_tableau() == tableau
    assert pair(stim.Tableau.from_named_gate("CX"), (rz, sx), (rz, sx), ()) is None
    assert single(stim.Tableau.from_named_gate("H"), (rz,)) is None


def test_synthesis_takes_the_fewest_gates_that_have_time() -> None:
    gates = DeviceGates(lattice())
    for name, qubits, expected in (
        ("H", (0,), ["sx"]), ("S", (0,), []), ("X", (0,), ["x"]), ("CZ", (0, 1), ["cz"]),
        ("CX", (0, 1), ["sx", "cz", "sx"]),
    ):  # fmt: skip
        steps = gates.steps(name, qubits)
        assert [step.name for step in steps if step.name != "rz"] == expected
    swap = [step.name for step in gates.steps("SWAP", (0, 1))]
    assert swap.count("cz") == 3


def test_draws_are_of_working_qubits_and_depend_on_their_number_alone() -> None:
    base = lattice()
    broken = msgspec.structs.replace(base, unusable=tuple(range(20)))
    device = drawn(broken, 30, [(0, 1), (7, 3)], 4)
    assert set(device.qubits) <= set(base.qubits[20:])
    assert set(device.coupling) == {(0, 1), (1, 0), (3, 7), (7, 3)}
    assert {g.qubits for g in device.gates if len(g.qubits) == 2} <= set(device.coupling)
    assert drawn(broken, 9, [(0, 1)], 4).qubits == device.qubits[:9]
    assert drawn(broken, 30, [(0, 1)], 5).qubits != device.qubits
    fails(SnapshotError, "no working qubit", drawn, msgspec.structs.replace(
        base, unusable=tuple(range(27))), 2, [], 0)  # fmt: skip
    code = stim.Circuit.generated("surface_code:rotated_memory_x", distance=3, rounds=2)
    places = {qubit: k for k, qubit in enumerate(code.get_final_qubit_coordinates())}
    pairs = pairs_of(code, places)
    assert len(pairs) == 24
    found = placed(code, places, snapshot=drawn(base, len(places), pairs, 0))
    assert found.circuit.num_detectors == code.num_detectors
    assert found.layers == 2
