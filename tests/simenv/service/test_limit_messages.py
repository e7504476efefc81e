"""What is said of a task that a limit has ended: the value of the limit, and the way out."""

from __future__ import annotations

import pytest

from simenv.model import TaskOptions, TaskSpec, TaskState, Timing
from simenv.scheduler.core.actions import TaskEnded
from simenv.scheduler.core.types import Route, SubmitBatch, TaskRecord
from simenv.service.results.completions import _failure
from simenv.wire import codec
from simulators.engine import RunOptions
from simulators.errors import TooManySteps
from simulators.statevector.dynamic.branches import Budget


@pytest.mark.parametrize(
    ("reason", "terms", "limit_s", "words"),
    [
        ("queue_timeout", TaskOptions(queue_timeout_s=2.5), 0.0, "its queue_timeout_s of 2.5 s"),
        ("run_timeout", TaskOptions(run_timeout_s=5.0), 5.0, "its run_timeout_s of 5 s"),
        ("run_timeout", TaskOptions(run_timeout_s=5.0), 0.0, "its run_timeout_s of 5 s"),
        ("run_timeout", TaskOptions(), 86_400.0, "the limit of its owner, 86400 s (max_run_s)"),
    ],
)
def test_timeout_message_names_limit_and_its_value(
    reason: str, terms: TaskOptions, limit_s: float, words: str
) -> None:
    batch = SubmitBatch(b"c", terms, "key", 0, 1, 0, owner="ana")
    route = Route("statevector", "test", "main", 2, 1, 1.0, 1.0, 1)
    record = TaskRecord(1, TaskSpec(b"p", 1, 1), batch, route, 1.0)
    ending = TaskEnded(
        record, TaskState.EXPIRED, 1, Timing(0, 0, 0), reason=reason, run_limit_s=limit_s
    )
    result = codec.failure(_failure(ending, "here"))
    assert words in result.message
    assert result.hint


def test_too_many_operations_error_names_number_limit_and_branches() -> None:
    budget = Budget(10, RunOptions(max_steps=100))
    with pytest.raises(TooManySteps) as caught:
        budget.step(150)
    assert "150 operations over 1 branch; the limit is 100 (max_steps)" in str(caught.value)
