"""What accounts pay is the time that the service has measured, whatever workers say."""

from __future__ import annotations

import pytest
from checked_scheduler import SECOND, CheckedScheduler, route

from simenv.model import TaskState
from simenv.model.calls import FUNCTIONS
from simenv.scheduler import core
from simenv.scheduler.events.results import DEVICE_DEVIATION
from simenv.wire.messages.client import FLUSH_NS, STATES, AttemptResult

DONE = STATES.index(TaskState.DONE)
MS = 1_000_000
LONGEST_US = 366 * 86_400 * 10**6  # the largest figure of a message


def answer(
    machine: CheckedScheduler, records: list[core.TaskRecord], **figures: int
) -> list[core.TaskEnded]:
    """The worker of these tasks answers now, with these figures for each."""
    results = [AttemptResult(r.number, r.fence, DONE, b"", 0, **figures) for r in records]
    endings = machine.scheduler.tasks_finished(records[0].worker, results, machine.now_ns)
    machine.endings += endings
    return endings


@pytest.mark.parametrize("reported_us", [0, 1, 6_000_000, LONGEST_US])
def test_six_seconds_are_charged_whatever_the_worker_reports(reported_us: int) -> None:
    machine = CheckedScheduler(1)
    machine.submit(1, cost=1e6)
    (send,) = machine.assign()
    machine.begin(send.records[0])
    machine.now_ns += 6 * SECOND
    figures = dict.fromkeys(
        ("start_us", "run_us", "decode_us", "plan_us", "engine_us", "encode_us", "compile_us"),
        reported_us,
    )
    (ending,) = answer(machine, send.records, **figures, device_ns=10**18)
    assert ending.used.slot_us == 6_000_000 * send.slots
    assert ending.used.device_us == 0, "it is on no device"
    assert ending.timing.total_us == 6_000_000, "what it reported is within what was measured"
    assert ending.timing.run_us <= 6_000_000


def test_charges_of_a_worker_add_up_to_the_time_in_which_it_held_tasks() -> None:
    """A thousand tasks of 1 ms: those sent ahead do not pay for their wait in its queue."""
    machine = CheckedScheduler(1)
    machine.submit(1_000, cost=1_000.0)
    begun_ns, chunks = machine.now_ns, []
    while machine.state.tasks:
        chunks += [send.records for send in machine.assign()]
        machine.now_ns += MS * len(chunks[0])
        answer(machine, chunks.pop(0), run_us=LONGEST_US)
    charged_us = [ending.used.slot_us for ending in machine.endings]
    assert sum(charged_us) == (machine.now_ns - begun_ns) // 1000 == 1_000_000
    assert max(charged_us) <= 2_000


def test_task_sent_while_files_of_another_are_moved_pays_from_then_on() -> None:
    machine = CheckedScheduler(1)
    sends = []
    for _ in range(2):
        machine.submit(1, cost=1_000.0)
        sends += machine.assign()
        machine.now_ns += MS // 10
    (record,) = sends[0].records
    results = [AttemptResult(record.number, record.fence, DONE, b"", 0)]
    arrived_ns = machine.now_ns - 3 * MS // 20
    (first,) = machine.scheduler.tasks_finished(record.worker, results, machine.now_ns, arrived_ns)
    (second,) = answer(machine, sends[1].records)
    assert (first.used.slot_us, second.used.slot_us) == (50, 100)
    assert first.timing.total_us == 50


