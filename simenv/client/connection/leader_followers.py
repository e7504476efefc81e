"""Leader/Followers: of the threads that wait on one connection, one at a time reads it.

Invariant: a follower is in the table from the moment when it waits for its turn until somebody
wakes it or its wait ends, and nobody but the leader uses the connection. The lock of the channel
guards all of it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable


class LeaderFollowers:
    """The thread that reads, and those that wait for it."""

    __slots__ = ("_followers", "leader")

    def __init__(self) -> None:
        self.leader: int | None = None  # identifier of the thread
        # By thread: the held lock that wakes it, and whether its wait has ended.
        self._followers: dict[int, tuple[threading.Lock, Callable[[], bool]]] = {}

    @property
    def has_followers(self) -> bool:
        return bool(self._followers)

    def lead(self, me: int) -> bool:
        """Make a thread the leader if there is none; return whether it leads."""
        if self.leader is None:
            self.leader = me
        return self.leader == me

    def follow(self, me: int, done: Callable[[], bool]) -> threading.Lock:
        """Return a lock to acquire: it is released when the thread has to look again."""
        turn = threading.Lock()
        turn.acquire()
        self._followers[me] = turn, done
        return turn

    def leave(self, me: int) -> bool:
        """Take a thread out whose wait has ended; return whether it was the leader."""
        self._followers.pop(me, None)
        if self.leader != me:
            return False
        self.leader = None
        return True

    def wake_next(self) -> None:
        """Let one follower lead. Precondition: there is one."""
        self._wake(next(iter(self._followers)))

    def wake_done(self) -> None:
        """Wake the followers whose wait has ended."""
        for follower in [key for key, (_, done) in self._followers.items() if done()]:
            self._wake(follower)

    def wake_all(self) -> None:
        """Let all followers look again."""
        for follower in list(self._followers):
            self._wake(follower)

    def _wake(self, follower: int) -> None:
        self._followers.pop(follower)[0].release()
