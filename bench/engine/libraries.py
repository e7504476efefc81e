"""Circuits of gates on many libraries: wide ones, native ones, random matrices, observables."""

from __future__ import annotations

import statistics
from argparse import Namespace
from collections import defaultdict
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from qiskit import QuantumCircuit, transpile
from qiskit.transpiler import CouplingMap
from scipy.stats import unitary_group

from bench.circuits import CIRCUITS, built, random_gates, wide_circuit
from bench.harness import (
    INSTALL_COMMAND,
    SEED,
    THREADS,
    Report,
    Times,
    benchmark,
    medians,
)  # fmt: skip
from bench.harness.timing import Bandwidth
from bench.peers.base import Gate
from bench.peers.libraries import LIBRARIES, PRECISIONS
from bench.peers.observables import AerObservables, LightningObservables, WorkerObservables
from bench.peers.process import IsolatedPeer, Peers, Variant, assert_same_circuit
from bench.peers.simenv_engine import Environment, WorkerTask

CAP_S, BUDGET_S = 300.0, 30.0  # of one run; of a library and circuit
PATHS = tuple(Variant(f"path {bits}", Environment, (name,)) for bits, name in PRECISIONS)

# --- wide -----------------------------------------------------------------------------------------

SMALL, SMALL_CIRCUITS, SMALL_CALLS = 10, 8, 64  # qubits, up to which many calls are timed
ONCE = 24  # qubits from which only one round is run
LONG_S = 5.0  # a library's first run that takes longer is timed: loading is no part that counts
AUTO, CLIFFORD = "ours stabilizer", ("ghz",)  # which `auto` chooses for wide Clifford circuits
SWEPT = ("qft", "ansatz")  # circuits whose sweeps are compared with the memory's speed
WIDE = (
    Variant("ours f64", WorkerTask, ("double",)),
    Variant("ours f32", WorkerTask, ("single",)),
    Variant(AUTO, WorkerTask, ("double", "stabilizer")),
    *(each for each in LIBRARIES if each.name != "qulacs f64 fused 2"),
)


@benchmark(qubits=([10, 16, 20, 24], [10, 16, 20]), circuits=list(CIRCUITS), rounds=(5, 3),
           threads=THREADS, seed=SEED)  # fmt: skip
def wide(report: Report, options: Namespace) -> None:
    """Wide circuits on one machine: the statevector engine, Aer, qulacs, Lightning and qsim.

    1,024 shots. Ours is a worker's task, the structure seen for the first time; the libraries'
    circuits are converted before the clock starts. Each runs in a process of its own with all
    threads. The first round tries all variants of a library, later ones use the best; circuits of a
    round have the same new seed. A library that has used up its budget on a circuit has fewer
    rounds. Memory is read and written in the same rounds: no sweep of the state can be faster.
    """
    variants = [each for each in WIDE if options.threads > 1 or not each.threads]
    with (
        Peers(variants, options.threads) as peers,
        Peers([Variant("memory", Bandwidth)], options.threads) as memories,
    ):
        (memory,) = memories
        for width in options.qubits:
            for name in options.circuits:
                times, speeds = _wide_case(peers, memory, name, width, options)
                best = dict(_best_variants(times))
                print(f"{width} qubits {name}, ms: "
                      + ", ".join(f"{k} {1e3 * v:.3g}" for k, v in best.items()))  # fmt: skip
                _ratios(report, name, width, best)
                if name in SWEPT and width == ONCE:
                    _sweeps(report, peers, name, best, statistics.median(speeds))


