"""Tasks of durable jobs: all or none, after refusals, interrupts and deaths."""

import uuid
from typing import Any

import msgspec
import pytest
from busy_circuits import ENDLESS
from failing import fails
from waiting import until

from simenv.client import job_tasks
from simenv.client.client import Client
from simenv.client.job_tasks import SUBMISSION, JobTasks
from simenv.client.submission.prepare import PreparedSubmit, prepare_one
from simenv.errors import (
    KeyConflictError,
    LimitExceededError,
    NotFoundError,
    SimenvError,
    StoreError,
    VersionMismatchError,
)
from simenv.model import FINAL_STATES, TaskState
from simenv.model.jobs import JobRecord, JobSelector

KIND = "test"


@pytest.fixture
def tasks(env: Client) -> JobTasks:
    return JobTasks(env.session)


def job() -> JobRecord:
    return JobRecord(str(uuid.uuid4()), KIND, labels=("a=1",), metadata=b"m")


def endless(**options: Any) -> PreparedSubmit:
    order = prepare_one(ENDLESS, {"shots": 1, "name": "job-tasks"})
    return msgspec.structs.replace(order, terms=msgspec.structs.replace(order.terms, **options))


def refused() -> PreparedSubmit:
    return endless(after=(2**40,))


def runs_nothing(env: Client) -> None:
    """A running task is asked to end."""
    until(lambda: not live_tasks(env))


def live_tasks(env: Client) -> list[str]:
    return [info.id for info in env.queue()[1] if info.name == "job-tasks"]


def submissions(env: Client) -> list[JobRecord]:
    return list(env.jobs.all(JobSelector((SUBMISSION,))))


def test_a_job_gets_its_tasks_and_its_end(env: Client, tasks: JobTasks) -> None:
    record = tasks.create(job(), [endless(), endless(priority=1)], {"x": b"data"}, closes=True)
    ids = [task for task, _ in record.tasks]
    assert (len(ids), record.labels, record.ended_s > 0.0) == (2, ("a=1",), True)
    assert set(live_tasks(env)) == set(ids)
    env.cancel(ids)
    runs_nothing(env)
    assert env.jobs.data(record.id, "x") == b"data"
    assert submissions(env) == []
    empty = tasks.create(job(), [], {}, closes=False)
    assert (empty.tasks, empty.ended_s) == ((), 0.0)


def test_a_refused_message_leaves_no_job_and_cancels_the_others(
    env: Client, tasks: JobTasks
) -> None:
    new = job()
    create = lambda: tasks.create(new, [endless(), refused()], {}, closes=False)  # noqa: E731
    error = fails(NotFoundError, "", create)
    assert error.index in (-1, 1)
    runs_nothing(env)
    fails(NotFoundError, new.id, env.jobs.get, new.id)
    opened = tasks.create(new, [], {}, closes=False)
    add = lambda: tasks.add(opened, lambda _: None, [endless(), refused()], metadata=b"n")  # noqa: E731
    fails(NotFoundError, "", add)
    now = env.jobs.get(new.id)
    assert (now.tasks, now.labels, now.metadata) == ((), ("a=1",), b"m")
    runs_nothing(env)
    assert submissions(env) == []


def test_an_interrupt_before_the_answer_cancels_what_was_accepted(
    env: Client, tasks: JobTasks, monkeypatch: pytest.MonkeyPatch
) -> None:
    send, number = job_tasks.send, iter(range(10))

    def interrupted(*args: Any) -> Any:
        accepted = send(*args)
        if next(number) == 1:
            raise KeyboardInterrupt
        return accepted

    monkeypatch.setattr(job_tasks, "send", interrupted)
    new = job()
    with pytest.raises(KeyboardInterrupt):
        tasks.create(new, [endless(), endless(priority=1)], {}, closes=False)
    runs_nothing(env)
    fails(NotFoundError, new.id, env.jobs.get, new.id)
    assert submissions(env) == []


def test_who_reads_a_job_completes_what_another_has_left(
    env: Client, tasks: JobTasks, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(*_: Any) -> Any:
        error = SimenvError("no answer")
        error.maybe_accepted = True
        raise error

    new = job()
    with monkeypatch.context() as patched:
        patched.setattr(job_tasks, "send", lost)
        error = fails(SimenvError, "no answer", tasks.create, new, [endless()], {}, closes=True)
        assert "when it is next read" in error.hint
    runs_nothing(env)
    read = [JobTasks(env.session).complete(new.id) for _ in range(2)]
    assert [record.tasks for record in read] == [((task, 0),) for task in live_tasks(env) * 2]
    assert read[0].ended_s
    env.cancel([task for task, _ in read[0].tasks])
    runs_nothing(env)
    with monkeypatch.context() as patched:
        patched.setattr(job_tasks, "send", lost)
        left = [job(), msgspec.structs.replace(job(), kind="other")]
        for each in left:
            fails(SimenvError, "no answer", tasks.create, each, [endless()], {}, closes=True)
    tasks.complete_all(KIND)
    assert len(live_tasks(env)) == 1
    assert env.jobs.get(left[0].id).tasks[0][0] == live_tasks(env)[0]
    tasks.complete_all("other")
    assert submissions(env) == []
    ids = live_tasks(env)
    assert len(ids) == 2
    env.cancel(ids)
    runs_nothing(env)


def test_a_job_gets_one_call_at_a_time_and_none_after_its_end(
    env: Client, tasks: JobTasks, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = tasks.create(job(), [], {}, closes=False)
    send = job_tasks.send

    def meanwhile(*args: Any) -> Any:
        monkeypatch.setattr(job_tasks, "send", send)
        add = lambda: tasks.add(opened, lambda _: None, [endless()])  # noqa: E731
        fails(KeyConflictError, "other tasks", add)
        assert len(JobTasks(env.session).complete(opened.id).tasks) == 1
        return send(*args)

    monkeypatch.setattr(job_tasks, "send", meanwhile)
    grown = tasks.add(opened, lambda _: None, [endless()], blobs={"x": b"1"})
    assert [(task, 0) for task in live_tasks(env)] == list(grown.tasks)
    assert env.jobs.data(opened.id, "x") == b"1"
    assert tasks.close(opened.id).ended_s
    assert tasks.close(opened.id).tasks == grown.tasks

    def check(record: JobRecord) -> None:
        if record.ended_s:
            raise KeyConflictError("closed")

    fails(KeyConflictError, "closed", tasks.add, opened, check, [endless()])
    assert submissions(env) == []
    env.cancel(grown.tasks[0][0])
    env.task(grown.tasks[0][0]).wait(timeout_s=60)
    assert env.task(grown.tasks[0][0]).state in FINAL_STATES
    assert env.task(grown.tasks[0][0]).state is TaskState.CANCELLED


def test_contents_are_bounded_and_of_this_version(monkeypatch: pytest.MonkeyPatch) -> None:
    content = job_tasks.Content(job_tasks.FORMAT, [])
    packed = job_tasks._pack(content)
    assert job_tasks._unpack(packed, "s") == content
    fails(StoreError, "cannot be read", job_tasks._unpack, packed[:-8], "s")
    fails(StoreError, "cannot be read", job_tasks._unpack, b"x", "s")
    other = job_tasks._pack(msgspec.structs.replace(content, format=job_tasks.FORMAT + 1))
    fails(VersionMismatchError, "format 2", job_tasks._unpack, other, "s")
    monkeypatch.setattr(job_tasks, "MAX_BYTES", 3)
    fails(LimitExceededError, "fewer jobs", job_tasks._pack, content)
    fails(StoreError, "cannot be read", job_tasks._unpack, packed, "s")
