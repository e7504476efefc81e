"""Searches for contraction paths, compared with those of cotengra."""

from __future__ import annotations

import importlib.util
import math
from argparse import Namespace
from collections.abc import Iterator
from functools import partial

import cotengra
import numpy as np

from bench.harness import Report, benchmark, timed
from bench.harness.kernels import load_kernels
from simulators.tensornetwork.contraction.greedy import GreedySearch

Inputs = list[tuple[int, ...]]
PYTHON_TRIALS = 4  # of cotengra's search without its compiled part: they are slow


@benchmark(seed=1, trials=(128, 32))
def contraction_paths(report: Report, options: Namespace) -> None:
    """Random greedy searches, the same number of trials by simenv and by cotengra.

    Networks of amplitudes of line, lattice and all-to-all circuits of 16 to 150 qubits. The peer is
    cotengra with cotengrust where that is installed, which no extra does: its wheel is AGPL-3.0; or
    else cotengra's own search in Python. Time of one trial, and multiplications of the best path.
    """
    load_kernels(all_kernels=True)
    compiled = importlib.util.find_spec("cotengrust") is not None
    print(f"peer: cotengra {'with cotengrust' if compiled else 'in Python'}")
    times, costs = [], []
    for name, inputs in _networks(np.random.default_rng(options.seed)):
        symbols = [tuple(cotengra.get_symbol(index) for index in each) for each in inputs]
        sizes = {symbol: 2 for each in symbols for symbol in each}
        trials = options.trials if compiled else PYTHON_TRIALS
        peer = cotengra.RandomGreedyOptimizer(
            max_repeats=trials, seed=options.seed, accel=compiled, parallel=False
        )
        peer_s, _ = timed(partial(peer.ssa_path, symbols, (), sizes))
        GreedySearch(inputs, (), options.seed).run(1)
        search = GreedySearch(inputs, (), options.seed)
        own_s, _ = timed(partial(search.run, options.trials))
        search = GreedySearch(inputs, (), options.seed)
        search.run(trials)  # as many as the peer's, for the costs
        own_ms, peer_ms = own_s / options.trials * 1e3, peer_s / trials * 1e3
        own_flops = math.log10(search.operations)
        print(
            f"{name:16}{len(inputs):6} tensors: {own_ms:.2f} ms a trial, peer {peer_ms:.2f};"
            f" 10^{own_flops:.2f} multiplications, peer 10^{peer.best_flops:.2f}"
        )
        times.append(own_ms / peer_ms)
        costs.append(10 ** (own_flops - peer.best_flops))
    report.at_most("of_time", max(times))
    report.at_most("of_cost", float(np.exp(np.mean(np.log(costs)))))


def _networks(random: np.random.Generator) -> Iterator[tuple[str, Inputs]]:
    for qubits, layers in ((40, 12), (150, 20)):
        pairs = [[(q, q + 1) for q in range(k % 2, qubits - 1, 2)] for k in range(layers)]
        yield f"line {qubits} x {layers}", _amplitude(qubits, pairs)
    for side, layers in ((4, 8), (6, 12), (8, 10)):
        yield (
            f"lattice {side} x {layers}",
            _amplitude(side**2, [_of_lattice(side, k) for k in range(layers)]),
        )
    for qubits, layers in ((40, 6), (100, 4)):
        orders = [random.permutation(qubits).tolist() for _ in range(layers)]
        pairs = [list(zip(order[::2], order[1::2], strict=True)) for order in orders]
        yield f"pairs {qubits} x {layers}", _amplitude(qubits, pairs)


def _of_lattice(side: int, layer: int) -> list[tuple[int, int]]:
    """Couplings of one of the four patterns of a lattice."""
    along, first = layer % 4 < 2, layer % 2
    near = 1 if along else side
    return [
        (side * y + x, side * y + x + near)
        for y in range(side)
        for x in range(side)
        if (x if along else y) % 2 == first and (x if along else y) + 1 < side
    ]


def _amplitude(qubits: int, layers: list[list[tuple[int, int]]]) -> Inputs:
    """Tensors of an amplitude: one for each qubit at both ends, and one for each gate."""
    wires, count = list(range(qubits)), qubits
    inputs: Inputs = [(wire,) for wire in wires]
    for a, b in (pair for layer in layers for pair in layer):
        inputs.append((wires[a], wires[b], count, count + 1))
        wires[a], wires[b] = count, count + 1
        count += 2
    return [*inputs, *((wire,) for wire in wires)]
