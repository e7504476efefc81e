"""Tasks that come after others: no child starts before all its parents are DONE, and a parent that
ends otherwise ends its children."""

import pytest
from checked_scheduler import SECOND, CheckedScheduler, expected_starts, route
from claimant import Claimant
from hypothesis import given, settings, strategies as st

from simenv.model import DEPENDENCY, PoolSpec, ReservationState, TaskOptions, TaskSpec, TaskState
from simenv.scheduler.core import Phase, SubmitBatch, TaskEnded, TaskRecord
from simenv.scheduler.views.pending_reasons import pending_reason
from simenv.scheduler.views.run_times import UNKNOWN

UNHAPPY = [TaskState.FAILED, TaskState.CANCELLED, TaskState.EXPIRED]


def sent(machine: CheckedScheduler) -> list[TaskRecord]:
    return [record for chunk in machine.assign() for record in chunk.records]


def phase(machine: CheckedScheduler, task: int) -> int:
    return machine.state.tasks[task].phase


def endings(machine: CheckedScheduler) -> dict[int, TaskEnded]:
    return {ending.record.number: ending for ending in machine.endings}


def is_empty(machine: CheckedScheduler) -> bool:
    table = machine.state.tasks.dependencies
    left = (table.by_task, table.by_parent, table.ready, table.failed, machine.state.tasks)
    return not any(left) and not table.count("")


def test_child_is_sent_when_all_its_parents_are_done(pair: CheckedScheduler) -> None:
    first, second = pair.submit(2)
    (child,) = pair.submit(after=(first, second))
    records = sent(pair)
    assert [r.number for r in records] == [first, second]
    assert phase(pair, child) == Phase.DEPENDENT
    pair.finish([r for r in records if r.number == first])
    assert not sent(pair), "one parent is not enough"
    pair.finish([r for r in records if r.number == second])
    (record,) = sent(pair)
    assert record.number == child
    pair.finish([record])
    assert is_empty(pair)


def test_tasks_without_dependencies_overtake_a_dependent_one(pair: CheckedScheduler) -> None:
    (parent,) = pair.submit()
    (child,) = pair.submit(after=(parent,))
    (other,) = pair.submit()
    assert {r.number for r in sent(pair)} == {parent, other}
    assert phase(pair, child) == Phase.DEPENDENT


@pytest.mark.parametrize("final", UNHAPPY)
def test_child_of_failed_parent_names_it(pair: CheckedScheduler, final: TaskState) -> None:
    (parent,) = pair.submit()
    children = pair.submit(2, after=(parent,))
    pair.finish(sent(pair), final)
    pair.assign()
    pair.tick()
    ended = endings(pair)
    for child in children:
        assert (ended[child].state, ended[child].reason) == (TaskState.FAILED, DEPENDENCY)
        assert ended[child].parent == parent
    assert is_empty(pair)


def test_cancelled_waiting_parent_fails_its_child(pair: CheckedScheduler) -> None:
    (parent,) = pair.submit()
    (child,) = pair.submit(after=(parent,))
    (grandchild,) = pair.submit(after=(child,))
    pair.keep(pair.scheduler.cancel([parent], pair.now_ns)[1])
    assert pair.state.is_active, "the next tick comes soon"
    pair.tick()
    ended = endings(pair)
    assert (ended[child].parent, ended[grandchild].parent) == (parent, child)
    assert is_empty(pair)


def test_chain_of_10000_ends_without_recursion_in_parts(pair: CheckedScheduler) -> None:
    scheduler, state = pair.scheduler, pair.state
    (last,) = pair.submit()
    first = last
    for _ in range(10_000):  # without checks, which look at all tasks
        terms = TaskOptions(after=(last,))
        batch = SubmitBatch(b"client", terms, "key", 0, state.tasks.next_number, pair.now_ns)
        last = batch.first
        scheduler.submit(batch, [TaskSpec(b"program", 100, 0)], [route()])
    _, actions = scheduler.cancel([first], pair.now_ns)
    ticks = 0
    while state.tasks.dependencies.failed:
        actions += scheduler.tick(pair.now_ns)
        ticks += 1
    ended = [action for action in actions if isinstance(action, TaskEnded)]
    assert [e.record.number for e in ended] == list(range(first, last + 1))
    assert ([e.parent for e in ended[1:]], ticks) == (list(range(first, last)), 40)
    assert is_empty(pair)


