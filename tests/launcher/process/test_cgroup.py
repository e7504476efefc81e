"""Groups that bound memory: which group is used, what is written, and the kernel's own answer."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from confined import control_group
from waiting import until

from launcher.process import cgroup
from launcher.process.cgroup import MemoryGroups, memory_groups


@pytest.fixture
def delegated() -> Iterator[MemoryGroups]:
    """Groups of the kernel, where it lets this user make some."""
    groups = memory_groups(f"simenv-test.{os.getpid()}")
    if isinstance(groups, str):
        pytest.skip(groups)
    yield groups
    groups.close()


def test_process_leaves_its_own_group_for_one_below_before_it_sets_limits(tmp_path: Path) -> None:
    own = control_group(tmp_path / "own")
    assert isinstance(memory_groups("simenv", [own]), MemoryGroups)
    assert (own / "simenv" / "service" / cgroup.PROCESSES).read_text() == str(os.getpid())
    assert (own / cgroup.SUBTREE).read_text() == "+memory"
    assert (own / "simenv" / cgroup.SUBTREE).read_text() == "+memory"


def test_nothing_moves_where_limits_are_possible_already(tmp_path: Path) -> None:
    own = control_group(tmp_path / "own", subtree="memory")
    assert isinstance(memory_groups("simenv", [own]), MemoryGroups)
    assert not (own / "simenv" / "service").exists()


def test_limit_of_a_process_is_written_to_its_group_alone(tmp_path: Path) -> None:
    groups = MemoryGroups(tmp_path)
    groups.add("main-0", 4711)
    groups.add("main-1", 4712)
    assert (tmp_path / "main-0" / cgroup.PROCESSES).read_text() == "4711"
    assert (tmp_path / "main-0" / "memory.oom.group").read_text() == "1"
    groups.limit("main-0", 2**30)
    groups.limit("main-2", 2**30)
    assert (tmp_path / "main-0" / "memory.max").read_text() == str(2**30)
    assert not (tmp_path / "main-1" / "memory.max").exists()
    assert not (tmp_path / "main-2").exists()
    assert not groups.is_out_of_memory("main-0")
    (tmp_path / "main-0" / "memory.events").write_text(
        "max 9\noom 1\noom_kill 1\noom_group_kill 1\n"
    )
    assert groups.is_out_of_memory("main-0")
    (tmp_path / "main-0" / "memory.events").write_text("max 9\noom 0\noom_kill 0\n")
    assert not groups.is_out_of_memory("main-0")
    groups.remove("main-0")
    assert (tmp_path / "main-0" / "cgroup.kill").read_text() == "1"


@pytest.mark.parametrize(
    ("controllers", "mode", "reason"),
    [
        ("cpu pids", 0o755, "memory is not counted there"),
        ("memory", 0o500, "not delegated to this user"),
    ],
)
def test_unusable_group_is_named_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, controllers: str, mode: int, reason: str
) -> None:
    own = control_group(tmp_path / "own", controllers)
    if mode == 0o500:  # root may write whatever the mode says
        monkeypatch.setattr(cgroup.os, "access", lambda *_: False)
    assert memory_groups("simenv", [own]) == f"{own}: {reason}"
    assert not (own / "simenv").exists()


def test_no_group_of_version_2_is_named() -> None:
    assert memory_groups("simenv", [Path("/nowhere")]) == cgroup.NO_GROUP


def test_kernel_ends_a_process_above_its_limit(delegated: MemoryGroups) -> None:
    source = "import sys; sys.stdin.readline(); x = bytearray(2**28); print(len(x))"
    argv = [sys.executable, "-c", source]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        delegated.add("w", process.pid)
        delegated.limit("w", 2**26)
        assert process.communicate(b"\n")[0] == b""
    assert process.returncode == -9
    assert delegated.is_out_of_memory("w")


def test_what_a_process_left_ends_with_its_group(delegated: MemoryGroups) -> None:
    argv = ["sh", "-c", "read line; setsid sleep 600 & echo $!"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        delegated.add("w", process.pid)
        assert process.stdin is not None
        process.stdin.write(b"\n")
        process.stdin.close()
        assert process.stdout is not None
        left = int(process.stdout.readline())
    delegated.remove("w")
    until(lambda: not psutil.pid_exists(left) or psutil.Process(left).status() == "zombie")
