"""Public names: an added or removed name shows in review."""

from __future__ import annotations

import simenv


def test_public_names_are_these() -> None:
    assert sorted(simenv.__all__) == [
        "Client",
        "DetectionResult",
        "Reservation",
        "Result",
        "Task",
        "__version__",
        "as_completed",
        "connect",
        "errors",
        "local",
    ]


def test_each_public_name_can_be_read() -> None:
    for name in simenv.__all__:
        assert getattr(simenv, name) is not None
