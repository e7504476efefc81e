"""Warm-up, locks and times of kernels."""

import fcntl
import importlib
import json
import os
import pkgutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from numba.core import event

import simulators
from simulators.compiler import folder as folders, kernel, warmup
from simulators.compiler.kernel import run_once
from simulators.compiler.kernel_time import booked, busy_ns, spent_ns, working_ns

ROOT = Path(simulators.__file__).parents[1]
KERNELS = Path(sys.prefix) / "var" / "simenv-kernels"
SUPPORT = Path(__file__).parents[2] / "support"
PRELUDE = """
import os, sys, time
from pathlib import Path
from numba.core import event
compiled = []
class Listener(event.Listener):
    def on_start(self, happened):
        compiled.append(happened.data)
    def on_end(self, happened):
        pass
listening = event.install_listener("numba:compile", Listener())
"""


# The first of them compiles all kernels where no process has: a minute of processor time.
compiles_all = pytest.mark.timeout(1_200)


def argv(code: str, *arguments: object) -> list[str]:
    code = f"import sys; sys.path[:0] = {[str(ROOT), str(SUPPORT)]}" + PRELUDE + code
    return [sys.executable, "-P", "-W", "error", "-c", code, *map(str, arguments)]


def output(code: str, *arguments: object) -> str:
    """What a fresh process prints."""
    done = subprocess.run(argv(code, *arguments), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


# Prints what was compiled after the warm-up, and how many threads a run with four leaves.
SCRIPT = """
from simulators.compiler.warmup import compile_all
compile_all(Path(sys.argv[1]))
from arrays import Arrays
from simulators import registry
from simulators.engine import PauliSum
from simulators.circuit.ir import bell, feed_forward
from simulators.simulate import simulate
import numpy as np
registry.create("statevector").warm_up()
simulate(bell())
with listening:
    wide = Arrays(17, 17)
    for q in range(17):
        wide.add("h", [q]).add("cx", [q, (q + 1) % 17]).add("measure", [q], [q])
    threads = len(os.listdir("/proc/self/task"))
    for circuit in (bell(), feed_forward(), wide.circuit()):
        for precision in ("double", "single"):
            simulate(circuit, outputs=("counts", "probabilities"), precision=precision, threads=4)
    state, sums = Arrays(2, 0).add("ecr", [0, 1]).circuit(), (PauliSum(("XY",), np.ones(1)),)
    simulate(state, outputs=("statevector", "expectation"), observables=sums)
deadline = time.monotonic() + 30.0
while len(os.listdir("/proc/self/task")) != threads and time.monotonic() < deadline:
    time.sleep(0.01)  # a thread that was joined may still be on its way out
print(compiled, len(os.listdir("/proc/self/task")) - threads)
"""


@compiles_all
def test_after_warm_up_nothing_is_compiled_and_no_thread_remains() -> None:
    assert output(SCRIPT, KERNELS) == "[] 0\n"


# Prints the groups of the kernels that a first wide circuit has loaded.
WIDE = """
from simulators.compiler import kernel, warmup
warmup.compile_group(Path(sys.argv[1]))
from arrays import Arrays
from simulators.simulate import simulate
wide = Arrays(17, 17)
for q in range(17):
    wide.add("h", [q]).add("cp", [q, (q + 1) % 17], params=[0.1]).add("measure", [q], [q])
simulate(wide.circuit(), shots=10)
warmup.registered(warmup._ALL)
print(*sorted({each.group for each in kernel.kernels(*warmup._ALL) if each.is_loaded}))
"""


@compiles_all
def test_first_wide_circuit_loads_only_kernel_groups_it_needs() -> None:
    assert set(output(WIDE, KERNELS).split()) <= {"small", "admission", "light_cone", "wide"}


# Imports all modules and prints what was compiled or loaded.
IMPORTS = """
import importlib, pkgutil, simulators
with listening:
    for package in ("circuit", "statevector"):
        path = [f"{simulators.__path__[0]}/{package}"]
        for module in pkgutil.walk_packages(path, f"simulators.{package}."):
            importlib.import_module(module.name)
from simulators.compiler import kernel
loaded = [name for name, each in kernel._kernels.items() if each.is_loaded]
print(compiled, loaded, kernel._digest.cache_info().misses)
"""


def test_importing_compiles_and_loads_no_kernel_and_hashes_no_sources() -> None:
    assert output(IMPORTS) == "[] [] 0\n"


def test_warm_up_registers_every_kernel_that_tasks_use() -> None:
    """What `complete` does not load would be compiled by a task."""
    loaded = {each.name for each in warmup.registered(warmup._ALL)}
    for module in pkgutil.walk_packages(simulators.__path__, "simulators."):
        if module.name.split(".")[1] in ("circuit", "statevector"):
            importlib.import_module(module.name)
    rest = {name for name in kernel._kernels if name.startswith("simulators.")} - loaded
    assert not rest


# Prints the kernels of each group, as a process that has imported nothing else finds them.
GROUPS = """
from simulators.compiler import warmup
for group in sys.argv[1:]:
    child = os.fork()
    if not child:
        print(group, *sorted(each.name for each in warmup.registered([group])), flush=True)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
"""


def test_modules_of_each_kernel_group_register_all_its_kernels() -> None:
    for group, line in zip(warmup._ALL, output(GROUPS, *warmup._ALL).splitlines(), strict=True):
        names = [each.name for each in warmup.registered([group])]
        assert line.split() == [group, *sorted(x for x in names if x.startswith("simulators."))]


# Loads a kernel when told to, and prints what it compiled.
ONE = """
import json
from simulators.compiler import warmup
warmup.prepare(Path(sys.argv[1]))
from simulators.statevector.planning.fusion import merge_phase_gadgets as kernel
print("ready", flush=True)
sys.stdin.readline()
with listening:
    assert kernel.load()
functions = [each["dispatcher"].py_func for each in compiled]  # a part is compiled with each kernel
print(json.dumps([each.__qualname__ for each in functions if each is kernel.py_func]))
"""


def test_no_kernel_is_compiled_by_two_processes(tmp_path: Path) -> None:
    pipe, one = subprocess.PIPE, argv(ONE, tmp_path)
    two = [subprocess.Popen(one, stdin=pipe, stdout=pipe, text=True) for _ in range(2)]
    for each in two:
        assert each.stdout is not None
        assert each.stdout.readline() == "ready\n"
    for each in two:
        assert each.stdin is not None
        each.stdin.write("go\n")
        each.stdin.flush()
    entries = [json.loads(each.communicate()[0]) for each in two]
    assert [each.returncode for each in two] == [0, 0]
    assert entries[0] + entries[1]
    assert not set(entries[0]) & set(entries[1])  # which of them compiles which is chance


@pytest.fixture
def twins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[kernel.Kernel]:
    """Two kernels in a store of their own; they are all there is."""
    monkeypatch.setattr(kernel, "_kernels", {})
    monkeypatch.setattr(folders, "_chosen", [tmp_path])
    monkeypatch.setattr(warmup, "_MODULES", dict.fromkeys(warmup._MODULES, ()))

    @kernel.kernel("INT -> INT", group="wide")
    def first(number):  # type: ignore[no-untyped-def]
        return number + 1

    @kernel.kernel("INT -> INT", group="wide")
    def second(number):  # type: ignore[no-untyped-def]
        return number + 2

    return [first, second]


def test_kernel_being_compiled_by_other_process_is_loaded_last(
    tmp_path: Path, twins: list[kernel.Kernel], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = twins
    folder = warmup.prepare(tmp_path)
    (folder / "begun").mkdir()
    mark = folder / "begun" / first.name
    lock = os.open(mark, os.O_RDWR | os.O_CREAT)
    fcntl.flock(lock, fcntl.LOCK_EX)
    order: list[tuple[str, bool]] = []
    load = kernel.Kernel.load

    def noted(each: kernel.Kernel, *, wait: bool = True) -> bool:
        if wait:  # the other process has come to its end
            assert second.is_loaded
            assert not first.is_loaded
            mark.write_bytes(b"+")
            os.close(lock)
        loaded = load(each, wait=wait)
        order.append((each.name.rpartition(".")[2], loaded))
        return loaded

    monkeypatch.setattr(kernel.Kernel, "load", noted)
    warmup._load(folder, ["wide"])
    assert order == [("first", False), ("second", True), ("first", True)]
    assert (first(1), second(1)) == (2, 3)
    assert (folder / "wide.done").exists()


def test_kernel_that_another_process_does_not_finish_is_compiled_here(
    tmp_path: Path, twins: list[kernel.Kernel], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of lower priority, on a machine that is busy."""
    monkeypatch.setattr(kernel, "PATIENCE_S", 0.05)
    mark = warmup.prepare(tmp_path) / "begun" / twins[0].name
    with run_once(mark):
        assert not twins[0].load(wait=False)
        assert twins[0].load()
        assert twins[0](1) == 2
        assert twins[0].is_stored


def test_wanted_group_is_compiled_before_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, twins: list[kernel.Kernel]
) -> None:
    @kernel.kernel("INT -> INT", group="noise")
    def third(number):  # type: ignore[no-untyped-def]
        return number + 3

    order: list[str] = []
    load = kernel.Kernel.load

    def noted(each: kernel.Kernel, *, wait: bool = True) -> bool:
        order.append(each.name.rpartition(".")[2])
        if each is twins[0]:  # a task of another process waits for it now
            with ThreadPoolExecutor(1) as other:
                assert other.submit(load, third).result()
        return load(each, wait=wait)

    monkeypatch.setattr(kernel.Kernel, "load", noted)
    warmup._load(warmup.prepare(tmp_path), ["wide", "noise"])
    assert order == ["first", "third", "second"]


def test_warm_up_of_density_matrices_compiles_nothing(tmp_path: Path) -> None:
    """A first task with noise would wait for kernels that it does not need."""
    source = """
from simulators.compiler import kernel, warmup
warmup.prepare(Path(sys.argv[1]))
from simulators import registry
registry.create("densitymatrix").warm_up()
print([name for name, each in kernel._kernels.items() if each.is_loaded])
"""
    assert output(source, tmp_path) == "[]\n"


def test_load_remaining_compiles_nothing(tmp_path: Path, twins: list[kernel.Kernel]) -> None:
    first, second = twins
    folder = warmup.prepare(tmp_path)
    assert not warmup.load_remaining(tmp_path, "statevector")
    assert not first.is_loaded
    assert not second.is_loaded
    (folder / "begun").mkdir()
    (folder / "begun" / first.name).write_bytes(b"+")  # by another process
    assert not warmup.load_remaining(tmp_path, "statevector")
    assert first.is_loaded
    assert not second.is_loaded
    assert not warmup.load_remaining(tmp_path, "foreign")
    assert second.load()
    assert warmup.load_remaining(tmp_path, "statevector")


def test_concurrent_first_calls_compile_once(tmp_path: Path, twins: list[kernel.Kernel]) -> None:
    warmup.prepare(tmp_path)
    compiled: list[object] = []
    together = threading.Barrier(4)

    class Listener(event.Listener):  # type: ignore[misc]
        def on_start(self, happened: event.Event) -> None:
            compiled.append(happened.data)

        def on_end(self, happened: event.Event) -> None:
            pass

    def call(number: int) -> int:
        together.wait()
        result: int = twins[0](number)
        return result

    with event.install_listener("numba:compile", Listener()), ThreadPoolExecutor(4) as threads:
        assert list(threads.map(call, range(4))) == [1, 2, 3, 4]
    assert len(compiled) == 1


def test_engine_without_kernels_is_ready(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "version", lambda folder: folder / "kernels")
    warmup.compile_group(tmp_path, "foreign")
    assert list((tmp_path / "kernels").iterdir()) == []


def test_digest_changes_with_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = kernel.sources_digest()
    monkeypatch.setattr(kernel, "_HERE", tmp_path)
    assert kernel.sources_digest() != before
    (tmp_path / "a.py").write_text("\n@kernel\nfrom simulators.b import c\n")
    (tmp_path / "b.py").write_text("\nfrom simulators.part import (\n")
    (tmp_path / "other.py").write_text("\nfrom simulators.a import d\n")
    (tmp_path / "part").mkdir()
    (tmp_path / "part" / "__init__.py").write_text("")
    (tmp_path / "part" / "e.py").write_text("one\n")
    for changed in ("a.py", "b.py", "part/e.py"):
        result = kernel.sources_digest()
        with (tmp_path / changed).open("a") as file:
            file.write("# another line\n")
        assert kernel.sources_digest() != result, changed
    result = kernel.sources_digest()
    (tmp_path / "other.py").write_text("imports a kernel, and none imports it\n")
    assert kernel.sources_digest() == result


_FIRST_WIDE = """
from simulators.compiler import warmup
folder = Path(sys.argv[1])
warmup.prepare(folder)
from simulators.engine import Request, RunControl, RunOptions
from simulators.circuit.ir import ghz
from simulators.statevector.engine import StatevectorEngine
warmup.compile_all(folder)  # another process does, mostly
assert warmup.load_remaining(folder, "statevector")
StatevectorEngine().warm_up()
engine, circuit = StatevectorEngine(), ghz(14)
for precision in ("double", "single"):
    options = RunOptions(precision=precision)
    before = set(sys.modules)
    engine.run(engine.plan(circuit, None, options), circuit, Request(9, 1), options, RunControl())
    print(sorted(set(sys.modules) - before))
"""


@compiles_all
def test_first_wide_circuit_after_warm_up_imports_nothing() -> None:
    assert output(_FIRST_WIDE, KERNELS) == "[]\n[]\n"


def test_modules_of_kernels_load_no_mpi() -> None:
    """MPI, once loaded, initialises itself: a process without ranks would listen on TCP ports."""
    source = """
from simulators.compiler import warmup
warmup.prepare(Path(sys.argv[1]))
assert warmup.registered(tuple(warmup._MODULES))
print([name for name in sys.modules if name.startswith("mpi4py")])
"""
    assert output(source, KERNELS) == "[]\n"


PATIENCE_S = 60.0
# Enters the block of a lock, notes it, and leaves when it is told to.
ENTERS = """
from simulators.compiler.kernel import run_once
notes = Path(sys.argv[2])
with run_once(Path(sys.argv[1])):
    (notes / f"begun-{os.getpid()}").touch()
    while not (notes / "go").exists():
        time.sleep(0.01)
    (notes / f"done-{os.getpid()}").touch()
"""


def _begun(notes: Path) -> int:
    return len(list(notes.glob("begun-*")))


def test_second_process_waits_for_first_but_completed_lock_does_not_block(tmp_path: Path) -> None:
    lock = tmp_path / "begun" / "one"
    two = [subprocess.Popen(argv(ENTERS, lock, tmp_path)) for _ in range(2)]
    deadline = time.monotonic() + PATIENCE_S
    while not _begun(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.3)
    assert _begun(tmp_path) == 1
    (tmp_path / "go").touch()
    assert [each.wait(PATIENCE_S) for each in two] == [0, 0]
    assert len(list(tmp_path.glob("done-*"))) == 2
    with run_once(lock), run_once(lock):  # it would wait for itself
        pass


def test_failed_block_leaves_lock_incomplete_and_is_run_again(tmp_path: Path) -> None:
    lock = tmp_path / "one"
    with pytest.raises(ValueError, match="it"), run_once(lock):
        raise ValueError("it")
    assert lock.stat().st_size == 0
    with run_once(lock):
        assert lock.stat().st_size == 0
    assert lock.stat().st_size > 0


def test_stopped_process_keeps_a_lock_no_longer_than_its_own_time(tmp_path: Path) -> None:
    lock, go = tmp_path / "begun" / "one", tmp_path / "go"
    with subprocess.Popen(argv(ENTERS, lock, tmp_path)) as holder:
        try:
            deadline = time.monotonic() + PATIENCE_S
            while not _begun(tmp_path) and time.monotonic() < deadline:
                time.sleep(0.01)
            with lock.open() as file:
                assert kernel._holder(file.fileno()) == holder.pid
            holder.send_signal(signal.SIGSTOP)
            with run_once(lock, patience_s=0.1):
                assert holder.poll() is None
                assert not kernel.is_done(lock)
        finally:
            holder.send_signal(signal.SIGCONT)
            go.touch()


def test_unwritable_lock_does_not_block(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with run_once(tmp_path / "file" / "one"), run_once(tmp_path / "file" / "one"):
        pass


WORK_NS = 5_000_000


def test_compile_time_is_counted_and_excluded_from_working_clock() -> None:
    spent, begin, working = spent_ns(), time.perf_counter_ns(), working_ns()

    @kernel.kernel("INT -> INT", group="small")
    def added(number):  # type: ignore[no-untyped-def]
        return number + 1

    assert spent_ns() == spent  # nothing is compiled before it is needed
    added.load()
    took = time.perf_counter_ns() - begin
    booked_ns = spent_ns() - spent
    assert added(1) == 2
    assert 0 < booked_ns <= took
    assert working_ns() - working <= time.perf_counter_ns() - begin - booked_ns


def test_nested_booked_blocks_are_counted_once() -> None:
    begin, spent = time.perf_counter_ns(), spent_ns()
    with booked(), booked():
        while time.perf_counter_ns() - begin < WORK_NS:  # booked twice, it is more than passes
            pass
    assert spent_ns() - spent <= time.perf_counter_ns() - begin


def test_time_of_kernel_that_is_being_loaded_is_known_meanwhile() -> None:
    assert busy_ns() == 0
    with booked():
        first = busy_ns()
        with booked():
            assert busy_ns() >= first
        assert busy_ns() > 0
    assert busy_ns() == 0
