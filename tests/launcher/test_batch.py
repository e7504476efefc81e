"""Command lines of batch systems, and the output of their lists."""

import os
from pathlib import Path

import pytest

from launcher.base import AllocationError
from launcher.batch import (
    SYSTEMS,
    JobPhase,
    JobResources,
    ListedJob,
    call,
    environ_for_jobs,
    hours,
    same_job,
)

LOG = Path("/logs/job.big.1.log")
FULL = JobResources(14_400.5, 8, 2**30 + 1, 2, "gpu", "chem", ("--constraint=a100", "--qos=low"))


def test_sbatch_gets_every_resource_and_the_site_s_options_last() -> None:
    argv = SYSTEMS["slurm"].submit("simenv-a-big", FULL, LOG)
    assert argv[:4] == ["sbatch", "--parsable", "--no-requeue", "--job-name=simenv-a-big"]
    assert {"--nodes=1", "--cpus-per-task=8", "--time=4:00:01", "--mem=1025M"} <= set(argv)
    assert {"--gpus-per-node=2", "--partition=gpu", "--account=chem"} <= set(argv)
    assert argv[-2:] == ["--constraint=a100", "--qos=low"]


def test_job_without_resources_leaves_them_to_the_site() -> None:
    argv = SYSTEMS["slurm"].submit("n", JobResources(60.0), LOG)
    assert not any(
        word.startswith(("--mem", "--gpus", "--partition", "--account")) for word in argv
    )


def test_qsub_gets_the_same_resources_and_is_not_run_again() -> None:
    argv = SYSTEMS["pbs"].submit("simenv-a-big", FULL, LOG)
    text = " ".join(argv)
    assert text.startswith("qsub -r n -N simenv-a-big")
    assert "-l select=1:ncpus=8:mem=1025mb:ngpus=2" in text
    assert "-l walltime=4:00:01 -q gpu -A chem" in text


@pytest.mark.parametrize(("seconds", "text"), [(60.0, "0:01:00"), (90_061.0, "25:01:01")])
def test_length_of_a_job_is_hours_minutes_seconds(seconds: float, text: str) -> None:
    assert hours(seconds) == text


def test_squeue_lists_waiting_running_and_ended_jobs() -> None:
    lines = "17|PENDING|Priority 18|RUNNING|None 19|CANCELLED|None 20|PREEMPTED|None 21|FAILED|None"
    output = lines.replace(" ", "\n") + "\n\n"
    assert SYSTEMS["slurm"].parse(output) == [
        ListedJob("17", JobPhase.PENDING, "PENDING: Priority"),
        ListedJob("18", JobPhase.RUNNING, "RUNNING"),
        ListedJob("19", JobPhase.OVER, "CANCELLED", withdrawn=True),
        ListedJob("20", JobPhase.OVER, "PREEMPTED", withdrawn=True),
        ListedJob("21", JobPhase.OVER, "FAILED"),
    ]
    argv = SYSTEMS["slurm"].listed(["17", "18"], ["simenv-a-big"])
    assert f"--user={os.getuid()}" in argv
    assert "--name=simenv-a-big" in argv


def test_qstat_lists_waiting_running_and_ended_jobs() -> None:
    output = """Job id            Name             User              Time Use S Queue
----------------  ---------------- ----------------  -------- - -----
1024.pbs          simenv-a-big     ana                      0 Q workq
1025.pbs          simenv-a-big     ana               00:00:12 R workq
1026.pbs          simenv-a-big     ana               00:10:12 F workq
"""
    phases = [(each.job, each.phase) for each in SYSTEMS["pbs"].parse(output)]
    assert phases == [
        ("1024.pbs", JobPhase.PENDING),
        ("1025.pbs", JobPhase.RUNNING),
        ("1026.pbs", JobPhase.OVER),
    ]
    assert same_job("1024.pbs.site.example", "1024.pbs")
    assert not same_job("1024.pbs", "1025.pbs")


def test_jobs_are_cancelled_in_one_call() -> None:
    assert SYSTEMS["slurm"].cancel(["17", "18"]) == ["scancel", "17", "18"]
    assert SYSTEMS["pbs"].cancel(["17.pbs"]) == ["qdel", "17.pbs"]


def test_failed_command_says_what_the_site_said(tmp_path: Path) -> None:
    program = tmp_path / "sbatch"
    program.write_text("#!/bin/sh\ncat >&2\nexit 1\n")
    program.chmod(0o700)
    with pytest.raises(AllocationError, match="sbatch: error: invalid account"):
        call([str(program)], {}, "sbatch: error: invalid account\n")
    with pytest.raises(AllocationError, match="cannot run"):
        call([str(tmp_path / "qsub")], {})


def test_variables_of_an_enclosing_job_are_not_passed_to_sbatch() -> None:
    environ = {"SLURM_JOB_ID": "1", "SLURM_CONF": "/etc/slurm.conf", "HOME": "/home/ana"}
    assert environ_for_jobs(environ) == {"SLURM_CONF": "/etc/slurm.conf", "HOME": "/home/ana"}
