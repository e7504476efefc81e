"""Tensor networks: matrix product states compared with Aer's, contraction and PEPS with quimb."""

from __future__ import annotations

import itertools
import os
import statistics
import time
import warnings
from argparse import Namespace
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import networkx
import numpy as np
from numpy.typing import NDArray
from qiskit.quantum_info import SparsePauliOp

import simenv
from bench.circuits import (
    Pairs,
    brickwork,
    built,
    device_pairs,
    engine_circuit,
    grid,
    kicked,
    measured,
    qaoa,
    trotter,
    wide_circuit,
)  # fmt: skip
from bench.engine.noise_speed import P01, P10, aer_noise, noise_program
from bench.engine.ranks import Circuit, over
from bench.harness import SEED, Report, benchmark, installed, medians, rounds_of, timed
from bench.peers.base import Gate
from bench.peers.libraries import simulator
from bench.peers.simenv_engine import WorkerTask
from simenv.client.circuits import load
from simulators.engine import PauliSum, Request, RunControl, RunOptions
from simulators.errors import Unsupported
from simulators.simulate import counts_of, simulate
from simulators.tensornetwork.peps.engine import PepsEngine
from simulators.tensornetwork.peps.evolution import GraphCircuit, GraphLimits
from simulators.tensornetwork.peps.sampling import SampleProgram, sample
from simulators.tensornetwork.peps.simple_update import GraphState

SHOTS, PAIRS = 1_000, 10  # pairs of neighbours whose values are compared
BOND = 512  # large enough that only the cutoff truncates
QUBITS, GAMMA, BETA = 40, 0.6, 0.4  # of QAOA
GRID, DEPTH = (6, 10), 4  # rows and columns; layers of CZ
STRINGS, PEER_STRINGS = 1_000, 10  # bit strings; quimb contracts one by one
FEW_SHOTS = 20  # of Aer, by which the time of all is expected
CHAINS = {"chain": (40, 17, False), "narrow": (400, 6, False), "trajectories": (40, 11, True)}


class Case(NamedTuple):
    name: str
    num_qubits: int
    gates: list[Gate]
    cutoff: float = 1e-14
    long: bool = False


def _bricks(n: int, seed: int) -> list[Case]:
    name = f"brickwork, {n} qubits, depth"
    return [Case(f"{name} {d}", n, brickwork(n, d, seed)) for d in (8, 10, 12)]


def _noisy_chains(report: Report, options: Namespace) -> None:
    cases = _bricks(40, options.seed)
    cases.append(Case("TFIM, 40 qubits, 10 steps", 40, list(trotter(40, 10, 0.2, 0.2))))
    for case, relax in itertools.product(cases if installed("qiskit_aer") else (), (False, True)):
        _noisy_chain(report, case, options, relax=relax)


def _chains(report: Report, options: Namespace) -> None:
    cases = [
        Case("GHZ, 60 qubits", 60, wide_circuit("ghz", 60, 0), 1e-16),
        Case("TFIM, 100 qubits, 10 steps", 100, list(trotter(100, 10, 0.2, 0.2))),
        *_bricks(50, options.seed),
        Case("TFIM, 40 qubits, 50 steps, cutoff 1e-10", 40, list(trotter(40, 50, 0.2, 0.2)), 1e-10,
             long=True),
    ]  # fmt: skip
    for case in cases if installed("qiskit_aer") else ():
        _chain(report, case, 1 if case.long else options.rounds)


def _contractions(report: Report, options: Namespace) -> None:
    _qaoa(report, options.rounds, options.seed)
    if installed("quimb"):
        _amplitudes(report, options.rounds, options.seed)


