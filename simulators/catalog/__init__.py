"""Catalog of engines: all that the service reads about them; imports no engine."""

from simulators.catalog.builtin import (
    CARDS,
    DEFAULT_ENGINE,
    builtin_card,
    card,
    engine_cards,
    settings_of,
)
from simulators.catalog.cards import (
    AutoChoice,
    Control,
    EngineCard,
    EngineOption,
    Kernels,
    NoiseKind,
    NoiseSupport,
    Options,
    Package,
    Parallelism,
)
from simulators.catalog.costs import (
    COUNTS_QUBITS,
    SMALL_QUBITS,
    TILE_BITS,
    CostQuery,
    state_bytes,
)
from simulators.catalog.preference import DENSE_QUBITS, LIGHT_BITS, trial_operations

__all__ = [
    "CARDS", "COUNTS_QUBITS", "DEFAULT_ENGINE", "DENSE_QUBITS", "LIGHT_BITS", "SMALL_QUBITS",
    "TILE_BITS", "AutoChoice", "Control", "CostQuery", "EngineCard", "EngineOption", "Kernels",
    "NoiseKind", "NoiseSupport", "Options", "Package", "Parallelism", "builtin_card", "card",
    "engine_cards", "settings_of", "state_bytes", "trial_operations",
]  # fmt: skip
