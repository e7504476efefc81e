"""Cache of states between the runs of a circuit's parts: bounded in bytes and in time.

A dropped state is computed again by the run that needs it, to the same bits.
"""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from simulators.catalog.costs import FREE_STATES_BYTES


class KeptState(msgspec.Struct, frozen=True, eq=False):
    """State after a part; immutable."""

    state: Any  # handle of its backend
    record: NDArray[np.uint64]  # [words]: the clbits
    size_bytes: int
    until_s: float = 0.0


class KeptStates:
    """Cache of states by digest of their history; the least recently used is dropped first."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._bound_bytes = FREE_STATES_BYTES
        self._held_bytes = 0
        self._kept: OrderedDict[bytes, KeptState] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def find(self, key: bytes) -> KeptState | None:
        """Cached state of that key, or None."""
        self.expire()
        kept = self._kept.get(key)
        if kept is not None:
            self._kept.move_to_end(key)
        return kept

    def keep(self, key: bytes, kept: KeptState, keep_s: float) -> None:
        """Cache a state for `keep_s` seconds, if there is room for it."""
        self._drop(key)
        if keep_s <= 0.0 or kept.size_bytes > self._bound_bytes:
            return
        self._kept[key] = msgspec.structs.replace(kept, until_s=self._clock() + keep_s)
        self._held_bytes += kept.size_bytes
        self._shrink()

    def limit(self, bound_bytes: int) -> None:
        """Set the limit in bytes, at least FREE_STATES_BYTES."""
        self._bound_bytes = max(FREE_STATES_BYTES, bound_bytes)
        self._shrink()

    def expire(self) -> float:
        """Drop the expired states; return the seconds until the next expiry (inf: none)."""
        now_s = self._clock()
        for key in [key for key, kept in self._kept.items() if kept.until_s <= now_s]:
            self._drop(key)
        return min((kept.until_s for kept in self._kept.values()), default=math.inf) - now_s

    def _shrink(self) -> None:
        while self._held_bytes > self._bound_bytes:
            self._drop(next(iter(self._kept)))

    def _drop(self, key: bytes) -> None:
        kept = self._kept.pop(key, None)
        if kept is not None:
            self._held_bytes -= kept.size_bytes
