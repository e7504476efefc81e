"""A disk that has no room for what is kept of a run: the run goes on, and what was kept stays."""

import resource
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from arrays import measured
from attempts import Tired, dying
from both_ways import alike, alone, crowded
from numpy.typing import NDArray

from simulators.engine import EngineResult, Request, RunControl, RunOptions
from simulators.errors import Stopped
from simulators.statevector import checkpoint
from simulators.statevector.checkpoint import Checkpointer, CheckpointHeader, Evolution, RankContext
from simulators.statevector.engine import StatevectorEngine

WAY = Evolution("abc", 90)
SIZE = 1 << 15  # amplitudes: half a mebibyte


@pytest.fixture(autouse=True)
def _writes_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "_SHARE", 0)


@contextmanager
def full() -> Iterator[None]:
    """No file of this process grows beyond 100 kB: writing fails, as on a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def amplitudes(seed: int) -> NDArray[np.complex128]:
    rng = np.random.default_rng(seed)
    return rng.normal(size=SIZE) + 1j * rng.normal(size=SIZE)


def attempt(folder: Path, place: RankContext | None = None) -> Checkpointer:
    checkpointer = Checkpointer(folder, 0.0, place)
    checkpointer.begin(WAY)
    return checkpointer


def kept(folder: Path) -> set[int]:
    marks = [checkpoint.header_of(path) for path in folder.iterdir()]
    return {mark.done for mark in marks if mark is not None}


def test_failed_write_keeps_previous_checkpoint_and_no_partial_file(tmp_path: Path) -> None:
    path, state = tmp_path / "a.h5", amplitudes(1)
    mark = CheckpointHeader("abc", 7, 0, 1, ())
    checkpoint.write(path, mark, state)
    with full(), pytest.raises(OSError, match="too large"):
        checkpoint.write(path, mark, amplitudes(2))
    assert [each.name for each in tmp_path.iterdir()] == ["a.h5"]
    result = np.zeros_like(state)
    assert checkpoint.read(path, mark, result) is not None
    assert np.array_equal(result, state)


def test_full_disk_keeps_previous_checkpoint_and_warns_once(tmp_path: Path) -> None:
    folder = tmp_path / "t-5"
    first, states = attempt(folder), [amplitudes(k) for k in range(5)]
    for state in states[:2]:
        first.sweep_done(state)
    with full():
        with pytest.warns(RuntimeWarning, match="not kept at sweep 3: .*too large"):
            first.sweep_done(states[2])
        first.sweep_done(states[3])  # one warning is enough
    assert kept(folder) == {2}
    assert "too large" in first.annotate(EngineResult()).remark
    second, array = attempt(folder), np.zeros(SIZE, complex)
    assert second.restore(array) is not None
    assert np.array_equal(array, states[1])
    first.sweep_done(states[4])
    assert kept(folder) == {2, 5}
    assert first.annotate(EngineResult()).remark == ""


@pytest.mark.parametrize(("parts", "written"), [(3.9, False), (4.1, True)])
def test_free_space_check_counts_slices_of_all_ranks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parts: float, written: bool
) -> None:
    """Two ranks, and half of the room there is for others."""
    state = amplitudes(1)
    simple_namespace = SimpleNamespace(free=int(parts * state.nbytes))
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: simple_namespace)
    first = attempt(tmp_path / "t-5", RankContext(0, 2))
    if written:
        first.sweep_done(state)
    else:
        with pytest.warns(RuntimeWarning, match=r"0.000977 GiB to write, and 0.0\d+ GiB free"):
            first.sweep_done(state)
    assert len(list((tmp_path / "t-5").iterdir())) == written


def test_no_rank_writes_checkpoint_if_another_lacks_space(tmp_path: Path) -> None:
    entries: list[int] = []

    def least(value: int) -> int:
        entries.append(value)
        return 0

    first = attempt(tmp_path / "t-5", RankContext(0, 2, least))
    first.sweep_done(amplitudes(1))
    assert entries == [0, 1]  # is it early; is there room
    assert list((tmp_path / "t-5").iterdir()) == []
    assert "by another rank" in first.annotate(EngineResult()).remark


def test_full_disk_keeps_last_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    circuit, request = measured(crowded(18, 200, 3, 18)), Request(500, 7)
    expected = alone(circuit, request)
    options = RunOptions(checkpoint_dir=str(tmp_path / "t-5"), checkpoint_every_s=0.0)
    engine = StatevectorEngine()
    plan = engine.plan(circuit, None, options)
    with dying(monkeypatch), pytest.raises(Stopped):
        engine.run(plan, circuit, request, options, Tired(3))
    before = kept(tmp_path / "t-5")
    with dying(monkeypatch), full(), pytest.warns(RuntimeWarning, match="not kept at sweep"):
        result = engine.run(plan, circuit, request, options, RunControl())
    assert alike(result, expected)
    assert "from pass 3 of " in result.remark
    assert "not kept at sweep " in result.remark
    assert max(kept(tmp_path / "t-5")) == max(before) == 3
    again = engine.run(plan, circuit, request, options, RunControl())
    assert alike(again, expected)
    assert again.remark.startswith("from pass 3 of ")
