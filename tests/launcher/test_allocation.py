"""What is really ours."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from launcher import allocation


def test_cores_follow_the_affinity() -> None:
    mine = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(mine)})
        assert allocation.this_machine().slots == 1
    finally:
        os.sched_setaffinity(0, mine)


def test_a_cgroup_bounds_cores_and_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = tmp_path / "a" / "b"
    own.mkdir(parents=True)
    (own / "cpu.max").write_text("100000 100000\n")
    (tmp_path / "a" / "memory.max").write_text("123456789\n")
    (own / "memory.max").write_text("max\n")
    monkeypatch.setattr(allocation, "_CGROUP", tmp_path)
    read = allocation._read
    monkeypatch.setattr(
        allocation, "_read", lambda p: "0::/a/b\n" if str(p) == "/proc/self/cgroup" else read(p)
    )
    node = allocation.this_machine()
    assert node.slots == 1
    assert node.memory_bytes == 123456789
