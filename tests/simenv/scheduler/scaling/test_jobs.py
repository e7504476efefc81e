"""Jobs of the site for a pool: how many are submitted, when their nodes are drained and ended."""

import random
from dataclasses import replace

import msgspec
import pytest
from checked_scheduler import LIMITS, SECOND, CheckedScheduler, route

from launcher.base import Node
from simenv.model import JobSpec, PoolSpec, ProgressInfo
from simenv.scheduler import core
from simenv.scheduler.scaling.jobs import JobDemand, jobs_to_submit
from simenv.scheduler.state.nodes import NodeJobPhase
from simenv.scheduler.views.cluster_info import node_infos
from simenv.scheduler.views.pending_reasons import pending_reason

START_NS = 10 * SECOND
NONE = JobDemand(0, 0, 0.0, 0, 0, 0, 1, 0, 16, START_NS)
JOBS = JobSpec("slurm", 3_600.0)
POOL = PoolSpec("big", min=0, max=4, idle_s=60.0, nodes="big:*", jobs=JOBS)
NODES = tuple(Node(f"big:{k}", 1, 2**30, block=k, pool="big") for k in range(1, 5))
LAST_NS = 60 * SECOND  # before the end of a job of an hour, in which its node is drained


def demand(**changes: float) -> JobDemand:
    """A demand; present workers are busy."""
    return msgspec.structs.replace(NONE, **{"busy": changes.get("workers", 0), **changes})


class JobScheduler(CheckedScheduler):
    """A scheduler with one pool, whose nodes come by jobs."""

    def __init__(self, spec: PoolSpec = POOL, nodes: tuple[Node, ...] = NODES) -> None:
        limits = msgspec.structs.replace(LIMITS, nodes=(Node("login", 2, 2**30), *nodes))
        super().__init__(limits=limits, specs=(spec,))

    def task(self, seconds: float = 1.0, count: int = 1) -> list[int]:
        return self.submit(count, along=route(seconds * 1e6, pool="big", max_slots=1))

    def submitted(self) -> list[str]:
        """Nodes whose jobs are submitted and have not begun."""
        hosts = self.state.cluster.nodes.of_jobs("big")
        return [h.node.name for h in hosts if h.job and h.job.phase is NodeJobPhase.SUBMITTED]

    def begin_job(self, name: str, length_s: float = 3_600.0, slots: int = 1) -> None:
        """The node joins, and its workers become ready."""
        node = replace(
            self.state.cluster.nodes.hosts[name].node, slots=slots, memory_bytes=slots * 2**30
        )
        end_ns = self.now_ns + round(length_s * SECOND) if length_s else 0
        self.keep(self.scheduler.node_joined(node, "Slurm job 7", end_ns, self.now_ns))
        self.revive()

    def end_job(self, name: str, reason: str = "exit 0") -> None:
        self.keep(self.scheduler.job_over(name, reason, self.now_ns))
        for worker, start in list(self.state.cluster.unreaped_workers.items()):
            self.keep(self.scheduler.worker_lost(worker, start, reason, self.now_ns, blame=False))

    def ended(self) -> list[str]:
        return [action.node for action in self.actions if isinstance(action, core.EndJob)]

    def told(self, kind: str) -> list[str]:
        events = (action for action in self.actions if isinstance(action, core.RecordEvent))
        return [event.subject for event in events if event.kind == kind]


# --- how many -------------------------------------------------------------------------------------


SEVERAL = {"per_job": 8, "most": 64}


@pytest.mark.parametrize(
    ("submitted", "waiting", "work_s", "changes"),
    [
        (0, 0, 0, {}), (0, 0, 0, {"workers": 3}),  # nothing waits
        (1, 1, 1e-9, {}), (0, 1, 1e-9, {"coming": 1}),  # the first task, however short it is
        (0, 100, 10, {"workers": 1}),  # done before a new job could begin
        (0, 100, 29, {"workers": 1}),  # what is left then is worth less than two workers' starts
        (1, 100, 30, {"workers": 1}), (3, 100, 50, {"workers": 1}), (0, 100, 50, {"workers": 4}),
        (12, 100, 1_000, {"workers": 4}),  # up to the largest number
        (0, 100, 600, {"workers": 1, "start_ns": 300 * SECOND}),  # the queue of the site is long
        (2, 2, 10_000, {}), (2, 2, 10_000, {"workers": 1}),  # tasks bound the workers
        (0, 1, 10_000, {"workers": 1, "busy": 0}),  # a worker is idle
        (8, 100, 1_000, SEVERAL), (2, 9, 1_000, SEVERAL),  # a job counts for all its workers
        (2, 0, 0, {"least": 2}), (0, 0, 0, {"least": 2, "workers": 1, "coming": 1}),
        (1, 1, 1_000, {"late": 1, "workers": 2}),  # it is too long for present jobs
        (0, 1, 1_000, {"late": 1, "workers": 1, "coming": 1}),
        (0, 1, 1_000, {"late": 1, "workers": 2, "most": 2}),
    ],
)  # fmt: skip
def test_jobs_are_submitted_for_work_that_is_worth_their_start(
    submitted: int, waiting: int, work_s: float, changes: dict[str, float]
) -> None:
    wanted = demand(waiting=waiting, backlog_ns=work_s * SECOND, **changes)
    assert jobs_to_submit(wanted) == submitted


