"""The agent, and network namespaces of hosts."""

import contextlib
import os
import shlex
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from failing import fails
from interpreter import python

from launcher.process import agent, network_namespace

WAIT_S = 60.0
SLURM = {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "node[1-2]"}
HET = {
    "SLURM_JOB_ID": "7", "SLURM_HET_SIZE": "2", "SLURM_JOB_NODELIST_HET_GROUP_0": "node[1-2]",
    "SLURM_JOB_NODELIST_HET_GROUP_1": "node4",
}  # fmt: skip


def test_agent_comes_before_srun_and_srun_before_ssh() -> None:
    assert agent.remote_command("n1", ["a", "b"], SLURM, "my agent")[:4] == [
        "my", "agent", "n1", "a",
    ]  # fmt: skip
    assert agent.remote_command("n1", ["a"], {})[0] == "ssh"
    assert agent.remote_command("n1", ["a"], {})[-2:] == ["n1", "a"]
    assert agent.remote_command("node2", ["a", "b"], SLURM)[0] == "srun"


def test_srun_uses_het_group_of_target_node() -> None:
    assert not any("het" in word for word in agent.remote_command("node2", ["a"], SLURM))
    assert "--het-group=0" in agent.remote_command("node2", ["a"], HET)
    assert "--het-group=1" in agent.remote_command("node4", ["a"], HET)
    assert agent.remote_command("node4", ["a", "b"], HET)[-4:] == [
        "--nodelist=node4", "/bin/sh", "-c", "a b",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "words",
    [
        "n1 prted -x", "-x n1 prted -x", "-o Some=thing -p 22 -l me me@n1 prted -x",
        "-p22 n1 prted -x",
    ],
)  # fmt: skip
def test_ssh_options_before_the_host_are_skipped(words: str) -> None:
    assert agent.parse_ssh_arguments(words.split()) == ("n1", ["prted", "-x"])


@pytest.mark.parametrize("words", ["", "n1", "-Z n1 prted", "-x"])
def test_invalid_ssh_arguments_are_refused(words: str) -> None:
    fails(SystemExit, r"launcher\.process\.agent", agent.parse_ssh_arguments, words.split())


