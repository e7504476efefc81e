"""Circuits in native bases of devices: first run and later runs, compared with four libraries.

Qiskit's transpiler made the circuits of 300 to 3,000 gates, at levels 0 to 3, for superconducting
qubits (rz, sx, x with cz or ecr, neighbours in a line) or trapped ions (r or rx, ry, rz with rzz or
rxx); they run with 1,024 shots. Ours is the whole path through a running environment, from a
QuantumCircuit to the dict of counts: the first run of a circuit, compared with first runs of the
libraries, and the median of later runs, compared with theirs. The libraries' circuits are converted
before the clock starts, and optimised where the library has an optimizer; Aer reads the
QuantumCircuit in each run. The fastest variant on each circuit counts, up to 14 qubits those with
one thread, too. Figures are medians over all circuits of a width; the worst is printed too.

Of up to 13 qubits in double precision the whole path is messages between processes, mostly. So two
figures take the place of its ratio: that of the engine alone, as a worker runs it, from a packed
program to packed counts, and the time that the whole path takes beyond the fastest library.

Quantum volume is the square circuit in the gates rz, sx, x and cx, of any length, compared with the
better of Aer with all threads and with one.
"""

from __future__ import annotations

import statistics
from argparse import Namespace
from collections import defaultdict
from typing import Any, NamedTuple

import numpy as np
from qiskit import QuantumCircuit, transpile
from qiskit.transpiler import CouplingMap

from bench.circuits import CIRCUITS, Random, built, wide_circuit
from bench.harness import INSTALL_COMMAND, SEED, THREADS, Option, Report, Times, rounds
from bench.harness.comparison import Peers, Variant, assert_same_circuit
from bench.peers.base import Gate
from bench.peers.libraries import LIBRARIES, PRECISIONS
from bench.peers.simenv_engine import Environment, WorkerTask

# Name: basis gates; True if two-qubit gates act only on neighbours in a line.
BASES = {
    "heron": (["rz", "sx", "x", "cz"], True),
    "eagle": (["rz", "sx", "x", "ecr"], True),
    "ion": (["r", "rz", "rzz"], False),
    "ion_xx": (["rx", "ry", "rz", "rxx"], False),
}
LEVELS = (0, 1, 2, 3)
KINDS = ("random", "qft", "ansatz", "volume", "tfim", "clifford_t")
_LAYER_GATES = {"h": 0, "t": 0, "rx": 1, "ry": 1, "rz": 1, "u": 3}
_PAIR_GATES = {"cx": 0, "cz": 0, "cp": 1, "rzz": 1}
GATES = 300, 3_000  # least and most
CAP_S = 60.0  # of one run
NARROW = 13  # qubits of the widest circuits with goals of their own
ONE_THREAD = 14  # qubits of the widest circuits for which one thread may be the fastest
LEFT_OUT = ("qulacs f64", "qulacs f64 fused 4")
_TAKEN = tuple(each for each in LIBRARIES if each.name not in LEFT_OUT)
PATHS = tuple(Variant(f"path {bits}", Environment, (name,)) for bits, name in PRECISIONS)
ENGINE = "engine f64"
VARIANTS = (
    *PATHS,
    Variant(ENGINE, WorkerTask, widest=NARROW),
    *(each._replace(widest=ONE_THREAD) if each.threads else each for each in _TAKEN),
    *(
        each._replace(name=f"{each.name}, 1 thread", threads=1, widest=ONE_THREAD)
        for each in _TAKEN
        if each.name.startswith("qulacs") and not each.threads
    ),
)
VOLUME_VARIANTS = (PATHS[0], *(each for each in LIBRARIES if each.name.startswith("aer f64")))
VOLUME_BASIS = ["rz", "sx", "x", "cx"]
OPTIONS = (
    Option("--qubits", default="10,11,12,13,14,16,18,20,22", quick="10,13,16"),
    Option("--volume", default="12,16,20", quick="12", help="qubits of quantum volume"),
    Option("--circuits", default=8, quick=3),
    rounds(5, quick=3),
    THREADS,
    SEED,
)


class NativeCircuit(NamedTuple):
    """A transpiled circuit: its origin as text, and its gates."""

    title: str
    num_qubits: int
    gates: list[Gate]


def run(options: Namespace) -> Report:
    label = f"{options.threads} threads, seed {options.seed}, ms"
    report = Report("native_basis", f"transpiled circuits: {label}")
    if options.qubits:
        _compare_circuits(report, options)
    if options.volume:
        _compare_volume(report, options)
    return report


def _compare_circuits(report: Report, options: Namespace) -> None:
    with Peers(VARIANTS, options.threads) as peers:
        for width in map(int, options.qubits.split(",")):
            # Loading that happens once in a process is not timed.
            _measure(peers, native_circuit(width, options.seed - 1), options.rounds)
            values: Times = defaultdict(list)
            for number in range(options.circuits):
                circuit = native_circuit(width, options.seed + number)
                times = _measure(peers, circuit, options.rounds)
                for name, value in _compared(circuit, times).items():
                    values[name].append(value)
            for name, each in values.items():
                goal, of = _goal(width, name)
                label = f"{width} qubits {name}, {of} the best peer (worst {max(each):.2f})"
                report.at_most(goal, statistics.median(each), label)
            for precision, _ in PRECISIONS:
                if not any(precision in name for name in values):
                    goal, _ = _goal(width, f"path {precision}")
                    report.not_measured(goal, f"{width} qubits {precision}", "no peer ran")
        for library in peers.missing:
            goal, _ = _goal(NARROW, "path f32")
            report.not_measured(goal, library, f"type {INSTALL_COMMAND}; it may be the fastest")


