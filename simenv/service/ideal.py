"""Pools of simulators as devices: from the catalog, and the widths that their memory allows.

With numpy and kernels, which are loaded beside the loop: imported when somebody asks.
"""

from __future__ import annotations

import functools

from simenv import __version__
from simenv.model import MAX_SHOTS, GateInfo, PoolSpec
from simenv.model.devices import DeviceInfo, DeviceKind
from simenv.scheduler import sizing
from simenv.scheduler.circuit_times import engine_of
from simenv.scheduler.values import Limits
from simulators.catalog import EngineCard
from simulators.circuit.gates import GATES

PROVIDER = "simenv"


@functools.lru_cache(maxsize=1024)
def ideal(pool: PoolSpec, limits: Limits) -> DeviceInfo:
    """A pool by the engine that a circuit of it would meet: its own, or of a pool of any engine the
    preferred one of those that run every gate."""
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
        dynamic=card.dynamic,
    )


def width(card: EngineCard, pools: tuple[PoolSpec, ...], limits: Limits) -> int:
    """Qubits of the widest program in double precision; of engines whose memory the width alone
    does not tell, what they take."""
    dense = sizing.is_dense(card)
    return sizing.widest_on(card, pools, limits) if dense else card.max_qubits


def gates_of(card: EngineCard) -> tuple[GateInfo, ...]:
    """The gates it runs as they are written."""
    return tuple(
        GateInfo(gate.name, gate.qubits, gate.params)
        for gate in GATES.values()
        if (gate.clifford or not card.clifford) and not 0 < card.gate_qubits < gate.qubits
    )
