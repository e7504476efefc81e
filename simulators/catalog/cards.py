"""Engine cards, those of the engines of calls included."""

from __future__ import annotations

import functools
import importlib.util
import math
from collections.abc import Callable
from typing import Literal

import msgspec

from simulators.catalog import costs
from simulators.catalog.costs import BASE_BYTES, CostModel, CostQuery, FixedMemoryCost
from simulators.circuit.analysis.profile import Profile

# Engine cards: capabilities and costs of an engine, readable without importing it.
#
# Invariant: pure and light (no numpy, no numba), so that the service decides with it.

NoiseKind = Literal["kraus", "leakage", "pauli", "quasistatic", "readout"]
# Pools that run an engine: those without a named engine; those that name it; those that name it and
# have GPUs, one a worker; the pool of one external device, one task at a time; pools that name a
# program too. Engines that run no circuits: `calls` as `default`; `functions` as `named`, for tasks
# of the environment's own user alone.
PoolKind = Literal["default", "named", "gpu", "device", "program", "calls", "functions"]
# Amplitudes; Clifford circuits only; memory and time that grow with gates that are no Clifford
# gates, and not with width; with entanglement, and not with width.
Method = Literal["dense", "clifford", "near_clifford", "tensor_network"]
# Runs the light cone of the outputs, component by component; with noise, only if `noisy`.
LightCone = Literal["unused", "ideal", "noisy"]
Options = tuple[tuple[str, int | float], ...]  # names and values of an engine's own options


def _no_objection(_profile: Profile) -> str:
    return ""


class EngineOption(msgspec.Struct, frozen=True):
    """One setting that an engine has in addition to the common ones."""

    name: str
    default: int | float
    low: int | float
    high: int | float
    text: str
    noise: frozenset[NoiseKind] = frozenset()  # more kinds that are accepted where it is not 0
    conditional: bool = False  # where it is not 0, noise under a condition is accepted too

    def problem(self, value: object) -> str:
        """Fault of a value; "" if it has none."""
        full = isinstance(self.default, int)
        fits = isinstance(value, int) if full else isinstance(value, int | float)
        if fits and not isinstance(value, bool) and self.low <= value <= self.high:  # type: ignore[operator]
            return ""
        kind = "a whole number" if full else "a number"
        return f"option {self.name} = {value!r} is not {kind} from {self.low} to {self.high}"


class Control(msgspec.Struct, frozen=True):
    """Control flow that an engine runs."""

    dynamic: bool = False  # mid-circuit measurement, reset, if
    conditions: bool = True  # if; without it, of `dynamic` the others alone
    loops: bool = False  # while, for, break, continue
    switches: bool = False  # switch
    variables: bool = False  # store
    parts: bool = False  # runs a circuit in parts and keeps the state between them


class NoiseSupport(msgspec.Struct, frozen=True):
    kinds: frozenset[NoiseKind] = frozenset()  # accepted kinds; others are refused
    dynamic: bool = True  # in dynamic circuits
    conditional: bool = True  # of operations under a condition
    expectation: bool = True  # expectation values of circuits with noise
    # Exact distributions and values of circuits with noise, or values with a stated error.
    exact: bool = False


class Parallelism(msgspec.Struct, frozen=True):
    """Threads and ranks of one run."""

    threads: bool = False  # more slots make a wide circuit faster
    resizable: bool = False  # a run reads `RunControl.threads` between passes
    ranks: bool = False  # runs over MPI ranks
    divides_state: bool = True  # among a power of two of them; else each has the whole state


class Package(msgspec.Struct, frozen=True):
    """Modules that an engine imports, and the command that installs missing ones."""

    modules: tuple[str, ...] = ("numba",)
    install: str = "pip install simenv"

    @property
    def missing(self) -> str:
        """Command that installs missing modules; "" if there are none."""
        return "" if _installed(self.modules) else self.install


class AutoChoice(msgspec.Struct, frozen=True):
    """Choice of an engine by `auto`.

    `rank(profile, num_qubits)`: its rank among the engines that can run a program; `auto` takes the
    lowest. `num_qubits`: width of the state after the light cone of the outputs is taken.
    `objection(profile)`: reason why `auto` leaves a program to other engines although this one may
    be able to run it; "" if there is none.
    """

    rank: Callable[[Profile, int], int]
    objection: Callable[[Profile], str] = _no_objection
    reason: Callable[[Profile], str] | None = None  # to choose it for a program; None: its summary
    options: Options = ()  # if none are given
    only_noise: bool = False  # considered only for circuits with noise
    # Times which others may take for it to be chosen: above 1 if its results have an error.
    advantage: float = 1.0


class Kernels(msgspec.Struct, frozen=True):
    """Groups of kernels that a worker loads."""

    start: tuple[str, ...] = ()  # before a first task
    later: tuple[str, ...] = ()  # when it is idle; with ranks, before a first task


