"""What worked is remembered, of this program, here, as it is now."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from launcher import probe_cache
from launcher.probe import ProbeResult
from launcher.probe_cache import ProbeCache, cache_key

OUTCOME = ProbeResult("mpirun", "Open MPI 5", "/opt/mpirun", True, "Open MPI v5", 0.3)


def test_what_worked_is_forgotten(tmp_path: Path) -> None:
    file = tmp_path / "launchers.json"
    ProbeCache(file).add("one", OUTCOME)
    ProbeCache(file).add("two", OUTCOME)
    assert ProbeCache(file).get("one") == OUTCOME
    assert ProbeCache(file).get("three") is None
    assert [path.name for path in tmp_path.iterdir()] == ["launchers.json"]


def test_the_file_grows_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe_cache, "MAX_ENTRIES", 3)
    file = tmp_path / "launchers.json"
    for key in "abcdd":
        ProbeCache(file).add(key, OUTCOME)
    found = ProbeCache(file)
    assert [found.get(key) is not None for key in "abcd"] == [False, True, True, True]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": 1}', '{"format": 99, "entries": []}'])
def test_a_broken_file_stops_a_start(text: str, tmp_path: Path) -> None:
    file = tmp_path / "launchers.json"
    file.write_text(text)
    assert ProbeCache(file).get("one") is None
    ProbeCache(file).add("one", OUTCOME)
    assert ProbeCache(file).get("one") == OUTCOME


def test_a_folder_that_is_not_there_stops_a_start(tmp_path: Path) -> None:
    known_here = ProbeCache(tmp_path / "no" / "launchers.json")
    known_here.add("one", OUTCOME)
    assert known_here.get("one") == OUTCOME


def test_another_program_or_another_mpi_is_taken_for_the_one_that_worked(tmp_path: Path) -> None:
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
