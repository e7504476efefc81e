"""Run of the library's algorithms on an environment: all submitted, awaited and checked."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import msgspec

from simenv.client.tasks.task import as_completed
from simenv.library import Algorithm, algorithms
from simulators.catalog import SMALL_QUBITS

if TYPE_CHECKING:
    from simenv.client.client import Client
    from simenv.client.results.result import Result
    from simenv.client.tasks.task import Task

SHOTS = 4096
SEED = 7


class DemoRow(msgspec.Struct, frozen=True):
    """One row of the demo's table. `fault`: what is wrong with the counts, "" if nothing is."""

    circuit: str
    task: str
    qubits: int
    engine: str
    queue_ms: float
    run_ms: float
    total_ms: float
    counts: dict[str, int]
    fault: str
    remark: str


def perform(client: Client) -> Iterator[DemoRow]:
    """Run every circuit once, and return the rows in the order in which the circuits end: narrow
    ones first, since the service need not compile kernels to check them."""
    chosen = {each.name: each for each in algorithms()}
    narrow: list[Task] = []
    wide: list[Task] = []
    for each in sorted(chosen.values(), key=lambda each: each.circuit.num_qubits):
        task = client.post(each.circuit, shots=SHOTS, seed=SEED, name=each.name)
        (narrow if each.circuit.num_qubits <= SMALL_QUBITS else wide).append(task)
    for tasks in (narrow, wide):
        for task in as_completed(tasks):
            yield _row(chosen[task.name], task.id, task.result())


def _row(each: Algorithm, task: str, result: Result) -> DemoRow:
    return DemoRow(
        circuit=each.name,
        task=task,
        qubits=each.circuit.num_qubits,
        engine=result.engine,
        queue_ms=1e3 * (result.timing.queued_s + result.timing.sent_s),
        run_ms=1e3 * result.timing.run_s,
        total_ms=1e3 * result.timing.total_s,
        counts=result.counts,
        fault=each.fault(result.counts),
        remark=result.remark,
    )


def top(act: DemoRow) -> str:
    """Return the three most frequent outcomes and their counts."""
    top_keys = sorted(act.counts, key=lambda key: -act.counts[key])[:3]
    return "  ".join(f"{key}: {act.counts[key]}" for key in top_keys)


def algorithm(name: str) -> Algorithm:
    """Return the algorithm whose circuit has this name."""
    return next(each for each in algorithms() if each.name == name)
