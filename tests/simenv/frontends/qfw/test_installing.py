"""Installation and activation of the plugin, and its record."""

import json
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from failing import fails

import simenv
from simenv.cli.admin import integrations
from simenv.cli.app import run
from simenv.cli.command_examples import EXAMPLES, QFW
from simenv.client.client import Client
from simenv.errors import ConfigError
from simenv.frontends.qfw import SERVICES, deployment, installing
from simenv.frontends.qfw.environment import QPMConfig
from simenv.qpm.contract import QPMCapability, QPMType, ServiceRecord
from simenv.qpm_check.fake_defw import fakes

SOURCE = "# QFw's\nexport QFW_PATH={root}\n"


@pytest.fixture
def qfw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folders of a QFw, and what of it matters here."""
    root = tmp_path / "QFw"
    for name in ("services", "service-apis/api_qpm", "setup", "environment", "DEFw/src"):
        (root / name).mkdir(parents=True)
    sourced = root / "environment" / installing.SOURCED
    sourced.write_text(SOURCE.format(root=root))
    sourced.chmod(0o755)
    program = root / "DEFw" / "src" / "defwp"
    program.write_text(f"#!/bin/sh\necho {sys.version.split()[0]}\n")
    program.chmod(0o755)
    monkeypatch.setattr(installing, "is_editable", lambda: False)
    programs = tmp_path / "venv" / "bin"
    programs.mkdir(parents=True)
    for name in ("python", "python3", f"python{sys.version_info[0]}.{sys.version_info[1]}"):
        (programs / name).symlink_to(Path(sys.executable).resolve())
    (programs / "simenv").write_text(f"#!{programs}/python3\nimport sys\n")
    monkeypatch.setattr(installing, "command", lambda: installing.InstalledCommand(programs))
    monkeypatch.setattr(integrations, "MODULES", (("yaml", "PyYAML"),))  # others are QFw's own
    monkeypatch.delenv("DEFW_PATH", raising=False)
    return root


def levels(root: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    capsys.readouterr()
    run(["--json", "qfw", "check", str(root)])
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    return {line["what"]: line["level"] for line in lines}


def test_install_links_service_and_extends_activation_once(qfw: Path) -> None:
    for _ in range(2):  # the second time changes nothing
        installing.install(qfw, {"SIMENV_QPM_POOL": "main", "SIMENV_HOME": "/a home"})
    assert (qfw / "services" / "svc_simenv_qpm").resolve() == (
        SERVICES / "svc_simenv_qpm"
    ).resolve()
    sourced = qfw / "environment" / installing.SOURCED
    assert sourced.read_text().count(installing.MARK) == 1
    assert sourced.stat().st_mode & 0o777 == 0o755
    process = subprocess.run(
        ["bash", "-c", f"source {sourced} && echo $SIMENV_QPM_POOL,$SIMENV_HOME"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert process.stdout.strip() == "main,/a home"
    yaml = pytest.importorskip("yaml")
    (service,) = yaml.safe_load((qfw / "setup" / installing.SERVICES_FILE).read_text())["services"]
    assert (service["module"], service["agent-type"]) == ("svc_simenv_qpm", "service")


SENDER = """
import threading, time
lock, mixed = threading.Lock(), []
def defw_send_req(peer):
    if not lock.acquire(blocking=False):
        mixed.append(peer)
        return
    time.sleep(0.01)  # between the two writes of one message
    lock.release()
def defw_send_rsp(peer):
    pass
