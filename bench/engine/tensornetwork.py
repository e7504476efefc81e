"""Tensor networks: matrix product states compared with Aer's, contraction compared with quimb.

The chains are GHZ, Trotter steps of an Ising chain in a transverse field, and brickwork of random
gates. Ours is a worker's task: packed Program in, packed counts out; Aer's circuit is built before
the clock starts. Both use the same cutoff and one thread, and take turns; times are medians of the
rounds. The long chain (50 steps at a cutoff of 1e-10, minutes for Aer) runs once. Contraction is
measured on QAOA of p = 1 on a graph of degree 3, through a service of one worker, and on amplitudes
of a grid of 60 qubits, then a contraction whose slices are shared by 4 ranks. Ratios are of CPU
seconds, which can be measured on a busy machine; whole paths are wall time.

Chains of 40 qubits with noise follow: the errors of `noise_speed`, as trajectories of matrix
product states, compared with Aer's. Aer runs the same shots, or, if they would take longer than
`--most-s`, fewer, whose time is extrapolated: each shot costs it the same. Means of Z and of ZZ of
neighbours are compared with Aer's counts, and those of the qubits at both ends, which few others
can reach, with exact values.
"""

from __future__ import annotations

import itertools
import os
import statistics
import time
from argparse import Namespace
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from functools import partial

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from typing import Any, NamedTuple

import networkx
import numpy as np
from numpy.typing import NDArray
from qiskit.quantum_info import SparsePauliOp

import simenv
from bench.circuits import brickwork, built, engine_circuit, grid, measured, qaoa, wide_circuit
from bench.engine.noise_speed import P01, P10, aer_noise, noise_program
from bench.engine.tensor_ranks import run_over
from bench.harness import SEED, Option, Report, installed, rounds, timed
from bench.harness.comparison import rounds_of
from bench.peers.aer import simulator
from bench.peers.base import Gate
from bench.peers.simenv_engine import WorkerTask
from simenv.client.circuits import load
from simulators.engine import PauliSum
from simulators.errors import Unsupported
from simulators.simulate import counts_of, simulate

SHOTS = 1_000
PAIRS = 10  # pairs of neighbours whose values are compared
BOND = 512  # large enough that only the cutoff truncates
QUBITS, DEGREE, GAMMA, BETA = 40, 3, 0.6, 0.4
GRID = 6, 10  # rows and columns
DEPTH = 4  # layers of CZ on the grid
STRINGS, PEER_STRINGS = 1_000, 10  # bit strings; quimb contracts one by one
RANKS = 4
CHAIN_RANKS = 2
NOISY_QUBITS, NOISY_DEPTHS, NOISY_STEPS = 40, (8, 10, 12), 10
FEW_SHOTS = 20  # of Aer, by which the time of all is expected
OPTIONS = (
    rounds(5, quick=2),
    Option("--no-long", action="store_true", quick=True, help="without the long chain"),
    SEED,
    Option("--noise-only", action="store_true", help="the chains with noise alone"),
    Option("--most-s", default=300.0, quick=5.0, help="longest expected run of Aer with noise"),
)


class Case(NamedTuple):
    """One chain circuit and its cutoff."""

    name: str
    num_qubits: int
    gates: list[Gate]
    cutoff: float
    long: bool = False


def run(options: Namespace) -> Report:
    title = "tensor networks: chains and contraction, CPU s of one thread"
    report = Report("tensornetwork", title)
    if installed("qiskit_aer"):
        for noisy, relax in itertools.product(noisy_cases(options.seed), (False, True)):
            _noisy_chain(report, noisy, options, relax=relax)
    if options.noise_only:
        return report
    for case in cases(options.seed) if installed("qiskit_aer") else ():
        if not (case.long and options.no_long):
            _chain(report, case, 1 if case.long else options.rounds)
    _qaoa(report, options.rounds, options.seed)
    if installed("quimb"):
        _amplitudes(report, options.rounds, options.seed)
    one, shared = run_over(1, "contraction"), run_over(RANKS, "contraction")
    if abs(one.value - shared.value) > 1e-10:
        raise SystemExit(f"{RANKS} ranks find {shared.value}, one finds {one.value}")
    print(f"contraction, {one.remark}: {one.cpu_s:.2f} s; {RANKS} ranks: {shared.cpu_s:.2f} s")
    label = f"{RANKS} ranks on {os.cpu_count()} cores, {shared.remark}"
    report.at_most("slices_cpu", shared.cpu_s / one.cpu_s, label)
    report.at_most("slices_idle_percent", shared.idle_percent, label)
    for kind in ("chain", "narrow", "trajectories"):
        _over_ranks(report, kind, options.rounds)
    return report


