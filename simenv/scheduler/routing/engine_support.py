"""Support of a program by an engine, and memory of GPUs.

The snapshot has the facts that may change while the service runs: known hardware and closed pools.

Memory of the GPUs of a pool, and refusal of states that some of its workers could not hold. A
worker has any of its pool's GPUs, one for each rank, so the smallest one is the limit. Where the
memory of one is not known, as on other nodes, nothing is refused here: the engine compares a state
with its GPU.
"""

from __future__ import annotations

import msgspec

from launcher.base import Gpu
from launcher.placement import NodeResources, Placement, ResourceRequest, matches, place
from simenv.errors import InfeasibleError, OptionError, SimenvError
from simenv.model import DeviceInfo, DeviceKind, PoolSpec, TaskOptions
from simenv.model.options import VALUE
from simenv.model.pulses import PULSE_ENGINES
from simenv.scheduler.core import ClusterLimits, nodes_of
from simenv.text import size
from simulators import catalog
from simulators.catalog import CostQuery, EngineCard
from simulators.catalog.costs import (
    RESERVED_BYTES,
    GpuCost,
    NearCliffordCost,
    PepsCost,
    SweepCost,
    ranks_used,
    state_bytes,
    widest_state,
)
from simulators.circuit.analysis.profile import NoiseProfile, Profile

ANOTHER = "ask for another engine"
ELSEWHERE = f"{ANOTHER}: engine='auto' finds one"  # `engine_choice` checks whether it does


def unsupported_reason(
    card: EngineCard, profile: Profile, terms: TaskOptions
) -> SimenvError | None:
    """Return why the engine cannot run the program, regardless of memory; None if it can."""
    if card.install_hint:
        return OptionError(f"engine {card.name!r} is not installed here", hint=card.install_hint)
    problem = card.option_problem(terms.options)
    if problem:
        return OptionError(problem, hint=option_hint(card))
    missing = [output for output in terms.outputs if output not in card.outputs]
    if VALUE in missing:
        text = f"engine {card.name!r} runs circuits, no pulse sequences and no calls"
        return InfeasibleError(text, hint=ELSEWHERE)
    if card.calls and missing:
        kind = "pulse sequences" if card.name in PULSE_ENGINES else "calls"
        return InfeasibleError(f"engine {card.name!r} runs {kind}, no circuits", hint=ELSEWHERE)
    if missing:
        hint = f"it has: {', '.join(card.outputs)}"
        return InfeasibleError(f"engine {card.name!r} has no output {missing[0]!r}", hint=hint)
    if terms.parts is not None and not card.control.parts:
        text = f"engine {card.name!r} keeps no state between the parts of a circuit"
        return InfeasibleError(text, hint="engine='statevector' does, in a pool of simulators")
    lack = _lacks(card, profile, terms)
    if lack:
        return InfeasibleError(f"engine {card.name!r} {lack}", hint=ELSEWHERE)
    model = card.costs
    if isinstance(model, SweepCost | NearCliffordCost) and (text := model.refusal(profile)):
        return InfeasibleError(f"engine {card.name!r}: {text}", hint=ELSEWHERE)
    is_fixed = card.method == "clifford" or card.dense_qubits or card.calls
    if profile.num_qubits > card.max_qubits and is_fixed:
        text = f"engine {card.name!r} needs {profile.num_qubits} qubits; it takes {card.max_qubits}"
        return InfeasibleError(text, hint=ELSEWHERE)
    return None


def cost_query(card: EngineCard, terms: TaskOptions, shots: int = 0, ranks: int = 1) -> CostQuery:
    """Return the query for the cost model with these options; `ranks`: a power of two."""
    bond = 0
    if any(option.name == "bond" for option in card.options):
        bond = int(card.value(terms.options, "bond"))
    strings = len(terms.bit_strings)
    return CostQuery(terms.precision, terms.outputs, shots, bond, ranks, strings=strings)


def power(ranks: int) -> int:
    """The largest power of two that is not greater; 0 for 0."""
    return 1 << (ranks.bit_length() - 1) if ranks else 0


