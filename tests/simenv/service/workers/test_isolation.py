"""Folders of isolated workers: whose files they are, where they go, and what ends with them."""

import contextlib
import ctypes
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from confined import control_group, skip_without_confinement
from failing import fails
from interpreter import python
from service import ServiceHarness, program, spec
from waiting import until

from launcher.process import cgroup
from simenv import foreign_files
from simenv.config import convert
from simenv.errors import ConfigError, NotAllowedError
from simenv.model import task_name
from simenv.result_files import CHECKPOINTS, WORKERS, attempt_file
from simenv.sandbox import confinement, process_tree
from simenv.scheduler.events.workers import kernel_bound, memory_bound
from simenv.service.workers import isolation
from simenv.service.workers.isolation import WorkerIsolation, check_isolation

PR_SET_CHILD_SUBREAPER = 36


@pytest.fixture(autouse=True)
def adopt_nothing_later() -> Iterator[None]:
    """This process must not stay the parent of what other tests leave."""
    yield
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


@pytest.fixture
def workers(tmp_path: Path) -> WorkerIsolation:
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "token").write_text("token")
    return WorkerIsolation(tmp_path / "results", "test")


def made(workers: WorkerIsolation, name: str, start: int) -> Path:
    """The folder of a start of a worker."""
    folder = workers.make(name, start)
    workers.create(folder)
    return folder


def assign(workers: WorkerIsolation, name: str, records: list[Any], bound_bytes: int) -> None:
    if (job := workers.assign(name, records, bound_bytes)) is not None:
        job()


def until_step(bench: ServiceHarness, holds: Callable[[], bool]) -> None:
    """Let the service work until something holds."""
    until(lambda: bench.step() or holds())


def result(task: int, fence: int, size_bytes: int) -> Any:
    return SimpleNamespace(task=task, attempt=fence, file_bytes=size_bytes)


def record(task: int, attempts: int = 1, num_qubits: int = 24) -> Any:
    route = SimpleNamespace(num_qubits=num_qubits)
    return SimpleNamespace(number=task, attempts=attempts, route=route)


def test_each_start_has_a_private_folder_that_goes_with_it(workers: WorkerIsolation) -> None:
    folder = made(workers, "main-0", 3)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert (folder / "tmp").is_dir()
    other = made(workers, "main-1", 4)
    assert workers.ended("main-0", 2) is None, "an earlier start of that name"
    assert ended(workers, "main-0", 3) == folder
    assert workers.ended("main-0", 3) is None
    workers.close()
    assert not other.exists()


def test_folders_of_a_killed_service_are_removed(tmp_path: Path) -> None:
    first = made(WorkerIsolation(tmp_path, "test"), "main-0", 1)
    (first / "tmp" / "left").write_text("x")
    WorkerIsolation(tmp_path, "test")
    assert not first.exists()


def taken(workers: WorkerIsolation, *results: Any) -> list[str]:
    return workers.taking("main-0", results, sync=True)()


def test_result_file_is_moved_to_its_place(workers: WorkerIsolation, tmp_path: Path) -> None:
    folder = made(workers, "main-0", 1)
    name = attempt_file(5000, 65_537)
    (folder / name).parent.mkdir()
    (folder / name).write_text("data")
    assert taken(workers, result(5000, 65_537, 4)) == [""]
    assert (tmp_path / "results" / name).read_text() == "data"
    assert not (folder / name).exists()
    assert taken(workers, result(5001, 65_537, 4)) == ["No such file or directory"]


