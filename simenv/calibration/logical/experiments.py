"""Experiments of logical qubits as tasks: which circuits run on which patches, and their outcomes.

Invariant: all experiments of one request are submitted before the first result is waited for, so
that every worker of the pool decodes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec
import stim

from noise_models.build import build
from noise_models.calibration import CalibrationSnapshot
from simenv.calibration.logical import surface_code
from simenv.calibration.logical.cx_errors import GateFlips, cx_flips
from simenv.calibration.logical.error_rates import (
    MemoryCounts,
    MemoryRate,
    least_contrast,
    memory_rate,
)
from simenv.calibration.logical.surface_code import BASES, SurfaceCode
from simenv.errors import OptionError
from simulators.circuit.passes.attach_noise import NoiseAttachment
from simulators.errors import Unsupported
from simulators.stabilizer.device_circuit import DeviceCircuit, DeviceProgram
from simulators.stabilizer.device_gates import DeviceGates

if TYPE_CHECKING:
    from simenv.client.client import Client

LONG = 4  # rounds of the longer memory / distance; the shorter one has as many as the distance
CX_COUNTS = 3, 15  # CX of the two experiments whose difference has the errors of CX; odd
_AT_ONCE = 64  # tasks that wait in the queue


class PatchOn(msgspec.Struct, frozen=True, eq=False):
    """A chip, and the qubits of it that are those of a code's patch."""

    chip: CalibrationSnapshot
    qubits: tuple[int, ...]


def patch_of(chip: CalibrationSnapshot, code: SurfaceCode, number: int) -> PatchOn:
    """Return a patch of a chip that `patch_chip` made."""
    first = number * code.num_qubits
    return PatchOn(chip, tuple(range(first, first + code.num_qubits)))


class Experiment(msgspec.Struct, frozen=True, eq=False):
    """A circuit without noise, and its place on a chip."""

    circuit: stim.Circuit
    chip: CalibrationSnapshot
    qubits: tuple[int, ...]  # of the chip, for each qubit of the circuit
    decoder: str


class DecodedShots(msgspec.Struct, frozen=True):
    """Wrong predictions of each observable, and the time of one shot."""

    errors: tuple[int, ...]
    shots: int
    shot_ns: float

    def contrasts(self) -> tuple[float, ...]:
        """Return 1 - 2 p of each observable."""
        return tuple(1.0 - 2.0 * each / self.shots for each in self.errors)


Run = Callable[[Sequence[Experiment]], list[DecodedShots]]


class ClientRunner:
    """Runs experiments as tasks of an environment.

    The noise of the chip is attached here: the data of patches is that of no device which the
    environment knows.
    """

    def __init__(self, client: Client, shots: int, seed: int) -> None:
        self._client, self._shots, self._seed = client, shots, seed
        self._noise: dict[int, tuple[CalibrationSnapshot, DeviceGates, NoiseAttachment]] = {}
        self.experiments = 0

    def __call__(self, experiments: Sequence[Experiment]) -> list[DecodedShots]:
        """Return the outcomes, in order. Raises SimenvError."""
        results: list[DecodedShots] = []
        for first in range(0, len(experiments), _AT_ONCE):
            tasks: list[tuple[Any, float]] = []
            try:
                for each in experiments[first : first + _AT_ONCE]:
                    tasks.append(self._submit(each))
                for task, duration_ns in tasks:
                    found = task.result()
                    errors = tuple(int(each) for each in found.observable_errors)
                    results.append(DecodedShots(errors, found.shots, duration_ns))
            except BaseException:
                for task, _ in tasks:
                    if not task.done():
                        task.cancel()
                raise
        return results

    def _submit(self, experiment: Experiment) -> tuple[Any, float]:
        """Submit a circuit with its noise; return the task and the duration of a shot, ns."""
        self.experiments += 1
        noisy = self._with_noise(experiment)
        task = self._client.submit(
            noisy.circuit,
            decoder=experiment.decoder,
            shots=self._shots,
            seed=(self._seed + self.experiments) % 2**32,
            name="logical-qubits",
        )
        return task, noisy.duration_ns

    def _with_noise(self, experiment: Experiment) -> DeviceCircuit:
        chip = experiment.chip
        entry = self._noise.get(id(chip))
        if entry is None:
            entry = chip, DeviceGates(chip), NoiseAttachment(build(chip))
            self._noise[id(chip)] = entry
        _, gates, attachment = entry
        places = dict(enumerate(experiment.qubits))
        try:
            return DeviceProgram(experiment.circuit, gates, places).noisy(attachment)
        except Unsupported as error:
            text = f"rounds of the code on {chip.name}: {error.message}"
            raise OptionError(text, hint=error.hint) from error


