"""A pool as a device: qubits, couplings, gates, in the shape of the qhw records.

An ideal simulator couples every qubit with every other and has no calibration. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any

from simenv.client.qpm.presence import basis
from simenv.model import MAX_SHOTS, EngineInfo, PoolInfo, ServiceInfo
from simenv.qpm.service import PROVIDER
from simenv.qpm.views import QhwCalibration, QhwCoupling, QhwDevice

MOST_EDGES_QUBITS = 256  # beyond, all pairs are more than a host wants to read: see `coupling`
_RAW = {"included": False}


def device(info: ServiceInfo, pool: PoolInfo | None, engines: Sequence[EngineInfo]) -> QhwDevice:
    """`engines`: those a circuit may meet there, the one that gives the width first."""
    return QhwDevice(
        schema="qhw-device-v1",
        provider=PROVIDER,
        device=_head(info, pool, engines[0]),
        metadata={
            "basis_gates": [gate.name for gate in basis(engines[0])],
            "max_shots": MAX_SHOTS,
            "ideal": True,
        },
        extensions={"simenv": {"engines": [_engine(engine) for engine in engines]}},
        raw=_RAW,
        qubits=[{"id": name} for name in _qubits(engines[0])],
    )


def coupling(
    info: ServiceInfo, pool: PoolInfo | None, engines: Sequence[EngineInfo]
) -> QhwCoupling:
    """All to all. Beyond MOST_EDGES_QUBITS qubits the edges stand as a word in `extensions`."""
    nodes = _qubits(engines[0])
    listed = len(nodes) <= MOST_EDGES_QUBITS
    return QhwCoupling(
        schema="qhw-coupling-v1",
        provider=PROVIDER,
        device=_head(info, pool, engines[0]),
        metadata={"ideal": True},
        extensions={"simenv": {"topology": "all-to-all", "edges_listed": listed}},
        raw=_RAW,
        coupling={
            "nodes": nodes,
            "edges": [list(pair) for pair in combinations(nodes, 2)] if listed else [],
            "directed": False,
            "source": ["simulator"],
        },
        operations=[
            *({"name": gate.name, "arity": gate.qubits} for gate in basis(engines[0])),
            {"name": "measure", "arity": 1},
            *([{"name": "reset", "arity": 1}] if engines[0].dynamic else []),
        ],
    )


def calibration(
    info: ServiceInfo, pool: PoolInfo | None, engines: Sequence[EngineInfo]
) -> QhwCalibration:
    """Nothing was measured, because nothing errs."""
    return QhwCalibration(
        schema="qhw-calibration-v1",
        provider=PROVIDER,
        device=_head(info, pool, engines[0]),
        metadata={"ideal": True},
        extensions={},
        raw=_RAW,
        calibration={"observation_count": 0, "quality_metric_count": 0, "summaries": {}},
    )


def _head(info: ServiceInfo, pool: PoolInfo | None, engine: EngineInfo) -> dict[str, Any]:
    name = info.name if pool is None else f"{info.name}/{pool.name}"
    return {
        "id": name,
        "name": name,
        "provider_device_id": name,
        "version": info.version,
        "num_qubits": engine.max_qubits,
        "technology": "simulator",
    }


def _qubits(engine: EngineInfo) -> list[str]:
    return [str(number) for number in range(engine.max_qubits)]


def _engine(engine: EngineInfo) -> dict[str, Any]:
    return {
        "name": engine.name,
        "summary": engine.summary,
        "num_qubits": engine.max_qubits,
        "outputs": list(engine.outputs),
        "precisions": list(engine.precisions),
        "dynamic_circuits": engine.dynamic,
        "clifford_only": engine.clifford,
    }
