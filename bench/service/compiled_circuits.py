"""Circuits as people write them on wide emulated devices: forecasts against runs, and refusals."""

from __future__ import annotations

import itertools
import time
from argparse import Namespace
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import networkx
import numpy as np
import psutil
from qiskit import QuantumCircuit, transpile
from qiskit.circuit.library import XXPlusYYGate, efficient_su2
from qiskit.transpiler.exceptions import TranspilerError

import simenv
from bench.circuits import Pairs, measured, qaoa
from bench.harness import SEED, Report, benchmark
from bench.harness.environments import cpu_s, service_process
from bench.harness.timing import memory_bytes
from noise_models import library
from noise_models.calibration import CalibrationSnapshot
from simenv.client.client import Client
from simenv.errors import SimenvError, TaskExpiredError, TaskFailedError
from simenv.frontends.qiskit import SimenvBackend
from simenv.model.availability import Availability

SHOTS, WIDTHS = 1_000, (127, 133, 156)  # of Eagles and Herons
ALONE = "compiled by simenv"
LEVELS = (ALONE, 0, 1, 2, 3)
SHORT_S = 1.0  # shorter forecasts count as this
SMALL_BYTES = 64 * 2**20  # memory that is not looked at: of the interpreter and of its libraries
CLEAR_PEAK = "5"  # man proc_pid_clear_refs
Random = np.random.Generator


@benchmark(seed=SEED, circuits=(200, 12), longest=60.0)
def compiled_circuits(report: Report, options: Namespace) -> None:
    """Random circuits of nine kinds on every fake Heron and Eagle, with every calibrated channel.

    Layers of rzz, QFT (cp), swaps, QAOA of one and two layers on 3-regular graphs, Trotter steps,
    hardware-efficient ansatzes, LUCJ of up to 8 orbitals, and GHZ states by measurements and
    conditions, of 30 qubits up to those that the device connects; compiled by Qiskit at a random
    level for the device's Target, or given as they are. Default options, 1,000 shots. The engine's
    time and the memory that the worker took, each against what `explain` said before; the service's
    CPU time for those that are refused at submission. Those for which `explain` says more than
    `--longest` seconds are counted, and not run; a run is ended at ten times these.
    """
    random, found = np.random.default_rng(options.seed), Counter[str]()
    devices = [each for each in library.names() if _is_wide(library.load(each))]
    ratios, memory, refused = [0.0], [0.0], [0.0]
    with simenv.local(workers=1) as client:
        for engine in ("sweep", "dmt", "statevector"):  # starts the worker, loads kernels
            client.run(KINDS["rzz"](3, random), device=devices[0], shots=10, engine=engine)
        service, targets = service_process(client), dict[str, Any]()
        for number in range(options.circuits):
            kind = list(KINDS)[number % len(KINDS)]
            device = devices[int(random.integers(len(devices)))]
            level = LEVELS[int(random.integers(len(LEVELS)))]
            connected = Availability(client.device(device)).most_connected
            circuit = KINDS[kind](_width(kind, connected, random), random)
            label = f"{kind} {circuit.num_qubits}, {device}, {level}"
            if level != ALONE:
                if device not in targets:
                    targets[device] = SimenvBackend(device, client).target
                placed: dict[str, Any] = {
                    "target": targets[device],
                    "seed_transpiler": int(random.integers(2**31)),
                }
                try:
                    circuit = transpile(circuit, optimization_level=int(level), **placed)
                except TranspilerError:  # level 0 places qubits on those that do not work
                    found["placed again"] += 1
                    circuit = transpile(circuit, optimization_level=1, **placed)
            how: dict[str, Any] = {
                "device": device,
                "shots": SHOTS,
                "seed": int(random.integers(2**32)),
            }
            before = cpu_s(service)
            try:
                choice = client.explain(circuit, **how).engines[0]
            except SimenvError as error:
                found["not explained"] += 1
                print(f"{label}: not explained: {str(error)[:200]}", flush=True)
                continue
            if not choice.chosen:
                found["refused"] += _is_refused(client, circuit, how)
                spent = cpu_s(service) - before
                print(f"{label}: refused, {spent:.2f} s of CPU; {choice.why[:80]}", flush=True)
                refused.append(spent)
                continue
            if choice.seconds > options.longest:
                found["long"] += 1
                print(f"{label}: {choice.engine}, {choice.seconds:.0f} s: not run", flush=True)
                continue
            ratio, growth, text = _run(client, circuit, how, choice, options.longest)
            found[("ran" if growth >= 0.0 else "ended") if ratio else "failed"] += 1
            print(f"{label}: {choice.engine}, {choice.seconds:.2g} s; {text}", flush=True)
            ratios.append(ratio)
            memory.append(growth)
    print(", ".join(f"{count} {name}" for name, count in found.items()))
    report.at_most("failed", found["failed"] + found["not explained"])
    wanted = found["ran"] + found["failed"] + found["ended"] + found["refused"]
    report.at_least("ran", found["ran"] / max(1, wanted))
    report.at_most("of_forecast", max(ratios))
    report.at_most("off_by", float(np.median([max(each, 1 / each) for each in ratios if each])))
    report.at_most("of_memory", max(memory))
    report.at_most("refusal_cpu_s", max(refused))