def _over_ranks(report: Report, kind: str, rounds: int) -> None:
    """Measure a chain over ranks, in turn with one rank."""
    walls: tuple[list[float], list[float]] = [], []
    for _ in range(rounds):
        runs = [run_over(ranks, kind) for ranks in (1, CHAIN_RANKS)]
        if runs[0].value != runs[1].value:
            raise SystemExit(f"{kind}: {CHAIN_RANKS} ranks have other counts than one")
        for wall_s, each in zip(walls, runs, strict=True):
            wall_s.append(max(each.wall_s))
    one_s, shared_s = map(statistics.median, walls)
    label = f"brickwork, {kind}: {runs[0].remark}; {one_s:.2f} s in one rank"
    report.at_most(f"{kind}_ranks", shared_s / one_s, label)


def cases(seed: int) -> Iterator[Case]:
    """Yield the chains."""
    yield Case("GHZ, 60 qubits", 60, wide_circuit("ghz", 60, 0), 1e-16)
    yield Case("TFIM, 100 qubits, 10 steps", 100, tfim(100, 10), 1e-14)
    for depth in (8, 10, 12):
        gates = brickwork(50, depth, seed)
        yield Case(f"brickwork, 50 qubits, depth {depth}", 50, gates, 1e-14)
    yield Case("TFIM, 40 qubits, 50 steps, cutoff 1e-10", 40, tfim(40, 50), 1e-10, long=True)


def tfim(num_qubits: int, steps: int) -> list[Gate]:
    """Return first-order Trotter steps of an Ising chain in a transverse field, J = h = 1, dt =
    0.1."""
    results: list[Gate] = []
    for _ in range(steps):
        for first in (0, 1):
            results += [("rzz", (k, k + 1), (0.2,)) for k in range(first, num_qubits - 1, 2)]
        results += [("rx", (k,), (0.2,)) for k in range(num_qubits)]
    return results


def _products(num_qubits: int, sets: Iterable[Collection[int]]) -> list[str]:
    """Return the Pauli string of Z on each set of qubits."""
    qubits = range(num_qubits - 1, -1, -1)
    return ["".join("Z" if qubit in each else "I" for qubit in qubits) for each in sets]


def _values(circuit: Any, engine: str, labels: list[str], settings: Any = ()) -> Any:
    """Return the expectation values of Pauli strings."""
    sums = tuple(PauliSum((label,), np.ones(1)) for label in labels)
    return simulate(
        circuit, shots=0, engine=engine, outputs=("expectation",), observables=sums,
        settings=settings,
    )  # fmt: skip


def _chain(report: Report, case: Case, rounds: int) -> None:
    """Measure shots and expectation values of one chain with our engine and with Aer."""
    limits = {"matrix_product_state_truncation_threshold": case.cutoff}
    aer = simulator(method="matrix_product_state", **limits)
    settings = (("bond", BOND), ("cutoff", case.cutoff))
    worker = WorkerTask(1, engine="mps", shots=SHOTS, options=settings)
    circuit = measured(case.num_qubits, case.gates)
    packed = load(circuit).packed

    def with_aer(source: Any, shots: int) -> Any:
        result = aer.run(source, shots=shots).result()
        if not result.success:
            raise SystemExit(f"Aer: {result.status}")
        return result

    actual, item = _alternate(rounds, lambda: worker.run(packed), lambda: with_aer(circuit, SHOTS))
    print(f"{case.name}: ours {actual:.4f}, Aer {item:.4f}")
    report.at_most("shots_of_aer", actual / item, f"{case.name}: 1,000 shots, share of Aer")
    if case.long:
        return  # Aer's values would take two hours
    places = np.linspace(0, case.num_qubits - 2, PAIRS).astype(int).tolist()
    bare, saving = (built(case.num_qubits, case.gates) for _ in range(2))
    for k, place in enumerate(places):
        saving.save_expectation_value(SparsePauliOp("ZZ"), [place, place + 1], label=str(k))
    labels = _products(case.num_qubits, [(place, place + 1) for place in places])
    our_values = partial(_values, engine_circuit(bare), "mps", labels, settings)
    values = np.frombuffer(our_values().expectations).reshape(-1, 2)[:, 0]
    data = with_aer(saving, 1).data(0)
    off = max(abs(data[str(k)] - value) for k, value in enumerate(values.tolist()))
    report.at_most("value_error", off, f"{case.name}: values, from Aer's")


def noisy_cases(seed: int) -> Iterator[Case]:
    """Yield the chains with noise."""
    n = NOISY_QUBITS
    for depth in NOISY_DEPTHS:
        yield Case(f"brickwork, {n} qubits, depth {depth}", n, brickwork(n, depth, seed), 1e-14)
    name = f"TFIM, {n} qubits, {NOISY_STEPS} steps"
    yield Case(name, n, tfim(n, NOISY_STEPS), 1e-14)


