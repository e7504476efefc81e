"""A real Slurm on the hosts of a test cluster: slurmctld on `login`, one slurmd a node.

    with slurm(4) as cluster:
        cluster.run("login", ["sbatch", "--wait", "job.sh"])

Partition `classical` (the default) has all nodes but the last, `quantum` the last, with GRES
qc:QC:1. `urgent` has the nodes of `classical`, and its jobs preempt theirs.
Key, socket and configuration of munge and Slurm lie in the cluster's folder: the machine's own are
neither read nor touched. Debian's packages slurm-wlm and munge have to be installed.
"""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from testbed.cluster import Cluster, hosts
from testbed.cluster_host import NoCluster
from testbed.munged import munged_command

LOGIN = "login"
CORES = 2  # of each node, as Slurm is told
START_S = 120.0
PACKAGES = ("slurm-wlm", "munge", "libslurm-dev")
HEADER = Path("/usr/include/slurm/spank.h")
TOOLS = ("slurmctld", "slurmd", "munged", "srun", "sbatch", "sinfo", "scontrol")

# linuxproc and task/none: other plug-ins want cgroups of the machine's own. config_overrides: a
# node may say that it has more cores than this machine. KillWait: from SIGTERM to SIGKILL.
CONFIGURATION = """
ClusterName=simenv
SlurmctldHost={login}({address})
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
SlurmUser={user}
SlurmdUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool.%n
SlurmctldPidFile={folder}/state/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=1,sched_interval=1,sched_min_interval=0
SlurmdParameters=config_overrides
MpiDefault=none
ReturnToService=2
SwitchType=switch/none
KillWait=5
MinJobAge=300
GresTypes=qc
PreemptType=preempt/partition_prio
PreemptMode=CANCEL
NodeName=DEFAULT CPUs={cores} CoresPerSocket={cores} RealMemory={memory}
"""


Prepare = Callable[[Cluster, Path], str]


@contextmanager
def slurm(
    count: int, prepare: Prepare = lambda _cluster, _folder: "", user: str = "root"
) -> Iterator[Cluster]:
    """Hosts node1..node`count` under Slurm, and `login`; NoCluster where that is impossible.
    `prepare`: called before the daemons start, with the folder of slurm.conf; returns more lines
    for it. `user`: SlurmUser, as whom slurmctld runs."""
    reason = missing()
    if reason:
        raise NoCluster(reason)
    with hosts(count, LOGIN) as cluster:
        del cluster.environ["SIMENV_LAUNCH_AGENT"]  # inside a job, Slurm's own way is the agent
        cluster.environ["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        folder = cluster.folder / "slurm"
        folder.mkdir()
        path = _configure(cluster, folder, user)
        cluster.environ["SLURM_CONF"] = str(path)
        more = prepare(cluster, folder)
        with path.open("a") as file:
            file.write(more)
        _start(cluster, folder, [name for name in cluster.hosts if name != LOGIN])
        yield cluster


def missing() -> str:
    """Why this machine can have no Slurm of its own; "" if it can."""
    if os.geteuid() != 0:
        return "a Slurm of our own needs root: its daemons change users"
    tools = [tool for tool in TOOLS if shutil.which(tool) is None]
    return f"no {', '.join(tools)} here (Debian packages {', '.join(PACKAGES)})" if tools else ""


def _configure(cluster: Cluster, folder: Path, user: str) -> Path:
    """Write slurm.conf, gres.conf and the key."""
    (folder / "state").mkdir()
    shutil.chown(folder / "state", user)
    text = CONFIGURATION.format(
        login=LOGIN,
        user=user,
        address=cluster.hosts[LOGIN].address,
        folder=folder,
        cores=CORES,
        memory=int(0.9 * psutil.virtual_memory().total / 2**20),
    )
    *classical, quantum = (name for name in cluster.hosts if name != LOGIN)
    for name in (*classical, quantum):
        (folder / f"spool.{name}").mkdir()
        gres = " Gres=qc:QC:1" if name == quantum else ""
        text += f"NodeName={name} NodeAddr={cluster.hosts[name].address}{gres}\n"
    text += f"PartitionName=classical Nodes={','.join(classical)} Default=YES PriorityTier=1\n"
    text += f"PartitionName=urgent Nodes={','.join(classical)} PriorityTier=2 PreemptMode=OFF\n"
    text += f"PartitionName=quantum Nodes={quantum}\n"
    (folder / "gres.conf").write_text(f"NodeName={quantum} Name=qc Type=QC Count=1\n")
    path = folder / "slurm.conf"
    path.write_text(text)
    return path


def _start(cluster: Cluster, folder: Path, nodes: list[str]) -> None:
    """Start the daemons, in the foreground: they end with the cluster."""
    _daemon(cluster, LOGIN, folder, munged_command(folder))
    _wait(folder, (folder / "munge.socket").exists)
    start_controller(cluster, "-c")
    for name in nodes:
        start_node(cluster, name)
    listing = ["sinfo", "--noheader", "--Node", "--states=idle", "--format=%N"]

    def are_idle() -> bool:
        idle = cluster.run(LOGIN, listing, check=False).stdout.split()
        return set(idle) == set(nodes)  # a line for each partition

    _wait(folder, are_idle)


def start_controller(cluster: Cluster, *options: str) -> "subprocess.Popen[str]":
    """Start slurmctld, with the stored jobs unless `-c` is among the options."""
    folder = cluster.folder / "slurm"
    return _daemon(cluster, LOGIN, folder, ["slurmctld", "-D", "-i", *options])


def start_node(cluster: Cluster, name: str) -> None:
    """Start the slurmd of a node."""
    _daemon(cluster, name, cluster.folder / "slurm", ["slurmd", "-D", "-N", name])


def _daemon(cluster: Cluster, name: str, folder: Path, argv: list[str]) -> "subprocess.Popen[str]":
    with (folder / f"{Path(argv[0]).name}.{name}.log").open("a") as log:
        return cluster.popen(name, argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)


def _wait(folder: Path, ready: Callable[[], bool]) -> None:
    """Until it is ready; what the daemons said, if it never is."""
    deadline = time.monotonic() + START_S
    while not ready():
        if time.monotonic() > deadline:
            text = "\n".join(path.read_text()[-2000:] for path in sorted(folder.glob("*.log")))
            raise NoCluster(f"Slurm is not ready after {START_S:.0f} s:\n{text}")
        time.sleep(0.02)
