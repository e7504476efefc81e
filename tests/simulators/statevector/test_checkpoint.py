"""What a long run leaves on disk, and where a second attempt goes on."""

from pathlib import Path

import h5py
import numpy as np
import pytest
from arrays import Arrays, measured
from attempts import Tired, dying
from both_ways import alike, alone, crowded
from failing import fails
from numpy.typing import NDArray

from simulators.engine import Request, RunControl, RunOptions
from simulators.errors import Stopped
from simulators.statevector import checkpoint
from simulators.statevector.checkpoint import (
    Checkpointer,
    CheckpointHeader,
    Evolution,
    RankContext,
    digest,
)
from simulators.statevector.dynamic import evolution
from simulators.statevector.engine import StatevectorEngine

MARK = CheckpointHeader("abc", 7, 1, 4, (0, 2, 1))
WAY = Evolution("abc", 9)


@pytest.fixture(autouse=True)
def _writes_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "_SHARE", 0)


def amplitudes(seed: int, kind: str = "complex128") -> NDArray[np.complexfloating]:
    rng = np.random.default_rng(seed)
    return (rng.normal(size=1 << 13) + 1j * rng.normal(size=1 << 13)).astype(kind)


@pytest.mark.parametrize("kind", ["complex128", "complex64"])
def test_checkpoint_restores_amplitudes(tmp_path: Path, kind: str) -> None:
    path, state = tmp_path / "a.h5", amplitudes(1, kind)
    checkpoint.write(path, MARK, state, b"with it")
    assert checkpoint.header_of(path) == MARK
    found = np.zeros_like(state)
    assert checkpoint.read(path, MARK, found) == b"with it"
    assert np.array_equal(found, state)
    assert [each.name for each in tmp_path.iterdir()] == ["a.h5"]


