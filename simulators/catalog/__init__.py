"""The catalog of engines: all that the service reads of them; imports no engine."""

from simulators.catalog.builtin import (
    CARDS,
    DEFAULT_ENGINE,
    LIGHT_BITS,
    LIGHT_QUBITS,
    builtin_card,
    card,
    engine_cards,
)
from simulators.catalog.cards import EngineCard, EngineOption, NoiseKind, Options
from simulators.catalog.costs import SMALL_QUBITS, CostQuery, state_bytes

__all__ = [
    "CARDS",
    "DEFAULT_ENGINE",
    "LIGHT_BITS",
    "LIGHT_QUBITS",
    "SMALL_QUBITS",
    "CostQuery",
    "EngineCard",
    "EngineOption",
    "NoiseKind",
    "Options",
    "builtin_card",
    "card",
    "engine_cards",
    "state_bytes",
]
