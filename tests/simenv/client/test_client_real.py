"""The public face against a real service and a real worker."""

import asyncio
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from busy_circuits import ENDLESS
from failing import fails
from forks import forked
from interpreter import python

import simenv
from simenv import errors
from simenv.model import TaskState

HEAD = 'OPENQASM 2.0; include "qelib1.inc"; '
BELL = HEAD + "qreg q[2]; creg c[2]; h q[0]; cx q[0],q[1]; measure q->c;"
GHZ = HEAD + "qreg q[3]; creg c[3]; h q[0]; cx q[0],q[1]; cx q[1],q[2]; measure q->c;"
FREE = """OPENQASM 3.0; include "stdgates.inc"; input float tilt; qubit q; bit c;
ry(tilt) q; c = measure q;"""
PLAIN = HEAD + "qreg q[2]; creg c[2]; h q[0]; cx q[0],q[1];"
PAIRS = "".join(f"cx q[{k}],q[{k + 1}];" for k in range(59))
WIDE = f"{HEAD}qreg q[60]; creg c[1]; h q[0]; {PAIRS} measure q[59]->c[0];"


@pytest.fixture(scope="module")
def env() -> Iterator[simenv.Client]:
    with simenv.local(workers=1) as client:
        yield client


def test_bad_circuits_and_options_are_refused_before_submission(env: simenv.Client) -> None:
    before = env.status()
    assert "measure_all" in fails(errors.ProgramError, "measures nothing", env.submit, PLAIN).hint
    fails(errors.ProgramError, "statevector", env.submit, BELL, outputs=("counts", "statevector"))
    fails(errors.OptionError, "exact", env.submit, BELL, shots=None)
    with pytest.raises(errors.BatchRefusedError) as batch:
        env.submit_many([BELL, "qreg q[", PLAIN.replace("h", "hh"), BELL])
    assert [error.index for error in batch.value.errors] == [1, 2]
    fails(errors.BatchRefusedError, "item 1", env.submit_many, [BELL, PLAIN])
    fails(errors.OptionError, "several circuits", env.submit_many, BELL)
    for text, options in (
        ("submit_many", {"parameter_values": [[0.1], [0.2]]}),
        ("tilt", {}),
        ("binding_index=-1", {"parameter_values": [0.1], "binding_index": -1}),
    ):
        fails(errors.OptionError, text, env.submit, FREE, **options)
    after = env.status()
    assert (after.queued, after.done) == (before.queued, before.done)


def test_too_wide_circuits_and_empty_batches(env: simenv.Client) -> None:
    refused = fails(errors.InfeasibleError, "60 qubits", env.submit, WIDE, engine="statevector")
    assert "widest program that fits" in refused.hint
    caught = fails(
        errors.BatchRefusedError, "", env.submit_many, [BELL, WIDE, BELL], engine="statevector"
    )
    assert ([error.index for error in caught.errors], env.submit_many([])) == ([1], [])


def test_another_client_fetches_result_by_task_id(env: simenv.Client) -> None:
    task = env.submit(BELL, name="found")
    counts = task.result(60).counts
    path = Path(env.service)
    with simenv.connect(service=path) as other:
        result = other.task(task.id)
        assert (result.name, result.result(60).counts) == ("found", counts)
        assert result.state is TaskState.DONE
        fails(errors.NotFoundError, "t-zzzzz", other.task, "t-zzzzz")
        fails(errors.NotFoundError, "nonsense", other.task, "nonsense")


def test_a_running_task_is_cancelled(env: simenv.Client) -> None:
    task = env.submit(ENDLESS, shots=10)
    assert task.cancel()
    fails(errors.TaskCancelledError, "", task.result, 60)
    assert not task.cancel()
    assert env.cancel([task, "t-zzzzz"]) == ["final", "unknown"]
    assert env.cancel(task) == env.cancel(task.id) == ["final"]
    assert [info.id for info in env.tasks(task.id)] == [task.id]


