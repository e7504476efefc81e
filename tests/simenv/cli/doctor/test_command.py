"""The doctor: what it finds where something is wrong."""

import json
import os
from collections import namedtuple
from importlib import metadata
from pathlib import Path

import msgspec
import pytest
from interpreter import python

from simenv.cli.admin import doctor, doctor_checks, doctor_installation
from simenv.cli.admin.doctor_installation import DoctorFinding
from simenv.cli.app import run
from simenv.config import ConnectionFile, paths
from simulators.gpu.devices import detect
from simulators.gpu.devices.detect import GpuEvidence

Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SIMENV_HOME", str(tmp_path))
    return tmp_path


def test_doctor_passes_and_each_problem_has_remedy(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["doctor", "--json"]) == 0
    entries = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {
        "names",
        "versions",
        "extra",
        "cores",
        "memory",
        "nodes",
        "mpi",
        "state",
        "sockets",
    } <= {each["what"] for each in entries}
    assert all(each["remedy"] for each in entries if each["level"] != "ok")


@pytest.mark.parametrize("is_same", [True, False])
def test_kernels_of_a_wheel_for_another_numba_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_same: bool
) -> None:
    assert list(doctor_installation.packaged_kernels()) == []  # of the sources
    made = metadata.version("numba") if is_same else "0.60.0"
    (tmp_path / "numba.txt").write_text(f"{made}\n")
    monkeypatch.setattr(doctor_installation, "PACKAGED_NUMBA", tmp_path / "numba.txt")
    (finding,) = doctor_installation.packaged_kernels()
    assert finding.level == ("ok" if is_same else "warn")
    assert f"for numba {made}" in finding.detail
    assert finding.remedy == ("" if is_same else "pip install numba==0.60.0")


def test_failed_checks(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    bad = DoctorFinding("fail", "state", "on nfs", "export SIMENV_HOME=/scratch")
    monkeypatch.setattr(doctor, "findings", lambda: [bad])
    assert run(["doctor"]) == 1
    assert capsys.readouterr().out.splitlines() == [
        "fail  state         on nfs",
        "                    type: export SIMENV_HOME=/scratch",
    ]


def test_doctor_names_file_that_shadows_package(tmp_path: Path) -> None:
    (tmp_path / "launcher.py").touch()
    code = "from simenv.cli.entry import main; main()"
    environ = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = python("-c", code, "doctor", cwd=tmp_path, env=environ, check=False)
    assert (done.returncode, done.stderr) == (1, "")
    assert f"launcher is {tmp_path / 'launcher.py'}" in done.stdout


def test_home_on_network_file_system_fails(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "kind_of", lambda _: "nfs4")  # everywhere
    state = next(doctor_checks.home())
    assert state.level == "fail"
    assert str(home) in state.detail


def test_scratch_of_journals_is_named_on_nfs(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    remote = home.parent
    monkeypatch.setattr(paths, "kind_of", lambda p: "nfs4" if p.is_relative_to(remote) else "ext4")
    monkeypatch.setenv("SIMENV_SCRATCH", "/tmp")
    state = next(doctor_checks.home())
    assert state.level == "ok"
    assert "live journals go to /tmp/simenv-" in state.detail


def test_full_disk_is_a_warning(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: Usage(1, 1, 1000))
    assert next(doctor_checks.home()).level == "warn"
    assert home.exists()


def test_home_writable_by_others_fails(home: Path) -> None:
    home.chmod(0o777)
    (value,) = doctor_checks.folder_security()
    assert (value.level, value.remedy) == ("fail", f"chmod 700 {home}")


def test_stale_connection_file_is_a_warning(home: Path) -> None:
    folder = home / "old"
    folder.mkdir()
    node = os.uname().nodename
    file = ConnectionFile(1, "old", "0.1.0", 2**22 - 1, node, 1, str(home), "")
    (folder / "connection.json").write_bytes(msgspec.json.encode(file))
    stale = next(doctor_checks.connections())
    assert (stale.level, stale.remedy) == ("warn", "simenv up --name old --restore")


@pytest.mark.parametrize("name", ["server-key.json", "keys.json", "connection.json"])
def test_key_file_readable_by_others_fails(home: Path, name: str) -> None:
    folder = home / "env"
    folder.mkdir()
    (folder / name).touch(0o600)
    assert [each.level for each in doctor_checks.modes()] == ["ok"]
    (folder / name).chmod(0o640)
    (value,) = doctor_checks.modes()
    assert (value.level, value.remedy) == ("fail", f"chmod 600 {folder / name}")


def test_mode_of_key_file(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "ana.simenv"
    file.touch(0o604)
    file.chmod(0o604)
    monkeypatch.setenv("SIMENV_SERVICE", str(file))
    (value,) = doctor_checks.modes()
    assert value.remedy == f"chmod 600 {file}"


def test_simenv_in_working_directory_warns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "simenv.py").write_text("")
    monkeypatch.chdir(tmp_path)
    hidden = next(doctor_installation.names())
    assert hidden.level == "warn"
    assert hidden.remedy.startswith("mv ")


def test_package_from_elsewhere_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Spec:
        origin = str(tmp_path / "simulators" / "__init__.py")

    monkeypatch.setattr("importlib.util.find_spec", lambda _: Spec)
    assert next(doctor_installation.names()).level == "fail"


def test_each_missing_extra_has_pip_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    assert [each.remedy for each in doctor_installation.extras()] == [
        f"pip install 'simenv[{extra}]'"
        for extra in (
            "qasm3", "plots", "qpm", "stabilizer", "contraction", "aer", "quimb", "qec",
            "functions",
        )
    ]  # fmt: skip


def test_shared_remedy(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    lacks = [DoctorFinding("warn", w, "no MPI", "pip install mpi") for w in ("launcher", "mpi")]
    monkeypatch.setattr(doctor, "findings", lambda: iter(lacks))
    assert run(["doctor"]) == 0
    assert capsys.readouterr().out.count("type: pip install mpi") == 1


def test_high_load_average_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.getloadavg", lambda: (1e6, 0.0, 0.0))
    assert next(doctor_checks.cores()).level == "warn"


def test_little_available_memory_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    class Memory:
        available = 2**20

    monkeypatch.setattr("psutil.virtual_memory", lambda: Memory)
    assert next(doctor_checks.memory()).level == "warn"


@pytest.mark.parametrize(
    ("evidence", "level", "detail"),
    [
        (GpuEvidence(), "ok", "no GPU: libcuda.so.1 is not here"),
        (GpuEvidence(True, "580.159", 13000), "warn", "it shows no device"),
        (GpuEvidence(True, "580.159", 13000, 1), "warn", "cupy is not installed"),
    ],
)
def test_doctor_says_why_no_gpu_can_be_used(
    monkeypatch: pytest.MonkeyPatch, evidence: GpuEvidence, level: str, detail: str
) -> None:
    monkeypatch.setattr(detect, "find_gpu", lambda: evidence)
    (finding,) = doctor_checks.gpus()
    assert finding.level == level
    assert detail in finding.detail
    assert bool(finding.remedy) == (level == "warn")
