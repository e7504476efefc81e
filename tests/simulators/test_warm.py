"""Starting up: what is compiled when, and what is left running."""

from __future__ import annotations

import fcntl
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import simulators
from simulators import jit, warm

ROOT = Path(simulators.__file__).parents[1]
KERNELS = Path(sys.prefix) / "var" / "simenv-kernels"
SUPPORT = Path(__file__).parents[1] / "support"

# Prints what was compiled after the warm-up, and how many threads a run with four leaves.
SCRIPT = """
import os, sys, time
from pathlib import Path
sys.path[:0] = [{root!r}, {support!r}]
from simulators.warm import complete
complete(Path({folder!r}))
from numba.core import event
from arrays import Arrays
from simulators import registry
from simulators.base import PauliSum
from simulators.circuit.examples import bell, feed_forward
from simulators.simulate import simulate
import numpy as np
engine = registry.create("statevector")
engine.warm_up()
simulate(bell())
compiled = []
class Listener(event.Listener):
    def on_start(self, happened):
        compiled.append(str(happened.data))
    def on_end(self, happened):
        pass
with event.install_listener("numba:compile", Listener()):
    wide = Arrays(17, 17)
    for q in range(17):
        wide.add("h", [q]).add("cx", [q, (q + 1) % 17]).add("measure", [q], [q])
    threads = len(os.listdir("/proc/self/task"))
    for circuit in (bell(), feed_forward(), wide.circuit()):
        for precision in ("double", "single"):
            simulate(circuit, outputs=("counts", "probabilities"), precision=precision, threads=4)
    state = Arrays(2, 0).add("ecr", [0, 1]).circuit()
    simulate(state, outputs=("statevector", "expectation"), observables=(PauliSum(("XY",), np.ones(1)),))
deadline = time.monotonic() + 30.0
while len(os.listdir("/proc/self/task")) != threads and time.monotonic() < deadline:
    time.sleep(0.01)  # a thread that was joined may still be on its way out
print(compiled, len(os.listdir("/proc/self/task")) - threads)
"""  # noqa: E501


