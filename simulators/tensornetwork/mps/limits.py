"""Limits of a chain of tensors: its options, the weight it may discard and the memory it may
use."""

from __future__ import annotations

import msgspec
import numpy as np

from simulators.catalog import builtin_card
from simulators.chain.product_state import LEAST_CUTOFF, ROUNDING
from simulators.engine import RunOptions
from simulators.errors import OutOfMemory, TruncatedState

CARD = builtin_card("mps")
_WORKSPACE = 4  # relative to the tensors: a layer's products and splits, and samples


class ChainLimits(msgspec.Struct, frozen=True):
    """Options of a run."""

    bond: int  # largest bond kept
    cutoff: float  # weight that a gate may discard
    tolerance: float  # weight that all gates may discard
    memory_bytes: int  # 0: not known
    dtype: str

    @classmethod
    def of(cls, options: RunOptions) -> ChainLimits:
        """Limits from a run's options."""
        dtype = options.dtype
        values = [CARD.value(options.settings, name) for name in ("bond", "cutoff", "tolerance")]
        bond, cutoff, tolerance = values
        return cls(
            int(bond),
            max(float(cutoff), LEAST_CUTOFF[dtype]),
            float(tolerance),
            options.memory_bytes,
            dtype,
        )

    def check_weight(self, lost: float, where: str = "") -> None:
        """Raise TruncatedState if more weight was discarded than allowed; what rounding loses is
        always allowed."""
        if lost > max(self.tolerance, ROUNDING):
            raise TruncatedState(
                f"engine 'mps' had to cut off {lost:.1e} of the weight{where}, with bonds of up to"
                f" {self.bond}; {self.tolerance:.1e} is allowed",
                hint="engine='mps' with a larger option bond keeps more, with tolerance=1 it"
                " goes on and result.truncation says what it lost",
            )

    def check_size(self, values: int) -> None:
        """Raise OutOfMemory if tensors of this size exceed the memory of the run."""
        need = _WORKSPACE * values * np.dtype(self.dtype).itemsize
        if 0 < self.memory_bytes < need:
            raise OutOfMemory(
                f"engine 'mps': its tensors and what they are split in take {need} bytes,"
                f" {self.memory_bytes} are allowed",
                hint="a smaller option bond, precision='single', or workers with more memory",
            )