def _goal(width: int, name: str) -> tuple[str, str]:
    """Return a figure's goal, and its relation to the best peer."""
    if width > NARROW:
        return "wide_of_best", "of"
    if name.startswith(ENGINE):
        return "narrow_engine_of_best", "of"
    return ("narrow_beyond_ms", "ms beyond") if "f64" in name else ("narrow_of_best", "of")


def _compare_volume(report: Report, options: Namespace) -> None:
    with Peers(VOLUME_VARIANTS, options.threads) as peers:
        for width in map(int, options.volume.split(",")):
            _measure(peers, volume_circuit(width, options.seed - 1), options.rounds)
            times: dict[str, list[tuple[float, float]]] = defaultdict(list)
            for number in range(options.rounds):  # each circuit costs Aer seconds
                circuit = volume_circuit(width, options.seed + number)
                for name, pair in _measure(peers, circuit, 1).items():
                    times[name].append(pair)
            goal = f"volume_{width}_of_aer"
            ours = times.pop(PATHS[0].name)
            for column, turn in enumerate(("first", "again")):
                theirs = [
                    statistics.median(pair[column] for pair in each) for each in times.values()
                ]
                mine = statistics.median(pair[column] for pair in ours)
                report.share(goal, mine, theirs, f"quantum volume, {width} qubits {turn}, of Aer")


def _measure(peers: Peers, circuit: NativeCircuit, rounds: int) -> dict[str, tuple[float, float]]:
    """Return the seconds of each peer's first run of a circuit, and the median of its next runs."""
    entries: dict[str, tuple[float, float]] = {}
    means: dict[str, Any] = {}
    for peer in peers.prepared(circuit.num_qubits, [circuit.gates]):
        first = peer.times(1, CAP_S)
        number = rounds if first and first[0] < 1.0 else 1
        repeat = "run_planned" if peer.name == ENGINE else "run"
        again = peer.times(number, CAP_S * number, repeat)
        if first and again:
            means[peer.name] = peer.correlations()
            entries[peer.name] = first[0], statistics.median(again)
    assert_same_circuit(means)
    return entries


def _compared(circuit: NativeCircuit, times: dict[str, tuple[float, float]]) -> dict[str, float]:
    """Return our times relative to the best variant of each precision, or in ms beyond it where the
    goal says so; print the times."""
    values: dict[str, float] = {}
    cells = []
    for precision, _ in PRECISIONS:
        own = (f"path {precision}", f"engine {precision}")
        peers = {
            name: each for name, each in times.items() if precision in name and name not in own
        }
        for name in own if peers else ():
            for column, turn in enumerate(("first", "again") if name in times else ()):
                theirs, best = min((each[column], name) for name, each in peers.items())
                ours = times[name][column]
                is_ratio = _goal(circuit.num_qubits, name)[1] == "of"
                values[f"{name} {turn}"] = ours / theirs if is_ratio else 1e3 * (ours - theirs)
                cells.append(f"{name} {turn} {1e3 * ours:.2f}, {best} {1e3 * theirs:.2f}")
    print(f"{circuit.title}, {len(circuit.gates)} gates: {', '.join(cells)}", flush=True)
    return values


def volume_circuit(num_qubits: int, seed: int) -> NativeCircuit:
    """Return a transpiled circuit of quantum volume, all of it."""
    source = built(num_qubits, wide_circuit("volume", num_qubits, seed))
    result = transpile(source, basis_gates=VOLUME_BASIS, seed_transpiler=seed)
    return NativeCircuit(f"{num_qubits} qubits volume", num_qubits, _gates(result))


def native_circuit(num_qubits: int, seed: int) -> NativeCircuit:
    """Return a transpiled circuit; the seed determines kind, basis, level and number of gates."""
    random = np.random.default_rng([seed, num_qubits])
    basis = list(BASES)[int(random.integers(len(BASES)))]
    kind = KINDS[int(random.integers(len(KINDS)))]
    level = int(random.choice(LEVELS))
    wanted = int(random.integers(*GATES))
    names, is_line = BASES[basis]
    gates: list[Gate] = []
    while len(gates) < wanted:
        if kind in CIRCUITS:
            source = wide_circuit(kind, num_qubits, int(random.integers(2**31)))
        else:
            source = _random_gates(num_qubits, random)
        result = transpile(
            built(num_qubits, source),
            basis_gates=names,
            coupling_map=CouplingMap.from_line(num_qubits) if is_line else None,
            optimization_level=level,
            seed_transpiler=seed,
        )
        gates += _gates(result)
    title = f"{num_qubits} qubits {kind} {basis} {level}"
    return NativeCircuit(title, num_qubits, gates[: GATES[1]])


def _gates(circuit: QuantumCircuit) -> list[Gate]:
    """Return the gates of a QuantumCircuit without its barriers."""
    places = {bit: place for place, bit in enumerate(circuit.qubits)}
    return [
        (
            each.operation.name,
            tuple(places[bit] for bit in each.qubits),
            tuple(map(float, each.operation.params)),
        )
        for each in circuit.data
        if each.operation.name != "barrier"
    ]


def _random_gates(num_qubits: int, random: Random) -> list[Gate]:
    """Return layers of random gates on one qubit and on random pairs."""
    results: list[Gate] = []
    for _ in range(6):
        for table, size in ((_LAYER_GATES, 1), (_PAIR_GATES, 2)):
            order = random.permutation(num_qubits).tolist()
            for first in range(0, num_qubits - size + 1, size):
                name = list(table)[int(random.integers(len(table)))]
                angles = random.uniform(-np.pi, np.pi, table[name]).tolist()
                results.append((name, tuple(order[first : first + size]), tuple(angles)))
    return results
