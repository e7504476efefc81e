"""The allocation of a batch system, or of this node alone."""

import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from failing import fails
from sites import GIB, HERE, PLAIN, SHARE, SITES, Site

from launcher.allocation import slurm, this_node
from launcher.allocation.discover import discover
from launcher.allocation.hostlist import expand_counts, expand_hosts, same_host
from launcher.base import AllocationError, LaunchError, Node


def unasked(argv: Sequence[str]) -> str:
    """No scontrol here."""
    return ""


@pytest.mark.parametrize("site", SITES, ids=lambda site: site.name)
def test_variables_of_a_site_give_its_nodes(site: Site, tmp_path: Path) -> None:
    environ = dict(site.environ)
    if site.nodefile:
        (tmp_path / "nodes").write_text(site.nodefile)
        environ["PBS_NODEFILE"] = str(tmp_path / "nodes")
    result = discover(environ, run_scontrol=lambda argv: site.scontrol.get(argv[2], ""), local=HERE)
    assert (result.nodes, result.source) == (site.nodes, site.source)
    assert result.end_s == site.end_s


def test_site_fixtures_have_unique_names_and_are_at_least_25() -> None:
    assert len({site.name for site in SITES}) == len(SITES) >= 25


@pytest.mark.parametrize(
    ("hosts", "nodes"),
    [
        ("n1:2,n2:3", (Node("n1", 2, 2 * SHARE), Node("n2", 3, 3 * SHARE))),
        ("n[1-2]:2", (Node("n1", 2, 2 * SHARE), Node("n2", 2, 2 * SHARE))),
        ("node1,n2", (HERE, Node("n2", 1, SHARE))),
        ("localhost:4", (Node("node1", 4, 4 * SHARE),)),
        ("n1:2,n1:1", (Node("n1", 3, 3 * SHARE),)),
        ("node1:64", (Node("node1", 64, HERE.memory_bytes),)),
    ],
)
def test_hosts_option_gives_nodes_slots_and_memory(hosts: str, nodes: tuple[Node, ...]) -> None:
    result = discover(PLAIN, hosts=hosts, run_scontrol=unasked, local=HERE)
    assert (result.nodes, result.source) == (nodes, "--hosts, memory assumed to be as here")


@pytest.mark.parametrize("hosts", ["n1:0", "n1:x", "n1:", ",", "n1:2,", "-x:1", "n1:-2", "a b:1"])
def test_invalid_hosts_are_refused(hosts: str) -> None:
    fails(AllocationError, "hosts = ", discover, {}, hosts=hosts, run_scontrol=unasked, local=HERE)


def test_hostfile_is_read_in_both_forms(tmp_path: Path) -> None:
    path = tmp_path / "hosts"
    path.write_text("# ours\nn1 slots=2 max_slots=4\nn2:3  # MPICH\nn3\nn3\n\nnode1\nn4\n")
    result = discover({}, hostfile=str(path), run_scontrol=unasked, local=HERE)
    slots = [(node.name, node.slots) for node in result.nodes]
    assert slots == [("n1", 2), ("n2", 3), ("n3", 2), ("node1", 8), ("n4", 1)]
    assert result.source.startswith(f"hostfile {path}")


@pytest.mark.parametrize("text", ["n1 slots=x", "n1 slots=0", "n1 cpu=2", "n1:", "# none", "-o x"])
def test_invalid_hostfile_is_refused_by_its_line(text: str, tmp_path: Path) -> None:
    path = tmp_path / "hosts"
    path.write_text(text)
    with pytest.raises(AllocationError, match=r"hostfile .*/hosts") as caught:
        discover({}, hostfile=str(path), run_scontrol=unasked, local=HERE)
    assert caught.value.hint


