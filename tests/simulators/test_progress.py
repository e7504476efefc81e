"""The progress of a run: what is counted, and how parts of the work add up."""

import pytest
from watched_progress import WatchedControl

from simulators.engine import NO_PROGRESS, PASSES, RunProgress


def test_progress_is_what_was_done_of_what_was_expected() -> None:
    control = WatchedControl()
    control.advance(PASSES)
    assert control.progress == NO_PROGRESS  # nothing was expected
    control.expect(4, PASSES)
    control.advance(PASSES)
    control.advance("shots", 100)  # another unit is not counted
    assert control.progress == RunProgress(PASSES, 1, 4, 0.25)
    control.advance(PASSES, 3)
    assert control.progress == RunProgress(PASSES, 4, 4, 1.0)
    control.clear()
    assert control.progress == NO_PROGRESS


def test_progress_never_falls_when_work_is_added() -> None:
    control = WatchedControl()
    control.expect(2, PASSES)
    control.advance(PASSES, 2)
    control.expect(2, PASSES)
    assert control.progress.fraction == 1.0
    control.advance(PASSES, 2)
    assert control.progress == RunProgress(PASSES, 4, 4, 1.0)


def test_passes_of_equal_parts_are_counted_over_all_of_them() -> None:
    control = WatchedControl()
    for _ in control.divide(3, "bindings"):
        control.expect(5, PASSES)
        for _ in range(5):
            control.advance(PASSES)
    counts = [each.done for each in control.seen if each.total]
    assert counts == sorted(counts)
    assert set(counts) == set(range(16))
    assert {each.total for each in control.seen} == {15}
    assert control.progress == RunProgress(PASSES, 15, 15, 1.0)


@pytest.mark.parametrize("works", [(10, 20, 30), (30, 20, 10), (1, 1, 58)])
def test_passes_of_parts_with_unequal_work_add_up(works: tuple[int, ...]) -> None:
    control = WatchedControl()
    for number in control.divide(3, "bindings"):
        control.expect(works[number], PASSES)
        mean = sum(works[: number + 1]) / (number + 1)
        for count in range(works[number]):
            control.advance(PASSES)
            assert control.progress.done == sum(works[:number]) + count + 1
            assert control.progress.total == round(3 * mean)
    assert control.progress == RunProgress(PASSES, 60, 60, 1.0)
    assert [each.done for each in control.seen] == sorted(each.done for each in control.seen)


def test_components_of_bindings_add_up_if_they_differ_in_number() -> None:
    control = WatchedControl()
    sizes = [1.0, 3.0], [1.0, 1.0, 2.0, 4.0]
    for number in control.divide(2, "bindings"):
        for _ in control.divide(sizes[number], "components"):
            pass
        assert control.progress.done == (2, 6)[number]
    assert control.progress == RunProgress("components", 6, 6, 1.0)


def test_part_that_counts_another_unit_counts_as_the_mean_part() -> None:
    control = WatchedControl()
    for number in control.divide(3, "bindings"):
        control.expect(10, ("shots", PASSES, "shots")[number])
        control.advance(("shots", PASSES, "shots")[number], 10)
    assert control.progress == RunProgress("shots", 30, 30, 1.0)


def test_parts_without_work_of_their_own_are_counted() -> None:
    control = WatchedControl()
    seen = [control.progress.done for _ in control.divide(4, "bindings")]
    assert seen == [0, 1, 2, 3]
    assert control.progress == RunProgress("bindings", 4, 4, 1.0)


def test_parts_within_parts_are_counted_over_all() -> None:
    control = WatchedControl()
    for _ in control.divide(2, "bindings"):
        for _ in control.divide(3, "components"):
            pass
    assert control.progress == RunProgress("components", 6, 6, 1.0)


def test_unequal_parts_are_counted_and_take_their_share() -> None:
    control = WatchedControl()
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
    assert control.progress == RunProgress("components", 4, 4, 1.0)


def test_work_of_an_earlier_attempt_is_told_apart() -> None:
    control = WatchedControl()
    control.expect(10, PASSES)
    control.advance(PASSES, 4, before=True)
    control.advance(PASSES)
    assert control.progress == RunProgress(PASSES, 5, 10, 0.5, 0.4)


@pytest.mark.parametrize("number", [3, 7, 49, 4_096])
def test_counts_are_whole_whatever_the_parts(number: int) -> None:
    control = WatchedControl()
    for part in control.divide(number, "bindings"):
        control.expect(3, PASSES)
        control.advance(PASSES, 2)
        assert control.progress.done == 3 * part + 2
        control.advance(PASSES)
    assert control.progress == RunProgress(PASSES, 3 * number, 3 * number, 1.0)


def test_units_of_unequal_sizes_are_counted_and_weigh_by_their_sizes() -> None:
    control = WatchedControl()
    for _ in control.divide(2, "bindings"):
        control.expect(4, PASSES, [0.25, 0.25, 0.5, 1.0])
        control.expect(1, PASSES)  # as much as the largest
        control.advance(PASSES, 3)
        control.advance(PASSES, 2)
    done = [(each.done, each.total, each.fraction) for each in control.seen if each.total == 10]
    half, whole = [(0, 0.0), (3, 1 / 6), (5, 0.5)], [(5, 0.5), (8, 2 / 3), (10, 1.0)]
    assert sorted({*done}) == sorted({(count, 10, part) for count, part in half + whole})
