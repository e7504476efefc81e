"""Memory of the GPUs of a pool, and refusal of states that some of its workers could not hold.

A worker may have any of its pool's GPUs, so the smallest one is the limit. If the memory of one is
unknown, as on other nodes, nothing is refused here: the engine compares a state with its GPU.
"""

from __future__ import annotations

import msgspec

from launcher.base import Gpu
from launcher.placement import NodeResources, matches
from simenv.errors import InfeasibleError
from simenv.model import PoolSpec, TaskOptions
from simenv.scheduler.core.types import ClusterLimits, nodes_of
from simenv.scheduler.routing.engine_support import cost_query
from simenv.text import size
from simulators.catalog import EngineCard
from simulators.catalog.gpu_costs import RESERVED_BYTES, GpuCost, widest_state
from simulators.circuit.analysis.profile import Profile


def smallest_gpu(pool: PoolSpec, limits: ClusterLimits) -> Gpu | None:
    """Return the GPU with the least memory that a worker of the pool may have; None if unknown."""
    nodes = [node for node in nodes_of(limits) if matches(pool.nodes, NodeResources.of(node))]
    if any(len(node.gpu_details) < node.gpus for node in nodes):
        return None
    gpus = [gpu for node in nodes for gpu in node.gpu_details]
    if not gpus or not all(gpu.memory_bytes for gpu in gpus):
        return None
    return min(gpus, key=lambda gpu: gpu.memory_bytes)


def device_refusal(
    card: EngineCard, profile: Profile, terms: TaskOptions, pool: PoolSpec, limits: ClusterLimits
) -> InfeasibleError | None:
    """Return why the states of a program do not fit the GPUs of a pool; None if they do."""
    gpu = smallest_gpu(pool, limits) if isinstance(card.costs, GpuCost) else None
    if gpu is None or _fits(card, profile, terms, gpu):
        return None
    need = _device_bytes(card, profile, terms)
    return InfeasibleError(
        f"{profile.num_qubits} qubits in {terms.precision} precision need {size(need)} on a GPU; "
        f"the smallest of pool {pool.name!r}, {gpu.model or gpu.uuid}, has {size(_room(gpu))} for"
        " states",
        hint=_way_out(card, profile, terms, gpu),
    )


def device_text(card: EngineCard, profile: Profile, terms: TaskOptions, gpu: Gpu) -> str:
    """Return the memory that states take on a GPU, as text for the reason of a route."""
    need = size(_device_bytes(card, profile, terms))
    return f"{need} of {size(_room(gpu))} on {gpu.model or gpu.uuid}"


def widest_on_gpus(card: EngineCard, pool: PoolSpec, limits: ClusterLimits) -> int:
    """Return the qubits of the widest state in double precision; the engine's limit if the memory
    is unknown."""
    gpu = smallest_gpu(pool, limits)
    if gpu is None:
        return card.max_qubits
    return min(card.max_qubits, widest_state(gpu.memory_bytes, "double"))


def _room(gpu: Gpu) -> int:
    return max(0, gpu.memory_bytes - RESERVED_BYTES)


def _device_bytes(card: EngineCard, profile: Profile, terms: TaskOptions) -> int:
    assert isinstance(card.costs, GpuCost)
    return card.costs.device_bytes(profile, cost_query(card, terms))


def _fits(card: EngineCard, profile: Profile, terms: TaskOptions, gpu: Gpu) -> bool:
    return _device_bytes(card, profile, terms) <= _room(gpu)


def _way_out(card: EngineCard, profile: Profile, terms: TaskOptions, gpu: Gpu) -> str:
    widths = {}
    for precision in ("double", "single"):
        asked = msgspec.structs.replace(terms, precision=precision)
        widths[precision] = next(
            width
            for width in range(profile.num_qubits, -1, -1)
            if not width or _fits(card, _narrowed(profile, width), asked, gpu)
        )
    hint = f"the widest that fits has {widths['double']} qubits, {widths['single']} in single"
    if terms.precision == "double" and widths["single"] == profile.num_qubits:
        return f"{hint} precision: this one fits with precision='single'"
    return f"{hint} precision; engine='statevector' holds states in the memory of processors"


def _narrowed(profile: Profile, width: int) -> Profile:
    return msgspec.structs.replace(profile, num_qubits=width)
