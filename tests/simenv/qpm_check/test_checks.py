"""Checks that judge by what a target can do in time."""

import time
from types import SimpleNamespace

import pytest

from simenv.qpm_check.checks import crowds
from simenv.qpm_check.target import CheckSkipped


def test_more_circuits_than_are_kept_are_not_run_on_a_slow_target(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    submitted: list[int] = []

    def submit(*_: object, **__: object) -> int:
        time.sleep(0.002)
        submitted.append(len(submitted))
        return submitted[-1]

    ended = SimpleNamespace(task_status=lambda *_, **__: {"lifecycle_state": "completed"})
    slow = SimpleNamespace(q=ended, reserve=lambda: 1, submit=submit, until=lambda ask, *_: ask())
    monkeypatch.setattr(crowds, "COMES_S", 0.1)
    with pytest.raises(CheckSkipped, match="1,024 circuits take"):
        crowds.count.check(slow)  # type: ignore[arg-type]
    assert len(submitted) < 100
