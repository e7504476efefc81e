"""Reservations of jobs, with a stand-in for squeue that answers as a test says.

The ends of jobs that a real Slurm reaches once in a thousand; all others are in tests/cluster.
"""

import os
import pwd
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from failing import fails

from simenv.client import reservations
from simenv.client.client import Client
from simenv.errors import (
    NotFoundError,
    NotReservedError,
    SimenvError,
    SlurmAwayError,
    SlurmError,
    TimedOutError,
)
from simenv.frontends.slurm import jobs
from simenv.frontends.slurm.jobs import DeviceShare

POOL = "main"
USER = pwd.getpwuid(os.geteuid()).pw_name  # the environment's own user
SHARES = [DeviceShare(POOL, 1)]
# Answers with the next of the files, or again with the last.
SQUEUE = """#!/bin/sh
cd {folder}
file=$(ls | head -n 1)
[ "$(ls | wc -l)" = 1 ] || trap "rm $file" EXIT
if grep -q error "$file"; then cat "$file" >&2; exit 1; fi
cat "$file"
"""


class Squeue:
    """See the module."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def answers(self, *texts: str) -> None:
        for path in self._folder.iterdir():
            path.unlink()
        for number, text in enumerate(texts):
            (self._folder / str(number)).write_text(f"{text}\n" if text else "")


@pytest.fixture
def squeue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Squeue:
    folder, commands = tmp_path / "answers", tmp_path / "bin"
    folder.mkdir()
    commands.mkdir()
    (commands / "squeue").write_text(SQUEUE.format(folder=folder))
    (commands / "squeue").chmod(0o755)
    monkeypatch.setenv("PATH", f"{commands}:{os.environ['PATH']}")
    return Squeue(folder)


@pytest.fixture
def cluster(env: Client, request: pytest.FixtureRequest) -> Iterator[str]:
    name = f"c{abs(hash(request.node.name)) % 10**9}"
    yield name
    for each in jobs.of_cluster(env, name):
        env.reservation(each.id).release()


def row(
    number: int, state: str, licences: str = f"{POOL}:1", left: str = "UNLIMITED", user: str = USER,
    account: str = "(null)",
) -> str:  # fmt: skip
    return f"{number}|{state}|None|{left}|{user}|{account}|{licences}"


def test_repeat_has_reservation_until_release(env: Client, squeue: Squeue, cluster: str) -> None:
    squeue.answers(row(7, "RUNNING"))
    (made,) = jobs.reserve(env, 7, cluster, SHARES, 30.0)
    assert jobs.reserve(env, 7, cluster, SHARES, 30.0) == [made]
    assert jobs.reserved(env, 7, cluster, SHARES, 0.0) == [made]
    (info,) = jobs.of_cluster(env, cluster)
    assert (info.id, info.job, info.device, info.workers) == (made.number, "7", POOL, 1)
    assert info.owner == ""
    assert info.expires_ns - info.created_ns == jobs.LEASE_S * 10**9
    (entry,) = [
        each
        for each in env.qpm.list_scheduler_allocations()["allocations"]
        if each["cluster_name"] == cluster
    ]
    assert (entry["scheduler"], entry["job_id"]) == ("slurm", "7")
    assert entry["allocation_id"] == f"{cluster}:7"
    assert jobs.release(env, 8, cluster, "test") == []
    assert jobs.release(env, 7, cluster, "test") == [made.number]
    assert jobs.release(env, 7, cluster, "test") == []


def test_reservation_lasts_no_longer_than_its_job_and_names_its_account(
    env: Client, squeue: Squeue, cluster: str
) -> None:
    squeue.answers(row(7, "RUNNING", left="5:00", account="phys42"))
    (made,) = jobs.reserve(env, 7, cluster, SHARES, 30.0)
    squeue.answers(row(7, "RUNNING", left="4:31", account="phys42"))
    assert jobs.reserve(env, 7, cluster, SHARES, 30.0) == [made], "a repeat keeps the first time"
    (info,) = jobs.of_cluster(env, cluster)
    assert info.expires_ns - info.created_ns == (300 + jobs.AFTER_S) * 10**9
    assert dict(info.metadata)["account"] == "phys42"
    squeue.answers(row(8, "RUNNING", left="4:31", account=""))
    jobs.reserve(env, 8, cluster, SHARES, 30.0)
    (info,) = (each for each in jobs.of_cluster(env, cluster) if each.job == "8")
    assert "account" not in dict(info.metadata)


def test_job_ended_meanwhile_has_no_reservation(env: Client, squeue: Squeue, cluster: str) -> None:
    for end in ("COMPLETING", "CANCELLED", "PENDING"):
        squeue.answers(row(7, "RUNNING"), row(7, end))
        fails(NotReservedError, f"job 7 is {end}", jobs.reserve, env, 7, cluster, SHARES, 30.0)
        assert jobs.of_cluster(env, cluster) == []
    squeue.answers(row(7, "RUNNING"), "")
    fails(NotFoundError, "no job 7", jobs.reserve, env, 7, cluster, SHARES, 30.0)
    squeue.answers(row(7, "RUNNING"), "error: no controller")
    fails(SimenvError, "squeue", jobs.reserve, env, 7, cluster, SHARES, 30.0)
    assert jobs.of_cluster(env, cluster) == []


def test_refused_share_leaves_none_of_the_others(env: Client, squeue: Squeue, cluster: str) -> None:
    squeue.answers(row(7, "RUNNING", f"{POOL}:1,nowhere:1"))
    shares = [*SHARES, DeviceShare("nowhere", 1)]
    fails(NotReservedError, "no device 'nowhere'", jobs.reserve, env, 7, cluster, shares, 30.0)
    assert jobs.of_cluster(env, cluster) == []


def test_job_without_licences_is_refused(env: Client, squeue: Squeue, cluster: str) -> None:
    for licences in ("(null)", f"other:1,{POOL}:0", "matlab:3"):
        squeue.answers(row(7, "RUNNING", licences))
        error = fails(
            NotReservedError, f"has no licence {POOL}:1", jobs.reserve, env, 7, cluster, SHARES, 1.0
        )
        assert "job_submit.lua" in error.hint


def test_job_without_reservation_is_told_why(env: Client, squeue: Squeue, cluster: str) -> None:
    squeue.answers(row(7, "RUNNING", f"{POOL}:4096,nowhere:1"))
    error = fails(TimedOutError, f"no reservation {POOL}:1", jobs.reserved, env, 7, cluster, SHARES)
    assert "PrologSlurmctld" in error.hint
    for share, reason in ((DeviceShare("nowhere"), "no device"), (DeviceShare(POOL, 4096), "most")):
        fails(NotReservedError, reason, jobs.reserved, env, 7, cluster, [share])
    squeue.answers(row(7, "RUNNING", "(null)"))
    fails(NotReservedError, "no licence", jobs.reserved, env, 7, cluster, SHARES)


def test_reconcile_ends_what_is_of_another_user_or_beyond_the_licences(
    env: Client, squeue: Squeue, cluster: str
) -> None:
    squeue.answers(row(7, "RUNNING", user="ana"))
    (anas,) = jobs.reserve(env, 7, cluster, SHARES, 30.0)
    assert jobs.of_cluster(env, cluster)[0].owner == "ana"
    now_ns = time.time_ns()
    assert jobs.reconcile(env, cluster, now_ns).ended == []
    squeue.answers(row(7, "RUNNING", user="ben"))
    assert jobs.reconcile(env, cluster, now_ns).ended == [anas.number]
    squeue.answers(row(7, "RUNNING", user="ana"))
    (first,) = jobs.reserve(env, 7, cluster, SHARES, 30.0)
    request = jobs._request(jobs.job(7), cluster, DeviceShare(POOL, 1))
    request = msgspec.structs.replace(request, request_id="second")
    second = reservations.request_decision(env.session, request, 5.0, owner="ana").reservation
    assert jobs.reconcile(env, cluster, now_ns).ended == [second]
    assert [each.id for each in jobs.of_cluster(env, cluster)] == [first.number]
    squeue.answers(row(7, "RUNNING", "matlab:2", user="ana"))
    assert jobs.reconcile(env, cluster, now_ns).ended == [first.number]


def test_reconcile_names_unreserved_jobs(env: Client, squeue: Squeue, cluster: str) -> None:
    squeue.answers(row(7, "RUNNING"))
    jobs.reserve(env, 7, cluster, SHARES, 30.0)
    rows = [
        row(7, "RUNNING"), row(8, "RUNNING", f"matlab:1,{POOL}:3", user="eve"),
        row(9, "CONFIGURING"), row(10, "PENDING"), row(11, "RUNNING", "matlab:1"),
    ]  # fmt: skip
    squeue.answers("\n".join(rows))
    (named,) = jobs.reconcile(env, cluster, time.time_ns(), [POOL]).unreserved
    assert str(named) == f"job 8 of eve has the licences {POOL}:3 and no reservation"
    assert jobs.reconcile(env, cluster, time.time_ns()).unreserved == []


def test_reconcile_ends_those_of_ended_jobs_alone_and_nothing_without_an_answer(
    env: Client, squeue: Squeue, cluster: str
) -> None:
    squeue.answers(row(7, "RUNNING"))
    (made,) = jobs.reserve(env, 7, cluster, SHARES, 30.0)
    now_ns = time.time_ns()
    squeue.answers("error: no controller")
    fails(SimenvError, "squeue", jobs.reconcile, env, cluster, now_ns)
    squeue.answers(row(7, "SUSPENDED"))
    assert jobs.reconcile(env, cluster, now_ns).ended == []
    assert jobs.reconcile(env, "another", now_ns).ended == []
    squeue.answers(row(7, "PENDING") + "\n" + row(8, "RUNNING"))
    assert jobs.reconcile(env, cluster, now_ns).ended == [made.number]
    assert jobs.of_cluster(env, cluster) == []


def test_reconcile_renews_before_the_lease_ends_and_not_beyond_the_job(
    env: Client, squeue: Squeue, cluster: str
) -> None:
    squeue.answers(row(7, "RUNNING", left="UNLIMITED"))
    (made,) = jobs.reserve(env, 7, cluster, SHARES, 30.0)
    now_ns = time.time_ns()
    assert jobs.reconcile(env, cluster, now_ns).renewed == []
    later_ns = now_ns + round(0.6 * jobs.LEASE_S * 1e9)
    assert jobs.reconcile(env, cluster, later_ns).renewed == [made.number]
    squeue.answers(row(7, "RUNNING", left="5:00"))
    assert jobs.reconcile(env, cluster, later_ns).renewed == []


def test_reservation_of_no_job_is_ended(env: Client, squeue: Squeue, cluster: str) -> None:
    squeue.answers(row(7, "RUNNING"))
    request = jobs._request(jobs.job(7), cluster, DeviceShare(POOL, 1))
    request = msgspec.structs.replace(request, job="7; rm")
    number = reservations.request_decision(env.session, request, 5.0).reservation
    assert jobs.reconcile(env, cluster, time.time_ns()).ended == [number]


def test_slurmctld_that_does_not_answer_is_an_error_that_may_be_repeated(
    squeue: Squeue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    squeue.answers("slurm_load_jobs error: Unable to contact slurm controller (connect failure)")
    assert fails(SlurmAwayError, "Unable to contact", jobs.job, 7).retryable
    squeue.answers("slurm_load_jobs error: Socket timed out on send/recv operation")
    fails(SlurmAwayError, "timed out", jobs.job, 7)
    squeue.answers("squeue: error: Invalid user: eve")
    assert not fails(SlurmError, "Invalid user", jobs.job, 7).retryable
    (tmp_path / "bin" / "squeue").write_text("#!/bin/sh\nexec sleep 30\n")
    monkeypatch.setattr(jobs, "COMMAND_S", 0.1)
    fails(SlurmAwayError, "has not answered", jobs.job, 7)
