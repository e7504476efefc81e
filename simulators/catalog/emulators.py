"""Cards of other packages' emulators of neutral atoms, which run pulse sequences by adapters.

Their profile is that of pulse sequences: `num_qubits` counts atoms, `operations` nanoseconds,
`gates_2q` trajectories of the noise. None of them is part of `all`: see pyproject.toml.
"""

from __future__ import annotations

import math

from simulators.catalog.cards import AutoChoice, EngineCard, EngineOption, Package, Parallelism
from simulators.catalog.costs import BASE_BYTES, CostQuery, FixedMemoryCost
from simulators.circuit.analysis.profile import Profile

BOND = 256  # default of the largest bond of emu-mps; its own is 1024
_STEP_NS = 10  # default length of a step


class AtomStateCost(FixedMemoryCost, frozen=True):
    """Cost of an emulator that holds all amplitudes. Times are CPU times in one thread of chains of
    2 to 16 atoms with a sweep through resonance, 6 and 9 um apart, for 0.2 and 1 us: emu-sv 2.10.1
    with PyTorch 2.14, pulser-simulation 1.9.1 with QuTiP 5.3. Without `call_s`, which is that of
    this project, each is within a factor of 2.1 of runs of emu-sv, of 2.7 of those of QuTiP."""

    base_bytes: int = 8 * BASE_BYTES  # libraries
    amplitude_bytes: int = 32 * 16  # the state, and as many Krylov vectors as a step needs
    call_s: float = 0.1
    step_s: float = 3.5e-3
    amplitude_s: float = 8e-7  # of a step

    def memory_bytes(self, profile: Profile, _ask: CostQuery) -> int:
        """Memory of one trajectory: they run one after the other."""
        return self.base_bytes + (self.amplitude_bytes << profile.num_qubits)

    def seconds(self, profile: Profile, _ask: CostQuery, _slots: int) -> float:
        """Expected time at steps of the default length."""
        steps = profile.operations / _STEP_NS * max(1, profile.gates_2q)
        return self.call_s + steps * (self.step_s + self.amplitude_s * 2.0**profile.num_qubits)


class AtomChainCost(FixedMemoryCost, frozen=True):
    """Cost of a matrix product state of atoms, evolved by TDVP; the memory is that of the largest
    bond, which most sequences do not reach. Times are CPU times in one thread of emu-mps 2.10.1 on
    chains of 4 to 14 atoms, 5 and 6 um apart, for 0.1 to 1 us, with bonds up to 6: 0.004 to 0.012 s
    for each atom and step, and 1.7 s before the first; forecasts are within a factor of 1.5. The
    time of an element is an estimate."""

    base_bytes: int = 12 * BASE_BYTES  # libraries
    krylov_vectors: int = 20  # of two sites
    call_s: float = 1.7
    atom_s: float = 8e-3  # of a step
    element_s: float = 2e-9

    def memory_bytes(self, profile: Profile, ask: CostQuery) -> int:
        """Memory of the tensors [bond, 2, bond], of the products with the Hamiltonian from both
        ends [bond, terms, bond], and of the Krylov vectors [bond, 4, bond]."""
        atoms, bond = profile.num_qubits, self._bond(profile, ask)
        terms = atoms // 2 + 2  # of all interactions across a cut
        elements = atoms * (2 + terms) + 4 * self.krylov_vectors
        return self.base_bytes + 16 * bond * bond * elements

    def seconds(self, profile: Profile, ask: CostQuery, _slots: int) -> float:
        """Expected time at steps of the default length, at the root of the largest bond."""
        steps = profile.operations / _STEP_NS * max(1, profile.gates_2q)
        grown = math.sqrt(self._bond(profile, ask)) ** 3
        return self.call_s + steps * profile.num_qubits * (self.atom_s + self.element_s * grown)

    def _bond(self, profile: Profile, ask: CostQuery) -> int:
        return min(ask.bond or BOND, 1 << min(profile.num_qubits // 2, 20))


_STEP = EngineOption("dt", float(_STEP_NS), 0.1, 1_000.0, "length of a step in ns")
_THREADS = Parallelism(threads=True)
_INSTALL = "pip install 'simenv[emulators]'"

EMULATOR_CARDS: tuple[EngineCard, ...] = (
    EngineCard(
        name="emu-mps", module="", outputs=("value",), max_qubits=100,
        summary="evolves many atoms as a matrix product state, by Pasqal's emu-mps",
        costs=AtomChainCost(), package=Package(("pulser", "emu_mps"), _INSTALL),
        precisions=("double",), pool="calls", parallel=_THREADS, method="tensor_network",
        options=(
            _STEP,
            EngineOption("precision", 1e-5, 1e-10, 0.1, "what each truncation may cut off"),
            EngineOption("bond", BOND, 1, 2_048, "the largest bond that is kept"),
        ),
        auto=AutoChoice(lambda _profile, _width: 1),
    ),
    EngineCard(
        name="emu-sv", module="", outputs=("value",), max_qubits=25,
        summary="all amplitudes of atoms, by Pasqal's emu-sv",
        costs=AtomStateCost(), package=Package(("pulser", "emu_sv"), _INSTALL),
        precisions=("double",), pool="calls", parallel=_THREADS, options=(_STEP,),
    ),
    EngineCard(
        name="pulser-simulation", module="", outputs=("value",), max_qubits=14,
        summary="all amplitudes of atoms, by pulser-simulation over QuTiP",
        costs=AtomStateCost(base_bytes=4 * BASE_BYTES, step_s=5e-5, amplitude_s=8e-7),
        package=Package(("pulser", "pulser_simulation"), _INSTALL),
        precisions=("double",), pool="calls",
    ),
)  # fmt: skip
