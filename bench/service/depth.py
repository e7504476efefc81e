"""Deep circuits on emulated devices by truncated density operators, with their measured errors."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import networkx
import numpy as np
from qiskit import QuantumCircuit
from qiskit.quantum_info import SparsePauliOp

import simenv
from bench.circuits import Pairs, built, device_pairs, disjoint_layers, measured, qaoa
from bench.harness import SEED, Report, benchmark, timed
from bench.peers.base import Gate
from simenv.client.client import Client
from simenv.client.result import Result

DEVICE, CHIP, SHOTS, LINE = "fez", "kyiv", 1_000, 59
NARROW, LATTICE = 12, 16  # qubits of circuits whose values are compared
TRAJECTORIES = 2_000  # of the exact side
COVERED = 2.0  # standard errors of the exact side by which a true error is uncertain
Random = np.random.Generator


@benchmark(
    seed=SEED, layers=([16, 30, 50], [16]), cases=(200, 6), line=(50, 16),
    widths=([30, 60, 100], [30]), graphs=([20, 30, 40], [20]), chip=(30, 16),
)  # fmt: skip
def depth(report: Report, options: Namespace) -> None:
    """Counts of deep circuits with every calibrated channel, with the error that they state.

    Layers of random gates on each qubit and cz on disjoint pairs of `fez`, 1,000 shots, submission
    to counts: on a path of 59 qubits, and on parts of `--widths` and all coupled qubits with bonds
    of 16 and 32. QAOA of one layer on 3-regular graphs of `--graphs` qubits by default options, 20
    layers on 30 qubits with five measurements whose results decide about gates, and `--chip` layers
    on all qubits of `kyiv`, whose gate is ecr. Then values on one and two qubits of narrower
    circuits of random depth, noise and shape, compared with trajectories of state vectors: the
    share of them whose true error is within the stated one, and the root mean square of the true
    errors.
    """
    random, pairs = np.random.default_rng(options.seed), device_pairs(DEVICE, working=True)
    lattice = networkx.Graph(pairs)
    lattice = lattice.subgraph(max(networkx.connected_components(lattice), key=len))
    everyone = sorted(lattice)
    with simenv.local(workers=1) as client:
        client.run(_circuit([0, 1], [(0, 1)], 2, random), device=DEVICE, shots=10, engine="dmt")
        path = _path(lattice, LINE)
        line = _circuit(path, list(pairwise(path)), options.line, random)
        _timed(report, client, line, "line_s", 0, random)
        for width in (*options.widths, len(everyone)):
            chosen = [everyone[0], *(q for _, q in networkx.bfs_edges(lattice, everyone[0]))][
                :width
            ]
            edges = sorted(lattice.subgraph(chosen).edges)
            for layers in options.layers:
                circuit = _circuit(chosen, edges, layers, random)
                for bond in (16, 32):
                    key = f"brick_{width}x{layers}_bond_{bond}_s"
                    _timed(report, client, circuit, key, bond, random)
        for width in options.graphs:
            graph = networkx.random_regular_graph(3, width, int(random.integers(2**31)))
            circuit = measured(width, qaoa(width, graph.edges, 1, *random.uniform(0.2, 1.2, 2)))
            _timed(report, client, circuit, f"qaoa_{width}_s", -1, random)
        _timed(report, client, _fed_forward(lattice, random), "feed_forward_s", 0, random)
        chip = device_pairs(CHIP, working=True)
        circuit = _circuit(sorted({q for pair in chip for q in pair}), chip, options.chip, random)
        _timed(report, client, circuit, f"{CHIP}_x{options.chip}_s", 16, random, CHIP)
        found = [_case(client, lattice, random, k) for k in range(options.cases)]
    covered, errors = zip(*found, strict=True)
    report.at_least("covered", float(np.mean(covered)))
    report.at_most("true_rms", float(np.sqrt(np.mean(np.square(errors)))))


def _timed(
    report: Report, client: Client, circuit: QuantumCircuit, key: str, bond: int, random: Random,
    device: str = DEVICE,
) -> None:  # fmt: skip
    """Report the seconds of a circuit's counts, and print the error that they state. `bond` -1:
    default options."""
    how: dict[str, Any] = {
        "device": device, "shots": SHOTS, "seed": int(random.integers(2**32))
    }  # fmt: skip
    if bond >= 0:
        how |= {"engine": "dmt", "options": {"bond": bond, "tolerance": 1.0}}
    forecast_s = client.explain(circuit, **how).engines[0].seconds
    seconds, result = timed(partial(client.run, circuit, **how))
    assert sum(result.counts.values()) == SHOTS
    print(f"{key}: forecast {forecast_s:.1f} s; {result.remark}; {result.error}")
    report.seconds(key, seconds)


def _case(client: Client, lattice: Any, random: Random, number: int) -> tuple[bool, float]:
    """Return whether the stated error of a circuit covers its true one, and the true one."""
    is_line = number % 2 == 0
    qubits = _path(lattice, NARROW) if is_line else _hexagon(lattice, LATTICE, random)
    pairs = sorted(lattice.subgraph(qubits).edges)
    layers, factor = int(random.integers(4, 41)), float(random.choice([0.5, 1.0, 2.0]))
    circuit = _circuit(qubits, pairs, layers, random).remove_final_measurements(inplace=False)
    if number % 3 == 2:  # a measurement before the end that decides about a gate
        dynamic = QuantumCircuit(circuit.num_qubits, 1)
        dynamic.compose(circuit, inplace=True)
        dynamic.measure(qubits[2], 0)
        with dynamic.if_test((dynamic.clbits[0], 1)):
            dynamic.x(qubits[3])
        again = _circuit(qubits, pairs, 2, random).remove_final_measurements(inplace=False)
        circuit = dynamic.compose(again, range(again.num_qubits))
    width = circuit.num_qubits
    strings = [("Z", [q]) for q in qubits] + [("ZZ", list(pair)) for pair in pairs]
    sums = [SparsePauliOp.from_sparse_list([(text, q, 1.0)], width) for text, q in strings]
    how: dict[str, Any] = {
        "device": DEVICE, "noise": {"gate": factor, "qubit.relaxation": factor},
        "outputs": ("expectation",), "observables": sums, "seed": int(random.integers(2**32)),
    }  # fmt: skip
    ours = client.run(
        circuit, shots=None, engine="dmt", options={"bond": 32, "tolerance": 1.0}, **how
    )
    exact = client.run(circuit, shots=TRAJECTORIES, engine="statevector", **how)
    off = np.array(ours.expectations) - np.array(exact.expectations)
    squares = off**2 - np.array(exact.std_errors) ** 2
    spread = float(np.std(squares) / np.sqrt(squares.size))
    true = float(np.sqrt(max(0.0, np.mean(squares))))
    stated = _stated(ours)
    print(f"{layers} layers, noise x {factor}: true {true:.1e}, stated {stated:.1e}")
    return np.mean(squares) - COVERED * spread <= stated**2, true


def _stated(result: Result) -> float:
    if result.error is None:
        return 0.0
    local = result.error["local"]
    return local["rms"] + local["standard_error"]


def _circuit(qubits: Sequence[int], pairs: Pairs, layers: int, random: Random) -> QuantumCircuit:
    """Return layers of random gates on the qubits, each with one of the sets of disjoint pairs in
    turn, in native gates, all qubits measured."""
    sets = disjoint_layers([(min(pair), max(pair)) for pair in pairs])
    gates: list[Gate] = []
    for k in range(layers + 1):
        for qubit in qubits:
            gates += _turned(qubit, random)
        gates += [("cz", pair, ()) for pair in (sets[k % len(sets)] if k < layers else ())]
    circuit = built(max(qubits) + 1, gates, len(qubits))
    circuit.measure(qubits, range(len(qubits)))
    return circuit


def _fed_forward(lattice: Any, random: Random) -> QuantumCircuit:
    """Return 20 layers on 30 qubits; after every fourth a qubit is measured, and its result decides
    about x on a neighbour."""
    path = _path(lattice, 30)
    circuit = QuantumCircuit(max(path) + 1, len(path) + 5)
    for part in range(5):
        layers = _circuit(path, list(pairwise(path)), 4, random)
        layers.remove_final_measurements()
        circuit.compose(layers, range(layers.num_qubits), inplace=True)
        at, bit = 3 + 5 * part, len(path) + part
        circuit.measure(path[at], bit)
        with circuit.if_test((circuit.clbits[bit], 1)):
            circuit.x(path[at + 1])
    circuit.measure(path, range(len(path)))
    return circuit


def _turned(qubit: int, random: Random) -> Iterator[Gate]:
    """Yield a random gate on a qubit as rz, sx, rz, sx, rz."""
    for k, angle in enumerate(random.uniform(0, 2 * np.pi, 3).tolist()):
        yield "rz", (qubit,), (angle,)
        if k < 2:
            yield "sx", (qubit,), ()


def _path(lattice: Any, length: int) -> list[int]:
    """Return a path of neighbours that touches itself nowhere else, by depth-first search."""
    for start in sorted(lattice):
        path: list[int] = [start]
        waiting = [iter(sorted(lattice[start]))]
        tries = 0
        while waiting and len(path) < length and tries < 20_000:
            tries += 1
            found = next(waiting[-1], None)
            if found is None:
                waiting.pop()
                path.pop()
            elif found not in path and len([q for q in lattice[found] if q in path]) == 1:
                path.append(found)
                waiting.append(iter(sorted(lattice[found])))
        if len(path) == length:
            return path
    raise ValueError(f"no path of {length} qubits")


def _hexagon(lattice: Any, size: int, random: Random) -> list[int]:
    """Return a cycle of the lattice with its neighbours, at most so many qubits."""
    cycles = [each for each in networkx.minimum_cycle_basis(lattice) if len(each) <= size]
    cycle = cycles[int(random.integers(len(cycles)))]
    around = [q for each in cycle for q in lattice[each] if q not in cycle]
    return [*cycle, *dict.fromkeys(around)][:size]
