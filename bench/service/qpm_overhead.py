"""Overhead of the service package for DEFw for one small circuit, above a plugin without work.

Both run behind the stand-in of the conformance kit, a process of its own with YAML on a socket, in
either revision; the time above the plugin without work is simenv's overhead. They lead to one
environment of one worker and take turns in rounds, since the machine's speed drifts; 13 gates,
1,024 shots. Every text is new, by its angle: a text that was parsed once is kept.
"""

from __future__ import annotations

import contextlib
import statistics
from argparse import Namespace
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import simenv
from bench.harness import Option, Report, Times, medians, rounds, timed
from bench.harness.environments import simenv as command
from simenv.qpm_check.plugin import PluginTarget

SHOTS = 1_024
CIRCUIT = (
    'OPENQASM 2.0;\ninclude "qelib1.inc";\nqreg q[4];\ncreg c[4];\n'
    + "".join(f"h q[{k}];\nrz(ANGLE) q[{k}];\n" for k in range(4))
    + "cx q[0],q[1];\ncx q[1],q[2];\ncx q[2],q[3];\nh q[0];\nh q[1];\n"
    + "measure q -> c;\n"
)
NULL_PLUGIN = Path(__file__).with_name("null_plugin")
OPTIONS = (rounds(5, quick=2), Option("--circuits", default=100, help="of a round", quick=20))


def run(options: Namespace) -> Report:
    report = Report("qpm_overhead", f"4 qubits, 13 gates, {SHOTS:,} shots, one after the other")
    seeds = iter(range(1, 10**9))
    with contextlib.ExitStack() as stack:
        client = stack.enter_context(simenv.local(workers=1))
        own = {"SIMENV_SERVICE": client.service, "SIMENV_QPM_RESERVATIONS": "optional"}
        plugin = Path(command(["qfw", "path"]).strip()).parent
        calls = {
            f"{name} {revision}": stack.enter_context(_open_plugin(folder, revision, environ))
            for revision in (1, 2)
            for name, folder, environ in (("defw", plugin, own), ("null", NULL_PLUGIN, {}))
        }
        p50s: Times = {name: [] for name in calls}
        for number in range(options.rounds + 1):
            for name, call in calls.items():
                times = []
                for _ in range(options.circuits):
                    took_s, counts = timed(partial(call, next(seeds)))
                    assert sum(counts.values()) == SHOTS
                    times.append(took_s)
                if number:  # the first round warms up
                    p50s[name].append(statistics.median(times) * 1e3)
    for name, median in medians(p50s).items():
        print(f"{name:12} p50 {median:8.3f} ms")
    for revision in (1, 2):
        shares = np.subtract(p50s[f"defw {revision}"], p50s[f"null {revision}"])
        label = f"revision {revision}: our share above a plugin that does nothing, p50, ms"
        report.at_most(f"share{revision}_p50_ms", np.median(shares), label)
    return report


@contextlib.contextmanager
def _open_plugin(
    folder: Path, revision: int, environ: dict[str, str]
) -> Iterator[Callable[[int], dict[str, int]]]:
    """Open a plugin behind the stand-in; yield a call as a host makes it, of a seed to counts."""
    plugin = PluginTarget(folder.name, folder, environ)
    plugin.registers = plugin.registers and folder != NULL_PLUGIN
    with plugin.open(revision) as subject:
        methods = subject.connect().methods
        info: dict[str, Any] = {"num_qubits": 4, "num_shots": SHOTS}
        if revision == 1:
            info["revision1"] = True  # read by the plugin without work

        def call(seed: int) -> dict[str, int]:
            text = CIRCUIT.replace("ANGLE", f"{1 + seed * 1e-6:.6f}")
            answer = methods.sync_run({**info, "qasm": text, "seed": seed})
            # The counts of a record of revision 1, or of the record in an envelope of revision 2.
            result = answer["result"]
            return result["result"]["counts"] if "outcome" in answer else result

        yield call
