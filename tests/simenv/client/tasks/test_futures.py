"""Tasks of a client: ids, futures, progress, completions."""

import asyncio
import concurrent.futures as cf
import copy
import io
import pickle
import threading

import pytest
from client_peer import Peer, completed, completion, submit
from failing import fails
from shell import Terminal

from simenv import errors
from simenv.client.connection.session import ServiceSession
from simenv.client.tasks import progress
from simenv.client.tasks.task import Task, number_of
from simenv.model import ProgressInfo, TaskInfo, TaskState

WAIT_S = 30.0


def test_task_is_a_future_with_its_exceptions(link: ServiceSession, idle: Peer) -> None:
    [task] = submit(link)
    assert isinstance(task, cf.Future)
    assert not task.cancelled()
    fails(cf.TimeoutError, "", task.result, timeout=0.01)
    fails(errors.TimedOutError, "", task.exception, timeout=0.01)
    idle.say(idle.end([1]))
    assert task.result(timeout=WAIT_S).seed == 0
    assert task.exception() is None
    for setter in (task.set_result, task.set_exception):
        fails(errors.OptionError, "the end of a task comes from the service", setter, None)
    fails(errors.OptionError, "", task.set_running_or_notify_cancel)


def test_pickled_task_is_refused_and_a_copy_is_the_task(link: ServiceSession) -> None:
    [task] = submit(link)
    assert copy.copy(task) is copy.deepcopy(task) is task
    fails(errors.OptionError, f"task {task.id} cannot be pickled.*\n.*result", pickle.dumps, [task])
    fails(errors.OptionError, r"of a client cannot be pickled.*\n.*connect", pickle.dumps, link)


def test_cancelled_task_raises_error_of_futures(link: ServiceSession, idle: Peer) -> None:
    [task] = submit(link)
    idle.say(completed(completion(1, state=TaskState.CANCELLED)))
    assert isinstance(fails(cf.CancelledError, "", task.result, WAIT_S), errors.TaskCancelledError)
    assert task.cancelled()
    assert not task.running()


@pytest.mark.parametrize("count", [1, 40])
def test_wait_returns_when_all_have_ended(link: ServiceSession, idle: Peer, count: int) -> None:
    tasks = submit(link, count)
    other: cf.Future[int] = cf.Future()
    assert cf.wait([*tasks, other], timeout=0.02).done == set()
    threading.Timer(0.1, other.set_result, [1]).start()
    for number in reversed(range(1, count + 1)):
        idle.say(idle.end([number]))
    ended = cf.wait([*tasks, other], timeout=WAIT_S)
    assert (ended.not_done, ended.done) == (set(), {*tasks, other})
    assert cf.wait(tasks, timeout=0.0).not_done == set()


def test_wait_for_the_first_leaves_the_others(link: ServiceSession, idle: Peer) -> None:
    tasks = submit(link, 3)
    idle.say(idle.end([2]))
    ended = cf.wait(tasks, timeout=WAIT_S, return_when=cf.FIRST_COMPLETED)
    assert ended.done == {tasks[1]}
    idle.say(completed(completion(1, state=TaskState.FAILED)))
    ended = cf.wait(tasks, timeout=WAIT_S, return_when=cf.FIRST_EXCEPTION)
    assert ended.done == {tasks[0], tasks[1]}


def test_as_completed_has_each_task_once_in_order_of_ends(link: ServiceSession, idle: Peer) -> None:
    tasks = submit(link, 3)
    ending = cf.as_completed(tasks, timeout=WAIT_S)
    entries = []
    for number in (3, 1, 2):
        idle.say(idle.end([number]))
        entries.append(next(ending))
    assert (entries, list(ending)) == ([tasks[2], tasks[0], tasks[1]], [])


def test_callbacks_run_once_outside_the_waiting_thread(link: ServiceSession, idle: Peer) -> None:
    [task] = submit(link)
    heard: list[tuple[Task, str]] = []
    all_heard = threading.Event()

    def note(ended: Task) -> None:
        heard.append((ended, threading.current_thread().name))
        assert ended.result().seed == 0, "a callback may use the task"
        if len(heard) == 2:
            all_heard.set()

    task.add_done_callback(lambda _: 1 / 0)  # logged; the next one runs all the same
    task.add_done_callback(note)
    task.add_done_callback(note)
    assert heard == []
    idle.say(idle.end([1]))
    assert all_heard.wait(WAIT_S)
    assert heard == [(task, "simenv-await")] * 2
    task.add_done_callback(note)
    assert heard[2] == (task, threading.current_thread().name)


