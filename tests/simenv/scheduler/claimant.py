"""A machine whose tasks run under reservations, with a journal of their rows beside it."""

import sqlite3
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
from checked_scheduler import LIMITS, SECOND, CheckedScheduler, route
from scheduler_invariants import check

from simenv import model
from simenv.scheduler.admission.availability import reservation_units
from simenv.scheduler.core import Action, Route, SubmitBatch, TaskEnded
from simenv.scheduler.events import reservations
from simenv.scheduler.reservations.circuit_times import ProgramSize
from simenv.scheduler.reservations.reservation import ReservationEntry
from simenv.scheduler.scheduler import Scheduler
from simenv.service.journal import tables
from simenv.service.journal.reader import Records
from simenv.service.journal.schema import META

WALL_NS = 1_800_000_000 * SECOND
POOLS = (model.PoolSpec("main", "any", min=2, max=2), model.PoolSpec("side", "any", min=1, max=1))
# 20 x 30 + 10 x 300 + 5 x 1,000 = 8,600 ns a shot: with 1,000 shots the unit, 8.6 ms.
WORK = model.Workload(qubits=4, gates_1q=20, gates_2q=10, measurements=5)


class Claimant(CheckedScheduler):
    """Time goes on with `now_ns`; the wall clock beside it. Everything is stored after each step,
    as a service's commit does it."""

    def __init__(self, workers: int = 2) -> None:
        self.rows = sqlite3.connect(":memory:", isolation_level=None)
        self.rows.executescript("".join(table.schema for table in (*tables.TABLES, META)))
        specs = (msgspec.structs.replace(POOLS[0], min=workers, max=workers), POOLS[1])
        super().__init__(specs=specs)
        self.specs = specs

    @property
    def wall_ns(self) -> int:
        return WALL_NS + self.now_ns

    @property
    def ledger(self) -> dict[int, ReservationEntry]:
        return self.state.reservations.all

    def policy(self, name: str = "credit", device: str = "main", **figures: object) -> None:
        policy = model.AdmissionPolicy(name, **figures)  # type: ignore[arg-type]
        self.state.reservations.set_policy(device, policy, -1)
        self.settle()

    def reserve(self, units: int = 1, owner: str = "", **ask: object) -> model.Decision:
        """For so many units: circuits of one unit each."""
        fields = {
            "device": "main", "workload": msgspec.structs.replace(WORK, count=units, shots=1_000),
            "ttl_ns": 100 * SECOND, **ask,
        }  # fmt: skip
        request = model.ReservationRequest(**fields)  # type: ignore[arg-type]
        decision = reservations.reserve(self.state, request, owner, self.wall_ns)[0]
        self.settle()
        return decision

    def under(
        self, number: int, count: int = 1, shots: int = 1_000, pool: str = "main", owner: str = "",
        cost: float = 10.0, after: tuple[int, ...] = (), work: model.Workload = WORK,
        terms: model.TaskOptions | None = None, routed: Route | None = None,
        is_dynamic: bool = False,
    ) -> list[int]:  # fmt: skip
        """Tasks of `shots` / 1,000 units each; raises NotReservedError, or the first error of
        one."""
        result = self.state.reservations.usable(number, owner, self.wall_ns)
        specs = [model.TaskSpec(b"program", shots, seed) for seed in range(count)]
        routes = [routed or route(cost, pool=pool)] * count
        sizes = [ProgramSize(work, is_dynamic)] * count
        units, errors = reservation_units(
            self.state, result, specs, routes, sizes, terms or model.TaskOptions()
        )
        if errors:
            raise errors[0]
        first = self.state.tasks.next_number
        batch = SubmitBatch(
            b"client", model.TaskOptions(reservation=number, after=after), "key", 0, first,
            self.now_ns, 0, owner,
        )  # fmt: skip
        self.scheduler.submit(batch, specs, routes, units)
        self.settle()
        return list(range(first, first + count))

    def ran(self, task: int, run_us: int) -> None:
        """A worker has run it for so long."""
        record = self.state.tasks[task]
        record.cost_us = float(run_us)
        self.finish([record])
        self.settle()

    def end(
        self, number: int, how: model.ReservationState = model.ReservationState.RELEASED
    ) -> list[Action]:
        actions = reservations.close_reservation(
            self.state, self.ledger[number], how, "", self.wall_ns, self.now_ns
        )
        return self.keep(actions) + self.settle()

    def settle(self) -> list[Action]:
        """What the loop does in each pass, until nothing is left to do; then all is stored."""
        actions: list[Action] = []
        while self.state.reservations.emptying or self.state.reservations.freed:
            actions += self.keep(reservations.cancel_parked(self.state, self.now_ns))
            actions += self.keep(reservations.release_parked(self.state, self.now_ns))
        check(self.state)
        ledger = self.state.reservations
        for query, values in tables.reservation_statements(ledger, ledger.take_changes()):
            self.rows.execute(query, values)
        return actions

    def pass_time(self, seconds: float) -> list[Action]:
        self.now_ns += round(seconds * SECOND)
        self.hear()
        expired = reservations.expire(self.state, self.wall_ns, self.now_ns)
        return self.keep(expired) + self.settle()

    def restart(self) -> None:
        """A crash and a new start: from the rows, and from the messages of unfinished tasks."""
        old = self.state
        self.scheduler = Scheduler(self.specs, LIMITS, old.epoch + 1)
        self.state = self.scheduler.state
        database: Any = SimpleNamespace(db=self.rows, errors=(sqlite3.Error,))
        stored, units = tables.read_reservations(Records(database, Path("rows")))
        self.scheduler.restore_controls(stored, old.devices.controls.all)
        for number, record in sorted(old.tasks.items()):
            batch = msgspec.structs.replace(record.batch, first=number)
            takes = [units[number][1]] if number in units else None
            entries = ([record.spec], [record.route], takes, [record.attempts])
            self.scheduler.submit(batch, *entries)
        self.scheduler.finish_restore(old.tasks.next_number)
        check(self.state)
        self.tick(0)
        for name in list(self.state.cluster.workers):
            self.join(name)

    def ended(self, task: int) -> TaskEnded:
        return next(ending for ending in self.endings if ending.record.number == task)

    def digest(self) -> bytes:
        """Of all that reservations are."""
        ledger = self.state.reservations
        each = [
            (item.grant, item.progress, list(item.holds.items()), list(item.parked))
            for item in ledger.all.values()
        ]
        return msgspec.msgpack.encode((each, sorted(ledger.devices.items()), ledger.next_id))