def _noisy_chain(report: Report, case: Case, options: Namespace, *, relax: bool) -> None:
    """Measure shots of one chain with noise, and the deviation of their means."""
    from qiskit_aer import AerSimulator

    name = f"{case.name}, {'depolarizing and relaxation' if relax else 'depolarizing'}"
    source = measured(case.num_qubits, case.gates)
    circuit = engine_circuit(source)
    noise = noise_program(circuit, relax=relax)
    aer = AerSimulator(
        method="matrix_product_state",
        noise_model=aer_noise(relax=relax, scale=1.0),
        max_parallel_threads=1,
        matrix_product_state_truncation_threshold=case.cutoff,
    )
    settings = (("bond", BOND), ("cutoff", case.cutoff))

    def ours(shots: int = SHOTS) -> Any:
        return simulate(
            circuit, shots=shots, seed=options.seed, engine="mps", noise=noise, settings=settings
        )

    def theirs(shots: int) -> dict[int, int]:
        result = aer.run(source, shots=shots, seed_simulator=options.seed).result()
        if not result.success:
            raise SystemExit(f"Aer: {result.status}")
        return {int(key, 2): count for key, count in result.get_counts(0).items()}

    ours(10)  # load kernels
    clock = time.process_time
    times = [timed(ours, clock) for _ in range(options.rounds)]
    our_s, result = statistics.median(seconds for seconds, _ in times), times[0][1]
    few_s, counts = timed(partial(theirs, FEW_SHOTS), clock)
    aer_s, note = few_s * SHOTS / FEW_SHOTS, f"{FEW_SHOTS} shots of Aer's extrapolated"
    if aer_s <= options.most_s:
        aer_s, counts = timed(partial(theirs, SHOTS), clock)
        note = f"{SHOTS:,} shots"
    print(f"{name}: ours {our_s:.3f} ({result.remark}), Aer {aer_s:.1f} ({note})")
    report.at_least("noisy_times", aer_s / our_s, f"{name}: times as fast as Aer ({note})")
    pairs = [{k} for k in range(case.num_qubits)]
    pairs += [{k, k + 1} for k in range(case.num_qubits - 1)]
    own, peer = (_means(each, pairs) for each in (counts_of(result), counts))
    shots = sum(counts.values())
    mean = (SHOTS * own + shots * peer) / (SHOTS + shots)
    spread = np.sqrt((1 - mean**2) * (1 / SHOTS + 1 / shots))
    off = np.abs(own - peer) / np.maximum(spread, 1 / SHOTS)
    label = f"{name}: {len(pairs)} means, from those of {shots:,} shots of Aer's"
    report.at_most("noisy_deviation", off.max(), label)
    last = case.num_qubits - 1
    exact: dict[tuple[int, ...], float] = {}
    for ends in ([{0}, {1}, {0, 1}], [{last}, {last - 1}, {last - 1, last}]):
        with suppress(Unsupported):  # too many qubits reach these
            values = simulate(
                circuit, shots=0, engine="densitymatrix", noise=noise, outputs=("expectation",),
                observables=tuple(
                    PauliSum((label,), np.ones(1)) for label in _products(case.num_qubits, ends)
                ),
            )  # fmt: skip
            means = np.frombuffer(values.expectations).reshape(-1, 2)[:, 0].tolist()
            exact |= {tuple(sorted(each)): mean for each, mean in zip(ends, means, strict=True)}
    if exact:
        seen = _means(counts_of(result), [{*each} for each in exact])
        expected = np.array([_read(each, exact) for each in exact])
        off = np.abs(seen - expected) / np.sqrt((1 - expected**2) / SHOTS)
        label = f"{name}: {len(exact)} means at the ends, from exact ones"
        report.at_most("noisy_deviation", off.max(), label)


def _means(counts: Mapping[int, int], sets: Iterable[Collection[int]]) -> NDArray[np.float64]:
    """Return the mean of the product of Z on each set of qubits."""
    total = sum(counts.values())
    masks = [sum(1 << qubit for qubit in each) for each in sets]
    return np.array(
        [1 - 2 * sum(n for key, n in counts.items() if (key & m).bit_count() % 2) / total
         for m in masks]
    )  # fmt: skip


def _read(qubits: tuple[int, ...], exact: Mapping[tuple[int, ...], float]) -> float:
    """Return the mean of the product of Z on one or two qubits as it is read: Z becomes a Z + b."""
    a, b = 1 - P01 - P10, P10 - P01
    if len(qubits) == 1:
        return a * exact[qubits] + b
    first, second = qubits
    return a * a * exact[qubits] + a * b * (exact[first,] + exact[second,]) + b * b


