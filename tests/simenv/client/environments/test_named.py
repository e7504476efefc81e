"""Named environments, and what is left of one."""

import fcntl
import gc
import os
import resource
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from failing import fails
from forks import forked
from interpreter import python
from live import Live, environment

import simenv
from simenv import config
from simenv.client import environments, launch
from simenv.client.connection import channel
from simenv.config import Config, EnvironmentPaths
from simenv.errors import (
    ConfigError,
    InsufficientError,
    NoServiceError,
    OptionError,
    ServiceLostError,
    SimenvError,
    StartFailedError,
)
from simenv.model import PoolSpec

BELL = """OPENQASM 2.0; include "qelib1.inc"; qreg q[2]; creg c[2]; h q[0]; cx q[0],q[1];
measure q -> c;"""


MANY_FILES = 1_100  # more than select(2) takes


@pytest.fixture
def where(tmp_path: Path) -> EnvironmentPaths:
    (tmp_path / "service.log").write_text("one\ntwo\nthree\n")
    return EnvironmentPaths(tmp_path, tmp_path)


def hear(
    code: str,
    where: EnvironmentPaths,
    timeout_s: float = 60.0,
    progress: launch.Progress | None = None,
) -> None:
    """Wait for the readiness of a process that is not quite a service."""
    ready, value = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-c", f"import os, time\ntold = {value}\n{code}"], pass_fds=[value]
    )
    os.close(value)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 2 * MANY_FILES)), hard))
    late = fcntl.fcntl(ready, fcntl.F_DUPFD_CLOEXEC, MANY_FILES)  # of a process with many files
    os.close(ready)
    try:
        launch._await(late, process, where, timeout_s, progress)
    finally:
        os.close(late)
        process.kill()
        process.wait()


@pytest.mark.usefixtures("no_leaks")
def test_interrupted_start_ends_service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []

    def interrupt(_ready: int, process: subprocess.Popen[bytes], *_: object) -> None:
        terminate = process.terminate
        monkeypatch.setattr(process, "terminate", lambda: done.append("told") or terminate())
        raise KeyboardInterrupt

    def end(process: subprocess.Popen[bytes]) -> None:
        done.append("waited")
        process.wait()

    monkeypatch.setattr(launch, "_await", interrupt)
    monkeypatch.setattr(launch, "end", end)
    with pytest.raises(KeyboardInterrupt):
        launch.start(
            Config(), EnvironmentPaths(tmp_path / "home", tmp_path / "home"), private=False
        )
    assert done == ["told", "waited"]


def test_settings_that_a_service_refuses_are_not_those_of_the_last_start(tmp_path: Path) -> None:
    paths = EnvironmentPaths(tmp_path, tmp_path)
    tmp_path.chmod(0o700)
    refused = Config(name="local", pools=(PoolSpec(min=500, max=500),))
    fails(SimenvError, "do not fit", launch.start, refused, paths, private=True)
    assert not paths.config.exists()
    config.write(Config(name="local"), paths.config)
    former = paths.config.read_bytes()
    fails(SimenvError, "do not fit", launch.start, refused, paths, private=True)
    assert paths.config.read_bytes() == former


def test_refused_start_leaves_the_folders_of_another_one_that_goes_on(tmp_path: Path) -> None:
    paths = EnvironmentPaths(tmp_path / "home", tmp_path / "state")
    refused = Config(name="local", pools=(PoolSpec(min=500, max=500),))

    def begins() -> None:  # while a start with other settings waits for its service
        fails(InsufficientError, "another process", launch.start, other, paths, private=True)
        assert config.read(paths.config).pools == refused.pools
        assert paths.state.exists()

    other = Config(name="local")
    fails(SimenvError, "do not fit", launch.start, refused, paths, private=True, meanwhile=begins)
    assert not any(folder.exists() for folder in (paths.home, paths.state))


def test_ready_message_in_several_parts_is_read(where: EnvironmentPaths) -> None:
    hear("os.write(told, b'{\"ready\":'); os.write(told, b' true}\\n')", where)


def test_start_progress_is_reported_until_service_is_ready(where: EnvironmentPaths) -> None:
    stages: list[str] = []
    code = """
import fcntl, termios
os.write(told, b'{"progress":"one"}\\n')
while fcntl.ioctl(told, termios.FIONREAD, bytes(4)) != bytes(4):  # until it was read
    time.sleep(0.01)
os.write(told, b'{"progress":"two"}\\n{"ready":true}\\n')
"""
    hear(code, where, progress=lambda stage, _: stages.append(stage))
    assert "one" in stages
    error = b'{"progress":"one"}\n{"error":{"code":"config","message":"wrong"}}\n'
    fails(ConfigError, "wrong", hear, f"os.write(told, {error!r})", where, progress=lambda *_: None)


@pytest.mark.usefixtures("no_leaks")
def test_service_reports_how_many_workers_are_ready() -> None:
    stages: list[str] = []
    live = Live(pools=[{"name": "main", "min": 1, "max": 1}])
    environments.up(live.options, progress=lambda stage, _: stages.append(stage))
    live.down()
    assert any(stage.startswith("0 of 1 workers ready") for stage in stages), stages