def test_a_task_waits_for_a_compiler_or_leaves_threads() -> None:
    script = SCRIPT.format(root=str(ROOT), support=str(SUPPORT), folder=str(KERNELS))
    found = subprocess.run(
        [sys.executable, "-P", "-W", "error", "-c", script],
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stderr
    assert found.stdout.strip() == "[] 0"


# Prints which modules of kernels a first wide circuit has loaded.
WIDE = """
import sys
from pathlib import Path
sys.path[:0] = [{root!r}, {support!r}]
from simulators import warm
warm.warm_up(Path({folder!r}))
from arrays import Arrays
from simulators.simulate import simulate
wide = Arrays(17, 17)
for q in range(17):
    wide.add("h", [q]).add("cp", [q, (q + 1) % 17], params=[0.1]).add("measure", [q], [q])
simulate(wide.circuit(), shots=10)
print(*sorted(sys.modules))
"""


def test_a_first_wide_circuit_waits_for_no_kernel_that_it_does_without() -> None:
    script = WIDE.format(root=str(ROOT), support=str(SUPPORT), folder=str(KERNELS))
    found = subprocess.run(
        [sys.executable, "-P", "-c", script], capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stderr
    loaded = set(found.stdout.split())
    wide = warm._WIDE
    assert loaded.issuperset(wide)
    rest = {*warm._LATER, *warm._SELDOM, *warm._ASKED}.difference(wide)
    assert not loaded.intersection(rest)


def test_every_module_of_kernels_is_loaded_beforehand() -> None:
    """What `complete` does not load would be compiled by a task."""
    for group in warm._all():
        importlib.import_module(group)
    package = ROOT / "simulators"
    for path in package.rglob("*.py"):
        if "\n@kernel(" in path.read_text():
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            is_reached = ".patterns." not in name  # error patterns: nothing asks for them yet
            assert name in sys.modules or not is_reached, f"{name} is in no group of `warm`"


# Imports a module of kernels when told to, and prints which of them it compiled.
ONE = """
import json
import sys
from pathlib import Path
sys.path[:0] = [{root!r}]
from simulators import warm
warm.prepare(Path({folder!r}))
from numba.core import event
compiled = []
class Listener(event.Listener):
    def on_start(self, happened):
        function = happened.data["dispatcher"]
        if type(function._cache).__name__ != "NullCache":  # a part is compiled with each kernel
            compiled.append(function.py_func.__qualname__)
    def on_end(self, happened):
        pass
print("ready", flush=True)
sys.stdin.readline()
with event.install_listener("numba:compile", Listener()):
    import simulators.circuit.parities
print(json.dumps(compiled))
"""


def test_no_kernel_is_compiled_by_two(tmp_path: Path) -> None:
    script = ONE.format(root=str(ROOT), folder=str(tmp_path))
    pipe = subprocess.PIPE
    argv = [sys.executable, "-P", "-c", script]
    two = [subprocess.Popen(argv, stdin=pipe, stdout=pipe, text=True) for _ in range(2)]
    for each in two:
        assert each.stdout is not None
        assert each.stdout.readline() == "ready\n"
    for each in two:
        assert each.stdin is not None
        each.stdin.write("go\n")
        each.stdin.flush()
    found = [json.loads(each.communicate()[0]) for each in two]
    assert [each.returncode for each in two] == [0, 0]
    assert found[0] + found[1]
    assert not set(found[0]) & set(found[1])  # which of them compiles which is chance


def test_two_starters_compile_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A group that someone else compiles is left to the end, and then only loaded."""
    monkeypatch.setattr(jit, "use_cache", lambda folder: folder / "kernels")
    imported: list[str] = []
    monkeypatch.setattr(warm.importlib, "import_module", imported.append)
    monkeypatch.setitem(warm._GROUPS, "twins", ("first", "second"))
    folder = warm.prepare(tmp_path)
    lock = os.open(folder / "first.lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(lock, fcntl.LOCK_EX)

    def other_is_done(name: str) -> None:
        imported.append(name)
        if name == "second" and not (folder / "first.done").exists():
            (folder / "first.done").touch()
            os.close(lock)

    monkeypatch.setattr(warm.importlib, "import_module", other_is_done)
    warm.warm_up(tmp_path, "twins")
    assert imported == ["second", "first"]
    warm.warm_up(tmp_path, "twins")
    assert imported == ["second", "first", "first", "second"]
    assert sorted(path.suffix for path in folder.iterdir()) == [".done", ".done", ".lock", ".lock"]


def test_an_idle_process_compiles_or_loads_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jit, "use_cache", lambda folder: folder / "kernels")
    imported: list[str] = []
    monkeypatch.setattr(warm.importlib, "import_module", imported.append)
    folder = warm.prepare(tmp_path)
    warm.load_later(tmp_path, "statevector")
    assert imported == []
    (folder / f"{warm._LATER[0]}.done").touch()
    warm.load_later(tmp_path, "statevector")
    warm.load_later(tmp_path, "foreign")
    assert imported == [warm._LATER[0]]


def test_an_engine_without_kernels_of_ours_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jit, "use_cache", lambda folder: folder / "kernels")
    warm.warm_up(tmp_path, "foreign")
    assert list((tmp_path / "kernels").iterdir()) == []


def test_changed_sources_find_old_kernels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = jit.sources_digest()
    monkeypatch.setattr(jit, "_HERE", tmp_path)
    assert jit.sources_digest() != before
    (tmp_path / "kernel.py").write_text("one")
    one = jit.sources_digest()
    (tmp_path / "kernel.py").write_text("two")
    assert jit.sources_digest() != one


OTHER = """
import sys
from pathlib import Path
sys.path[:0] = [{root!r}]
from numba.core import untyped_passes
del untyped_passes.DeadBranchPrune
from simulators import warm
warm.prepare(Path({folder!r}))
from simulators.philox import uniforms
import numpy as np
found = np.empty(2)
uniforms(1, 2, 3, np.arange(2), found)
print(*found)
"""


def test_another_numba_compiles_nothing(tmp_path: Path) -> None:
    """Where its steps are others than those that are picked here, it compiles in its own way."""
    script = OTHER.format(root=str(ROOT), folder=str(tmp_path))
    argv = [sys.executable, "-P", "-W", "error", "-c", script]
    found = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert found.stderr == ""
    assert all(0.0 <= float(word) < 1.0 for word in found.stdout.split())
    assert len(found.stdout.split()) == 2


_FIRST_WIDE = """
import sys
from pathlib import Path
from simulators import warm
warm.prepare(Path(sys.argv[1]))
from simulators.base import Control, Request, RunOptions
from simulators.circuit.examples import ghz
from simulators.statevector.engine import StatevectorEngine
folder = Path(sys.argv[1])
warm.complete(folder)  # another process does, mostly
assert warm.load_later(folder, "statevector")
StatevectorEngine().warm_up()
engine, circuit = StatevectorEngine(), ghz(14)
for precision in ("double", "single"):
    options = RunOptions(precision=precision)
    before = set(sys.modules)
    engine.run(engine.plan(circuit, None, options), circuit, Request(9, 1), options, Control())
    print(sorted(set(sys.modules) - before))
"""


def test_a_first_wide_circuit_of_an_idle_worker_imports_nothing() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _FIRST_WIDE, str(KERNELS)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split("\n") == ["[]", "[]", ""]


def test_kernels_that_no_task_can_reach_are_not_compiled_at_the_first_start() -> None:
    """Error patterns have no way in: no engine output, option or service imports them."""
    assert not [group for group in warm._all() if ".patterns" in group]


def test_every_module_of_kernels_is_counted_as_it_is_done() -> None:
    counted: list[tuple[int, int]] = []
    warm.complete(KERNELS, lambda done, modules: counted.append((done, modules)))
    modules = len(warm._all())
    assert counted == [(number, modules) for number in range(1, modules + 1)]
