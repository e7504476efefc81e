"""Calibration data from a command of the site: stored whole or not at all, whatever it does."""

import fcntl
import os
import sys
import time
from contextlib import suppress
from pathlib import Path

import msgspec
import psutil
import pytest
from confined import skip_without_confinement
from failing import fails
from waiting import until

from noise_models import library, snapshot
from simenv.config.model import DeviceSettings
from simenv.errors import ConfigError, InsufficientError
from simenv.scheduler.core import RecordEvent
from simenv.service.devices import refresh
from simenv.service.devices.refresh import DeviceRefreshes, Refresh, read_record, refresh_now

NAME = "lab"
QUBITS = library.load("superconducting-lattice").num_qubits
PATIENCE_S = 60.0


def body(t1_us: float) -> bytes:
    """A snapshot of a bundled device with another T1 of its first qubit."""
    base = library.load("superconducting-lattice")
    first = msgspec.structs.replace(base.qubits[0], t1_us=t1_us)
    return snapshot.dump(msgspec.structs.replace(base, qubits=(first, *base.qubits[1:])))


def settings(folder: Path, program: str, **fields: object) -> DeviceSettings:
    """Settings whose command runs a program of Python."""
    path = folder / "fetch.py"
    path.write_text(program)
    return DeviceSettings((sys.executable, "-I", str(path)), **fields)  # type: ignore[arg-type]


def printing(folder: Path, t1_us: float) -> DeviceSettings:
    (folder / "data.json").write_bytes(body(t1_us))
    made = settings(folder, "import sys; sys.stdout.write(open(sys.argv[1]).read())")
    return msgspec.structs.replace(made, refresh=(*made.refresh, str(folder / "data.json")))


def outcome(folder: Path, wanted: DeviceSettings) -> Refresh:
    found = refresh_now(NAME, folder, wanted)
    assert found == read_record(folder, NAME)
    return found


@pytest.fixture
def devices(tmp_path: Path) -> Path:
    folder = tmp_path / "devices"
    folder.mkdir(mode=0o700)
    return folder


def test_data_is_stored_as_device_and_as_dated_snapshot(tmp_path: Path, devices: Path) -> None:
    first = outcome(devices, printing(tmp_path, 50.0))
    assert not first.error, first.hint
    assert (first.changed, first.num_qubits) == (True, QUBITS)
    assert first.used > 10
    assert (devices / f"{NAME}.json").read_bytes() == body(50.0)
    again = outcome(devices, printing(tmp_path, 50.0))
    assert (again.changed, again.digest) == (False, first.digest)
    assert outcome(devices, printing(tmp_path, 60.0)).changed
    dated = sorted((devices / f"{NAME}.d").glob("*.json"))
    assert [each.read_bytes() for each in dated] == [body(50.0), body(60.0)]
    assert abs(time.time() - first.renewed_s) < PATIENCE_S


def test_record_names_what_the_device_does_not_have(tmp_path: Path, devices: Path) -> None:
    whole = printing(tmp_path, 50.0)
    assert outcome(devices, whole).missing == ()
    base = library.load("superconducting-lattice")
    gates = tuple(each for each in base.gates if each.qubits not in ((0,), (1,)))
    data = snapshot.dump(msgspec.structs.replace(base, gates=gates, unusable=(5,)))
    (tmp_path / "data.json").write_bytes(data)
    found = outcome(devices, whole)
    assert found.missing[0] == "qubits: 5 unusable: unusable"
    assert "gates.sx: not on 0, 1" in found.missing
    event = refresh._event(NAME, found)
    assert "lacks qubits: 5 unusable" in event.message


FAILURES = {
    "exit": ("raise SystemExit('no route to the lab')", "ended with exit code 1"),
    "garbage": ("print('<html>please log in</html>')", ""),
    "broken": ('print(\'{"kind": "calibration\')', ""),
    "nothing": ("", ""),
    "huge": ("while True: print('x' * 2**20)", "printed more than 67108864 bytes"),
    "hang": ("import time; time.sleep(600)", "did not end within timeout_s = 1"),
    "memory": ("held = bytearray(6 * 2**30)", "ended with exit code 1"),
}


@pytest.mark.parametrize("fault", FAILURES)
def test_device_is_kept_when_the_command_fails(tmp_path: Path, devices: Path, fault: str) -> None:
    before = outcome(devices, printing(tmp_path, 50.0))
    program, said = FAILURES[fault]
    timeout_s = 1.0 if fault == "hang" else 30.0
    failed = outcome(devices, settings(tmp_path, program, timeout_s=timeout_s))
    assert failed.error
    assert said in failed.error
    assert (failed.renewed_s, failed.changed) == (before.renewed_s, False)
    assert (devices / f"{NAME}.json").read_bytes() == body(50.0)
    assert len(list((devices / f"{NAME}.d").iterdir())) == 1
    if fault == "exit":
        assert failed.hint == "it said: no route to the lab"


