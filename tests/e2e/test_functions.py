"""Functions of the environment's own user: pool, values, errors, kills, limits, and others."""

import concurrent.futures
import os
import re
import signal
import threading
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
from failing import fails
from live import Live, environment
from shell import Shell
from user_programs import by_value
from waiting import until

import simenv
from simenv.client.administration.keys import issue_key
from simenv.client.client import Client
from simenv.client.submission.calls import FunctionExecutor
from simenv.client.submission.prepare import PreparedSubmit
from simenv.client.submission.send import send
from simenv.errors import (
    ConfigError,
    InfeasibleError,
    LimitExceededError,
    NotAllowedError,
    OptionError,
    SimenvError,
    TaskCancelledError,
    TaskExpiredError,
    TaskFailedError,
)
from simenv.model import TaskOptions, TaskSpec, TaskState
from simenv.model.calls import CALL_FORMAT, FUNCTIONS, FunctionCall
from simenv.model.options import VALUE
from simenv.wire import codec

POOLS = [
    {"name": "main", "min": 1, "max": 1},
    {"name": "tools", "engine": "functions", "min": 2, "max": 2},
]
OPTIONS = {"pools": POOLS, "listen": "tcp://127.0.0.1:0"}
PATIENCE_S = 120.0


@by_value
def scaled(x: int, factor: int = 1) -> tuple[int, int]:
    return x * factor, os.getppid()  # the worker's


def test_values_come_back_from_workers_in_order(env: Client) -> None:
    value, pid = env.call(scaled, 6, factor=7).result(PATIENCE_S)
    assert value == 42
    tasks = env.map(scaled, range(40), [2] * 40)
    values = [task.result(PATIENCE_S) for task in tasks]
    assert [value for value, _ in values] == [2 * x for x in range(40)]
    workers = {worker.pid for worker in env.workers() if worker.pool == "tools"}
    assert {pid, *(each for _, each in values)} <= workers
    assert tasks[0].result() is tasks[0].result()
    assert tasks[0].details.engine == FUNCTIONS
    assert tasks[0].details.worker.startswith("tools-")


def test_calls_are_futures_of_an_executor(env: Client) -> None:
    with env.functions(name="sums", run_timeout_s=60.0) as pool:
        futures = [pool.submit(pow, base, 2) for base in range(5)]
        done, left = concurrent.futures.wait(futures, PATIENCE_S)
        assert (len(done), left) == (5, set())
        assert [future.result() for future in futures] == [0, 1, 4, 9, 16]
        assert list(pool.map(pow, range(5), range(5), timeout=PATIENCE_S)) == [1, 1, 4, 27, 256]
        assert futures[0].name == "sums"
        assert pool.task(futures[3].id).result(PATIENCE_S) == 9
    fails(RuntimeError, "after shutdown", pool.submit, pow, 1, 1)
    with pytest.raises(TypeError, match="no option shots"):
        env.functions(shots=5).submit(pow, 1, 1)  # type: ignore[call-arg]


def test_error_of_a_function_has_the_traceback_of_the_worker(env: Client) -> None:
    @by_value
    def inner(x: int) -> None:
        raise ValueError(f"no such thing as {x}")

    @by_value
    def outer() -> None:
        inner(7)

    with pytest.raises(TaskFailedError) as failed:
        env.call(outer).result(PATIENCE_S)
    assert failed.value.reason == "function"
    text = str(failed.value)
    assert "calling it: ValueError: no such thing as 7" in text
    assert re.search(r"Traceback .*in outer\n.*in inner\n", text, re.DOTALL)
    assert "worker/calls.py" not in text, "the frames of the worker are left out"
    assert "--bundle" not in text
    for ending in (SystemExit(3), KeyboardInterrupt()):

        @by_value
        def leave(error: BaseException = ending) -> None:
            raise error

        with pytest.raises(TaskFailedError, match=type(ending).__name__):
            env.call(leave).result(PATIENCE_S)