def expected_truncation(card: EngineCard, profile: Profile, terms: TaskOptions) -> float:
    """Return the largest weight of the state that a run may cut off, or the largest error of a
    Pauli string; 0.0: none, -1.0: unknown."""
    names = {option.name for option in card.options}
    if {"tolerance", "uncertified"} <= names:
        is_bounded = not card.value(terms.options, "uncertified")
        return float(card.value(terms.options, "tolerance")) if is_bounded else -1.0
    if not {"bond", "cutoff"} <= names:
        if {"bond", "tolerance"} <= names:  # a measured error, above which a run ends
            return float(card.value(terms.options, "tolerance"))
        return -1.0 if "bond" in names else 0.0
    settings = catalog.settings_of(card.name, terms.options, auto=terms.engine == "auto")
    bond, cutoff = (card.value(settings, name) for name in ("bond", "cutoff"))
    tolerance = card.value(settings, "tolerance") if "tolerance" in names else 1.0
    if isinstance(card.costs, PepsCost):  # what loops change has no bound
        return float(tolerance)
    tried = profile.trial is not None and profile.trial.done
    expected_bond = profile.trial.expected_bond if tried and profile.trial is not None else 0
    bounded = 0 <= profile.bond_bits < int(bond).bit_length()
    if bounded or 0 < expected_bond <= bond:
        splits = (profile.gates_2q + profile.gates_many) * max(1, 2 * profile.longest - 1)
        return min(cutoff * splits, tolerance)
    return tolerance if tolerance < 1.0 else -1.0


def option_hint(card: EngineCard) -> str:
    if not card.options:
        return f"engine {card.name!r} has no options"
    listed = [f"{option.name} ({option.text}; {option.default})" for option in card.options]
    return f"engine {card.name!r} has: {', '.join(listed)}"


def _lacks(card: EngineCard, profile: Profile, terms: TaskOptions) -> str:
    """Return the need of the program that the engine lacks; "" if there is none."""
    if terms.precision not in card.precisions:
        return f"has no precision {terms.precision!r}"
    if card.method == "clifford" and not profile.may_be_clifford:
        return f"runs Clifford circuits, and this program has {_non_clifford(profile)}"
    if profile.mid_circuit and not card.control.dynamic:
        return "has no measurements, resets or conditions before a program's end"
    if profile.conditions and not card.control.conditions:
        return "has no conditions on classical bits"
    if profile.loops and not card.control.loops:
        return "has no loops"
    if profile.switches and card.method == "clifford":  # its conditions are parities of clbits
        return "has no switch"
    if profile.variables and not card.control.variables:
        return "has no classical variables"
    if profile.stores and not card.control.variables:
        return "stores no values in classical bits"
    if card.gate_qubits and profile.widest > card.gate_qubits:
        return f"takes gates on at most {card.gate_qubits} qubits, not on {profile.widest}"
    if profile.noise is not None and (lack := _lacks_noise(card, profile.noise, terms)):
        return lack
    if profile.noise is not None and profile.mid_circuit and not card.noise.dynamic:
        return "has no noise in circuits that measure, reset or branch before their end"
    if card.dense_qubits and profile.num_qubits > card.dense_qubits:
        unsupported = [o for o in ("statevector", "probabilities") if o in terms.outputs]
        if unsupported:
            return f"gives {unsupported[0]} of at most {card.dense_qubits} qubits"
    return ""


def _non_clifford(profile: Profile) -> str:
    """Return the number of non-Clifford gates and their cost, as text. A sum over stabilizer states
    has about 2^(0.228 k) terms for k T gates (Bravyi et al., Quantum 3, 181, 2019), without the
    error of its sampling."""
    count = profile.non_clifford
    if not count:
        return "other gates or angles"
    gates = "1 other gate" if count == 1 else f"{count} other gates"
    width = profile.num_qubits
    state = size(state_bytes(width)) if width <= 50 else f"2^{width} amplitudes"
    return (
        f"{gates}: as a sum of stabilizer states about"
        f" 2^{0.228 * count:.1f} terms if all are T gates, else more; as a statevector {state}"
    )


def takes_clifford_alone(engine: str) -> bool:
    """Return whether this is the name of an engine for Clifford circuits."""
    card = catalog.card(engine)
    return card is not None and card.method == "clifford"


