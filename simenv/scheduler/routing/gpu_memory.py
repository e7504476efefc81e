"""Memory of the GPUs of a pool, and refusal of states that some of its workers could not hold.

A worker has any of its pool's GPUs, one for each rank, so the smallest one is the limit. Where the
memory of one is not known, as on other nodes, nothing is refused here: the engine compares a state
with its GPU.
"""

from __future__ import annotations

import msgspec

from launcher.base import Gpu
from launcher.placement import NodeResources, Placement, ResourceRequest, matches, place
from simenv.errors import InfeasibleError
from simenv.model import PoolSpec, TaskOptions
from simenv.scheduler.core.types import ClusterLimits, nodes_of
from simenv.scheduler.routing.engine_support import ELSEWHERE, cost_query, power
from simenv.text import size
from simulators.catalog import EngineCard
from simulators.catalog.costs import ranks_used
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
    """Return why a program cannot run on the GPUs of a pool; None if it can."""
    used = power(pool.ranks)
    if "gradient" in terms.outputs and ranks_used(profile.num_qubits, used) > 1:
        return InfeasibleError(
            f"engine {card.name!r} has no gradients over ranks, and workers of pool {pool.name!r} "
            f"have {pool.ranks}",
            hint="a pool of one rank: the two states of a gradient on one GPU; or another engine",
        )
    gpu = smallest_gpu(pool, limits) if isinstance(card.costs, GpuCost) else None
    if gpu is None or _fits(card, profile, terms, gpu, used):
        return None
    memory = size(_device_bytes(card, profile, terms, used))
    place = "a GPU" if used == 1 else f"each of {used} GPUs"
    return InfeasibleError(
        f"{profile.num_qubits} qubits in {terms.precision} precision need {memory} on {place}; "
        f"the smallest of pool {pool.name!r}, {gpu.model or gpu.uuid}, has "
        f"{size(_usable_bytes(gpu))} for states",
        hint=_remedy(card, profile, terms, pool, limits),
    )


def too_few_gpus(
    card: EngineCard, profile: Profile, terms: TaskOptions, pool: PoolSpec, limits: ClusterLimits
) -> InfeasibleError:
    """Return the refusal of several ranks in a pool whose workers have one rank, with one GPU."""
    hint = _larger_pool(card, profile, terms, pool, limits, power(terms.ranks))
    return InfeasibleError(
        f"{terms.ranks} ranks were asked for, and workers of pool {pool.name!r} have one, with a "
        "GPU",
        hint=f"start a pool {hint}" if hint else ELSEWHERE,
    )


def device_text(
    card: EngineCard, profile: Profile, terms: TaskOptions, pool: PoolSpec, gpu: Gpu
) -> str:
    """Return the memory that states take on a GPU, as text for the reason of a route."""
    memory = size(_device_bytes(card, profile, terms, power(pool.ranks)))
    return f"{memory} of {size(_usable_bytes(gpu))} on {gpu.model or gpu.uuid}"


def widest_on_gpus(card: EngineCard, pool: PoolSpec, limits: ClusterLimits) -> int:
    """Return the qubits of the widest state in double precision; the engine's limit if the memory
    is unknown."""
    gpu = smallest_gpu(pool, limits)
    if gpu is None:
        return card.max_qubits
    divided = power(pool.ranks).bit_length() - 1  # qubits that stand in the rank's number
    return min(card.max_qubits, widest_state(gpu.memory_bytes, "double") + divided)


def _usable_bytes(gpu: Gpu) -> int:
    return max(0, gpu.memory_bytes - RESERVED_BYTES)


def _device_bytes(card: EngineCard, profile: Profile, terms: TaskOptions, ranks: int) -> int:
    assert isinstance(card.costs, GpuCost)
    return card.costs.device_bytes(profile, cost_query(card, terms, ranks=ranks))


def _fits(card: EngineCard, profile: Profile, terms: TaskOptions, gpu: Gpu, ranks: int) -> bool:
    return _device_bytes(card, profile, terms, ranks) <= _usable_bytes(gpu)


def _remedy(
    card: EngineCard, profile: Profile, terms: TaskOptions, pool: PoolSpec, limits: ClusterLimits
) -> str:
    gpu = smallest_gpu(pool, limits)
    assert gpu is not None
    widths = {}
    for precision in ("double", "single"):
        requested = msgspec.structs.replace(terms, precision=precision)
        widths[precision] = next(
            width
            for width in range(profile.num_qubits, -1, -1)
            if not width
            or _fits(card, _narrowed(profile, width), requested, gpu, power(pool.ranks))
        )
    hint = f"the widest that fits has {widths['double']} qubits, {widths['single']} in single"
    if terms.precision == "double" and widths["single"] == profile.num_qubits:
        hint = f"{hint} precision: this one fits with precision='single'"
    else:
        hint = f"{hint} precision; engine='statevector' holds states in the memory of processors"
    larger = _larger_pool(card, profile, terms, pool, limits, 2 * power(pool.ranks))
    return f"{hint}; or a pool {larger}" if larger else hint


def _larger_pool(
    card: EngineCard,
    profile: Profile,
    terms: TaskOptions,
    pool: PoolSpec,
    limits: ClusterLimits,
    least: int,
) -> str:
    """Return the description of a pool on the same nodes whose workers have `least` ranks or more
    and hold the states; "" if there can be none."""
    if "gradient" in terms.outputs:
        return ""
    gpu, rooms = smallest_gpu(pool, limits), [NodeResources.of(node) for node in nodes_of(limits)]
    ranks = least
    while ranks <= limits.max_ranks:
        need = ResourceRequest(ranks, gpus=1, nodes=pool.nodes)
        if not isinstance(place(need, rooms), Placement):
            return ""
        if gpu is None or _fits(card, profile, terms, gpu, ranks):
            count = "two" if ranks == 2 else str(ranks)
            return f"with ranks={ranks} on {count} GPUs: NAME:engine={card.name},ranks={ranks}"
        ranks *= 2
    return ""


def _narrowed(profile: Profile, width: int) -> Profile:
    return msgspec.structs.replace(profile, num_qubits=width)