def _over_ranks(report: Report, options: Namespace) -> None:
    (one,), (shared,) = (over(k, Circuit("contraction", "edge", 28, depth=4)) for k in (1, 4))
    if abs(one.digest - shared.digest) > 1e-10:
        raise SystemExit(f"4 ranks find {shared.digest}, one finds {one.digest}")
    label = f"4 ranks on {os.cpu_count()} cores, {shared.remark}"
    report.at_most("slices_cpu", sum(shared.of(1)) / sum(one.of(1)), label)
    report.at_most("slices_idle_percent", 100 * shared.idle_share, label)
    for kind, (n, depth, is_noisy) in CHAINS.items():
        walls: tuple[list[float], list[float]] = [], []
        for _ in range(options.rounds):
            circuit = Circuit("mps", "brickwork", n, depth=depth, is_noisy=is_noisy)
            runs = [over(ranks, circuit)[0] for ranks in (1, 2)]
            if runs[0].digest != runs[1].digest:
                raise SystemExit(f"{kind}: 2 ranks have other counts than one")
            for seconds, each in zip(walls, runs, strict=True):
                seconds.append(each.wall_s)
        one_s, shared_s = map(statistics.median, walls)
        label = f"brickwork, {kind}: {runs[0].remark}; {one_s:.2f} s in one rank"
        report.at_most(f"{kind}_ranks", shared_s / one_s, label)


PARTS = {
    "noisy": _noisy_chains, "chains": _chains, "contraction": _contractions, "ranks": _over_ranks,
}  # fmt: skip


@benchmark(only=PARTS, rounds=(5, 2), most_s=(300.0, 5.0), seed=SEED)
def tensornetwork(report: Report, options: Namespace) -> None:
    """Tensor networks: matrix product states compared with Aer's, contraction compared with quimb.

    Chains of GHZ, Trotter steps of an Ising chain, and brickwork of random gates: ours is a task,
    Aer's circuit is built before the clock starts; the same cutoff, one thread. The long one
    runs once. Contraction: QAOA of p = 1 on a graph of degree 3, through a
    service, and amplitudes of a grid of 60 qubits; then a contraction whose slices are shared by 4
    ranks, and chains over 2. Ratios are of CPU seconds, whole paths of wall time.

    Before, chains of 40 qubits with noise, as trajectories, compared with Aer's: the same shots, or
    fewer, whose time is extrapolated, if they would take longer than `--most-s`. Means of Z and ZZ
    are compared with Aer's counts, and those of the qubits at both ends with exact values.
    """
    for part in options.only or PARTS:
        PARTS[part](report, options)


def _alternate(
    rounds: int, ours: Callable[[], object], theirs: Callable[[], object]
) -> tuple[float, float]:
    """Return the median CPU seconds of both calls, after one call of ours that loads kernels."""
    if rounds > 1:
        ours()
    found = medians(rounds_of({"ours": ours, "theirs": theirs}, rounds, 0, time.process_time))
    return found["ours"], found["theirs"]


def _products(num_qubits: int, sets: Iterable[Collection[int]]) -> list[str]:
    """Return the Pauli string of Z on each set of qubits."""
    qubits = range(num_qubits - 1, -1, -1)
    return ["".join("Z" if qubit in each else "I" for qubit in qubits) for each in sets]


def _values(circuit: Any, engine: str, labels: list[str], **more: Any) -> NDArray[np.float64]:
    sums = tuple(PauliSum((label,), np.ones(1)) for label in labels)
    found = simulate(
        circuit, shots=0, engine=engine, outputs=("expectation",), observables=sums, **more
    )
    return np.frombuffer(found.expectations).reshape(-1, 2)[:, 0]


def _checked(result: Any) -> Any:
    if not result.success:
        raise SystemExit(f"Aer: {result.status}")
    return result