class Memories(msgspec.Struct, frozen=True):
    """Short and long memory of each patch, by basis, and the time of a round."""

    counts: tuple[dict[str, tuple[MemoryCounts, MemoryCounts]], ...]  # by patch
    round_ns: float  # the longest of the patches

    def rates(self) -> list[dict[str, MemoryRate]]:
        """Return the rates of each patch; those of all patches together where a patch alone has
        too few errors."""
        together = self.pooled()
        each = [{b: memory_rate(*patch[b]) for b in BASES} for patch in self.counts]
        return [{b: r[b] if r[b].resolved else together[b] for b in BASES} for r in each]

    def pooled(self) -> dict[str, MemoryRate]:
        """Return the rates of all patches together."""
        return {
            b: memory_rate(
                *(MemoryCounts.pooled([patch[b][k] for patch in self.counts]) for k in (0, 1))
            )
            for b in BASES
        }


def memory_experiments(
    code: SurfaceCode, patches: Iterable[PatchOn], decoder: str
) -> list[Experiment]:
    """Return the memories of each patch: bases, and lengths within a basis, as `memories` reads
    them."""
    return [
        Experiment(surface_code.memory(code, basis, rounds), patch.chip, patch.qubits, decoder)
        for patch in patches
        for basis in BASES
        for rounds in (code.distance, LONG * code.distance)
    ]


def memories(code: SurfaceCode, outcomes: Sequence[DecodedShots]) -> Memories:
    """Return what the outcomes of `memory_experiments` say."""
    short, long = code.distance, LONG * code.distance
    counts, round_ns = [], 0.0
    for first in range(0, len(outcomes), 2 * len(BASES)):
        by_basis: dict[str, tuple[MemoryCounts, MemoryCounts]] = {}
        for number, basis in enumerate(BASES):
            a, b = outcomes[first + 2 * number : first + 2 * number + 2]
            by_basis[basis] = (
                MemoryCounts(short, a.errors[0], a.shots),
                MemoryCounts(long, b.errors[0], b.shots),
            )
            round_ns = max(round_ns, (b.shot_ns - a.shot_ns) / (long - short))
        counts.append(by_basis)
    return Memories(tuple(counts), round_ns)


def gate_layouts(distance: int) -> tuple[tuple[int, ...], ...]:
    """Return the rounds before the first CX and after each: one between CX, as the gate lasts."""
    return tuple((distance, *(1,) * (count - 1), distance) for count in CX_COUNTS)


def gate_experiments(
    code: SurfaceCode, pairs: Iterable[tuple[PatchOn, PatchOn]], decoder: str
) -> list[Experiment]:
    """Return CX from each first patch to the second one of the same chip, in product states of each
    basis, a few times and more often, as `measured_flips` reads them."""
    return [
        Experiment(
            surface_code.product_cx(code, basis, rounds),
            control.chip,
            control.qubits + target.qubits,
            decoder,
        )
        for control, target in pairs
        for basis in BASES
        for rounds in gate_layouts(code.distance)
    ]


def measured_flips(
    outcomes: Sequence[DecodedShots],
    pairs: Sequence[tuple[int, int]],
    rates: Sequence[Mapping[str, MemoryRate]],
    distance: int,
) -> list[dict[str, GateFlips]]:
    """Return the flips of CX on each pair from the outcomes of `gate_experiments`; `rates` by
    patch."""
    layouts, results, found = gate_layouts(distance), [], iter(outcomes)
    for control, target in pairs:
        flips: dict[str, GateFlips] = {}
        for basis in BASES:
            own = [next(found) for _ in layouts]
            ends = rates[control][basis], rates[target][basis]
            least = least_contrast(min(each.shots for each in own))
            measured = [each.contrasts() for each in own]
            flips[basis] = cx_flips(measured, basis, ends, layouts, least)
        results.append(flips)
    return results