def test_what_cannot_be_pickled_or_imported_is_named(env: Client) -> None:
    with pytest.raises(OptionError, match=r"function .*with its arguments cannot be pickled"):
        env.call(len, threading.Lock())
    with pytest.raises(OptionError, match="is no function"):
        env.call(3)  # type: ignore[arg-type]
    with pytest.raises(TaskFailedError, match="pickling what it returned: TypeError"):
        env.call(by_value(lambda: threading.Lock())).result(PATIENCE_S)
    with pytest.raises(TaskFailedError, match="does not find that module") as failed:
        env.call(environment).result(PATIENCE_S)  # of a module of the tests alone
    assert "reading it: ModuleNotFoundError" in str(failed.value)


def test_function_goes_on_in_another_worker_when_one_is_killed(env: Client, tmp_path: Path) -> None:
    @by_value
    def once(folder: str) -> tuple[int, int]:
        import os
        import time

        number = len(os.listdir(folder))
        open(f"{folder}/{number}", "w").close()
        if number == 0:
            time.sleep(600)
        return number, os.getppid()

    task = env.call(once, str(tmp_path))
    until(lambda: (tmp_path / "0").exists())
    worker = next(each for each in env.workers() if each.task == task.id)
    os.kill(worker.pid, signal.SIGKILL)
    number, pid = task.result(PATIENCE_S)
    assert (number, task.details.attempts) == (1, 2)
    assert pid != worker.pid


@by_value
def leak(most_bytes: int) -> None:
    held: list[bytearray] = []
    while len(held) * 2**26 < most_bytes:
        held.append(bytearray(os.urandom(2**20) * 64))
        time.sleep(0.02)
    time.sleep(PATIENCE_S)


def test_worker_that_leaks_is_ended_and_its_task_fails_as_poison() -> None:
    """A function may take the memory of its slots, and the process that of its libraries."""
    pools = [{"name": "tools", "engine": "functions", "min": 1, "max": 1}]
    with simenv.local(pools=pools, memory_per_slot=2**29) as env:
        with pytest.raises(TaskFailedError) as failed:
            env.call(leak, 2 * 2**30).result(PATIENCE_S)
        assert failed.value.reason == "poison"
        used = r"used \d\.\d GiB of memory where 1\.0 GiB were granted"
        assert re.search(used, str(failed.value))
        assert env.call(abs, -7).result(PATIENCE_S) == 7


@by_value
def hold_memory(way: str, num_bytes: int) -> None:
    import os
    import time

    page = b"x" * 2**20
    if way == "memfd":
        file = os.memfd_create("held")
        for _ in range(num_bytes >> 20):
            os.write(file, page)
    elif way == "shared":  # by four children, of which each has all of it
        import mmap

        shared = mmap.mmap(-1, num_bytes)
        for _ in range(4):
            if os.fork() == 0:
                break
        for at in range(0, num_bytes, 4096):
            shared[at] = 1
    elif os.fork() == 0:
        os.setsid()
        if os.fork():
            os._exit(0)
        held = [bytearray(page) for _ in range(num_bytes >> 20)]
        assert held
    time.sleep(120.0)


@pytest.mark.parametrize("way", ["memfd", "session"])
def test_memory_of_children_and_of_files_in_memory_is_bounded(way: str) -> None:
    """None of it is in the worker's own process."""
    pools = [{"name": "tools", "engine": "functions", "min": 1, "max": 1}]
    with simenv.local(pools=pools, memory_per_slot=2**28) as env:
        with pytest.raises(TaskFailedError) as failed:
            env.call(hold_memory, way, 2 * 2**30).result(PATIENCE_S)
        assert failed.value.reason == "poison"
        assert re.search(r"used \d\.\d GiB of memory where", str(failed.value))
        assert env.call(abs, -7).result(PATIENCE_S) == 7


def test_memory_that_children_share_counts_once() -> None:
    pools = [{"name": "tools", "engine": "functions", "min": 1, "max": 1}]
    with simenv.local(pools=pools, memory_per_slot=2**29) as env:
        task = env.functions(run_timeout_s=4.0).submit(hold_memory, "shared", 2**29)
        fails(TaskExpiredError, "", task.result, PATIENCE_S)