def test_hosts_come_before_hostfile_and_hostfile_before_site(tmp_path: Path) -> None:
    path = tmp_path / "hosts"
    path.write_text("filed:1")
    both = discover(PLAIN, hosts="named:1", hostfile=str(path), run_scontrol=unasked, local=HERE)
    assert [node.name for node in both.nodes] == ["named"]
    result = discover(PLAIN, hostfile=str(path), run_scontrol=unasked, local=HERE)
    assert [node.name for node in result.nodes] == ["filed"]


@pytest.mark.parametrize("hosts", ["localhost:1,node1:1", "n2:1,N2.site:1", "a.b:1,c:1,a:2"])
def test_same_host_under_two_names_is_refused(hosts: str) -> None:
    with pytest.raises(AllocationError, match="one machine is listed twice") as caught:
        discover({}, hosts=hosts, run_scontrol=unasked, local=HERE)
    assert caught.value.hint
    assert len(discover({}, hosts="a.b:1,a.c:1", run_scontrol=unasked, local=HERE).nodes) == 2


def test_memory_per_slot_overrides_the_reported_memory() -> None:
    result = discover(PLAIN, memory_per_slot=512, run_scontrol=unasked, local=HERE)
    assert [node.memory_bytes for node in result.nodes] == [1024, 512]
    assert result.source == "Slurm job 1"


def test_slots_option_applies_to_nodes_without_slot_count() -> None:
    assert discover({}, slots=3, run_scontrol=unasked, local=HERE).nodes[0].slots == 3
    assert [n.slots for n in discover(PLAIN, slots=3, run_scontrol=unasked, local=HERE).nodes] == [
        3,
        3,
    ]
    named = discover({}, hosts="a:1,b", slots=3, run_scontrol=unasked, local=HERE)
    assert [node.slots for node in named.nodes] == [1, 3]


def test_this_node_keeps_its_memory_with_fewer_slots() -> None:
    assert discover({}, slots=1, run_scontrol=unasked, local=HERE).memory_bytes == 16 * GIB


def test_nodes_are_grouped_in_blocks_of_one_dvm() -> None:
    result = discover({}, hosts="n[1-5]:1", nodes_per_dvm=2, run_scontrol=unasked, local=HERE)
    assert [node.block for node in result.nodes] == [0, 0, 1, 1, 2]
    assert {node.block for node in discover({}, hosts="n[1-5]:1", local=HERE).nodes} == {0}


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("SLURM_JOB_NODELIST", "a[1-"), ("SLURM_JOB_NODELIST", "a;reboot"),
        ("SLURM_JOB_CPUS_PER_NODE", "2"), ("SLURM_JOB_CPUS_PER_NODE", "many"),
        ("SLURM_MEM_PER_NODE", "lots"), ("SLURM_HET_SIZE", "two"),
    ],
)  # fmt: skip
def test_invalid_variables_are_refused_by_name(variable: str, value: str) -> None:
    with pytest.raises(AllocationError, match=variable) as caught:
        discover({**PLAIN, variable: value}, run_scontrol=unasked, local=HERE)
    assert value in str(caught.value)


@pytest.mark.parametrize("value", ["9" * 5_000, "9" * 400, "\u00b2", "\u0661\u0662", "1e9", "-1"])
@pytest.mark.parametrize(
    "variable",
    [
        *("SLURM_JOB_CPUS_PER_NODE", "SLURM_TASKS_PER_NODE", "SLURM_CPUS_PER_TASK"),
        *("SLURM_MEM_PER_NODE", "SLURM_MEM_PER_CPU", "SLURM_HET_SIZE", "SLURM_GPUS_PER_NODE"),
        *("SLURM_GPUS_ON_NODE", "SLURM_JOB_END_TIME"),
    ],
)
def test_out_of_range_numbers_are_refused_by_name_or_ignored(variable: str, value: str) -> None:
    environ = {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "a", "SLURM_TASKS_PER_NODE": "1"}
    refusal = ""
    try:
        result = discover({**environ, variable: value}, run_scontrol=unasked, local=HERE)
    except AllocationError as error:
        refusal = str(error)
    if refusal:
        assert variable in refusal[:300]
    else:
        (node,) = result.nodes
        assert (node.slots, node.gpus, result.end_s) == (1, 0, 0.0)


