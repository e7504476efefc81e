"""The plan of the general path. Invariant: light, so that it is there before any kernel is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from simulators.circuit.ir import Circuit

if TYPE_CHECKING:
    from simulators.statevector.schedule import Schedule


class Schedules:
    """The plan of the general path: the schedules of one structure, made when first needed."""

    def __init__(self, precision: str = "double") -> None:
        self._precision = precision
        self._made: dict[bool, Schedule] = {}

    @property
    def memory_bytes(self) -> int:
        """Bytes of its schedules: of both, though the second is made when it is needed."""
        return 2 * max((item.memory_bytes for item in self._made.values()), default=0)

    def of(self, circuit: Circuit, *, keep: bool) -> Schedule:
        """See `schedule.schedule`."""
        if keep not in self._made:
            from simulators.statevector.schedule import schedule  # small circuits do without

            self._made[keep] = schedule(circuit, keep=keep, precision=self._precision)
        return self._made[keep]
