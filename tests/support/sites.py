"""Environments of sites, as their schedulers set them, and the nodes that they mean.

Slurm's were recorded on 22.05 but for the names; those of other versions follow their manuals.
"""

from dataclasses import dataclass, field

from launcher.base import Node

GIB, MIB = 2**30, 2**20
HERE = Node("node1", 8, 16 * GIB)  # the machine that asks
SHARE = 2 * GIB  # of each of its slots


@dataclass(frozen=True)
class Site:
    """`scontrol`: what it prints, by its second word ("job", "node"); {}: it is missing."""

    name: str
    environ: dict[str, str]
    nodes: tuple[Node, ...]
    source: str
    end_s: float = 0.0
    scontrol: dict[str, str] = field(default_factory=dict)
    nodefile: str = ""


def het(**variables: str) -> dict[str, str]:
    """As batch scripts see them: the same under the old name too."""
    old = {key.replace("HET_GROUP", "PACK_GROUP"): value for key, value in variables.items()}
    return {**old, **variables, "SLURM_HET_SIZE": "2", "SLURM_PACK_SIZE": "2"}


PLAIN = {
    "SLURM_JOB_ID": "1", "SLURM_JOBID": "1", "SLURM_CLUSTER_NAME": "simenv",
    "SLURM_JOB_NODELIST": "node[1-2]", "SLURM_NODELIST": "node[1-2]", "SLURM_JOB_NUM_NODES": "2",
    "SLURM_JOB_CPUS_PER_NODE": "2,1", "SLURM_TASKS_PER_NODE": "2,1", "SLURM_CPUS_PER_TASK": "1",
    "SLURM_JOB_PARTITION": "classical", "SLURM_MEM_PER_CPU": "100",
}  # fmt: skip
PLAIN_JOB = """\
JobId=1 JobName=job.sh
   UserId=root(0) GroupId=root(0) MCS_label=N/A
   JobState=RUNNING Reason=None Dependency=(null)
   RunTime=00:00:00 TimeLimit=00:10:00 TimeMin=N/A
   SubmitTime=1795187668 EligibleTime=1795187668
   StartTime=1795187668 EndTime=1795188268 Deadline=N/A
   Partition=classical AllocNode:Sid=localhost:25987
   NodeList=node[1-2]
   NumNodes=2 NumCPUs=3 NumTasks=3 CPUs/Task=1 ReqB:S:C:T=0:0:*:*
   TRES=cpu=3,node=2,billing=3
   JOB_GRES=(null)
     Nodes=node1 CPU_IDs=0-1 Mem=0 GRES=
     Nodes=node2 CPU_IDs=0 Mem=0 GRES=
   MinCPUsNode=1 MinMemoryCPU=100M MinTmpDiskNode=0
   Features=(null) DelayBoot=00:00:00
   Command=/home/me/job.sh

"""
HET = {
    "SLURM_JOB_ID": "2", "SLURM_JOB_NODELIST": "node[1-2]", "SLURM_JOB_CPUS_PER_NODE": "2(x2)",
    "SLURM_TASKS_PER_NODE": "2(x2)", "SLURM_JOB_PARTITION": "classical",
    "SLURM_MEM_PER_NODE": "200",
    **het(
        SLURM_JOB_ID_HET_GROUP_0="2", SLURM_JOB_ID_HET_GROUP_1="3",
        SLURM_JOB_NODELIST_HET_GROUP_0="node[1-2]", SLURM_JOB_NODELIST_HET_GROUP_1="node4",
        SLURM_JOB_CPUS_PER_NODE_HET_GROUP_0="2(x2)", SLURM_JOB_CPUS_PER_NODE_HET_GROUP_1="1",
        SLURM_TASKS_PER_NODE_HET_GROUP_0="2(x2)", SLURM_TASKS_PER_NODE_HET_GROUP_1="1",
        SLURM_JOB_PARTITION_HET_GROUP_0="classical", SLURM_JOB_PARTITION_HET_GROUP_1="quantum",
        SLURM_MEM_PER_NODE_HET_GROUP_0="200", SLURM_MEM_PER_NODE_HET_GROUP_1="100",
    ),
}  # fmt: skip
HET_JOB = """\
JobId=2 HetJobId=2 HetJobOffset=0 JobName=het.sh
   HetJobIdSet=2-3
   StartTime=1795187670 EndTime=1795188270 Deadline=N/A
   Partition=classical AllocNode:Sid=localhost:25987
   NodeList=node[1-2]
   TRES=cpu=4,node=2,billing=4
   JOB_GRES=(null)
     Nodes=node[1-2] CPU_IDs=0-1 Mem=0 GRES=
   MinCPUsNode=1 MinMemoryNode=200M MinTmpDiskNode=0
   Features=(null) DelayBoot=00:00:00

JobId=3 HetJobId=2 HetJobOffset=1 JobName=het.sh
   HetJobIdSet=2-3
   StartTime=1795187670 EndTime=1795188200 Deadline=N/A
   Partition=quantum AllocNode:Sid=localhost:25987
   NodeList=node4
   TRES=cpu=1,node=1,billing=1
   JOB_GRES=qc:1
     Nodes=node4 CPU_IDs=0 Mem=0 GRES=qc(CNT:1)
   Features=(null) DelayBoot=00:00:00
   TresPerNode=gres:qc:1

"""
HET_NODES = (
    Node("node1", 2, 200 * MIB, features=("classical",)),
    Node("node2", 2, 200 * MIB, features=("classical",)),
    Node("node4", 1, 100 * MIB, features=("quantum", "qc"), group=1),
)
SALLOC_HET = {  # no variable without a group's number but these
    "SLURM_JOB_ID": "4",
    "SLURM_NTASKS": "3",
    **het(
        SLURM_JOB_NODELIST_HET_GROUP_0="node1", SLURM_JOB_NODELIST_HET_GROUP_1="node4",
        SLURM_NODELIST_HET_GROUP_0="node1", SLURM_NODELIST_HET_GROUP_1="node4",
        SLURM_JOB_CPUS_PER_NODE_HET_GROUP_0="2", SLURM_JOB_CPUS_PER_NODE_HET_GROUP_1="1",
        SLURM_JOB_PARTITION_HET_GROUP_0="classical", SLURM_JOB_PARTITION_HET_GROUP_1="quantum",
    ),
}  # fmt: skip
GPU_JOB = """\
JobId=9 JobName=train
   StartTime=2026-11-20T15:00:00 EndTime=Unknown Deadline=N/A
   JOB_GRES=gpu:a100:6
     Nodes=gpu[01-02] CPU_IDs=0-15 Mem=65536 GRES=gpu:a100:2(IDX:0-1)
     Nodes=gpu07 CPU_IDs=0-7 Mem=32768 GRES=gpu:a100:2(IDX:0,3),qc(CNT:1)
   Features=fast&(ib|eth) DelayBoot=00:00:00

"""
FULL_NODES = """\
NodeName=node1 Arch=x86_64 CPUAlloc=4 CPUEfctv=8 CPUTot=8 CPULoad=0.90 \
AvailableFeatures=(null) ActiveFeatures=(null) Gres=(null) OS=Linux 6.1 #1 SMP @0  RealMemory=8000 \
AllocMem=0 State=MIXED
NodeName=node2 Arch=x86_64 CPUAlloc=8 CPUTot=8 CPULoad=0.90 AvailableFeatures=big,ib \
ActiveFeatures=big,ib Gres=(null) RealMemory=32000 AllocMem=0 State=ALLOCATED
"""

