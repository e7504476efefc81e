"""Time to the first result of `simenv submit bell.qasm --wait`, as typed.

No environment is up: the call starts a private environment, uses it and ends it. Cold: no compiled
kernel is on this machine (a fresh SIMENV_KERNELS); a circuit on an emulated device and one of 22
qubits, which need many more kernels, and `simenv demo` with its first verified row are measured in
the same way. Warm: the kernels are compiled; median of 5. Then, with an environment up, the time is
measured until a circuit too wide for this machine is refused. The CPU seconds of the cold starts
are printed too: on a busy machine they say more.
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import tempfile
import time
from argparse import Namespace
from functools import partial
from pathlib import Path

from bench.harness import Report, repeated_s, timed_s
from bench.harness.environments import SIMENV, simenv
from bench.harness.kernels import compile_kernels

BELL = """OPENQASM 2.0;
include "qelib1.inc";
qreg q[2];
creg c[2];
h q[0];
cx q[0],q[1];
measure q -> c;
"""
WARM_RUNS = 5
LARGE = 22  # qubits
DEVICE = "superconducting-lattice"
COLD = {  # arguments by goal
    "cold_s": ["submit", "bell.qasm", "--wait"],
    "noisy_cold_s": ["submit", "bell.qasm", "--wait", "--device", DEVICE],
    "large_cold_s": ["submit", "large.qasm", "--wait"],
    "demo_s": ["demo"],
}
OPTIONS = ()


def run(_options: Namespace) -> Report:
    report = Report("cold_start", "start: wall time of whole commands")
    with tempfile.TemporaryDirectory(prefix="simenv-bench-") as folder:
        place = Path(folder)
        environ = {**os.environ, "SIMENV_HOME": f"{place}/home", "SIMENV_KERNELS": f"{place}/k"}
        (place / "bell.qasm").write_text(BELL)
        (place / "wide.qasm").write_text(_connected(60))
        (place / "large.qasm").write_text(_large())
        for key, args in COLD.items():
            took, spent = _cold(args, place, environ)
            label = f"{' '.join(args)}, nothing up, no kernels ({spent:.1f} s CPU), s"
            report.at_most(key, took, label)
        row = _first_row(place, {**environ, "SIMENV_KERNELS": tempfile.mkdtemp(dir=folder)})
        report.at_most("demo_row_s", row, "demo, no kernels: first verified row, s")
        compile_kernels(Path(environ["SIMENV_KERNELS"]))
        command = partial(simenv, environ=environ, cwd=place)
        warm = repeated_s(lambda: command(["submit", "bell.qasm", "--wait"]), WARM_RUNS + 1)
        command(["up"])
        try:
            args = ["submit", "wide.qasm", "--engine", "statevector", "--wait"]
            refused = timed_s(lambda: command(args, code=3))
        finally:
            command(["down"])
    label = "submit --wait, nothing up, warm kernels, s"
    report.at_most("warm_s", statistics.median(warm[1:]), label)
    report.at_most("refusal_s", refused, "a circuit of 60 qubits refused, s")
    return report


def _head(qubits: int) -> str:
    return BELL.replace("[2]", f"[{qubits}]").partition("h q")[0]


def _connected(qubits: int) -> str:
    """Return a circuit in which no qubit can be left out."""
    gates = [f"cx q[{qubit}],q[{qubit + 1}];\n" for qubit in range(qubits - 1)]
    return "".join([_head(qubits), "h q;\n", *gates, "ry(0.3) q;\n", "measure q -> c;\n"])


def _large() -> str:
    """Return three layers of rotations, CX, a Toffoli gate and a phase gate between distant
    qubits."""
    lines = [_head(LARGE)]
    for layer in range(3):
        lines += [f"ry({0.1 * qubit + layer}) q[{qubit}];\n" for qubit in range(LARGE)]
        lines += [f"cx q[{qubit}],q[{qubit + 1}];\n" for qubit in range(LARGE - 1)]
        lines += ["ccx q[0],q[5],q[20];\n", "cu1(0.3) q[3],q[21];\n"]
    return "".join([*lines, "measure q -> c;\n"])


def _first_row(folder: Path, environ: dict[str, str]) -> float:
    """Return the seconds until the demo prints its first row, and end it."""
    begin = time.perf_counter()
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen([SIMENV, "demo"], cwd=folder, env=environ, text=True, **pipes) as process:
        assert process.stdout is not None
        row = next((line for line in process.stdout if " ok " in line), "")
        took = time.perf_counter() - begin
        process.terminate()
        process.stdout.close()
    if not row:
        raise SystemExit("simenv demo printed no verified row")
    return took


def _cold(args: list[str], folder: Path, environ: dict[str, str]) -> tuple[float, float]:
    """Return the wall time of a first start, and the CPU time of all its processes, in seconds."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    fresh = {**environ, "SIMENV_KERNELS": tempfile.mkdtemp(dir=folder)}
    took = timed_s(lambda: simenv(args, fresh, cwd=folder))
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return took, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