def contained(command: str, tmp_path: Path) -> subprocess.Popen[str]:
    """As a shell of the node runs it."""
    line = " ".join(agent.daemon_command([command], {"PMIX_MCA_a": "b  'c'", "OTHER": "1"}))
    environ = {**os.environ, "TMPDIR": str(tmp_path), "SECRET_OF_THE_SERVICE": "1"}
    return subprocess.Popen(
        ["/bin/sh", "-c", line], env=environ, stdout=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip


def test_files_of_a_daemon_are_removed(tmp_path: Path) -> None:
    (tmp_path / f"simenv-prted.{os.uname().nodename}.999999999").mkdir()  # of a power cut
    with contained('A=1;export A;touch $TMPDIR/x;echo "$A $TMPDIR";exit 7', tmp_path) as shell:
        value, _ = shell.communicate(timeout=WAIT_S)
    assert value.startswith(f"1 {tmp_path}/simenv-prted.")
    assert shell.returncode == 7
    assert list(tmp_path.iterdir()) == []


def test_daemon_inherits_only_named_variables(tmp_path: Path) -> None:
    with contained("env", tmp_path) as shell:
        value, _ = shell.communicate(timeout=WAIT_S)
    names = {line.partition("=")[0] for line in value.splitlines()}
    assert "PMIX_MCA_a=b  'c'\n" in value
    names -= {"PMIX_MCA_a"}
    assert {"PATH", "TMPDIR"} <= names <= {*agent.INHERITED, "TMPDIR", "PWD", "_", "SHLVL"}


def test_daemon_ends_with_its_connection(tmp_path: Path) -> None:
    with contained("echo up; exec sleep 600", tmp_path) as shell:
        assert shell.stdout is not None
        shell.stdout.readline()
        below = psutil.Process(shell.pid).children(recursive=True)
        shell.terminate()
        shell.wait(WAIT_S)
    assert below
    _, alive = psutil.wait_procs(below, timeout=WAIT_S)
    assert not alive
    assert list(tmp_path.iterdir()) == []


def test_daemon_folder_has_an_unpredictable_name(tmp_path: Path) -> None:
    names = set()
    for _ in range(2):
        with contained('echo "$TMPDIR $(ls -ld "$TMPDIR")"', tmp_path) as shell:
            value, _ = shell.communicate(timeout=WAIT_S)
        folder, mode = value.split()[:2]
        assert mode == "drwx------"
        assert folder.startswith(f"{tmp_path}/simenv-prted.{os.uname().nodename}.{shell.pid}.")
        names.add(folder.rpartition(".")[2])
    assert len(names) == 2


def test_symlink_in_place_of_an_old_folder_is_not_followed(tmp_path: Path) -> None:
    value = tmp_path / "kept"
    value.mkdir()
    (value / "file").touch()
    (tmp_path / f"simenv-prted.{os.uname().nodename}.999999999.x").symlink_to(value)
    with contained("true", tmp_path) as shell:
        shell.communicate(timeout=WAIT_S)
    assert (value / "file").exists()


def test_daemon_folder_is_removed_when_its_shell_is_killed(tmp_path: Path) -> None:
    with contained("echo up; exec sleep 600", tmp_path) as shell:
        assert shell.stdout is not None
        shell.stdout.readline()
        daemons: list[psutil.Process] = []
        # The daemon, the shell that will remove its folder, and what that waits with. Each is a
        # copy of the shell at first.
        while len(below := psutil.Process(shell.pid).children(recursive=True)) < 3 or not daemons:
            with contextlib.suppress(psutil.NoSuchProcess):
                daemons = [each for each in below if each.cmdline() == ["sleep", "600"]]
        (daemon,) = daemons
        shell.kill()
        shell.wait(WAIT_S)
        daemon.kill()
    _, alive = psutil.wait_procs(below, timeout=WAIT_S)
    assert not alive
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("size", ["9" * 5_000, "\u00b2", "two", "-1", "99999999999"])
def test_invalid_het_size_is_ignored(size: str) -> None:
    environ = {"SLURM_JOB_ID": "7", "SLURM_HET_SIZE": size}
    assert agent.remote_command("n1", ["true"], environ)[0] == "srun"


def test_agent_runs_with_environment_of_service(tmp_path: Path) -> None:
    program, file = tmp_path / "my agent", tmp_path / "told"
    program.write_text('#!/bin/sh\necho "$MARK $1"; shift; exec /bin/sh -c "$*"\n')
    program.chmod(0o700)
    environ = {"PATH": os.environ["PATH"], "MARK": "yes"}
    agent.write_settings(file, shlex.quote(str(program)), environ)
    assert file.stat().st_mode & 0o777 == 0o600
    words = ["-P", "-m", "launcher.process.agent", str(file), "-x", "n1", "echo", '"a  b"']
    environ = {"TMPDIR": str(tmp_path), "PATH": os.environ["PATH"]}
    done = python(*words, env=environ, timeout=WAIT_S, check=False)
    assert done.stdout == "yes n1\na  b\n", done.stderr


HERE = os.uname().nodename


@pytest.fixture
def forbidden(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that allows no namespaces."""
    monkeypatch.setattr(
        network_namespace, "unavailable_reason", lambda: "no namespace: not permitted"
    )


def test_one_isolated_node_is_not_exposed() -> None:
    if why := network_namespace.unavailable_reason():
        pytest.skip(why)
    assert network_namespace.can_isolate([HERE])
    assert network_namespace.exposure([HERE], {}, None) == ""


def test_unavailable_namespace_is_reported_as_exposure_with_reason(forbidden: None) -> None:
    assert not network_namespace.can_isolate([HERE])
    assert "not permitted" in network_namespace.exposure([HERE], {}, None)
    assert network_namespace.exposure([HERE], {network_namespace.PSEC: "munge"}, None) == ""


def test_several_nodes_are_exposed_without_munge() -> None:
    assert not network_namespace.can_isolate([HERE, "node2"])
    assert "one network" in network_namespace.exposure([HERE, "node2"], {}, None)
    assert (
        network_namespace.exposure([HERE, "node2"], {network_namespace.PSEC: "munge"}, None) == ""
    )
    assert network_namespace.exposure(
        [HERE, "node2"], {network_namespace.PSEC: "munge,native"}, None
    )


@pytest.fixture
def munged(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """The socket of a munge daemon."""
    path = tmp_path / "munge.socket"
    monkeypatch.setattr(network_namespace, "MUNGE_SOCKET", path)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        yield path


def test_munge_is_used_where_pmix_supports_it_and_munged_runs(munged: Path, tmp_path: Path) -> None:
    library = tmp_path / "libpmix.so.2"
    library.write_bytes(b"...mca_psec_native_component...")
    assert network_namespace.PSEC not in network_namespace.with_munge({}, library)
    library.write_bytes(b"...mca_psec_munge_component...")
    assert network_namespace.with_munge({"A": "1"}, library) == {
        "A": "1",
        network_namespace.PSEC: "munge",
    }
    assert (
        network_namespace.with_munge({network_namespace.PSEC: "native"}, library)[
            network_namespace.PSEC
        ]
        == "native"
    )
    assert network_namespace.exposure([HERE, "node2"], {}, library) == ""
    munged.unlink()
    assert network_namespace.PSEC not in network_namespace.with_munge({}, library)


def test_munge_plugin_beside_the_library_is_found(munged: Path, tmp_path: Path) -> None:
    library = tmp_path / "libpmix.so.2"
    library.write_bytes(b"")
    (tmp_path / "pmix").mkdir()
    (tmp_path / "pmix" / "pmix_mca_psec_munge.so").touch()
    assert network_namespace.with_munge({}, library)[network_namespace.PSEC] == "munge"