# --- life of a node -------------------------------------------------------------------------------


def test_node_joins_runs_tasks_and_is_ended_after_idling() -> None:
    machine = JobScheduler()
    machine.tick(1)
    assert machine.submitted() == []
    assert [info.name for info in node_infos(machine.state)] == ["login"]
    (task,) = machine.task()
    machine.tick(1)
    assert machine.submitted() == ["big:1"]
    machine.begin_job("big:1")
    (send,) = machine.assign()
    assert [record.number for record in send.records] == [task]
    machine.finish(send.records)
    machine.tick(59)
    assert machine.ended() == []
    machine.tick(2)
    worker = next(iter(machine.state.cluster.workers))
    machine.lose(worker, "exit 0", blame=False)
    machine.tick(0.1)
    assert machine.ended() == ["big:1"]
    machine.tick(1)
    assert machine.ended() == ["big:1"], "it was told twice"
    machine.end_job("big:1")
    assert machine.told("node.left") == ["big:1"]
    machine.task()
    machine.tick(1)
    assert machine.submitted() == ["big:1"], "the node cannot come again"


def test_workers_of_the_pool_run_on_its_own_nodes_alone() -> None:
    machine = JobScheduler()
    machine.task(count=3, seconds=100.0)
    machine.tick(1)
    assert not machine.state.cluster.workers
    for name in machine.submitted():
        machine.begin_job(name)
    assert {w.host.node.name for w in machine.state.cluster.workers.values()} == {
        "big:1", "big:2", "big:3",
    }  # fmt: skip


def test_submitted_jobs_are_cancelled_when_nothing_waits() -> None:
    machine = JobScheduler()
    (task,) = machine.task()
    machine.tick(1)
    machine.keep(machine.scheduler.cancel([task], machine.now_ns)[1])
    machine.tick(1)
    assert machine.ended() == ["big:1"]
    assert machine.submitted() == []


def test_refused_job_delays_the_next_and_quarantines_the_pool_in_the_end() -> None:
    machine = JobScheduler()
    machine.task()
    machine.tick(1)
    machine.keep(machine.scheduler.job_refused("big:1", "sbatch: no account", machine.now_ns))
    machine.tick(0.5)
    assert machine.submitted() == []
    for _ in range(6):
        machine.tick(61)
        (name,) = machine.submitted()
        machine.keep(machine.scheduler.job_refused(name, "sbatch: no account", machine.now_ns))
    machine.tick(1_000)
    assert machine.submitted() == []
    record = next(iter(machine.state.tasks.values()))
    reason = pending_reason(machine.state, record, machine.now_ns)
    assert "quarantined" in reason
    assert "no account" in reason


def test_job_that_the_site_withdraws_before_its_node_joins_charges_no_pool() -> None:
    machine = JobScheduler()
    machine.task()
    for _ in range(10):  # more than quarantine a pool
        machine.tick(20)
        (name,) = machine.submitted()
        events = machine.scheduler.job_refused(name, "PREEMPTED", machine.now_ns, blame=False)
        machine.keep(events)
    machine.tick(20)
    assert len(machine.submitted()) == 1
    assert machine.told("pool.backoff") == []


def test_node_is_drained_before_the_end_of_its_job() -> None:
    machine = JobScheduler()
    (task,) = machine.task(seconds=3_000.0)
    machine.tick(1)
    machine.begin_job("big:1")
    (send,) = machine.assign()
    machine.begin(send.records[0])
    machine.hear()
    machine.now_ns += 3_600 * SECOND - LAST_NS - 2 * SECOND
    machine.hear()
    machine.tick()
    assert machine.told("node.drained") == []
    machine.tick(3)
    assert machine.told("node.drained") == ["big:1"]
    assert task in machine.state.tasks, "it was not left to end"
    machine.finish(send.records)
    machine.tick(0.1)
    machine.lose(next(iter(machine.state.cluster.workers)), "exit 0", blame=False)
    machine.tick(0.1)
    assert machine.ended() == ["big:1"]