def test_dependent_task_ends_at_its_queue_timeout(pair: CheckedScheduler) -> None:
    (parent,) = pair.submit()
    (child,) = pair.submit(after=(parent,), queue_timeout_s=5.0)
    records = sent(pair)
    pair.hear()
    pair.tick(6)
    assert endings(pair)[child].state is TaskState.EXPIRED
    pair.finish(records)
    assert is_empty(pair)


def test_rollback_removes_parents_and_children(pair: CheckedScheduler) -> None:
    (parent,) = pair.submit()
    (child,) = pair.submit(after=(parent,))
    for number in (parent, child):
        pair.scheduler.rollback_submit(number, 1, pair.now_ns)
    pair.tick()
    assert is_empty(pair)


def test_drained_device_waits_for_its_dependent_tasks() -> None:
    specs = (PoolSpec("main", "any", min=1, max=1), PoolSpec("other", "any", min=1, max=1))
    machine = CheckedScheduler(specs=specs)
    (parent,) = machine.submit()
    (child,) = machine.submit(after=(parent,), along=route(pool="other"))
    scheduler, wall_ns = machine.scheduler, 10 * SECOND
    scheduler.set_device_state("other", "drain", "", "", 0.0, wall_ns)
    machine.keep(scheduler.wall_clock_tick(wall_ns, wall_ns))
    assert not machine.state.devices.controls.of("other").drained
    machine.finish(sent(machine))
    machine.finish(sent(machine))
    assert endings(machine)[child].state is TaskState.DONE
    machine.keep(scheduler.wall_clock_tick(wall_ns, wall_ns))
    assert machine.state.devices.controls.of("other").drained


def test_reason_names_parent_and_state_and_wait_is_unknown(pair: CheckedScheduler) -> None:
    first, second = pair.submit(2)
    (child,) = pair.submit(after=(first, second))
    record = pair.state.tasks[child]

    def reason() -> str:
        return pending_reason(pair.state, record, pair.now_ns)

    assert reason() == "waits for t-1 (QUEUED) and 1 more"
    assert expected_starts(pair).task_us(record, pair.now_ns) == UNKNOWN
    records = {r.number: r for r in sent(pair)}
    pair.begin(records[first])
    assert reason() == "waits for t-1 (RUNNING) and 1 more"
    pair.finish([records[first]])
    assert reason() == "waits for t-2 (QUEUED)"
    pair.finish([records[second]], TaskState.FAILED)
    assert reason() == "ends: t-2 did not end as DONE"


def test_units_come_first_then_the_parent(host: Claimant) -> None:
    number = host.reserve(4).reservation
    (parent,) = host.submit()
    (blocker,) = host.under(number, shots=4_000)
    (child,) = host.under(number, shots=1_000, after=(parent,))
    assert host.state.tasks[child].phase == Phase.PARKED
    records = {r.number: r for r in sent(host)}
    host.keep(host.scheduler.cancel([blocker], host.now_ns)[1])
    host.finish([records[blocker]], TaskState.CANCELLED)
    host.settle()
    assert host.state.tasks[child].phase == Phase.DEPENDENT, "it has units, and waits on"
    host.finish([records[parent]])
    assert [r.number for r in sent(host)] == [child]


def test_the_parent_comes_first_then_units(host: Claimant) -> None:
    number = host.reserve(4).reservation
    (parent,) = host.submit()
    (blocker,) = host.under(number, shots=4_000)
    (child,) = host.under(number, shots=1_000, after=(parent,))
    records = {r.number: r for r in sent(host)}
    host.finish([records[parent]])
    assert not sent(host)
    assert host.state.tasks[child].phase == Phase.PARKED
    assert child not in host.state.tasks.dependencies.by_task
    host.finish([records[blocker]], TaskState.FAILED)
    assert [r.number for r in sent(host)] == [child]


