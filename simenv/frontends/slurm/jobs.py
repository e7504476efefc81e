"""Reservations of Slurm's jobs: made at a job's start in the name of its user, ended when the job
has ended.

PrologSlurmctld makes them with the rights of an admin, which the scope `slurm/CLUSTER` needs; the
job's user finds them by the number of the job. The request id makes a repeat the same reservation.
Invariant: who reserves looks at the job again afterwards. Slurm changes the state of a job before
it starts the epilog, so a reservation that is made too late for the epilog sees the end of its job.
`reconcile` ends what remains: where an epilog could not run, or the service did not answer it, and
what a job has no licences for any more. It also finds the jobs that have licences of a pool without
a reservation.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec

from simenv import model
from simenv.client import reservations
from simenv.errors import (
    NotFoundError,
    NotReservedError,
    OptionError,
    SlurmAwayError,
    SlurmError,
    TimedOutError,
)
from simenv.model.reservations import BATCH_ACCOUNT, JOB_SCOPE
from simenv.qpm import contract
from simenv.wire.messages import admin

if TYPE_CHECKING:
    from simenv.client.client import Client

MAX_DEVICES, MAX_COUNT = 8, 4_096  # as in the plugin
LEASE_S = 3_600.0  # of a reservation at most; `simenv slurm sync` renews it while the job runs
RENEW_S = LEASE_S / 2  # a reservation with less time left is renewed
AFTER_S = 60.0  # from the end of the job's time to the end of its reservation
POLL_S = 0.2  # of a job that waits for its reservation
COMMAND_S = 20.0  # longest time of a command of Slurm
# Job states in which the share is the job's; PENDING and all ends are not among them.
HOLDING = frozenset(
    ("RUNNING", "CONFIGURING", "SUSPENDED", "STOPPED", "SIGNALING", "RESIZING", "STAGE_OUT")
)
_DEVICE = re.compile(r"([A-Za-z0-9_.-]{1,64})(?::([1-9]\d{0,3}))?\Z")
_NUMBER = re.compile(r"[1-9]\d{0,9}\Z")
_FORMAT = "%A|%T|%r|%L|%u|%a|%W"  # licences are last: they may have a |
_SEPARATORS = 6
_UNKNOWN_JOB = "invalid job id"
# Messages of Slurm (slurm_errno.c) about a slurmctld that is away, slow, or not yet in charge.
_AWAY = re.compile(
    r"unable to contact slurm controller|timed out|connection (failure|refused)|standby mode"
    r"|zero bytes were transmitted",
    re.IGNORECASE,
)


class SlurmJob(msgspec.Struct, frozen=True):
    """A job as squeue shows it. `reason`: why it waits. `left_s`: time left; None: no limit, or not
    known. `account`: of Slurm's accounting; "": it has none."""

    number: int
    state: str
    reason: str
    left_s: float | None
    user: str
    licenses: Mapping[str, int]
    account: str = ""

    @property
    def lease_s(self) -> float:
        """Time for which its reservation is made or renewed, in seconds."""
        return LEASE_S if self.left_s is None else min(LEASE_S, self.left_s + AFTER_S)

    @property
    def holds(self) -> bool:
        """True while the share is the job's."""
        return self.state in HOLDING


class UnreservedJob(msgspec.Struct, frozen=True):
    """A running job that has licences of pools, and no reservation for them."""

    job: int
    user: str
    licenses: dict[str, int]

    def __str__(self) -> str:
        counts = ", ".join(f"{name}:{count}" for name, count in self.licenses.items())
        return f"job {self.job} of {self.user} has the licences {counts} and no reservation"


class DeviceShare(msgspec.Struct, frozen=True):
    """Workers of a pool."""

    pool: str
    count: int = 1

    def __str__(self) -> str:
        return f"{self.pool}:{self.count}"


class JobReservation(msgspec.Struct, frozen=True):
    """The reservation of a job's share."""

    share: DeviceShare
    number: int


