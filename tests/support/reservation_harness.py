"""A service whose pool has credits, two clients of it and an admin."""

from pathlib import Path

import msgspec
from memory_transport import MemoryConnection
from multi_user_harness import MultiUserHarness
from service import spec

from simenv import model
from simenv.wire.messages import admin, client as m

# The tests' program: two gates and two measurements, 2,060 ns a shot; 100 shots are a unit.
BASE = model.Workload(1, 2, 1, 2, 0, 2, 100)


class ReservationHarness(MultiUserHarness):
    """A service with ten credits on its pool, two clients and an admin."""

    def __init__(self, folder: Path, **options: object) -> None:
        super().__init__(folder, **options)
        policy = model.AdmissionPolicy("credit", BASE, total_credits=10)
        self.get(admin.PolicyReply, admin.SetPolicy(1, "main", policy))

    def begin_again(self) -> None:
        self.restart()
        self.arrive()

    def reserve(
        self, units: int = 4, peer: MemoryConnection | None = None, **ask: object
    ) -> model.Decision:
        fields = {"device": "main", "workload": msgspec.structs.replace(BASE, count=units), **ask}
        request = model.ReservationRequest(**fields)  # type: ignore[arg-type]
        return self.get(admin.DecisionReply, admin.Reserve(2, request), peer).decision

    def info(self, number: int, peer: MemoryConnection | None = None) -> model.ReservationInfo:
        return self.get(admin.Reservations, admin.GetReservations(3, number), peer).reservations[0]

    def under(
        self, number: int, *shots: int, key: str = "~u", peer: MemoryConnection | None = None
    ) -> m.Accepted | m.Refused:
        tasks = [spec(seed, shots=count) for seed, count in enumerate(shots)]
        return self.submit(*tasks, key=key, terms=model.TaskOptions(reservation=number), peer=peer)

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
