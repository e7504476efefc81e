"""Sweeps of programs for a batch of tapes, sent in as few messages as their outputs allow.

Tapes of one program and one number of shots are rows of one sweep; sweeps of one kind are one
message. Invariants: all messages are sent before the first wait for a result; if one is refused or
a task fails, the unfinished tasks of the batch are cancelled.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simenv.client.client import Client
from simenv.client.results.result import Result
from simenv.client.tasks.task import Task, distinct_warnings
from simenv.errors import BatchRefusedError, SimenvError
from simenv.frontends.pennylane.measurements import Labels
from simenv.frontends.pennylane.outcomes import OutcomeTable
from simenv.frontends.pennylane.programs import TapeProgram

SHARED_OBSERVABLES = 16  # up to this total, one message computes all observables for all tapes
NAMED_TAPES = 8  # in an error about several

COUNTS, MEMORY = ("counts",), ("memory",)
PROBABILITIES, STATE = ("probabilities",), ("statevector",)
EXPECTATION, GRADIENT = ("expectation",), ("expectation", "gradient")


@dataclass(eq=False)
class Run:
    """Rows of one sweep that a tape waits for; `results` come in their order. `places`: index of
    each of the tape's observables in the message."""

    observables: tuple[Labels, ...]
    results: Sequence[Result] = ()
    places: Sequence[int] = ()

    def table(self, row: int) -> OutcomeTable:
        """Measured outcomes of a row."""
        result = self.results[row]
        if result.has("memory"):
            return OutcomeTable.of_memory(result.memory, result.registers[0][1])
        entry = result.counts if result.shots else result.probabilities
        return OutcomeTable.of(dict(entry), result.registers[0][1])

    def expectations(self, row: int) -> list[float]:
        """Values of the tape's observables in a row."""
        entry = self.results[row].expectations
        return [entry[place] for place in self.places]


@dataclass(eq=False)
class _Sweep:
    program: TapeProgram
    shots: int | None
    rows: list[NDArray[np.float64]] = field(default_factory=list)
    runs: list[tuple[Run, int]] = field(default_factory=list)
    tapes: list[int] = field(default_factory=list)  # the tape of each run

    def work(self) -> tuple[Any, NDArray[np.float64]]:
        """Program and slot values for the client's submission."""
        return self.program.program, self.program.angles.slots(np.concatenate(self.rows))


class SweepBatch:
    """Sweeps of one batch of tapes. `tape`: number of the tape whose rows are added."""

    def __init__(self) -> None:
        self.tape = 0
        self._sweeps: dict[tuple[Any, ...], _Sweep] = {}
        self._sent: list[tuple[list[_Sweep], list[Task]]] = []

    def add(
        self,
        program: TapeProgram,
        values: NDArray[np.float64],
        outputs: tuple[str, ...],
        *,
        shots: int | None = None,
        observables: tuple[Labels, ...] = (),
    ) -> Run:
        """Add rows to a sweep. `values`: float64 [rows, values of the tape]."""
        width = program.program.num_qubits
        key = (outputs, width if observables else 0, observables, shots, program.key)
        sweep = self._sweeps.get(key)
        if sweep is None:
            sweep = self._sweeps[key] = _Sweep(program, shots)
        run = Run(observables)
        sweep.rows.append(values)
        sweep.runs.append((run, len(values)))
        sweep.tapes.append(self.tape)
        return run

    def run(
        self,
        client: Client,
        options: Mapping[str, Any],
        next_seed: Callable[[], int],
        *,
        apart: bool = False,
    ) -> None:
        """Send all sweeps, then wait for all. `apart`: each sweep with observables is a separate
        message, since its compilation may choose other qubits of a device. Raises SimenvError,
        which names the tape of a refusal or a failure."""
        try:
            self._send(client, options, next_seed, apart)
            for sweeps, tasks in self._sent:
                results = iter(tasks)
                for sweep in sweeps:
                    for (run, count), tape in zip(sweep.runs, sweep.tapes, strict=True):
                        run.results = self._awaited(list(islice(results, count)), tape)
        except BaseException:
            sent = {task.handle.number: task for _, each in self._sent for task in each}
            with suppress(SimenvError):
                client.cancel([task for task in sent.values() if not task.done()])
            raise

    def warnings(self) -> list[str]:
        """Warnings of the results about requested noise, each text once; after `run`."""
        return distinct_warnings(task for _, tasks in self._sent for task in tasks)

    def _awaited(self, tasks: list[Task], tape: int) -> list[Result]:
        try:
            return [task.result() for task in tasks]
        except SimenvError as error:
            self._name(error, [tape])
            raise

    def _name(self, error: SimenvError, tapes: list[int]) -> None:
        """Add the numbers of the tapes to an error, if the batch has several tapes."""
        if not self.tape:
            return
        shown_tapes = ", ".join(map(str, tapes[:NAMED_TAPES]))
        more = len(tapes) - NAMED_TAPES
        text = f"tape{'s' * (len(tapes) > 1)} {shown_tapes}" + f" and {more} more" * (more > 0)
        error.message, error.index = f"{text}: {error.message}", tapes[0]

    def _send(
        self,
        client: Client,
        options: Mapping[str, Any],
        next_seed: Callable[[], int],
        apart: bool,
    ) -> None:
        for (outputs, observables), sweeps in self._messages(apart):
            exact = outputs not in (COUNTS, MEMORY)
            asked: dict[str, Any] = dict(options)
            if observables:
                asked["observables"] = [dict(each) for each in observables]
            try:
                tasks = client.submit_many(
                    [sweep.work() for sweep in sweeps],
                    shots=None if exact else [sweep.shots for sweep in sweeps],
                    seed=next_seed(),
                    outputs=outputs,
                    **asked,
                )
            except BatchRefusedError as error:  # its items are sweeps, unknown to the caller
                first = error.errors[0]
                self._name(first, list(dict.fromkeys(sweeps[first.index].tapes)))
                raise first from error
            self._sent.append((sweeps, tasks))

    def _messages(
        self, apart: bool
    ) -> Iterable[tuple[tuple[tuple[str, ...], tuple[Labels, ...]], list[_Sweep]]]:
        """Outputs and observables of each message, and its sweeps."""
        kinds: dict[tuple[Any, ...], list[tuple[tuple[Labels, ...], _Sweep]]] = {}
        for number, (key, sweep) in enumerate(self._sweeps.items()):
            outputs, width, observables, _, _ = key
            kind = (outputs, width, number if apart and observables else -1)
            kinds.setdefault(kind, []).append((observables, sweep))
        for (outputs, _, _), members in kinds.items():
            union = list(dict.fromkeys(label for each, _ in members for label in each))
            shared = len(union) <= SHARED_OBSERVABLES
            parts: dict[tuple[Labels, ...], list[_Sweep]] = {}
            for observables, sweep in members:
                asked = tuple(union) if shared else observables
                parts.setdefault(asked, []).append(sweep)
            for asked, sweeps in parts.items():
                places = {labels: place for place, labels in enumerate(asked)}
                for run, _ in (each for sweep in sweeps for each in sweep.runs):
                    run.places = [places[labels] for labels in run.observables]
                yield (outputs, asked), sweeps