def _chain(report: Report, case: Case, rounds: int) -> None:
    """Measure shots and expectation values of one chain with our engine and with Aer."""
    aer = simulator(
        method="matrix_product_state", matrix_product_state_truncation_threshold=case.cutoff
    )
    settings = (("bond", BOND), ("cutoff", case.cutoff))
    worker = WorkerTask(1, engine="mps", shots=SHOTS, options=settings)
    circuit = measured(case.num_qubits, case.gates)
    packed = load(circuit).packed
    our_s, their_s = _alternate(
        rounds, lambda: worker.run(packed), lambda: _checked(aer.run(circuit, shots=SHOTS).result())
    )
    print(f"{case.name}: ours {our_s:.4f}, Aer {their_s:.4f}")
    report.at_most("shots_of_aer", our_s / their_s, case.name)
    if case.long:
        return  # Aer's values would take two hours
    places = np.linspace(0, case.num_qubits - 2, PAIRS).astype(int).tolist()
    bare, saving = (built(case.num_qubits, case.gates) for _ in range(2))
    for k, place in enumerate(places):
        saving.save_expectation_value(SparsePauliOp("ZZ"), [place, place + 1], label=str(k))
    labels = _products(case.num_qubits, [(place, place + 1) for place in places])
    values = _values(engine_circuit(bare), "mps", labels, settings=settings)
    data = _checked(aer.run(saving, shots=1).result()).data(0)
    off = max(abs(data[str(k)] - value) for k, value in enumerate(values.tolist()))
    report.at_most("value_error", off, case.name)


def _noisy_chain(report: Report, case: Case, options: Namespace, *, relax: bool) -> None:
    """Measure shots of one chain with noise, and the deviation of their means."""
    from qiskit_aer import AerSimulator

    n, name = case.num_qubits, f"{case.name}, depolarizing{' and relaxation' if relax else ''}"
    source = measured(n, case.gates)
    circuit = engine_circuit(source)
    noise = noise_program(circuit, relax=relax)
    aer = AerSimulator(
        method="matrix_product_state", noise_model=aer_noise(relax=relax, scale=1.0),
        max_parallel_threads=1, matrix_product_state_truncation_threshold=case.cutoff,
    )  # fmt: skip
    settings = (("bond", BOND), ("cutoff", case.cutoff))

    def ours(shots: int = SHOTS) -> Any:
        terms = {"shots": shots, "seed": options.seed, "settings": settings}
        return simulate(circuit, engine="mps", noise=noise, **terms)

    def theirs(shots: int) -> dict[int, int]:
        result = _checked(aer.run(source, shots=shots, seed_simulator=options.seed).result())
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
    report.at_least("noisy_times", aer_s / our_s, f"{name}; {note}")
    pairs = [{k} for k in range(n)] + [{k, k + 1} for k in range(n - 1)]
    own, peer = (_means(each, pairs) for each in (counts_of(result), counts))
    shots = sum(counts.values())
    mean = (SHOTS * own + shots * peer) / (SHOTS + shots)
    spread = np.sqrt((1 - mean**2) * (1 / SHOTS + 1 / shots))
    off = np.abs(own - peer) / np.maximum(spread, 1 / SHOTS)
    report.at_most("noisy_deviation", off.max(), f"{name}: from {shots:,} shots of Aer's")
    exact: dict[tuple[int, ...], float] = {}
    for ends in ([{0}, {1}, {0, 1}], [{n - 1}, {n - 2}, {n - 2, n - 1}]):
        with suppress(Unsupported):  # too many qubits reach these
            values = _values(circuit, "densitymatrix", _products(n, ends), noise=noise).tolist()
            exact |= {tuple(sorted(each)): value for each, value in zip(ends, values, strict=True)}
    if exact:
        seen = _means(counts_of(result), [{*each} for each in exact])
        expected = np.array([_as_read(each, exact) for each in exact])
        off = np.abs(seen - expected) / np.sqrt((1 - expected**2) / SHOTS)
        report.at_most("noisy_deviation", off.max(), f"{name}: from exact ones at the ends")


def _means(counts: Mapping[int, int], sets: Iterable[Collection[int]]) -> NDArray[np.float64]:
    """Return the mean of the product of Z on each set of qubits."""
    masks, total = [sum(1 << qubit for qubit in each) for each in sets], sum(counts.values())
    odd = [sum(n for x, n in counts.items() if (x & m).bit_count() % 2) for m in masks]
    return 1.0 - 2.0 * np.array(odd) / total


def _as_read(qubits: tuple[int, ...], exact: Mapping[tuple[int, ...], float]) -> float:
    """Return the mean of the product of Z on one or two qubits as it is read: Z becomes a Z + b."""
    a, b = 1 - P01 - P10, P10 - P01
    if len(qubits) == 1:
        return a * exact[qubits] + b
    first, second = qubits
    return a * a * exact[qubits] + a * b * (exact[first,] + exact[second,]) + b * b


