"""Values of the scheduler: the limits of the environment, its tasks, and the actions that follow
from events; and the times that tasks are expected to take.

All values are frozen but `TaskRecord`, the state of one task, and what `Estimator` has learned.
Times are monotonic nanoseconds where no name says otherwise.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping

import msgspec

from launcher.base import Node, Share
from simenv.model import PoolSpec, ProgressInfo, TaskOptions, TaskSpec, TaskState, Timing
from simenv.model.accounts import Used, association
from simenv.model.devices import device_time_ns
from simenv.model.views import ON_DEMAND
from simulators import catalog

# --- the environment ------------------------------------------------------------------------------

END_MARGIN_NS = 60_000_000_000  # the service ends this long before the allocation
START_NS = 1_000_000_000  # approximate time from the start of a worker until it is ready
UNLIMITED = 2**31  # as a count: no limit
MEMORY_SHARE = 0.8  # of a node's available memory, for simulators


class ClusterLimits(msgspec.Struct, frozen=True):
    """Fixed limits of this environment."""

    slots: int
    memory_bytes: int
    max_queued_tasks: int
    max_queued_bytes: int
    silent_ns: int
    start_timeout_ns: int
    nodes: tuple[Node, ...] = ()  # (): a single node with all of the above
    max_ranks: int = 1  # of one worker; 1 without MPI
    memory_per_slot: int = 0  # most bytes of one rank; 0: limited by its node
    end_ns: int = 0  # end of the allocation; 0: never
    launcher: str = ""  # for refusals: the launcher, and the install hint for more ranks
    overcommit: bool = False  # no bound on resident workers, see `most_resident`
    service_bytes: int = 0  # resident memory of the service above which it takes no tasks; 0: any
    isolates_accounts: bool = False  # a worker serves one account, see `account_isolation`


def nodes_of(limits: ClusterLimits) -> tuple[Node, ...]:
    """Return the nodes; without configured nodes, a single one with all slots and memory."""
    return limits.nodes or (Node("", limits.slots, limits.memory_bytes),)


def slot_memory(node: Node, limits: ClusterLimits) -> int:
    """Return the memory in bytes that belongs to one slot of a node."""
    share = node.memory_bytes // max(1, node.slots)
    return min(share, limits.memory_per_slot or share)


def gang_name(base: str, ranks: int) -> str:
    """Return the name of the pool of workers with `ranks` ranks that is made on demand for
    `base`."""
    return f"{base}{ON_DEMAND}{ranks}"


def rank_gpus(spec: PoolSpec) -> int:
    """Return the number of GPUs of each rank of the pool's workers."""
    card = catalog.card(spec.engine)
    return 1 if card is not None and card.pool == "gpu" else 0


# --- tasks ----------------------------------------------------------------------------------------

ATTEMPT_BITS = 16  # a fence is epoch * 2**16 + attempt, so an old epoch's answer never matches
START_BITS = 32  # of the number of a worker's start, above them the epoch: as for fences


class Phase(enum.IntEnum):
    """Phase of an unfinished task. The task's owner sees SENT, PARKED and DEPENDENT as QUEUED."""

    WAITING = 0
    SENT = 1
    RUNNING = 2
    FINAL = 3  # no longer in the state; its lane entry is stale
    PARKED = 4  # in no queue, because its reservation has no free units for it
    HELD = 5  # result held until its time on a paced device is over; the owner sees RUNNING
    DEPENDENT = 6  # in no queue, because its parents have not ended


# The same as plain numbers: access to an enum member costs as much as making a TaskRecord.
WAITING, SENT = int(Phase.WAITING), int(Phase.SENT)
RUNNING, FINAL = int(Phase.RUNNING), int(Phase.FINAL)
HELD, DEPENDENT = int(Phase.HELD), int(Phase.DEPENDENT)
RUNS = (RUNNING, HELD)  # phases that the task's owner sees as RUNNING
UNQUEUED = (int(Phase.PARKED), DEPENDENT)
UNSENT = (WAITING, *UNQUEUED)