def test_out_of_range_numbers_of_scontrol_are_ignored() -> None:
    digits = "9" * 5_000
    job = f"JobId=7\n   Nodes=a CPU_IDs=0 Mem={digits} GRES=gpu:{digits}(CNT:{digits})\n"
    table = {"job": job, "node": f"NodeName=a CPUTot={digits} RealMemory={digits}\n"}
    environ = {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "a", "SLURM_TASKS_PER_NODE": "1"}
    (node,) = discover(environ, run_scontrol=lambda argv: table[argv[2]], local=HERE).nodes
    assert (node.slots, node.gpus) == (1, 0)


def test_het_component_without_nodes_is_refused_by_name() -> None:
    environ = {"SLURM_JOB_ID": "1", "SLURM_HET_SIZE": "2", "SLURM_JOB_NODELIST_HET_GROUP_0": "a"}
    with pytest.raises(AllocationError, match="SLURM_JOB_NODELIST_HET_GROUP_1"):
        discover(environ, run_scontrol=unasked, local=HERE)


@pytest.mark.parametrize("text", [None, "", "a b\n", "-oX\n"])
def test_missing_or_invalid_nodefile_is_refused_by_name(text: str | None, tmp_path: Path) -> None:
    path = tmp_path / "nodes"
    if text is not None:
        path.write_text(text)
    with pytest.raises(LaunchError, match="PBS_NODEFILE"):
        discover({"PBS_JOBID": "1", "PBS_NODEFILE": str(path)}, local=HERE)


def test_missing_failing_or_hanging_scontrol_is_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slurm, "TIMEOUT_S", 0.2)
    assert slurm.run_scontrol(("/nonesuch/scontrol",)) == ""
    assert slurm.run_scontrol((sys.executable, "-c", "print(1); raise SystemExit(1)")) == ""
    assert slurm.run_scontrol(("sleep", "60")) == ""


def test_scontrol_is_run_with_unix_time_format(monkeypatch: pytest.MonkeyPatch) -> None:
    script = "import os; print(os.environ['SLURM_TIME_FORMAT'])"
    monkeypatch.setattr(slurm, "TIMEOUT_S", 60.0)
    assert slurm.run_scontrol((sys.executable, "-c", script)) == "%s\n"


def test_slurm_end_time_is_read_as_local_time(monkeypatch: pytest.MonkeyPatch) -> None:
    job = "JobId=1\n   StartTime=2026-11-20T16:00:00 EndTime=2026-11-20T17:00:00\n"
    for zone, end_s in (("UTC0", 1795194000.0), ("XYZ-2", 1795186800.0)):
        monkeypatch.setitem(os.environ, "TZ", zone)
        time.tzset()
        assert discover(PLAIN, run_scontrol=lambda _: job, local=HERE).end_s == end_s
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("a", ["a"]),
        ("a,b.site.org", ["a", "b.site.org"]),
        ("a[1-3,07],b", ["a1", "a2", "a3", "a07", "b"]),
        ("n[009-011]", ["n009", "n010", "n011"]),
        ("r[1-2]n[3,5]x", ["r1n3x", "r1n5x", "r2n3x", "r2n5x"]),
        (" a , b ", ["a", "b"]),
        ("gpu-[10-11].local", ["gpu-10.local", "gpu-11.local"]),
    ],
)
def test_host_list_is_expanded_in_order(text: str, names: list[str]) -> None:
    assert expand_hosts(text, "X") == names


