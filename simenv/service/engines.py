"""The engines as a client sees them: their cards, and the widths that this environment's memory
allows."""

from __future__ import annotations

import functools

from simenv.model import EngineInfo, GateInfo
from simulators import catalog
from simulators.catalog import EngineCard
from simulators.circuit.gates import GATES
from simulators.costs import StateCosts


@functools.lru_cache(maxsize=1)
def engines_view(memory_bytes: int) -> list[EngineInfo]:
    """All but those that only drills name."""
    return [_view(card, memory_bytes) for card in catalog.CARDS if card.shared or card.automatic]


def _view(card: EngineCard, memory_bytes: int) -> EngineInfo:
    dense = isinstance(card.costs, StateCosts)  # of others the width alone says nothing of memory
    return EngineInfo(
        name=card.name,
        summary=card.summary,
        outputs=card.outputs,
        precisions=card.precisions,
        dynamic=card.dynamic,
        clifford=card.clifford,
        max_qubits=card.max_qubits_in(memory_bytes) if dense else card.max_qubits,
        missing=card.missing,
        gates=tuple(
            GateInfo(gate.name, gate.qubits, gate.params)
            for gate in GATES.values()
            if gate.clifford or not card.clifford
        ),
    )
