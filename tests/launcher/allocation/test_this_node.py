"""What is really ours of this machine."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from launcher.allocation import this_node


@pytest.fixture
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stands for /sys/fs/cgroup; what the process is told of its groups stands in `self`."""
    read = this_node._read
    monkeypatch.setattr(this_node, "_CGROUP", tmp_path / "fs")
    monkeypatch.setattr(
        this_node,
        "_read",
        lambda p: read(tmp_path / "self" if str(p) == "/proc/self/cgroup" else p),
    )
    return tmp_path


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_slots_follow_cpu_affinity() -> None:
    result = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(result)})
        assert this_node.this_node().slots == 1
    finally:
        os.sched_setaffinity(0, result)


def test_cgroup_limits_bound_cores_and_memory(groups: Path) -> None:
    write(groups / "self", "0::/a/b\n")
    write(groups / "fs/a/b/cpu.max", "100000 100000\n")
    write(groups / "fs/a/memory.max", "123456789\n")
    write(groups / "fs/a/b/memory.max", "max\n")
    node = this_node.this_node()
    assert node.slots == 1
    assert node.memory_bytes == 123456789


def test_limits_of_cgroups_version_1_hold(groups: Path) -> None:
    write(groups / "self", "5:cpu,cpuacct:/slurm/job_7\n3:memory:/slurm/job_7\n0::/\n")
    write(groups / "fs/cpu,cpuacct/slurm/job_7/cpu.cfs_quota_us", "150000\n")
    write(groups / "fs/cpu,cpuacct/slurm/job_7/cpu.cfs_period_us", "100000\n")
    write(groups / "fs/memory/slurm/job_7/memory.limit_in_bytes", "9223372036854771712\n")
    write(groups / "fs/memory/slurm/memory.limit_in_bytes", "77000000\n")
    node = this_node.this_node()
    assert node.slots == 1
    assert node.memory_bytes == 77000000


def test_limits_hold_in_a_container_with_its_own_cgroup_root(groups: Path) -> None:
    write(groups / "self", "4:memory:/docker/abc\n2:cpu,cpuacct:/docker/abc\n")
    write(groups / "fs/memory/memory.limit_in_bytes", "55000000\n")
    write(groups / "fs/cpu/cpu.cfs_quota_us", "-1\n")
    write(groups / "fs/cpu/cpu.cfs_period_us", "100000\n")
    node = this_node.this_node()
    assert node.memory_bytes == 55000000
    assert node.slots == len(os.sched_getaffinity(0))


def test_cpu_quota_below_one_core_is_one_slot(groups: Path) -> None:
    write(groups / "self", "0::/a\n")
    write(groups / "fs/a/cpu.max", "20000 100000\n")
    assert this_node.this_node().slots == 1


def test_names_of_this_machine_are_recognised() -> None:
    assert this_node.is_this_node("localhost")
    assert this_node.is_this_node(os.uname().nodename)
    assert not this_node.is_this_node(os.uname().nodename + "x")