def test_failed_parent_ends_parked_children_and_returns_held_units(host: Claimant) -> None:
    number = host.reserve(4).reservation
    (parent,) = host.submit()
    holds, parked = host.under(number, 2, shots=3_000, after=(parent,))
    assert host.state.tasks[holds].phase == Phase.DEPENDENT
    assert host.state.tasks[parked].phase == Phase.PARKED
    host.finish(sent(host), TaskState.FAILED)
    host.tick()
    assert {holds, parked} <= endings(host).keys()
    assert (host.ledger[number].held, host.ledger[number].free) == (0, 4)
    assert not host.state.tasks.dependencies.by_task


def test_end_of_a_reservation_cancels_its_dependent_tasks(host: Claimant) -> None:
    number = host.reserve(4).reservation
    (parent,) = host.submit()
    (child,) = host.under(number, shots=1_000, after=(parent,))
    reservation = host.ledger[number]
    released = ReservationState.RELEASED
    host.keep(host.scheduler.close_reservation(reservation, released, "", 0, host.now_ns))
    assert endings(host)[child].state is TaskState.CANCELLED
    assert not host.state.tasks.dependencies.by_task


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_random_graphs_end_in_order_and_leave_nothing(data: st.DataObject) -> None:
    """No child starts before all its parents are DONE; it fails if and only if one of them did not
    end as DONE; every task ends, whatever is cancelled and whichever worker dies."""
    machine = CheckedScheduler()
    parents: dict[int, tuple[int, ...]] = {}
    running: dict[int, TaskRecord] = {}
    cancelled: set[int] = set()
    started: set[int] = set()
    for _ in range(data.draw(st.integers(1, 40))):
        step = data.draw(st.sampled_from(["submit", "submit", "assign", "finish", "cancel", "die"]))
        ended = endings(machine)
        if step == "submit":
            usable = [n for n in parents if n not in ended or ended[n].state is TaskState.DONE]
            some = st.lists(st.sampled_from(usable), max_size=3, unique=True) if usable else None
            after = tuple(data.draw(some)) if some is not None else ()
            for number in machine.submit(data.draw(st.integers(1, 3)), after=after):
                parents[number] = after
        elif step == "finish" and running:
            record = running.pop(data.draw(st.sampled_from(sorted(running))))
            machine.finish([record], data.draw(st.sampled_from([TaskState.DONE, *UNHAPPY])))
        elif step == "cancel" and (waiting := machine.state.tasks.keys() - running.keys()):
            number = data.draw(st.sampled_from(sorted(waiting)))
            cancelled.add(number)
            machine.keep(machine.scheduler.cancel([number], machine.now_ns)[1])
        elif step == "die" and running:
            worker = data.draw(st.sampled_from(sorted({r.worker for r in running.values()})))
            machine.lose(worker, blame=False)
            running = {n: r for n, r in running.items() if r.worker and r.worker != worker}
            machine.revive()
        else:
            _start(machine, parents, running, started)
        machine.hear()
    for _ in range(4 * len(parents) + 4):
        for record in list(running.values()):
            machine.finish([running.pop(record.number)])
        _start(machine, parents, running, started)
        machine.tick(0.01)
        machine.hear()
    ended = endings(machine)
    assert ended.keys() == parents.keys()
    for number, after in parents.items():
        is_failed = any(ended[parent].state is not TaskState.DONE for parent in after)
        assert (ended[number].reason == DEPENDENCY) == (is_failed and number not in cancelled)
        assert not (is_failed and number in started)
    assert is_empty(machine)


def _start(
    machine: CheckedScheduler, parents: dict[int, tuple[int, ...]], running: dict[int, TaskRecord],
    started: set[int],
) -> None:  # fmt: skip
    for record in sent(machine):
        ended = endings(machine)
        states = [ended[parent].state for parent in parents[record.number] if parent in ended]
        assert states == [TaskState.DONE] * len(parents[record.number])
        running[record.number] = record
        started.add(record.number)