def _wide_case(
    peers: Peers, memory: IsolatedPeer, name: str, width: int, options: Namespace
) -> tuple[Times, list[float]]:
    """Return the seconds of each variant in each round, and the memory's bytes per second."""
    small = width <= SMALL
    calls = SMALL_CALLS if small else 1
    times: Times = defaultdict(list)
    speeds: list[float] = []
    chosen = [each for each in peers if each.name != AUTO or (name in CLIFFORD and not small)]
    for turn in range(1 if width >= ONCE else options.rounds):
        seeds = [options.seed + 1_000 * turn + k for k in range(SMALL_CIRCUITS if small else 1)]
        circuits = [wide_circuit(name, width, seed) for seed in seeds]
        means: dict[str, Any] = {}
        for peer in chosen:
            ours = peer.name.startswith("ours")
            over = not ours and sum(times.get(peer.name, ())) > BUDGET_S
            if over or not peer.prepare(width, circuits):
                continue
            first = [] if turn else peer.times(1, CAP_S)  # load and allocate
            long = not ours and first and first[0] > LONG_S
            if result := first if long else peer.times(calls, CAP_S):
                times[peer.name].append(statistics.median(result))
                if ours:
                    planned = peer.times(calls, CAP_S, "run_planned")
                    times[f"{peer.name} planned"].append(statistics.median(planned))
                if not turn:
                    means[peer.name] = peer.correlations()
        if not turn:
            assert_same_circuit(means)
            fastest: dict[str, IsolatedPeer] = {}  # variant of each library and precision
            for each in sorted((p for p in peers if p.name in times), key=lambda p: times[p.name]):
                fastest.setdefault(_kind(each.name), each)
            chosen = [peer for peer in chosen if peer in fastest.values()]
        speeds.append(memory.call("bytes_per_second"))
    return times, speeds


def _kind(name: str) -> str:
    return " ".join(name.split()[:2])


def _best_variants(times: Times) -> Iterator[tuple[str, float]]:
    """Yield the medians of our variants and of each library's best one, the best of a kind last."""
    for name, median in sorted(medians(times).items(), key=lambda each: -each[1]):
        yield name if name.startswith("ours") else _kind(name), median


def _ratios(report: Report, name: str, width: int, best: dict[str, float]) -> None:
    where, double, single = f"{width} qubits {name}", best["ours f64"], best["ours f32"]
    if AUTO in best:
        where = f"{where} (by the stabilizer engine, as auto has it)"
        double = single = best[AUTO]

    def compare(goal: str, ours: float, peer: str) -> None:
        times = [best[peer]] if peer in best else []
        report.share(goal, ours, times, f"{where}, of {peer}", "nothing of it ran to its end")

    if width <= SMALL:
        compare("aer_small", double, "aer f64")
        compare("qulacs_small", double, "qulacs f64")
    elif width == 16:
        for bits, ours in (("f64", double), ("f32", single)):
            peers = {k: v for k, v in best.items() if k.endswith(bits) and "ours" not in k}
            compare("best_16", ours, min(peers, key=peers.__getitem__, default=bits))
    elif width in (20, 24):
        compare(f"aer_{width}", double, "aer f64")
        compare(f"qsim_{width}", single, "qsim f32")
        if width == 24:
            compare("qsim_qft_double" if name == "qft" else "qsim_double", double, "qsim f32")


def _sweeps(report: Report, peers: Peers, name: str, best: dict[str, float], speed: float) -> None:
    """Report the bytes of our sweeps relative to the bytes that memory moves in the same time."""
    for peer in peers:
        if peer.name.startswith("ours f") and (swept := peer.call("swept")) is not None:
            number, moved = swept
            share = 100 * moved / speed / best[f"{peer.name} planned"]
            what = f"{ONCE} qubits {name} {peer.name}"
            print(f"{what}: {number} passes, {moved / 2**30:.2f} GiB; {speed / 1e9:.1f} GB/s")
            report.at_least("sweep_percent", share, what)


# --- native bases ---------------------------------------------------------------------------------