def test_damaged_or_foreign_checkpoint_is_rejected(tmp_path: Path) -> None:
    path, state = tmp_path / "a.h5", amplitudes(1)
    checkpoint.write(path, MARK, state)
    assert checkpoint.read(path, CheckpointHeader("abc", 8, 1, 4, (0, 2, 1)), state.copy()) is None
    assert checkpoint.read(path, MARK, state[: state.size // 2].copy()) is None
    assert checkpoint.read(path, MARK, state.astype(np.complex64)) is None
    with h5py.File(path, "r+") as file:
        file["amplitudes"][100] += 1e-16 + 1e-13
    assert checkpoint.read(path, MARK, state.copy()) is None
    path.write_bytes(path.read_bytes()[:1000])
    assert checkpoint.header_of(path) is None
    assert checkpoint.read(path, MARK, state.copy()) is None
    assert checkpoint.header_of(tmp_path / "none.h5") is None


def test_failed_write_leaves_no_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "_sync", full)
    fails(OSError, "No space", checkpoint.write, tmp_path / "a.h5", MARK, amplitudes(1))
    assert list(tmp_path.iterdir()) == []


def attempt(folder: Path, every_s: float = 0.0, place: RankContext | None = None) -> Checkpointer:
    found = Checkpointer(folder, every_s, place)
    found.begin(WAY)
    return found


def test_second_attempt_resumes_from_last_checkpoint(tmp_path: Path) -> None:
    folder = tmp_path / "t-5"
    first = attempt(folder)
    states = [amplitudes(k) for k in range(4)]
    for state in states[:3]:
        first.sweep_done(state, (1, 0))
    second, found = attempt(folder), np.zeros_like(states[0])
    assert second.restore(found) == (1, 0)
    assert np.array_equal(found, states[2])
    assert second.skip_done(2) == 2
    assert second.skip_done(5) == 1
    assert second.skip_done(5) == 0
    second.sweep_done(states[3])  # overwrites the older of the two
    done = {mark.done for name in folder.iterdir() if (mark := checkpoint.header_of(name))}
    assert done == {3, 4}
    with second:
        pass
    assert not folder.exists()


def test_damaged_checkpoint_is_ignored_and_initial_state_unchanged(tmp_path: Path) -> None:
    first, state = attempt(tmp_path / "t-5"), amplitudes(1)
    first.sweep_done(state)
    (path,) = (tmp_path / "t-5").iterdir()
    with h5py.File(path, "r+") as file:
        file["amplitudes"][8000] = 3.0
    second, found = attempt(tmp_path / "t-5"), np.zeros_like(state)
    found[0] = 1.0
    assert second.restore(found) is None
    assert (found[0], np.count_nonzero(found)) == (1.0, 1)
    assert second.skip_done(1) == 0


def test_checkpoint_of_other_circuit_or_rank_count_is_not_used(tmp_path: Path) -> None:
    folder, state = tmp_path / "t-5", amplitudes(1)
    attempt(folder).sweep_done(state)
    other = Checkpointer(folder, 0.0)
    for way in (Evolution("abd", 9), None):
        other.begin(way)
        assert other.restore(state.copy()) is None
    assert attempt(folder, place=RankContext(0, 2)).restore(state.copy()) is None
    short = attempt(tmp_path / "t-6", every_s=60.0)
    short.sweep_done(state)
    assert not (tmp_path / "t-6").exists()
    assert Checkpointer(None).is_kept is False


def test_sweeps_after_end_of_evolution_are_not_checkpointed(tmp_path: Path) -> None:
    """What is done with it afterwards is no part of its way."""
    first = Checkpointer(tmp_path / "t-5", 0.0)
    first.begin(Evolution("abc", 1))
    state = amplitudes(1)
    first.sweep_done(state)
    assert not first.is_kept
    first.sweep_done(amplitudes(2))
    second = Checkpointer(tmp_path / "t-5", 0.0)
    second.begin(Evolution("abc", 1))
    found = np.zeros_like(state)
    assert second.restore(found) is not None
    assert np.array_equal(found, state)


def test_ranks_resume_from_newest_checkpoint_common_to_all(tmp_path: Path) -> None:
    """The first has passes 1 and 2, the other 1 alone: both go on from 1."""
    states = [amplitudes(k) for k in range(2)]
    for rank, passes in ((0, 2), (1, 1)):
        other = attempt(tmp_path / "t-5", place=RankContext(rank, 2))
        for state in states[:passes]:
            other.sweep_done(state)
    said: list[int] = []

    def least(value: int) -> int:
        """What the first says, and what the other would."""
        said.append(value)
        return min(value, 1)

    first = attempt(tmp_path / "t-5", place=RankContext(0, 2, least))
    found = np.zeros_like(states[0])
    assert first.restore(found) is not None
    assert said == [2, 1, 1]
    assert np.array_equal(found, states[0])


def test_digests_of_different_inputs_differ() -> None:
    one, two = np.arange(4), np.arange(4, dtype=np.uint64)
    digests = {
        digest([one], 5), digest([one], 6), digest([two], 5), digest([one, one], 5),
        digest([one.reshape(2, 2)], 5), digest([one[::-1]], 5),
    }  # fmt: skip
    assert len(digests) == 6
    assert digest([one.copy()], 5) in digests


def wide(seed: int, n: int = 18) -> Arrays:
    """Passes, a matrix that is one of its own, and passes again."""
    rng = np.random.default_rng(seed)
    square = rng.normal(size=(32, 32)) + 1j * rng.normal(size=(32, 32))
    arrays = crowded(n, 60, seed, n)
    arrays.unitary(np.linalg.qr(square)[0], [0, 17, 5, 9, 13])
    for q in range(n):
        arrays.add("ry", [q], (), [0.2]).add("cx", [q, (q + 5) % n])
    return arrays


@pytest.mark.parametrize("precision", ["double", "single"])
@pytest.mark.parametrize("left", [1, 4, 10_000])
def test_resumed_run_gives_same_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str, left: int
) -> None:
    circuit, request = measured(wide(3)), Request(500, 7)
    options = RunOptions(
        precision=precision, checkpoint_dir=str(tmp_path / "t-5"), checkpoint_every_s=0.0
    )
    engine = StatevectorEngine()
    plan = engine.plan(circuit, None, options)
    first = Tired(left)
    with dying(monkeypatch):
        if left < 10_000:
            fails(Stopped, "", engine.run, plan, circuit, request, options, first)
        else:
            engine.run(plan, circuit, request, options, first)
    control = RunControl()
    found = engine.run(plan, circuit, request, options, control)
    assert alike(found, alone(circuit, request, RunOptions(precision=precision)))
    done, passes = first.progress[1:3]
    assert passes > 6
    before = pytest.approx(first.progress.fraction)
    assert control.progress == ("passes", passes, passes, 1.0, before)
    assert found.remark == f"from pass {done} of {passes}"
    assert not (tmp_path / "t-5").exists()


