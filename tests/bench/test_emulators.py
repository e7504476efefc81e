"""The leaderboard of emulators: peers that simulate the same noise give simenv's distributions."""

import json
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path

import iqm_clients
import msgspec
import numpy as np
import pytest

from bench.engine.measured import EmulatorPeer, emulators
from bench.harness import Report
from bench.measured_sets import sets
from noise_models import library, snapshot as snapshots
from noise_models.calibration import CalibrationSnapshot
from noise_models.options import NoiseOptions
from simenv.calibration.fit.observations import DeviceCompiler
from simenv.calibration.score import Predictor
from testbed.drawn_devices import library_changed as changed, measured

LIMA = """OPENQASM 2.0; include "qelib1.inc"; qreg q[5]; creg c[3];
sx q[1]; rz(0.3) q[1]; cx q[1],q[3]; sx q[3]; x q[0]; cx q[0],q[1]; sx q[1];
barrier q; measure q[3] -> c[0]; measure q[1] -> c[2]; measure q[0] -> c[1];
"""


def write_set(
    folder: Path, texts: list[str], snapshot: CalibrationSnapshot, *, beside: bool = True
) -> None:
    """Write counts of the snapshot's device, whose noise differs; `beside` them the snapshot."""
    rng = np.random.default_rng(5)
    lines = [json.dumps({"kind": "simenv-counts", "format": 1, "device": snapshot.name})]
    for row in measured(texts, changed(snapshot, rng), rng, 500):
        counts = {hex(outcome): count for outcome, count in row.counts.items()}
        lines.append(json.dumps({"qasm": row.source.text, "counts": counts}))
    (folder / "one.jsonl").write_text("\n".join(lines))
    if beside:
        (folder / "one.calibration.json").write_bytes(snapshots.dump(snapshot))


def worst_difference(
    folder: Path, name: str, options: Mapping[str, object], pythons: list[str] | None = None
) -> float:
    """Largest difference between the probabilities of a peer and of simenv with noise options."""
    (each,) = sets(folder, 0)
    compiler = DeviceCompiler(each.snapshot)
    mine = Predictor(each.snapshot, NoiseOptions.parse(options), compiler)
    peer = EmulatorPeer.of(name, each, compiler, pythons or [])
    assert peer is not None
    results = []
    try:
        for record in each.data.records:
            first, second = mine.prediction(record), peer.prediction(record)
            assert first is not None
            assert second is not None
            table = dict(zip(first.outcomes.tolist(), first.probabilities.tolist(), strict=True))
            for outcome, value in zip(second.outcomes, second.probabilities, strict=True):
                table[outcome] = table.get(outcome, 0.0) - value
            results.append(max(map(abs, table.values())))
    finally:
        peer.close()
    return float(max(results))


@pytest.mark.parametrize("beside", [True, False], ids=["file", "library"])
@pytest.mark.parametrize(
    ("name", "idle"), [("aer", False), ("aer-scheduled", True)], ids=["aer", "scheduled"]
)
def test_aer_has_the_same_calibration(tmp_path: Path, name: str, idle: bool, beside: bool) -> None:
    """A file beside the counts is that of every emulator, also of a machine whose name
    qiskit-ibm-runtime knows with other values."""
    lima = library.load("lima")
    if beside:
        other = changed(lima, np.random.default_rng(2))
        qubits = [msgspec.structs.replace(each, readout_error=None) for each in other.qubits]
        lima = msgspec.structs.replace(other, qubits=tuple(qubits))
    write_set(tmp_path, [LIMA], lima, beside=beside)
    options = {"recipe": "aer", "idle": idle}
    assert worst_difference(tmp_path, name, options) < 1e-7


IQM = """OPENQASM 2.0; include "qelib1.inc"; gate r(a,b) x { u3(a,b-pi/2,pi/2-b) x; }
qreg q[5]; creg c[2]; r(0.4,0.2) q[0]; r(1.1,0.3) q[1]; cz q[0],q[1]; r(0.7,1.9) q[1];
measure q[0] -> c[1]; measure q[1] -> c[0];
"""


def test_iqm_has_the_depolarizing_and_readout_errors(tmp_path: Path) -> None:
    python = iqm_clients.interpreter()
    from noise_models.importers import import_snapshot

    content = {"metrics.json": iqm_clients.METRICS.read_bytes()}
    snapshot, _ = import_snapshot(content, name="chain")
    write_set(tmp_path, [IQM], snapshot)
    options = {"qubit.idle": 0.0, "qubit.quasistatic": 0.0}
    assert worst_difference(tmp_path, "iqm", options, [str(python)]) < 1e-7


def test_tables_of_all_machines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_set(tmp_path, [LIMA, LIMA.replace("0.3", "1.3")], library.load("lima"))
    table = tmp_path / "table.md"
    report = Report("emulators")
    emulators.function(report, Namespace(data=tmp_path, only=[], python=[], table=table, seed=3))
    assert {each.key for each in report.figures} == {"above_peers", "fitted_above_peers"}
    assert all(each.value is not None for each in report.figures)
    text = table.read_text()
    assert "| aer-scheduled | 1 |" in text
    assert "### one (lima)" in text
    assert "braket: ModuleNotFoundError" in capsys.readouterr().out


def test_without_data_nothing_is_measured(tmp_path: Path) -> None:
    report = Report("emulators")
    emulators.function(
        report, Namespace(data=tmp_path / "no", only=[], python=[], table=None, seed=3)
    )
    assert [each.value for each in report.figures] == [None, None]
