"""Many instances of one circuit with Pauli errors: the work saved by shared prefixes.

Errors follow gates: each Pauli string on the gate's qubits but the identity is equally likely. An
instance alone is a run without errors. The lower bound is the work of all distinct prefixes, which
no walk can avoid; work is counted in operations of the circuit.

    python -m bench run trajectories [--qubits 8 12 16 20] [--circuits ansatz tfim qft]
        [--instances 10000] [--threads 1] [--precision double] [--errors 1.0]
"""

from __future__ import annotations

import statistics
from argparse import Namespace
from typing import TYPE_CHECKING

import numpy as np

from bench.circuits import built, engine_circuit, wide_circuit
from bench.harness import Clock, Option, Report, clock_of, repeated_s, timed
from bench.harness.kernels import load_kernels

if TYPE_CHECKING:
    from simulators.circuit.ir import Circuit
    from simulators.statevector.trajectories.walks import LargeWalks, SmallWalks, TrajectorySampler
    from simulators.trajectories.noise_table import ErrorPatterns, NoiseTable

ONE, TWO = 3e-4, 3e-3  # probability of an error after a gate on one and on two qubits
ALONE = 5  # runs of one instance without errors; the median counts
OPTIONS = (
    Option("--qubits", type=int, nargs="+", default=[8, 12, 16, 20], quick=[8]),
    Option("--circuits", nargs="+", default=["ansatz", "tfim", "qft"]),
    Option("--instances", type=int, default=10000, quick=1000),
    Option("--threads", type=int, default=1),
    Option("--precision", choices=("double", "single"), default="double"),
    Option("--errors", type=float, default=1.0, help="times the usual chances"),
)


def run(options: Namespace) -> Report:
    report = Report("trajectories", "trajectories: many instances of one circuit with errors")
    load_kernels()
    clock = clock_of(cpu=options.threads == 1)  # the machine may be busy
    print(f"{options.instances} instances, {options.precision}, {options.threads} threads")
    print(
        "circuit  qubits   gates distinct  ms a shot  alone ms   time saved  work saved"
        "  work/floor  states  passes"
    )
    for name in options.circuits:
        for num_qubits in options.qubits:
            print(_line(name, num_qubits, options, clock), flush=True)
    return report


def _line(name: str, num_qubits: int, options: Namespace, clock: Clock) -> str:
    from simulators.engine import RunControl, RunOptions, ThreadPool
    from simulators.statevector.trajectories.walks import TrajectorySampler
    from simulators.trajectories.noise_table import ErrorPatterns
    from simulators.trajectories.pattern_sampling import group_by_shot, sort_places

    circuit = engine_circuit(built(num_qubits, wide_circuit(name, num_qubits, 1)))
    inserts, patterns = errors(circuit, options.instances, options.errors)
    run_options = RunOptions(precision=options.precision, threads=options.threads)
    none = ErrorPatterns(np.zeros(0, np.int64), np.zeros(2, np.int64))

    def walked(sampler: TrajectorySampler, patterns: ErrorPatterns) -> SmallWalks | LargeWalks:
        control = RunControl()
        shots = np.repeat(np.arange(patterns.count), np.diff(patterns.ends))
        ends, entries = np.empty_like(patterns.ends), np.empty_like(patterns.entries)
        with ThreadPool(options.threads, control) as pool:
            walk = sampler.open(pool, control)
            walk.bind(circuit.params, (1, 0))
            group_by_shot(shots, patterns.entries, shots.size, 0, sampler.places, ends, entries)
            rows = sort_places(ErrorPatterns(entries, ends), sampler.places.size)
            walk.indices(rows, 0)
        return walk

    alone = TrajectorySampler(circuit, inserts, run_options)
    walked(alone, none)  # plan and load kernels
    single_s = statistics.median(repeated_s(lambda: walked(alone, none), ALONE, clock))
    outcome, result = timed(
        lambda: walked(TrajectorySampler(circuit, inserts, run_options), patterns), clock
    )
    work = result.operations / (options.instances * circuit.ops.size)
    rows = np.split(patterns.entries, patterns.ends[1:-1])
    distinct = len({row.tobytes() for row in rows})
    return (
        f"{name:10}{num_qubits:5}{circuit.ops.size:8}{distinct:9}"
        f"{1e3 * outcome / options.instances:11.4f}{1e3 * single_s:10.3f}"
        f"{1 - outcome / (options.instances * single_s):12.2%}{1 - work:12.2%}"
        f"{result.operations / max(1, result.least):12.3f}{result.states:8}{result.passes:8}"
    )


def errors(circuit: Circuit, instances: int, times: float) -> tuple[NoiseTable, ErrorPatterns]:
    """Return the table of all possible errors, and the errors of each instance."""
    from simulators.trajectories.noise_table import PAULI, ErrorPatterns, NoiseTable, operators

    random = np.random.default_rng(7)
    counts = circuit.table.rows[circuit.ops, 1]
    begins = np.cumsum(counts) - counts
    rows = []
    firsts = []  # row of each gate's first error
    for k, count in enumerate(counts.tolist()):
        firsts.append(len(rows))
        wires = circuit.qubits[begins[k] : begins[k] + count].tolist()
        for string in range(1, 4**count):
            x = sum((string >> j & 1) << q for j, q in enumerate(wires))
            z = sum((string >> (count + j) & 1) << q for j, q in enumerate(wires))
            rows.append((k, PAULI, x, z, 0, 0))
    chances = times * np.where(counts == 1, ONE, TWO)
    instance, gate = np.nonzero(random.random((instances, counts.size)) < chances)
    kind = (random.random(gate.size) * (4 ** counts[gate] - 1)).astype(np.int64)
    ends = np.searchsorted(instance, np.arange(instances + 1))
    entries = np.array(firsts, np.int64)[gate] + kind
    return NoiseTable(np.array(rows), operators([])), ErrorPatterns(entries, ends)