class EngineCard(msgspec.Struct, frozen=True):
    """One engine as routing sees it."""

    name: str
    module: str  # module and class, "module:Class"; "": the host of the engines has one
    outputs: tuple[str, ...]
    max_qubits: int  # limit independent of memory
    summary: str
    costs: CostModel
    package: Package = Package()
    precisions: tuple[str, ...] = ("double", "single")
    reproducible: bool = False  # the same bits on every machine and version
    pool: PoolKind = "default"
    control: Control = Control()
    noise: NoiseSupport = NoiseSupport()
    parallel: Parallelism = Parallelism()
    auto: AutoChoice | None = None  # None: runs only if it is named
    options: tuple[EngineOption, ...] = ()
    method: Method = "dense"
    light_cone: LightCone = "unused"
    gate_qubits: int = 0  # widest gate; 0: no limit
    dense_qubits: int = 0  # statevectors and distributions of more qubits are refused; 0: never
    kernels: Kernels = Kernels()

    @property
    def in_default_pool(self) -> bool:
        """True if pools without a named engine run it."""
        return self.pool in ("default", "calls")

    @property
    def calls(self) -> bool:
        """True if it calls functions and runs no circuits."""
        return self.pool in ("calls", "functions")

    @property
    def install_hint(self) -> str:
        """ "" if the engine can be used here, else the install command."""
        return self.package.missing

    def ranks_used(self, num_qubits: int, ranks: int) -> int:
        """Return the number of the given ranks that run a circuit."""
        if not self.parallel.ranks:
            return 1
        return costs.ranks_used(num_qubits, ranks) if self.parallel.divides_state else ranks

    def effective_profile(self, profile: Profile, outputs: tuple[str, ...]) -> Profile:
        """Profile of the part of a program that it runs."""
        kept, noise = profile.kept, profile.noise
        if self.light_cone == "unused":
            return profile
        if noise is not None and noise.num_qubits:
            width = noise.num_qubits
            sampled = set(outputs) <= {"counts", "memory"}
            if self.light_cone == "noisy" and sampled and not profile.mid_circuit:
                width = noise.widest or width
            if self.light_cone == "noisy":  # flags of leaked qubits are qubits of its state
                width += min(width, noise.flags)
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
        return self.noise.kinds.union(*(option.noise for option in switched))

    def has_conditional_noise(self, options: Options) -> bool:
        """Return whether it accepts noise of operations under a condition with these options."""
        switched = (o for o in self.options if o.conditional and self.value(options, o.name))
        return self.noise.conditional or any(switched)

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
        return self.costs.memory_bytes(profile, CostQuery(precision, outputs))

    def least_memory_bytes(self, profile: Profile, precision: str = "double") -> int:
        return self.costs.least_memory_bytes(profile, CostQuery(precision))

    def seconds(self, profile: Profile, shots: int, slots: int = 1) -> float:
        """Expected time of one binding on `slots` threads."""
        return self.costs.seconds(profile, CostQuery(shots=shots), slots)

    def max_qubits_in(self, memory_bytes: int, precision: str = "double") -> int:
        """Largest width whose state fits into this memory of the host."""
        if self.pool == "gpu":  # states are in the device's memory, which the engine checks
            return self.max_qubits
        for width in range(1, self.max_qubits + 1):
            if (
                BASE_BYTES + costs.state_bytes(width, precision) + costs.norm_bytes(width)
                > memory_bytes
            ):
                return width - 1
        return self.max_qubits


@functools.lru_cache(maxsize=64)
def _installed(modules: tuple[str, ...]) -> bool:
    return all(importlib.util.find_spec(name) is not None for name in modules)


# Cards and cost models of the engines that run calls in place of circuits.


class CallCost(FixedMemoryCost, frozen=True):
    """Cost of function calls: fixed memory, and a fixed time for each operation of the profile. The
    cost of a function is not known before; the scheduler corrects the time as it learns."""

    base_bytes: int
    operation_s: float
    entry_bytes: int = 0  # of a compiler's table, whose entries `gates_2q` counts
    entry_s: float = 0.0

    def memory_bytes(self, profile: Profile, _ask: CostQuery) -> int:
        """Memory of libraries, arguments and results, as a rough estimate."""
        return self.base_bytes + self.entry_bytes * profile.gates_2q

    def seconds(self, profile: Profile, _ask: CostQuery, _slots: int) -> float:
        """Expected time; a call uses one slot."""
        return max(1, profile.operations) * self.operation_s + self.entry_s * profile.gates_2q


