"""The engines as a client sees them: their cards, and the widths that this environment's memory
and ranks allow."""

from __future__ import annotations

import functools

from simenv.model import EngineInfo, PoolSpec
from simenv.scheduler.values import Limits
from simenv.service.ideal import gates_of, width
from simulators import catalog
from simulators.catalog import EngineCard


@functools.lru_cache(maxsize=1)
def engines_view(pools: tuple[PoolSpec, ...], limits: Limits) -> list[EngineInfo]:
    """All but those that only drills name."""
    return [_view(card, pools, limits) for card in catalog.CARDS if card.shared or card.automatic]


def _view(card: EngineCard, pools: tuple[PoolSpec, ...], limits: Limits) -> EngineInfo:
    return EngineInfo(
        name=card.name,
        summary=card.summary,
        outputs=card.outputs,
        precisions=card.precisions,
        dynamic=card.dynamic,
        clifford=card.clifford,
        max_qubits=width(card, pools, limits),
        missing=card.missing,
        gates=gates_of(card),
    )