def test_checkpoint_needs_same_circuit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = RunOptions(checkpoint_dir=str(tmp_path / "t-5"), checkpoint_every_s=0.0)
    engine = StatevectorEngine()
    with dying(monkeypatch):
        one = measured(wide(3))
        engine.run(engine.plan(one, None, options), one, Request(10, 7), options, RunControl())
    other = measured(wide(3).add("rz", [3], (), [0.1]))
    found = engine.run(
        engine.plan(other, None, options), other, Request(9, 7), options, RunControl()
    )
    assert found.remark == ""
    assert alike(found, alone(other, Request(9, 7)))


@pytest.mark.parametrize(("every_s", "written"), [(600.0, 0), (0.0, 1)])
def test_digest_is_computed_only_if_run_may_exceed_checkpoint_interval(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, every_s: float, written: int
) -> None:
    made = []
    monkeypatch.setattr(evolution, "digest", lambda *given: made.append(given) or "0" * 32)
    circuit, options = (
        measured(wide(3)),
        RunOptions(checkpoint_dir=str(tmp_path), checkpoint_every_s=every_s),
    )
    engine = StatevectorEngine()
    engine.run(engine.plan(circuit, None, options), circuit, Request(10, 7), options, RunControl())
    assert len(made) == written


def test_checkpoint_of_second_state_survives_repeated_run_of_first(tmp_path: Path) -> None:
    ways = (Evolution("abc", 9), Evolution("abd", 9))
    states = [amplitudes(k) for k in range(4)]

    def both(journey_: Checkpointer) -> NDArray[np.complexfloating] | None:
        """The first state comes to its end, and the other begins."""
        journey_.begin(ways[0])
        assert journey_.restore(np.zeros_like(states[0])) is None
        for _ in range(9):
            journey_.sweep_done(states[0])
        journey_.begin(ways[1])
        found = np.zeros_like(states[0])
        return found if journey_.restore(found) is not None else None

    first = Checkpointer(tmp_path / "t-5", 0.0)
    assert both(first) is None
    for state in states[1:]:
        first.sweep_done(state)
    second = Checkpointer(tmp_path / "t-5", 0.0)
    found = both(second)
    assert found is not None
    assert np.array_equal(found, states[3])
    assert len(list((tmp_path / "t-5").iterdir())) == 2, "what is kept of the first is of no use"
    with second:
        pass
    assert not (tmp_path / "t-5").exists()


def test_preempted_run_ends_after_a_checkpoint_that_stays(tmp_path: Path) -> None:
    folder, control = tmp_path / "t-5", RunControl()
    first = Checkpointer(folder, 600.0, None, control)
    first.begin(WAY)
    states = [amplitudes(k) for k in range(3)]

    def run() -> None:
        with first:
            first.sweep_done(states[0])
            assert list(tmp_path.iterdir()) == [], "it is early"
            control.preempt()
            control.check()  # it goes on until its sweep is done
            first.sweep_done(states[1])
            control.check()

    fails(Stopped, "", run)
    second, found = attempt(folder), np.zeros_like(states[0])
    assert second.restore(found) is not None
    assert np.array_equal(found, states[1])


def test_run_without_checkpoints_is_preempted_at_once() -> None:
    control = RunControl()
    control.preempt()
    with pytest.raises(Stopped):
        control.check()
