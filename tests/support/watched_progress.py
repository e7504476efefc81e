"""A run control that remembers all progress that was reported."""

from simulators.engine import RunControl, RunProgress


class WatchedControl(RunControl):
    """See the module."""

    __slots__ = ("seen",)

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[RunProgress] = []

    def _report(self, unit: str, fraction: float, before: float = 0.0) -> None:
        super()._report(unit, fraction, before)
        self.seen.append(self.progress)