def shares_of(text: str) -> list[DeviceShare]:
    """Parse `--qpu`: NAME[:COUNT][,NAME...]. Raises OptionError."""
    shares: list[DeviceShare] = []
    for word in text.split(","):
        parts = _DEVICE.match(word)
        count = int(parts[2] or 1) if parts else 0
        if parts is None or count > MAX_COUNT or parts[1] in [each.pool for each in shares]:
            hint = f"NAME[:COUNT][,NAME...], each pool once, COUNT from 1 to {MAX_COUNT}"
            raise OptionError(f"--qpu: {word[:80]!r}", hint=hint)
        shares.append(DeviceShare(parts[1], count))
    if len(shares) > MAX_DEVICES:
        raise OptionError(f"--qpu names {len(shares)} devices; the most is {MAX_DEVICES}")
    return shares


def job_number(text: str) -> int:
    """Parse the number of a job. Raises OptionError."""
    if not _NUMBER.match(text):
        raise OptionError(f"job {text[:80]!r} is no number of a job", hint="SLURM_JOB_ID")
    return int(text)


# --- Slurm ---------------------------------------------------------------------------------------


def run(argv: Sequence[str]) -> str:
    """Run a command of Slurm and return its output. Raises SlurmError, with its message if it
    fails; SlurmAwayError if slurmctld does not answer."""
    try:
        done = subprocess.run(
            argv, capture_output=True, text=True, timeout=COMMAND_S, check=False,
            stdin=subprocess.DEVNULL, env=_environ(),
        )  # fmt: skip
    except FileNotFoundError as error:
        hint = "install Slurm's commands, or set PATH"
        raise SlurmError(f"there is no command {argv[0]}", hint=hint) from error
    except subprocess.TimeoutExpired as error:
        raise SlurmAwayError(f"{argv[0]} has not answered within {COMMAND_S:g} s") from error
    if done.returncode:
        kind = SlurmAwayError if _AWAY.search(done.stderr) else SlurmError
        raise kind(f"{' '.join(argv)}: {done.stderr.strip()[:400]}")
    return done.stdout


def _environ() -> dict[str, str]:
    """Return the environment of a command, without the variables that would filter its answer."""
    return {k: v for k, v in os.environ.items() if not k.startswith(("SQUEUE_", "SLURM_CLUSTERS"))}


def listed_jobs(*options: str) -> dict[int, SlurmJob]:
    """Return the jobs that squeue lists, by number. Raises SlurmError if the controller does not
    answer: then nothing is known of any job."""
    lines = run(["squeue", "--noheader", "--all", f"--format={_FORMAT}", *options]).splitlines()
    jobs = [_job_of(line) for line in lines if line.count("|") >= _SEPARATORS]
    return {job.number: job for job in jobs}


def requeue(number: int) -> None:
    """Return a running batch job to the queue; of an array, this task alone. Its user may do so.
    Raises SlurmError, also of a job with `--no-requeue`; NotFoundError."""
    shown = run(["squeue", "--noheader", "--all", "--format=%A|%F_%K", f"--jobs={number}"])
    names = dict(line.strip().split("|", 1) for line in shown.splitlines() if "|" in line)
    if str(number) not in names:
        raise _unknown(number)
    run(["scontrol", "requeue", names[str(number)].removesuffix("_N/A")])


def waiting_for_licenses() -> list[SlurmJob]:
    """Return the jobs that wait for licences, the one of the highest priority first. Raises
    SlurmError."""
    waiting = listed_jobs("--states=PENDING", "--sort=-p,i").values()
    return [job for job in waiting if job.reason == "Licenses"]


def job(number: int) -> SlurmJob:
    """Return one job. Raises NotFoundError if Slurm does not know it."""
    try:
        jobs = listed_jobs(f"--jobs={number}")
    except SlurmError as error:
        if _UNKNOWN_JOB not in error.message.lower():
            raise
        jobs = {}
    if number not in jobs:
        raise _unknown(number)
    return jobs[number]