@pytest.mark.parametrize("kind", ["link", "folder", "pipe", "hard link", "above", "open", "size"])
def test_what_is_no_file_of_the_worker_alone_is_not_taken(
    workers: WorkerIsolation, tmp_path: Path, kind: str
) -> None:
    """Neither the file of another account that a link leads to, nor a tree that no limit counts."""
    folder, name = made(workers, "main-0", 1), attempt_file(5000, 65_537)
    other = tmp_path / "elsewhere" / Path(name).name
    other.parent.mkdir()
    other.write_text("data")
    path = folder / name
    if kind == "above":
        path.parent.symlink_to(other.parent)
    else:
        path.parent.mkdir()
    if kind == "link":
        path.symlink_to(other)
    elif kind == "folder":
        (path / "d").mkdir(parents=True)
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "hard link":
        path.hardlink_to(other)
    elif kind == "size":
        path.write_text("more than data")
    with contextlib.ExitStack() as writers:
        if kind == "open":
            path.write_text("data")
            writers.enter_context(path.open("a"))
        (reason,) = taken(workers, result(5000, 65_537, 4))
    assert reason
    assert other.read_text() == "data"
    assert list((tmp_path / "results" / name).parent.glob("*")) == []


def test_checkpoints_follow_their_task_and_no_others_are_taken(
    workers: WorkerIsolation, tmp_path: Path
) -> None:
    first, second = made(workers, "main-0", 1), made(workers, "main-1", 2)
    assign(workers, "main-0", [record(9), record(10, num_qubits=4)], 2**30)
    for task in (9, 10, 11):
        (first / CHECKPOINTS / task_name(task)).mkdir(parents=True)
        (first / CHECKPOINTS / task_name(task) / "1.h5").write_text(f"state of {task}")
    ended(workers, "main-0", 1)
    kept = tmp_path / "results" / CHECKPOINTS
    assert [path.name for path in kept.iterdir()] == [task_name(9)], "11 was never its task"
    assign(workers, "main-1", [record(9, attempts=2)], 2**30)
    assert (second / CHECKPOINTS / task_name(9) / "1.h5").read_text() == "state of 9"
    assert not list(kept.iterdir())
    third = made(workers, "main-2", 3)
    assign(workers, "main-2", [record(9, attempts=3)], 2**30)
    assert (third / CHECKPOINTS / task_name(9) / "1.h5").exists(), "its worker lives on"


@pytest.mark.parametrize("kind", ["link", "folder", "pipe", "link in place of the folder"])
def test_checkpoints_that_are_no_plain_files_are_not_taken(
    workers: WorkerIsolation, tmp_path: Path, kind: str
) -> None:
    """Their task begins anew; nothing of them is handed to the next worker, or stays."""
    folder = made(workers, "main-0", 1)
    assign(workers, "main-0", [record(9)], 2**30)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "1.h5").write_text("of another account")
    own = folder / CHECKPOINTS / task_name(9)
    if kind == "link in place of the folder":
        own.parent.mkdir()
        own.symlink_to(elsewhere)
    else:
        own.mkdir(parents=True)
        (own / "0.h5").write_text("state")
    if kind == "link":
        (own / "1.h5").symlink_to(elsewhere / "1.h5")
    elif kind == "folder":
        (own / "large").mkdir()
    elif kind == "pipe":
        os.mkfifo(own / "1.h5")
    ended(workers, "main-0", 1)
    assert list((tmp_path / "results" / CHECKPOINTS).glob("*")) == []
    second = made(workers, "main-1", 2)
    assign(workers, "main-1", [record(9, attempts=2)], 2**30)
    assert not (second / CHECKPOINTS / task_name(9)).exists()
    assert (elsewhere / "1.h5").read_text() == "of another account"


def test_checkpoints_are_handed_to_no_folder_that_a_link_leads_to(
    workers: WorkerIsolation, tmp_path: Path
) -> None:
    kept, elsewhere = tmp_path / "results" / CHECKPOINTS / task_name(9), tmp_path / "elsewhere"
    for each in (kept, elsewhere / task_name(9)):
        each.mkdir(parents=True)
    (elsewhere / task_name(9) / "file").touch()
    folder = made(workers, "main-0", 1)
    (folder / CHECKPOINTS).symlink_to(elsewhere)
    assign(workers, "main-0", [record(9, attempts=2)], 2**30)
    assert [path.name for path in (elsewhere / task_name(9)).iterdir()] == ["file"]