BASES = {  # basis gates; True: two-qubit gates act only on neighbours in a line
    "heron": (["rz", "sx", "x", "cz"], True),
    "eagle": (["rz", "sx", "x", "ecr"], True),
    "ion": (["r", "rz", "rzz"], False),
    "ion_xx": (["rx", "ry", "rz", "rxx"], False),
}
KINDS = ("random", "qft", "ansatz", "volume", "tfim", "clifford_t")
GATES = 300, 3_000  # least and most
NATIVE_CAP_S = 60.0  # of one run
NARROW = 13  # qubits of the widest circuits with goals of their own
ONE_THREAD = 14  # qubits of the widest circuits for which one thread may be the fastest
ENGINE = "engine f64"
_TAKEN = [each for each in LIBRARIES if each.name not in ("qulacs f64", "qulacs f64 fused 4")]
NATIVE = (
    *PATHS,
    Variant(ENGINE, WorkerTask, widest=NARROW),
    *(each._replace(widest=ONE_THREAD) if each.threads else each for each in _TAKEN),
    *(each._replace(name=f"{each.name}, 1 thread", threads=1, widest=ONE_THREAD)
      for each in _TAKEN if each.name.startswith("qulacs") and not each.threads),
)  # fmt: skip
VOLUME = (PATHS[0], *(each for each in LIBRARIES if each.name.startswith("aer f64")))


class NativeCircuit(NamedTuple):
    """A transpiled circuit: its origin as text, and its gates."""

    title: str
    num_qubits: int
    gates: list[Gate]


@benchmark(qubits=([10, 11, 12, 13, 14, 16, 18, 20, 22], [10, 13, 16]), volume=([12, 16, 20], [12]),
           circuits=(8, 3), rounds=(5, 3), threads=THREADS, seed=SEED)  # fmt: skip
def native_basis(report: Report, options: Namespace) -> None:
    """Circuits in native bases of devices: first run and later runs, compared with four libraries.

    Qiskit's transpiler made the circuits of 300 to 3,000 gates, at levels 0 to 3, for
    superconducting qubits or trapped ions; 1,024 shots. Ours is the whole path through a running
    environment: the first run, compared with first runs of the libraries, and the median of later
    ones. The libraries' circuits are converted before the clock starts, and optimised where the
    library can; the fastest variant on each circuit counts. Figures are medians over all circuits
    of a width. Up to 13 qubits in double precision, where the path is messages mostly, the engine
    alone is compared, and the time that the path takes beyond the fastest library. Quantum volume
    (`--volume`, in qubits) is compared with Aer.
    """
    with Peers(NATIVE, options.threads) as peers:
        for width in options.qubits:
            _turns(peers, _native(width, options.seed - 1), options.rounds)  # loads
            values: Times = defaultdict(list)
            for number in range(options.circuits):
                circuit = _native(width, options.seed + number)
                for name, value in _compared(circuit, _turns(peers, circuit, options.rounds)):
                    values[name].append(value)
            for name, each in values.items():
                goal, of = _goal(width, name)
                print(f"{width} qubits {name}, {of} the best peer: worst {max(each):.2f}")
                report.at_most(goal, statistics.median(each), f"{width} qubits {name}")
            for bits, _ in PRECISIONS:
                if not any(bits in name for name in values):
                    goal, _ = _goal(width, f"path {bits}")
                    report.not_measured(goal, "no peer ran", f"{width} qubits {bits}")
        for library in peers.missing:
            reason = f"type {INSTALL_COMMAND}; it may be the fastest"
            report.not_measured(_goal(NARROW, "path f32")[0], reason, library)
    with Peers(VOLUME, options.threads) as peers:
        for width in options.volume:
            _turns(peers, _volume(width, options.seed - 1), options.rounds)
            times: dict[str, list[tuple[float, float]]] = defaultdict(list)
            for number in range(options.rounds):  # each circuit costs Aer seconds
                for name, pair in _turns(peers, _volume(width, options.seed + number), 1).items():
                    times[name].append(pair)
            middle = {name: np.median(each, axis=0) for name, each in times.items()}
            ours = middle.pop(PATHS[0].name)
            for column, turn in enumerate(("first", "again")):
                theirs = [each[column] for each in middle.values()]
                report.share(f"volume_{width}_of_aer", ours[column], theirs, turn)