def _lacks_noise(card: EngineCard, noise: NoiseProfile, terms: TaskOptions) -> str:
    """Return the need of the program's noise that the engine lacks; "" if there is none."""
    missing = sorted(noise.kinds - card.noise_with(terms.options))
    if missing:
        switches = [o.name for o in card.options if o.noise.issuperset(missing)]
        without = f" without its option {switches[0]}=1" if switches else ""
        return f"has no {' and no '.join(missing)} noise{without}"
    if noise.conditional and not card.has_conditional_noise(terms.options):
        switches = [o.name for o in card.options if o.conditional]
        without = f" without its option {switches[0]}=1" if switches else ""
        return f"has no noise of operations under a condition{without}"
    if noise.kinds and not card.noise.expectation and "expectation" in terms.outputs:
        return "has no expectation values of a circuit with noise"
    if noise.kinds and not card.noise.exact and not (noise.shots and _is_sampled(terms)):
        return "samples noise by shots: it has no exact results of a circuit with noise"
    return ""


def _is_sampled(terms: TaskOptions) -> bool:
    return "probabilities" not in terms.outputs


class RoutingSnapshot(msgspec.Struct, frozen=True):
    """Known hardware, and pools that accept no program now (`closed`), with the reason."""

    devices: tuple[DeviceInfo, ...] = ()
    closed: tuple[tuple[str, str], ...] = ()

    def device(self, pool: str) -> DeviceInfo | None:
        """Return the hardware of a pool; None if it has none or has not described it yet."""
        return next((device for device in self.devices if device.name == pool), None)

    def closed_reason(self, pool: str) -> str:
        """Return why the pool accepts no programs; "" if it does."""
        return next((reason for name, reason in self.closed if name == pool), "")


EMPTY_SNAPSHOT = RoutingSnapshot()


def holds_hardware(pool: PoolSpec) -> bool:
    """Return whether the pool holds hardware. Only tasks that name the pool or prefer hardware go
    there."""
    card = catalog.card(pool.engine)
    return card is not None and card.pool == "device"


def runs_only_calls(pool: PoolSpec) -> bool:
    """Return whether the pool runs neither circuits nor pulse sequences."""
    card = catalog.card(pool.engine)
    return card is not None and card.calls and card.name not in PULSE_ENGINES


def kind_of(pool: PoolSpec) -> DeviceKind:
    if pool.device:
        return DeviceKind.EMULATED
    return DeviceKind.HARDWARE if holds_hardware(pool) else DeviceKind.IDEAL


def smallest_gpu(pool: PoolSpec, limits: ClusterLimits) -> Gpu | None:
    """Return the GPU with the least memory that a worker of the pool may have; None if unknown."""
    nodes = [node for node in nodes_of(limits) if matches(pool.nodes, NodeResources.of(node))]
    if any(len(node.gpu_details) < node.gpus for node in nodes):
        return None
    gpus = [gpu for node in nodes for gpu in node.gpu_details]
    if not gpus or not all(gpu.memory_bytes for gpu in gpus):
        return None
    return min(gpus, key=lambda gpu: gpu.memory_bytes)


class RankQuery(msgspec.Struct, frozen=True):
    """Program whose ranks on one engine in one pool are sought. `profile`: as the engine runs
    it."""

    card: EngineCard
    profile: Profile
    terms: TaskOptions
    pool: PoolSpec
    limits: ClusterLimits

    def cost_query(self, ranks: int = 1) -> CostQuery:
        """Return the query for the cost over so many ranks, a power of two."""
        return cost_query(self.card, self.terms, ranks=ranks)

    def narrowed(self, width: int) -> RankQuery:
        """Return the query for a program of this kind with `width` qubits."""
        profile = msgspec.structs.replace(self.profile, num_qubits=width)
        return msgspec.structs.replace(self, profile=profile)

    def with_precision(self, precision: str) -> RankQuery:
        terms = msgspec.structs.replace(self.terms, precision=precision)
        return msgspec.structs.replace(self, terms=terms)


