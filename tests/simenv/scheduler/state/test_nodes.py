"""Nodes and crashes."""

from collections import Counter

from checked_scheduler import SECOND, CheckedScheduler, cluster, route
from failing import fails
from simulation import Simulation

from simenv.errors import NotFoundError, OptionError
from simenv.model import PoolSpec, TaskState, WorkerState
from simenv.model.accounts import WaitReason
from simenv.scheduler import core
from simenv.scheduler.views.cluster_info import node_infos, pool_info
from simenv.wire.messages.client import STATES, AttemptResult


def where(machine: CheckedScheduler) -> Counter[str]:
    return Counter(w.host.node.name for w in machine.state.cluster.workers.values() if w.is_live)


def notes(machine: CheckedScheduler) -> list[str]:
    return [action.kind for action in machine.actions if isinstance(action, core.RecordEvent)]


def test_workers_and_circuits_are_spread_evenly_over_nodes() -> None:
    machine = CheckedScheduler(6, cluster(2, 2, 2))
    assert where(machine) == {"n1": 2, "n2": 2, "n3": 2}
    starts = [a for a in machine.actions if isinstance(a, core.StartWorker)]
    first = starts[0].start
    assert [a.start for a in starts] == list(range(first, first + 6))
    assert all(len(a.shares) == 1 and a.shares[0].ranks == 1 for a in starts)
    simulation = Simulation(cluster(2, 2, 2), PoolSpec("main", min=6, max=6))
    simulation.run(1.0, until_idle=False)
    task = simulation.submit(64, cost=50_000.0)
    simulation.run(60.0)
    counts = Counter(simulation.ran_on[number] for number in task)
    assert max(counts.values()) <= 1.5 * min(counts.values())
    assert len(counts) == 3


def test_each_slot_is_granted_once_and_one_left_to_short_tasks() -> None:
    machine = CheckedScheduler(9, cluster(2, 2, 2))
    machine.submit(9, cost=100_000.0)
    assert len(machine.assign()) == 6
    assert all(host.free_slots == 0 for host in machine.state.cluster.nodes.hosts.values())
    machine = CheckedScheduler(4, cluster(2, 2))
    machine.submit(1)
    for send in machine.assign():
        machine.finish(send.records)
    machine.submit(4, cost=5e6)
    sends = machine.assign()
    assert {machine.state.cluster.workers[s.worker].host.node.name for s in sends} == {"n1", "n2"}
    assert [s.slots for s in sends] == [1, 1]


def test_wide_tasks_take_slots_and_memory_of_one_node() -> None:
    machine = CheckedScheduler(2, cluster(2, 4))
    machine.tick(5)
    machine.submit(1, cost=900_000.0)
    (send,) = machine.assign()
    assert send.slots == 4
    machine = CheckedScheduler(2, cluster(1, 1))
    machine.submit(2, along=route(60_000.0, memory_bytes=2**29))
    assert len(machine.assign()) == 2
    machine.submit(1, along=route(60_000.0, memory_bytes=2**20))
    assert machine.assign() == []


def test_messages_of_earlier_worker_start_are_ignored() -> None:
    machine = CheckedScheduler(1, cluster(2))
    old = machine.start_of("main-0")
    machine.lose("main-0")
    machine.now_ns += 2 * SECOND
    machine.tick()
    new = machine.start_of("main-0")
    assert new > old
    scheduler, now_ns = machine.scheduler, machine.now_ns
    assert scheduler.worker_joined("main-0", old, "n1", 1, now_ns) is False
    assert scheduler.heartbeat_received(core.WorkerHeartbeat("main-0", old), now_ns) == (False, [])
    assert scheduler.worker_lost("main-0", old, "exit 1", now_ns) == []
    assert scheduler.worker_joined("main-0", new, "n1", 1, now_ns) is True
    assert scheduler.heartbeat_received(core.WorkerHeartbeat("main-0", new), now_ns) == (True, [])


