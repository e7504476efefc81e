"""The progress of a run: what is counted, and how parts of the work add up."""

import pytest

from simulators.engine import NO_PROGRESS, PASSES, Progress, RunControl


class Watched(RunControl):
    """Remembers all progress that was reported."""

    __slots__ = ("seen",)

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Progress] = []

    def _report(self, unit: str, fraction: float, before: float = 0.0) -> None:
        super()._report(unit, fraction, before)
        self.seen.append(self.progress)


def test_progress_is_what_was_done_of_what_was_expected() -> None:
    control = Watched()
    control.advance(PASSES)
    assert control.progress == NO_PROGRESS  # nothing was expected
    control.expect(4, PASSES)
    control.advance(PASSES)
    control.advance("shots", 100)  # another unit is not counted
    assert control.progress == Progress(PASSES, 1, 4, 0.25)
    control.advance(PASSES, 3)
    assert control.progress == Progress(PASSES, 4, 4, 1.0)
    control.clear()
    assert control.progress == NO_PROGRESS


def test_progress_never_falls_when_work_is_added() -> None:
    control = Watched()
    control.expect(2, PASSES)
    control.advance(PASSES, 2)
    control.expect(2, PASSES)
    assert control.progress.fraction == 1.0
    control.advance(PASSES, 2)
    assert control.progress == Progress(PASSES, 4, 4, 1.0)


def test_passes_of_equal_parts_are_counted_over_all_of_them() -> None:
    control = Watched()
    for _ in control.divide(3, "bindings"):
        control.expect(5, PASSES)
        for _ in range(5):
            control.advance(PASSES)
    counts = [each.done for each in control.seen if each.total]
    assert counts == sorted(counts)
    assert set(counts) == set(range(16))
    assert {each.total for each in control.seen} == {15}
    assert control.progress == Progress(PASSES, 15, 15, 1.0)


def test_parts_without_work_of_their_own_are_counted() -> None:
    control = Watched()
    seen = [control.progress.done for _ in control.divide(4, "bindings")]
    assert seen == [0, 1, 2, 3]
    assert control.progress == Progress("bindings", 4, 4, 1.0)


def test_parts_within_parts_are_counted_over_all() -> None:
    control = Watched()
    for _ in control.divide(2, "bindings"):
        for _ in control.divide(3, "components"):
            pass
    assert control.progress == Progress("components", 6, 6, 1.0)


def test_unequal_parts_are_counted_and_take_their_share() -> None:
    control = Watched()
    for _ in control.divide(2, "bindings"):
        for _, passes in zip(control.divide([1.0, 3.0], "components"), (10, 5), strict=False):
            control.expect(passes, PASSES)
            for _ in range(passes):
                control.advance(PASSES)
    fractions = [each.fraction for each in control.seen]
    assert fractions == sorted(fractions)
    assert {0.125, 0.125 + 0.375 / 5, 0.5, 0.625, 1.0} <= set(fractions)
    assert [each.done for each in control.seen] == sorted(each.done for each in control.seen)
    assert {each.total for each in control.seen} == {4}
    assert control.progress == Progress("components", 4, 4, 1.0)


def test_work_of_an_earlier_attempt_is_told_apart() -> None:
    control = Watched()
    control.expect(10, PASSES)
    control.advance(PASSES, 4, before=True)
    control.advance(PASSES)
    assert control.progress == Progress(PASSES, 5, 10, 0.5, 0.4)


@pytest.mark.parametrize("number", [3, 7, 49, 4_096])
def test_counts_are_whole_whatever_the_parts(number: int) -> None:
    control = Watched()
    for part in control.divide(number, "bindings"):
        control.expect(3, PASSES)
        control.advance(PASSES, 2)
        assert control.progress.done == 3 * part + 2
        control.advance(PASSES)
    assert control.progress == Progress(PASSES, 3 * number, 3 * number, 1.0)
