"""The engine that misbehaves does so, each fault in a process of its own."""

import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from arrays import Arrays
from engine_runs import run
from failing import fails

import simulators
from simulators.circuit.ir import Circuit
from simulators.engine import Request, RunControl
from simulators.errors import Stopped
from simulators.fault import engine as fault
from simulators.statevector.engine import StatevectorEngine

HERE = Path(__file__).parents[2] / "support"
ROOT = Path(simulators.__file__).parents[1]
KERNELS = Path(sys.prefix) / "var" / "simenv-kernels"
RUN = """
import resource, sys
from pathlib import Path
sys.path[:0] = [{root!r}, {here!r}]
from simulators.compiler import warmup
warmup.prepare(Path({kernels!r}))
from arrays import Arrays
from simulators.engine import RunControl
from simulators.engine import Request, RunOptions
from simulators.fault.engine import FaultEngine
control, options = RunControl(), RunOptions()
circuit = Arrays(1, 1).add("rx", [0], (), [1_000_000.0 + {code}]).add("measure", [0], [0]).circuit()
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
engine = FaultEngine()
plan = engine.plan(circuit, None, options)
pages = int(Path("/proc/self/statm").read_text().split()[0])
resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 2**27,) * 2)
print("ready", flush=True)
engine.run(plan, circuit, Request(1, 1), options, control)
"""


def slow(seconds: float) -> Circuit:
    arrays = Arrays(2, 2).add("rx", [0], (), [fault.FAULT_BASE + fault.SLOW])
    arrays.add("rx", [0], (), [seconds]).add("h", [0]).add("cx", [0, 1])
    return arrays.add("measure", [0], [0]).add("measure", [1], [1]).circuit()


def start(code: int) -> subprocess.Popen[str]:
    script = RUN.format(root=str(ROOT), here=str(HERE), kernels=str(KERNELS), code=code)
    return subprocess.Popen(
        [sys.executable, "-P", "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("code", "ending"),
    [(fault.SEGFAULT, -signal.SIGSEGV), (fault.EXIT, 70), (fault.EAT, 1), (fault.RAISE, 1)],
)
def test_each_fault_ends_process_as_specified(code: int, ending: int) -> None:
    with start(code) as process:
        _, errors = process.communicate(timeout=120)
    assert process.returncode == ending
    if code == fault.EAT:
        assert "MemoryError" in errors
    if code == fault.RAISE:
        assert "RuntimeError: the fault engine was asked" in errors


def test_hanging_engine_runs_until_killed() -> None:
    with start(fault.HANG) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        fails(subprocess.TimeoutExpired, "", process.wait, 0.3)
        process.kill()


def test_slow_circuit_gives_same_counts_as_statevector() -> None:
    plain = Arrays(2, 2).add("h", [0]).add("cx", [0, 1]).measure(range(2)).circuit()
    result = run(fault.FaultEngine(), slow(0.05), Request(200, 3))
    assert result == run(StatevectorEngine(), plain, Request(200, 3))


def test_slow_circuit_can_be_stopped() -> None:
    control = RunControl()
    stopper = threading.Timer(0.1, control.stop)
    stopper.start()
    fails(Stopped, "", run, fault.FaultEngine(), slow(600.0), Request(1, 1), control=control)
    stopper.join()


def test_ordinary_angles_request_no_fault() -> None:
    for angle in (0.0, 1.0, 6.0, fault.FAULT_BASE, fault.FAULT_BASE + 8, fault.FAULT_BASE + 1.5):
        assert fault.fault_of(Arrays(1, 0).add("rx", [0], (), [angle]).circuit()) == 0
    assert fault.fault_of(Arrays(1, 0).add("ry", [0], (), [1_000_001.0]).circuit()) == 0
    assert fault.fault_of(Arrays(1, 0).circuit()) == 0
