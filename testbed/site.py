"""A made-up site, and a day of its work in simulated time with the real scheduler.

The site has 500 users in 40 accounts of three levels. Arrivals follow the hours of the day, sizes
are heavy-tailed, tasks come alone and in sweeps, of one rank and of several. Most accounts always
have more work than their share; some have little and are idle for hours; one begins late.
`SimulatedDay` stands for service and workers: a task that the scheduler assigns ends after its
time, which differs from the time that the scheduler expects. Usage is stored in a journal, as a
service stores it, where a restart is to follow. No process runs.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from itertools import count, groupby
from pathlib import Path
from time import process_time
from typing import Any, NamedTuple, TypeVar

import msgspec
import numpy as np

from launcher.base import Node
from simenv.model import PoolSpec, TaskOptions, TaskSpec, TaskState
from simenv.model.accounts import Account, AccountTree, Billing, association
from simenv.process import SERVICE_GC, freeze_gc
from simenv.scheduler import core
from simenv.scheduler.scheduler import Scheduler
from simenv.service.journal import tables
from simenv.service.journal.writer import Journal
from simenv.wire.messages.client import STATES, AttemptResult

HOUR_S, DAY_S = 3_600.0, 86_400.0
LEVELS = ((4.0, 3.0, 2.0, 2.0), (2.0, 1.0, 1.0), (3.0, 2.0))  # shares of siblings by level
LATE, LATE_S = "b", 8 * HOUR_S  # an account of the first level, and when its work begins
BUSY, LITTLE = 2.2, 0.3  # work of a day that accounts bring, relative to their shares
LEFT_OVER = 0.3  # part of a busy account's work that waits when the day begins
NODES, NODE_SLOTS = 4, 8
RANKS, RANKS_SHARE = (1, 2, 4, 8), (0.96, 0.02, 0.015, 0.005)
SHORTEST_S, LONGEST_S, GANG_S, TAIL = 15.0, 600.0, 120.0, 1.2  # sizes: a bounded Pareto law
SWEEP, MEAN_SWEEP = 50, 3.3  # tasks of a submission: the most, and the mean
TICK_NS, START_NS, EXIT_NS = 5_000_000_000, 600_000_000, 50_000_000
WALL_NS = 1_700_000_000_000_000_000
DONE = STATES.index(TaskState.DONE)
SPEC = TaskSpec(b"program", 100, 0)
Result = TypeVar("Result")


class Submission(NamedTuple):
    """Equal tasks of one user."""

    time_s: float
    account: str
    user: str
    tasks: int
    cost_s: float  # of each task on one slot, or on all its ranks
    ranks: int


class Run(NamedTuple):
    """Slots that tasks of an account had."""

    account: str
    begin_ns: int
    end_ns: int
    slots: int


def site_accounts(users: int = 500, seed: int = 1) -> dict[str, Account]:
    """Return the accounts; the users are in those of the lowest level, in different numbers."""
    rng = np.random.default_rng(seed)
    table: dict[str, Account] = {}
    names = [""]
    for level, shares in enumerate(LEVELS):
        parents, names = names, []
        for parent in parents:
            for place, share in enumerate(shares):
                name = f"{parent}{place + 1}" if level else "abcdefgh"[place]
                table[name] = Account(parent, share)
                names.append(name)
    weights = rng.pareto(2.0, len(names)) + 0.2
    extra = rng.choice(len(names), users - len(names), p=weights / weights.sum())
    places = np.concatenate([np.arange(len(names)), extra])
    for place, name in enumerate(names):
        members = tuple(f"u{user}" for user in np.flatnonzero(places == place))
        table[name] = msgspec.structs.replace(table[name], users=members)
    return table


def part_of_site(accounts: Mapping[str, Account], account: str) -> float:
    """Return the share of an account among all, 0 to 1."""
    part = 1.0
    while account:
        parent = accounts[account].parent
        siblings = (each.share for each in accounts.values() if each.parent == parent)
        part *= accounts[account].share / sum(siblings)
        account = parent
    return part


def day(accounts: Mapping[str, Account], tasks: int, seed: int = 1) -> list[Submission]:
    """Return about `tasks` tasks of a day, in the order of their submission."""
    rng = np.random.default_rng(seed)
    hours = np.linspace(0.0, 24.0, 1_441)
    rhythm = np.cumsum(1.0 + 0.9 * np.cos(2.0 * np.pi * (hours - 14.0) / 24.0))
    leaves = [name for name, each in accounts.items() if each.users]
    little = set(leaves[1::6])
    demands = {
        name: part_of_site(accounts, name) * (LITTLE if name in little else BUSY) for name in leaves
    }
    result: list[Submission] = []
    for name in leaves:
        number = max(1, round(tasks * demands[name] / sum(demands.values()) / MEAN_SWEEP))
        sizes = np.minimum(rng.pareto(TAIL, number).astype(int) + 1, SWEEP)
        ranks = rng.choice(RANKS, number, p=RANKS_SHARE)
        costs = _bounded_pareto(rng.random(number))
        costs = np.where(ranks > 1, np.minimum(costs, GANG_S), costs)
        costs *= demands[name] * NODES * NODE_SLOTS * DAY_S / (sizes * ranks * costs).sum()
        times = HOUR_S * np.interp(rng.random(number) * rhythm[-1], rhythm, hours)
        if name not in little:
            times[: round(LEFT_OVER * number)] = 0.0
        if name.startswith(LATE):
            times = np.maximum(times, LATE_S)
        users = rng.choice(accounts[name].users, number)
        rows = zip(times, users, sizes, costs, ranks, strict=True)
        result += [
            Submission(float(t), name, str(u), int(n), float(c), int(r)) for t, u, n, c, r in rows
        ]
    return sorted(result)


def _bounded_pareto(uniform: Any) -> Any:
    """Return sizes in seconds of a Pareto law between SHORTEST_S and LONGEST_S."""
    span = 1.0 - (SHORTEST_S / LONGEST_S) ** TAIL
    return SHORTEST_S * (1.0 - uniform * span) ** (-1.0 / TAIL)


def deviations(
    accounts: Mapping[str, Account], delivered: Mapping[str, float], since: Mapping[str, float]
) -> dict[str, float]:
    """Return by how much each account got more than its share, relative to its share. Compared are
    siblings that were saturated since the same time; `since`: that time by account."""
    result: dict[str, float] = {}
    groups: dict[tuple[str, float], list[str]] = {}
    for name, time_s in since.items():
        groups.setdefault((accounts[name].parent, time_s), []).append(name)
    for names in groups.values():
        total = sum(delivered[name] for name in names)
        shares = sum(accounts[name].share for name in names)
        if len(names) > 1:
            for name in names:
                result[name] = delivered[name] / total * shares / accounts[name].share - 1.0
    return result


def arrears_s(idle_s: float, part: float, half_life_s: float) -> float:
    """Return how long an account gets all slots that it shares with its siblings when it comes back
    after `idle_s`. `part`: its share among them, 0 to 1. While it was idle their usage for a share
    grew above its own by (1 - 2^(-idle/half-life)) / (1 - part); with all slots its own grows by
    (1 - 2^(-s/half-life)) / part, while the difference decays."""
    ahead = part / (1.0 - part) * (1.0 - 0.5 ** (idle_s / half_life_s))
    return half_life_s * math.log2(1.0 + ahead)


class SimulatedDay:
    """A scheduler with its workers, and the submissions that come to it. `folder`: for the journal,
    without which there is no restart."""

    def __init__(
        self,
        accounts: Mapping[str, Account],
        work: Iterable[Submission],
        nodes: int = NODES,
        half_life_days: float = 7.0,
        folder: Path | None = None,
    ) -> None:
        self.accounts = accounts
        self._journal = None if folder is None else Journal(folder / "journal.db", "process")
        self._billing = Billing(half_life_days=half_life_days, preempt_after_s=0.0)
        self.runs: list[Run] = []
        self.submitted = self.ended = 0  # tasks
        self.cpu_s: dict[str, float] = {}  # of the scheduler: decisions, ends, ticks
        self.since: dict[str, float] = {}  # by account: seconds until its first task
        self.idle: set[str] = set()  # accounts without waiting tasks at some time after that
        self.now_ns, self._order = 0, count()
        self._paths = {name: AccountTree(accounts).path(name) for name in accounts}
        self._pace: dict[str, float] = {}  # by user: real time of a task, relative to its model
        self._waiting: Counter[str] = Counter()
        self._work = deque(work)
        cluster = tuple(Node(f"n{k}", NODE_SLOTS, NODE_SLOTS * 2**30) for k in range(nodes))
        slots = nodes * NODE_SLOTS
        self._limits = core.ClusterLimits(
            slots, slots * 2**30, 10**6, 2**40, 10**10, 6 * 10**10, cluster, 64, launcher="none"
        )
        self._pools = (PoolSpec("main", "any", min=slots, max=slots),)
        self._start(epoch=1)

    def _start(self, epoch: int, next_task: int = 1) -> None:
        self._events: list[tuple[int, int, Callable[..., None], tuple[Any, ...]]] = []
        self._chunks: dict[str, deque[core.AssignTasks]] = {}  # by worker
        self._running: dict[str, Run] = {}  # by worker, without its end
        self.scheduler = Scheduler(self._pools, self._limits, epoch, next_task)
        self.state = self.scheduler.state
        self.scheduler.set_clock(WALL_NS, 0)
        self.scheduler.set_accounts(AccountTree(self.accounts), self._billing, {})
        stored = tables.read_fair_usage(self._journal.records) if self._journal else {}
        self.state.shares.fair_share.restore(stored, WALL_NS, self.now_ns)
        self._at(0, self._tick)

    def run(self, until_s: float) -> None:
        """Let time pass until this time of the day."""
        until_ns = round(until_s * 1e9)
        while True:
            next_ns = self._events[0][0]
            if self._work and self._work[0].time_s * 1e9 <= min(next_ns, until_ns):
                self._submit(self._work.popleft())
            elif next_ns <= until_ns:
                self.now_ns, _, event, values = heapq.heappop(self._events)
                event(*values)
            else:
                break
            self.decide()
        self.now_ns = until_ns

    def decide(self) -> list[core.AssignTasks]:
        """Let the scheduler assign tasks; the workers begin them."""
        actions = self._timed("decision", self.scheduler.dispatch, self.now_ns)
        assignments = [each for each in actions if isinstance(each, core.AssignTasks)]
        for assignment in assignments:
            self._count(assignment.records[0].batch.account, -len(assignment.records))
            chunks = self._chunks.setdefault(assignment.worker, deque())
            chunks.append(assignment)
            if len(chunks) == 1:
                self._begin(assignment.worker)
        return assignments

    def restart(self) -> float:
        """Replace the scheduler by a new one, as after a `kill -9` of service and workers: running
        tasks run again, usage is read from the journal's file. Return the largest relative change
        of the usage of a user or account."""
        assert self._journal is not None
        self._store()  # a service does so with each end of a task
        self._journal.database.abandon()
        self._journal = Journal(self._journal.place, "process")
        before = self._usage()
        records = sorted(self.state.tasks.values(), key=lambda record: record.number)
        self.runs += [self._until_now(run) for run in self._running.values()]
        for assignments in self._chunks.values():
            for each in assignments:
                self._count(each.records[0].batch.account, len(each.records))
        self._start(self.state.epoch + 1, self.state.tasks.next_number)
        for batch, group in groupby(records, key=lambda record: record.batch):
            tasks = list(group)
            for first, run in _consecutive(tasks):
                new = msgspec.structs.replace(batch, first=first)
                attempts = [record.attempts for record in run]
                specs, routes = [r.spec for r in run], [r.route for r in run]
                self.scheduler.submit(new, specs, routes, None, attempts)
        after = self._usage()
        assert after.keys() == before.keys(), "an association was lost"
        return max(abs(after[key] - used) / used for key, used in before.items() if used)

    def delivered(self, begin_s: float, end_s: float) -> dict[str, float]:
        """Return the slot-seconds that each account got in this time; an account includes those
        below it."""
        result = dict.fromkeys(self.accounts, 0.0)
        for run in (*self.runs, *(self._until_now(run) for run in self._running.values())):
            span_s = min(run.end_ns / 1e9, end_s) - max(run.begin_ns / 1e9, begin_s)
            for name in self._paths[run.account] if span_s > 0 else ():
                result[name] += run.slots * span_s
        return result

    @property
    def saturated(self) -> dict[str, float]:
        """Accounts that always had waiting tasks since their first one, and when that was."""
        return {name: time_s for name, time_s in self.since.items() if name not in self.idle}

    def _usage(self) -> dict[tuple[str, str], float]:
        rows = self.state.shares.fair_share.rows(self.now_ns)
        return {(row.account, row.user): row.usage for row in rows}

    def close(self) -> None:
        """Close the journal."""
        if self._journal is not None:
            self._journal.close()

    def _store(self) -> None:
        changes = self._timed("end", self.state.shares.fair_share.take_changes, WALL_NS)
        if self._journal is not None:
            self._journal.put(tables.fair_usage_statements(changes), forced=False)
            self._journal.commit()

    def _timed(self, part: str, call: Callable[..., Result], *values: Any) -> Result:
        begin = process_time()
        result = call(*values)
        self.cpu_s[part] = self.cpu_s.get(part, 0.0) + process_time() - begin
        return result

    def _until_now(self, run: Run) -> Run:
        return run._replace(end_ns=self.now_ns)

    def _at(self, delay_ns: int, event: Callable[..., None], *values: Any) -> None:
        heapq.heappush(self._events, (self.now_ns + delay_ns, next(self._order), event, values))

    def _count(self, account: str, tasks: int) -> None:
        for name in self._paths[account]:
            self._waiting[name] += tasks

    def _submit(self, work: Submission) -> None:
        self.now_ns = max(self.now_ns, round(work.time_s * 1e9))
        for name in self._paths[work.account]:
            self.since.setdefault(name, work.time_s)
        ranks, pool = work.ranks, f"main.x{work.ranks}" if work.ranks > 1 else "main"
        memory, cost_us = 2**28 if ranks > 1 else 2**20, work.cost_s * 1e6
        route = core.Route("statevector", "", pool, 20, memory, cost_us, 0.0, 1, ranks)
        batch = core.SubmitBatch(
            b"client", TaskOptions(), "key", 0, self.state.tasks.next_number, self.now_ns,
            len(SPEC.program), work.user, work.account,
            association=association(work.account, work.user),
        )  # fmt: skip
        self.scheduler.submit(batch, [SPEC] * work.tasks, [route] * work.tasks)
        self.submitted += work.tasks
        self._count(work.account, work.tasks)

    def _begin(self, name: str) -> None:
        """Begin the worker's next chunk."""
        worker, assignment = self.state.cluster.workers[name], self._chunks[name][0]
        first = assignment.records[0]
        started = self.scheduler.task_started
        self._timed("end", started, name, first.number, first.fence, self.now_ns)
        slots = worker.slots if worker.ranks == 1 else worker.ranks
        threads = slots if worker.ranks == 1 else 1
        pace = self._pace.setdefault(first.batch.owner, 0.7 + 0.06 * (len(self._pace) % 11))
        runs_us = [
            round(pace * core.model_us(record.route, record.spec) / threads)
            for record in assignment.records
        ]
        self._running[name] = Run(first.batch.account, self.now_ns, 0, slots)
        self._at(1_000 * sum(runs_us), self._end, name, runs_us)

    def _end(self, name: str, runs_us: list[int]) -> None:
        assignment = self._chunks[name].popleft()
        results = [
            AttemptResult(record.number, record.fence, DONE, b"", 0, start_us=1, run_us=run_us)
            for record, run_us in zip(assignment.records, runs_us, strict=True)
        ]
        finished = self.scheduler.tasks_finished
        endings = self._timed("end", finished, name, results, self.now_ns)
        self.ended += len(endings)
        self.runs.append(self._until_now(self._running.pop(name)))
        if self._chunks[name]:
            self._begin(name)

    def _tick(self) -> None:
        for action in self._timed("tick", self.scheduler.tick, self.now_ns):
            if isinstance(action, core.StartWorker):
                self._at(START_NS, self._join, action.worker, action.start)
            elif isinstance(action, core.RetireWorker | core.KillWorker):
                self._at(EXIT_NS, self._exit, action.worker, action.start)
        self._store()
        self.idle |= {name for name in self.since if not self._waiting[name]}
        self._at(TICK_NS, self._tick)

    def _join(self, name: str, start: int) -> None:
        worker = self.state.cluster.workers.get(name)
        if worker is not None:
            self.scheduler.worker_joined(name, start, worker.host.node.name, 1, self.now_ns)

    def _exit(self, name: str, start: int) -> None:
        self.scheduler.worker_lost(name, start, "exit 0", self.now_ns)


