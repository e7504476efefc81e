"""Batch systems of a site: command lines that submit, list and cancel jobs, and their output.

One table for each system, with the same four entries. Jobs are of one node; the script is read
from standard input, so that neither a file nor a command line shows it to others. Pure but for
`call`.
"""

from __future__ import annotations

import enum
import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from launcher.base import AllocationError

TIMEOUT_S = 30.0
_MIB = 2**20


class JobPhase(enum.Enum):
    """Phase of a job, as its system lists it."""

    PENDING = "pending"
    RUNNING = "running"
    OVER = "over"


@dataclass(frozen=True, slots=True)
class ListedJob:
    """One line of a list of jobs. `detail`: the system's own state and reason."""

    job: str
    phase: JobPhase
    detail: str
    withdrawn: bool = False  # by the site or a user: it has not ended by itself


@dataclass(frozen=True, slots=True)
class JobResources:
    """Resources and options of a job. 0 and "": the default of the site."""

    time_s: float
    slots: int = 1
    memory_bytes: int = 0
    gpus: int = 0
    partition: str = ""  # in PBS: the queue
    account: str = ""
    extra: tuple[str, ...] = ()  # further options of the command that submits


@dataclass(frozen=True, slots=True)
class BatchSystem:
    """Commands of one batch system; each function returns an argv, or parses the output."""

    title: str
    submit: Callable[[str, JobResources, Path], list[str]]  # name, resources, path of the log
    listed: Callable[[Sequence[str], Sequence[str]], list[str]]  # jobs, their names
    parse: Callable[[str], list[ListedJob]]
    cancel: Callable[[Sequence[str]], list[str]]


def call(argv: Sequence[str], environ: Mapping[str, str], stdin: str = "") -> str:
    """Run a command of a batch system; return its output. Raises AllocationError with the last
    line of its messages."""
    try:
        done = subprocess.run(
            argv,
            input=stdin,
            capture_output=True,
            text=True,
            errors="replace",
            env=dict(environ),
            timeout=TIMEOUT_S,
            check=False,
        )
    except OSError as error:
        hint = "the service runs on a node from which jobs can be submitted"
        raise AllocationError(f"cannot run {argv[0]}: {error.strerror}", hint=hint) from error
    except subprocess.TimeoutExpired as error:
        raise AllocationError(f"{argv[0]} has not ended after {TIMEOUT_S:.0f} s") from error
    if done.returncode:
        lines = [line for line in (done.stderr + done.stdout).splitlines() if line.strip()]
        reason = lines[-1][:300] if lines else f"exit {done.returncode}"
        raise AllocationError(f"{argv[0]}: {reason}")
    return done.stdout


def environ_for_jobs(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment without variables of an enclosing Slurm job, which `sbatch` would take
    for options."""
    kept = ("SLURM_CONF", "SLURM_JWT")
    return {k: v for k, v in environ.items() if k in kept or not k.startswith("SLURM_")}


def hours(time_s: float) -> str:
    """Format a length of time as H:MM:SS, rounded up to a second."""
    seconds = -int(-time_s // 1)
    return f"{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}"


def _sbatch(name: str, resources: JobResources, log: Path) -> list[str]:
    argv = ["sbatch", "--parsable", "--no-requeue", f"--job-name={name}", f"--output={log}"]
    argv += ["--open-mode=append", "--nodes=1", "--ntasks=1", f"--cpus-per-task={resources.slots}"]
    argv.append(f"--time={hours(resources.time_s)}")
    if resources.memory_bytes:
        argv.append(f"--mem={-(-resources.memory_bytes // _MIB)}M")
    if resources.gpus:
        argv.append(f"--gpus-per-node={resources.gpus}")
    if resources.partition:
        argv.append(f"--partition={resources.partition}")
    if resources.account:
        argv.append(f"--account={resources.account}")
    return [*argv, *resources.extra]


def _squeue(_jobs: Sequence[str], names: Sequence[str]) -> list[str]:
    # By name: squeue fails if one of the jobs is known no more.
    return [
        *("squeue", "--noheader", "--states=all", f"--user={os.getuid()}"),
        *(f"--name={','.join(names)}", "--format=%i|%T|%r"),
    ]


_SLURM_PENDING = ("PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "RESV_DEL_HOLD")
_SLURM_WITHDRAWN = ("CANCELLED", "PREEMPTED", "NODE_FAIL", "BOOT_FAIL", "DEADLINE", "REVOKED")
_SLURM_RUNNING = ("RUNNING", "SUSPENDED", "STOPPED", "SIGNALING", "STAGE_OUT", "RESIZING")


def _parse_squeue(text: str) -> list[ListedJob]:
    results = []
    for line in text.splitlines():
        job, _, rest = line.strip().partition("|")
        state, _, reason = rest.partition("|")
        phase = JobPhase.PENDING if state in _SLURM_PENDING else JobPhase.OVER
        phase = JobPhase.RUNNING if state in _SLURM_RUNNING else phase
        if job:
            detail = state if reason in ("", "None") else f"{state}: {reason}"
            results.append(ListedJob(job, phase, detail, state in _SLURM_WITHDRAWN))
    return results


def _qsub(name: str, resources: JobResources, log: Path) -> list[str]:
    select = f"select=1:ncpus={resources.slots}"
    if resources.memory_bytes:
        select += f":mem={-(-resources.memory_bytes // _MIB)}mb"
    if resources.gpus:
        select += f":ngpus={resources.gpus}"
    argv = ["qsub", "-r", "n", "-N", name, "-j", "oe", "-o", str(log), "-l", select]
    argv += ["-l", f"walltime={hours(resources.time_s)}"]
    if resources.partition:
        argv += ["-q", resources.partition]
    if resources.account:
        argv += ["-A", resources.account]
    return [*argv, *resources.extra]


_PBS_PENDING, _PBS_RUNNING = "QHWT", "REBSU"


def _parse_qstat(text: str) -> list[ListedJob]:
    """Parse the table of `qstat`: job, name, user, time, state, queue."""
    results = []
    for line in text.splitlines():
        fields = line.split()
        if len(fields) < 6 or not fields[0][:1].isdigit() or len(fields[-2]) != 1:
            continue
        state = fields[-2]
        phase = JobPhase.PENDING if state in _PBS_PENDING else JobPhase.OVER
        phase = JobPhase.RUNNING if state in _PBS_RUNNING else phase
        results.append(ListedJob(fields[0], phase, f"state {state}"))
    return results


def same_job(job: str, listed: str) -> bool:
    """Return whether a listed job is the submitted one; tables of PBS cut off the server's name."""
    return job == listed or job.split(".")[0] == listed.split(".")[0]


SYSTEMS = {
    "slurm": BatchSystem("Slurm", _sbatch, _squeue, _parse_squeue, lambda jobs: ["scancel", *jobs]),
    "pbs": BatchSystem(
        "PBS",
        _qsub,
        lambda _jobs, _names: ["qstat"],  # of all jobs: with ids it fails if one is known no more
        _parse_qstat,
        lambda jobs: ["qdel", *jobs],
    ),
}