class Route(msgspec.Struct, frozen=True, gc=False):
    """Engine, pool and cost of a program, decided once at admission for all its tasks."""

    engine: str
    reason: str  # why this engine was chosen, as text for users
    pool: str
    num_qubits: int
    memory_bytes: int  # of each rank
    evolve_us: float  # on one slot
    shot_us: float
    max_slots: int  # further slots would not shorten it
    ranks: int = 1  # of the required worker
    device_shot_ns: float = 0.0  # of one shot on the emulated device
    device_overhead_ns: float = 0.0  # of each set of parameter values on the emulated device
    paced: bool = False  # the emulated device is as slow as its machine


def pack_routes(routes: list[Route]) -> bytes:
    """Encode the routes of a Submit's tasks, as they are stored with it: equal routes once."""
    table: dict[Route, int] = {}
    index: list[int] = []
    last, place = None, 0
    for route in routes:  # neighbours mostly have the same route
        if route is not last:
            last, place = route, table.setdefault(route, len(table))
        index.append(place)
    return msgspec.msgpack.encode((list(table), index))


_ROUTES = msgspec.msgpack.Decoder(tuple[list[Route], list[int]])


def unpack_routes(packed: bytes) -> list[Route]:
    table, index = _ROUTES.decode(packed)
    return [table[k] for k in index]


class SubmitBatch(msgspec.Struct, frozen=True):
    """Values that the tasks of one Submit share."""

    client: bytes
    terms: TaskOptions
    key: str
    offset: int
    first: int
    accepted_ns: int
    share_bytes: int = 0  # message bytes per task; 0: the program's size counts
    owner: str = ""  # name of the submitter; "": the environment's own user
    account: str = ""  # resolved at acceptance; "": there are no accounts
    qos: str = ""
    association: str = ""  # of owner and account, see `simenv.model.accounts`
    usage_factor: float = 1.0  # of its class of service
    class_priority: int = 0  # of its class of service, added to that of `terms`
    units: float = 0.0  # forecast billing units of each task, on average
    run_limit_s: float = 0.0  # of its account and class of service; 0: none
    priority: int = 0  # both together; set here

    def __post_init__(self) -> None:
        set_field = msgspec.structs.force_setattr
        set_field(self, "priority", self.terms.priority + self.class_priority)
        if not self.association:
            leaf = association(self.account, self.owner) if self.account else self.owner
            set_field(self, "association", leaf)


class JobCut(msgspec.Struct, frozen=True, gc=False):
    """Attempts at a task that the end of a job of the site has cut off."""

    count: int = 0  # without those that came further than all before
    ran_us: float = 0.0  # of the longest
    done: float = 0.0  # largest share of its sweeps; 0: not known


class EarlierAttempts(msgspec.Struct, frozen=True, gc=False):
    """Attempts at a task that gave no result: what preempted ones used, and cuts."""

    used: Used = Used()
    units: float = 0.0
    cut: JobCut = JobCut()


class EarlyStop(msgspec.Struct, frozen=True, gc=False):
    """Request to stop a task."""

    reason: str = ""  # "cancelled", "queue_timeout", "run_timeout", "limit"; "": there is none
    message: str = ""  # explains it; "": the reason is enough