@by_value
def crash(way: str) -> None:
    import ctypes
    import os
    import signal

    if way == "fault":
        ctypes.string_at(0)
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize(
    ("function", "argument", "end"),
    [
        (os._exit, 3, "exit 3"), (os._exit, 0, "exit 0"),
        (crash, "fault", r"signal 11 \(SIGSEGV\)"), (crash, "killed", r"signal 9 \(SIGKILL\)"),
    ],
)  # fmt: skip
def test_function_that_ends_its_process_fails_and_its_worker_goes_on(
    env: Client, function: Any, argument: Any, end: str
) -> None:
    restarts = sum(worker.restarts for worker in env.workers())
    with pytest.raises(TaskFailedError, match=f"its process ended with {end}") as failed:
        env.call(function, argument).result(PATIENCE_S)
    assert failed.value.reason == "function"
    assert env.call(pow, 2, 5).result(PATIENCE_S) == 32
    assert sum(worker.restarts for worker in env.workers()) == restarts, "no worker was killed"


@by_value
def spin(obstinate: bool) -> None:
    while True:
        try:
            while True:
                pass
        except BaseException:
            if not obstinate:
                raise


@pytest.mark.parametrize("obstinate", [False, True])
def test_running_function_is_cancelled_and_expires(env: Client, obstinate: bool) -> None:
    task = env.call(spin, obstinate)
    until(task.running)
    restarts = sum(worker.restarts for worker in env.workers())
    assert task.cancel()
    fails(TaskCancelledError, "", task.result, PATIENCE_S)
    with pytest.raises(TaskExpiredError):
        env.functions(run_timeout_s=0.3).submit(spin, obstinate).result(PATIENCE_S)
    assert env.call(pow, 2, 5).result(PATIENCE_S) == 32
    assert sum(worker.restarts for worker in env.workers()) == restarts, "no worker was killed"


def test_sizes_are_limited_and_large_values_go_through_files(env: Client) -> None:
    value = env.call(bytes, 5_000_000)
    assert value.result(PATIENCE_S) == bytes(5_000_000)
    assert list((Path(env.service).parent).rglob("*.h5")) or value.details.has("value")
    with pytest.raises(LimitExceededError, match=r"a call of .* the limit is 16.0 MiB"):
        env.call(len, bytes(17 * 2**20))
    with pytest.raises(TaskFailedError, match=r"it returned .* bytes; the limit is") as failed:
        env.call(bytes, 65 * 2**20).result(PATIENCE_S)
    assert failed.value.reason == "limit"


@pytest.mark.usefixtures("no_leaks")
def test_calls_survive_a_kill_of_the_service(tmp_path: Path) -> None:
    with environment(pools=[{"name": "tools", "engine": "functions", "min": 1, "max": 1}]) as live:
        with live.client() as env:
            ids = [task.id for task in env.map(by_value(lambda x: x + 1), range(20))]
        live.crash()
        live.up()
        with live.client() as env:
            pool = env.functions()
            assert [pool.task(each).result(PATIENCE_S) for each in ids] == list(range(1, 21))
            assert [row.engine for row in env.history.tasks()][:1] == [FUNCTIONS]


def test_owners_of_keys_may_not_call_functions(env: Client, tmp_path: Path) -> None:
    for role in ("client", "admin"):
        file = tmp_path / f"{role}.simenv"
        issue_key(env.keys, f"some-{role}", role, file)
        with simenv.connect(service=file) as far:
            fails(NotAllowedError, "this client came with a key", far.call, pow, 2, 3)
            call = FunctionCall(CALL_FORMAT, "3.11", "pow", b"")
            terms = TaskOptions(outputs=(VALUE,), engine=FUNCTIONS)
            order = PreparedSubmit(terms, [TaskSpec(codec.encode(call), 0, 0)], single=True)
            with pytest.raises(NotAllowedError, match=f"came with the key 'some-{role}'"):
                send(far.session, order, None)
            sneaked = FunctionExecutor(far.session, "", {})
            for options in ({}, {"pool": "tools"}):
                sneaked._options = options  # type: ignore[assignment]
                with pytest.raises(NotAllowedError, match="'functions' runs tasks of the env"):
                    sneaked.submit(pow, 2, 3)
            with pytest.raises(InfeasibleError, match=r"no pool here|runs calls, no circuits"):
                far.run("OPENQASM 2.0; qreg q[1]; creg c[1]; measure q -> c;", pool="tools")
        env.keys.revoke(f"some-{role}")


