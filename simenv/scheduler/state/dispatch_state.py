"""What one pass of the dispatcher leaves to the next one, and to the next tick. Nothing of it is
stored: after a restart it is as of a new service."""

from __future__ import annotations

import msgspec

from simenv.scheduler.state.candidates import Candidates

_NEVER_NS = -(10**18)


class DispatchState(msgspec.Struct, eq=False):
    """Memory of the dispatcher between two passes."""

    grants: int = 0  # chunks that were sent to workers; answers to heartbeats carry the number
    assigns_left: int = 1  # of the work that one pass of assignments may cause the service
    # Of the present pass, and large ones of passes before, by pool and order.
    candidates: dict[tuple[str, str], Candidates] = msgspec.field(default_factory=dict)
    deferred_gangs: bool = False  # some wait for tasks of one rank of accounts that go first
    last_short_ns: int = _NEVER_NS  # last submission of a short task
    slot_taken_ns: int = _NEVER_NS  # time when a running task last lost a slot to a short one
    gang_ended_ns: int = _NEVER_NS  # time when a task of several ranks last released its slots

    def copy(self) -> DispatchState:
        """Return a copy for another state, in which no pass is under way."""
        return msgspec.structs.replace(self, assigns_left=1, candidates={})