def test_processes_that_a_worker_left_are_killed(workers: WorkerIsolation) -> None:
    """They have the filter of system calls, and this process as their parent now."""
    skip_without_confinement()

    def children() -> set[int]:
        paths = Path("/proc/self/task").glob("*/children")
        return {int(pid) for path in paths for pid in path.read_text().split()}

    before = children()
    source = (
        "import os, time\nfrom simenv.sandbox.confinement import filter_calls\n"
        "filter_calls()\n"
        "if os.fork() == 0:\n os.setsid()\n"
        " if os.fork() == 0:\n  os.close(1)\n  os.close(2)\n  time.sleep(600)\n os._exit(0)\n"
        "os.wait()\nprint(open('/proc/self/status').read().count('Seccomp_filters'))"
    )
    done = python("-c", source)
    if done.stdout.strip() != "1":
        pytest.skip("this kernel does not count filters of system calls")
    innocent = subprocess.Popen(["sleep", "600"])

    left = children() - {innocent.pid} - before
    assert left, "nothing was left behind"

    def is_over() -> bool:
        look(workers)
        return not (children() & left)

    until(is_over)
    assert innocent.poll() is None
    innocent.kill()
    innocent.wait()


def ended(workers: WorkerIsolation, name: str, start: int) -> Path:
    take = workers.ended(name, start)
    assert take is not None
    return take()


def look(workers: WorkerIsolation) -> None:
    job = workers.killing_orphans(at_once=True)
    assert job is not None
    job()


