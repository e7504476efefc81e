"""Batch systems of a site: command lines that submit, list and cancel jobs, and their output.

One table for each system, with the same four entries. Jobs are of one node; the script is read
from standard input, so that neither a file nor a command line shows it to others. Pure but for
`call`.
"""

from __future__ import annotations

import enum
import json
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
    parse: Callable[[str], list[ListedJob]]  # raises AllocationError
    cancel: Callable[[Sequence[str]], list[str]]
    unlisted: str = ""  # in the message about a job that the system does not know any more


def call(
    argv: Sequence[str], environ: Mapping[str, str], stdin: str = "", unlisted: str = ""
) -> str:
    """Run a command of a batch system; return its output, also that of a command that failed, if
    all of its messages contain `unlisted`. Raises AllocationError with the last line of its
    messages."""
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
    messages = [line for line in done.stderr.splitlines() if line.strip()]
    if done.returncode and unlisted and messages and all(unlisted in each for each in messages):
        return done.stdout
    if done.returncode:
        lines = messages or done.stdout.split("\n")
        reason = lines[-1][:300].strip() or f"exit {done.returncode}"
        raise AllocationError(f"{argv[0]}: {reason}")
    return done.stdout


def environ_for_jobs(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment without variables of an enclosing job, which `sbatch` and `qsub` would
    take for options, or pass on."""
    kept = ("SLURM_CONF", "SLURM_JWT", "PBS_CONF_FILE", "PBS_EXEC", "PBS_SERVER")
    of_job = ("SLURM_", "PBS_")
    return {k: v for k, v in environ.items() if k in kept or not k.startswith(of_job)}


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
    # -S: the script is not read by the user's login shell; -V: variables, as `sbatch` passes them.
    argv = ["qsub", "-S", "/bin/sh", "-V", "-r", "n", "-N", name, "-j", "oe", "-o", str(log)]
    argv += ["-l", select]
    argv += ["-l", f"walltime={hours(resources.time_s)}"]
    if resources.partition:
        argv += ["-q", resources.partition]
    if resources.account:
        argv += ["-A", resources.account]
    return [*argv, *resources.extra]


_PBS_PENDING, _PBS_RUNNING = "QHWTM", "REBSU"  # M: moved to another server
_PBS_DELETED = "91"  # substate of a job that was deleted
_PBS_SIGNAL = 256  # Exit_status of a job that was ended by signal N: 256 + N


def _qstat(jobs: Sequence[str], _names: Sequence[str]) -> list[str]:
    return ["qstat", "-x", "-f", "-F", "json", *jobs]  # -x: also ended ones, if the site keeps them


def _parse_qstat(text: str) -> list[ListedJob]:
    """Parse the JSON of `qstat -f`: {"Jobs": {ID: {"job_state": "Q", "comment": ...}}}."""
    try:
        jobs = json.loads(text or "{}").get("Jobs", {})
        return [_pbs_job(job, attributes) for job, attributes in jobs.items()]
    except (ValueError, AttributeError) as error:
        raise AllocationError(f"the output of qstat is not understood: {error}") from error


def _pbs_job(job: str, attributes: Mapping[str, object]) -> ListedJob:
    """Return a job by its attributes; numbers may be text."""
    state, substate, code, comment = (
        str(attributes.get(key, "")) for key in ("job_state", "substate", "Exit_status", "comment")
    )
    phase = JobPhase.PENDING if state and state in _PBS_PENDING else JobPhase.OVER
    phase = JobPhase.RUNNING if state and state in _PBS_RUNNING else phase
    number = int(code) if code.removeprefix("-").isdecimal() else 0
    withdrawn = substate == _PBS_DELETED or number < 0 or number > _PBS_SIGNAL
    detail = f"state {state}" + (f", exit {code}" if code else "")
    detail += f": {comment[:200]}" if comment else ""
    return ListedJob(job, phase, detail, phase is JobPhase.OVER and withdrawn)


def job_number(job: str) -> str:
    """Return a job's number without the name of its server, which PBS lists in several forms."""
    return job.partition(".")[0]


SYSTEMS = {
    "slurm": BatchSystem("Slurm", _sbatch, _squeue, _parse_squeue, lambda jobs: ["scancel", *jobs]),
    "pbs": BatchSystem(
        "PBS",
        _qsub,
        _qstat,
        _parse_qstat,
        lambda jobs: ["qdel", *jobs],
        "Unknown Job Id",
    ),
}
