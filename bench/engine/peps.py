"""Samples of tensors on a whole QPU's graph, with quimb's of the same tensors in the same run.

Kicked Ising circuits on the lattice of `fez`, 156 qubits, without noise. The state is evolved once;
our shots and quimb's `sample_d2bp` draw from it, each in one thread, in CPU seconds. The error that
the engine states of its counts is printed, and compared with the real one on one hexagon of the
lattice with four tails, whose amplitudes are computed exactly.
"""

from __future__ import annotations

import itertools
import os
import time
import warnings
from argparse import Namespace
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
from qiskit import QuantumCircuit

from bench.circuits import engine_circuit
from bench.harness import SEED, Option, Report, installed
from simulators.engine import Request, RunControl, RunOptions
from simulators.statevector.engine import StatevectorEngine
from simulators.tensornetwork.peps.engine import PepsEngine
from simulators.tensornetwork.peps.evolution import GraphCircuit, GraphLimits
from simulators.tensornetwork.peps.sampling import SampleProgram, sample
from simulators.tensornetwork.peps.simple_update import GraphState

ROWS, LENGTH = 8, 16  # of the lattice of fez
KICK = 0.6
DRAWS = 2_000  # shots by which the real error on a hexagon is computed
Pairs = list[tuple[int, int]]
HEXAGON: Pairs = [*((q, (q + 1) % 12) for q in range(12)), (0, 12), (3, 13), (6, 14), (9, 15)]
OPTIONS = (
    SEED,
    Option("--steps", nargs="+", default=[6, 8], quick=[6], help="of the circuits"),
    Option("--bond", default=16, quick=8, help="largest bond on 156 qubits"),
    Option("--shots", default=200, quick=64, help="of ours"),
    Option("--quimb-shots", default=2, quick=1, help="of quimb's"),
)


def run(options: Namespace) -> Report:
    report = Report("peps", "shots of a kicked Ising circuit by belief propagation, CPU seconds")
    for steps in options.steps:
        _lattice(report, steps, options)
    _hexagon(report, options.seed)
    return report


def _lattice(report: Report, steps: int, options: Namespace) -> None:
    """Shots of the whole lattice, ours and quimb's, from one state."""
    pairs = _pairs()
    circuit = engine_circuit(_kicked(pairs, 1 + max(map(max, pairs)), steps, measure=True))
    begun = time.process_time()
    bare = engine_circuit(_kicked(pairs, circuit.num_qubits, steps, measure=False))
    state = _state(bare, options.bond)
    evolved_s = time.process_time() - begun
    random = np.random.default_rng(options.seed)
    begun = time.process_time()
    sample(
        state, SampleProgram.of(state), options.shots,
        lambda _site, ones: random.random(ones.size) < ones, RunControl(),
    )  # fmt: skip
    shot_s = (time.process_time() - begun) / options.shots
    settings = (("bond", options.bond), ("tolerance", 1.0))
    request = Request(64, options.seed)
    engine, limits = PepsEngine(), RunOptions(settings=settings)
    plan = engine.plan(circuit, None, limits)
    stated = engine.run(plan, circuit, request, limits, RunControl()).row(0).truncation
    print(
        f"{steps} steps, bond {state.bond}: evolution {evolved_s:.1f} s, stated error {stated:.3f}"
    )
    label = f"a shot of {circuit.num_qubits} qubits, {steps} steps"
    report.at_most(f"shot_{steps}_ms", 1e3 * shot_s, f"{label}, ms")
    if installed("quimb"):
        quimb_s = _quimb_shot_s(state, options.quimb_shots)
        print(f"quimb: {quimb_s:.1f} s a shot")
        report.at_most(f"shot_{steps}_of_quimb", shot_s / quimb_s, f"{label}, of quimb's")


def _hexagon(report: Report, seed: int) -> None:
    """The stated error of counts against the real one."""
    circuit = engine_circuit(_kicked(HEXAGON, 16, 6, measure=True))
    bare = engine_circuit(_kicked(HEXAGON, 16, 6, measure=False))
    limits = RunOptions(settings=(("bond", 32), ("tolerance", 1.0)))
    engine = PepsEngine()
    plan = engine.plan(circuit, None, limits)
    stated = engine.run(plan, circuit, Request(64, seed), limits, RunControl()).row(0).truncation
    state = _state(bare, 32)
    random = np.random.default_rng(seed)
    bits, logs = sample(
        state, SampleProgram.of(state), DRAWS,
        lambda _site, ones: random.random(ones.size) < ones, RunControl(),
    )  # fmt: skip
    exact = StatevectorEngine()
    request = Request(0, seed, ("statevector",))
    whole = exact.run(
        exact.plan(bare, None, RunOptions()), bare, request, RunOptions(), RunControl()
    )
    vector = whole.row(0).statevector
    assert vector is not None
    probs = np.abs(vector[bits.astype(np.int64) @ (1 << np.arange(16))]) ** 2
    real = float(np.mean(np.abs(1.0 - probs * np.exp(-logs)))) / 2.0
    print(f"one hexagon, 6 steps, bond {state.bond}: stated {stated:.1e}, real {real:.1e}")
    report.at_most("real_of_stated", real / stated, "real error of counts, of the stated one")


def _pairs() -> Pairs:
    """Couplings of heavy-hex: rows, and a qubit between each two of them at every fourth one."""
    block = LENGTH + 4
    rows = [block * row + k for row in range(ROWS) for k in range(LENGTH)]
    pairs = [(a, b) for a, b in itertools.pairwise(rows) if b == a + 1]
    for row in range(ROWS - 1):
        for k in range(4):
            bridge, place = block * row + LENGTH + k, 4 * k + (3, 1)[row % 2]
            pairs += [(block * row + place, bridge), (bridge, block * (row + 1) + place)]
    return pairs


def _kicked(pairs: Pairs, width: int, steps: int, *, measure: bool) -> QuantumCircuit:
    """Kicked Ising circuit. The last gates on pairs change no bit, and are left out."""
    circuit = QuantumCircuit(width, width if measure else 0)
    for step in range(steps):
        for qubit in range(width):
            circuit.rx(KICK, qubit)
        for one, two in pairs if step < steps - 1 else ():
            circuit.rzz(-np.pi / 2, one, two)
    if measure:
        circuit.measure(range(width), range(width))
    return circuit


def _state(bare: Any, bond: int) -> GraphState:
    limits = GraphLimits(bond, 1e-14, 0, "complex128")
    return GraphCircuit(bare, bare.params).evolved(limits, RunControl())


def _quimb_shot_s(state: GraphState, shots: int) -> float:
    """CPU seconds of a shot of quimb's sampler from the same tensors."""
    import quimb.tensor as qtn
    from quimb.tensor.belief_propagation import sample_d2bp

    network = qtn.TensorNetwork(
        [
            qtn.Tensor(tensor, (f"k{site}", *(f"b{bond}" for bond in near)))
            for site, (tensor, near) in enumerate(zip(state.tensors, state.near, strict=True))
        ]
    )
    inds = [f"k{site}" for site in range(len(state.near))]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of messages that do not converge in 30 iterations
        begun = time.process_time()
        for seed in range(shots):
            sample_d2bp(network, output_inds=inds, seed=seed, max_iterations=30, tol=1e-3)
        return (time.process_time() - begun) / shots