def _goal(width: int, name: str) -> tuple[str, str]:
    """Return a figure's goal, and its relation to the best peer."""
    if width > NARROW:
        return "wide_of_best", "of"
    if name.startswith(ENGINE):
        return "narrow_engine_of_best", "of"
    return ("narrow_beyond_ms", "ms beyond") if "f64" in name else ("narrow_of_best", "of")


def _turns(peers: Peers, circuit: NativeCircuit, rounds: int) -> dict[str, tuple[float, float]]:
    """Return the seconds of each peer's first run of a circuit, and the median of its next runs."""
    entries: dict[str, tuple[float, float]] = {}
    means: dict[str, Any] = {}
    for peer in peers.prepared(circuit.num_qubits, [circuit.gates]):
        first = peer.times(1, NATIVE_CAP_S)
        number = rounds if first and first[0] < 1.0 else 1
        repeat = "run_planned" if peer.name == ENGINE else "run"
        again = peer.times(number, NATIVE_CAP_S * number, repeat)
        if first and again:
            means[peer.name] = peer.correlations()
            entries[peer.name] = first[0], statistics.median(again)
    assert_same_circuit(means)
    return entries


def _compared(
    circuit: NativeCircuit, times: dict[str, tuple[float, float]]
) -> Iterator[tuple[str, float]]:
    """Yield our times relative to the best variant of each precision, or in ms beyond it where the
    goal says so; print the times."""
    cells = []
    for bits, _ in PRECISIONS:
        own = (f"path {bits}", f"engine {bits}")
        peers = {name: each for name, each in times.items() if bits in name and name not in own}
        for name in (name for name in own if peers and name in times):
            for column, turn in enumerate(("first", "again")):
                theirs, best = min((each[column], peer) for peer, each in peers.items())
                ours = times[name][column]
                is_ratio = _goal(circuit.num_qubits, name)[1] == "of"
                yield f"{name} {turn}", ours / theirs if is_ratio else 1e3 * (ours - theirs)
                cells.append(f"{name} {turn} {1e3 * ours:.2f}, {best} {1e3 * theirs:.2f}")
    print(f"{circuit.title}, {len(circuit.gates)} gates: {', '.join(cells)}", flush=True)


def _volume(num_qubits: int, seed: int) -> NativeCircuit:
    source = built(num_qubits, wide_circuit("volume", num_qubits, seed))
    result = transpile(source, basis_gates=["rz", "sx", "x", "cx"], seed_transpiler=seed)
    return NativeCircuit(f"{num_qubits} qubits volume", num_qubits, _gates(result))


def _native(num_qubits: int, seed: int) -> NativeCircuit:
    """Return a transpiled circuit; the seed determines kind, basis, level and number of gates."""
    random = np.random.default_rng([seed, num_qubits])
    basis = list(BASES)[int(random.integers(len(BASES)))]
    kind = KINDS[int(random.integers(len(KINDS)))]
    level, wanted = int(random.choice(4)), int(random.integers(*GATES))
    names, is_line = BASES[basis]
    gates: list[Gate] = []
    while len(gates) < wanted:
        if kind in CIRCUITS:
            source = wide_circuit(kind, num_qubits, int(random.integers(2**31)))
        else:
            source = random_gates(num_qubits, 10 * num_qubits, random)
        gates += _gates(transpile(
            built(num_qubits, source), basis_gates=names, optimization_level=level,
            coupling_map=CouplingMap.from_line(num_qubits) if is_line else None,
            seed_transpiler=seed,
        ))  # fmt: skip
    title = f"{num_qubits} qubits {kind} {basis} {level}"
    return NativeCircuit(title, num_qubits, gates[: GATES[1]])


def _gates(circuit: QuantumCircuit) -> list[Gate]:
    places = {bit: place for place, bit in enumerate(circuit.qubits)}
    return [
        (each.operation.name, tuple(places[bit] for bit in each.qubits),
         tuple(map(float, each.operation.params)))
        for each in circuit.data if each.operation.name != "barrier"
    ]  # fmt: skip