"""
APPLICATION = """
import sys, threading
imported = [name for name in sys.modules if name.startswith("simenv")]
import defw_workers
threads = [threading.Thread(target=defw_workers.defw_send_req, args=("peer",)) for _ in range(8)]
for each in threads: each.start()
for each in threads: each.join()
print(imported, defw_workers.mixed, hasattr(sys, "other_ran"))
"""


def test_activation_locks_sending_of_applications_without_simenv(qfw: Path, tmp_path: Path) -> None:
    installing.install(qfw, {})
    infra, other = tmp_path / "infra", tmp_path / "other"
    for folder in (infra, other):
        folder.mkdir()
    (infra / "defw_workers.py").write_text(SENDER)
    (other / "sitecustomize.py").write_text("import sys\nsys.other_ran = True\n")
    (tmp_path / "application.py").write_text(APPLICATION)
    line = "source {} && exec {} {}"
    sourced = qfw / "environment" / installing.SOURCED
    process = subprocess.run(
        ["bash", "-c", line.format(sourced, sys.executable, tmp_path / "application.py")],
        env={**os.environ, "PYTHONPATH": f"{infra}:{other}:{REPOSITORY}"},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert (process.stdout.strip(), process.stderr) == ("[] [] True", "")


def test_check_misses_the_lock_in_the_variables_of_an_earlier_installation(
    qfw: Path, env: Client, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIMENV_SERVICE", env.service)
    installing.install(qfw, {})
    assert levels(qfw, capsys)["activation"] == "ok"
    variables = installing.layout(qfw).variables
    lines = variables.read_text().splitlines(keepends=True)
    variables.write_text("".join(line for line in lines if "PYTHONPATH" not in line))
    assert levels(qfw, capsys)["activation"] == "fail"


@pytest.mark.parametrize("path", [path for path, each in EXAMPLES.items() if each.needs == QFW])
def test_examples_of_the_help_succeed(
    path: str, qfw: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An example with an alternative (`||`) may exit with 1: the check finds what to repair."""
    monkeypatch.setenv("QFW_PATH", str(qfw))
    for line in EXAMPLES[path].lines:
        command, has_alternative, _ = line.partition(" || ")
        words = shlex.split(os.path.expandvars(command))
        assert words[:2] == ["simenv", "qfw"]
        assert run(words[1:]) in ((0, 1) if has_alternative else (0,)), capsys.readouterr().err


def test_uninstall_restores_activation(qfw: Path) -> None:
    sourced = qfw / "environment" / installing.SOURCED
    programs = installing.command().folder
    before = sourced.read_text()
    installing.install(qfw, {})
    assert len(installing.uninstall(qfw)) == 6
    assert sourced.read_text() == before
    assert (programs / "simenv").read_text() == f"#!{programs}/python\nimport sys\n"
    assert not (programs / "simenv-python").exists()
    assert installing.uninstall(qfw) == []
    assert list((qfw / "services").iterdir()) == list((qfw / "setup").iterdir()) == []


def test_install_replaces_link_of_another_installation_but_no_folder(qfw: Path) -> None:
    link = qfw / "services" / "svc_simenv_qpm"
    link.symlink_to("/somewhere/else")
    installing.install(qfw, {})
    assert link.is_dir()
    link.unlink()
    link.mkdir()
    fails(ConfigError, "already exists", installing.install, qfw, {})


