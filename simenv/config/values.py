"""What an environment can be told: frozen values, their defaults, nothing else."""

from __future__ import annotations

import msgspec

from simenv.model import CLIENT_LIMITS, UNLIMITED, OwnerLimits, PoolSpec

CONFIG_FORMAT = 1


class History(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How long ended tasks are kept."""

    keep_days: float = 30.0


class Results(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How much is kept of them, files of results and journal together."""

    keep_gib: float = 20.0
    keep_free_gib: float = -1.0  # of the disk; below 0: 5 % of it, at least 1 GiB


class Policies(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How one pool orders its queue and admits reservations: a table [policies.POOL]; "": as it
    was."""

    queue: str = ""  # priority, fifo, ordered, round_robin
    keys: tuple[str, ...] = ()  # of ordered
    admission: str = ""  # unlimited, credit, rate
    credits: int = 0  # of credit: units in all
    rate: int = 0  # of rate: units in each time span
    span_s: float = 0.0  # of rate: the time span


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the owners of keys may use: the table [limits]. The environment's own user has none."""

    client: OwnerLimits = CLIENT_LIMITS
    admin: OwnerLimits = UNLIMITED
    keys: dict[str, dict[str, int]] = {}  # by the name of a key: what differs from its role's


class Launching(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How workers are started: the table [launcher]."""

    use: str = "auto"  # auto, prte, mpirun, local
    agent: str = ""  # runs a command on a host: AGENT HOST COMMAND...; "": srun or ssh
    nodes_per_dvm: int = 0  # so many nodes at most are lost with one of them; 0: one DVM for all
    interface: str = ""  # where workers of other nodes reach the service; "": as its name resolves


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Everything the service needs to know at start."""

    name: str = "default"
    durability: str = "accepted"
    pools: tuple[PoolSpec, ...] = (PoolSpec(),)
    slots: int = 0  # 0: the cores really ours
    memory_bytes: int = 0  # for simulators; 0: 80 % of what is really ours
    state_dir: str = ""  # of the live journal and results; "": as `state_folder` says
    overcommit: bool = False  # start more workers than the nodes hold; for drills
    network_state: bool = False  # allow it on a network's file system, at your own risk
    max_queued_tasks: int = 2_000_000
    max_queued_bytes: int = 2 * 2**30
    worker_lease_s: float = 15.0  # a worker that hears nothing for so long ends itself
    silent_s: float = 10.0  # a worker that says nothing for so long is lost
    start_timeout_s: float = 60.0
    drain_timeout_s: float = 30.0
    checkpoint_s: float = 600.0  # what a wide run has done is kept so often; 0: never
    listen: str = ""  # for other machines: tcp://HOST:PORT (0: any port); "": this machine only
    launcher: Launching = Launching()
    hosts: str = ""  # "node1:2,node2:2"; "": what the site or this machine gives
    hostfile: str = ""  # one host a line, "node1 slots=2"
    memory_per_slot: int = 0  # bytes one rank may hold; 0: what its node has
    history: History = History()
    results: Results = Results()
    limits: Limits = Limits()
    policies: dict[str, Policies] = {}  # by pool; "all": the whole environment
    resume: bool = False  # refuse to start without a journal; take the copy where that is newer
    force_lock: bool = False  # pass by the lock of a service on another machine
    import_from: tuple[str, ...] = ()  # where providers' modules are, beside what is installed
    lifeline: bool = False  # end when the starter's pipe closes (private environments)
    faults: str = ""  # drills: "point:nth,..."; see simenv.service.faults
    format: int = CONFIG_FORMAT
