"""Claimed terms without an experiment are named, each with its reason."""

import msgspec
import numpy as np

from noise_models.calibration import (
    CalibrationSnapshot,
    CorrelatedReadout,
    GateCalibration,
    LayerCalibration,
    LayerGate,
    MeasurementCrosstalk,
    NativeGate,
    PauliGenerator,
    PauliRotation,
    QubitCalibration,
    T1Jumps,
    ZZCoupling,
)
from noise_models.confusion import independent_confusion
from noise_models.options import COMPONENTS
from simenv.calibration.certify import Claims
from simenv.calibration.experiments.clifford import native_set
from simenv.calibration.experiments.estimators import Estimate
from simenv.calibration.untested import QUANTITIES, UntestedTerm, untested
from simenv.service.devices.registry import device_info

QUBITS, PAIRS = range(3), ((0, 1),)
# What every certificate measures of every qubit and pair, or says to be without a signal.
ALWAYS = {
    "gate.leakage", "qubit.relaxation", "qubit.idle", "qubit.quasistatic", "qubit.readout",
}  # fmt: skip


def device(*, dynamic: bool) -> CalibrationSnapshot:
    """Three qubits with a value of each component."""
    qubit = QubitCalibration(
        t1_us=80.0, t2_us=60.0, t2_star_us=40.0, p01=0.01, p10=0.02, excited=0.01,
        preparation_error=0.005, reset_error=0.01, memory_error=1e-3, measure_decay=0.05,
        measure_excitation=0.02, readout_decided=0.5, t1_jumps=T1Jumps(2.0, 600.0, 0.2),
    )  # fmt: skip
    confusion = independent_confusion(np.array([(0.01, 0.02)] * 3))
    sizes = {"rz": (1, 1), "sx": (1, 0), "x": (1, 0), "cx": (2, 0), "id": (1, 0)}
    turned = (PauliRotation("ZX", 0.08), PauliRotation("ZZ", 0.03))
    return CalibrationSnapshot(
        "full", 3, dynamic=dynamic, qubits=(qubit,) * 3, coupling=((0, 1),),
        native_gates=tuple(NativeGate(name, *each) for name, each in sizes.items()),
        gates=(
            GateCalibration("rz", (), 0.0), GateCalibration("sx", (), 1e-3, leakage=1e-4),
            GateCalibration("x", (), 1e-3), GateCalibration("id", (), 1e-3),
            GateCalibration("cx", (0, 1), 0.01, rotations=turned),
        ),
        zz=(ZZCoupling((1, 2), 20.0),),
        measurement_crosstalk=(MeasurementCrosstalk((0, 1), 0.01),),
        correlated_readout=(CorrelatedReadout((0, 1, 2), tuple(map(tuple, confusion.tolist()))),),
        layers=(
            LayerCalibration(
                (LayerGate("cz", (0, 1)),), (0, 1), (PauliGenerator("X", (0,), 1e-3),)
            ),
        ),
    )  # fmt: skip


def terms(snapshot: CalibrationSnapshot, estimates: list[Estimate]) -> list[UntestedTerm]:
    gates = native_set(device_info("full", snapshot, ""))
    return untested(snapshot, gates, estimates, (QUBITS, PAIRS), 2e4)


def test_each_component_has_quantities_and_is_named_where_nothing_was_measured() -> None:
    assert set(QUANTITIES) == set(COMPONENTS)
    found = terms(device(dynamic=False), [])
    assert {each.component for each in found} == set(COMPONENTS) - ALWAYS
    assert all(each.reason for each in found)
    leaking = Claims(device(dynamic=False)).not_measured(
        [Estimate("error_1q", (0,), 1e-3, 1e-5, gate="sx")]
    )
    assert {each.quantity for each in leaking} == {"leakage"}


def test_measured_terms_are_not_named() -> None:
    snapshot = device(dynamic=True)
    measured = {
        name: [(k,) for k in QUBITS]
        for name in (
            "memory_error", "measure_decay", "measure_excitation", "excited", "reset_error",
            "preparation_error",
        )
    }  # fmt: skip
    measured |= {"joint_flip": [(0, 1), (0, 1, 2)], "measurement_crosstalk": [(0, 1)]}
    estimates = [
        Estimate(name, place, 0.0, 1e-3) for name, places in measured.items() for place in places
    ]
    left = {(each.quantity, each.by_parts) for each in terms(snapshot, estimates)}
    assert left == {
        ("readout_decided", False), ("t1_jumps", True), ("over_rotation_rad", False),
        ("error_other", True), ("zz_khz", False), ("layer_decay", False),
    }  # fmt: skip


def test_a_small_rotation_is_a_part_of_the_measured_error() -> None:
    snapshot = device(dynamic=True)
    gates = tuple(
        msgspec.structs.replace(each, rotations=(PauliRotation("ZX", 0.01),))
        if each.name == "cx" else each
        for each in snapshot.gates
    )  # fmt: skip
    (angle,) = [
        each
        for each in terms(msgspec.structs.replace(snapshot, gates=gates), [])
        if each.component == "gate.coherent"
    ]
    assert (angle.qubits, angle.gate, angle.claimed, angle.by_parts) == ((0, 1), "cx", 0.01, True)
