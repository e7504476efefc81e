"""Tensor networks: matrix product states compared with Aer's, contraction compared with quimb.

The chains are GHZ, Trotter steps of an Ising chain in a transverse field, and brickwork of random
gates. Ours is a worker's task: packed Program in, packed counts out; Aer's circuit is built before
the clock starts. Both use the same cutoff and one thread, and take turns; times are medians of the
rounds. The long chain (50 steps at a cutoff of 1e-10, minutes for Aer) runs once. Contraction is
measured on QAOA of p = 1 on a graph of degree 3, through a service of one worker, and on amplitudes
of a grid of 60 qubits. Last comes a contraction whose slices are shared by 4 ranks.

    python -m bench run tensornetwork [--rounds 5] [--no-long] [--no-chains] [--no-ranks]

Ratios are of CPU seconds, which can be measured on a busy machine; whole paths are wall time.
"""

from __future__ import annotations

import os
import statistics
import time
from argparse import Namespace
from collections.abc import Callable, Iterator

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from typing import Any

import msgspec
import networkx
import numpy as np
from qiskit import QuantumCircuit
from qiskit.quantum_info import SparsePauliOp

import simenv
from bench.circuits import measured
from bench.engine.contraction_ranks import over_ranks
from bench.harness.comparison import rounds_of
from bench.harness.options import Option
from bench.harness.report import Report, installed
from bench.peers.base import Gate
from bench.peers.simenv_engine import WorkerTask
from simenv.client.circuits import load
from simulators.circuit.ir import Circuit
from simulators.engine import PauliSum
from simulators.simulate import simulate

SHOTS = 1_000
PAIRS = 10  # pairs of neighbours whose values are compared
BOND = 512  # large enough that only the cutoff truncates
QUBITS, DEGREE, GAMMA, BETA = 40, 3, 0.6, 0.4
GRID = 6, 10  # rows and columns
DEPTH = 4  # layers of CZ on the grid
STRINGS, PEER_STRINGS = 1_000, 10  # bit strings; quimb contracts one by one
RANKS = 4
OPTIONS = (
    Option("--rounds", type=int, default=5, quick=2),
    Option("--no-long", action="store_true"),
    Option("--no-chains", action="store_true"),
    Option("--no-ranks", action="store_true"),
    Option("--seed", type=int, default=3),
)


class Case(msgspec.Struct, frozen=True):
    """One chain circuit and its cutoff."""

    name: str
    num_qubits: int
    gates: list[Gate]
    cutoff: float
    long: bool = False


def run(options: Namespace) -> Report:
    """Run the benchmark."""
    title = "tensor networks: chains and contraction, CPU s of one thread"
    report = Report("tensornetwork", title)
    if not options.no_chains and installed("qiskit_aer"):
        for case in cases(options.seed):
            if not (case.long and options.no_long):
                _chain(report, case, 1 if case.long else options.rounds)
    _qaoa(report, options.rounds, options.seed)
    if installed("quimb"):
        _amplitudes(report, options.rounds, options.seed)
    if not options.no_ranks:
        one_rank, shared = over_ranks(1), over_ranks(RANKS)
        if abs(one_rank.value - shared.value) > 1e-10:
            raise SystemExit(f"{RANKS} ranks find {shared.value}, one finds {one_rank.value}")
        print(
            f"contraction, {one_rank.remark}: {one_rank.cpu_s:.2f} s; "
            f"{RANKS} ranks: {shared.cpu_s:.2f} s"
        )
        label = f"{RANKS} ranks on {os.cpu_count()} cores, {shared.remark}"
        report.at_most("slices_cpu", shared.cpu_s / one_rank.cpu_s, label)
        idle = max(rank.idle_percent for rank in shared.ranks)
        report.at_most("slices_idle_percent", idle, label)
    return report


def cases(seed: int) -> Iterator[Case]:
    """Yield the chains."""
    yield Case("GHZ, 60 qubits", 60, ghz(60), 1e-16)
    yield Case("TFIM, 100 qubits, 10 steps", 100, tfim(100, 10), 1e-14)
    for depth in (8, 10, 12):
        gates = brickwork(50, depth, seed)
        yield Case(f"brickwork, 50 qubits, depth {depth}", 50, gates, 1e-14)
    yield Case("TFIM, 40 qubits, 50 steps, cutoff 1e-10", 40, tfim(40, 50), 1e-10, long=True)


def ghz(num_qubits: int) -> list[Gate]:
    """Return the gates of a GHZ state."""
    return [("h", (0,), ()), *(("cx", (k, k + 1), ()) for k in range(num_qubits - 1))]