def _qaoa(report: Report, rounds: int, seed: int) -> None:
    """Measure shots and expectation values of all edges, through a service."""
    graph = networkx.random_regular_graph(DEGREE, QUBITS, seed=seed)
    edges = [(min(edge), max(edge)) for edge in graph.edges]
    gates = list(qaoa(QUBITS, edges, 1, GAMMA, 2 * BETA))
    circuit, bare = measured(QUBITS, gates), built(QUBITS, gates)
    labels = _products(QUBITS, edges)
    sums = [SparsePauliOp(label) for label in labels]
    name = f"QAOA, {QUBITS} qubits"
    shots_s, values_s = [], []
    with simenv.local(workers=1) as env:
        for number in range(rounds + 1):  # round 0 loads the library
            sampled = partial(env.submit, circuit, shots=SHOTS, seed=number, engine="contraction")
            seconds, result = timed(lambda call=sampled: call().result())
            shots_s.append(seconds)
            exact = partial(env.submit, bare, shots=0, observables=sums, engine="contraction")
            seconds, entry = timed(lambda call=exact: call().result())
            values_s.append(seconds)
        chosen = env.submit(circuit, shots=SHOTS, seed=1).result()
        print(f"{name}: {result.remark}; auto chooses {chosen.engine}")
    report.at_most("qaoa_shots_s", statistics.median(shots_s[1:]), f"{name}: 1,000 shots, s")
    label = f"{name}: {len(edges)} edges, s"
    report.at_most("qaoa_values_s", statistics.median(values_s[1:]), label)
    values = [float(each) for each in entry.expectations]
    if installed("quimb"):
        peer = _quimb(QUBITS, gates)
        operator = np.diag([1.0, -1.0, -1.0, 1.0])

        def theirs() -> list[float]:
            return [float(np.real(peer.local_expectation(operator, edge))) for edge in edges]

        off = max(abs(value - expected) for value, expected in zip(values, theirs(), strict=True))
        if off > 1e-8:
            raise SystemExit(f"{name}: values differ from quimb's by {off}")
        ours = partial(_values, engine_circuit(bare), "contraction", labels)
        our_s, their_s = _alternate(rounds, ours, theirs)
        print(f"{name}: values: ours {our_s:.4f}, quimb {their_s:.4f}")
        report.at_most("qaoa_of_quimb", our_s / their_s, f"{name}: values, share of quimb")


def _quimb(num_qubits: int, gates: list[Gate]) -> Any:
    import quimb.tensor as tensors

    peer = tensors.Circuit(num_qubits)
    for gate, wires, angles in gates:
        peer.apply_gate({"u": "U3"}.get(gate, gate.upper()), *angles, *wires)
    return peer


def _amplitudes(report: Report, rounds: int, seed: int) -> None:
    """Measure amplitudes of random bit strings with our engine and with quimb."""
    num_qubits, gates = GRID[0] * GRID[1], list(grid(*GRID, DEPTH, np.random.default_rng(seed)))
    name = f"grid of {num_qubits} qubits, depth {DEPTH}"
    peer, plain = _quimb(num_qubits, gates), engine_circuit(built(num_qubits, gates))
    bits = np.random.default_rng(seed).integers(0, 2, (STRINGS, num_qubits)).astype(np.uint8)
    texts = ["".join(map(str, row)) for row in bits[:PEER_STRINGS].tolist()]  # qubit 0 first

    def ours(count: int) -> Any:
        return simulate(
            plain, shots=0, engine="contraction", outputs=("amplitudes",), amplitudes=bits[:count]
        ).amplitudes[0]

    def theirs() -> list[complex]:
        return [complex(peer.amplitude(text)) for text in texts]

    expected = np.array(theirs())
    off = np.abs(ours(STRINGS)[:PEER_STRINGS] - expected).max() / np.abs(expected).max()
    if off > 1e-10:
        raise SystemExit(f"{name}: amplitudes differ from quimb's by {off} of the largest")
    for key, count, what in (
        ("amplitude_of_quimb", 1, "one amplitude"),
        ("amplitudes_of_quimb", STRINGS, f"{STRINGS} amplitudes"),
    ):
        our_s, their_s = _alternate(rounds, partial(ours, count), theirs)
        print(f"{name}: {what} {our_s:.4f}, quimb's one {their_s / PEER_STRINGS:.4f}")
        share = our_s * PEER_STRINGS / (count * their_s)
        report.at_most(key, share, f"{name}: {what}, share of quimb")


def _alternate(
    rounds: int, ours: Callable[[], object], theirs: Callable[[], object]
) -> tuple[float, float]:
    """Return the median CPU seconds of both calls, after one call of ours that loads kernels."""
    if rounds > 1:
        ours()
    times = rounds_of({"ours": ours, "theirs": theirs}, rounds, clock=time.process_time)
    our_s, their_s = (statistics.median(each) for each in times.values())
    return our_s, their_s
