"""The public names: adding or dropping one is a visible act."""

from __future__ import annotations

import simenv


def test_a_public_name_came_or_went() -> None:
    assert sorted(simenv.__all__) == [
        "Client",
        "Reservation",
        "Result",
        "Task",
        "__version__",
        "as_completed",
        "connect",
        "errors",
        "local",
    ]


def test_a_public_name_cannot_be_read() -> None:
    for name in simenv.__all__:
        assert getattr(simenv, name) is not None
