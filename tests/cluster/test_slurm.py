"""The throw-away Slurm itself: what other tests of this folder stand on."""

import subprocess

from cluster_slurm import LOGIN

from testbed.cluster import Cluster

PIPE = subprocess.PIPE


def test_step_runs_on_a_compute_node(four: Cluster) -> None:
    result = four.run(LOGIN, ["srun", "--nodes=3", "--ntasks=3", "hostname"])
    assert sorted(result.stdout.split()) == ["node1", "node2", "node3"]


def test_het_job_gets_the_nodes_of_all_components(four: Cluster) -> None:
    command = ["srun", "-N2", "-n2", "hostname", ":", "-p", "quantum", "--gres=qc:QC:1", "hostname"]
    assert sorted(four.run(LOGIN, command).stdout.split()) == ["node1", "node2", "node4"]


def test_qpu_gres_is_allocated_to_one_job_at_a_time(four: Cluster) -> None:
    ask = ["-p", "quantum", "--gres=qc:QC:1"]
    first = four.popen(
        LOGIN, ["salloc", "-Q", *ask, "sh", "-c", "echo got; cat"], stdin=PIPE, stdout=PIPE
    )
    assert first.stdout is not None
    assert first.stdout.readline() == "got\n"
    refused = four.run(LOGIN, ["srun", *ask, "--immediate=1", "true"], check=False)
    assert refused.returncode != 0
    assert "busy" in refused.stderr or "unavailable" in refused.stderr
    first.communicate("")
