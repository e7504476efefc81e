"""Which jobs live, told by witnesses that fail: every order of what they say."""

from __future__ import annotations

from launcher.pmix.protocol import Answer
from launcher.prte.job_tracker import LOOKS, UNTOLD, JobsAlive

END = Answer("ended", namespace="dvm@1", code=3)


def test_an_end_told_before_its_start_is_forgotten() -> None:
    jobs = JobsAlive()
    assert jobs.ended(END) == []
    assert jobs.begun("dvm@1") == [END]
    assert jobs.ended(END) == []


def test_an_end_is_told_twice() -> None:
    jobs = JobsAlive()
    assert jobs.begun("dvm@1") == []
    assert jobs.ended(END) == [END]
    assert jobs.ended(END) == []
    for _ in range(LOOKS):
        assert jobs.listed(["tool"], pending=False) == ([], [])


def test_a_job_whose_end_was_never_told_lives_for_ever() -> None:
    jobs = JobsAlive()
    jobs.begun("dvm@1")
    jobs.begun("dvm@2")
    for _ in range(LOOKS - 1):
        assert jobs.listed(["dvm@2"], pending=False) == ([], [])
    over, strange = jobs.listed(["dvm@2"], pending=False)
    assert over == [Answer("ended", namespace="dvm@1", code=1, words=UNTOLD)]
    assert strange == []


def test_one_list_that_comes_too_early_ends_a_job() -> None:
    jobs = JobsAlive()
    jobs.begun("dvm@1")
    for _ in range(3 * LOOKS):
        assert jobs.listed([], pending=False) == ([], [])
        assert jobs.listed(["dvm@1"], pending=False) == ([], [])


def test_a_job_nobody_waits_for_is_left_running() -> None:
    jobs = JobsAlive()
    for _ in range(2 * LOOKS):
        assert jobs.listed(["dvm@7", "tool"], pending=True) == ([], []), "its answer may come"
    for _ in range(LOOKS - 1):
        assert jobs.listed(["dvm@7", "tool"], pending=False) == ([], [])
    assert jobs.listed(["dvm@7", "tool"], pending=False) == ([], ["dvm@7"])