@pytest.mark.parametrize(
    "text",
    [
        "", "a,,b", "a[", "a[1-]", "a[3-1]", "a[x]", "a]", "-oProxyCommand=x", "a b", "a;reboot",
        "$(x)", "a[1-99999999]", "a[1-9999][1-9999]", "a" * 300,
    ],
)  # fmt: skip
def test_invalid_host_list_is_refused_with_its_source_and_a_hint(text: str) -> None:
    assert "hosts=" in fails(AllocationError, r"^WHERE = ", expand_hosts, text, "WHERE").hint


def test_repeated_counts_are_expanded() -> None:
    assert expand_counts("2(x3),1", "X", 4) == [2, 2, 2, 1]


@pytest.mark.parametrize("text", ["2(x3)", "2,2,2,2,2", "", "x,1,1,1", "-1,1,1,1", "1(x999999999)"])
def test_counts_that_do_not_match_the_hosts_are_refused(text: str) -> None:
    fails(AllocationError, "SLOTS = ", expand_counts, text, "SLOTS", 4)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("n1", "n1", True), ("n1", "N1.site.org", True), ("n1.site.org", "n1", True),
        ("n1.site.org.", "n1.site.org", True), ("n1.a.org", "n1.b.org", False),
        ("n1", "n10", False), ("10.0.0.1", "10.0.0.2", False), ("10", "10.0.0.1", False),
        ("fe80::1", "fe80::1", True),
    ],
)  # fmt: skip
def test_short_and_full_names_of_a_host_are_equal(one: str, other: str, same: bool) -> None:
    assert same_host(one, other) is same
    assert same_host(other, one) is same


@pytest.fixture
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stands for /sys/fs/cgroup; what the process is told of its groups stands in `self`."""
    read = this_node._read
    monkeypatch.setattr(this_node, "_CGROUP", tmp_path / "fs")
    monkeypatch.setattr(
        this_node,
        "_read",
        lambda p: read(tmp_path / "self" if str(p) == "/proc/self/cgroup" else p),
    )
    return tmp_path


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_slots_follow_cpu_affinity() -> None:
    result = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(result)})
        assert this_node.this_node().slots == 1
    finally:
        os.sched_setaffinity(0, result)


CORES = len(os.sched_getaffinity(0))
V1 = "cpu,cpuacct/slurm/job_7"


@pytest.mark.parametrize(
    ("own", "files", "slots", "memory_bytes"),
    [
        ("0::/a/b\n",
         {"a/b/cpu.max": "100000 100000", "a/memory.max": "123456789", "a/b/memory.max": "max"},
         1, 123456789),
        ("5:cpu,cpuacct:/slurm/job_7\n3:memory:/slurm/job_7\n0::/\n",
         {f"{V1}/cpu.cfs_quota_us": "150000", f"{V1}/cpu.cfs_period_us": "100000",
          "memory/slurm/job_7/memory.limit_in_bytes": "9223372036854771712",
          "memory/slurm/memory.limit_in_bytes": "77000000"}, 1, 77000000),
        ("4:memory:/docker/abc\n2:cpu,cpuacct:/docker/abc\n",  # a container with its own root
         {"memory/memory.limit_in_bytes": "55000000", "cpu/cpu.cfs_quota_us": "-1",
          "cpu/cpu.cfs_period_us": "100000"}, CORES, 55000000),
        ("0::/a\n", {"a/cpu.max": "20000 100000", "a/memory.max": "44000000"}, 1, 44000000),
    ],
    ids=["version 2", "version 1", "container", "below one core"],
)  # fmt: skip
def test_cgroup_limits_bound_cores_and_memory(
    groups: Path, own: str, files: dict[str, str], slots: int, memory_bytes: int
) -> None:
    write(groups / "self", own)
    for name, text in files.items():
        write(groups / "fs" / name, f"{text}\n")
    node = this_node.this_node()
    assert (node.slots, node.memory_bytes) == (slots, memory_bytes)


def test_names_of_this_machine_are_recognised() -> None:
    assert this_node.is_this_node("localhost")
    assert this_node.is_this_node(os.uname().nodename)
    assert not this_node.is_this_node(os.uname().nodename + "x")