def _unknown(number: int) -> NotFoundError:
    return NotFoundError(f"Slurm knows no job {number} that has not ended")


def _job_of(line: str) -> SlurmJob:
    number, state, reason, left, user, account, licenses = line.split("|", _SEPARATORS)
    counts, account = licenses_of(licenses), "" if account == "(null)" else account
    return SlurmJob(int(number), state, reason, _span_s(left), user, counts, account)


def _span_s(text: str) -> float | None:
    """Seconds of [DAYS-][[HOURS:]MINUTES:]SECONDS; None for UNLIMITED, NOT_SET, INVALID."""
    days, rest = text.split("-", 1) if "-" in text else ("0", text)
    words = rest.split(":")
    if not all(word.isdigit() for word in (days, *words)):
        return None
    seconds = 0
    for word in words:
        seconds = 60 * seconds + int(word)
    return float(86_400 * int(days) + seconds)


def licenses_of(text: str) -> dict[str, int]:
    """Parse licences as Slurm shows them: NAME[:COUNT][,...], or (null)."""
    counts = {}
    for word in re.split("[,;]", text):
        name, _, count = word.partition(":")
        if name and name != "(null)":
            counts[name] = int(count) if count.isdigit() else 1
    return counts


# --- reservations --------------------------------------------------------------------------------


def reserve(
    client: Client, number: int, cluster: str, shares: Sequence[DeviceShare], timeout_s: float
) -> list[JobReservation]:
    """Reserve the shares of a running job for its user; a repeat returns the same reservations.
    The client is an admin's. `timeout_s`: for a share that the job before it has not returned yet.
    Raises NotReservedError if the job has ended or has no licences, or with the refusal of the
    service; TimedOutError, NotFoundError, NotAllowedError."""
    present = _licensed(number, shares)
    made: list[JobReservation] = []
    try:
        for share in shares:
            request, session = _request(present, cluster, share), client.session
            owner = present.user
            decision = reservations.request_decision(session, request, timeout_s, owner=owner)
            made.append(JobReservation(share, decision.reservation))
        _holding(number)
    except BaseException:
        for each in made:
            reservations.ended(client.session, each.number, "the job did not start", cancel=True)
        raise
    return made


def reserved(
    client: Client, number: int, cluster: str, shares: Sequence[DeviceShare], timeout_s: float = 0.0
) -> list[JobReservation]:
    """Return the reservations of a running job of the client's user. Raises NotReservedError if the
    job has ended or has no licences, or if the service refuses a share for good; TimedOutError if
    there are none after `timeout_s`; NotFoundError."""
    present = _licensed(number, shares)
    end_s = time.monotonic() + timeout_s
    while True:
        mine = [each for each in of_cluster(client, cluster) if each.job == str(number)]
        numbers = {DeviceShare(each.device, each.workers): each.id for each in mine}
        missing = [share for share in shares if share not in numbers]
        if not missing:
            return [JobReservation(share, numbers[share]) for share in shares]
        request = _request(present, cluster, missing[0])
        # What the prolog is told; only a refusal for good ends the wait.
        decision = reservations.dry_decision(client.session, request)
        if time.monotonic() >= end_s:
            text = f"job {number} has no reservation {missing[0]}: {decision.message}"
            hint = "PrologSlurmctld of slurm.conf makes it: simenv slurm install prints the line"
            raise TimedOutError(text, hint=hint)
        time.sleep(POLL_S)


def _licensed(number: int, shares: Sequence[DeviceShare]) -> SlurmJob:
    """Return a job that has its share, and licences for these. Raises NotReservedError."""
    present = _holding(number)
    for share in shares:
        if present.licenses.get(share.pool, 0) < share.count:
            text = f"job {number} has no licence {share}"
            hint = "Slurm gives it where job_submit.lua calls simenv_job_submit"
            raise NotReservedError(text, hint=hint)
    return present


