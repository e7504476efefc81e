"""Bounds of the numbers of connections."""

from __future__ import annotations

MAX_UNAUTHENTICATED = 512
MAX_AUTHENTICATED = 1_024
MAX_PER_KEY = 256


class ConnectionLimiter:
    """Choice of the connections of a remote listener to close, so that no client uses up all.

    Pure: events in, descriptors to close out. A connection is unauthenticated from its acceptance
    until its first message, which requires an accepted key. Invariant: the newest
    `max_unauthenticated` unauthenticated connections stay, so that a flood of silent ones cannot
    exclude a client that needs a few milliseconds to authenticate. Source: MaxStartups of OpenSSH.
    Used from one thread.
    """

    def __init__(
        self,
        max_authenticated: int = MAX_AUTHENTICATED,
        max_per_key: int = MAX_PER_KEY,
        max_unauthenticated: int = MAX_UNAUTHENTICATED,
    ) -> None:
        self._max_unauthenticated = max_unauthenticated
        self._max_authenticated, self._max_per_key = max_authenticated, max_per_key
        self._unauthenticated: dict[int, None] = {}  # in order of arrival
        self._authenticated: dict[int, str] = {}  # authenticated connections with their keys
        self._of_key: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._unauthenticated) + len(self._authenticated)

    def accepted(self, fd: int) -> int | None:
        """Add a new connection. Returns the connection to close if there are too many, or None."""
        self.remove(fd)
        self._unauthenticated[fd] = None
        if len(self._unauthenticated) <= self._max_unauthenticated:
            return None
        oldest = next(iter(self._unauthenticated))
        del self._unauthenticated[oldest]
        return oldest

    def authenticate(self, fd: int, key: str) -> bool:
        """Record the first message of a connection. Returns False if there are too many, so that
        this connection must be closed."""
        if self._authenticated.get(fd) == key:
            return True
        self.remove(fd)
        if (
            len(self._authenticated) >= self._max_authenticated
            or self._of_key.get(key, 0) >= self._max_per_key
        ):
            return False
        self._authenticated[fd] = key
        self._of_key[key] = self._of_key.get(key, 0) + 1
        return True

    def exceeded(self, key: str) -> str:
        """Return the limit because of which `authenticate` has refused a connection."""
        if self._of_key.get(key, 0) >= self._max_per_key:
            return f"{self._max_per_key} connections with this key"
        return f"{self._max_authenticated} connections of all users together"

    def remove(self, fd: int) -> None:
        """Remove a connection from the counts."""
        self._unauthenticated.pop(fd, None)
        key = self._authenticated.pop(fd, None)
        if key is not None:
            self._of_key[key] -= 1
            if not self._of_key[key]:
                del self._of_key[key]
