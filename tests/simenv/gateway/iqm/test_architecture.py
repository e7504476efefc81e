"""Devices in the form of IQM's API."""

import json
import math
from datetime import UTC, datetime

import pytest

from noise_models.importers import import_snapshot
from simenv.gateway.iqm import architecture
from simenv.model.devices import DeviceInfo, DeviceKind, GateInfo, OperationInfo, QubitInfo

GATES = (GateInfo("r", 1, 2), GateInfo("cz", 2, 0), GateInfo("measure", 1, 0))
WHEN = datetime(2026, 11, 1, tzinfo=UTC)


def device(**changes: object) -> DeviceInfo:
    fields: dict[str, object] = {
        "name": "chip", "kind": DeviceKind.EMULATED, "provider": "IQM", "model": "garnet",
        "version": "1", "technology": "superconducting", "num_qubits": 3, "max_shots": 1000,
        "gates": GATES, "all_to_all": False, "coupling": ((0, 1), (1, 0), (2, 1)),
        "operations": (
            OperationInfo("r", (0,), 0.001, 40.0), OperationInfo("cz", (1, 0), 0.02, 60.0),
            OperationInfo("cz", (2, 1), 1.0),
        ),
        "qubits": (QubitInfo(40.0, 20.0, 4.5, 0.03, 900.0), QubitInfo(), QubitInfo(30.0)),
        "calibration_id": "c1", "calibrated_s": WHEN.timestamp(),
    }  # fmt: skip
    return DeviceInfo(**{**fields, **changes})  # type: ignore[arg-type]


def test_broken_gates_are_left_out_and_a_pair_has_one_entry() -> None:
    gates = architecture.dynamic("chip", device())["gates"]
    assert gates["cz"]["implementations"] == {"crf": {"loci": [["QB1", "QB2"]]}}
    assert gates["prx"]["implementations"]["drag_crf"]["loci"] == [["QB1"]]  # as listed
    assert architecture.static("chip", device())["connectivity"] == [["QB1", "QB2"]]
    broken = device(operations=(OperationInfo("r", ()), OperationInfo("r", (1,), 1.0)))
    assert architecture.loci(broken)["prx"] == [(0,), (2,)]


def test_conditions_and_resets_are_of_dynamic_devices() -> None:
    assert "cc_prx" not in architecture.loci(device())
    assert architecture.loci(device(dynamic=True))["reset"] == [(0,), (1,), (2,)]


@pytest.mark.parametrize(
    ("changes", "offered"),
    [
        ({}, True),
        ({"gates": (GateInfo("rz", 1, 1), GateInfo("cz", 2, 0))}, False),
        ({"gates": (GateInfo("r", 1, 2), GateInfo("cx", 2, 0))}, False),
        ({"problem": "no calibration"}, False),
        ({"coupling": (), "all_to_all": True}, True),
        ({"coupling": (), "kind": DeviceKind.IDEAL}, True),
        ({"coupling": ()}, False),
    ],
)
def test_devices_with_prx_and_cz_are_offered(changes: dict[str, object], offered: bool) -> None:
    assert architecture.is_offered(device(**changes)) is offered


def test_ideal_pools_have_a_bounded_number_of_qubits() -> None:
    ideal = device(kind=DeviceKind.IDEAL, num_qubits=60, coupling=(), operations=(), qubits=())
    assert len(architecture.dynamic("main", ideal)["qubits"]) == architecture.IDEAL_QUBITS
    assert architecture.quality_metrics("main", ideal)["observations"] == []


def test_the_importer_reads_quality_metrics_back() -> None:
    document = architecture.quality_metrics("chip", device())
    value, _ = import_snapshot({"m.json": json.dumps(document).encode()}, name="copy")
    assert value.qubits[0].t1_us == pytest.approx(40.0)
    assert value.qubits[0].readout_error == pytest.approx(0.03)
    assert value.qubits[1].t1_us is None
    errors = {(each.name, each.qubits): each.error for each in value.gates}
    assert errors["cz", (0, 1)] == pytest.approx(0.02)
    assert errors["r", (0,)] == pytest.approx(0.001)


def test_calibration_sets_have_durations_and_frequencies_that_are_known() -> None:
    observations = architecture.calibration_set("chip", device())["observations"]
    values = {each["dut_field"]: each["value"] for each in observations}
    assert values["gates.cz.crf.QB1__QB2.duration"] == pytest.approx(60e-9)
    assert values["gates.prx.drag_crf.QB1.duration"] == pytest.approx(40e-9)
    assert values["controllers.QB1.drive.frequency"] == pytest.approx(4.5e9)
    assert not any(math.isnan(value) for value in values.values())
    assert "controllers.QB2.drive.frequency" not in values


def test_numbers_follow_names_and_calibrations() -> None:
    numbers = {
        architecture.computer_id("a"), architecture.computer_id("b"),
        architecture.calibration_id("a", "1"), architecture.calibration_id("a", "2"),
        architecture.metrics_id("a", "1"),
    }  # fmt: skip
    assert len(numbers) == 5
