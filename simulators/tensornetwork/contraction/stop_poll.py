"""Stop of a run in the middle of a contraction, in all ranks alike.

Only the first rank is asked to stop. Ranks that contract different slices meet rarely, so it sends
each other rank a message, for which they look between two steps. Then all meet: the next collective
call of each rank is `agree`.
"""

from __future__ import annotations

from typing import Any

from simulators.control import RunControl
from simulators.errors import Stopped

_TAG = 17  # of the message
_STOPPED, _SENT, _FAILED = 1, 1 << 20, 1 << 40  # sums over at most 2**20 ranks


class StopPoll:
    """Cancel flag of a run, for the ranks of a communicator; None: one process."""

    def __init__(self, control: RunControl, comm: Any) -> None:
        self._control = control
        self._comm = comm
        self._rank: int = 0 if comm is None else comm.Get_rank()
        self._received = False  # the message of the first rank; in that rank: it was sent

    def poll(self) -> None:
        """Raise Stopped if the run was asked to stop. Ranks may call it in different numbers, if
        each calls `agree` later."""
        if self._comm is None:
            self._control.check()
        elif self._rank:
            if self._comm.Iprobe(0, _TAG):
                self._receive()
                self.agree()
        elif self._control.flag[0]:
            self._received = True
            for other in range(1, self._comm.Get_size()):
                self._comm.send(None, other, _TAG)
            self.agree()

    def agree(self, *, failed: bool = False) -> bool:
        """Return whether any rank failed. Raises Stopped in all ranks if any was asked to stop. A
        collective call."""
        if self._comm is None:
            self._control.check()
            return failed
        own = _STOPPED * bool(self._control.flag[0]) + _FAILED * failed
        own += _SENT * (self._received and not self._rank)
        total = self._comm.allreduce(own)
        if total // _SENT % 2 and not self._received:
            self._receive()
        if total % _SENT:
            raise Stopped("the run was stopped", hint="whoever stopped it can submit it again")
        return bool(total >= _FAILED)

    def _receive(self) -> None:
        self._comm.recv(source=0, tag=_TAG)
        self._received = True