class DetectionCost(FixedMemoryCost, frozen=True):
    """Cost of sampling detectors in Pauli frames and of matching: `num_clbits` counts the
    detectors, `gates_2q` the operations that get the noise of a device."""

    base_bytes: int = 4 * BASE_BYTES  # the text, the parsed circuit, and the largest result
    detector_bytes: int = 4_096  # for its errors in the decoder, and a block's events
    qubit_bytes: int = 2_048  # frames of a block
    call_s: float = 5e-3
    op_s: float = 5e-6  # to parse, and to analyse for the decoder
    frame_s: float = 2e-11  # one operation in one shot
    decode_s: float = 5e-8  # one detector in one shot
    device_bytes: int = 4_096  # an operation in native gates, with the text of its noise
    device_s: float = 6e-5

    def memory_bytes(self, profile: Profile, _ask: CostQuery) -> int:
        """Memory of one block: blocks of shots run one after the other."""
        frames = self.qubit_bytes * profile.num_qubits
        noise = self.device_bytes * profile.gates_2q
        return self.base_bytes + frames + noise + self.detector_bytes * profile.num_clbits

    def seconds(self, profile: Profile, ask: CostQuery, _slots: int) -> float:
        """Expected time: one analysis; then frames and matching by shots."""
        shot = profile.operations * self.frame_s + profile.num_clbits * self.decode_s
        analysis = profile.operations * self.op_s + profile.gates_2q * self.device_s
        return self.call_s + analysis + ask.shots * shot


_WINDOW_STEPS = 6  # one, two and three
_LONGEST_NS = 64.0  # window
_WINDOW_ERROR = 6.5e-6  # of an atom, relative to (rate * length)**5
_JUMP_WINDOWS, _FIRST_WINDOWS = 1.8, 2.4  # beside each jump of the drive, and at the beginning


def pulse_steps(
    atoms: int, duration_ns: int, rate_rad_us: float, jumps: int, tolerance: float
) -> int:
    """Return the expected steps of one evolution of atoms. `tolerance`: of 1 - fidelity;
    `rate_rad_us`, `jumps`: of the drive (`simenv.client.submission.sequence_steps`), which has the
    form and the sources. Windows of length h have an error of (rate h)**5, and share the root of
    the tolerance by their lengths. Fitted to 600 random sequences; `python -m bench run
    pulse_forecast` compares others."""
    duration_us = 1e-3 * duration_ns
    allowed: float = math.sqrt(tolerance) / (_WINDOW_ERROR * atoms**1.13 * duration_us)
    by_error: float = rate_rad_us**1.25 * allowed**-0.25
    windows = duration_us * max(by_error, 1e3 / _LONGEST_NS)
    windows += _JUMP_WINDOWS * jumps + _FIRST_WINDOWS
    return math.ceil(min(_WINDOW_STEPS * windows, 1e15))


class PulseCost(FixedMemoryCost, frozen=True):
    """Cost of the evolution of atoms under pulses: `operations` counts nanoseconds, `gates_1q`
    steps of one trajectory (`pulse_steps`), `gates_2q` trajectories."""

    base_bytes: int = 4 * BASE_BYTES  # libraries, and the samples
    amplitude_bytes: int = 7 * 16  # four states, amplitudes, and a product with the Hamiltonian
    call_s: float = 0.05
    step_s: float = 1e-5
    amplitude_s: float = 5e-9

    def memory_bytes(self, profile: Profile, _ask: CostQuery) -> int:
        """Memory of one trajectory: they run one after the other."""
        return self.base_bytes + (self.amplitude_bytes << profile.num_qubits)

    def seconds(self, profile: Profile, _ask: CostQuery, _slots: int) -> float:
        """Expected time of all trajectories."""
        steps = profile.gates_1q * max(1, profile.gates_2q)
        return self.call_s + steps * (self.step_s + self.amplitude_s * 2.0**profile.num_qubits)


CALL_CARDS: tuple[EngineCard, ...] = (
    EngineCard(
        name="transpiler", module="", outputs=("value",), max_qubits=0,
        summary="compiles circuits for devices, by Qiskit's transpiler; runs none",
        costs=CallCost(4 * BASE_BYTES, 0.02, 1_200, 5e-5), package=Package(("qiskit",)),
        precisions=("double",), reproducible=True, pool="calls",
    ),
    EngineCard(
        name="detectors", module="", outputs=("value",), max_qubits=65_535,
        summary="samples detectors and observables of stim's circuits, and decodes them",
        costs=DetectionCost(), package=Package(("stim",), "pip install 'simenv[qec]'"),
        precisions=("double",), pool="calls",
    ),
    EngineCard(
        name="rydberg", module="", outputs=("value",), max_qubits=28,
        summary="evolves neutral atoms under pulse sequences of Pulser, with a measured error",
        costs=PulseCost(), package=Package(("pulser",), "pip install 'simenv[analog]'"),
        precisions=("double",), pool="calls", kernels=Kernels(later=("rydberg",)),
        auto=AutoChoice(lambda _profile, _width: 0),
    ),
    EngineCard(
        name="functions", module="", outputs=("value",), max_qubits=0,
        summary="calls Python functions of the environment's own user, and of nobody else",
        costs=CallCost(4 * BASE_BYTES, 0.02),
        package=Package(("cloudpickle",), "pip install 'simenv[functions]'"),
        precisions=("double",), pool="functions",
    ),
)  # fmt: skip
