"""Answers about engines: the list of their cards, and simulator pools as devices.

Imports numpy and kernels; it is imported at the first such query.
"""

from __future__ import annotations

import functools
from typing import Any

from simenv._version import __version__
from simenv.model import MAX_SHOTS, EngineInfo, GateInfo, PoolSpec
from simenv.model.devices import DeviceInfo, DeviceKind
from simenv.model.paradigms import CIRCUIT_FORMATS, PULSER
from simenv.model.pulses import RYDBERG
from simenv.scheduler.core import ClusterLimits
from simenv.scheduler.reservations.circuit_times import engine_of
from simenv.scheduler.routing import engine_choice, ranks
from simenv.scheduler.routing.engine_support import widest_on_gpus
from simulators import catalog
from simulators.circuit.gates import GATES

PROVIDER = "simenv"


@functools.lru_cache(maxsize=1024)
def ideal(pool: PoolSpec, limits: ClusterLimits) -> DeviceInfo:
    """Return a simulator pool as a device, by its engine, or for a pool of any engine by the
    preferred engine that runs every gate."""
    card = engine_of(pool)
    return DeviceInfo(
        name=pool.name,
        kind=DeviceKind.IDEAL,
        provider=PROVIDER,
        model=card.name,
        version=__version__,
        technology="simulator",
        num_qubits=width(card, (pool,), limits),
        max_shots=MAX_SHOTS,
        gates=gates_of(card),
        all_to_all=True,
        dynamic=card.control.dynamic,
        **_formats(pool, card),
    )


def _formats(pool: PoolSpec, main: catalog.EngineCard) -> dict[str, Any]:
    """Return the fields `formats` and `missing_formats` of a simulator pool."""
    formats: tuple[str, ...] = () if main.calls else CIRCUIT_FORMATS
    card = catalog.card(RYDBERG)
    assert card is not None
    if not engine_choice.runs(pool, card):
        return {"formats": formats}
    if card.install_hint:
        return {"formats": formats, "missing_formats": ((PULSER, card.install_hint),)}
    return {"formats": (*formats, PULSER)}


def width(card: catalog.EngineCard, pools: tuple[PoolSpec, ...], limits: ClusterLimits) -> int:
    """Return the qubits of the widest program in double precision; for engines whose memory does
    not depend on the width alone, the limit in their card."""
    if card.pool == "gpu":
        usable = (pool for pool in pools if engine_choice.runs(pool, card))
        return max(widest_on_gpus(card, pool, limits) for pool in usable)
    dense = ranks.is_dense(card)
    return ranks.widest_on(card, pools, limits) if dense else card.max_qubits


def gates_of(card: catalog.EngineCard) -> tuple[GateInfo, ...]:
    """Return the gates that an engine runs without decomposition."""
    if card.calls:
        return ()
    return tuple(
        GateInfo(gate.name, gate.qubits, gate.params)
        for gate in GATES.values()
        if (gate.clifford or card.method != "clifford") and not 0 < card.gate_qubits < gate.qubits
    )


@functools.lru_cache(maxsize=1)
def engines_view(pools: tuple[PoolSpec, ...], limits: ClusterLimits) -> list[EngineInfo]:
    """Return all engines that run circuits, without those for tests; engines on GPUs only if a pool
    has them."""
    return [
        _view(card, pools, limits)
        for card in catalog.engine_cards()
        if (card.in_default_pool or card.auto is not None) and not card.calls
        if card.pool != "gpu" or any(engine_choice.runs(pool, card) for pool in pools)
    ]


def _view(
    card: catalog.EngineCard, pools: tuple[PoolSpec, ...], limits: ClusterLimits
) -> EngineInfo:
    return EngineInfo(
        name=card.name,
        summary=card.summary,
        outputs=card.outputs,
        precisions=card.precisions,
        dynamic=card.control.dynamic,
        clifford=card.method == "clifford",
        max_qubits=width(card, pools, limits),
        missing=card.install_hint,
        gates=gates_of(card),
    )
