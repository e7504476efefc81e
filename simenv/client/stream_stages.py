"""Stages of a stream: transformations, slices of contractions, and circuit cutting.

A stage transforms a circuit before its submission. It is a function from circuit to circuit, a
Qiskit pass manager, or an object with `split`, which makes several circuits of one and combines
their results.

Sliced tensor network contraction runs the slices of one circuit on several workers. The engine
`contraction` writes an expectation value, or an amplitude, as a sum over slices. Each worker
contracts a share of the slices as a task of its own; the sum of the shares is the exact value.
Amplitudes that need no slices are divided among the workers.

Circuit cutting runs one circuit on several devices, each with fewer qubits. qiskit-addon-cutting
cuts the circuit and combines the expectation values: a cut gate or wire is replaced by a
quasi-probability sum of local operations (Mitarai and Fujii, New J. Phys. 23, 023021; Peng et al.,
Phys. Rev. Lett. 125, 150504). The cost is the sampling overhead, a factor in the number of shots
that grows exponentially with the number of cuts.

Distribution runs one circuit on several devices too, where links join them to one: gates between
its parts use Bell pairs, and the shots stay the same.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from math import fsum
from typing import Any, Protocol, SupportsIndex, runtime_checkable

from simenv.client.result import Result
from simenv.errors import OptionError, ProgramError, SimenvError, VersionMismatchError
from simenv.model.task_rules import checked_integer


@dataclass(frozen=True, slots=True)
class CircuitPart:
    """One part of a split circuit. `options`: of its submission, in addition to those of the
    stream; `device` or `pool`: its device or pool; None: the stream places it."""

    circuit: Any
    options: Mapping[str, Any] = field(default_factory=dict)
    device: str | None = None
    pool: str | None = None


@dataclass(frozen=True, slots=True)
class SplitCircuit:
    """Parts of a circuit. `combine` makes one result of the parts' results, in the same order."""

    parts: Sequence[CircuitPart]
    combine: Callable[[Sequence[Result]], Any]


@runtime_checkable
class SplitStage(Protocol):
    """A stage that runs a circuit as several circuits."""

    def split(self, circuit: Any) -> SplitCircuit: ...


class Pipeline:
    """Stages in order; at most one of them splits. Later stages are applied to each part."""

    def __init__(self, stages: Sequence[Any]) -> None:
        """Raise OptionError for an object that is no stage, and for a second stage that splits."""
        self._before: list[Callable[[Any], Any]] = []
        self._after: list[Callable[[Any], Any]] = []
        self._split: SplitStage | None = None
        for stage in stages:
            if isinstance(stage, SplitStage):
                if self._split is not None:
                    hint = "split in one stage, or use two streams"
                    raise OptionError("a pipeline with two stages that split circuits", hint=hint)
                self._split = stage
                continue
            stage_list = self._before if self._split is None else self._after
            stage_list.append(_function_of(stage))

    def apply(self, circuit: Any) -> SplitCircuit:
        """Run the stages on a circuit. An exception of a stage is raised as ProgramError with the
        stage's name; errors of simenv are raised as they are."""
        for stage in self._before:
            circuit = _applied(stage, circuit)
        if self._split is None:
            return SplitCircuit((CircuitPart(circuit),), _only)
        result = _checked_split(self._split, _applied(self._split.split, circuit))
        if not self._after:
            return result
        parts = []
        for part in result.parts:
            changed = part.circuit
            for stage in self._after:
                changed = _applied(stage, changed)
            parts.append(replace(part, circuit=changed))
        return SplitCircuit(parts, result.combine)


def reduce_gates(circuit: Any) -> Any:
    """Cancel and merge gates, as a stage: Qiskit's optimization level 2. The circuit keeps its own
    kinds of gates and its own qubits."""
    from qiskit import transpile

    return transpile(circuit, optimization_level=2)