def test_ended_orphans_are_reaped_and_own_children_keep_their_exit_code(
    workers: WorkerIsolation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Orphans without a filter, such as those of a launcher, stay as zombies otherwise."""
    own = subprocess.Popen(["sh", "-c", "exit 3"])
    process_tree.register(own)
    source = "import os\nif os.fork() == 0:\n if pid := os.fork():\n  print(pid, flush=True)\n"
    orphan = int(python("-c", f"{source}else:\n os.wait()").stdout)
    until(lambda: process_tree.has_ended(orphan) and process_tree.has_ended(own.pid))
    assert orphan in process_tree.adopted()
    assert own.pid not in process_tree.adopted()
    look(workers)
    assert process_tree.has_ended(orphan), "whoever has started it may be about to wait for it"
    monkeypatch.setattr(isolation, "REAP_S", 0.0)
    look(workers)
    assert not process_tree.has_ended(orphan)
    assert own.wait() == 3


def test_kernel_bounds_each_worker_by_the_grant_of_its_tasks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the files of a delegated control group in place of the kernel's."""
    own = control_group(tmp_path / "own")
    monkeypatch.setattr(cgroup, "control_groups", lambda _: [own])
    bench = ServiceHarness(tmp_path, isolation="account")
    workers = bench.loop.workers.isolation
    assert not any("memory" in gap for gap in workers.gaps)
    workers.started("main-0", 4711)
    (group,) = own.glob("*/main-0")
    assert (group / cgroup.PROCESSES).read_text() == "4711"
    assert not (group / "memory.max").exists(), "it has no tasks yet"
    bench.join()
    bounds = []
    for qubits in (2, 24):
        bench.submit(spec(program=program(qubits).packed()), key=f"~{qubits}")
        tasks = bench.assigned()
        worker = bench.state.cluster.workers["main-0"]
        assert [record.route.num_qubits for record in worker.held.values()] == [qubits]
        bounds.append(kernel_bound(worker))
        assert bounds[-1] > memory_bound(worker)
        assert (group / "memory.max").read_text() == str(bounds[-1])
        bench.finish(tasks)
    assert bounds[0] < bounds[1]
    (group / "memory.events").write_text("oom_kill 1\n")
    assert workers.is_out_of_memory("main-0")
    bench.paper.kill("main-0")
    bench.step()
    assert (group / "cgroup.kill").read_text() == "1"
    assert any("more memory than it was granted" in each.message for each in bench.events())


def test_pools_that_run_code_of_users_need_confinement(monkeypatch: pytest.MonkeyPatch) -> None:
    tools = [{"name": "tools", "engine": "functions"}]
    monkeypatch.setattr(confinement, "unavailable_reason", lambda: "this kernel has no Landlock")
    check_isolation(convert({"pools": tools}))
    check_isolation(convert({"pools": [{"name": "main"}], "isolation": "account"}))
    isolated = convert({"pools": tools, "isolation": "account"})
    why = r"pool 'tools' runs code of users.*has no Landlock"
    fails(ConfigError, why, check_isolation, isolated)
    pool = {"name": "sim", "engine": "external", "command": "/bin/true {circuit} {shots}"}
    isolated = convert({"pools": [pool], "isolation": "account"})
    fails(ConfigError, "pool 'sim' runs code of users", check_isolation, isolated)


def test_worker_cannot_join_or_beat_as_another_worker(tmp_path: Path) -> None:
    """On the service's node workers have no keys: a socket belongs to the first that joins."""
    pools = [{"name": "main", "min": 2, "max": 2}]
    bench = ServiceHarness(tmp_path, pools=pools, isolation="account")
    workers = bench.loop.workers
    starts = {name: command.start for name, command in bench.paper.commands.items()}
    assert workers.works("main-0", starts["main-0"], b"first")
    assert workers.beats("main-0", starts["main-0"], b"first!")
    for peer in (b"first", b"first!"):
        fails(NotAllowedError, "'main-0'", workers.works, "main-1", starts["main-1"], peer)
        fails(NotAllowedError, "'main-0'", workers.beats, "main-1", starts["main-1"], peer)
    assert workers.name_of(b"first") == "main-0"
    assert workers.works("main-1", starts["main-1"], b"second")


def test_command_of_an_isolated_worker_names_nothing_of_the_service(tmp_path: Path) -> None:
    bench = ServiceHarness(tmp_path, isolation="account")
    command = bench.paper.commands["main-0"]
    folder = tmp_path / "results" / WORKERS / f"main-0.{command.start}"
    environ = dict(command.environ)
    assert environ["HOME"] == environ["TMPDIR"] == str(command.cwd) == str(folder / "tmp")
    assert not {"USER", "XDG_RUNTIME_DIR", "SIMENV_HOME"} & environ.keys()
    assert command.argv[command.argv.index("--results") + 1] == str(folder)
    assert "--isolated" in command.argv
    (tmp_path / "plain").mkdir()
    plain = ServiceHarness(tmp_path / "plain")
    assert "--isolated" not in plain.paper.commands["main-0"].argv


def test_log_of_an_earlier_account_is_not_in_the_report_of_the_next(tmp_path: Path) -> None:
    bench = ServiceHarness(tmp_path, isolation="account")
    log = tmp_path / "logs" / "main-0.log"
    log.write_text("a secret of the first account\n")
    bench.paper.kill("main-0")
    bench.step()
    until_step(bench, lambda: "main-0" in bench.paper.commands)
    assert bench.loop.workers.log_tail("main-0") == ""


def test_worker_whose_files_take_more_than_all_results_may_is_ended(tmp_path: Path) -> None:
    bench = ServiceHarness(tmp_path, isolation="account", results={"keep_gib": 0.001})
    start = bench.paper.commands["main-0"].start
    folder = tmp_path / "results" / WORKERS / f"main-0.{start}" / "tmp"
    bench.loop.result_requests.file_worker.start()
    try:
        (folder / "large").write_bytes(bytes(2**20))
        bench.loop._events._next_sizes_ns = 0
        bench.step()
        bench.loop.result_requests.file_worker.after(lambda _: None)
        bench.step()
        assert bench.paper.commands["main-0"].start == start, "below the limit"
        (folder / "large").write_bytes(bytes(2**21))
        bench.loop._events._next_sizes_ns = 0
        until_step(bench, lambda: "main-0" not in bench.paper.commands)
    finally:
        bench.loop.result_requests.file_worker.stop()
    assert any(each.message.startswith("its files took 2.0 MiB") for each in bench.events())


def test_worker_with_folders_that_cannot_be_listed_is_ended(workers: WorkerIsolation) -> None:
    folder = made(workers, "fn-0", 1)
    (reason,) = workers.above_limit({folder.name: foreign_files.UNMEASURABLE}, 2**30).values()
    assert "cannot be listed" in reason