def _holding(number: int) -> SlurmJob:
    """Return a job that has its share. Raises NotReservedError."""
    present = job(number)
    if not present.holds:
        text = f"job {number} is {present.state}"
        raise NotReservedError(text, hint="a reservation is for a job that runs")
    return present


def _request(present: SlurmJob, cluster: str, share: DeviceShare) -> model.ReservationRequest:
    """Return the request of a job, which is the same at each of its steps but for the time left:
    the service keeps the first."""
    scope, number, ttl_ns = JOB_SCOPE + cluster, present.number, round(present.lease_s * 1e9)
    return model.ReservationRequest(
        request_id=f"{scope}/{number}/{share.pool}",
        device=share.pool,
        scope=scope,
        job=str(number),
        workload_kind="hybrid",
        ttl_ns=ttl_ns,
        walltime_ns=ttl_ns,
        workers=share.count,
        metadata=(
            *(("scheduler", "slurm"), ("cluster_name", cluster)),
            ("allocation_id", f"{cluster}:{number}"),
            *(((BATCH_ACCOUNT, present.account),) if present.account else ()),
        ),
    )


def of_cluster(client: Client, cluster: str) -> list[model.ReservationInfo]:
    """Return the live reservations of a cluster's jobs; for an admin, those of all users."""
    return [
        each
        for each in client.reservations()
        if each.scope == JOB_SCOPE + cluster and each.state is model.ReservationState.ACTIVE
    ]


def release(client: Client, number: int, cluster: str, reason: str) -> list[int]:
    """End the reservations of a job, with their tasks; return their numbers. Idempotent."""
    mine = [each.id for each in of_cluster(client, cluster) if each.job == str(number)]
    for each in mine:
        reservations.ended(client.session, each, reason, cancel=True)
    return mine


class Reconciled(msgspec.Struct, frozen=True):
    """What `reconcile` did, by numbers of reservations, and the jobs that have none."""

    ended: list[int]
    renewed: list[int]
    unreserved: list[UnreservedJob] = []


def reconcile(client: Client, cluster: str, now_ns: int, pools: Collection[str] = ()) -> Reconciled:
    """End the reservations whose jobs have ended, are of another user or have no licences for them,
    and renew those of running jobs. `now_ns`: wall clock; `pools`: whose licences nobody may have
    without a reservation. Raises SlurmError if Slurm does not answer; then nothing is ended."""
    live = of_cluster(client, cluster)
    # Listed after the reservations: a job that is not in it has ended, or never had a share.
    jobs = listed_jobs() if live or pools else {}
    used: Counter[tuple[str, str]] = Counter()  # workers by job and pool
    result = Reconciled([], [])
    for each in sorted(live, key=lambda each: each.id):
        owner = jobs.get(int(each.job)) if _NUMBER.match(each.job) else None
        why = _why_not(owner, each, used[each.job, each.device])
        if owner is None or why:
            reservations.ended(client.session, each.id, why, cancel=True)
            result.ended.append(each.id)
            continue
        used[each.job, each.device] += each.workers
        left_s = (each.expires_ns - now_ns) / 1e9
        if 0.0 < left_s < min(RENEW_S, owner.lease_s - AFTER_S):
            client.session.request(admin.Renew(0, each.id, round(owner.lease_s * 1e9)))
            result.renewed.append(each.id)
    if _unreserved(jobs.values(), live, pools):  # its reservation may be younger than `live`
        result.unreserved.extend(_unreserved(jobs.values(), of_cluster(client, cluster), pools))
    return result


def _unreserved(
    jobs: Iterable[SlurmJob], live: Sequence[model.ReservationInfo], pools: Collection[str]
) -> list[UnreservedJob]:
    """Return the running jobs that have licences without a reservation. One whose prolog runs is
    not among them: it is CONFIGURING."""
    reserved = {(each.job, each.device) for each in live}
    found: list[UnreservedJob] = []
    for job in jobs:
        missing = {
            name: count
            for name, count in job.licenses.items()
            if count and name in pools and (str(job.number), name) not in reserved
        }
        if missing and job.holds and job.state != "CONFIGURING":
            found.append(UnreservedJob(job.number, job.user, missing))
    return found