def test_install_refuses_others(qfw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fails(ConfigError, "is no QFw", installing.install, tmp_path, {})
    monkeypatch.setattr(installing, "is_editable", lambda: True)
    fails(ConfigError, "editable", installing.install, qfw, {})
    assert list((qfw / "services").iterdir()) == []


def test_check_reports_each_problem_of_installation(
    qfw: Path, env: Client, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("yaml")
    monkeypatch.setenv("SIMENV_SERVICE", env.service)
    failed = {name for name, level in levels(qfw, capsys).items() if level == "fail"}
    assert failed == {"service", "activation", "command"}, capsys.readouterr()
    assert run(["qfw", "install", str(qfw)]) == 0
    assert set(levels(qfw, capsys).values()) == {"ok"}
    assert run(["qfw", "check", str(qfw)]) == 0
    assert "statevector by" in capsys.readouterr().out
    for name in ("python3", f"python{sys.version_info[0]}.{sys.version_info[1]}"):
        path = installing.command().folder / name
        path.unlink()
        assert levels(qfw, capsys)["interpreter"] == "fail"
        path.symlink_to("/bin/sh")
        assert levels(qfw, capsys)["interpreter"] == "fail"
        path.rename(path.with_name(f"{name}_of_another"))
        path.symlink_to(Path(sys.executable).resolve())
    assert levels(qfw, capsys)["interpreter"] == "ok"
    for name in NAMES:  # of `python -m venv --copies`
        path = installing.command().folder / name
        path.unlink(missing_ok=True)
        shutil.copy2(Path(sys.executable).resolve(), path)
    assert levels(qfw, capsys)["interpreter"] == "ok"
    monkeypatch.setattr(
        integrations, "MODULES", (*integrations.MODULES, ("not_there", "not-there"))
    )
    assert run(["qfw", "check", str(qfw)]) == 1
    assert "pip install not-there" in capsys.readouterr().out
    (qfw / "DEFw" / "src" / "defwp").write_text("#!/bin/sh\necho 3.9.1\n")
    assert levels(qfw, capsys)["DEFw"] == "fail"
    (qfw / "DEFw" / "src" / "defwp").unlink()
    assert levels(qfw, capsys)["DEFw"] == "fail"
    monkeypatch.setenv("SIMENV_QPM_TYPE", "99")  # of this shell: the service is not told it
    assert levels(qfw, capsys)["variables"] == "ok"
    with installing.layout(qfw).variables.open("a") as file:
        file.write("export SIMENV_QPM_TYPE=99\n")
    assert levels(qfw, capsys)["variables"] == "fail"
    assert run(["qfw", "check", str(qfw)]) == 1


def test_absolute_path(qfw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    variables = installing.layout(qfw).variables
    monkeypatch.delenv("SIMENV_SERVICE", raising=False)
    monkeypatch.setenv("SIMENV_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert run(["--name", "lab", "qfw", "install", str(qfw)]) == 0
    assert f"SIMENV_SERVICE={tmp_path}/lab/connection.json\n" in variables.read_text()
    assert run(["--service", "key.simenv", "qfw", "install", str(qfw)]) == 0
    assert f"SIMENV_SERVICE={tmp_path}/key.simenv\n" in variables.read_text()
    monkeypatch.setenv("SIMENV_SERVICE", "other.simenv")
    assert run(["qfw", "install", str(qfw)]) == 0
    assert f"SIMENV_SERVICE={tmp_path}/other.simenv\n" in variables.read_text()


def test_token_of_revision_1(qfw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    installing.install(qfw, {"SIMENV_QPM_PRIVATE": "yes", "SIMENV_QPM_TOKEN_FILE": "/token"})
    assert levels(qfw, capsys)["token"] == "fail"


def test_uninstall_leaves_folder_in_place_of_link(qfw: Path) -> None:
    link = installing.layout(qfw).link
    link.mkdir()
    assert installing.uninstall(qfw) == []
    assert link.is_dir()


def test_check_fails_when_named_environment_is_not_up(
    qfw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIMENV_SERVICE", str(tmp_path / "nowhere" / "connection.json"))
    assert levels(qfw, capsys)["environment"] == "fail"
    monkeypatch.setenv("QFW_PATH", str(qfw))
    assert run(["qfw", "install", "--private"]) == 0
    assert levels(qfw, capsys)["environment"] == "ok"
    assert os.environ["QFW_PATH"] == str(qfw)


REPOSITORY = Path(simenv.__file__).parents[1]
NAMES = ("python", "python3", f"python{sys.version_info[0]}.{sys.version_info[1]}")


class VirtualEnvironment:
    """A virtual environment with simenv in its site-packages, as pip installs it, and QFw's
    replacement of its interpreters."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        venv.create(folder, symlinks=True)
        packages = next((folder / "lib").glob("python*/site-packages"))
        for name in ("simenv", "simulators", "launcher", "noise_models"):
            (packages / name).symlink_to(REPOSITORY / name)
        (packages / "more.pth").write_text(sysconfig.get_path("purelib") + "\n")
        self.programs = folder / "bin"
        self.script = self.programs / "simenv"
        self.script.write_text(
            f"#!{self.programs / 'python'}\nfrom simenv.cli.entry import main\nmain()\n"
        )
        self.script.chmod(0o755)
        self.defw = folder / "defwp"
        self.defw.write_text("#!/bin/sh\nexit 127\n")
        self.defw.chmod(0o755)

    def activate(self) -> None:
        for name in NAMES:
            path = self.programs / name
            path.rename(self.programs / f"{name}_defw_orig")
            path.symlink_to(self.defw)

    def deactivate(self) -> None:
        for name in NAMES:
            (self.programs / f"{name}_defw_orig").replace(self.programs / name)

    def run(self, *line: str, **more: str) -> subprocess.CompletedProcess[str]:
        environ = {**os.environ, "SIMENV_HOME": str(self.folder / "home"), **more}
        environ.pop("SIMENV_SERVICE", None)
        return subprocess.run(
            [str(self.script), *line], env=environ, capture_output=True, text=True, check=False
        )

    def answer(self, *line: str, **more: str) -> str:
        done = self.run(*line, **more)
        assert done.returncode == 0, (line, done.stdout, done.stderr)
        return done.stdout


@pytest.fixture
def environment(tmp_path: Path) -> Iterator[VirtualEnvironment]:
    result = VirtualEnvironment(tmp_path / "venv")
    yield result
    result.run("down")


def test_commands_work_in_activated_shell(environment: VirtualEnvironment, tmp_path: Path) -> None:
    root = tmp_path / "QFw"
    for name in ("services", "service-apis/api_qpm", "setup", "environment"):
        (root / name).mkdir(parents=True)
    (root / "environment" / "qfw_set_envvars.sh").write_text("# QFw's\n")
    environment.activate()
    assert environment.run("status").returncode == 127  # what `install` is for
    environment.deactivate()
    environment.answer("qfw", "install", str(root))
    environment.answer("up", "--workers", "1")
    environment.activate()
    # as in the shell that ran qfw_activate, and in another one
    for more in ({"DEFW_PATH": str(root / "DEFw"), "QFW_PATH": str(root)}, {}):
        assert json.loads(environment.answer("--json", "status", **more))["pools"]
        environment.answer("history", **more)
    environment.answer("down")
    environment.answer("up", "--workers", "1")
    environment.answer("down")
    environment.answer("qfw", "uninstall", str(root))
    assert environment.run("status").returncode == 127
    environment.deactivate()
    assert environment.run("status").returncode != 127


ASKED = {  # by the examples of revision 1: a type, a capability
    "any": (-1, -1),
    "hardware-less": (QPMType.SIMULATOR, -1),
    "qb": (QPMType.QB, QPMCapability.STATEVECTOR),
    "tnqvm": (QPMType.TNQVM, QPMCapability.TENSORNETWORK),
    "nwqsim": (QPMType.NWQSIM, QPMCapability.STATEVECTOR),
}
POOLS = {"statevector": ["main", "wide"], "tensornetwork": ["main"]}


def record(types: int, capabilities: int, told: int = 0, revision: int = 1) -> ServiceRecord:
    properties = {"num_qubits": 30, "controller": {"pools": POOLS}}
    outcome = ServiceRecord("QPM", "an environment", "", "", types, capabilities, -1, properties)
    config = QPMConfig(types=told)
    return deployment.completed(outcome, object, config, deployment.read({}), revision)


def matches(found: ServiceRecord, wanted: tuple[int, int]) -> bool:
    """As DEFw compares them."""
    pairs = zip(wanted, (found.qpm_type, found.qpm_capabilities), strict=True)
    return all(value == -1 or value & offered == value for value, offered in pairs)


@pytest.mark.parametrize("name", sorted(ASKED))
def test_simulator_matches_types_and_capabilities_requested_in_revision_1(name: str) -> None:
    assert matches(record(2, 3), ASKED[name])


def test_types_are_those_that_deployment_and_capabilities_name() -> None:
    plain = record(2, QPMCapability.STATEVECTOR)
    assert plain.qpm_type == 2 | 4 | 16
    assert not matches(plain, ASKED["tnqvm"])
    assert record(2, QPMCapability.TENSORNETWORK).qpm_type == 2 | 8
    assert record(1, QPMCapability.SUPERCONDUCTING).qpm_type == 1, "a machine stands for itself"
    assert (record(2, 3, told=31).qpm_type, record(2, 3, told=1).qpm_type) == (31, 1)
    assert (record(2, 3, revision=2).qpm_type, record(2, 3, told=31, revision=2).qpm_type) == (2, 3)
    assert record(2, 3, told=30, revision=2).qpm_type == 2


def test_record_names_pools_and_types_of_defw() -> None:
    service_description = record(2, 3).service_description
    assert "NWQSIM by pool main, wide" in service_description
    assert "TNQVM by pool main" in service_description
    types: Any = fakes.Types1
    for kind in QPMType:
        assert types[f"QPM_TYPE_{kind.name}"] == kind
