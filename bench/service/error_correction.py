"""Surface-code detectors sampled and decoded by a worker, compared with stim and PyMatching.

stim and PyMatching are called directly in this process. The code has distance 5, 5 rounds and
circuit-level noise of 0.1, 0.3 and 0.5 %. Both ways start from the circuit alone: the error model
and the decoder are made in each run. Rounds alternate, since the machine's speed drifts; the ratio
at a rate is the median over rounds, and the figure is the worst ratio. No circuit is known to the
worker: its text differs each time. A Clifford circuit of 1,000 qubits is timed too, from its text
to its counts; it has 20 layers, each of random one-qubit gates on all qubits, then CX or CZ on
random pairs; the figure is the median over rounds. CPU times are those of client, service and
worker together; on a busy machine they say more.

    python -m bench run error_correction [--rounds 7]
"""

from __future__ import annotations

import statistics
import time
from argparse import Namespace
from collections.abc import Callable
from typing import Any

import numpy as np
import psutil

import simenv
from bench.harness import Report, installed, rounds
from bench.harness.environments import cpu_s

RATES = (0.001, 0.003, 0.005)
SHOTS, DISTANCE = 100_000, 5
QUBITS, DEPTH, CLIFFORD_SHOTS = 1_000, 20, 10_000
ONE_QUBIT = ("h", "s", "sdg", "x", "y", "z")
OPTIONS = (rounds(7, quick=2),)

Array = np.ndarray[Any, Any]
Clock = Callable[[], Array]


def run(options: Namespace) -> Report:
    report = Report("error_correction", f"error correction: surface code d={DISTANCE}")
    if not (installed("stim") and installed("pymatching")):
        for key in ("time_share", "cpu_share", "sigmas", "clifford_s", "clifford_cpu_s"):
            report.not_measured(key, key, "stim or PyMatching is not installed")
        return report
    with simenv.local(workers=1, durability="accepted") as client:
        pids = [client.status().pid, *(worker.pid for worker in client.workers())]
        others = [psutil.Process(pid) for pid in pids]

        def clock() -> Array:
            """Return wall time, and the CPU time of this process and the others."""
            return np.array([time.perf_counter(), time.process_time() + cpu_s(*others)])

        _decode_rounds(report, client, clock, options.rounds)
        _clifford(report, client, clock, options.rounds)
    return report


def _decode_rounds(report: Report, client: simenv.Client, clock: Clock, rounds: int) -> None:
    shares, sigmas = [], []
    client.run(memory(0.01), shots=100, decoder="pymatching")  # load the engine
    for rate in RATES:
        times: dict[str, list[Any]] = {"direct": [], "simenv": []}
        errors = {"direct": 0, "simenv": 0}
        for number in range(rounds):
            circuit = memory(rate, number)
            begin = clock()
            errors["direct"] += direct(circuit, number)
            middle = clock()
            result: Any = client.run(circuit, shots=SHOTS, seed=number, decoder="pymatching")
            errors["simenv"] += result.logical_errors
            times["direct"].append(middle - begin)
            times["simenv"].append(clock() - middle)
        shares.append(np.median(np.divide(times["simenv"], times["direct"]), axis=0))
        total = sum(errors.values())
        sigmas.append(abs(errors["direct"] - errors["simenv"]) / max(1.0, total**0.5))
        wall = {name: statistics.median(t for t, _ in each) for name, each in times.items()}
        print(f"p = {rate}: direct {wall['direct']:.3f} s, simenv {wall['simenv']:.3f} s; ", end="")
        print(", ".join(f"{name} {n / rounds / SHOTS:.2e}" for name, n in errors.items()))
    report.at_most("time_share", max(share[0] for share in shares), "wall time, worst rate")
    report.at_most("cpu_share", max(share[1] for share in shares), "CPU time, worst rate")
    report.at_most("sigmas", max(sigmas), "logical error rates apart, standard errors")


def _clifford(report: Report, client: simenv.Client, clock: Clock, rounds: int) -> None:
    times = []
    for number in range(rounds + 1):
        text = clifford(number)
        begin = clock()
        result = client.run(text, shots=CLIFFORD_SHOTS, seed=number)
        assert sum(result.counts.values()) == CLIFFORD_SHOTS
        assert result.engine == "stabilizer"
        times.append(clock() - begin)
    wall, cpu = np.median(times[1:], axis=0)  # round 0 loads the engine
    report.at_most("clifford_s", wall, f"{QUBITS} qubits, depth {DEPTH}, text to counts")
    report.at_most("clifford_cpu_s", cpu, "the same in CPU time")


def memory(rate: float, number: int = 0) -> Any:
    """Return a memory experiment; the number changes its text but not its gates."""
    import stim

    circuit = stim.Circuit.generated(
        "surface_code:rotated_memory_z",
        distance=DISTANCE,
        rounds=DISTANCE,
        after_clifford_depolarization=rate,
        after_reset_flip_probability=rate,
        before_measure_flip_probability=rate,
        before_round_data_depolarization=rate,
    )
    circuit.append("SHIFT_COORDS", [], [0, 0, number])
    return circuit


def direct(circuit: Any, seed: int) -> int:
    """Return the number of logical errors, computed by stim and PyMatching alone."""
    import pymatching

    sampler = circuit.compile_detector_sampler(seed=seed)
    events, flips = sampler.sample(SHOTS, separate_observables=True, bit_packed=True)
    model = circuit.detector_error_model(decompose_errors=True)
    matching = pymatching.Matching.from_detector_error_model(model)
    predicted = matching.decode_batch(events, bit_packed_shots=True, bit_packed_predictions=True)
    return int((predicted != flips).any(axis=1).sum())


def clifford(number: int) -> str:
    """Return a random circuit with all qubits measured, as OpenQASM 2."""
    rng = np.random.default_rng([7, number])
    lines = ["OPENQASM 2.0;", 'include "qelib1.inc";', f"qreg q[{QUBITS}];", f"creg c[{QUBITS}];"]
    for _ in range(DEPTH):
        names = rng.integers(0, len(ONE_QUBIT), QUBITS).tolist()
        lines += [f"{ONE_QUBIT[name]} q[{qubit}];" for qubit, name in enumerate(names)]
        pairs = rng.permutation(QUBITS).reshape(-1, 2).tolist()
        kinds = rng.integers(0, 2, len(pairs)).tolist()
        lines += [
            f"{('cx', 'cz')[kind]} q[{first}],q[{second}];"
            for kind, (first, second) in zip(kinds, pairs, strict=True)
        ]
    return "\n".join([*lines, "measure q -> c;"])