def _qaoa(report: Report, rounds: int, seed: int) -> None:
    """Measure shots and expectation values of all edges, through a service."""
    graph = networkx.random_regular_graph(3, QUBITS, seed=seed)
    edges = [(min(edge), max(edge)) for edge in graph.edges]
    gates = list(qaoa(QUBITS, edges, 1, GAMMA, 2 * BETA))
    circuit, bare, labels = measured(QUBITS, gates), built(QUBITS, gates), _products(QUBITS, edges)
    name = f"QAOA, {QUBITS} qubits"
    with simenv.local(workers=1) as env:
        sums = [SparsePauliOp(label) for label in labels]
        exact = partial(env.submit, bare, shots=0, observables=sums, engine="contraction")
        seeds = itertools.count()
        calls: dict[str, Callable[[], Any]] = {
            "shots": lambda: env.submit(
                circuit, shots=SHOTS, seed=next(seeds), engine="contraction"
            ).result(),
            "values": lambda: exact().result(),
        }
        seconds = medians(rounds_of(calls, rounds, 1))  # the first round loads the library
        values = [float(each) for each in calls["values"]().expectations]
    for what, each in seconds.items():
        report.seconds(f"qaoa_{what}_s", each)
    if installed("quimb"):
        peer, operator = _quimb(QUBITS, gates), np.diag([1.0, -1.0, -1.0, 1.0])

        def theirs() -> list[float]:
            return [float(np.real(peer.local_expectation(operator, edge))) for edge in edges]

        off = float(np.abs(np.subtract(values, theirs())).max())
        if off > 1e-8:
            raise SystemExit(f"{name}: values differ from quimb's by {off}")
        ours = partial(_values, engine_circuit(bare), "contraction", labels)
        our_s, their_s = _alternate(rounds, ours, theirs)
        print(f"{name}: values: ours {our_s:.4f}, quimb {their_s:.4f}")
        report.at_most("qaoa_of_quimb", our_s / their_s)


def _quimb(num_qubits: int, gates: list[Gate]) -> Any:
    import quimb.tensor as tensors

    peer = tensors.Circuit(num_qubits)
    for gate, wires, angles in gates:
        peer.apply_gate({"u": "U3"}.get(gate, gate.upper()), *angles, *wires)
    return peer


def _amplitudes(report: Report, rounds: int, seed: int) -> None:
    """Measure amplitudes of random bit strings with our engine and with quimb."""
    n, gates = GRID[0] * GRID[1], list(grid(*GRID, DEPTH, np.random.default_rng(seed)))
    name = f"grid of {n} qubits, depth {DEPTH}"
    peer, plain = _quimb(n, gates), engine_circuit(built(n, gates))
    bits = np.random.default_rng(seed).integers(0, 2, (STRINGS, n)).astype(np.uint8)
    texts = ["".join(map(str, row)) for row in bits[:PEER_STRINGS].tolist()]  # qubit 0 first

    def ours(count: int) -> Any:
        terms: dict[str, Any] = {"outputs": ("amplitudes",), "amplitudes": bits[:count]}
        return simulate(plain, shots=0, engine="contraction", **terms).amplitudes[0]

    def theirs() -> list[complex]:
        return [complex(peer.amplitude(text)) for text in texts]

    expected = np.array(theirs())
    off = np.abs(ours(STRINGS)[:PEER_STRINGS] - expected).max() / np.abs(expected).max()
    if off > 1e-10:
        raise SystemExit(f"{name}: amplitudes differ from quimb's by {off} of the largest")
    for key, count in (("amplitude_of_quimb", 1), ("amplitudes_of_quimb", STRINGS)):
        our_s, their_s = _alternate(rounds, partial(ours, count), theirs)
        report.at_most(key, our_s * PEER_STRINGS / (count * their_s))


# --- PEPS -----------------------------------------------------------------------------------------

DRAWS = 2_000  # shots by which the real error on a hexagon is computed
HEXAGON: Pairs = [*((q, (q + 1) % 12) for q in range(12)), (0, 12), (3, 13), (6, 14), (9, 15)]