def _is_wide(snapshot: CalibrationSnapshot) -> bool:
    """Whether a device is a Heron or an Eagle with gates on pairs; those of kyoto are broken."""
    return snapshot.num_qubits in WIDTHS and len(snapshot.coupled) >= snapshot.num_qubits // 2


def _is_refused(client: Client, circuit: QuantumCircuit, how: dict[str, Any]) -> bool:
    """Submit what no engine takes."""
    with suppress(SimenvError):
        client.submit(circuit, **how).cancel()
        return False
    return True


def _run(
    client: Client, circuit: QuantumCircuit, how: dict[str, Any], choice: Any, longest: float
) -> tuple[float, float, str]:
    """Return the engine's time and the worker's memory by their forecasts, and a line on them; a
    time of 0 where it failed, a memory of -1 where it was ended."""
    (worker,) = client.workers()
    Path(f"/proc/{worker.pid}/clear_refs").write_text(CLEAR_PEAK)
    held = psutil.Process(worker.pid).memory_info().rss
    begin, expected_s = time.perf_counter(), max(choice.seconds, SHORT_S)
    try:
        result = client.run(circuit, run_timeout_s=10 * longest, **how)
    except TaskExpiredError:
        seconds = time.perf_counter() - begin
        return seconds / expected_s, -1.0, f"ended after {seconds:.0f} s"
    except TaskFailedError as error:
        return 0.0, 0.0, f"FAILED: {str(error)[:300]}"
    grown = memory_bytes(worker.pid) - held - SMALL_BYTES
    ratio = float(result.timing.run_s) / expected_s
    size = max(0.0, grown / max(choice.memory_bytes, 1))
    return ratio, size, f"took {ratio:.2f} of it, {size:.2f} of its memory ({result.engine})"