def _function_of(stage: Any) -> Callable[[Any], Any]:
    run = getattr(stage, "run", None)
    if callable(run) and hasattr(stage, "append"):  # a pass manager; it is callable too
        return _PassManager(stage)
    if callable(stage):
        function: Callable[[Any], Any] = stage
        return function
    hint = "a function of a circuit, a Qiskit pass manager, or an object with split(circuit)"
    raise OptionError(f"{type(stage).__name__} is no stage of a pipeline", hint=hint)


class _PassManager:
    """A Qiskit pass manager as a function with a name."""

    def __init__(self, manager: Any) -> None:
        self.__name__ = type(manager).__name__
        self._manager = manager

    def __call__(self, circuit: Any) -> Any:
        return self._manager.run(circuit)


def _applied(stage: Callable[[Any], Any], circuit: Any) -> Any:
    try:
        result = stage(circuit)
    except SimenvError:
        raise
    except Exception as error:  # a stage of the user may raise any type
        name = getattr(stage, "__qualname__", getattr(stage, "__name__", type(stage).__name__))
        raise ProgramError(f"stage {name} of the pipeline: {error}") from error
    if result is None:
        name = getattr(stage, "__name__", type(stage).__name__)
        raise ProgramError(f"stage {name} of the pipeline returned no circuit")
    return result


def _checked_split(stage: SplitStage, split: Any) -> SplitCircuit:
    """Return what a stage returned, with a tuple of parts. Raises ProgramError for anything but a
    SplitCircuit of at least one CircuitPart."""
    parts = split.parts if isinstance(split, SplitCircuit) else None
    parts = tuple(parts) if isinstance(parts, Iterable) else ()
    if not parts or not all(isinstance(part, CircuitPart) for part in parts):
        raise ProgramError(
            f"stage {type(stage).__name__} of the pipeline returned no parts of a circuit",
            hint="split(circuit) returns a SplitCircuit of one CircuitPart or more",
        )
    result: SplitCircuit = replace(split, parts=parts)
    return result


def _only(results: Sequence[Result]) -> Result:
    return results[0]


ENGINE = "contraction"
MAX_SHARES = 1_024  # limit of the engine's option
_OUTPUTS = {"observables": "expectation", "amplitudes": "amplitudes"}


@dataclass(frozen=True, slots=True)
class SlicedResult:
    """Exact expectation values and amplitudes of a sliced circuit; `parts`: results of the shares.
    The values of a part are partial sums, which its `remark` and `options` state."""

    expectations: tuple[float, ...]
    parts: tuple[Result, ...]
    amplitudes: Mapping[str, complex] = field(default_factory=dict)


class SlicedContraction:
    """A stage that divides the slices of a contraction into shares, each a task, and adds the
    expectation values and amplitudes of the shares.

    `observables`, `amplitudes`: as in `Client.submit`, one of them at least. `shares`: number of
    tasks, for example the number of workers; a power of two divides slices evenly. `options`: of
    the engine `contraction`, such as `{"width": 24}`. Raises OptionError.
    """

    def __init__(
        self,
        observables: Any = None,
        *,
        shares: SupportsIndex,
        amplitudes: Sequence[str] | str | None = None,
        options: Mapping[str, float] | None = None,
    ) -> None:
        requested = {"observables": observables, "amplitudes": amplitudes}
        self._requested = {name: each for name, each in requested.items() if each is not None}
        if not self._requested:
            hint = 'observables="ZZ", or amplitudes=["00"]'
            raise OptionError("SlicedContraction of nothing", hint=hint)
        self._shares = checked_integer("shares", shares, 1, MAX_SHARES)
        self._options = dict(options or {})
        for name in ("share", "shares"):
            if name in self._options:
                hint = "the stage sets it itself"
                raise OptionError(f"options of SlicedContraction: {name!r}", hint=hint)

    def split(self, circuit: Any) -> SplitCircuit:
        """Make one task of the circuit for each share."""
        parts = [
            CircuitPart(
                circuit,
                {
                    "engine": ENGINE,
                    "shots": None,
                    "outputs": tuple(_OUTPUTS[name] for name in self._requested),
                    **self._requested,
                    "options": {**self._options, "shares": self._shares, "share": share},
                },
            )
            for share in range(self._shares)
        ]
        return SplitCircuit(parts, partial(_summed, self._shares))