class TaskRecord(msgspec.Struct, gc=False, eq=False):
    """One unfinished task. No field refers back to a record, so the collector may skip it."""

    number: int
    spec: TaskSpec
    batch: SubmitBatch
    route: Route
    cost_us: float
    phase: int = WAITING
    attempts: int = 0  # number of times that it was sent to a worker
    fence: int = 0
    deaths: int = 0  # number of worker crashes charged to it
    incident: int = 0  # > 0: number of the crash of which it is a suspect; it travels alone
    worker: str = ""
    sent_ns: int = 0
    started_ns: int = 0
    announced: bool = False  # its worker sends Started before it runs the task
    stop: EarlyStop = EarlyStop()
    interrupted: bool = False  # an outage of its device: this attempt's result is discarded
    waits: tuple[tuple[int, int], ...] = ()  # known reasons of its wait so far, see `Timing.waits`
    preempted: bool = False  # this attempt is asked to end, and the task to wait again
    # Of this attempt, what its reservation has paid before its end: a slot for this run time, in
    # us, and time on the device, in ns.
    prepaid: tuple[int, int] | None = None
    earlier: EarlierAttempts | None = None  # None: no attempt was preempted or cut off

    @property
    def size_bytes(self) -> int:
        """The bytes that the task adds to the queue."""
        return self.batch.share_bytes or len(self.spec.program)


def early_end(reason: str) -> TaskState:
    """Return the final state of a task that was stopped before it had a result."""
    return TaskState.CANCELLED if reason == "cancelled" else TaskState.EXPIRED


# --- workers and actions --------------------------------------------------------------------------

HELD_RESULT = -2  # value of `TaskEnded.index`: the result of this task was held


class WorkerHeartbeat(msgspec.Struct, frozen=True, gc=False):
    """State of a worker, as the worker reports it at least once a second."""

    name: str
    start: int  # start number of the worker
    task: int = 0  # the running one; 0: none
    fence: int = 0  # of the task's attempt
    rss_bytes: int = 0
    progress: ProgressInfo | None = None  # of the task, if its engine reports it
    waiting: bool = True  # the worker waits for a chunk; False while it loads kernels
    compiling: bool = False  # the worker compiles kernels that the task needs
    load: tuple[int, int, int] = (0, 0, 0)  # see `Worker.report.cpu_ms` and `NodeState.busy_ms`
    base_bytes: int = 0  # resident memory of its rank 0 without a task; 0: not known
    grants: int = 0  # see `DispatchState.grants`; of the newest answer that the worker has read


class AssignTasks(msgspec.Struct, frozen=True):
    """Send a chunk of tasks to a worker."""

    worker: str
    slots: int  # of each rank
    memory_bytes: int  # of each rank
    announce: bool
    records: list[TaskRecord]
    kept_bytes: int = 0  # granted for states that the worker keeps between tasks


class TaskEnded(msgspec.Struct, frozen=True, gc=False):
    """End of a task. `index`: place of the task in the worker's message; -1: no message ended it;
    HELD_RESULT: that message was held."""

    record: TaskRecord
    state: TaskState
    slots: int
    timing: Timing
    index: int = -1
    reason: str = ""
    message: str = ""
    hint: str = ""
    host: str = ""
    log: str = ""
    run_limit_s: float = 0.0  # of run_timeout: limit by the task's terms or its owner
    parent: int = 0  # parent that did not end as DONE
    used: Used = Used()
    units: float = 0.0  # billing units


class DropHeldResult(msgspec.Struct, frozen=True):
    """Discard the held result of a task that will run again."""

    task: int


class ChargeReserved(msgspec.Struct, frozen=True):
    """Add the time to usage for which a reservation had its workers."""

    pool: str
    account: str
    owner: str
    used: Used
    units: float  # billing units


class StopAttempt(msgspec.Struct, frozen=True):
    """Ask a worker to end one attempt."""

    worker: str
    task: int
    fence: int
    reason: str


class SetThreads(msgspec.Struct, frozen=True):
    """Tell a worker how many slots one attempt has from now on."""

    worker: str
    task: int
    fence: int
    slots: int


class StartWorker(msgspec.Struct, frozen=True):
    """Start a worker. `start` grows with each start; name and start together identify the
    worker."""

    pool: str
    worker: str
    start: int = 0
    shares: tuple[Share, ...] = ()  # (): one rank on the service's own node
    gpus: tuple[str, ...] = ()  # as in `Node.gpu_names`; one for each rank, in their order


class DropKeptStates(msgspec.Struct, frozen=True):
    """Tell an idle worker to drop the states that it keeps between tasks by a grant of memory."""

    worker: str


