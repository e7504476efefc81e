"""A run that is cut off between two passes, as by the end of its process."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from simulators.engine import RunControl
from simulators.statevector import checkpoint


class Tired(RunControl):
    """Stops after so many passes."""

    __slots__ = ("left",)

    def __init__(self, left: int) -> None:
        super().__init__()
        self.left = left

    def advance(self, unit: str, done: float = 1, *, before: bool = False) -> None:
        super().advance(unit, done, before=before)
        self.left -= int(done)
        if self.left <= 0:
            self.stop()


@contextmanager
def dying(patch: pytest.MonkeyPatch) -> Iterator[None]:
    """A process that ends tidies nothing up."""
    with patch.context() as inner:
        inner.setattr(checkpoint.Checkpointer, "__exit__", lambda *_given: None)
        yield