def test_environment_without_the_pool_calls_nothing() -> None:
    with environment() as live, live.client() as env:
        caught = fails(InfeasibleError, "no pool here runs engine 'functions'", env.call, pow, 2, 3)
        assert "start a pool with engine=functions" in caught.hint
    for pool, value in (
        ({"engine": "function"}, "'function' is not known"),
        ({"engine": "functions", "ranks": 2}, "has 2 ranks, and its engine"),
        ({"engine": "functions", "device": "fez"}, "has device fez, and its engine"),
    ):
        with pytest.raises(ConfigError, match=value):
            Live(pools=[{"name": "f", **pool}]).up()


def test_malformed_calls_are_refused_by_name(env: Client) -> None:
    call = FunctionCall(CALL_FORMAT, "2.7", "pow", b"")
    good = TaskOptions(outputs=(VALUE,), engine=FUNCTIONS)
    replace = msgspec.structs.replace
    for packed, terms, value in (
        (b"\xc1", good, "the call cannot be read"),
        (codec.encode(replace(call, format=9)), good, "has format 9"),
        (codec.encode(replace(call, name="a\nb")), good, "cannot be printed"),
        (codec.encode(call), replace(good, engine="statevector"), "output 'value' was asked of"),
        (codec.encode(call), replace(good, outputs=(VALUE, "counts")), "and no other"),
        (codec.encode(call), replace(good, prefer=("main",)), "a call has no prefer"),
    ):
        order = PreparedSubmit(terms, [TaskSpec(packed, 0, 0)], single=True)
        fails(SimenvError, value, send, env.session, order, None)
    order = PreparedSubmit(good, [TaskSpec(codec.encode(call), 0, 0)], single=True)
    with pytest.raises(TaskFailedError, match=r"was pickled by Python 2.7; this worker has 3"):
        send(env.session, order, None)[0].result(PATIENCE_S)


def test_command_line_shows_calls(env: Client, shell: Shell) -> None:
    task = env.call(pow, 2, 5)
    assert task.wait() is TaskState.DONE
    assert "functions" in shell("history").out
    answer = shell("result", task.id)
    assert answer.code == 0
    assert "a value of" in answer.out
    answer = shell("result", task.id, "--bundle", "nowhere")
    assert (answer.code, "bundles are of circuits" in answer.err) == (2, True)
    assert "transpiler" not in shell("engines").out
    assert set(env.devices()) == {"main"}


def test_bundle_of_another_calls_no_function(env: Client, shell: Shell, tmp_path: Path) -> None:
    """A bundle of a circuit, whose maker put a call in its place."""
    victim = tmp_path / "victim"
    circuit = env.submit("OPENQASM 2.0; qreg q[1]; creg c[1]; measure q -> c;", shots=10)
    circuit.wait()
    assert shell("result", circuit.id, "--bundle", str(tmp_path / "bundle")).code == 0
    assert shell("submit", str(tmp_path / "bundle"), "--wait").code == 0, "as long as it is one"
    call = env.call(by_value(lambda path: open(path, "w").close()), str(victim))
    call.wait()
    assert victim.exists()
    victim.unlink()
    result = env.history.submitted(call)
    with pytest.raises(OptionError, match="a call of engine functions is not submitted again"):
        env.history.resubmit(result)
    for file in (tmp_path / "bundle").rglob("*"):
        if file.suffix == ".json":
            manifest = msgspec.json.decode(file.read_bytes())
            if "terms" in manifest:
                manifest["terms"] = msgspec.to_builtins(result.terms)
                file.write_bytes(msgspec.json.encode(manifest))
        elif file.name.startswith("program") and file.suffix not in (".qasm", ".qpy"):
            file.write_bytes(result.spec.program)
    assert shell("submit", str(tmp_path / "bundle"), "--wait").code != 0
    assert not victim.exists()
