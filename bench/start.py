"""How long a user waits for the first circuit, as typed: `simenv submit bell.qasm --wait`.

Nothing is up: a private environment is started, used and ended within the call. Cold: no compiled
kernel is on this machine (a fresh SIMENV_KERNELS). Warm: they are there; median of 5. Then, with an
environment up, the time until a circuit that is too wide for this machine is refused.

    python bench/start.py
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from report import Report

BELL = """OPENQASM 2.0;
include "qelib1.inc";
qreg q[2];
creg c[2];
h q[0];
cx q[0],q[1];
measure q -> c;
"""
SIMENV = Path(sys.executable).with_name("simenv")
WARM_RUNS = 5


def main() -> int:
    report = Report("start", "start: wall time of whole commands")
    with tempfile.TemporaryDirectory(prefix="simenv-bench-") as folder:
        place = Path(folder)
        environ = {**os.environ, "SIMENV_HOME": f"{place}/home", "SIMENV_KERNELS": f"{place}/k"}
        (place / "bell.qasm").write_text(BELL)
        (place / "wide.qasm").write_text(BELL.replace("[2]", "[60]"))
        cold = _timed(["submit", "bell.qasm", "--wait"], place, environ)
        warm = [_timed(["submit", "bell.qasm", "--wait"], place, environ) for _ in range(WARM_RUNS)]
        _timed(["up"], place, environ)
        try:
            words = ["submit", "wide.qasm", "--engine", "statevector", "--wait"]
            refused = _timed(words, place, environ, code=3)
        finally:
            _timed(["down"], place, environ)
    report.verdict("cold_s", cold, "submit --wait, nothing up, no kernels, s")
    report.verdict("warm_s", statistics.median(warm), "submit --wait, nothing up, warm kernels, s")
    report.verdict("refusal_s", refused, "a circuit of 60 qubits refused, s")
    return report.close()


def _timed(words: list[str], folder: Path, environ: dict[str, str], code: int = 0) -> float:
    begin = time.perf_counter()
    done = subprocess.run(
        [SIMENV, *words], cwd=folder, env=environ, capture_output=True, text=True, check=False
    )
    took = time.perf_counter() - begin
    if done.returncode != code:
        raise SystemExit(f"simenv {' '.join(words)}: exit {done.returncode}\n{done.stderr}")
    return took


if __name__ == "__main__":
    sys.exit(main())