def device_refusal(query: RankQuery) -> InfeasibleError | None:
    """Return why a program cannot run on the GPUs of a pool; None if it can."""
    card, pool, used = query.card, query.pool, power(query.pool.ranks)
    width = query.profile.num_qubits
    if "gradient" in query.terms.outputs and ranks_used(width, used) > 1:
        return InfeasibleError(
            f"engine {card.name!r} has no gradients over ranks, and workers of pool {pool.name!r} "
            f"have {pool.ranks}",
            hint="a pool of one rank: the two states of a gradient on one GPU; or another engine",
        )
    gpu = smallest_gpu(pool, query.limits) if isinstance(card.costs, GpuCost) else None
    if gpu is None or _fits(query, gpu, used):
        return None
    place = "a GPU" if used == 1 else f"each of {used} GPUs"
    return InfeasibleError(
        f"{width} qubits in {query.terms.precision} precision need"
        f" {size(_device_bytes(query, used))} on {place}; the smallest of pool {pool.name!r},"
        f" {gpu.model or gpu.uuid}, has {size(_usable_bytes(gpu))} for states",
        hint=_remedy(query, gpu),
    )


def too_few_gpus(query: RankQuery) -> InfeasibleError:
    """Return the refusal of several ranks in a pool whose workers have one rank, with one GPU."""
    ranks = query.terms.ranks
    hint = _larger_pool(query, power(ranks)) if query.card.parallel.ranks else ""
    return InfeasibleError(
        f"{ranks} ranks were asked for, and workers of pool {query.pool.name!r} have one, with a "
        "GPU",
        hint=f"start a pool {hint}" if hint else ELSEWHERE,
    )


def device_text(query: RankQuery, gpu: Gpu) -> str:
    """Return the memory that states take on a GPU, as text for the reason of a route."""
    if not isinstance(query.card.costs, GpuCost):
        return f"on {gpu.model or gpu.uuid}"
    memory = size(_device_bytes(query, power(query.pool.ranks)))
    return f"{memory} of {size(_usable_bytes(gpu))} on {gpu.model or gpu.uuid}"


def widest_on_gpus(card: EngineCard, pool: PoolSpec, limits: ClusterLimits) -> int:
    """Return the qubits of the widest state in double precision; the engine's limit if the memory
    is unknown, or if it holds no state."""
    gpu = smallest_gpu(pool, limits)
    if gpu is None or not isinstance(card.costs, GpuCost):
        return card.max_qubits
    divided = power(pool.ranks).bit_length() - 1  # qubits that stand in the rank's number
    return min(card.max_qubits, widest_state(gpu.memory_bytes, "double") + divided)


def _usable_bytes(gpu: Gpu) -> int:
    return max(0, gpu.memory_bytes - RESERVED_BYTES)


def _device_bytes(query: RankQuery, ranks: int) -> int:
    costs = query.card.costs
    assert isinstance(costs, GpuCost)
    return costs.device_bytes(query.profile, query.cost_query(ranks))


def _fits(query: RankQuery, gpu: Gpu, ranks: int) -> bool:
    return _device_bytes(query, ranks) <= _usable_bytes(gpu)


def _remedy(query: RankQuery, gpu: Gpu) -> str:
    """Return the hint for a program that is too wide for the GPUs of a pool, of which `gpu` is the
    smallest."""
    wanted, used = query.profile.num_qubits, power(query.pool.ranks)
    double, single = (
        next(
            width
            for width in range(wanted, -1, -1)
            if not width or _fits(query.with_precision(precision).narrowed(width), gpu, used)
        )
        for precision in ("double", "single")
    )
    hint = f"the widest that fits has {double} qubits, {single} in single precision"
    if query.terms.precision == "double" and single == wanted:
        hint = f"{hint}: this one fits with precision='single'"
    else:
        hint = f"{hint}; engine='statevector' holds states in the memory of processors"
    larger = _larger_pool(query, 2 * used)
    return f"{hint}; or a pool {larger}" if larger else hint


def _larger_pool(query: RankQuery, least: int) -> str:
    """Return the description of a pool on the same nodes whose workers have `least` ranks or more
    and hold the states; "" if there can be none."""
    if "gradient" in query.terms.outputs:
        return ""
    limits = query.limits
    gpu = smallest_gpu(query.pool, limits)
    rooms = [NodeResources.of(node) for node in nodes_of(limits)]
    ranks = least
    while ranks <= limits.max_ranks:
        need = ResourceRequest(ranks, gpus=1, nodes=query.pool.nodes)
        if not isinstance(place(need, rooms), Placement):
            return ""
        if gpu is None or _fits(query, gpu, ranks):
            count = "two" if ranks == 2 else str(ranks)
            name = query.card.name
            return f"with ranks={ranks} on {count} GPUs: NAME:engine={name},ranks={ranks}"
        ranks *= 2
    return ""