def _why_not(owner: SlurmJob | None, info: model.ReservationInfo, used: int) -> str:
    """Return why a job may not have a reservation; "" if it may. `used`: licences of the pool that
    earlier reservations of the job have taken."""
    if owner is None or not owner.holds:
        return "its job has ended"
    if info.owner not in ("", owner.user):  # "": the environment's own user, whose name is not told
        return f"job {owner.number} is of {owner.user}"
    licences = owner.licenses.get(info.device, 0)
    if used + info.workers > licences:
        return f"job {owner.number} has {licences} licences {info.device}"
    return ""


# --- variables of a job --------------------------------------------------------------------------

QRMI_LISTS = ("QRMI_JOB_QPU_RESOURCES", "QRMI_JOB_QPU_TYPES")
SET = "SIMENV_SLURM_SET"  # the variables of a job, for the plugin
ADDRESSES = ("SIMENV_SERVICE", "SIMENV_MUNGE_SOCKET")  # no share of a job


def variables(
    number: int, service: str, made: Sequence[JobReservation], munge: str = ""
) -> dict[str, str]:
    """Return the variables of a job for clients of simenv and QFw."""
    result = {
        "SIMENV_SERVICE": service,
        "SIMENV_SLURM_JOB": str(number),
        "SIMENV_RESERVATION": ",".join(f"{each.share.pool}:{each.number}" for each in made),
        "QFW_RESERVATIONS": json.dumps(
            [[f"qpm:{contract.PROVIDER}:{each.share.pool}", str(each.number)] for each in made]
        ),
    }
    return result | ({"SIMENV_MUNGE_SOCKET": munge} if munge else {})


def qrmi_variables(service: str, made: Sequence[JobReservation]) -> dict[str, str]:
    """Return the variables of `simenv.frontends.qrmi`, for a site without a gateway."""
    result = {
        "QRMI_JOB_QPU_RESOURCES": ",".join(each.share.pool for each in made),
        "QRMI_JOB_QPU_TYPES": ",".join(["simenv"] * len(made)),
    }
    for each in made:
        result[f"{each.share.pool}_QRMI_SIMENV_SERVICE"] = service
        result[f"{each.share.pool}_QRMI_JOB_ACQUISITION_TOKEN"] = str(each.number)
    return result


def with_qrmi(values: Mapping[str, str], number: int, environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of a job with the resources that QRMI's own plugin has acquired for the
    same job before those of its reservations. `environ`: environment of the job."""
    if environ.get("QRMI_JOB_ID") != str(number):
        return dict(values)

    def listed(source: Mapping[str, str]) -> dict[str, str]:
        names, types = (filter(None, source.get(key, "").split(",")) for key in QRMI_LISTS)
        return dict(zip(names, types, strict=False))

    merged = listed(environ) | listed(values)
    resources, types = QRMI_LISTS
    return {**values, resources: ",".join(merged), types: ",".join(merged.values())}


def recorded(values: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of a job and SIMENV_SLURM_SET, by which the plugin removes them from
    jobs that this one submits, and srun sends them to its tasks: NAME=HASH,..., the 64-bit FNV-1a
    hash of the value in hexadecimal. Addresses have no hash: they stay."""
    named = (
        name if name in ADDRESSES else f"{name}={_fnv1a(value.encode()):x}"
        for name, value in values.items()
    )
    return {**values, SET: ",".join(named)}


def _fnv1a(data: bytes) -> int:
    """64-bit FNV-1a, http://www.isthe.com/chongo/tech/comp/fnv."""
    result = 0xCBF29CE484222325
    for each in data:
        result = (result ^ each) * 0x100000001B3 % 2**64
    return result
