"""Run of the gallery on an environment: every circuit submitted, awaited and checked."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from simenv.cli.demo.algorithms import ResultCheck, pieces

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
    gallery = pieces()
    tasks = [
        client.submit(piece.circuit, shots=SHOTS, seed=SEED, name=piece.circuit.name)
        for piece in gallery
    ]
    acts = []
    for piece, task in zip(gallery, tasks, strict=True):
        result = task.result()
        acts.append(
            DemoRow(
                circuit=piece.circuit.name,
                task=task.id,
                qubits=piece.circuit.num_qubits,
                engine=result.engine,
                queue_ms=1e3 * (result.timing.queued_s + result.timing.sent_s),
                run_ms=1e3 * result.timing.run_s,
                total_ms=1e3 * result.timing.total_s,
                counts=result.counts,
                fault=piece.answer.fault(result.counts),
                remark=result.remark,
            )
        )
    return acts


def top(act: DemoRow) -> str:
    """Return the three most frequent outcomes and their counts."""
    top_keys = sorted(act.counts, key=lambda key: -act.counts[key])[:3]
    return "  ".join(f"{key}: {act.counts[key]}" for key in top_keys)


def answer(circuit: str) -> ResultCheck:
    """Return the check of this circuit's counts."""
    return next(piece.answer for piece in pieces() if piece.circuit.name == circuit)
