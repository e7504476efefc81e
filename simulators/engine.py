"""Engine protocol: a circuit becomes a plan once, and a plan runs for many bindings and seeds.

A plan depends on the circuit's structure, never on parameter values, so a caller may cache it by
structure. A run is a function of (circuit, bindings, shots, seed, outputs, precision) and the
engine's own settings: results are the same bits for any number of threads. One instance is used by
one thread at a time.

Seed contract. The randomness of shot s of binding b is Philox 4x64-10 with key (seed, b): the same
doubles as numpy's `Generator(Philox(key=[seed, b], counter=[0, draw, 0, 0])).random(shots)[s]`. The
joint sampling of the terminal measurements is draw 0. A measurement or reset at operation k that is
not terminal is draw 1 + k; in later iterations of loops `rng.draw_number` gives the draw. Sampled
term t of the observables, counted over all observables, is draw 2**32 + t. An engine may drop
operations outside the light cone of the outputs, and run the connected components of a circuit
separately (`circuit.passes`). Operations keep their numbers, and a measurement stays terminal. Each
component then has a joint sampling of its own: with more than one component it is draw 1 + k, where
k is the component's first terminal measurement. Parts of a circuit (`CircuitParts`) are run once:
all their measurements and resets have the randomness of shot 0 of binding 0, and none is terminal.
The operations after the parts are run for each shot, from the state after the last part. Engines
that use a library's random numbers run fixed blocks of shots, each with its own seed (`rng`).
"""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import msgspec
import numpy as np
from numpy.typing import NDArray

from simulators.circuit.ir import Circuit
from simulators.circuit.noise import NoiseProgram
from simulators.control import RunControl
from simulators.results import EngineResult

OUTPUTS = (
    *("counts", "probabilities", "statevector", "expectation", "gradient", "memory"),
    "amplitudes",
)
SAMPLED = frozenset({"counts", "memory"})  # outputs made of the classical records of the shots
PURE = ("statevector", "amplitudes")  # outputs of a pure final state


class PauliSum(msgspec.Struct, frozen=True):
    """A real-weighted sum of Pauli strings. Qubit 0 is the last character of a label."""

    labels: tuple[str, ...]
    coefficients: NDArray[np.float64]  # [len(labels)]


class CircuitParts(msgspec.Struct, frozen=True):
    """Leading parts of a circuit, each run once for all shots; see `statevector.parts`."""

    ends: tuple[int, ...]  # ascending, within the operations: part k ends before operation ends[k]
    keep_s: float = 0.0  # lifetime of the state after the last part, for later runs; 0: not kept
    # Clbits after each of the first parts in an earlier run, clbit 0 in bit 0 of byte 0: a run with
    # other clbits fails.
    outcomes: tuple[bytes, ...] = ()


class RunOptions(msgspec.Struct, frozen=True):
    """Limits and settings of a run; `precision` and `settings` alone may change results."""

    precision: str = "double"  # double: complex128, single: complex64
    threads: int = 1
    max_branches: int = 16_384  # states held at once for a dynamic circuit
    max_steps: int = 10**7  # executed operations in all branches together
    memory_bytes: int = 0  # limit of the states of a dynamic circuit; 0: a quarter of the machine's
    settings: tuple[tuple[str, int | float], ...] = ()  # the engine's own: see its card
    checkpoint_dir: str = ""  # directory owned by this run; empty: no checkpoints
    checkpoint_every_s: float = 600.0
    parts: CircuitParts | None = None

    @property
    def dtype(self) -> str:
        """numpy's type of an amplitude."""
        return "complex128" if self.precision == "double" else "complex64"


class Request(msgspec.Struct, frozen=True):
    """Outputs to compute, once for each row of `bindings`."""

    shots: int  # 0: exact, no sampling
    seed: int  # unsigned 64-bit
    outputs: tuple[str, ...] = ("counts",)
    observables: tuple[PauliSum, ...] = ()  # for the output "expectation"
    bindings: NDArray[np.float64] | None = None  # [K, num_slots]; None: one binding, no slots
    binding: int = 0  # index of row 0 in the caller's whole sweep: part of the random key
    # uint8 [strings, qubits], for the output "amplitudes": bit of qubit q in column q
    amplitudes: NDArray[np.uint8] | None = None


class EngineContext(msgspec.Struct, frozen=True):
    """Resources that an engine may be given at its creation; its card states which it takes."""

    comm: Any = None  # an mpi4py communicator, for cards whose runs have ranks
    backend: Any = None  # a Qiskit BackendV2, for cards of the pool "device"
    program: Any = None  # a `simulators.external.engine.Program`, for those of "program"


class Plan(Protocol):
    """Prepared structure; opaque to all but the engine that made it."""

    @property
    def memory_bytes(self) -> int:
        """Memory of a cached plan, bytes."""


class Engine(Protocol):
    """Simulation method. Takes only circuits that `admission.validation_error` admits."""

    @property
    def name(self) -> str:
        """Name of its card."""

    def worth_caching(self, circuit: Circuit) -> bool:
        """Return False if `plan` costs less than a cache lookup."""

    def plan(self, circuit: Circuit, noise: NoiseProgram | None, options: RunOptions) -> Plan:
        """Prepare the structure of `circuit`. Raises Unsupported for a circuit that it cannot
        run."""

    def run(
        self,
        plan: Plan,
        circuit: Circuit,
        request: Request,
        options: RunOptions,
        control: RunControl,
    ) -> EngineResult:
        """Run `circuit`, whose structure is that of `plan`. Raises subclasses of EngineError."""

    def warm_up(self) -> None:
        """Load and compile everything that a first task would have to wait for."""


@runtime_checkable
class DistributedEngine(Protocol):
    """Engine over MPI ranks: `run` returns a result in the root rank and None in the others,
    and raises the same error in all ranks."""

    def close(self) -> None:
        """Free the communicators. All ranks call it, once the engine is not used any more."""


class StateCache(Protocol):
    """States that an engine keeps between runs."""

    def limit(self, bound_bytes: int) -> None:
        """Set the limit of kept states, in bytes."""

    def expire(self) -> float:
        """Drop the expired states; return the seconds until the next expiry (inf: none)."""


@runtime_checkable
class PartsEngine(Protocol):
    """Engine that runs `CircuitParts`; its card states it too."""

    kept_states: StateCache


@runtime_checkable
class FastCounts(Protocol):
    """Engine with a fast path for many small circuits: counts in one call, without a plan, a
    request and options."""

    def fast_counts(
        self, circuit: Circuit, shots: int, seed: int, binding: int, control: RunControl
    ) -> EngineResult | None:
        """Counts as `run` gives them, for a circuit without free parameters and with default
        options; None if `run` must be called."""