def test_worker_that_only_sends_heartbeats_is_not_ready() -> None:
    machine = CheckedScheduler(1, cluster(2))
    machine.lose("main-0")
    machine.tick(2.0)
    start = machine.start_of("main-0")
    beat = core.WorkerHeartbeat("main-0", start)
    for _ in range(machine.state.limits.start_timeout_ns // SECOND + 2):
        machine.scheduler.heartbeat_received(beat, machine.now_ns)
        machine.tick(1.0)
    assert "main-0" not in machine.state.cluster.workers or machine.start_of("main-0") != start


def test_worker_that_starts_is_ended_for_want_of_progress_and_not_of_time() -> None:
    machine = CheckedScheduler(1, cluster(2))
    machine.lose("main-0")
    machine.tick(2.0)
    start, seconds = machine.start_of("main-0"), machine.state.limits.start_timeout_ns // SECOND
    begin_ns = machine.now_ns
    for second in range(10 * seconds):  # a twentieth of each second is its own
        machine.scheduler.worker_starts("main-0", start, machine.now_ns - second * SECOND // 20)
        machine.tick(1.0)
    assert machine.start_of("main-0") == start
    machine.scheduler.worker_starts("main-0", start, begin_ns)  # an older time changes nothing
    machine.scheduler.worker_starts("main-0", start - 1, machine.now_ns)  # nor an earlier start
    for _ in range(seconds // 2 + 2):
        machine.tick(1.0)
    assert "main-0" not in machine.state.cluster.workers or machine.start_of("main-0") != start
    killed = [action for action in machine.actions if isinstance(action, core.KillWorker)]
    assert "without progress: start_timeout_s" in killed[-1].reason


def test_late_heartbeat_makes_no_task_older() -> None:
    machine = CheckedScheduler(1, cluster(1))
    machine.submit(1)
    (send,) = machine.assign()
    (record,) = send.records
    worker = machine.state.cluster.workers[send.worker]
    heard_ns = worker.heard_ns
    beat = core.WorkerHeartbeat(worker.name, worker.start, record.number, record.fence)
    assert machine.scheduler.heartbeat_received(beat, machine.now_ns, 9 * SECOND) == (True, [])
    assert record.started_ns == machine.now_ns
    assert worker.heard_ns == heard_ns


def test_worker_name_is_reused_only_after_its_process_ended() -> None:
    host = CheckedScheduler(1, cluster(2))
    old = host.start_of("main-0")
    host.keep(host.scheduler.worker_unusable("main-0", "it cannot be reached", host.now_ns))
    host.tick(1.1)
    assert list(host.state.cluster.workers) == ["main-1"]
    host.keep(host.scheduler.worker_lost("main-0", old, "signal 9", host.now_ns))
    host.lose("main-1")
    host.tick(2.1)
    assert list(host.state.cluster.workers) == ["main-0"]


def test_drained_node_finishes_its_tasks_and_retires_its_workers() -> None:
    machine = CheckedScheduler(2, cluster(2, 2))
    machine.submit(1, cost=60_000.0)
    (send,) = machine.assign()
    busy = machine.state.cluster.workers[send.worker]
    node = busy.host.node.name
    actions = machine.keep(machine.scheduler.drain_node(node, "disk", machine.now_ns))
    assert [type(a) for a in actions] == [core.RecordEvent]  # the busy one finishes
    machine.revive()
    assert where(machine) == {({"n1", "n2"} - {node}).pop(): 2}
    assert len(machine.finish(send.records)) == 1
    (retired,) = [a for a in machine.tick() if isinstance(a, core.RetireWorker)]
    assert (retired.worker, retired.start) == (busy.name, busy.start)
    machine.lose(busy.name, "exit 0")
    machine.submit(8, cost=60_000.0)
    assert all(
        machine.state.cluster.workers[s.worker].host.node.name != node for s in machine.assign()
    )
    info = {n.name: n for n in node_infos(machine.state)}[node]
    assert (info.state, info.reason, info.workers) == ("drained", "disk", 0)


def test_worker_that_starts_on_drained_node_is_retired() -> None:
    machine = CheckedScheduler(1, cluster(2, 2))
    machine.lose("main-0", blame=False)
    machine.tick(1.5)
    (worker,) = machine.state.cluster.workers.values()
    assert worker.state == WorkerState.STARTING
    machine.keep(machine.scheduler.drain_node(worker.host.node.name, "", machine.now_ns))
    machine.join(worker.name)
    machine.submit(1)
    assert machine.assign() == []
    assert any(isinstance(a, core.RetireWorker) for a in machine.tick())


def test_resumed_node_gets_workers_again() -> None:
    machine = CheckedScheduler(2, cluster(2, 2))
    machine.keep(machine.scheduler.drain_node("n1", "disk", machine.now_ns))
    for name in list(machine.state.cluster.workers):
        if machine.state.cluster.workers[name].state == WorkerState.DRAINING:
            machine.lose(name, "exit 0")
    machine.revive()
    assert where(machine) == {"n2": 2}
    machine.keep(machine.scheduler.resume("n1"))
    machine.keep(machine.scheduler.scale("main", 3, 3))
    machine.revive()
    assert where(machine) == {"n1": 1, "n2": 2}


def test_draining_or_resuming_unknown_node_is_refused() -> None:
    machine = CheckedScheduler(1, cluster(2))
    error = fails(NotFoundError, "'n9'", machine.scheduler.drain_node, "n9", "", machine.now_ns)
    assert "nodes: n1; pools: main" in error.hint
    fails(NotFoundError, "'n9'", machine.scheduler.resume, "n9")


def test_lost_node_charges_neither_its_tasks_nor_its_pool() -> None:
    machine = CheckedScheduler(2, cluster(2, 2))
    (number,) = machine.submit(1, cost=60_000.0)
    for _ in range(10):
        (send,) = machine.assign()
        machine.begin(send.records[0])
        node = machine.state.cluster.workers[send.worker].host.node.name
        actions = machine.keep(machine.scheduler.node_lost(node, "no answer", machine.now_ns))
        assert any(isinstance(a, core.KillWorker) for a in actions)
        machine.revive()
        machine.keep(machine.scheduler.node_back(node))
    assert (machine.endings, machine.state.tasks[number].deaths) == ([], 0)
    assert machine.state.cluster.pools["main"].starts.failures == 0
    assert notes(machine).count("node.lost") == notes(machine).count("node.back") == 10


def test_lost_nodes_get_no_workers_until_back_and_stay_drained() -> None:
    machine = CheckedScheduler(2, cluster(2, 2))
    machine.keep(machine.scheduler.node_lost("n1", "its daemon is gone", machine.now_ns))
    assert machine.scheduler.node_lost("n1", "again", machine.now_ns) == []
    machine.revive()
    assert where(machine) == {"n2": 2}
    machine.keep(machine.scheduler.node_back("n1"))
    machine.keep(machine.scheduler.scale("main", 3, 3))
    machine.revive()
    assert where(machine) == {"n1": 1, "n2": 2}
    machine = CheckedScheduler(1, cluster(2, 2))
    machine.keep(machine.scheduler.drain_node("n2", "disk", machine.now_ns))
    machine.keep(machine.scheduler.node_lost("n2", "off", machine.now_ns))
    assert node_infos(machine.state)[1].state == "lost"
    machine.keep(machine.scheduler.node_back("n2"))
    assert node_infos(machine.state)[1].state == "drained"
    machine.keep(machine.scheduler.resume("n2"))
    assert node_infos(machine.state)[1].state == "up"


def test_node_whose_workers_are_all_silent_is_lost() -> None:
    machine = CheckedScheduler(4, cluster(2, 2))
    for _ in range(6):
        machine.now_ns += 2 * SECOND
        for worker in machine.state.cluster.workers.values():
            if worker.host.node.name == "n1":
                worker.heard_ns = machine.now_ns
        machine.tick()
    infos = {info.name: info for info in node_infos(machine.state)}
    assert (infos["n1"].state, infos["n2"].state) == ("up", "lost")
    assert "silent" in infos["n2"].reason
    assert where(machine)["n1"] == 4


def test_one_silent_worker_does_not_make_its_node_lost() -> None:
    machine = CheckedScheduler(4, cluster(2, 2))
    for _ in range(6):
        machine.now_ns += 2 * SECOND
        for worker in machine.state.cluster.workers.values():
            if worker.name != "main-1":
                worker.heard_ns = machine.now_ns
        machine.tick()
    assert all(info.state == "up" for info in node_infos(machine.state))
    assert "worker.lost" in notes(machine)


def test_silent_lone_worker_charges_its_task_only_if_its_own_end_is_reported() -> None:
    machine = CheckedScheduler(2, cluster(1, 1))
    (number,) = machine.submit(1, cost=60e6)
    for deaths in (0, 1, 2, 2):
        (send,) = machine.assign()
        machine.begin(send.records[0])
        start = machine.start_of(send.worker)
        for _ in range(6):
            machine.now_ns += 2 * SECOND
            for worker in machine.state.cluster.workers.values():
                if worker.name != send.worker:
                    worker.heard_ns = machine.now_ns
            machine.tick()
        assert send.worker not in machine.state.cluster.workers
        if deaths == 2:  # the attempts of a task that silences its workers are bounded
            break
        record = machine.state.tasks[number]
        assert record.deaths == deaths
        report = send.worker, start, "signal 9", machine.now_ns
        machine.keep(machine.scheduler.worker_lost(*report))
        assert record.deaths == deaths + 1
        machine.now_ns += 61 * SECOND
        machine.hear()
        machine.revive()
    (ending,) = machine.endings
    assert ending.reason == "poison"


def test_task_of_a_lone_worker_on_a_lost_node_is_not_charged() -> None:
    machine = CheckedScheduler(2, cluster(1, 1))
    (number,) = machine.submit(1, cost=60e6)
    (send,) = machine.assign()
    machine.begin(send.records[0])
    start = machine.start_of(send.worker)
    for worker in machine.state.cluster.workers.values():
        worker.heard_ns += (11 * SECOND) * (worker.name != send.worker)
    machine.tick(11.0)
    report = send.worker, start, "its node is gone", machine.now_ns
    machine.keep(machine.scheduler.worker_lost(*report, blame=False))
    assert machine.state.tasks[number].deaths == 0
    assert not machine.state.cluster.uncharged


def test_wait_while_no_node_is_up_has_its_own_reason() -> None:
    machine = CheckedScheduler(1, cluster(2))
    machine.keep(machine.scheduler.drain_node("n1", "disk", machine.now_ns))
    machine.lose("main-0", "exit 0")
    machine.submit(1)
    assert not machine.assign()
    machine.now_ns += 3 * SECOND
    machine.keep(machine.scheduler.resume("n1"))
    assert not machine.assign()  # workers start
    machine.now_ns += 2 * SECOND
    machine.tick()
    machine.revive()
    (send,) = machine.assign()
    waits = dict(send.records[0].waits)
    assert waits == {WaitReason.NODES: 3_000_000, WaitReason.STARTING: 2_000_000}


def test_starts_are_retried_on_other_configured_nodes() -> None:
    machine = CheckedScheduler(1, cluster(2, 2))
    machine.lose("main-0", blame=False)
    machine.tick(1.5)
    (worker,) = machine.state.cluster.workers.values()
    first = worker.host.node.name
    machine.lose(worker.name, "exit 1")
    machine.tick(2.5)
    (worker,) = machine.state.cluster.workers.values()
    assert worker.host.node.name != first
    spec = PoolSpec("main", min=3, max=3, nodes="n2,n3*")
    assert set(where(CheckedScheduler(limits=cluster(2, 2, 2), specs=(spec,)))) == {"n2", "n3"}


def test_scaling_starts_and_retires_workers_but_not_busy_ones() -> None:
    machine = CheckedScheduler(3, cluster(4))
    machine.submit(1, cost=60_000.0)
    (send,) = machine.assign()
    machine.keep(machine.scheduler.scale("main", 0, 1))
    retired = [a.worker for a in machine.tick() if isinstance(a, core.RetireWorker)]
    assert len(retired) == 2
    assert send.worker not in retired
    machine.keep(machine.scheduler.scale("main", 4, 4))
    assert sum(isinstance(a, core.StartWorker) for a in machine.tick()) == 3
    error = fails(NotFoundError, "no pool 'other'", machine.scheduler.scale, "other", 1, 1)
    assert "pools: main" in error.hint
    fails(OptionError, "is not a range", machine.scheduler.scale, "main", 2, 1)


def test_pools_share_slots_evenly_when_one_has_many_tasks() -> None:
    specs = tuple(PoolSpec(name, min=6, max=6) for name in ("one", "two", "three"))
    simulation = Simulation(cluster(2, 2, 2), *specs)
    simulation.run(1.0, until_idle=False)
    flood = simulation.submit(2_000, along=route(5_000.0, pool="one"))
    simulation.run(0.5, until_idle=False)
    assert {w.pool for w in simulation.state.cluster.workers.values() if w.held} == {"one"}
    others = {p: simulation.submit(200, along=route(5_000.0, pool=p)) for p in ("two", "three")}
    simulation.slot_ns = simulation.span_ns = 0
    simulation.run(0.2, until_idle=False)
    slots = Counter(w.pool for w in simulation.state.cluster.workers.values() if w.held)
    assert slots == {"one": 2, "two": 2, "three": 2}
    simulation.run(60.0)
    assert simulation.used > 0.85
    last = max(simulation.ended[number] for each in others.values() for number in each)
    assert last < max(simulation.ended[number] for number in flood)


def test_idle_worker_on_occupied_node_is_replaced_on_node_with_free_slot() -> None:
    specs = (PoolSpec("main", min=2, max=2), PoolSpec("other", min=1, max=1, nodes="n2"))
    run = Simulation(cluster(1, 1, 1), *specs)
    run.run(1.0, until_idle=False)
    assert {w.host.node.name for w in run.state.cluster.workers.values() if w.pool == "main"} == {
        "n1", "n2"
    }  # fmt: skip
    for pool, node in (("other", "n2"), ("main", "n1")):
        (long,) = run.submit(along=route(900e6, pool=pool, max_slots=1))
        run.run(0.1, until_idle=False)
        assert run.ran_on[long] == node
    (waits,) = run.submit(cost=1_000.0)
    run.run(10.0, until_idle=False)
    assert run.ran_on.get(waits) == "n3", "the one on n2 has no slot for long"
    assert len(run.state.cluster.pools["main"].workers) == 2


def test_worker_is_moved_to_node_with_memory_for_waiting_task() -> None:
    machine = CheckedScheduler(1, cluster(2, 8))
    (worker,) = machine.state.cluster.workers.values()
    assert worker.host.node.name == "n2"  # the roomier one
    machine.keep(machine.scheduler.node_lost("n2", "off", machine.now_ns))
    machine.revive()
    assert where(machine) == {"n1": 1}
    machine.keep(machine.scheduler.node_back("n2"))
    (number,) = machine.submit(1, along=route(60_000.0, memory_bytes=3 * 2**30))
    assert machine.assign() == []
    (retired,) = [a for a in machine.tick() if isinstance(a, core.RetireWorker)]
    machine.lose(retired.worker, "exit 0")
    machine.revive()
    (send,) = machine.assign()
    assert send.records[0].number == number
    assert machine.state.cluster.workers[send.worker].host.node.name == "n2"


def test_a_lost_task_goes_to_the_front_with_its_next_attempt(machine: CheckedScheduler) -> None:
    first, second, third = machine.submit(3, cost=60_000.0)
    (send,) = machine.assign()
    machine.begin(send.records[0])
    machine.lose("main-0")
    machine.revive()
    (again,) = machine.assign()
    assert (again.records[0].number, again.records[0].attempts) == (first, 2)
    assert [r.number for r in machine.state.cluster.pools["main"].queue] == [second, third]


def test_late_result_of_lost_attempt_is_ignored(machine: CheckedScheduler) -> None:
    machine.submit(1, cost=60_000.0)
    (send,) = machine.assign()
    record = send.records[0]
    late = AttemptResult(
        record.number, record.fence, STATES.index(TaskState.DONE), b"", 0, start_us=1, run_us=1
    )
    machine.lose("main-0")
    machine.revive()
    (again,) = machine.assign()
    assert machine.scheduler.tasks_finished("main-0", [late], machine.now_ns) == []
    assert len(machine.finish(again.records)) == 1


def test_task_that_kills_three_workers_alone_fails_as_poison(machine: CheckedScheduler) -> None:
    machine.submit(1)
    for _ in range(3):
        machine.assign()
        machine.lose("main-0", "signal 11 (SIGSEGV)")
        machine.revive()
    (ending,) = machine.endings
    assert ending.state is TaskState.FAILED
    assert ending.reason == "poison"
    assert "SIGSEGV" in ending.message


def test_only_crashing_task_of_chunk_is_charged(machine: CheckedScheduler) -> None:
    task = machine.submit(20)
    guilty = task[7]
    finished: set[int] = set()
    for _ in range(200):
        for send in machine.assign():
            for place, record in enumerate(send.records):
                if record.number == guilty:
                    done = send.records[:place]
                    if done:
                        machine.finish(done)
                        finished.update(r.number for r in done)
                    machine.lose("main-0", "signal 11 (SIGSEGV)")
                    machine.revive()
                    break
            else:
                value = machine.state.cluster.workers["main-0"].held
                records = [r for r in send.records if r.number in value]
                if records:
                    machine.finish(records)
                    finished.update(r.number for r in records)
        if not machine.state.tasks:
            break
    poisoned = [e for e in machine.endings if e.state is TaskState.FAILED]
    assert ([e.record.number for e in poisoned], finished) == ([guilty], set(task) - {guilty})
    assert all(e.record.deaths == 0 for e in machine.endings if e.record.number != guilty)


def test_other_suspects_are_cleared_once_crashing_task_is_known(machine: CheckedScheduler) -> None:
    machine.submit(10)
    machine.assign()
    machine.lose("main-0")
    machine.revive()
    machine.assign()
    machine.lose("main-0")  # alone this time: it is the one
    assert len([r for r in machine.state.tasks.values() if r.incident]) == 1


def test_running_task_is_charged_for_crash_prefetched_one_not(machine: CheckedScheduler) -> None:
    machine.submit(2, cost=4_000.0)
    sends = machine.assign()
    assert len(sends) == 2
    machine.begin(sends[0].records[0])
    machine.lose("main-0")
    first, second = (machine.state.tasks[s.records[0].number] for s in sends)
    assert (first.deaths, second.deaths, second.incident) == (1, 0, 0)


def test_worker_without_heartbeats_is_killed_its_task_requeued(machine: CheckedScheduler) -> None:
    (number,) = machine.submit(1, cost=60_000.0)
    machine.assign()
    for _ in range(6):
        machine.tick(2.0)
    assert any(isinstance(action, core.KillWorker) for action in machine.actions)
    assert machine.state.tasks[number].phase == core.Phase.WAITING


def test_silent_hardware_worker_is_lost_only_without_a_task() -> None:
    machine = CheckedScheduler(specs=(PoolSpec("qpu", "hardware", provider="a:b"),))
    machine.submit(1, along=route(1e6, pool="qpu", engine="hardware"))
    (send,) = machine.assign()
    for _ in range(250):
        machine.tick(2.0)
    assert "qpu-0" in machine.state.cluster.workers
    machine.finish(send.records)
    for _ in range(4):
        machine.tick(2.0)
    assert "qpu-0" in machine.state.cluster.workers
    for _ in range(2):
        machine.tick(2.0)
    assert any("silent for" in str(action) for action in machine.actions)


def test_silent_worker_is_not_lost_after_service_was_suspended(machine: CheckedScheduler) -> None:
    machine.submit(1, cost=60_000.0)
    machine.assign()
    machine.tick(3600.0)
    assert "main-0" in machine.state.cluster.workers


def test_start_failures_back_off_and_end_in_quarantine(machine: CheckedScheduler) -> None:
    machine.lose("main-0", "exit 1")
    starts = 0
    for _ in range(300):
        for action in machine.tick(1.0):
            if isinstance(action, core.StartWorker):
                starts += 1
                machine.lose(action.worker, "exit 1")
    assert starts == 6
    assert machine.state.cluster.pools["main"].starts.is_quarantined
    notes = [a.kind for a in machine.actions if isinstance(a, core.RecordEvent)]
    assert notes.count("pool.quarantined") == 1


def test_a_worker_that_dies_with_a_task_is_replaced_at_once(machine: CheckedScheduler) -> None:
    machine.submit(1)
    machine.assign()
    machine.lose("main-0")
    assert any(isinstance(action, core.StartWorker) for action in machine.tick())


def test_worker_that_gave_up_its_lease_charges_no_task(machine: CheckedScheduler) -> None:
    (number,) = machine.submit(1)
    for _ in range(4):
        machine.assign()
        machine.lose("main-0", "exit 3", blame=False)
        machine.revive()
    assert (machine.endings, machine.state.tasks[number].deaths) == ([], 0)


def test_repeated_launcher_failures_back_off_worker_starts() -> None:
    machine = CheckedScheduler(4, cluster(4))
    for name in list(machine.state.cluster.workers):
        machine.lose(name, blame=False)
    machine.tick(1.0)
    assert machine.starts() == 8, "those that die together count as one"
    for name in list(machine.state.cluster.workers):
        machine.join(name)
    begun = machine.starts()
    for _ in range(120):
        for name in list(machine.state.cluster.workers):
            machine.lose(name, "its DVM was lost", blame=False)
        machine.tick(1.0)
    assert 4 * 8 <= machine.starts() - begun <= 4 * 14
    assert machine.state.cluster.pools["main"].starts.failures == 0


def messages(machine: CheckedScheduler, kind: str) -> list[str]:
    found = [a for a in machine.actions if isinstance(a, core.RecordEvent) and a.kind == kind]
    return [each.message for each in found]


def test_starts_that_a_lost_launcher_fails_are_repeated_and_never_quarantine_their_pool(
    machine: CheckedScheduler,
) -> None:
    machine.lose("main-0", "its DVM was lost", blame=False)
    machine.keep(machine.scheduler.launcher_lost("DVM 1", "prted died", machine.now_ns))
    starts = 0
    for _ in range(120):
        for action in machine.tick(1.0):
            if isinstance(action, core.StartWorker):
                starts += 1
                machine.lose(action.worker, "given up after 5 tries", blame=starts % 2 == 0)
    pool = machine.state.cluster.pools["main"]
    assert not pool.starts.is_quarantined
    assert 7 < starts < 20
    info = pool_info(machine.state, pool)
    assert (info.state, info.reason) == ("degraded", "given up after 5 tries")
    assert "not counted as a failure of the pool: given up" in messages(machine, "pool.backoff")[-1]
    machine.keep(machine.scheduler.launcher_started("DVM 1", "on two nodes"))
    (start,) = [a for a in machine.tick(0.1) if isinstance(a, core.StartWorker)]
    machine.join(start.worker)
    assert pool_info(machine.state, pool).state == "up"


def test_quarantine_by_workers_that_died_with_their_launcher_ends(
    machine: CheckedScheduler,
) -> None:
    pool = machine.state.cluster.pools["main"]
    for _ in range(6):
        pool.starts.record_failure("exit 1", machine.now_ns)
    machine.tick(10.0)
    machine.lose("main-0", "signal 9")
    assert pool.starts.is_quarantined
    machine.keep(machine.scheduler.launcher_lost("DVM 1", "prted died", machine.now_ns))
    assert (pool.starts.is_quarantined, pool.starts.failures) == (False, 6)
    assert messages(machine, "pool.resumed") == [
        "its last 1 failures do not count: DVM 1 was lost: prted died"
    ]


def test_worker_that_runs_none_of_its_tasks_is_replaced(machine: CheckedScheduler) -> None:
    (number,) = machine.submit(1, cost=60_000.0)
    machine.assign()
    start, now_ns = machine.start_of("main-0"), machine.now_ns
    for _ in range(20):  # sent before the chunk, and received after a stall of the service
        earlier = core.WorkerHeartbeat("main-0", start, grants=machine.state.dispatch.grants - 1)
        assert machine.scheduler.heartbeat_received(earlier, now_ns) == (True, [])
    heartbeat = core.WorkerHeartbeat("main-0", start, grants=machine.state.dispatch.grants), now_ns
    for _ in range(2):
        assert machine.scheduler.heartbeat_received(*heartbeat) == (True, [])
    machine.keep(machine.scheduler.heartbeat_received(*heartbeat)[1])
    record = machine.state.tasks[number]
    assert (record.phase, record.deaths) == (core.Phase.WAITING, 0)
    assert any(isinstance(action, core.KillWorker) for action in machine.actions)


def test_a_worker_that_loads_kernels_keeps_the_tasks_it_was_sent(machine: CheckedScheduler) -> None:
    (number,) = machine.submit(1, cost=60_000.0)
    machine.assign()
    start = machine.start_of("main-0")
    for _ in range(20):
        beat = core.WorkerHeartbeat("main-0", start, waiting=False)
        assert machine.scheduler.heartbeat_received(beat, machine.now_ns) == (True, [])
    assert machine.state.tasks[number].worker == "main-0"


def test_unannounced_task_seen_by_heartbeat_is_not_charged_alone(machine: CheckedScheduler) -> None:
    machine.submit(4, cost=10.0)
    machine.submit(1, cost=4_000.0)
    first, second = machine.assign()
    assert (first.announce, second.announce) == (False, True)
    machine.begin(first.records[0])  # by a heartbeat; the next one may run by now
    machine.lose("main-0", "signal 11 (SIGSEGV)")
    assert all(record.incident for record in machine.state.tasks.values())
    assert all(record.deaths == 0 for record in machine.state.tasks.values())


def test_cancelling_all_suspects_closes_their_incident(machine: CheckedScheduler) -> None:
    task = machine.submit(10)
    machine.assign()
    machine.lose("main-0")
    machine.keep(machine.scheduler.cancel(task, machine.now_ns)[1])
    assert not machine.state.tasks.incidents._open
