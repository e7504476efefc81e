"""Which of the connections at a far door to cut, so that nobody can take all of them.

Pure: events in, descriptors to cut out. A connection is a stranger from the moment it is accepted
until its first message, which nobody can send whose key was not let in. Invariant: of strangers the
newest MAX_STRANGERS stay, so that a flood of silent ones cannot keep out one who has a key and
needs a few milliseconds to show it.
"""

from __future__ import annotations

MAX_STRANGERS = 512
MAX_KNOWN = 1_024
MAX_OF_ONE_KEY = 256


class ConnectionLimiter:
    """Connections by descriptor, as one thread hears of them."""

    def __init__(self, max_known: int = MAX_KNOWN, max_of_one_key: int = MAX_OF_ONE_KEY) -> None:
        self._max_known, self._max_of_one_key = max_known, max_of_one_key
        self._strangers: dict[int, None] = {}  # in order of arrival
        self._known: dict[int, str] = {}  # by the key they came with
        self._of_key: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._strangers) + len(self._known)

    def accepted(self, fd: int) -> int | None:
        """A new connection; the one to cut for it, if there are too many."""
        self.gone(fd)
        self._strangers[fd] = None
        if len(self._strangers) <= MAX_STRANGERS:
            return None
        oldest = next(iter(self._strangers))
        del self._strangers[oldest]
        return oldest

    def spoke(self, fd: int, key: str) -> bool:
        """The first message of a connection; False: it must be cut, there are too many."""
        if self._known.get(fd) == key:
            return True
        self.gone(fd)
        if len(self._known) >= self._max_known or self._of_key.get(key, 0) >= self._max_of_one_key:
            return False
        self._known[fd] = key
        self._of_key[key] = self._of_key.get(key, 0) + 1
        return True

    def has(self, key: str) -> bool:
        """Does any connection that has spoken have this key?"""
        return key in self._of_key

    def gone(self, fd: int) -> None:
        """A connection has ended, or is not counted any more."""
        self._strangers.pop(fd, None)
        key = self._known.pop(fd, None)
        if key is not None:
            self._of_key[key] -= 1
            if not self._of_key[key]:
                del self._of_key[key]
