"""States of several tasks together."""

from __future__ import annotations

import pytest

from simenv.model.task import TaskState, joint_state

Q, R, D = TaskState.QUEUED, TaskState.RUNNING, TaskState.DONE
F, C, E = TaskState.FAILED, TaskState.CANCELLED, TaskState.EXPIRED


@pytest.mark.parametrize(
    ("states", "joint"),
    [
        ((), D), ((Q, Q), Q), ((Q, R), R), ((Q, D), R), ((R, F), R), ((D, D), D), ((D, C), C),
        ((C, E), E), ((E, C, F), F), ((C, F), F),
    ],
)  # fmt: skip
def test_joint_state_is_the_least_advanced_and_then_the_worst(
    states: tuple[TaskState, ...], joint: TaskState
) -> None:
    assert joint_state(states) is joint_state(reversed(states)) is joint