class RetireWorker(msgspec.Struct, frozen=True):
    """Ask an idle worker to end."""

    worker: str
    reason: str
    start: int = 0


class KillWorker(msgspec.Struct, frozen=True):
    """Kill a worker's processes; the launcher reports their end as an event."""

    worker: str
    reason: str
    start: int = 0


class RecordEvent(msgspec.Struct, frozen=True):
    """A line for the event log."""

    kind: str
    subject: str
    message: str
    owner: str = ""  # reader besides admins; "": everybody, or the task's owner


class SubmitJob(msgspec.Struct, frozen=True):
    """Submit a job to the site's batch system, by which this node comes."""

    node: str
    pool: str


class EndJob(msgspec.Struct, frozen=True):
    """End the job of a node: cancel it, or tell its agent to end."""

    node: str
    reason: str


_TaskAction = AssignTasks | TaskEnded | DropHeldResult | StopAttempt | SetThreads
_WorkerAction = StartWorker | DropKeptStates | RetireWorker | KillWorker
_JobAction = SubmitJob | EndJob
Action = _TaskAction | _WorkerAction | _JobAction | ChargeReserved | RecordEvent


# --- expected times of tasks ----------------------------------------------------------------------

LEARNING_RATE = 0.2
MAX_DEVIATION = 5.0  # ratio to the expected time of one task; larger ratios count as this
FACTOR_BOUNDS = (0.05, 20.0)
HARDWARE = "hardware"  # its jobs queue at a provider, so no model gives their times
HARDWARE_BOUNDS = (0.001, 1_000.0)
WIDTHS = 65
PACE_WINDOW_US = 1e6  # busy time after which earlier observations count half
COMPILE_US = 5e6  # approximate time of a first task of a kind whose kernels are not compiled


def model_us(route: Route, spec: TaskSpec) -> float:
    """Return the time of a task on one slot by the catalog's model, in microseconds."""
    return (route.evolve_us + route.shot_us * spec.shots) * spec.count


def device_ns(route: Route, shots: int, count: int) -> int:
    """Return the time on the device in ns for `count` sets of parameter values with `shots` each; 0
    for exact results."""
    return device_time_ns(shots, count, route.device_overhead_ns, count * route.device_shot_ns)


def expected_ns(route: Route, spec: TaskSpec) -> int:
    """Return the time of a task on its device in ns, by the calibration at its acceptance."""
    return device_ns(route, spec.shots, spec.count)


class LearnedEstimate(msgspec.Struct, frozen=True):
    """Factor and deviation learned from runs of one kind and width. `deviation`: mean of |ln(time /
    expected time)| over runs, with larger weights for later runs. Times typically differ from the
    expected ones by a factor of exp(deviation)."""

    factor: float  # multiplies the model's times
    deviation: float
    count: int  # of runs


_UNOBSERVED = LearnedEstimate(1.0, 0.0, 0)


