"""Circuit cutting as a stage: one circuit over several devices, each with fewer qubits.

qiskit-addon-cutting cuts the circuit and combines the expectation values: a cut gate or wire is
replaced by a quasi-probability sum of local operations (Mitarai and Fujii, New J. Phys. 23, 023021;
Peng et al., Phys. Rev. Lett. 125, 150504). The cost is the sampling overhead, a factor in the
number of shots that grows exponentially with the number of cuts.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from simenv.client.results.result import Result
from simenv.client.streams.stages import CircuitPart, SplitCircuit
from simenv.errors import OptionError, ProgramError

MAX_OVERHEAD = 1e4  # largest factor in the number of shots compared with the uncut circuit


@dataclass(frozen=True, slots=True)
class CutResult:
    """Expectation values of a circuit that was cut; `parts`: results of all circuits that ran.

    `sampling_overhead`: factor in the shots that gives the standard error of the uncut circuit.
    """

    expectations: tuple[float, ...]
    sampling_overhead: float
    parts: tuple[Result, ...]


class Cutting:
    """A stage that cuts circuits without measurements and recombines expectation values.

    `observables`: one or several Pauli strings, qubit 0 rightmost. `labels`: one letter for each
    qubit; gates between qubits of different letters are cut. `max_qubits`, in place of labels: the
    width of each part; qiskit-addon-cutting then finds gates and wires to cut. `devices` or
    `pools`: the device or pool of each part, by letter or, without labels, by position; None: the
    stream places them. `samples`: number of samples of the quasi-probability sum; None: all its
    terms.
    """

    def __init__(
        self,
        observables: str | Sequence[str],
        *,
        labels: str | None = None,
        max_qubits: int | None = None,
        devices: Mapping[str, str] | Sequence[str] | None = None,
        pools: Mapping[str, str] | Sequence[str] | None = None,
        samples: int | None = None,
        seed: int = 0,
    ) -> None:
        if (labels is None) == (max_qubits is None):
            raise OptionError("Cutting needs either labels or max_qubits", hint='labels="AABB"')
        self._observables = [observables] if isinstance(observables, str) else list(observables)
        self._labels, self._max_qubits = labels, max_qubits
        if devices is not None and pools is not None:
            raise OptionError("devices and pools of Cutting", hint="give one of the two")
        self._places = devices if pools is None else pools
        self._field = "device" if pools is None else "pool"
        self._samples, self._seed = samples, seed
        if self._places is not None and isinstance(self._places, Mapping) == (labels is None):
            raise OptionError(
                f"{self._field}s of Cutting",
                hint="a mapping from letters with labels, a list without",
            )

    def split(self, circuit: Any) -> SplitCircuit:
        """Cut a circuit. Raises OptionError without qiskit-addon-cutting, and ProgramError for a
        circuit that it cannot cut, or only with a sampling overhead above MAX_OVERHEAD."""
        addon = _addon()
        import numpy as np
        from qiskit.quantum_info import PauliList

        observables = PauliList(self._observables)
        if self._labels is None:
            circuit, observables = self._with_automatic_cuts(circuit, observables)
        problem = addon.partition_problem(
            circuit=circuit, partition_labels=self._labels, observables=observables
        )
        overhead = float(np.prod([basis.overhead for basis in problem.bases]))
        if overhead > MAX_OVERHEAD:
            raise ProgramError(
                f"{len(problem.bases)} cuts have a sampling overhead of {overhead:.3g}, more than"
                f" {MAX_OVERHEAD:g}",
                hint="cut elsewhere, or into fewer parts",
            )
        experiments, coefficients = addon.generate_cutting_experiments(
            circuits=problem.subcircuits,
            observables=problem.subobservables,
            num_samples=np.inf if self._samples is None else self._samples,
        )
        labels = list(experiments)
        places = self._placed(labels)
        parts = [
            CircuitPart(each, {"outputs": ("counts",)}, **places[label])
            for label in labels
            for each in experiments[label]
        ]
        sizes = {label: len(experiments[label]) for label in labels}
        combine = partial(_combined, sizes, coefficients, problem.subobservables, overhead)
        return SplitCircuit(parts, combine)

    def _with_automatic_cuts(self, circuit: Any, observables: Any) -> tuple[Any, Any]:
        addon = _addon()
        from qiskit_addon_cutting.automated_cut_finding import (
            DeviceConstraints,
            OptimizationParameters,
            find_cuts,
        )

        assert self._max_qubits is not None
        marked, _ = find_cuts(
            circuit, OptimizationParameters(seed=self._seed), DeviceConstraints(self._max_qubits)
        )
        cut = addon.cut_wires(marked)
        return cut, addon.expand_observables(observables, circuit, cut)

    def _placed(self, labels: Sequence[Hashable]) -> dict[Hashable, dict[str, str]]:
        """Return the device or pool of each part, as an argument of CircuitPart."""
        places, where = self._places, self._field
        if places is None:
            return {label: {} for label in labels}
        if not isinstance(places, Mapping):
            if len(places) < len(labels):
                raise OptionError(
                    f"{len(labels)} parts for {len(places)} {where}s", hint="name one for each part"
                )
            return {label: {where: place} for label, place in zip(labels, places, strict=False)}
        for label in labels:
            if label not in places:
                raise OptionError(
                    f"no {where} for part {label!r}", hint=f"{where}s={{'A': ..., ...}}"
                )
        return {label: {where: places[str(label)]} for label in labels}


def _addon() -> Any:
    try:
        import qiskit_addon_cutting
    except ImportError:
        raise OptionError(
            "cutting circuits needs qiskit-addon-cutting, which is not installed",
            hint="pip install 'simenv[cutting]'",
        ) from None
    return qiskit_addon_cutting


def _combined(
    sizes: Mapping[Hashable, int],
    coefficients: Any,
    observables: Any,
    overhead: float,
    results: Sequence[Result],
) -> CutResult:
    """Return the expectation values of the whole circuit from the counts of its parts."""
    from qiskit.primitives import SamplerResult
    from qiskit.result import QuasiDistribution

    entries: dict[Hashable, SamplerResult] = {}
    first = 0
    for label, size in sizes.items():
        shares = []
        for result in results[first : first + size]:
            total = sum(result.counts.values())
            shares.append(
                QuasiDistribution(
                    {int(key.replace(" ", ""), 2): n / total for key, n in result.counts.items()}
                )
            )
        entries[label] = SamplerResult(shares, [{}] * size)
        first += size
    values = _addon().reconstruct_expectation_values(entries, coefficients, observables)
    return CutResult(tuple(map(float, values)), overhead, tuple(results))