def test_services_that_fail_to_start_are_reported(where: EnvironmentPaths) -> None:
    error = '{"error": {"code": "config", "message": "slots = -1", "hint": "more"}}\\n'
    caught = fails(ConfigError, "slots = -1", hear, f"os.write(told, b'{error}')", where)
    assert caught.hint == "more"
    error = fails(StartFailedError, "exit code 3 before it was ready", hear, "os._exit(3)", where)
    assert error.hint == f"the end of {where.log}:\n  one\n  two\n  three"
    fails(StartFailedError, "said b'hello", hear, "os.write(told, b'hello\\n')", where)
    with pytest.raises(StartFailedError, match=r"did not become ready within 0\.2 s"):
        hear("time.sleep(60)", where, timeout_s=0.2)


def test_service_inherits_only_allowed_environment_variables() -> None:
    table = {
        "PATH": "/bin", "LC_ALL": "C", "SIMENV_HOME": "/x", "SLURM_JOB_ID": "7", "PYTHONPATH": "/y",
        "AWS_SECRET": "z", "LD_PRELOAD": "w", "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    assert set(launch.environment(table)) == {
        "PATH", "LC_ALL", "SIMENV_HOME", "SLURM_JOB_ID", "OMP_NUM_THREADS",
    }  # fmt: skip


def test_process_that_is_not_service_is_never_signalled() -> None:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    launch.force(process.pid, 0.0)
    assert process.poll() is None
    process.communicate(b"\n")
    assert process.returncode == 0


def test_only_simenv_folders_are_removed(tmp_path: Path) -> None:
    for name in ("simenv-abc", "other"):
        (tmp_path / name).mkdir()
        launch.clear(tmp_path / name, tmp_path / "connection.json")
    assert [path.name for path in tmp_path.iterdir()] == ["other"]


@pytest.mark.parametrize(
    "settings",
    [
        {"colour": "red"}, {"silent_s": -1}, {"workers": -1}, {"workers": "2"}, {"slots": "2"},
        {"name": "X"},
    ],
)  # fmt: skip
def test_invalid_settings_of_private_environment_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(ConfigError), simenv.local(**settings):  # type: ignore[arg-type]
        pytest.fail("it came up")


@pytest.mark.usefixtures("no_leaks")
def test_refused_configuration_leaves_no_files() -> None:
    before = set(Path(tempfile.gettempdir()).iterdir())
    with pytest.raises(ConfigError, match="memory_bytes"), simenv.local(memory_bytes=2**59):
        pytest.fail("it came up")
    assert set(Path(tempfile.gettempdir()).iterdir()) == before


@pytest.mark.usefixtures("no_leaks")
def test_killed_private_service_raises_service_lost_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with simenv.local(workers=1) as env:
        monkeypatch.setattr(channel, "LOST_S", 0.5)
        os.kill(env.status().pid, signal.SIGKILL)
        caught = fails(ServiceLostError, "has ended", env.status)
    assert "service.log" in caught.hint
    assert caught.last_seen_s > 0


def test_wait_for_a_task_outlasts_the_restart_of_its_service(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with environment() as live, simenv.connect(live.name) as client:
        task = client.submit(BELL, seed=1)
        pid = live.service().pid
        live.kill_service()
        live.wait_dead(pid)
        monkeypatch.setattr(channel, "LOST_S", 0.2)
        back = threading.Timer(1.0, live.up)
        back.start()
        assert task.result(60).seed == 1
        back.join()


@pytest.mark.parametrize("value", [0, -1.0, float("nan"), "30", None, True])
def test_patience_without_a_meaning_is_refused(value: Any) -> None:
    fails(OptionError, "patience_s=", simenv.connect, patience_s=value)


@pytest.mark.usefixtures("no_leaks")
def test_forked_child_neither_ends_nor_keeps_private_environment() -> None:
    others = set(environments._lifelines)
    with simenv.local(workers=1) as env:
        [lifeline] = set(environments._lifelines) - others
        assert forked(lambda: fails(OSError, "", os.fstat, lifeline)) == 0
        assert env.status().name == "local"


@pytest.mark.usefixtures("no_leaks")
def test_down_kills_service_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environments, "ANSWER_S", 0.5)
    monkeypatch.setattr(environments, "FORCE_S", 0.5)
    live = Live()
    live.up()
    live.service().suspend()
    assert environments.down(live.name).forced
    fails(NoServiceError, "", environments.down, live.name)
    live.down()


@pytest.mark.usefixtures("no_leaks")
def test_down_after_crash_removes_connection_file() -> None:
    live = Live()
    live.up()
    pid = live.service().pid
    live.kill_service()
    live.wait_dead(pid)
    assert environments.down(live.name).forced
    assert not (live.home / "connection.json").exists()
    live.down()