# --- random matrices and observables --------------------------------------------------------------


@benchmark(rounds=(7, 2), qubits=([14, 16, 18, 20], [14]), threads=THREADS, seed=SEED)
def random_unitaries(report: Report, options: Namespace) -> None:
    """Random two-qubit unitaries on all pairs: the whole path, compared with three libraries.

    12 layers of random pairings with a random matrix on each pair, 1,024 shots, all threads. Ours
    is the whole path of a new structure through a running environment; the libraries' circuits are
    converted before the clock starts, and optimised where the library can. New circuits in each
    round. Our single precision is compared with the best of all.
    """
    variants = (*PATHS, *(each for each in LIBRARIES if not each.name.startswith("lightning")))
    with Peers(variants, options.threads) as peers:  # Lightning's peer has no gate for a matrix
        for n in options.qubits:
            times: Times = defaultdict(list)
            for turn in range(options.rounds + 1):
                circuit = NativeCircuit("", n, _random_pairs(n, [options.seed, n, turn]))
                for name, (first, _) in _turns(peers, circuit, 1).items():
                    times[name] += [first] if turn else []  # turn 0 loads kernels
            ms = {name: 1e3 * each for name, each in medians(times).items()}
            print(f"{n} qubits: {', '.join(f'{k} {v:.1f}' for k, v in ms.items())}")
            double, single = (ms.pop(path.name) for path in PATHS)
            theirs = [each for name, each in ms.items() if "f64" in name]
            report.share("of_best", double, theirs, f"{n} qubits, double precision")
            report.share("of_best", single, ms.values(), f"{n} qubits, single precision")


def _random_pairs(num_qubits: int, seed: list[int]) -> list[Gate]:
    random = np.random.default_rng(seed)
    orders = (random.permutation(num_qubits).tolist() for _ in range(12))
    pairs = (pair for order in orders for pair in zip(order[0::2], order[1::2], strict=False))
    return [("unitary", pair, (unitary_group.rvs(4, random_state=random),)) for pair in pairs]


@benchmark(rounds=(5, 2), qubits=(20, 16), threads=THREADS, seed=SEED)
def observables(report: Report, options: Namespace) -> None:
    """Expectation values of Pauli sums and their gradients, compared with Aer and Lightning.

    20 qubits in complex128: 100 random strings after a hardware-efficient ansatz, and the gradient
    of an Ising chain's energy with respect to the 100 angles of such an ansatz, by the adjoint
    method of Lightning. All threads, new angles in each round. Ours is a worker's task with its
    plan cached; the libraries' circuits are built before the clock starts.
    """
    variants = [Variant("ours", WorkerObservables), Variant("aer", AerObservables),
                Variant("lightning", LightningObservables)]  # fmt: skip
    times: Times = defaultdict(list)
    with Peers(variants, options.threads) as peers:
        for turn in range(options.rounds + 1):
            for what in ("values", "gradient"):
                entries = {}
                for peer in peers.prepared(options.qubits, [(what, options.seed + turn)]):
                    if (what, peer.name) == ("gradient", "aer"):
                        continue  # Aer has no adjoint gradient
                    took = peer.times(1, CAP_S)
                    times[f"{what} {peer.name}"] += took if turn else []  # turn 0 loads
                    if (values := peer.call("last")) is not None:
                        entries[peer.name] = np.array(values)
                for name, values in entries.items():
                    off = np.abs(values - entries.get("ours", values)).max()
                    assert off < 1e-9, f"{what}: {name} differs"
    best = medians({name: each for name, each in times.items() if each})
    print(", ".join(f"{name} {each:.4f} s" for name, each in best.items()))

    def peers_of(what: str) -> list[float]:
        return [each for name, each in best.items() if name.startswith(what) and "ours" not in name]

    report.share("strings_of_best", best["values ours"], peers_of("values"))
    report.share("gradient_of_lightning", best["gradient ours"], peers_of("gradient"))
