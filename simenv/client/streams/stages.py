"""Stages of a stream's pipeline: transformations of a circuit before its submission.

A stage is a function from circuit to circuit, a Qiskit pass manager, or an object with `split`,
which makes several circuits of one and combines their results.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, runtime_checkable

from simenv.client.results.result import Result
from simenv.errors import OptionError, ProgramError, SimenvError


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
                    raise OptionError(
                        "a pipeline with two stages that split circuits",
                        hint="split in one stage, or use two streams",
                    )
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
        result: SplitCircuit = _applied(self._split.split, circuit)
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
    """Cancel and merge gates, as a stage: Qiskit's optimization level 2.

    The circuit keeps its own kinds of gates and its own qubits.
    """
    from qiskit import transpile

    return transpile(circuit, optimization_level=2)


def _function_of(stage: Any) -> Callable[[Any], Any]:
    run = getattr(stage, "run", None)
    if callable(run) and hasattr(stage, "append"):  # a pass manager; it is callable too
        return _PassManager(stage)
    if callable(stage):
        function: Callable[[Any], Any] = stage
        return function
    raise OptionError(
        f"{type(stage).__name__} is no stage of a pipeline",
        hint="a function of a circuit, a Qiskit pass manager, or an object with split(circuit)",
    )


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


def _only(results: Sequence[Result]) -> Result:
    return results[0]