def test_task_longer_than_the_rest_of_a_job_waits_for_the_next() -> None:
    machine = JobScheduler()
    machine.task(seconds=1.0)
    machine.tick(1)
    machine.begin_job("big:1", length_s=600.0)
    for send in machine.assign():
        machine.finish(send.records)
    (long,) = machine.task(seconds=1_200.0)
    (short,) = machine.task(seconds=2.0)
    (send,) = machine.assign()
    assert [r.number for r in send.records] == [short], "the shorter one behind it"
    machine.tick(1)
    assert machine.submitted() == ["big:2"]
    machine.finish(send.records)
    assert machine.assign() == []
    machine.begin_job("big:2")
    machine.tick()
    (send,) = machine.assign()
    assert [r.number for r in send.records] == [long]
    assert machine.state.cluster.workers[send.worker].host.node.name == "big:2"


def test_task_longer_than_any_job_waits_with_a_reason_and_submits_none() -> None:
    machine = JobScheduler()
    machine.task(seconds=7_200.0)
    machine.tick(1)
    for name in machine.submitted():
        machine.begin_job(name)
    machine.assign()
    for _ in range(5):
        machine.tick(70)
        machine.hear()
        machine.assign()
    assert machine.told("node.joined") in ([], ["big:1"])
    assert machine.submitted() == []
    record = next(iter(machine.state.tasks.values()))
    assert "too long for a job" in pending_reason(machine.state, record, machine.now_ns)


def test_job_that_is_over_charges_nobody_and_its_tasks_wait_again() -> None:
    machine = JobScheduler()
    machine.task(seconds=100.0)
    for _ in range(5):  # more deaths than a task survives
        machine.tick(1)
        (name,) = machine.submitted()
        machine.begin_job(name)
        (send,) = machine.assign()
        machine.begin(send.records[0])
        machine.end_job(name, "preempted")
    assert machine.told("pool.backoff") == []
    assert machine.endings == []
    (record,) = machine.state.tasks.values()
    assert record.deaths == 0
    assert record.attempts == 5


def cut_off(machine: JobScheduler, name: str, done: float = 0.0) -> core.TaskRecord:
    """Run the only task until the end of the node's job, of an hour or what is left of it."""
    machine.begin_job(name)
    (send,) = machine.assign()
    (record,) = send.records
    machine.begin(record)
    end_ns = machine.state.cluster.nodes.hosts[name].end_ns
    machine.now_ns = end_ns - SECOND
    beat = core.WorkerHeartbeat(
        send.worker, machine.start_of(send.worker), record.number, record.fence,
        progress=ProgressInfo("passes", round(100 * done), 100, done),
    )  # fmt: skip
    machine.scheduler.heartbeat_received(beat, machine.now_ns)
    machine.tick()
    machine.lose(send.worker, "its job has ended", blame=False)
    machine.end_job(name, "TIMEOUT")
    machine.tick(20)
    return record


def test_task_that_outlives_three_jobs_fails_with_its_times() -> None:
    machine = JobScheduler()
    machine.task(seconds=10.0)
    for count in range(1, 4):
        machine.tick(1)
        assert not machine.endings, f"after {count - 1} jobs"
        (name,) = machine.submitted()
        cut_off(machine, name)
    (ending,) = machine.endings
    assert (ending.state, ending.reason) == ("FAILED", "job_time")
    assert "3 jobs of pool big have ended while it ran, for up to 60 min" in ending.message
    assert "expected to take 10 s, and a job has 60 min" in ending.message
    machine.tick(100)
    assert machine.submitted() == []


def test_task_that_a_job_cut_off_waits_for_one_that_is_longer() -> None:
    machine = JobScheduler()
    (task,) = machine.task(seconds=10.0)
    machine.tick(1)
    record = cut_off(machine, "big:1")
    machine.tick(1)
    machine.begin_job("big:1", length_s=1_800.0)
    assert machine.assign() == [], "half of the time that it ran is left"
    reason = pending_reason(machine.state, record, machine.now_ns)
    assert "rest of its pool's jobs is too short" in reason
    machine.tick(1)
    assert machine.submitted() == ["big:2"]
    machine.begin_job("big:2", length_s=3_600.0 - 10)
    machine.tick()
    (send,) = machine.assign()
    assert [r.number for r in send.records] == [task]
    assert machine.state.cluster.workers[send.worker].host.node.name == "big:2"


