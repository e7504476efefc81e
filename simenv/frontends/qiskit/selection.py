"""Choice of a backend by type and capability, as in QFw's backend for Qiskit."""

from __future__ import annotations

from typing import NamedTuple

from simenv.model.devices import DeviceKind

_ENGINES = {
    "statevector": "statevector",
    "densitymatrix": "densitymatrix",
    "density_matrix": "densitymatrix",
    "stabilizer": "stabilizer",
    "tensornetwork": "mps",
    "tensor_network": "mps",
    "matrix_product_state": "mps",
}
_TYPES = {
    "simulator": None,
    "emulator": DeviceKind.EMULATED,
    "hardware": DeviceKind.HARDWARE,
}


class EngineSelection(NamedTuple):
    """Options of a submit that a type and a capability stand for."""

    engine: str = "auto"
    kind: DeviceKind | None = None  # kind of the pool's device; None: any


def selected(type_: str | None, capability: str | None) -> EngineSelection:
    """Engine and kind of device of a type and a capability. Raises ValueError for unknown words, or
    a machine with a simulator's capability."""
    kind, method = _word(type_), _word(capability)
    if kind is not None and kind not in _TYPES:
        raise ValueError(f"type={type_!r}: there are {', '.join(_TYPES)}")
    if method is not None and method not in _ENGINES:
        raise ValueError(f"capability={capability!r}: there are {', '.join(_ENGINES)}")
    if kind == "hardware" and method is not None:
        raise ValueError(f"capability={capability!r} is of simulators, and type='hardware'")
    engine = "auto" if method is None else _ENGINES[method]
    return EngineSelection(engine, None if kind is None else _TYPES[kind])


def _word(value: str | None) -> str | None:
    return None if value is None else str(value).strip().lower().replace("-", "_")