def test_queued_task_has_reason_and_wait_shows_progress(
    env: simenv.Client, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    slow, waits = env.submit(ENDLESS, shots=10), env.submit(ENDLESS, shots=10)
    total, value = env.queue()
    assert total == len(value) == 2
    assert {info.id for info in value} == {slow.id, waits.id}
    [info] = env.tasks([waits])
    assert info.state is TaskState.QUEUED
    assert info.reason
    fails(simenv.errors.TimedOutError, "", waits.wait, progress=True, timeout_s=0.8)
    assert env.cancel([waits, slow]) != ["final", "final"]
    assert waits.wait(progress=True) is TaskState.CANCELLED
    assert slow.wait() is TaskState.CANCELLED
    assert waits.id in capsys.readouterr().err


def test_forked_child_has_its_own_connection(env: simenv.Client) -> None:
    task = env.submit(BELL, seed=1)

    def work() -> None:
        assert task.result(60).seed == 1  # the parent's task
        assert env.submit(BELL, seed=2).result(60).seed == 2

    assert (forked(work), task.result(60).seed) == (0, 1)
    assert env.submit(BELL, seed=3).result(60).seed == 3


def test_posted_tasks_are_available_in_forked_child(env: simenv.Client, tmp_path: Path) -> None:
    posted = [env.post(BELL, shots=64, seed=seed) for seed in range(3)]

    def work() -> None:
        outcome = env.submit(BELL, seed=9)
        assert [task.result(60).seed for task in posted] == [0, 1, 2]
        assert outcome.result(60).seed == 9
        value.write_text(" ".join(task.id for task in posted))

    value = tmp_path / "ids"
    assert (forked(work), value.read_text().split()) == (0, [task.id for task in posted])
    assert [task.result(60).seed for task in posted] == [0, 1, 2]


def test_child_forked_while_threads_wait_can_cancel_task(env: simenv.Client) -> None:
    slow = env.submit(ENDLESS, shots=10)
    started = threading.Event()

    def wait() -> TaskState:
        started.set()
        return slow.wait()

    with ThreadPoolExecutor(2) as pool:
        waiting = [pool.submit(wait) for _ in range(2)]
        started.wait(60)
        assert forked(lambda: slow.cancel()) == 0
        assert [wait.result(60) for wait in waiting] == [TaskState.CANCELLED] * 2


def test_interrupt_leaves_task_and_client_usable(env: simenv.Client) -> None:
    slow = env.submit(ENDLESS, shots=10)
    timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))

    def interrupted() -> None:
        timer.start()
        slow.result()

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in the background
    try:
        fails(KeyboardInterrupt, "", interrupted)
    finally:
        signal.signal(signal.SIGINT, before)
    timer.join()
    assert not slow.done()
    assert slow.cancel()
    assert env.run(BELL, seed=4).seed == 4


def test_completions_are_ordered_and_continue_from_cursor(env: simenv.Client) -> None:
    tasks = env.submit_many([BELL] * 20, seed=8)
    ids = {task.id for task in tasks}
    entries = [done for done in env.completions(since=0) if done.task.id in ids]
    assert {done.task.id for done in entries} == ids
    assert [done.seq for done in entries] == sorted(done.seq for done in entries)
    assert all(done.result().counts for done in entries)
    middle = entries[9].seq
    assert env.ack(middle, cursor="reader") == middle
    rest = [done.seq for done in env.completions(cursor="reader")]
    assert (rest[0], env.ack(rest[-1], cursor="reader")) == (middle + 1, rest[-1])
    assert list(env.completions(cursor="reader")) == []


def test_completions_are_iterated_asynchronously(env: simenv.Client) -> None:
    async def main() -> int:
        newest = max((done.seq for done in env.completions(since=0)), default=0)
        tasks = env.submit_many([GHZ] * 10)
        entries = [done.task.id async for done in env.completions(since=newest)]
        assert set(entries) == {task.id for task in tasks}
        return len(entries)

    assert asyncio.run(main()) == 10


def test_status_workers_pools_and_events_describe_environment(env: simenv.Client) -> None:
    info = env.status()
    assert (info.name, info.durability) == ("local", "process")
    [worker] = env.workers()
    assert (worker.pool, env.pools()["main"].workers) == ("main", 1)
    kinds = [event.kind for event in env.events(kinds=["worker.*"])]
    assert "worker.ready" in kinds
    assert all(kind.startswith("worker.") for kind in kinds)
    seqs = [event.seq for event in env.events(since=1)]
    assert seqs == list(range(2, 2 + len(seqs)))
    assert repr(env) == f"<simenv local@{info.node} | 1 pool, 1/1 workers up | 0 waiting>"


def test_queries_of_environment_load_neither_numpy_nor_qiskit(env: simenv.Client) -> None:
    path = env.service
    code = (
        "import sys, simenv\n"
        f"with simenv.connect(service={str(path)!r}) as env:\n"
        "    env.status(), env.queue(), env.workers(), list(env.events())\n"
        "    env.task('t-1').result().counts\n"
        "print([name for name in ('numpy', 'qiskit', 'rich', 'asyncio') if name in sys.modules])"
    )
    env.submit(BELL).result(60)
    assert python("-c", code).stdout.strip() == "[]"


def test_posted_tasks_have_unique_ids_and_results(env: simenv.Client) -> None:
    tasks = [env.post(GHZ, shots=64, seed=k, name="posted") for k in range(1_100)]
    assert len({task.id for task in tasks}) == 1_100
    assert all(sum(task.result(60).counts.values()) == 64 for task in tasks)
    assert tasks[3].result().counts == env.run(GHZ, shots=64, seed=3).counts
    assert set(simenv.as_completed(tasks[:5], timeout_s=60)) == set(tasks[:5])
    assert (
        env.post(GHZ, idempotency_key="posted-once").id
        == env.post(GHZ, idempotency_key="posted-once").id
    )


def test_refused_posted_task_raises_at_first_use(env: simenv.Client) -> None:
    with pytest.raises(errors.ProgramError):
        env.post("qreg q[")  # found here, before anything is sent
    refused = env.post(WIDE, engine="statevector")
    deadline = time.monotonic() + 60.0
    while not refused.done():
        assert time.monotonic() < deadline
    for use in (refused.result, refused.wait, lambda: refused.id, lambda: refused.state):
        fails(errors.InfeasibleError, "60 qubits", use)

    async def awaited() -> None:
        await env.post(WIDE, engine="statevector")

    fails(errors.InfeasibleError, "", asyncio.run, awaited())
    fails(TypeError, "shot", env.post, BELL, shot=1)