@benchmark(steps=([6, 8], [6]), bond=(16, 8), shots=(200, 64), quimb_shots=(2, 1), seed=SEED)
def peps(report: Report, options: Namespace) -> None:
    """Samples of tensors on a whole QPU's graph, with quimb's of the same tensors in the same run.

    Kicked Ising circuits on the lattice of `fez`, 156 qubits, without noise. The state is evolved
    once; our shots and quimb's `sample_d2bp` draw from it, each in one thread, in CPU seconds. The
    error that the engine states of its counts is compared with the real one on one hexagon with
    four tails, whose amplitudes are computed exactly.
    """
    for steps in options.steps:
        pairs = device_pairs("fez")
        state, stated, _ = _evolved(pairs, 156, steps, options.bond, options.seed)
        call = partial(_drawn, state, options.shots, options.seed)
        shot_s = timed(call, time.process_time)[0] / options.shots
        print(f"{steps} steps, bond {state.bond}: stated error {stated:.3f}")
        report.seconds(f"shot_{steps}_ms", shot_s)
        if installed("quimb"):
            quimb_s = _quimb_shot_s(state, options.quimb_shots)
            print(f"quimb: {quimb_s:.1f} s a shot")
            report.at_most(f"shot_{steps}_of_quimb", shot_s / quimb_s)
    state, stated, bare = _evolved(HEXAGON, 16, 6, 32, options.seed)
    bits, logs = _drawn(state, DRAWS, options.seed)
    vector = (
        simulate(bare, shots=0, engine="statevector", outputs=("statevector",)).row(0).statevector
    )
    assert vector is not None
    probs = np.abs(vector[bits.astype(np.int64) @ (1 << np.arange(16))]) ** 2
    real = float(np.mean(np.abs(1.0 - probs * np.exp(-logs)))) / 2.0
    print(f"one hexagon, 6 steps, bond {state.bond}: stated {stated:.1e}, real {real:.1e}")
    report.at_most("real_of_stated", real / stated)


def _evolved(
    pairs: Pairs, width: int, steps: int, bond: int, seed: int
) -> tuple[GraphState, float, Any]:
    """Return the state, the error that the engine states of its counts, and the bare circuit. The
    last gates on pairs change no bit, and are left out."""
    gates = [*kicked(width, pairs, steps - 1, 0.6), *kicked(width, [], 1, 0.6)]
    circuit, bare = engine_circuit(measured(width, gates)), engine_circuit(built(width, gates))
    limits, engine = RunOptions(settings=(("bond", bond), ("tolerance", 1.0))), PepsEngine()
    plan = engine.plan(circuit, None, limits)
    run = engine.run(plan, circuit, Request(64, seed), limits, RunControl())
    graph = GraphCircuit(bare, bare.params)
    state = graph.evolved(GraphLimits(bond, 1e-14, 0, "complex128"), RunControl())
    return state, run.row(0).truncation, bare


def _drawn(state: GraphState, shots: int, seed: int) -> tuple[Any, Any]:
    random = np.random.default_rng(seed)
    choose = lambda _site, ones: random.random(ones.size) < ones  # noqa: E731
    return sample(state, SampleProgram.of(state), shots, choose, RunControl())


def _quimb_shot_s(state: GraphState, shots: int) -> float:
    """Return the CPU seconds of a shot of quimb's sampler from the same tensors."""
    import quimb.tensor as qtn
    from quimb.tensor.belief_propagation import sample_d2bp

    sites = enumerate(zip(state.tensors, state.near, strict=True))
    network = qtn.TensorNetwork([
        qtn.Tensor(tensor, (f"k{site}", *(f"b{bond}" for bond in near)))
        for site, (tensor, near) in sites
    ])  # fmt: skip
    inds = [f"k{site}" for site in range(len(state.near))]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of messages that do not converge in 30 iterations
        begun = time.process_time()
        for seed in range(shots):
            sample_d2bp(network, output_inds=inds, seed=seed, max_iterations=30, tol=1e-3)
        return (time.process_time() - begun) / shots
