"""Engine cards: capabilities and costs of an engine, readable without importing it.

Invariant: pure and light (no numpy, no numba), so that the service decides with it.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable
from typing import Literal

import msgspec

from simulators.catalog.costs import BASE_BYTES, CostModel, CostQuery, norm_bytes, state_bytes
from simulators.circuit.analysis.profile import Profile

NoiseKind = Literal["kraus", "pauli", "readout"]
AutoObjection = Callable[[Profile], str]  # see `EngineCard.auto_objection`
AutoReason = Callable[[Profile], str]  # reason to choose an engine for a program
AutoRank = Callable[[Profile, int], int]  # see `EngineCard.auto_rank`
Options = tuple[tuple[str, int | float], ...]  # names and values of an engine's own options


class EngineOption(msgspec.Struct, frozen=True):
    """One setting that an engine has in addition to the common ones."""

    name: str
    default: int | float
    low: int | float
    high: int | float
    text: str
    noise: frozenset[NoiseKind] = frozenset()  # more kinds that are accepted where it is not 0

    def problem(self, value: object) -> str:
        """Fault of a value; "" if it has none."""
        full = isinstance(self.default, int)
        fits = isinstance(value, int) if full else isinstance(value, int | float)
        if fits and not isinstance(value, bool) and self.low <= value <= self.high:  # type: ignore[operator]
            return ""
        kind = "a whole number" if full else "a number"
        return f"option {self.name} = {value!r} is not {kind} from {self.low} to {self.high}"


class EngineCard(msgspec.Struct, frozen=True):
    """One engine as routing sees it.

    `auto_rank(profile, num_qubits)`: its rank among the engines that can run a program; `auto`
    takes the lowest. `num_qubits`: width of the state after the light cone of the outputs is taken.
    `auto_objection(profile)`: reason why `auto` leaves a program to other engines although this one
    may be able to run it; "" if there is none.
    """

    name: str
    module: str  # module of its class; "": the host of the engines has one
    outputs: tuple[str, ...]
    dynamic: bool  # mid-circuit measurement, reset, if
    reproducible: bool  # the same bits on every machine and version
    precisions: tuple[str, ...]
    max_qubits: int  # limit independent of memory
    needs: tuple[str, ...]  # modules to be installed
    install: str  # command that installs missing modules
    summary: str
    costs: CostModel
    in_default_pool: bool = True  # run by pools without a named engine
    clifford: bool = False  # runs Clifford circuits only
    loops: bool = True  # while, for, switch, break, continue
    variables: bool = True  # store
    gate_qubits: int = 0  # widest gate; 0: no limit
    threads: bool = True  # more slots make a wide circuit faster
    resizable: bool = False  # a run reads `RunControl.threads` between passes
    uses_light_cone: bool = False  # runs the light cone of the outputs, component by component
    noisy_components: bool = False  # also for counts of a circuit with noise
    ranks: bool = False  # runs over MPI ranks, any power of two of them
    is_device: bool = False  # holds an external device: a pool of its own, one task at a time
    has_program: bool = False  # starts a program that its pool names
    calls: bool = False  # calls functions and runs no circuits
    owner_only: bool = False  # runs tasks of the environment's own user only
    dense_qubits: int = 0  # statevectors and distributions of more qubits are refused; 0: never
    options: tuple[EngineOption, ...] = ()
    noise: frozenset[NoiseKind] = frozenset()  # accepted kinds of noise; others are refused
    dynamic_noise: bool = True  # accepts noise in dynamic circuits
    conditional_noise: bool = True  # accepts noise of operations under a condition
    noisy_expectation: bool = True  # expectation values of circuits with noise
    exact_noise: bool = False  # exact distributions and values of circuits with noise
    only_noise: bool = False  # `auto` considers it only for circuits with noise
    keeps_states: bool = False  # runs a circuit in parts and keeps the state between them
    gpus: bool = False  # runs on GPUs; each worker gets one
    auto_rank: AutoRank | None = None  # None: runs only if it is named
    auto_objection: AutoObjection | None = None
    auto_reason: AutoReason | None = None  # None: its summary
    auto_options: Options = ()  # options if `auto` chose it and none are given
    tensor_network: bool = False  # memory and time grow with entanglement, not with width
    start_kernels: tuple[str, ...] = ()  # kernel groups to load before a first task
    later_kernels: tuple[str, ...] = ()  # for an idle worker; with ranks, before a first task

    @property
    def automatic(self) -> bool:
        """True if `auto` may choose it."""
        return self.auto_rank is not None

    @property
    def install_hint(self) -> str:
        """ "" if the engine can be used here, else the install command."""
        return "" if _installed(self.needs) else self.install

    def effective_profile(self, profile: Profile, outputs: tuple[str, ...]) -> Profile:
        """Profile of the part of a program that it runs."""
        kept, noise = profile.kept, profile.noise
        if not self.uses_light_cone:
            return profile
        if noise is not None and noise.num_qubits:
            width = noise.num_qubits
            sampled = set(outputs) <= {"counts", "memory"}
            if self.noisy_components and sampled and not profile.mid_circuit:
                width = noise.widest or width
            profile = msgspec.structs.replace(profile, num_qubits=width)
            if kept is not None:
                kept = msgspec.structs.replace(kept, widest=width, num_qubits=width)
        if kept is None:
            return profile
        return msgspec.structs.replace(
            profile,
            num_qubits=kept.num_qubits if "probabilities" in outputs else kept.widest,
            operations=kept.operations,
            gates_1q=kept.gates_1q,
            gates_2q=kept.gates_2q,
            gates_many=kept.gates_many,
        )

    def value(self, options: Options, name: str) -> int | float:
        """Value of one of its options, given or default."""
        return dict(options).get(name, next(o.default for o in self.options if o.name == name))

    def noise_with(self, options: Options) -> frozenset[NoiseKind]:
        """Kinds of noise that it accepts with these options."""
        switched = (o for o in self.options if o.noise and self.value(options, o.name))
        return self.noise.union(*(option.noise for option in switched))

    def option_problem(self, options: Options) -> str:
        """Fault of options for this engine; "" if they have none."""
        declared = {option.name: option for option in self.options}
        for name, value in options:
            if name not in declared:
                return f"engine {self.name!r} has no option {name[:64]!r}"
            if text := declared[name].problem(value):
                return f"engine {self.name!r}: {text}"
        return ""

    def memory_bytes(
        self, profile: Profile, precision: str = "double", outputs: tuple[str, ...] = ("counts",)
    ) -> int:
        """Peak memory of one run."""
        return self.costs.memory_bytes(profile, CostQuery(precision, outputs))

    def least_memory_bytes(self, profile: Profile, precision: str = "double") -> int:
        """Minimum memory of a run."""
        return self.costs.least_memory_bytes(profile, CostQuery(precision))

    def seconds(self, profile: Profile, shots: int, slots: int = 1) -> float:
        """Expected time of one binding on `slots` threads."""
        return self.costs.seconds(profile, CostQuery(shots=shots), slots)

    def max_qubits_in(self, memory_bytes: int, precision: str = "double") -> int:
        """Largest width whose state fits into this memory of the host."""
        if self.gpus:  # states are in the device's memory, which the engine checks
            return self.max_qubits
        for width in range(1, self.max_qubits + 1):
            if BASE_BYTES + state_bytes(width, precision) + norm_bytes(width) > memory_bytes:
                return width - 1
        return self.max_qubits


@functools.lru_cache(maxsize=64)
def _installed(modules: tuple[str, ...]) -> bool:
    return all(importlib.util.find_spec(name) is not None for name in modules)
