"""Run of the library's algorithms on an environment: all submitted, awaited and checked."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from simenv.library import Algorithm, algorithms

if TYPE_CHECKING:
    from simenv.client.client import Client

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


def perform(client: Client) -> list[DemoRow]:
    """Run every circuit once; all are submitted before the first is awaited."""
    chosen = algorithms()
    tasks = [client.submit(each.circuit, shots=SHOTS, seed=SEED, name=each.name) for each in chosen]
    acts = []
    for each, task in zip(chosen, tasks, strict=True):
        result = task.result()
        acts.append(
            DemoRow(
                circuit=each.name,
                task=task.id,
                qubits=each.circuit.num_qubits,
                engine=result.engine,
                queue_ms=1e3 * (result.timing.queued_s + result.timing.sent_s),
                run_ms=1e3 * result.timing.run_s,
                total_ms=1e3 * result.timing.total_s,
                counts=result.counts,
                fault=each.fault(result.counts),
                remark=result.remark,
            )
        )
    return acts


def top(act: DemoRow) -> str:
    """Return the three most frequent outcomes and their counts."""
    top_keys = sorted(act.counts, key=lambda key: -act.counts[key])[:3]
    return "  ".join(f"{key}: {act.counts[key]}" for key in top_keys)


def algorithm(name: str) -> Algorithm:
    """Return the algorithm whose circuit has this name."""
    return next(each for each in algorithms() if each.name == name)
