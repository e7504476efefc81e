"""A chunk of tasks as it travels to a worker."""

from __future__ import annotations

from simenv.model import Terms
from simenv.scheduler.values import Send
from simenv.wire import codec
from simenv.wire.messages import Assign, Assigned


def packed(send: Send) -> bytes:
    """The Assign message; terms that several tasks share are written once."""
    table: dict[int, int] = {}
    terms: list[Terms] = []
    tasks = []
    last, place = None, 0
    for record in send.records:
        spec, batch = record.spec, record.batch
        if batch is not last:
            last, place = batch, table.setdefault(id(batch), len(terms))
            if place == len(terms):
                terms.append(batch.terms)
        tasks.append(
            Assigned(
                record.number,
                record.fence,
                place,
                spec.program,
                spec.shots,
                spec.seed,
                spec.bindings,
                spec.binding,
                spec.count,
            )
        )
    route = send.records[0].route
    return codec.encode(
        Assign(
            send.slots,
            send.memory_bytes,
            send.announce,
            route.engine,
            route.reason,
            terms,
            tasks,
        )
    )