SITES = (
    Site("a laptop", {"HOME": "/home/me"}, (HERE,), "this machine"),
    Site("a login node of a Slurm cluster",
         {"SLURM_CONF": "/etc/slurm.conf", "SLURM_CLUSTER_NAME": "c", "SLURM_TIME_FORMAT": "%s"},
         (HERE,), "this machine"),
    Site("a job's number alone, left behind", {"SLURM_JOB_ID": "5"}, (HERE,), "this machine"),
    Site("a batch job", PLAIN,
         (Node("node1", 2, 200 * MIB, features=("classical",)),
          Node("node2", 1, 100 * MIB, features=("classical",))), "Slurm job 1", 1795188268.0,
         {"job": PLAIN_JOB}),
    Site("a batch job whose end was moved after it began",
         {**PLAIN, "SLURM_JOB_END_TIME": "1795190000"},
         (Node("node1", 2, 200 * MIB, features=("classical",)),
          Node("node2", 1, 100 * MIB, features=("classical",))), "Slurm job 1", 1795188268.0,
         {"job": PLAIN_JOB}),
    Site(
        "a batch job without scontrol and without memory",
        {key: value for key, value in PLAIN.items() if key != "SLURM_MEM_PER_CPU"}
        | {"SLURM_JOB_END_TIME": "1795190000"},
        (Node("node1", 2, 2 * SHARE, features=("classical",)),
         Node("node2", 1, SHARE, features=("classical",))),
        "Slurm job 1, memory assumed to be as here",
        1795190000.0,
    ),
    Site("all memory of nodes that are known, one of them shared",
         {"SLURM_JOB_ID": "6", "SLURM_JOB_NODELIST": "node[1-2]", "SLURM_JOB_CPUS_PER_NODE": "4,8",
          "SLURM_MEM_PER_NODE": "0"},
         (Node("node1", 4, 4000 * MIB), Node("node2", 8, 32000 * MIB, features=("big", "ib"))),
         "Slurm job 6", 0.0, {"node": FULL_NODES}),
    Site("one task of many CPUs",
         {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "n[08-10]",
          "SLURM_JOB_CPUS_PER_NODE": "16(x2),4", "SLURM_TASKS_PER_NODE": "1(x3)",
          "SLURM_CPUS_PER_TASK": "4", "SLURM_MEM_PER_NODE": "1024"},
         (Node("n08", 16, GIB), Node("n09", 16, GIB), Node("n10", 4, GIB)), "Slurm job 7"),
    Site("tasks only",
         {"SLURM_JOBID": "8", "SLURM_NODELIST": "a,b", "SLURM_TASKS_PER_NODE": "2(x2)",
          "SLURM_CPUS_PER_TASK": "3", "SLURM_MEM_PER_CPU": "512"},
         (Node("a", 6, 3 * GIB), Node("b", 6, 3 * GIB)), "Slurm job 8"),
    Site("the node alone: its cores are those here",
         {"SLURM_JOB_ID": "8", "SLURM_JOB_NODELIST": "node1"}, (HERE,),
         "Slurm job 8, memory assumed to be as here"),
    Site("more memory promised than this machine has",
         {"SLURM_JOB_ID": "8", "SLURM_JOB_NODELIST": "node[1-2]",
          "SLURM_JOB_CPUS_PER_NODE": "8(x2)", "SLURM_MEM_PER_NODE": "64G"},
         (Node("node1", 8, 16 * GIB), Node("node2", 8, 64 * GIB)), "Slurm job 8"),
    Site("a heterogeneous batch job", HET, HET_NODES, "Slurm job 2 of 2 groups", 1795188200.0,
         {"job": HET_JOB}),
    Site("the same on an old Slurm", {key: value for key, value in HET.items() if "HET" not in key},
         HET_NODES, "Slurm job 2 of 2 groups", 1795188200.0, {"job": HET_JOB}),
    Site("a heterogeneous job by salloc, on the submit host", SALLOC_HET,
         (Node("node1", 2, 2 * SHARE, features=("classical",)),
          Node("node4", 1, SHARE, features=("quantum",), group=1)),
         "Slurm job 4 of 2 groups, memory assumed to be as here"),
    Site("a node in both groups",
         {**SALLOC_HET, "SLURM_JOB_NODELIST_HET_GROUP_1": "node1",
          "SLURM_MEM_PER_CPU_HET_GROUP_0": "256", "SLURM_MEM_PER_CPU_HET_GROUP_1": "1024"},
         (Node("node1", 3, 1536 * MIB, features=("classical", "quantum")),),
         "Slurm job 4 of 2 groups"),
    Site("inside a step of a heterogeneous job that shows one group",
         {"SLURM_JOB_ID": "3", "SLURM_HET_SIZE": "2", "SLURM_JOB_NODELIST": "node4",
          "SLURM_JOB_CPUS_PER_NODE": "1", "SLURM_MEM_PER_NODE": "100"},
         (Node("node4", 1, 100 * MIB),), "Slurm job 3"),
    Site("GPUs of a type, features, and an end nobody knows",
         {"SLURM_JOB_ID": "9", "SLURM_JOB_NODELIST": "gpu[01-02,07]",
          "SLURM_JOB_CPUS_PER_NODE": "16(x2),8", "SLURM_JOB_PARTITION": "gpu",
          "SLURM_GPUS_ON_NODE": "2"},
         (Node("gpu01", 16, 64 * GIB, 2, ("gpu", "a100", "fast", "ib", "eth")),
          Node("gpu02", 16, 64 * GIB, 2, ("gpu", "a100", "fast", "ib", "eth")),
          Node("gpu07", 8, 32 * GIB, 2, ("gpu", "a100", "qc", "fast", "ib", "eth"))), "Slurm job 9",
         0.0, {"job": GPU_JOB}),
    Site("GPUs by variable alone",
         {"SLURM_JOB_ID": "9", "SLURM_JOB_NODELIST": "g[1-2]", "SLURM_JOB_CPUS_PER_NODE": "4(x2)",
          "SLURM_GPUS_PER_NODE": "a100:4", "SLURM_MEM_PER_NODE": "1024"},
         (Node("g1", 4, GIB, 4), Node("g2", 4, GIB, 4)), "Slurm job 9"),
    Site("full names in the list",
         {"SLURM_JOB_ID": "9", "SLURM_JOB_NODELIST": "node1.site.org,x[1-2].site.org",
          "SLURM_JOB_CPUS_PER_NODE": "8(x3)"},
         (Node("node1.site.org", 8, 16 * GIB), Node("x1.site.org", 8, 16 * GIB),
          Node("x2.site.org", 8, 16 * GIB)), "Slurm job 9, memory assumed to be as here"),
    Site("scontrol prints what nobody understands", PLAIN,
         (Node("node1", 2, 200 * MIB, features=("classical",)),
          Node("node2", 1, 100 * MIB, features=("classical",))), "Slurm job 1", 0.0,
         {"job": "slurm_load_jobs error\n  Nodes=a[ Mem=x GRES=::(\nEndTime=\n",
          "node": "NodeName="}),
    Site("PBS, one line a core", {"PBS_JOBID": "17.server", "PBS_NUM_PPN": "2"},
         (Node("n1", 2, 2 * SHARE), Node("n2", 2, 2 * SHARE)),
         "PBS job 17.server, memory assumed to be as here", nodefile="n1\nn1\nn2\nn2\n"),
    Site("PBS, one line a node of many cores", {"PBS_JOBID": "18.server", "NCPUS": "8"},
         (Node("node1", 8, 16 * GIB), Node("n2", 8, 16 * GIB)),
         "PBS job 18.server, memory assumed to be as here", nodefile="node1\nn2\n"),
    Site("PBS with nodes that differ", {"PBS_JOBID": "19.server", "NCPUS": "8", "PBS_NUM_PPN": "8"},
         (Node("n1", 3, 3 * SHARE), Node("n2", 1, SHARE)),
         "PBS job 19.server, memory assumed to be as here", nodefile="n1\nn1\nn1\nn2\n\n"),
    Site("PBS with full names", {"PBS_JOBID": "20.server"}, (Node("n1.site.org", 1, SHARE),),
         "PBS job 20.server, memory assumed to be as here", nodefile="n1.site.org\n"),
    Site("Slurm's emulation of PBS: Slurm itself is asked", {"PBS_JOBID": "1", **PLAIN},
         (Node("node1", 2, 200 * MIB, features=("classical",)),
          Node("node2", 1, 100 * MIB, features=("classical",))), "Slurm job 1", nodefile="other\n"),
    Site("a PBS host without a job", {"PBS_CONF_FILE": "/etc/pbs.conf", "PBS_NODEFILE": ""},
         (HERE,), "this machine"),
)  # fmt: skip
