"""A service whose pool has credits, two clients of it and an admin."""

from pathlib import Path

import msgspec
from memory_transport import MemoryConnection
from multi_user_harness import MultiUserHarness
from service import spec

from simenv.model import (
    AdmissionPolicy,
    Decision,
    ReservationInfo,
    ReservationRequest,
    TaskOptions,
    Workload,
)
from simenv.wire.messages import client as m
from simenv.wire.messages.admin import (
    DecisionReply,
    GetReservations,
    PolicyReply,
    Reservations,
    Reserve,
    SetPolicy,
)

# The tests' program: two gates and two measurements, 2,060 ns a shot; 100 shots are a unit.
BASE = Workload(1, 2, 1, 2, 0, 2, 100)


class ReservationHarness(MultiUserHarness):
    """A service with ten credits on its pool, two clients and an admin."""

    def __init__(self, folder: Path, **options: object) -> None:
        super().__init__(folder, **options)
        policy = AdmissionPolicy("credit", BASE, total_credits=10)
        self.get(PolicyReply, SetPolicy(1, "main", policy))

    def begin_again(self) -> None:
        self.restart()
        self.arrive()

    def reserve(
        self, units: int = 4, peer: MemoryConnection | None = None, **ask: object
    ) -> Decision:
        work = msgspec.structs.replace(BASE, count=units)
        fields = {"device": "main", "workload": work, **ask}
        return self.get(DecisionReply, Reserve(2, ReservationRequest(**fields)), peer).decision  # type: ignore[arg-type]

    def info(self, number: int, peer: MemoryConnection | None = None) -> ReservationInfo:
        return self.get(Reservations, GetReservations(3, number), peer).reservations[0]

    def under(
        self, number: int, *shots: int, key: str = "~u", peer: MemoryConnection | None = None
    ) -> m.Accepted | m.Refused:
        tasks = [spec(seed, shots=count) for seed, count in enumerate(shots)]
        submit = m.Submit(5, key, 0, TaskOptions(reservation=number), tasks)
        answers = self.say(submit, peer)
        return next(a for a in answers if isinstance(a, m.Accepted | m.Refused))

    def view(self, task: int) -> m.TaskInfo:
        return self.get(m.Queue, m.GetTasks(1, [task])).tasks[0]

    def digest(self) -> bytes:
        ledger = self.state.reservations
        each = [
            (item.grant, item.progress, sorted(item.holds.items()), list(item.parked))
            for item in ledger.all.values()
        ]
        entries = (each, sorted(ledger.devices.items()), ledger.next_id, sorted(self.state.tasks))
        return msgspec.msgpack.encode(entries)
