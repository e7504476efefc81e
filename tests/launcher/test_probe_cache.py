"""What worked is remembered, of this program, here, as it is now."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from launcher import probe_cache
from launcher.probe import ProbeResult
from launcher.probe_cache import ProbeCache, cache_key

OUTCOME = ProbeResult("mpirun", "Open MPI 5", "/opt/mpirun", True, "Open MPI v5", 0.3)


def test_working_result_is_cached(tmp_path: Path) -> None:
    file = tmp_path / "launchers.json"
    ProbeCache(file).add("one", OUTCOME)
    ProbeCache(file).add("two", OUTCOME)
    assert ProbeCache(file).get("one") == OUTCOME
    assert ProbeCache(file).get("three") is None
    assert [path.name for path in tmp_path.iterdir()] == ["launchers.json"]


def test_cache_file_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe_cache, "MAX_ENTRIES", 3)
    file = tmp_path / "launchers.json"
    for key in "abcdd":
        ProbeCache(file).add(key, OUTCOME)
    outcome = ProbeCache(file)
    assert [outcome.get(key) is not None for key in "abcd"] == [False, True, True, True]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": 1}', '{"format": 99, "entries": []}'])
def test_damaged_cache_file_is_ignored(text: str, tmp_path: Path) -> None:
    file = tmp_path / "launchers.json"
    file.write_text(text)
    assert ProbeCache(file).get("one") is None
    ProbeCache(file).add("one", OUTCOME)
    assert ProbeCache(file).get("one") == OUTCOME


def test_unwritable_cache_file_keeps_entries_in_memory(tmp_path: Path) -> None:
    known_here = ProbeCache(tmp_path / "no" / "launchers.json")
    known_here.add("one", OUTCOME)
    assert known_here.get("one") == OUTCOME


def test_cache_key_depends_on_program_and_mpi(tmp_path: Path) -> None:
    program = tmp_path / "mpirun"
    program.write_text("one")
    os.utime(program, (1, 1))
    first = cache_key(str(program), {"HOME": "/root"})
    assert cache_key(str(program), {"HOME": "/home"}) == first
    assert cache_key(str(program), {"LD_LIBRARY_PATH": "/opt"}) != first
    assert cache_key(str(program), {"MPI4PY_MPIABI": "mpich"}) != first
    assert cache_key(str(program), {"SLURM_JOB_ID": "17"}) != first
    os.utime(program, (2, 2))
    assert cache_key(str(program), {}) != first
    assert cache_key(str(tmp_path / "gone"), {}) != first