def _summed(shares: int, results: Sequence[Result]) -> SlicedResult:
    """Return the sums of the shares. Raises VersionMismatchError if their slices are not those of
    one contraction."""
    slicings = {result.remark.partition("; ")[2] for result in results}
    if shares > 1 and len(slicings) > 1:
        raise VersionMismatchError(
            f"workers divided one contraction into different slices: {', '.join(sorted(slicings))}",
            hint="run all shares in one pool, whose workers have the same packages",
        )
    values: tuple[float, ...] = ()
    if results[0].has("expectations"):
        columns = zip(*(result.expectations for result in results), strict=True)
        values = tuple(map(fsum, columns))
    amplitudes: dict[str, complex] = {}
    if results[0].has("amplitudes"):
        tables = [result.amplitudes for result in results]
        amplitudes = {text: sum(table[text] for table in tables) for text in tables[0]}
    return SlicedResult(values, tuple(results), amplitudes)


MAX_OVERHEAD = 1e4  # largest factor in the number of shots compared with the uncut circuit


@dataclass(frozen=True, slots=True)
class CutResult:
    """Expectation values of a circuit that was cut; `parts`: results of all circuits that ran.
    `sampling_overhead`: factor in the shots that gives the standard error of the uncut circuit."""

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
            hint = "a mapping from letters with labels, a list without"
            raise OptionError(f"{self._field}s of Cutting", hint=hint)

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
        from qiskit_addon_cutting import automated_cut_finding as finding

        assert self._max_qubits is not None
        parameters = finding.OptimizationParameters(seed=self._seed)
        limits = finding.DeviceConstraints(self._max_qubits)
        marked, _ = finding.find_cuts(circuit, parameters, limits)
        cut = addon.cut_wires(marked)
        return cut, addon.expand_observables(observables, circuit, cut)

    def _placed(self, labels: Sequence[Hashable]) -> dict[Hashable, dict[str, str]]:
        """Return the device or pool of each part, as an argument of CircuitPart."""
        places, where = self._places, self._field
        if places is None:
            return {label: {} for label in labels}
        if not isinstance(places, Mapping):
            if len(places) < len(labels):
                hint = "name one for each part"
                raise OptionError(f"{len(labels)} parts for {len(places)} {where}s", hint=hint)
            return {label: {where: place} for label, place in zip(labels, places, strict=False)}
        for label in labels:
            if label not in places:
                hint = f"{where}s={{'A': ..., ...}}"
                raise OptionError(f"no {where} for part {label!r}", hint=hint)
        return {label: {where: places[str(label)]} for label in labels}


class Distribution:
    """A stage that runs one circuit on the linked modules of a device, where `Cutting` would cut
    it: gates between modules use the Bell pairs of links.

    `device`: of linked modules. `labels`: the letter of each qubit's module, as of `Cutting`; None:
    the partition with the fewest Bell pairs. `modules`: the module of each letter; None: the
    letters are their names. Raises OptionError.
    """

    def __init__(
        self, device: str, *, labels: str | None = None, modules: Mapping[str, str] | None = None
    ) -> None:
        self._device = device
        if modules is not None and labels is None:
            raise OptionError("modules of Distribution without labels", hint='labels="AABB"')
        missing = sorted(set(labels or "").difference(modules or labels or ""))
        if missing:
            hint = "modules={'A': ..., ...}"
            raise OptionError(f"no module for part {missing[0]!r}", hint=hint)
        named = modules or {}
        self._partition = None if labels is None else [named.get(each, each) for each in labels]

    def split(self, circuit: Any) -> SplitCircuit:
        """Make one task of the circuit."""
        partition = "auto" if self._partition is None else self._partition
        part = CircuitPart(circuit, {"partition": partition}, device=self._device)
        return SplitCircuit((part,), _only)


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
