"""Surface-code detectors sampled and decoded by a worker, compared with stim and PyMatching.

stim and PyMatching are called directly in this process. The code has distance 5, 5 rounds and
circuit-level noise of 0.1, 0.3 and 0.5 %. Both ways start from the circuit alone: the error model
and the decoder are made in each run. Rounds alternate, since the machine's speed drifts; the ratio
at a rate is the median over rounds, and the figure is the worst ratio. No circuit is known to the
worker: its text differs each time. A Clifford circuit of 1,000 qubits is timed too, from its text
to its counts; it has 20 layers, each of random one-qubit gates on all qubits, then CX or CZ on
random pairs; the figure is the median over rounds. CPU times are those of client, service and
worker together; on a busy machine they say more.
"""

from __future__ import annotations

import time
from argparse import Namespace
from collections.abc import Callable
from typing import Any

import numpy as np
import psutil

import simenv
from bench.circuits import clifford_text
from bench.harness import Report, installed
from bench.harness.environments import cpu_s
from bench.harness.options import rounds

RATES = (0.001, 0.003, 0.005)
SHOTS, DISTANCE = 100_000, 5
QUBITS, DEPTH, CLIFFORD_SHOTS = 1_000, 20, 10_000
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
        times, errors = [], np.zeros(2)  # of stim and PyMatching, of simenv
        for number in range(rounds):
            circuit = memory(rate, number)
            begin = clock()
            plain = direct(circuit, number)
            middle = clock()
            result: Any = client.run(circuit, shots=SHOTS, seed=number, decoder="pymatching")
            errors += plain, result.logical_errors
            times.append((middle - begin, clock() - middle))
        direct_s, simenv_s = np.moveaxis(times, 1, 0)
        shares.append(np.median(simenv_s / direct_s, axis=0))
        sigmas.append(abs(errors[0] - errors[1]) / max(1.0, errors.sum() ** 0.5))
        wall = [np.median(each[:, 0]) for each in (direct_s, simenv_s)]
        print(f"p = {rate}: direct {wall[0]:.3f} s, simenv {wall[1]:.3f} s;", end=" ")
        rates = errors / rounds / SHOTS
        print(f"logical error rates {rates[0]:.2e} and {rates[1]:.2e}")
    report.at_most("time_share", max(share[0] for share in shares), "wall time, worst rate")
    report.at_most("cpu_share", max(share[1] for share in shares), "CPU time, worst rate")
    report.at_most("sigmas", max(sigmas), "logical error rates apart, standard errors")


def _clifford(report: Report, client: simenv.Client, clock: Clock, rounds: int) -> None:
    times = []
    for number in range(rounds + 1):
        ones = ("h", "s", "sdg", "x", "y", "z")
        text = clifford_text(QUBITS, DEPTH, [7, number], ones, ("cx", "cz"))
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
