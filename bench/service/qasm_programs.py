"""Long OpenQASM programs: a wide Clifford circuit and a dynamic circuit.

A random Clifford circuit on 1,000 qubits, 20 layers deep, is written as OpenQASM 2; the clock runs
from that text to the dict of counts, with 10,000 shots through a running environment. stim samples
the same circuit in this process: the time without parsing, storage and dicts. The dynamic program
is a search with feed-forward on 18 qubits: `--dynamic FILE` names it (none comes with the project),
else it is left out.

    python -m bench run qasm_programs [--rounds 5] [--dynamic FILE]
"""

from __future__ import annotations

import statistics
import time
from argparse import Namespace
from pathlib import Path

import numpy as np

import simenv
from bench.harness import Option, Report, installed, rounds
from simenv.client.client import Client

QUBITS, DEPTH, SHOTS = 1_000, 20, 10_000
ONES = ("h", "s", "sdg", "x", "y", "z", "sx", "id")
STIM = {"h": "H", "s": "S", "sdg": "S_DAG", "x": "X", "y": "Y", "z": "Z", "sx": "SQRT_X", "id": "I"}
OPTIONS = (rounds(5, quick=2), Option("--dynamic", type=Path))


def run(options: Namespace) -> Report:
    report = Report("qasm_programs", f"programs: {SHOTS:,} shots, text in, counts out")
    times: dict[str, list[float]] = {"clifford": [], "stim": [], "dynamic": []}
    with simenv.local(workers=2) as client:
        wide = installed("stim")  # the peer, and a dependency of the stabilizer engine
        if wide:
            _run(client, _text(_layers(3)), 1)  # warm-up
        for seed in range(options.rounds):
            if wide:
                layers = _layers(seed + 10)
                seconds, engine = _run(client, _text(layers), seed)
                assert engine == "stabilizer", engine
                times["clifford"].append(seconds)
                times["stim"].append(_stim(layers))
            if options.dynamic is not None:
                times["dynamic"].append(_run(client, options.dynamic, seed)[0])
    if times["stim"]:
        print(f"stim in process, packed bits: {statistics.median(times['stim']):.3f} s")
    label = f"random Clifford, {QUBITS} qubits, depth {DEPTH}, s"
    if times["clifford"]:
        report.at_most("clifford_s", statistics.median(times["clifford"]), label)
    else:
        report.not_measured("clifford_s", label, "stim is not installed")
    if times["dynamic"]:
        label = f"{options.dynamic.stem}, s"
        report.at_most("dynamic_s", statistics.median(times["dynamic"]), label)
    return report


def _layers(seed: int) -> list[list[tuple[str, tuple[int, ...]]]]:
    """Return layers of random one-qubit gates on all qubits, then cx on random pairs."""
    rng = np.random.default_rng(seed)
    layers = []
    for _ in range(DEPTH):
        layer: list[tuple[str, tuple[int, ...]]] = [
            (ONES[kind], (qubit,)) for qubit, kind in enumerate(rng.integers(0, len(ONES), QUBITS))
        ]
        pairs = rng.permutation(QUBITS).reshape(-1, 2)
        layer += [("cx", (int(a), int(b))) for a, b in pairs]
        layers.append(layer)
    return layers


def _text(layers: list[list[tuple[str, tuple[int, ...]]]]) -> str:
    lines = ["OPENQASM 2.0;", 'include "qelib1.inc";', f"qreg q[{QUBITS}];", f"creg c[{QUBITS}];"]
    for layer in layers:
        lines += [f"{name} {','.join(f'q[{k}]' for k in qubits)};" for name, qubits in layer]
    return "\n".join([*lines, "measure q -> c;", ""])


def _run(client: Client, program: str | Path, seed: int) -> tuple[float, str]:
    begin = time.perf_counter()
    result = client.run(program, shots=SHOTS, seed=seed)
    counts = result.counts
    seconds = time.perf_counter() - begin
    assert sum(counts.values()) == SHOTS
    return seconds, result.engine


def _stim(layers: list[list[tuple[str, tuple[int, ...]]]]) -> float:
    import stim

    begin = time.perf_counter()
    circuit = stim.Circuit()
    for layer in layers:
        for name, qubits in layer:
            circuit.append("CX" if name == "cx" else STIM[name], qubits)
    circuit.append("M", range(QUBITS))
    circuit.compile_sampler(seed=1).sample_bit_packed(SHOTS)
    return time.perf_counter() - begin
