"""Devices whose calibration a command of the site fetches, in a running environment."""

import sys
from pathlib import Path

import msgspec
import pytest
from live import environment
from waiting import until

from noise_models import library, snapshot
from simenv import config
from simenv.cli.app import run
from simenv.errors import NotFoundError

PATIENCE_S = 60.0
BELL = """OPENQASM 2.0; include "qelib1.inc"; qreg q[2]; creg c[2]; sx q[0]; cx q[0], q[1];
measure q -> c;"""


def write(path: Path, t1_us: float, calibrated: str) -> None:
    base = library.load("superconducting-lattice")
    first = msgspec.structs.replace(base.qubits[0], t1_us=t1_us)
    qubits = first, *base.qubits[1:]
    changed = msgspec.structs.replace(base, qubits=qubits, calibrated=calibrated)
    path.write_bytes(snapshot.dump(changed))


def test_next_task_uses_the_new_data_and_a_failure_keeps_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data.json"
    write(data, 50.0, "2026-01-01T00:00:00Z")
    command = f"{sys.executable} -I -c 'import sys; print(open(sys.argv[1]).read())' {data}"
    pool = {"name": "emu", "min": 1, "max": 1, "device": "nightly"}
    settings = {"nightly": {"refresh": command, "every_h": 12.0}}
    with environment(pools=[pool], devices=settings) as live, live.client() as client:
        folder = config.devices_folder()
        until((folder / "nightly.json").exists, PATIENCE_S)
        until(lambda: client.device("nightly").qubits[0].t1_us == 50.0, PATIENCE_S)
        first = client.run(BELL, pool="emu", shots=10).snapshot
        until(lambda: "device.refreshed" in [each.kind for each in client.events()], PATIENCE_S)

        write(data, 60.0, "2026-01-02T00:00:00Z")
        assert run(["devices", "refresh", "nightly", "--name", live.name]) == 0
        assert "changed nightly: " in capsys.readouterr().out
        second = client.run(BELL, pool="emu", shots=10).snapshot
        assert second != first
        present = client.device("nightly")
        assert present.qubits[0].t1_us == 60.0
        assert first is not None
        old, document = client.recorded_device("emu", first)
        assert (old.calibration_id, old.qubits[0].t1_us) == (first, 50.0)
        assert client.run(BELL, pool="emu", shots=10, noise=document).snapshot == first
        with pytest.raises(NotFoundError, match="no stored calibration"):
            client.recorded_device("nightly", "0" * 64)

        data.write_text("the lab is closed")
        assert run(["devices", "refresh", "nightly", "--name", live.name]) == 2
        assert "device nightly is kept" in capsys.readouterr().err

        def warned() -> bool:
            return any("device nightly: its calib" in each for each in client.status().warnings)

        until(warned, PATIENCE_S)
        assert client.run(BELL, pool="emu", shots=10).snapshot == second
        pid = live.service().pid
        live.kill_service()
        live.wait_dead(pid)
        live.up()
        with live.client() as again:
            until(lambda: any("nightly" in each for each in again.status().warnings), PATIENCE_S)
            assert again.run(BELL, pool="emu", shots=10).snapshot == second
    assert len(list((folder / "nightly.d").glob("*.json"))) == 2