def test_task_that_continues_from_checkpoints_runs_over_many_jobs() -> None:
    machine = JobScheduler()
    machine.task(seconds=10.0)
    for tenth in range(1, 10):
        machine.tick(1)
        (name,) = machine.submitted()
        cut_off(machine, name, done=tenth / 10)
    assert machine.endings == []


def test_tasks_are_packed_so_that_other_nodes_become_idle() -> None:
    spec = msgspec.structs.replace(POOL, jobs=msgspec.structs.replace(JOBS, slots=2))
    machine = JobScheduler(spec, tuple(replace(node, slots=2) for node in NODES))
    machine.task(count=4, seconds=1_000.0)
    machine.tick(1)
    assert machine.submitted() == ["big:1", "big:2"]
    for name in machine.submitted():
        machine.begin_job(name, slots=2)
    machine.tick()
    machine.revive()
    sends = machine.assign()
    assert len(sends) == 4
    first = [s for s in sends if machine.state.cluster.workers[s.worker].host.node.name == "big:1"]
    for send in sends:
        if send is not first[0]:
            machine.finish(send.records)
    machine.task(seconds=5.0)
    (send,) = machine.assign()
    assert machine.state.cluster.workers[send.worker].host.node.name == "big:1"


def test_other_pools_do_not_use_nodes_of_jobs() -> None:
    limits = msgspec.structs.replace(LIMITS, nodes=(Node("login", 1, 2**30), *NODES))
    machine = CheckedScheduler(limits=limits, specs=(PoolSpec("main", min=3, max=3), POOL))
    assert {w.host.node.name for w in machine.state.cluster.workers.values()} == {"login"}


@pytest.mark.parametrize("seed", range(20))
def test_random_events_keep_the_invariants_and_every_task_ends(seed: int) -> None:
    """Whatever jobs do, `scheduler_invariants` hold after each event, and nothing is lost."""
    choice = random.Random(seed)
    machine = JobScheduler()
    sent: list[core.AssignTasks] = []
    submitted = 0
    for step in range(300):
        event = choice.randrange(8)
        up = [h.node.name for h in machine.state.cluster.nodes.of_jobs("big") if not h.is_absent]
        if event <= 1 and step < 200:
            submitted += len(machine.task(choice.choice((0.5, 5.0, 50.0)), choice.randrange(1, 4)))
        elif event == 2 and machine.submitted():
            machine.begin_job(choice.choice(machine.submitted()), choice.choice((0, 90.0, 3_600.0)))
        elif event == 3 and up and step < 200:
            machine.end_job(choice.choice(up), "cancelled")
        elif event == 4 and machine.submitted() and step < 200:
            name = choice.choice(machine.submitted())
            machine.keep(machine.scheduler.job_refused(name, "no", machine.now_ns))
            machine.state.cluster.pools["big"].starts.record_success()
        elif event == 5 and up and step < 200:
            machine.keep(machine.scheduler.node_leaving(choice.choice(up), "TERM", machine.now_ns))
        else:
            machine.hear()
            machine.tick(choice.choice((0.1, 1.0, 2.0)))
            machine.revive()
        sent = [s for s in sent if s.records[0].worker in machine.state.cluster.workers]
        sent += machine.assign()
        if sent and choice.random() < 0.6:
            send = sent.pop(choice.randrange(len(sent)))
            machine.finish([r for r in send.records if r.worker == send.worker])
    for _ in range(300):
        for name in machine.submitted():
            machine.begin_job(name)
        machine.hear()
        machine.tick(1.0)
        machine.revive()
        for host in machine.state.cluster.nodes.of_jobs("big"):
            draining = [w for w in machine.state.cluster.workers.values() if w.host is host]
            if host.drained and host.job and host.job.phase is NodeJobPhase.ENDING and not draining:
                machine.end_job(host.node.name)
        for worker in [w for w in machine.state.cluster.workers.values() if w.state == "DRAINING"]:
            machine.lose(worker.name, "exit 0", blame=False)
        sent = [s for s in sent if s.records[0].worker in machine.state.cluster.workers]
        for send in [*sent, *machine.assign()]:
            machine.finish(send.records)
        sent = []
    assert not machine.state.tasks
    assert len(machine.endings) == submitted
    assert len({ending.record.number for ending in machine.endings}) == submitted