def _consecutive(records: list[core.TaskRecord]) -> list[tuple[int, list[core.TaskRecord]]]:
    """Return runs of records with consecutive numbers, each with its first number."""
    places = groupby(enumerate(records), key=lambda entry: entry[1].number - entry[0])
    runs = [[record for _, record in group] for _, group in places]
    return [(run[0].number, run) for run in runs]


def deciding_us(accounts: Mapping[str, Account], waiting: int, decisions: int) -> dict[str, float]:
    """Return the mean CPU time in microseconds that the scheduler needs for a task, while `waiting`
    tasks of all users, each longer than a chunk, wait for two nodes: for `decision`s; `end`: its
    begin and end, its charge, and the changes of usage to store; `tick`: those every 5 s, one for
    two of 100,000 tasks. Garbage is collected as in a service."""
    work = [each._replace(time_s=0.0) for each in day(accounts, waiting + decisions)]
    site = SimulatedDay(accounts, [each for each in work if each.ranks == 1], nodes=2)
    site.run(30.0)  # all workers have started
    freeze_gc(SERVICE_GC)
    site.cpu_s.clear()
    before, until_s = site.ended, 30.0
    while site.ended < before + decisions:
        until_s += 60.0
        site.run(until_s)
    return {part: 1e6 * cpu_s / (site.ended - before) for part, cpu_s in site.cpu_s.items()}