def test_processes_that_left_the_group_end_with_the_command(tmp_path: Path, devices: Path) -> None:
    program = """
import os, subprocess, sys
inner = subprocess.Popen(["sleep", "600"], start_new_session=True)
sys.exit(str(inner.pid))
"""
    failed = outcome(devices, settings(tmp_path, program))
    pid = int(failed.hint.removeprefix("it said: "))
    until(lambda: not psutil.pid_exists(pid))


def test_command_sees_its_variables_and_no_others_and_errors_hide_their_values(
    tmp_path: Path, devices: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAB_TOKEN", "the-token-of-the-lab")
    monkeypatch.setenv("OTHER_TOKEN", "another")
    program = "import os, sys; sys.exit(' '.join(map(str, map(os.environ.get, ['LAB_TOKEN', "
    program += "'OTHER_TOKEN', 'SIMENV_HOME']))))"
    failed = outcome(devices, settings(tmp_path, program, environ="LAB_*"))
    assert failed.hint == "it said: $LAB_TOKEN None None"


@pytest.mark.parametrize("deed", ["open('{}').read()", "open('{}', 'a')"])
def test_command_reads_only_files_that_its_words_name_and_writes_none(
    tmp_path: Path, devices: Path, deed: str
) -> None:
    skip_without_confinement(files_only=True)
    private = tmp_path / "private"
    private.write_text("of the user")
    failed = outcome(devices, settings(tmp_path, deed.format(private)))
    assert "PermissionError" in failed.hint


def test_one_refresh_runs_at_a_time(tmp_path: Path, devices: Path) -> None:
    with (devices / ".refresh.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        said = f"exit code {InsufficientError.exit_code}: .*another refresh of a device"
        fails(ConfigError, said, refresh_now, NAME, devices, printing(tmp_path, 50.0))
    assert read_record(devices, NAME) is None


def events(refreshes: DeviceRefreshes) -> list[RecordEvent]:
    found: list[RecordEvent] = []

    def look() -> bool:
        found.extend(refreshes.tick(time.monotonic()))
        return bool(found)

    until(look, PATIENCE_S)
    return found


def test_schedule_survives_a_restart_and_reports_failures(
    tmp_path: Path, devices: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refresh, "LOOK_S", 0.0)
    wanted = {NAME: printing(tmp_path, 50.0), "plain": DeviceSettings()}
    refreshes = DeviceRefreshes(wanted, devices, os.environ)
    assert refreshes.due_s(NAME) <= time.time()
    (event,) = events(refreshes)
    assert (event.kind, event.subject) == (refresh.REFRESHED, NAME)
    assert f"{QUBITS} qubits" in event.message
    assert refreshes.problems() == []
    refreshes.close()
    later = DeviceRefreshes(wanted, devices, os.environ)
    assert 11 * 3600 < later.due_s(NAME) - time.time() <= 12 * 3600
    assert list(later.tick(time.monotonic())) == []

    failing = {NAME: settings(tmp_path, "raise SystemExit('closed')", every_h=1e-9)}
    refreshes = DeviceRefreshes(failing, devices, os.environ)
    (event,) = events(refreshes)
    assert (event.kind, event.subject) == (refresh.FAILED, NAME)
    assert event.message.endswith("it said: closed")
    (problem,) = refreshes.problems()
    assert problem.startswith(f"device {NAME}: its calibration is from ")
    refreshes.close()
    (problem,) = DeviceRefreshes(failing, devices, os.environ).problems()
    assert "exit code 1" in problem


def line(process: psutil.Process) -> str:
    """Words of a process with the program itself; "": it has ended, or has not begun."""
    with suppress(psutil.Error):
        words = process.cmdline()
        return "" if "simenv.service.devices.refresh_process" in words else " ".join(words)
    return ""


def test_killed_refresh_is_reported_and_close_leaves_no_process(
    tmp_path: Path, devices: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refresh, "LOOK_S", 0.0)
    wanted = {NAME: settings(tmp_path, "import time; time.sleep(600)")}
    refreshes = DeviceRefreshes(wanted, devices, os.environ)
    own = psutil.Process()

    def command() -> list[psutil.Process]:
        list(refreshes.tick(time.monotonic()))
        return [each for each in own.children(recursive=True) if "fetch.py" in line(each)]

    until(lambda: bool(command()), PATIENCE_S)
    (inner,) = command()
    inner.parent().kill()
    (event,) = events(refreshes)
    assert event.message == "the refresh ended with signal 9"
    until(lambda: not inner.is_running())
    assert refreshes.due_s(NAME) > time.time()

    refreshes = DeviceRefreshes(wanted, devices, os.environ)
    until(lambda: bool(command()), PATIENCE_S)
    (inner,) = command()
    refreshes.close()
    until(lambda: not inner.is_running())