@pytest.mark.parametrize("together", [True, False])
def test_task_pays_for_its_own_time_whichever_results_have_files(together: bool) -> None:
    """One has computed for 6 s, and its file is moved when another, of 40 ms, has ended."""
    machine = CheckedScheduler(1)
    machine.submit(2, cost=10.0)
    (send,) = machine.assign()
    quick, long = send.records if together else send.records[::-1]
    results = {r.number: AttemptResult(r.number, r.fence, DONE, b"", 0) for r in send.records}
    arrived = machine.scheduler.results_arrived
    if together:
        machine.now_ns += 6 * SECOND
        arrived(long.worker, list(results.values()), machine.now_ns)
    else:
        machine.now_ns += 6 * SECOND
        arrived(long.worker, [results[long.number]], machine.now_ns)
        machine.now_ns += 40 * MS
        arrived(quick.worker, [results[quick.number]], machine.now_ns)
    came_ns = machine.now_ns
    machine.now_ns += SECOND  # its file is large
    charged_us = {}
    for record in (quick, long):
        (ending,) = machine.scheduler.tasks_finished(
            record.worker, [results[record.number]], machine.now_ns, came_ns
        )
        machine.endings.append(ending)
        charged_us[record.number] = ending.used.slot_us
    assert charged_us[quick.number] <= (FLUSH_NS // 1000 if together else 40_000)
    assert sum(charged_us.values()) == 6_000_000 + (0 if together else 40_000)


@pytest.mark.parametrize("is_first", [True, False])
def test_wait_of_a_chunk_for_its_files_is_charged_to_nobody(is_first: bool) -> None:
    """Unless the worker ran another one meanwhile."""
    machine = CheckedScheduler(1)
    sends = []
    for _ in range(1 if is_first else 2):
        machine.submit(1, cost=1_000.0)
        sends += machine.assign()
    machine.now_ns += 6 * SECOND
    machine.scheduler.chunk_sent("main-0", sends[-1].records, machine.now_ns)
    machine.now_ns += SECOND
    (ending,) = answer(machine, sends[0].records)
    assert ending.used.slot_us == (1_000_000 if is_first else 7_000_000)


def test_idle_time_of_a_worker_is_charged_to_nobody() -> None:
    machine = CheckedScheduler(1)
    for _ in range(3):
        machine.submit(1, cost=1_000.0)
        (send,) = machine.assign()
        machine.now_ns += MS
        answer(machine, send.records)
        machine.now_ns += 60 * SECOND
        machine.hear()
    assert [ending.used.slot_us for ending in machine.endings] == [1_000] * 3


def test_neighbours_in_a_chunk_do_not_pay_for_a_task_that_takes_long() -> None:
    machine = CheckedScheduler(1)
    machine.submit(20, cost=10.0, owner="ben")
    machine.submit(1, cost=10.0, owner="mal")
    machine.submit(20, cost=10.0, owner="ana")
    (send,) = machine.assign()[:1]
    records = send.records
    last = next(k for k, record in enumerate(records) if record.batch.owner == "mal")
    machine.now_ns += 5 * SECOND  # it loops, and its worker says that the others did
    answer(machine, records[: last + 1][::-1], run_us=1)
    machine.now_ns += 100_000
    answer(machine, records[last + 1 :], run_us=LONGEST_US)
    paid: dict[str, int] = {}
    for ending in machine.endings:
        owner = ending.record.batch.owner
        paid[owner] = paid.get(owner, 0) + ending.used.slot_us
    assert paid["mal"] >= 5_000_000 - FLUSH_NS // 1000
    assert paid["ben"] <= FLUSH_NS // 1000
    assert paid.get("ana", 0) <= FLUSH_NS // 1000 + 100


def test_last_task_is_the_one_that_the_worker_runs_last() -> None:
    """A task that is submitted later may be sent first, and its worker runs it first."""
    machine = CheckedScheduler(1)
    machine.submit(1, cost=10.0)
    machine.submit(1, cost=10.0, class_priority=1)
    (send,) = machine.assign()
    first, last = send.records
    assert first.number > last.number, "they are sent against the order of their numbers"
    machine.now_ns += 6 * SECOND
    answer(machine, send.records, run_us=1)
    charged_us = {ending.record.number: ending.used.slot_us for ending in machine.endings}
    assert charged_us[first.number] <= FLUSH_NS // 1000 < charged_us[last.number]


def test_slots_are_charged_as_they_were_granted_over_the_time() -> None:
    machine = CheckedScheduler(2)
    machine.submit(1, along=route(10e6, max_slots=2))
    (send,) = machine.assign()
    assert send.slots == 2
    machine.begin(send.records[0])
    machine.now_ns += 2 * SECOND
    machine.submit(1, cost=10.0)
    (short,) = machine.assign()  # one of the two slots is taken back
    machine.now_ns += 2 * SECOND
    answer(machine, short.records)
    (ending,) = answer(machine, send.records)
    assert ending.used.slot_us == 2 * 2_000_000 + 1 * 2_000_000


def test_forged_durations_teach_no_more_than_was_measured() -> None:
    machine = CheckedScheduler(1)
    for _ in range(20):
        machine.submit(1, cost=1_000.0)
        (send,) = machine.assign()
        machine.now_ns += MS
        answer(machine, send.records, run_us=LONGEST_US)
    learned = machine.state.estimator.quality(send.records[0].route)
    assert learned.factor <= 1.0 + 1e-9


def functions() -> CheckedScheduler:
    return CheckedScheduler(1, engine=FUNCTIONS, min=1, max=1)


def test_functions_teach_by_the_clock_of_the_service_alone() -> None:
    machine = functions()
    for _ in range(20):
        machine.submit(1, along=route(1_000.0, engine=FUNCTIONS))
        (send,) = machine.assign()
        machine.now_ns += 2 * MS
        answer(machine, send.records, run_us=1)
    assert machine.state.estimator.quality(send.records[0].route).factor > 1.9


def test_functions_of_two_users_neither_share_a_chunk_nor_wait_behind_one_another() -> None:
    machine = functions()
    small = route(10.0, engine=FUNCTIONS)
    machine.submit(4, along=small, owner="mal")
    machine.submit(4, along=small, owner="ben")
    sends = machine.assign()
    assert {record.batch.owner for send in sends for record in send.records} == {"mal"}


@pytest.mark.parametrize("engine", [FUNCTIONS, "any"])
def test_function_that_ends_its_worker_pays_for_its_attempts(engine: str) -> None:
    """A crash of a simulator is not the user's fault; that of code of users is."""
    machine = CheckedScheduler(1, engine=engine, min=1, max=1)
    machine.submit(1, along=route(1e6, engine=FUNCTIONS), owner="mal")
    while machine.state.tasks:
        sends = machine.assign()
        if not sends:
            machine.revive()
            machine.tick(60.0)
            continue
        (record,) = sends[0].records
        machine.begin(record)
        machine.now_ns += 2 * SECOND
        machine.lose(record.worker)
    (ending,) = machine.endings
    assert (ending.state, ending.reason) == (TaskState.FAILED, "poison")
    spent_us = 3 * 2_000_000 * sends[0].slots if engine == FUNCTIONS else 0
    assert ending.used.slot_us == spent_us
    usage = machine.state.shares.fair_share.usage("", "mal", machine.now_ns)
    assert usage == pytest.approx(ending.units, rel=1e-3)


def test_time_on_a_device_is_near_that_of_the_service() -> None:
    machine = CheckedScheduler(1)
    on_device = route(1_000.0, device_shot_ns=10_000.0)  # 1 ms for 100 shots
    for reported_ns, device_us in ((0, 1_000), (10**18, 1_000 * DEVICE_DEVIATION), (1, 250)):
        machine.submit(1, along=on_device)
        (send,) = machine.assign()
        machine.now_ns += MS
        (ending,) = answer(machine, send.records, device_ns=reported_ns)
        assert ending.used.device_us == device_us