def tfim(num_qubits: int, steps: int) -> list[Gate]:
    """Return first-order Trotter steps of an Ising chain in a transverse field, J = h = 1, dt =
    0.1."""
    results: list[Gate] = []
    for _ in range(steps):
        for first in (0, 1):
            results += [("rzz", (k, k + 1), (0.2,)) for k in range(first, num_qubits - 1, 2)]
        results += [("rx", (k,), (0.2,)) for k in range(num_qubits)]
    return results


def brickwork(num_qubits: int, depth: int, seed: int) -> list[Gate]:
    """Return layers of random gates on each qubit, then CZ on every second pair of neighbours."""
    random = np.random.default_rng(seed)
    results: list[Gate] = []
    for layer in range(depth):
        for k in range(num_qubits):
            results.append(("u", (k,), tuple(random.uniform(0, 2 * np.pi, 3).tolist())))
        results += [("cz", (k, k + 1), ()) for k in range(layer % 2, num_qubits - 1, 2)]
    return results


def qaoa(num_qubits: int, seed: int) -> tuple[list[Gate], list[tuple[int, int]]]:
    """Return one layer of QAOA on a random graph of degree 3, and the graph's edges."""
    graph = networkx.random_regular_graph(DEGREE, num_qubits, seed=seed)
    edges = [(min(edge), max(edge)) for edge in graph.edges]
    gates: list[Gate] = [("h", (k,), ()) for k in range(num_qubits)]
    gates += [("rzz", edge, (GAMMA,)) for edge in edges]
    gates += [("rx", (k,), (2 * BETA,)) for k in range(num_qubits)]
    return gates, edges


def _chain(report: Report, case: Case, rounds: int) -> None:
    """Measure shots and expectation values of one chain with our engine and with Aer."""
    from qiskit_aer import AerSimulator

    aer = AerSimulator(
        method="matrix_product_state",
        matrix_product_state_truncation_threshold=case.cutoff,
        max_parallel_threads=1,
    )
    settings = (("bond", BOND), ("cutoff", case.cutoff))
    worker = WorkerTask(1, engine="mps", shots=SHOTS, options=settings)
    circuit = measured(case.num_qubits, case.gates)
    packed = load(circuit).packed
    actual, item = _alternate(
        rounds, lambda: worker.run(packed), lambda: _check_success(aer.run(circuit, shots=SHOTS))
    )
    print(f"{case.name}: ours {actual:.4f}, Aer {item:.4f}")
    report.at_most("shots_of_aer", actual / item, f"{case.name}: 1,000 shots, share of Aer")
    if case.long:
        return  # Aer's values would take two hours
    bare = QuantumCircuit(case.num_qubits)
    bare.compose(
        circuit.remove_final_measurements(inplace=False), range(case.num_qubits), inplace=True
    )
    places = np.linspace(0, case.num_qubits - 2, PAIRS).astype(int).tolist()
    labels = ["".join("Z" if q in (k, k + 1) else "I" for q in reversed(range(case.num_qubits)))
              for k in places]  # fmt: skip
    result = bare.copy()
    for k, place in enumerate(places):
        result.save_expectation_value(SparsePauliOp("ZZ"), [place, place + 1], label=str(k))
    plain = _circuit(bare)
    observables = tuple(PauliSum((label,), np.ones(1)) for label in labels)
    entries: dict[str, Any] = {}

    def our_values() -> None:
        entries["ours"] = simulate(
            plain, shots=0, engine="mps", outputs=("expectation",), observables=observables,
            settings=settings,
        )  # fmt: skip

    def aer_values() -> None:
        entries["aer"] = _check_success(aer.run(result, shots=1))

    actual, item = _alternate(rounds, our_values, aer_values)
    values = np.frombuffer(entries["ours"].expectations).reshape(-1, 2)[:, 0]
    data = entries["aer"].data(0)
    off = max(abs(data[str(k)] - value) for k, value in enumerate(values.tolist()))
    print(f"{case.name}: {PAIRS} values: ours {actual:.4f}, Aer {item:.4f}")
    report.at_most("value_error", off, f"{case.name}: values, from Aer's")


