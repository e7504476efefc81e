"""Programs of Pulser with the backends of simenv: their values, the time they add, tutorials."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from argparse import Namespace
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

import simenv
from bench import harness
from bench.engine.rydberg import Peer, random_sequence
from bench.harness.environments import home
from simenv.client import environments

TUTORIAL = Path(__file__).parents[1] / "peers" / "pulser_tutorial.py"
TIMES = [0.2, 0.5, 0.8, 1.0]
SHOTS = 2_000
TOLERANCE = 1e-10  # of 1 - fidelity: values differ by its root
MODULATED = "modulated"
EXACT = ("occupation", "correlation_matrix", "fidelity")


@harness.benchmark(
    seed=harness.SEED, sequences=(21, 7), rounds=(15, 3), python=sys.executable, tutorials="",
)  # fmt: skip
def pulser(report: harness.Report, options: Namespace) -> None:
    """Programs of Pulser: values of observables, time that the backend adds, and tutorials.

    The configuration of an emulation, with observables at four times, of random sequences of all
    kinds, by SimenvEmulator and by pulser-simulation's backend: the largest difference, and the
    lowest p-value of the bit strings. Energies are compared by the benchmark `rydberg`.
    The CPU time of this process that SimenvEmulator adds to `Client.run` with the same options.
    `--tutorials` names the folder `tutorials` of a clone of Pulser's repository, whose notebooks
    run with the names of the backends exchanged; `--python` an interpreter that has
    pulser-simulation.
    """
    if not harness.installed("pulser"):
        return report.none_measured("pulser is not installed")
    with ExitStack() as stack:
        stack.enter_context(home())
        environments.up({"pools": [{"name": "main", "min": 2, "max": 2}]})
        stack.callback(environments.down, "default", now=True)
        client = stack.enter_context(simenv.connect())
        rng = np.random.default_rng(options.seed)
        sequences = [random_sequence(rng, k) for k in range(options.sequences)]
        with Peer(options.python) as peer:
            _values(report, client, peer, sequences)
        _added_time(report, client, sequences[0][1], options.rounds)
        if options.tutorials:
            _tutorials(report, Path(options.tutorials))
        else:
            report.not_measured("tutorial_cells_failed", "--tutorials names no folder")
    return None


def _config(kind: str, atoms: int) -> Any:
    from pulser import backend

    from simenv.frontends.pulser import SimenvConfig

    order = {"digital": "gh", "XY": "ud", "masked XY": "ud"}.get(kind, "rg")  # of pulser-simulation
    zero, one = order if order != "rg" else "gr"
    every_other = "".join((zero, one)[k % 2] for k in range(atoms))
    state = backend.StateRepr.from_state_amplitudes(
        eigenstates=tuple(order), amplitudes={every_other: 0.8, zero * atoms: 0.6j}
    )
    observables = [
        backend.BitStrings(num_shots=SHOTS),
        backend.Occupation(),
        backend.CorrelationMatrix(),
        backend.Fidelity(state),
    ]
    return SimenvConfig(
        observables=observables, default_evaluation_times=TIMES, with_modulation=kind == MODULATED,
        tolerance=TOLERANCE,
    )  # fmt: skip


def _values(
    report: harness.Report, client: Any, peer: Peer, sequences: list[tuple[str, Any]]
) -> None:
    from simenv.frontends.pulser import SimenvEmulator

    largest, lowest = 0.0, 1.0
    for kind, sequence in sequences:
        config = _config(kind, len(sequence.register.qubits))
        ours = SimenvEmulator(sequence, config=config, env=client).run()
        theirs = peer.results(sequence, _plain(config))
        if "error" in theirs:
            return report.none_measured(theirs["error"], "difference", "p_value")
        worst = max(
            _difference(np.array(getattr(ours, tag)), np.array(theirs[tag])) for tag in EXACT
        )
        p_value = min(map(_p_value, ours.bitstrings, theirs["bitstrings"]))
        print(f"{kind}, {len(ours.atom_order)} atoms: difference {worst:.1e}, p {p_value:.3f}")
        largest, lowest = max(largest, worst), min(lowest, p_value)
    report.at_most("difference", largest)
    report.at_least("p_value", lowest)
    return None


def _plain(config: Any) -> str:
    """Return the configuration without the options of simenv."""
    values = json.loads(config.to_abstract_repr())
    for name in ("seed", "tolerance"):
        values.pop(name)
    return json.dumps(values)


def _difference(ours: Any, theirs: Any) -> float:
    return float(np.max(np.abs(ours - theirs)))


def _p_value(ours: dict[str, int], theirs: dict[str, int]) -> float:
    """Return the p-value of two samples; outcomes that are rare in both are one."""
    table: list[list[int]] = []
    rare = [0, 0]
    for outcome in ours.keys() | theirs.keys():
        row = [ours.get(outcome, 0), theirs.get(outcome, 0)]
        if sum(row) < 20:
            rare = [rare[0] + row[0], rare[1] + row[1]]
        else:
            table.append(row)
    table += [rare] if sum(rare) else []
    return 1.0 if len(table) < 2 else float(stats.chi2_contingency(np.array(table)).pvalue)


def _added_time(report: harness.Report, client: Any, sequence: Any, rounds: int) -> None:
    from pulser.backend import BitStrings

    from simenv.frontends.pulser import SimenvConfig, SimenvEmulator
    from simenv.frontends.pulser.emulation import submit_options

    config = SimenvConfig(observables=[BitStrings(num_shots=SHOTS)], seed=1)
    options = submit_options(config, sequence, None)
    emulator = SimenvEmulator(sequence, config=config, env=client)
    ways = {"backend": emulator.run, "client": lambda: client.run(sequence, **options)}
    times = harness.rounds_of(ways, rounds, 2, time.process_time)
    harness.print_times(times)
    gap = statistics.median(times["backend"]) - statistics.median(times["client"])
    report.seconds("added_ms", gap)


def _tutorials(report: harness.Report, folder: Path) -> None:
    cells = failed = 0
    for notebook in _with_backends(folder):
        done = subprocess.run(
            [sys.executable, str(TUTORIAL), str(notebook.absolute())], capture_output=True,
            text=True, check=False,
        )  # fmt: skip
        name = notebook.relative_to(folder)
        try:
            answer = json.loads(done.stdout.splitlines()[-1])
        except (ValueError, IndexError):
            return report.not_measured("tutorial_cells_failed", f"{name}: {done.stderr[-300:]}")
        print(f"{name}: {answer['cells']} cells, {answer['seconds']:.1f} s", *answer["failed"])
        cells += answer["cells"]
        failed += len(answer["failed"])
    print(f"{cells} cells")
    report.at_most("tutorial_cells_failed", failed)
    return None


def _with_backends(folder: Path) -> Iterator[Path]:
    """Iterate over notebooks that run something, and import nothing that is not installed."""
    for notebook in sorted(folder.rglob("*.ipynb")):
        text = notebook.read_text()
        if "retired" in notebook.parts or "Backend" not in text or "skopt" in text:
            continue
        yield notebook
