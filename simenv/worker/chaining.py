"""The chain rule: from an engine's gradients, by slots, to those by a circuit's parameters."""

from __future__ import annotations

import msgspec
import numpy as np

from simenv.model import Chain
from simulators.results import EngineResult


def chained(found: EngineResult, chain: Chain, num_slots: int) -> EngineResult:
    """The same result with gradients by parameters."""
    by_slot = np.frombuffer(found.gradients).reshape(-1, num_slots)
    by_parameter = np.zeros((len(by_slot), chain.parameters))
    slots = np.frombuffer(chain.slots, "<i4").tolist()
    columns = np.frombuffer(chain.columns, "<i4").tolist()
    factors = np.frombuffer(chain.factors, "<f8").tolist()
    for slot, column, factor in zip(slots, columns, factors, strict=True):
        by_parameter[:, column] += factor * by_slot[:, slot]
    return msgspec.structs.replace(found, gradients=by_parameter.tobytes())