class Estimator:
    """Expected times of tasks: those of the catalog's cost model, corrected by what was learned. A
    factor per engine, ranks and number of qubits (for hardware per pool) is learned from run times,
    and so is the deviation of the corrected times. Both serve chunk sizes and forecasts only, never
    the choice of an engine, so that runs are reproducible."""

    def __init__(self) -> None:
        self._learned: dict[tuple[str, int], LearnedEstimate] = {}  # by kind and width
        self.changed: set[tuple[str, int]] = set()  # since `take_changes`
        self.kernels_compiled = True  # all of them; False: tasks may compile some

    def copy(self) -> Estimator:
        result = Estimator()
        result._learned, result.kernels_compiled = self._learned.copy(), self.kernels_compiled
        return result

    def cost_us(self, route: Route, spec: TaskSpec) -> float:
        """Return the expected time of a task in microseconds: on one slot, or on its paced device
        if that is longer."""
        cost_us = self.simulation_us(route, spec)
        return max(cost_us, expected_ns(route, spec) / 1e3) if route.paced else cost_us

    def simulation_us(self, route: Route, spec: TaskSpec) -> float:
        """Return the expected time of a simulation in microseconds on one slot."""
        return model_us(route, spec) * self.quality(route).factor

    def compile_us(self, route: Route, terms: TaskOptions) -> float:
        """Return the expected time of compilation that a task may have to wait for while not all
        kernels are compiled, in microseconds."""
        return 0.0 if _is_plain(route, terms) else COMPILE_US

    def quality(self, route: Route) -> LearnedEstimate:
        """Return the estimate for routes like this one; `count` is 0 if no run was observed."""
        return self._learned.get(_key(route), _UNOBSERVED)

    def factor(self, engine: str, ranks: int, num_qubits: int) -> float:
        """Return the factor on the model's times for circuits of this width."""
        kind = engine if ranks == 1 else f"{engine}/{ranks}"
        return self._learned.get((kind, min(num_qubits, WIDTHS - 1)), _UNOBSERVED).factor

    def observe(self, route: Route, spec: TaskSpec, slots: int, run_us: int) -> None:
        """Learn from a task that took `run_us` on `slots` slots."""
        key, before = _key(route), self.quality(route)
        observed = max(1, run_us) * max(1, slots) / max(0.1, model_us(route, spec))
        factor, (low, high) = observed, HARDWARE_BOUNDS
        if route.engine != HARDWARE:  # the first run of a kind may include compilation
            factor, (low, high) = min(observed, MAX_DEVIATION * before.factor), FACTOR_BOUNDS
        factor = before.factor + LEARNING_RATE * (factor - before.factor)
        count, off = before.count + 1, abs(math.log(observed / before.factor))
        deviation = before.deviation + max(LEARNING_RATE, 1.0 / count) * (off - before.deviation)
        self._learned[key] = LearnedEstimate(min(high, max(low, factor)), deviation, count)
        self.changed.add(key)

    def restore(self, stored: Mapping[tuple[str, int], LearnedEstimate]) -> None:
        """Continue from stored estimates."""
        self._learned.update({key: each for key, each in stored.items() if 0 <= key[1] < WIDTHS})

    def take_changes(self) -> dict[tuple[str, int], LearnedEstimate]:
        """Return the estimates learned since the last call, by kind and width."""
        results = {key: self._learned[key] for key in sorted(self.changed)}
        self.changed.clear()
        return results


class WorkerEfficiency(msgspec.Struct):
    """Share of a busy worker's time in which its tasks run; the rest is overhead and transport. The
    share is learned from the tasks that ended last."""

    work_us: float = 20_000.0  # initial guess of small weight: as fast as expected
    busy_us: float = 20_000.0

    @property
    def speed(self) -> float:
        return self.work_us / self.busy_us

    def learn(self, work_us: float, busy_us: float) -> None:
        """Count `work_us` of run time of tasks in `busy_us` of busy time."""
        self.work_us += work_us
        self.busy_us += busy_us
        if self.busy_us > PACE_WINDOW_US:
            self.work_us *= 0.5
            self.busy_us *= 0.5


def _key(route: Route) -> tuple[str, int]:
    """Return the kind and the width under which runs of such routes are learned."""
    if route.engine == HARDWARE:
        return f"{HARDWARE}/{route.pool}", 0
    kind = route.engine if route.ranks == 1 else f"{route.engine}/{route.ranks}"
    return kind, min(route.num_qubits, WIDTHS - 1)


def _is_plain(route: Route, terms: TaskOptions) -> bool:
    """Return whether a task needs no kernels but those that every worker loads at its start."""
    if terms.snapshot:
        return False
    card = catalog.card(route.engine)
    if card is None or not card.kernels.later:
        return True
    is_narrow = route.num_qubits <= catalog.SMALL_QUBITS and terms.precision == "double"
    return is_narrow and terms.outputs == ("counts",) and terms.parts is None
