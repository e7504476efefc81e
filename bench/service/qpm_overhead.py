"""Overhead of each interface for one small circuit: client, command line, QPM, DEFw.

The interfaces are the Python client, client.qpm of either revision in this process, the command
line (one process per call), and the service package for DEFw behind the stand-in of the conformance
kit, a process of its own with YAML on a socket. A plugin without work runs behind the same
stand-in: the time above it is simenv's overhead, which has the goal. All interfaces lead to one
environment of one worker and take turns in rounds, since the machine's speed drifts; 13 gates,
1,024 shots, a new seed each time, so that no result is cached.

    python -m bench run qpm_overhead [--rounds 5] [--circuits 100]
"""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
from argparse import Namespace
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

import simenv
from bench.harness import Option, Report, Times, medians, rounds, timed
from simenv.client.client import Client
from simenv.qpm_check.plugin import PluginTarget

SHOTS = 1_024
CIRCUIT = (
    'OPENQASM 2.0;\ninclude "qelib1.inc";\nqreg q[4];\ncreg c[4];\n'
    + "".join(f"h q[{k}];\nrz(0.3) q[{k}];\n" for k in range(4))
    + "cx q[0],q[1];\ncx q[1],q[2];\ncx q[2],q[3];\nh q[0];\nh q[1];\n"
    + "measure q -> c;\n"
)
NULL_PLUGIN = Path(__file__).with_name("null_plugin")
LINE = (sys.executable, "-c", "from simenv.cli.entry import main; main()")
Interface = Callable[[int], dict[str, int]]
OPTIONS = (
    rounds(5, quick=2),
    Option("--circuits", type=int, default=100, help="of a round; CLI: 1 of 20", quick=20),
)


def run(options: Namespace) -> Report:
    report = Report("qpm_overhead", f"4 qubits, 13 gates, {SHOTS:,} shots, one after the other")
    seeds = iter(range(1, 10**9))
    with contextlib.ExitStack() as stack:
        interfaces = _interfaces(stack)
        p50s: Times = {name: [] for name in interfaces}
        for number in range(options.rounds + 1):
            for name, interface in interfaces.items():
                count = options.circuits if name != "cli" else max(1, options.circuits // 20)
                times = [_timed_s(interface, next(seeds)) for _ in range(count)]
                if number:  # the first round warms up
                    p50s[name].append(statistics.median(times) * 1e3)
    for name, median in medians(p50s).items():
        print(f"{name:12} p50 {median:8.3f} ms")
    print(f"load {os.getloadavg()[0]:.1f}\n")
    for revision in (1, 2):
        shares = np.subtract(p50s[f"defw {revision}"], p50s[f"null {revision}"])
        label = f"revision {revision}: our share above a plugin that does nothing, p50, ms"
        report.at_most("share_p50_ms", np.median(shares), label)
    return report


def _interfaces(stack: contextlib.ExitStack) -> dict[str, Interface]:
    """Return the interfaces by name; each maps a seed to counts."""
    client = stack.enter_context(simenv.local(workers=1))
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    path = folder / "circuit.qasm"
    path.write_text(CIRCUIT)
    interfaces: dict[str, Interface] = {
        "client": lambda seed: client.run(CIRCUIT, shots=SHOTS, seed=seed).counts,
        "qpm 1": lambda seed: _counts(client.qpm.revision1.sync_run(_info(seed))),
        "qpm 2": lambda seed: _counts(client.qpm.sync_run(_info(seed))),
        "cli": lambda seed: _command_line(client, path, seed),
    }
    table = {"SIMENV_SERVICE": client.service, "SIMENV_QPM_RESERVATIONS": "optional"}
    folders = {"defw": _plugin_folder(), "null": NULL_PLUGIN}
    for revision in (1, 2):
        for name, plugin in folders.items():
            call = stack.enter_context(
                _open_plugin(plugin, revision, table if name == "defw" else {})
            )
            interfaces[f"{name} {revision}"] = call
    return interfaces


def _plugin_folder() -> Path:
    """Return the plugin's folder as `simenv qfw path` gives it."""
    command = [*LINE, "qfw", "path"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return Path(done.stdout.strip()).parent


@contextlib.contextmanager
def _open_plugin(folder: Path, revision: int, environ: dict[str, str]) -> Iterator[Interface]:
    """Open a plugin behind the stand-in; yield the interface that calls it as a host does."""
    plugin = PluginTarget(folder.name, folder, environ)
    plugin.registers = plugin.registers and folder != NULL_PLUGIN
    with plugin.open(revision) as subject:
        methods = subject.connect().methods
        mark = {"revision1": True} if revision == 1 else {}  # read by the plugin without work

        def call(seed: int) -> dict[str, int]:
            return _counts(methods.sync_run({**_info(seed), **mark}))

        yield call


def _info(seed: int) -> dict[str, Any]:
    return {"qasm": CIRCUIT, "num_qubits": 4, "num_shots": SHOTS, "seed": seed}


def _counts(answer: dict[str, Any]) -> dict[str, int]:
    """Return the counts of a record of revision 1, or of the record in an envelope of revision
    2."""
    result = answer["result"]
    counts: dict[str, int] = result["result"]["counts"] if "outcome" in answer else result
    return counts


def _command_line(client: Client, path: Path, seed: int) -> dict[str, int]:
    command = [*LINE, "--service", client.service, "--json", "submit", str(path), "--wait"]
    command += ["--shots", str(SHOTS), "--seed", str(seed)]
    done = subprocess.run(command, check=True, capture_output=True)
    counts: dict[str, int] = json.loads(done.stdout.splitlines()[-1])["counts"]
    return counts


def _timed_s(interface: Interface, seed: int) -> float:
    took_s, counts = timed(lambda: interface(seed))
    if sum(counts.values()) != SHOTS:
        raise SystemExit(f"{sum(counts.values())} shots of {SHOTS}")
    return took_s