def test_event_loop_wraps_a_task(link: ServiceSession, idle: Peer) -> None:

    async def main() -> int:
        [task] = submit(link)
        wrapped = asyncio.wrap_future(task)
        await asyncio.sleep(0.02)
        assert not wrapped.done()
        idle.say(idle.end([1]))
        return (await asyncio.wait_for(wrapped, WAIT_S)).seed

    assert asyncio.run(main()) == 0


@pytest.mark.usefixtures("impatient")
def test_wait_ends_when_the_service_is_lost(link: ServiceSession, idle: Peer) -> None:
    [task] = submit(link)
    idle.__exit__(None, None, None)
    assert cf.wait([task], timeout=WAIT_S).done == {task}
    fails(errors.ServiceLostError, "", task.result, WAIT_S)


@pytest.mark.parametrize("typed", ["t-fzzzzzzzzzzzz", "t-", "8k2f", "t-ilou", 2**63, -1])
def test_invalid_task_id_raises_not_found_error(typed: str | int) -> None:
    assert fails(errors.NotFoundError, "", number_of, typed).exit_code == 4


SEVEN_OF_NINE = ProgressInfo("passes", 7, 9, 7 / 9)


def info(state: TaskState, **changes: object) -> TaskInfo:
    values = {"attempt": 1, "time_s": 41.0, "worker": "", "reason": "", **changes}
    return TaskInfo(
        id="t-8k2g", name="", pool="main", state=state, num_qubits=2, shots=10, **values
    )  # type: ignore[arg-type]


def test_line_on_terminal_is_rewritten_and_cleared_at_end() -> None:
    stream = Terminal()
    with progress.ProgressLine(stream) as line:
        line.show("one")
        line.show("one")
        line.show("two")
    assert stream.getvalue() == "\rone\x1b[K\rtwo\x1b[K\r\x1b[K"
    with progress.ProgressLine(unused := Terminal()):
        pass
    assert unused.getvalue() == ""


def test_line_is_cleared_before_others_print() -> None:
    stream = Terminal()
    with progress.ProgressLine(stream) as line:
        line.show("one")
        line.clear()
        line.clear()
        stream.write("printed\n")
        line.finish("all")
    assert stream.getvalue() == "\rone\x1b[K\r\x1b[Kprinted\nall\n"


def test_line_is_cut_to_the_width_of_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "10")
    stream = Terminal()
    progress.ProgressLine(stream).show("x" * 50)
    assert stream.getvalue() == f"\r{'x' * 9}\x1b[K"


def test_notebook_shows_the_line_without_escape_codes() -> None:
    class OutStream(io.StringIO):
        """As ipykernel's: no terminal, and a carriage return goes to the line's begin."""

    OutStream.__module__ = "ipykernel.iostream"
    stream = OutStream()
    with progress.ProgressLine(stream) as line:
        line.show("three")
        line.show("two")
    assert stream.getvalue() == "\rthree\rtwo  \r   \r"


def test_start_is_reported_only_after_delay() -> None:
    stream = Terminal()
    with progress.StartLine(stream) as line:
        line.report("0 of 2 workers ready", 0.5 * progress.PATIENCE_S)
        assert stream.getvalue() == ""
        line.report("0 of 2 workers ready", 12.0)
        assert "\rstarting: 0 of 2 workers ready, 0:12" in stream.getvalue()


@pytest.mark.parametrize("library", [None, progress.BAR])
def test_progress_is_not_written_to_file_nor_without_stderr(library: str | None) -> None:
    for stream in (io.StringIO(), None):
        line = progress.progress_line(library, stream) if library else progress.ProgressLine(stream)
        with line:
            assert library or not line.visible
            line.show("one", progress.TaskProgress(0.5, 1, 2, "tasks"))
            line.show("two", progress.TaskProgress(0.5, 1, 2, "tasks"))
        assert stream is None or stream.getvalue() == ""
    for name in ("bar", "tqdm"):
        fails(errors.OptionError, f"progress='{name}'", progress.progress_line, name, None)


