"""Stages of a stream's pipeline: what happens to a circuit before it is submitted.

A stage is a function from circuit to circuit, a Qiskit pass manager, or an object with `split`,
which makes several circuits of one and combines their results.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from simenv.client.results.result import Result
from simenv.errors import OptionError, ProgramError, SimenvError


@dataclass(frozen=True, slots=True)
class CircuitPart:
    """One circuit of a split one. `options`: of its submission, beside those of the stream;
    `device`: where it must run; None: where the stream places it."""

    circuit: Any
    options: Mapping[str, Any] = field(default_factory=dict)
    device: str | None = None


@dataclass(frozen=True, slots=True)
class SplitCircuit:
    """The parts of a circuit, and what makes one result of theirs, which are in the same order."""

    parts: Sequence[CircuitPart]
    combine: Callable[[Sequence[Result]], Any]


@runtime_checkable
class SplitStage(Protocol):
    """A stage that runs a circuit as several."""

    def split(self, circuit: Any) -> SplitCircuit: ...


class Pipeline:
    """Stages in their order; at most one of them splits. Stages after that one get each part."""

    def __init__(self, stages: Sequence[Any]) -> None:
        """Raises OptionError for what is no stage, and for a second one that splits."""
        self._before: list[Callable[[Any], Any]] = []
        self._after: list[Callable[[Any], Any]] = []
        self._split: SplitStage | None = None
        for stage in stages:
            if isinstance(stage, SplitStage):
                if self._split is not None:
                    raise OptionError(
                        "a pipeline with two stages that split circuits",
                        hint="split in one stage, or use two streams",
                    )
                self._split = stage
                continue
            stages_there = self._before if self._split is None else self._after
            stages_there.append(_function_of(stage))

    def apply(self, circuit: Any) -> SplitCircuit:
        """Run the stages on a circuit. What a stage raises is raised as ProgramError, with its
        name, unless it is an error of simenv."""
        for stage in self._before:
            circuit = _applied(stage, circuit)
        if self._split is None:
            return SplitCircuit((CircuitPart(circuit),), _only)
        result: SplitCircuit = _applied(self._split.split, circuit)
        if not self._after:
            return result
        parts = []
        for part in result.parts:
            changed = part.circuit
            for stage in self._after:
                changed = _applied(stage, changed)
            parts.append(CircuitPart(changed, part.options, part.device))
        return SplitCircuit(parts, result.combine)


def reduce_gates(circuit: Any) -> Any:
    """A stage: cancel and merge gates with Qiskit's optimizations of level 2, in the circuit's own
    gates and on its own qubits."""
    from qiskit import transpile

    return transpile(circuit, optimization_level=2)


def _function_of(stage: Any) -> Callable[[Any], Any]:
    run = getattr(stage, "run", None)
    if callable(run) and hasattr(stage, "append"):  # a pass manager, which can be called too
        return _PassManager(stage)
    if callable(stage):
        function: Callable[[Any], Any] = stage
        return function
    raise OptionError(
        f"{type(stage).__name__} is no stage of a pipeline",
        hint="a function of a circuit, a Qiskit pass manager, or an object with split(circuit)",
    )


class _PassManager:
    """A Qiskit pass manager as a function with its own name."""

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
    except Exception as error:  # whatever a stage of the caller's raises
        name = getattr(stage, "__qualname__", getattr(stage, "__name__", type(stage).__name__))
        raise ProgramError(f"stage {name} of the pipeline: {error}") from error
    if result is None:
        name = getattr(stage, "__name__", type(stage).__name__)
        raise ProgramError(f"stage {name} of the pipeline returned no circuit")
    return result


def _only(results: Sequence[Result]) -> Result:
    return results[0]
