"""The catalog of engines: all that the service reads of them; imports no engine."""

from simulators.catalog.builtin import CARDS, card
from simulators.catalog.cards import EngineCard, EngineOption, Options
from simulators.catalog.costs import SMALL_QUBITS, CostQuery, state_bytes

__all__ = [
    "CARDS",
    "SMALL_QUBITS",
    "CostQuery",
    "EngineCard",
    "EngineOption",
    "Options",
    "card",
    "state_bytes",
]