@pytest.mark.parametrize(
    ("found", "text"),
    [
        ([], "t-8k2g"),
        ([info(TaskState.RUNNING, attempt=2, worker="sv-1")], "t-8k2g RUNNING try 2 on sv-1, 0:41"),
        (
            [info(TaskState.RUNNING, worker="sv-1", progress=SEVEN_OF_NINE, left_us=62e6)],
            "t-8k2g RUNNING on sv-1, 7 of 9 passes, 77 %, 1:02 left, 0:41",
        ),
        (
            [info(TaskState.RUNNING, worker="sv-1", left_us=62e6)],
            "t-8k2g RUNNING on sv-1, 1:02 left, 0:41",
        ),
        ([info(TaskState.QUEUED, reason="no slot")], "t-8k2g QUEUED 0:41 (no slot)"),
    ],
)
def test_task_is_described_by_state_worker_and_progress(found: list[TaskInfo], text: str) -> None:
    assert progress.describe(found, "t-8k2g") == text


def test_bar_shows_steps_and_is_out_of_the_way() -> None:
    stream = Terminal()
    with progress.progress_line(progress.BAR, stream) as line:
        some = progress.group_progress([], 3, 7, 1.5)
        line.show(f"{some} | t-8k2g RUNNING", some)
        assert "3 of 7 tasks, 42 %, 2.0/s, 0:02 left | t-8k2g RUNNING" in stream.getvalue()
        line.clear()
        stream.write("printed\n")
        line.show("5 of 7", progress.group_progress([], 5, 7, 1.5))
        assert "5 of 7" in stream.getvalue().partition("printed\n")[2]
        line.finish("7 of 7 tasks ended")
    assert stream.getvalue().rpartition("\n")[0].endswith("7 of 7 tasks ended")
    item = stream.getvalue().partition("printed\n")[0]
    assert item.endswith(("\r", "\x1b[2K", "\x1b[1A\x1b[2K")), repr(item)


def test_progress_is_that_of_the_state_of_the_task() -> None:
    running = info(TaskState.RUNNING, progress=SEVEN_OF_NINE, left_us=62e6)
    assert progress.progress_of(running) == (SEVEN_OF_NINE.fraction, 7, 9, "passes", 62.0, 0.0)
    assert progress.progress_of(info(TaskState.QUEUED)) == progress.TaskProgress()
    assert progress.progress_of(info(TaskState.FAILED)) == progress.TaskProgress()
    assert progress.progress_of(info(TaskState.DONE)).fraction == 1.0


def test_progress_of_many_tasks_counts_ended_ones_and_parts_of_running_ones() -> None:
    half = info(TaskState.RUNNING, progress=ProgressInfo("shots", 50, 100, 0.5))
    waiting = info(TaskState.QUEUED)
    some = progress.group_progress([half, half, waiting], 300, 1000, 20.0)
    assert some[:4] == (0.301, 300, 1000, "tasks")
    assert str(some) == "300 of 1000 tasks, 30 %, 15/s, 0:47 left"
    assert progress.group_progress([], 0, 1000, 20.0).left_s is None
    assert progress.group_progress([], 1000, 1000, 20.0).left_s == 0.0


def test_the_rest_of_many_tasks_lasts_as_long_as_that_of_the_last() -> None:
    """A short circuit and a long one: the rate of the short one says nothing of the other."""
    long = info(TaskState.RUNNING, progress=ProgressInfo("passes", 7, 9, 0.8), left_us=24e6)
    assert str(progress.group_progress([long], 1, 2, 0.001)) == "1 of 2 tasks, 90 %, 0:24 left"
    late = progress.group_progress([long], 1, 2, 20.0)
    assert str(late) == "1 of 2 tasks, 90 %, 3.0/min, 0:24 left"
    assert progress.group_progress([long], 3, 9, 0.001).left_s is None  # others wait
    assert progress.group_progress([long], 3, 9, 30.0).left_s == pytest.approx(5.2 / 0.1)
    assert progress.group_progress([long], 30, 31, 3.0).left_s == 24.0


def test_rate_of_many_tasks_is_that_since_the_first_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = iter((0.0, 0.3, 10.3))
    monkeypatch.setattr(progress, "monotonic", lambda: next(now_s))
    group = progress.GroupRate(1000)
    assert group.progress(None, 400).rate == 0.0
    assert group.progress([], 500).rate == 0.0  # they had ended before it was asked
    later = group.progress([], 600)
    assert (later.done, later.rate, later.left_s) == (600, 10.0, 40.0)


def test_line_has_a_bar_where_the_progress_is_known() -> None:
    stream = Terminal()
    with progress.ProgressLine(stream) as line:
        line.show("one")
        assert "[" not in stream.getvalue().replace("\x1b[", "")
        line.show("half", progress.TaskProgress(0.5, 1, 2, "passes"))
        assert "[##########----------] half" in stream.getvalue()
