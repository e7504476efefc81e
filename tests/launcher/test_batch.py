"""Command lines of batch systems, and the output of their lists."""

import json
import os
from pathlib import Path

import pytest
from failing import fails

from launcher.base import AllocationError
from launcher.batch import (
    SYSTEMS,
    JobPhase,
    JobResources,
    ListedJob,
    call,
    environ_for_jobs,
    hours,
    job_number,
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
    text = " ".join(SYSTEMS["pbs"].submit("simenv-a-big", FULL, LOG))
    assert text.startswith("qsub -S /bin/sh -V -r n -N simenv-a-big -j oe -o /logs/job.big.1.log")
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


def qstat(**jobs: dict[str, object]) -> str:
    """What `qstat -f -F json` prints; numbers are numbers or text, by the version of PBS."""
    head = {"timestamp": 1_479_277_336, "pbs_version": "23.06.06", "pbs_server": "pbs"}
    named = {f"{name[1:]}.pbs.site": {"Job_Name": "n", **job} for name, job in jobs.items()}
    return json.dumps({**head, "Jobs": named} if jobs else head)


def test_qstat_lists_waiting_running_and_ended_jobs() -> None:
    comment = "Not Running: Insufficient amount of resource: ncpus"
    output = qstat(
        j1={"job_state": "Q", "substate": 10, "comment": comment},
        j2={"job_state": "R", "substate": 42},
        j3={"job_state": "E", "substate": "51"},
        j4={"job_state": "F", "substate": 92, "Exit_status": 1},
        j5={"job_state": "F", "substate": 92, "Exit_status": "271"},
        j6={"job_state": "F", "substate": "91"},
        j7={"job_state": "F", "substate": 93, "Exit_status": -3},
    )
    over, running = JobPhase.OVER, JobPhase.RUNNING
    assert SYSTEMS["pbs"].parse(output) == [
        ListedJob("1.pbs.site", JobPhase.PENDING, f"state Q: {comment}"),
        ListedJob("2.pbs.site", running, "state R"),
        ListedJob("3.pbs.site", running, "state E"),
        ListedJob("4.pbs.site", over, "state F, exit 1"),
        ListedJob("5.pbs.site", over, "state F, exit 271", withdrawn=True),
        ListedJob("6.pbs.site", over, "state F", withdrawn=True),
        ListedJob("7.pbs.site", over, "state F, exit -3", withdrawn=True),
    ]
    assert SYSTEMS["pbs"].parse(qstat()) == []
    assert job_number("1024.pbs.site.example") == job_number("1024.pbs") == "1024"
    argv = SYSTEMS["pbs"].listed(["17.pbs", "18.pbs"], ["n"])
    assert argv == ["qstat", "-x", "-f", "-F", "json", "17.pbs", "18.pbs"]
    for text in ("Job id  Name", "[]", '{"Jobs": {"1.pbs": "Q"}}'):
        fails(AllocationError, "output of qstat is not understood", SYSTEMS["pbs"].parse, text)


def test_list_of_jobs_is_used_if_some_are_known_no_more(tmp_path: Path) -> None:
    program = tmp_path / "qstat"
    program.write_text("#!/bin/sh\necho listed\ncat >&2\nexit 153\n")
    program.chmod(0o700)
    unlisted = SYSTEMS["pbs"].unlisted
    message = "qstat: Unknown Job Id 17.pbs\n"
    assert call([str(program)], {}, message, unlisted) == "listed\n"
    with pytest.raises(AllocationError, match="cannot connect"):
        call([str(program)], {}, message + "qstat: cannot connect to server pbs\n", unlisted)
    fails(AllocationError, "", call, [str(program)], {}, "", unlisted)


def test_jobs_are_cancelled_in_one_call() -> None:
    assert SYSTEMS["slurm"].cancel(["17", "18"]) == ["scancel", "17", "18"]
    assert SYSTEMS["pbs"].cancel(["17.pbs"]) == ["qdel", "17.pbs"]


def test_failed_command_says_what_the_site_said(tmp_path: Path) -> None:
    program = tmp_path / "sbatch"
    program.write_text("#!/bin/sh\ncat >&2\nexit 1\n")
    program.chmod(0o700)
    with pytest.raises(AllocationError, match="sbatch: error: invalid account"):
        call([str(program)], {}, "sbatch: error: invalid account\n")
    fails(AllocationError, "cannot run", call, [str(tmp_path / "qsub")], {})


def test_variables_of_an_enclosing_job_are_not_passed_to_its_commands() -> None:
    kept = {"SLURM_CONF": "/etc/slurm.conf", "PBS_SERVER": "pbs", "HOME": "/home/ana"}
    environ = {"SLURM_JOB_ID": "1", "PBS_JOBID": "1.pbs", "PBS_NODEFILE": "/n", **kept}
    assert environ_for_jobs(environ) == kept