@pytest.mark.usefixtures("no_leaks")
def test_launcher_hosts_and_memory_settings_are_applied() -> None:
    nodename = os.uname().nodename
    table = {"launcher": "local", "memory_per_slot": "64MiB", "hosts": f"{nodename}:2"}
    before = set(config.home_root().glob("*"))
    with simenv.local(workers=1, **table) as env:
        info = env.status()
        (node,) = env.nodes().values()
        assert info.launcher.startswith("local: ")
        assert (node.name, node.slots, node.memory_bytes) == (nodename, 2, 2**27)
        assert [pool.least for pool in env.pools().values()] == [1]
    assert set(config.home_root().glob("*")) <= {*before, config.home_root() / "launchers.json"}
    with (
        pytest.raises(ConfigError, match=r"simenv\.local: launcher 'mpirum' is not known"),
        simenv.local(launcher="mpirum"),
    ):
        pass


@pytest.mark.usefixtures("no_leaks")
def test_private_environment_without_with_block_lasts_until_close() -> None:
    env = simenv.local(workers=1)
    assert isinstance(env, simenv.Client)
    pid = env.status().pid
    assert sum(env.run(BELL, shots=10).counts.values()) == 10
    env.close()
    assert not psutil.pid_exists(pid)
    env.close()
    fails(NoServiceError, "closed", env.status)


@pytest.mark.usefixtures("no_leaks")
def test_private_environment_ends_when_nothing_refers_to_it() -> None:
    env = simenv.local(workers=1)
    pid = env.status().pid
    task = env.submit(BELL, shots=10)
    del env
    gc.collect()
    assert sum(task.result(60).counts.values()) == 10
    del task
    gc.collect()
    assert not psutil.pid_exists(pid)


@pytest.mark.usefixtures("no_leaks")
def test_private_environment_ends_with_the_interpreter() -> None:
    script = "import simenv\nenv = simenv.local(workers=1)\nprint(env.status().pid)\n"
    done = python("-c", script, timeout=120)
    assert not psutil.pid_exists(int(done.stdout))
    assert done.stderr == ""


@pytest.mark.usefixtures("no_leaks")
def test_collected_client_closes_its_connection() -> None:
    script = (
        "import gc, sys, simenv\n"
        "env = simenv.connect(service=sys.argv[1])\n"
        "print(env.status().pid)\n"
        "del env\n"
        "gc.collect()\n"
    )
    with simenv.local(workers=1) as env:
        done = python("-W", "error", "-c", script, env.service, timeout=60)
        assert (int(done.stdout), done.stderr) == (env.status().pid, "")


TREE = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"])
print(child.pid, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def tree() -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A child, and the pid of its child; both wait for the end of their input."""
    with subprocess.Popen(
        [sys.executable, "-c", TREE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        yield child, int(child.stdout.readline())
        child.kill()


def test_descendants_include_grandchildren(tree: tuple[subprocess.Popen[str], int]) -> None:
    child, grandchild = tree
    assert {each.pid for each in environments.descendants(os.getpid())} >= {child.pid, grandchild}
    assert {each.pid for each in environments.descendants(child.pid)} == {grandchild}


def test_orphaned_grandchild_is_found_and_killed(tree: tuple[subprocess.Popen[str], int]) -> None:
    child, grandchild = tree
    below = environments.descendants(child.pid)
    child.kill()
    child.wait()
    assert [each.pid for each in environments.still_running(below, 0.0)] == [grandchild]
    environments.kill(below)
    assert environments.still_running(below, 20.0) == []


def test_process_with_reused_pid_is_not_killed(tree: tuple[subprocess.Popen[str], int]) -> None:
    child, _ = tree
    other = psutil.Process(child.pid)
    other._ident = (child.pid, 0.0)  # a process that had this pid before
    assert environments.still_running([other], 0.0) == []
    environments.kill([other])
    assert psutil.Process(child.pid).is_running()


def test_sockets_and_segments_of_killed_service_are_removed(tmp_path: Path) -> None:
    sockets = config.socket_folder()
    segments = config.segment_folder(sockets)
    segments.mkdir(mode=0o700)
    (segments / "sm_segment.node.0.1").touch()
    (sockets / "worker.sock").touch()
    launch.clear(sockets, tmp_path / "connection.json")
    assert not sockets.exists()
    assert not segments.exists()
    assert sockets.parent.is_dir()


def test_standby_of_an_environment_with_a_file_as_journal_is_refused(tmp_path: Path) -> None:
    settings = config.Config(name="plain")
    folder = config.places(settings).home
    folder.mkdir(parents=True, mode=0o700)
    config.write(settings, folder / "config.json")
    error = fails(ConfigError, "no other machine can take over", environments.stand_by, "plain")
    assert "--journal" in error.hint
    fails(ConfigError, "cannot read", environments.stand_by, "never")


def test_a_name_that_postgresql_would_cut_is_refused() -> None:
    journal = "postgresql://simenv@db/simenv"
    assert config.load({"name": "n" * 56, "journal": journal}).name == "n" * 56
    config.load({"name": "n" * 57})
    fails(ConfigError, "57 characters", config.load, {"name": "n" * 57, "journal": journal})
