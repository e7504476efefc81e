"""Disjoint sets of numbered items (Cormen et al., Introduction to Algorithms, chapter 19)."""

from __future__ import annotations


class DisjointSets:
    """Sets of the items 0 to `size` - 1, at first each alone."""

    def __init__(self, size: int) -> None:
        self._parent = list(range(size))

    def root(self, item: int) -> int:
        """The item that names the set of an item."""
        parent = self._parent
        while parent[item] != item:
            parent[item] = parent[parent[item]]
            item = parent[item]
        return item

    def join(self, first: int, second: int) -> None:
        """Join the sets of two items; that of the second one names both."""
        self._parent[self.root(first)] = self.root(second)