def _width(kind: str, most: int, random: Random) -> int:
    if kind == "lucj":
        return 2 * int(random.integers(4, 9))
    return 2 * int(random.integers(15, most // 2))


def _turns(qubits: int, random: Random) -> Iterator[Any]:
    for qubit in range(qubits):
        yield "u", (qubit,), tuple(random.uniform(0, 2 * np.pi, 3).tolist())


def _neighbours(qubits: int, first: int = 0) -> Pairs:
    return [(k, k + 1) for k in range(first, qubits - 1, 2)]


def _layers(name: str, qubits: int, random: Random) -> QuantumCircuit:
    """Return layers of random gates and one gate on every second pair of neighbours."""
    gates = list[Any]()
    for layer in range(int(random.integers(1, 5))):
        gates += _turns(qubits, random)
        for pair in _neighbours(qubits, layer % 2):
            gates.append((name, pair, () if name == "swap" else (random.uniform(0, 2),)))
    return measured(qubits, [*gates, *_turns(qubits, random)])


def _fourier(qubits: int, random: Random) -> QuantumCircuit:
    """Return an approximate QFT of a random basis state, with cp over at most three qubits."""
    gates = [("x", (int(q),), ()) for q in np.flatnonzero(random.random(qubits) < 0.5)]
    for k in reversed(range(qubits)):
        gates.append(("h", (k,), ()))
        gates += [("cp", (j, k), (np.pi / 2 ** (k - j),)) for j in range(max(0, k - 2), k)]
    return measured(qubits, gates)


def _regular(layers: int, qubits: int, random: Random) -> QuantumCircuit:
    graph = networkx.random_regular_graph(3, qubits, int(random.integers(2**31)))
    gamma, beta = random.uniform(0.2, 1.2, 2)
    return measured(qubits, qaoa(qubits, graph.edges, layers, gamma, beta))


def _trotter(qubits: int, random: Random) -> QuantumCircuit:
    """Return Trotter steps of a Heisenberg chain."""
    gates = [("x", (q,), ()) for q in range(0, qubits, 2)]
    for _ in range(int(random.integers(1, 4))):
        for first in (0, 1):
            for pair, name in itertools.product(_neighbours(qubits, first), ("rxx", "ryy", "rzz")):
                gates.append((name, pair, (0.3,)))
    return measured(qubits, gates)


def _efficient(qubits: int, random: Random) -> QuantumCircuit:
    entanglement = str(random.choice(["linear", "pairwise", "reverse_linear", "circular"]))
    ansatz = efficient_su2(qubits, reps=int(random.integers(1, 4)), entanglement=entanglement)
    circuit = ansatz.assign_parameters(random.uniform(0, 2 * np.pi, ansatz.num_parameters))
    circuit.measure_all()
    return circuit


def _lucj(qubits: int, random: Random) -> QuantumCircuit:
    """Return a local unitary cluster Jastrow ansatz of one repetition (arXiv 2309.16754): orbital
    rotations by Givens gates, and phases of pairs of orbitals of one spin, and of both at every
    fourth orbital."""
    orbitals = qubits // 2
    circuit = QuantumCircuit(qubits)
    spins = (range(orbitals), range(orbitals, qubits))
    for spin in spins:
        circuit.x(spin[: orbitals // 2])
    for part in range(2):
        for spin in spins:
            for k in range(orbitals):
                for a, b in _neighbours(orbitals, k % 2):
                    turn, phase = random.uniform(0, np.pi, 2)
                    circuit.append(XXPlusYYGate(turn, phase), [spin[a], spin[b]])
        if part == 0:
            for spin in spins:
                for a, b in itertools.pairwise(spin):
                    circuit.cp(random.uniform(0, 1), a, b)
            for k in range(0, orbitals, 4):
                circuit.cp(random.uniform(0, 1), k, orbitals + k)
    circuit.measure_all()
    return circuit


def _ghz(qubits: int, _random: Random) -> QuantumCircuit:
    """Return a GHZ state of every second qubit in constant depth: the parity of neighbours is
    measured, and all qubits behind an odd one are flipped."""
    data, between = list(range(0, qubits, 2)), list(range(1, qubits - 1, 2))
    circuit = QuantumCircuit(qubits, len(between) + len(data))
    circuit.h(data)
    for k in between:
        circuit.cx(k - 1, k)
        circuit.cx(k + 1, k)
    circuit.measure(between, range(len(between)))
    for bit, k in enumerate(between):
        with circuit.if_test((circuit.clbits[bit], 1)):
            for q in data:
                if q > k:
                    circuit.x(q)
    circuit.measure(data, range(len(between), len(between) + len(data)))
    return circuit


KINDS: dict[str, Callable[[int, Random], QuantumCircuit]] = {
    "rzz": partial(_layers, "rzz"), "qft": _fourier, "swap": partial(_layers, "swap"),
    "qaoa_1": partial(_regular, 1), "qaoa_2": partial(_regular, 2),
    "trotter": _trotter, "hardware_efficient": _efficient, "lucj": _lucj, "ghz": _ghz,
}  # fmt: skip
