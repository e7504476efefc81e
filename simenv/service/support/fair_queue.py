"""A queue in which owners take turns, and the connections of each owner.

Invariant: an owner with a thousand connections gets no more turns than one with a single
connection; the items of a connection keep their order. Pure.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import Generic, TypeVar

T = TypeVar("T")


class FairQueue(Generic[T]):
    """Items by owner and connection. The first item is that of the connection whose turn it is."""

    def __init__(self) -> None:
        self._owners: OrderedDict[str, OrderedDict[bytes, deque[T]]] = OrderedDict()

    def __bool__(self) -> bool:
        return bool(self._owners)

    def of(self, owner: str, peer: bytes) -> int:
        """Return the number of waiting items of a connection."""
        peers = self._owners.get(owner)
        return len(peers.get(peer, ())) if peers is not None else 0

    def put(self, owner: str, peer: bytes, item: T) -> None:
        """Append an item behind those of the same connection."""
        peers = self._owners.get(owner)
        if peers is None:
            peers = self._owners[owner] = OrderedDict()
        items = peers.get(peer)
        if items is None:
            items = peers[peer] = deque()
        items.append(item)

    def first(self) -> tuple[str, bytes, T]:
        """Return the owner and connection whose turn it is, with their item. Raises IndexError if
        no item waits."""
        for owner, peers in self._owners.items():
            for peer, items in peers.items():
                return owner, peer, items[0]
        raise IndexError("nothing waits")

    def end_turn(self, *, done: bool) -> None:
        """End the turn of the first connection; `done`: also remove its item."""
        owner, peers = next(iter(self._owners.items()))
        peer, items = next(iter(peers.items()))
        if done:
            items.popleft()
        if items:
            peers.move_to_end(peer)
        else:
            del peers[peer]
            if not peers:
                del self._owners[owner]
                return
        self._owners.move_to_end(owner)

    def remove_connection(self) -> deque[T]:
        """Remove and return all items of the connection whose turn it is."""
        owner, peers = next(iter(self._owners.items()))
        _, items = peers.popitem(last=False)
        if peers:
            self._owners.move_to_end(owner)
        else:
            del self._owners[owner]
        return items

    def restore_connection(self, owner: str, peer: bytes, items: deque[T]) -> None:
        """Insert removed items of a connection before its later ones."""
        since = self._owners.setdefault(owner, OrderedDict()).setdefault(peer, deque())
        since.extendleft(reversed(items))