def _qaoa(report: Report, rounds: int, seed: int) -> None:
    """Measure shots and expectation values of all edges, through a service."""
    gates, edges = qaoa(QUBITS, seed)
    circuit = measured(QUBITS, gates)
    bare = circuit.remove_final_measurements(inplace=False)
    labels = ["".join("Z" if q in edge else "I" for q in reversed(range(QUBITS))) for edge in edges]
    sums = [SparsePauliOp(label) for label in labels]
    name = f"QAOA, {QUBITS} qubits"
    with simenv.local(workers=1) as env:
        shots_s, values_s = [], []
        result = None
        for number in range(rounds + 1):  # round 0 loads the library
            begin_s = time.perf_counter()
            task = env.submit(circuit, shots=SHOTS, seed=number, engine="contraction")
            result = task.result()
            shots_s.append(time.perf_counter() - begin_s)
            begin_s = time.perf_counter()
            entry = env.submit(bare, shots=0, observables=sums, engine="contraction").result()
            values_s.append(time.perf_counter() - begin_s)
        assert result is not None
        chosen = env.submit(circuit, shots=SHOTS, seed=1).result()
        print(f"{name}: {result.remark}; auto chooses {chosen.engine}")
    report.at_most("qaoa_shots_s", statistics.median(shots_s[1:]), f"{name}: 1,000 shots, s")
    report.at_most(
        "qaoa_values_s", statistics.median(values_s[1:]), f"{name}: {len(edges)} edges, s"
    )
    values = [float(each) for each in entry.expectations]
    if installed("quimb"):
        import quimb.tensor as tensors

        peer = tensors.Circuit(QUBITS)
        for gate, wires, angles in gates:
            peer.apply_gate(gate.upper(), *angles, *wires)
        operator = np.diag([1.0, -1.0, -1.0, 1.0])
        plain = _circuit(bare)
        observables = tuple(PauliSum((label,), np.ones(1)) for label in labels)

        def theirs() -> list[float]:
            return [float(np.real(peer.local_expectation(operator, edge))) for edge in edges]

        def ours() -> object:
            return simulate(
                plain, shots=0, engine="contraction", outputs=("expectation",),
                observables=observables,
            )  # fmt: skip

        off = max(abs(value - expected) for value, expected in zip(values, theirs(), strict=True))
        if off > 1e-8:
            raise SystemExit(f"{name}: values differ from quimb's by {off}")
        our_s, their_s = _alternate(rounds, ours, theirs)
        print(f"{name}: values: ours {our_s:.4f}, quimb {their_s:.4f}")
        report.at_most("qaoa_of_quimb", our_s / their_s, f"{name}: values, share of quimb")


def grid(depth: int, seed: int) -> list[Gate]:
    """Return layers of random gates on each qubit, then CZ on every second pair of neighbours along
    rows or columns in turn; random gates last."""
    random, (rows, columns) = np.random.default_rng(seed), GRID
    places = np.arange(rows * columns).reshape(rows, columns)
    results: list[Gate] = []
    for layer in range(depth + 1):
        for qubit in range(places.size):
            results.append(("u3", (qubit,), tuple(random.uniform(0, 2 * np.pi, 3).tolist())))
        lines = (places, places.T)[layer % 2][:, layer // 2 % 2 :]
        pairs = zip(lines[:, :-1:2].flat, lines[:, 1::2].flat, strict=True)
        results += [("cz", (int(a), int(b)), ()) for a, b in pairs if layer < depth]
    return results


def _amplitudes(report: Report, rounds: int, seed: int) -> None:
    """Measure amplitudes of random bit strings with our engine and with quimb."""
    import quimb.tensor as tensors

    num_qubits, gates = GRID[0] * GRID[1], grid(DEPTH, seed)
    name = f"grid of {num_qubits} qubits, depth {DEPTH}"
    peer, circuit = tensors.Circuit(num_qubits), QuantumCircuit(num_qubits)
    for gate, wires, angles in gates:
        peer.apply_gate(gate.upper(), *angles, *wires)
        getattr(circuit, "u" if gate == "u3" else gate)(*angles, *wires)
    plain = _circuit(circuit)
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
    one_s, peer_s = _alternate(rounds, lambda: ours(1), theirs)
    many_s, more_s = _alternate(rounds, lambda: ours(STRINGS), theirs)
    one, many = one_s * PEER_STRINGS / peer_s, many_s * PEER_STRINGS / (STRINGS * more_s)
    print(
        f"{name}: one {one_s:.4f}, {STRINGS} {many_s:.4f}, quimb's one {peer_s / PEER_STRINGS:.4f}"
    )
    report.at_most("amplitude_of_quimb", one, f"{name}: one amplitude, share of quimb")
    report.at_most("amplitudes_of_quimb", many, f"{name}: {STRINGS} amplitudes, share of quimb")


def _circuit(circuit: QuantumCircuit) -> Circuit:
    from simenv.model import decode_program

    return Circuit.from_program(decode_program(load(circuit).packed))


def _alternate(
    rounds: int, ours: Callable[[], object], theirs: Callable[[], object]
) -> tuple[float, float]:
    """Return the median CPU seconds of both calls, after one call of ours that loads kernels."""
    if rounds > 1:
        ours()
    times = rounds_of({"ours": ours, "theirs": theirs}, rounds, clock=time.process_time)
    our_s, their_s = (statistics.median(each) for each in times.values())
    return our_s, their_s


def _check_success(job: Any) -> Any:
    result = job.result()
    if not result.success:
        raise SystemExit(f"Aer: {result.status}")
    return result
