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

    def sweeps_done(self, passes: int = 1) -> None:
        super().sweeps_done(passes)
        self.left -= passes
        if self.left <= 0:
            self.stop()


@contextmanager
def dying(patch: pytest.MonkeyPatch) -> Iterator[None]:
    """A process that ends tidies nothing up."""
    with patch.context() as inner:
        inner.setattr(checkpoint.Checkpointer, "__exit__", lambda *_given: None)
        yield
