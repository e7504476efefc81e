"""What a process has started is found, waited for and ended; nothing else is."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from simenv import config
from simenv.client.environments import launch, named

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
        assert child.stdout is not None
        yield child, int(child.stdout.readline())
        child.kill()


def test_descendants_include_grandchildren(tree: tuple[subprocess.Popen[str], int]) -> None:
    child, grandchild = tree
    assert {each.pid for each in named.descendants(os.getpid())} >= {child.pid, grandchild}
    assert {each.pid for each in named.descendants(child.pid)} == {grandchild}


def test_orphaned_grandchild_is_found_and_killed(tree: tuple[subprocess.Popen[str], int]) -> None:
    child, grandchild = tree
    below = named.descendants(child.pid)
    child.kill()
    child.wait()
    assert [each.pid for each in named.still_running(below, 0.0)] == [grandchild]
    named.kill(below)
    assert named.still_running(below, 20.0) == []


def test_process_with_reused_pid_is_not_killed(tree: tuple[subprocess.Popen[str], int]) -> None:
    child, _ = tree
    other = psutil.Process(child.pid)
    other._ident = (child.pid, 0.0)  # a process that had this pid before
    assert named.still_running([other], 0.0) == []
    named.kill([other])
    assert psutil.Process(child.pid).is_running()


def test_sockets_and_segments_of_a_killed_service_are_removed_but_not_the_lasting_folder(
    tmp_path: Path,
) -> None:
    sockets = config.socket_folder()
    segments = config.segment_folder(sockets)
    segments.mkdir(mode=0o700)
    (segments / "sm_segment.node.0.1").touch()
    (sockets / "worker.sock").touch()
    launch.clear(sockets, tmp_path / "connection.json")
    assert not sockets.exists()
    assert not segments.exists()
    assert sockets.parent.is_dir()


def test_folder_of_another_name_is_not_removed(tmp_path: Path) -> None:
    launch.clear(tmp_path, tmp_path / "connection.json")
    assert tmp_path.is_dir()
